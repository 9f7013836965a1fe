package transfer

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/treehash"
)

func noise(seed byte, n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{seed}).Read(b)
	return b
}

// memStore is a vault in memory with the contract's strictness, and hooks.
type memStore struct {
	coldstore.Store // nil: what is not needed panics
	traits          coldstore.Traits

	mu       sync.Mutex
	uploads  map[string]*memUpload
	archives map[string][]byte
	nUploads int
	puts     int
	inFlight int
	most     int
	aborted  []string
	opens    []coldstore.Range
	served   int64

	// before and after are asked at each call; after's error stands for an answer that was lost.
	before, after func(ctx context.Context, op string) error
	// cut is after how many bytes a reader breaks off; 0: never.
	cut   func(open int) int64
	flip  func(open int, off int64) bool
	onPut func()
}

type memUpload struct {
	coldstore.NewArchive
	partSize int64
	parts    map[int64][]byte
	done     *coldstore.Archive
}

func newMemStore() *memStore {
	return &memStore{
		traits:   coldstore.Traits{NamesKept: true, MinPart: mib, MaxPart: 4 << 30, MaxParts: 10000},
		uploads:  map[string]*memUpload{},
		archives: map[string][]byte{},
	}
}

func (m *memStore) Traits() coldstore.Traits { return m.traits }

func (m *memStore) hook(ctx context.Context, h func(context.Context, string) error, op string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if h != nil {
		return h(ctx, op)
	}
	return nil
}

func (m *memStore) CreateUpload(ctx context.Context, a coldstore.NewArchive, partSize int64) (coldstore.Upload, error) {
	if err := m.hook(ctx, m.before, "create"); err != nil {
		return coldstore.Upload{}, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.nUploads++
	id := fmt.Sprintf("upload-%d", m.nUploads)
	m.uploads[id] = &memUpload{NewArchive: a, partSize: partSize, parts: map[int64][]byte{}}
	if err := m.hook(ctx, m.after, "create"); err != nil {
		return coldstore.Upload{}, err
	}
	return coldstore.Upload{ID: id, PartSize: partSize, NewArchive: a}, nil
}

func (m *memStore) PutPart(ctx context.Context, id string, off int64, data []byte, hash treehash.Hash) error {
	m.mu.Lock()
	m.inFlight++
	m.most = max(m.most, m.inFlight)
	m.mu.Unlock()
	defer func() {
		m.mu.Lock()
		m.inFlight--
		m.mu.Unlock()
	}()
	if m.onPut != nil {
		m.onPut()
	}
	if err := m.hook(ctx, m.before, "put"); err != nil {
		return err
	}
	if treehash.Sum(data) != hash {
		return coldstore.ErrIntegrity
	}
	m.mu.Lock()
	u := m.uploads[id]
	if u == nil || u.done != nil {
		m.mu.Unlock()
		return coldstore.ErrNotFound
	}
	if off%u.partSize != 0 || int64(len(data)) > u.partSize {
		m.mu.Unlock()
		return coldstore.ErrInvalid
	}
	u.parts[off] = bytes.Clone(data)
	m.puts++
	m.mu.Unlock()
	return m.hook(ctx, m.after, "put")
}

func (m *memStore) CompleteUpload(ctx context.Context, id string, size int64, hash treehash.Hash) (coldstore.Archive, error) {
	if err := m.hook(ctx, m.before, "complete"); err != nil {
		return coldstore.Archive{}, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	u := m.uploads[id]
	if u == nil {
		return coldstore.Archive{}, coldstore.ErrNotFound
	}
	if u.done == nil {
		var all []byte
		for off := int64(0); u.parts[off] != nil; off += u.partSize {
			all = append(all, u.parts[off]...)
		}
		if int64(len(all)) != size {
			return coldstore.Archive{}, coldstore.ErrInvalid
		}
		if treehash.Sum(all) != hash {
			return coldstore.Archive{}, coldstore.ErrIntegrity
		}
		m.archives[u.Name] = all
		u.done = &coldstore.Archive{ID: u.Name, Description: u.Description, Size: size, TreeHash: hash}
	}
	if err := m.hook(ctx, m.after, "complete"); err != nil {
		return coldstore.Archive{}, err
	}
	return *u.done, nil
}

func (m *memStore) AbortUpload(ctx context.Context, id string) error {
	if err := m.hook(ctx, m.before, "abort"); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.aborted = append(m.aborted, id)
	delete(m.uploads, id)
	return nil
}

func (m *memStore) List(ctx context.Context, fn func(coldstore.Archive) error) (time.Time, error) {
	if err := m.hook(ctx, m.before, "list"); err != nil {
		return time.Time{}, err
	}
	for id, data := range m.archives {
		if err := fn(coldstore.Archive{ID: id, Size: int64(len(data)), TreeHash: treehash.Sum(data)}); err != nil {
			return time.Time{}, err
		}
	}
	return time.Time{}, nil
}

func (m *memStore) OpenRetrieved(ctx context.Context, r coldstore.Retrieval, off, size int64) (io.ReadCloser, error) {
	if err := m.hook(ctx, m.before, "open"); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	data := m.archives[r.Archive]
	rg := r.Range
	if rg.IsWhole() {
		rg.Size = int64(len(data))
	}
	if off < rg.Offset || size <= 0 || off+size > rg.Offset+rg.Size {
		return nil, fmt.Errorf("range %d+%d: %w", off, size, coldstore.ErrInvalid)
	}
	m.opens = append(m.opens, coldstore.Range{Offset: off, Size: size})
	rd := &memReader{m: m, ctx: ctx, open: len(m.opens) - 1, off: off, data: data[off : off+size], cut: -1}
	if m.cut != nil {
		if n := m.cut(rd.open); n > 0 {
			rd.cut = n
		}
	}
	return rd, nil
}

type memReader struct {
	m    *memStore
	ctx  context.Context
	open int
	off  int64
	data []byte
	cut  int64
}

func (r *memReader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	if len(r.data) == 0 {
		return 0, io.EOF
	}
	if r.cut == 0 {
		return 0, io.ErrUnexpectedEOF
	}
	n := min(len(p), len(r.data), 100_000)
	if r.cut > 0 {
		n = min(n, int(r.cut))
		r.cut -= int64(n)
	}
	copy(p, r.data[:n])
	if r.m.flip != nil {
		for i := range n {
			if r.m.flip(r.open, r.off+int64(i)) {
				p[i] ^= 1
			}
		}
	}
	r.data = r.data[n:]
	r.off += int64(n)
	r.m.mu.Lock()
	r.m.served += int64(n)
	r.m.mu.Unlock()
	return n, nil
}

func (r *memReader) Close() error { return nil }

// A pauser is an Options.Sleep that only counts.
type pauser struct {
	mu     sync.Mutex
	pauses []time.Duration
}

func (p *pauser) sleep(ctx context.Context, d time.Duration) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.pauses = append(p.pauses, d)
	return ctx.Err()
}

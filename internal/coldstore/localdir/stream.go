package localdir

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/internal/durable"
	"github.com/firn-backup/firn/treehash"
)

// Buffers of a part that is put as it comes: one is read while another is hashed and written.
const (
	streamBuffer  = 1 << 20
	streamBuffers = 3
	// writeBehind is after how many bytes the kernel is asked to begin writing, so that
	// the sync at the end has little left to do.
	writeBehind = 8 << 20
)

// HashMismatch is the ErrIntegrity of a part that was read as it came.
type HashMismatch struct{ Want, Got treehash.Hash }

func (e *HashMismatch) Error() string {
	return fmt.Sprintf("its tree hash is %s, not %s", e.Got, e.Want)
}

// Unwrap makes it coldstore.ErrIntegrity.
func (e *HashMismatch) Unwrap() error { return coldstore.ErrIntegrity }

// streams are the parts that are being written straight into their uploads.
type streams struct {
	mu     sync.Mutex
	direct map[streamKey]*stream
}

type streamKey struct {
	upload string
	off    int64
}

// how a part that comes in is dealt with.
type streamMode int

const (
	direct streamMode = iota // written into the upload: there was no part at its place
	spool                    // written to a file of its own first: what is there must outlast a failure
	verify                   // only read and compared: the same part is there
)

// stream is one part that is coming in.
type stream struct {
	s       *Store
	key     streamKey
	size    int64
	hash    treehash.Hash
	mode    streamMode
	file    *os.File // what is written to; nil for verify
	base    int64    // where in file
	revoked bool     // another part was acknowledged at its place; guarded by streams.mu
	begun   int64    // bytes of which writing was begun
}

// PutPartFrom is PutPart for a part of size bytes that is read from r as it comes, in memory of a few MiB
// whatever its size. r is read to its end; an error of r, and one in place of its end, is returned wrapped. A
// *HashMismatch is the ErrIntegrity of data that does not have that tree hash. After any error, what was at
// that place before is there still. Of several that put the same part at once the last one to end wins;
// one that began before it and ends after it may get ErrTemporary. No lock is held while
// r makes it wait.
func (s *Store) PutPartFrom(ctx context.Context, uploadID string, off int64, r io.Reader, size int64, hash treehash.Hash) error {
	if err := s.putPartFrom(ctx, uploadID, off, r, size, hash); err != nil {
		return fmt.Errorf("put part at %d of upload %s: %w", off, uploadID, err)
	}
	return nil
}

func (s *Store) putPartFrom(ctx context.Context, id string, off int64, r io.Reader, size int64, hash treehash.Hash) error {
	t := &stream{s: s, key: streamKey{id, off}, size: size, hash: hash}
	if err := s.withPart(ctx, t.key, size, t.begin); err != nil {
		return err
	}
	defer t.end()
	got, err := t.copy(ctx, r)
	if err != nil {
		return err
	}
	if got != hash {
		return &HashMismatch{Want: hash, Got: got}
	}
	if t.file != nil && t.mode == direct {
		if err := durable.SyncData(t.file); err != nil {
			return err
		}
		s.at("part in the cache")
	}
	return s.withPart(ctx, t.key, size, t.acknowledge)
}

// withPart calls do while nobody ends the upload or changes the part at that place. moved says
// that a completion has taken the data away already and was cut short.
func (s *Store) withPart(ctx context.Context, k streamKey, size int64, do func(ctx context.Context, u *upload, log *os.File, moved bool) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	u, log, err := s.openUpload(ctx, k.upload, durable.Shared)
	if err != nil {
		return err
	}
	defer log.Close()
	partSize := u.head.PartSize
	switch {
	case size < 1:
		return fmt.Errorf("the part is empty: %w", coldstore.ErrInvalid)
	case size > partSize:
		return fmt.Errorf("the part has %d bytes, parts of this upload have %d: %w", size, partSize, coldstore.ErrInvalid)
	case k.off < 0 || k.off%partSize != 0:
		return fmt.Errorf("the offset is no multiple of the part size %d: %w", partSize, coldstore.ErrInvalid)
	case k.off/partSize >= maxParts:
		return fmt.Errorf("an upload has at most %d parts: %w", maxParts, coldstore.ErrInvalid)
	}
	u.use.RLock()
	defer u.use.RUnlock()
	one := &u.parts[k.off/partSize%int64(len(u.parts))]
	one.Lock()
	defer one.Unlock()
	moved := false
	if _, err := os.Lstat(s.uploadData(k.upload)); isAbsent(err) {
		moved = true
	} else if err != nil {
		return err
	}
	if moved {
		open, err := s.isOpen(u)
		if err != nil {
			return err
		}
		if !open {
			s.forget(k.upload)
			return s.notFound()
		}
	}
	return do(ctx, u, log, moved)
}

// begin decides how the part is dealt with.
func (t *stream) begin(_ context.Context, u *upload, _ *os.File, moved bool) error {
	p, there := u.part(t.key.off)
	switch {
	case there && p.Size == t.size && p.TreeHash == t.hash:
		t.mode = verify
		return nil
	case moved:
		return fmt.Errorf("its completion has begun and must be repeated: %w", coldstore.ErrInvalid)
	}
	x := &t.s.streaming
	x.mu.Lock()
	defer x.mu.Unlock()
	if there || x.direct[t.key] != nil {
		t.mode = spool
		path := filepath.Join(t.s.uploadDir(t.key.upload), durable.TempMark+rand.Text())
		var err error
		t.file, err = os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, filePerm)
		return err
	}
	f, err := os.OpenFile(t.s.uploadData(t.key.upload), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	t.file, t.base = f, t.key.off
	if x.direct == nil {
		x.direct = map[streamKey]*stream{}
	}
	x.direct[t.key] = t
	return nil
}

func (t *stream) end() {
	if t.file != nil {
		t.file.Close() // what was to be kept was synced
	}
	switch t.mode {
	case direct:
		x := &t.s.streaming
		x.mu.Lock()
		if x.direct[t.key] == t {
			delete(x.direct, t.key)
		}
		x.mu.Unlock()
	case spool:
		os.Remove(t.file.Name())
	}
}

// copy reads the part, hashes and writes it.
func (t *stream) copy(ctx context.Context, r io.Reader) (treehash.Hash, error) {
	type filled struct {
		buf []byte
		n   int
		err error
	}
	free, full := make(chan []byte, streamBuffers), make(chan filled, streamBuffers)
	for range streamBuffers {
		free <- make([]byte, min(streamBuffer, t.size))
	}
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		defer close(full)
		for left := t.size; ; {
			var buf []byte
			select {
			case buf = <-free:
			case <-stop:
				return
			}
			n, err := readSome(r, buf, left)
			left -= int64(n)
			full <- filled{buf, n, err} // there is room for every buffer
			if err != nil {
				return
			}
		}
	}()
	defer func() { close(stop); <-stopped }() // r is not read any more when this returns
	h := treehash.New()
	for f := range full {
		if f.n > 0 {
			data := f.buf[:f.n]
			_, _ = h.Write(data) // never fails
			if err := t.write(ctx, data, h.Size()-int64(f.n)); err != nil {
				return treehash.Hash{}, err
			}
		}
		if errors.Is(f.err, io.EOF) {
			break
		}
		if f.err != nil {
			return treehash.Hash{}, f.err
		}
		free <- f.buf
	}
	return h.Sum(), nil
}

// readSome fills buf, or as much of it as is left. At the end, when exactly that much was read, it returns io.EOF.
func readSome(r io.Reader, buf []byte, left int64) (int, error) {
	if left == 0 { // the end itself may be an error
		var one [1]byte
		n, err := io.ReadFull(r, one[:])
		if n > 0 {
			return 0, fmt.Errorf("more data than was announced: %w", coldstore.ErrInvalid)
		}
		return 0, err
	}
	buf = buf[:min(int64(len(buf)), left)]
	n, err := io.ReadFull(r, buf)
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

// write writes data at at bytes into the part.
func (t *stream) write(ctx context.Context, data []byte, at int64) error {
	switch t.mode {
	case verify:
		return nil
	case spool:
		_, err := t.file.WriteAt(data, at)
		return err
	}
	return t.s.withPart(ctx, t.key, t.size, func(_ context.Context, _ *upload, _ *os.File, moved bool) error {
		if err := t.valid(moved); err != nil {
			return err
		}
		if _, err := t.file.WriteAt(data, t.base+at); err != nil {
			return err
		}
		if end := at + int64(len(data)); end-t.begun >= writeBehind {
			// Only a hint: what it fails to write, the sync writes.
			_ = unix.SyncFileRange(int(t.file.Fd()), t.base+t.begun, end-t.begun, unix.SYNC_FILE_RANGE_WRITE)
			t.begun = end
		}
		return nil
	})
}

// valid says whether a direct stream may still write to its place. The part is held.
func (t *stream) valid(moved bool) error {
	if moved { // without this part, so that it would lie behind the end of the archive
		return t.s.notFound()
	}
	x := &t.s.streaming
	x.mu.Lock()
	defer x.mu.Unlock()
	if t.revoked {
		return fmt.Errorf("the part was put by another meanwhile: %w", coldstore.ErrTemporary)
	}
	return nil
}

// acknowledge makes what has come in the part at its place.
func (t *stream) acknowledge(_ context.Context, u *upload, log *os.File, moved bool) error {
	p, there := u.part(t.key.off)
	same := there && p.Size == t.size && p.TreeHash == t.hash
	switch t.mode {
	case direct:
		if err := t.valid(moved); err != nil {
			return err
		}
	case verify:
		if !same {
			return fmt.Errorf("the part was put by another meanwhile: %w", coldstore.ErrTemporary)
		}
		return nil
	case spool:
		if same {
			return nil
		}
		if moved {
			return fmt.Errorf("its completion has begun and must be repeated: %w", coldstore.ErrInvalid)
		}
		if err := t.unspool(log, there); err != nil {
			return err
		}
	}
	t.s.at("part written")
	if err := appendLine(log, logLine{Part: &t.key.off, Size: t.size, Hash: t.hash, At: t.s.now()}); err != nil {
		return err
	}
	return u.refresh(log)
}

// unspool copies a part from its own file to its place.
func (t *stream) unspool(log *os.File, there bool) error {
	x := &t.s.streaming
	x.mu.Lock()
	if other := x.direct[t.key]; other != nil {
		other.revoked = true
		delete(x.direct, t.key)
	}
	x.mu.Unlock()
	if there {
		if err := appendLine(log, logLine{Drop: &t.key.off, At: t.s.now()}); err != nil {
			return err
		}
		if err := durable.SyncData(log); err != nil {
			return err
		}
		t.s.at("old part withdrawn")
	}
	f, err := os.OpenFile(t.s.uploadData(t.key.upload), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	from, to := io.NewSectionReader(t.file, 0, t.size), io.NewOffsetWriter(f, t.key.off)
	if n, err := io.CopyBuffer(struct{ io.Writer }{to}, struct{ io.Reader }{from}, make([]byte, streamBuffer)); err != nil {
		return err
	} else if n != t.size {
		return fmt.Errorf("%s has %d bytes instead of %d: %w", t.file.Name(), n, t.size, io.ErrUnexpectedEOF)
	}
	t.s.at("part in the cache")
	return durable.SyncData(f)
}

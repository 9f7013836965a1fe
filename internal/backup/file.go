package backup

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding"
	"encoding/gob"
	"fmt"
	"hash"
	"io"

	"github.com/firn-backup/firn/internal/catalog"
	"github.com/firn-backup/firn/internal/snapshot"
	"github.com/firn-backup/firn/internal/source"
	"github.com/firn-backup/firn/internal/tarstream"
)

// member is the tar member being written.
type member struct {
	entry   *snapshot.Entry
	hadBase bool
	stored  int64
	sparse  bool
	head    []byte
	written int64 // bytes of the member in the stream so far, header included
	torn    bool  // what is being written is filling

	// chunk is the piece of content being written, and before the state of the
	// content's SHA-256 at its beginning, which is chunkAt bytes into the content.
	chunk   []byte
	chunkAt int64
	before  []byte
}

// fileState is what a checkpoint keeps of the member that a volume's end cuts.
type fileState struct {
	Ended   bool // the stream is complete
	InFile  bool
	Entry   snapshot.Entry // with the content's address
	HadBase bool
	Stored  int64
	Sparse  bool
	Done    int64 // bytes of content in the volumes stored
	Prefix  [32]byte
	Rest    []byte // bytes of the header that did not fit any more
	Torn    bool   // the content is being filled up, its file having changed
	Filled  bool   // the content was filled up: the path has yet to be dealt with
	Pad     int    // bytes of padding that did not fit, when all the content did
}

func encodeState(st fileState) []byte {
	var b bytes.Buffer
	if err := gob.NewEncoder(&b).Encode(st); err != nil {
		panic(fmt.Sprintf("backup: encode a checkpoint: %v", err)) // plain data always encodes
	}
	return b.Bytes()
}

func decodeState(k catalog.Checkpoint) (fileState, error) {
	var st fileState
	if len(k.State) == 0 {
		return st, nil
	}
	if err := gob.NewDecoder(bytes.NewReader(k.State)).Decode(&st); err != nil {
		return st, fmt.Errorf("checkpoint of volume %d: %w", k.Volume, err)
	}
	return st, nil
}

// cut is called by the volume writer, within Write or Boundary, when volume n has ended.
func (em *emitter) cut(n int) {
	k := catalog.Checkpoint{Path: em.lastPath, Started: em.started}
	if m := em.member; m != nil && m.written > 0 {
		k.Path, k.Started, k.InFile = m.entry.Path, true, true
		k.State = encodeState(m.state())
	} else if em.redo != nil {
		k.Path, k.Started, k.InFile = em.redo.Entry.Path, true, true
		k.State = encodeState(*em.redo)
	}
	em.cks.put(n, k)
}

func (m *member) state() fileState {
	st := fileState{InFile: true, Entry: *m.entry, HadBase: m.hadBase, Stored: m.stored, Sparse: m.sparse}
	pos := m.written
	if head := int64(len(m.head)); pos < head {
		st.Rest = bytes.Clone(m.head[pos:])
		pos = 0
	} else {
		pos -= head
	}
	st.Done = min(pos, m.stored)
	if pos >= m.stored {
		st.Pad = tarstream.Padding(m.stored) - int(pos-m.stored)
	}
	if m.torn {
		st.Torn = true
		return st
	}
	h := sha256.New()
	if m.before != nil {
		if err := h.(encoding.BinaryUnmarshaler).UnmarshalBinary(m.before); err != nil {
			panic(fmt.Sprintf("backup: %v", err)) // it was marshalled here
		}
	}
	if st.Done > m.chunkAt {
		h.Write(m.chunk[:st.Done-m.chunkAt])
	}
	h.Sum(st.Prefix[:0])
	return st
}

// file emits a regular file: its content when that is new, its metadata alone
// when it is not.
func (em *emitter) file(j *job) error {
	e := &j.entry
	if lead, ok, err := em.links.leader(em.ctx, e); err != nil {
		return err
	} else if ok {
		return em.linked(j, lead)
	}
	if j.same {
		e.Content = j.old.Content
		em.links.add(e)
		if sameEntry(e, j.old) {
			em.count(Unchanged, e)
			return em.rec.Refresh(em.ctx, e)
		}
		em.count(Metadata, e)
		return em.rec.Put(em.ctx, e)
	}
	var err error
	if j.data != nil {
		err = em.small(j)
	} else {
		err = em.large(j)
	}
	em.member = nil
	return err
}

// linked emits another name of a file whose content is stored already.
func (em *emitter) linked(j *job, lead leader) error {
	e := &j.entry
	e.Content, e.Torn = lead.content, lead.torn
	if j.old != nil && sameEntry(e, j.old) {
		em.count(Unchanged, e)
		return em.rec.Refresh(em.ctx, e)
	}
	if j.old != nil && j.old.LinkGroup == e.LinkGroup && j.old.Content == e.Content {
		em.count(Metadata, e)
		return em.rec.Put(em.ctx, e)
	}
	if err := em.begin(e, 0, false, lead.path); err != nil {
		return err
	}
	em.member = nil
	em.count(j.action, e)
	return em.rec.Put(em.ctx, e)
}

// small emits a file that was read ahead.
func (em *emitter) small(j *job) error {
	e := &j.entry
	if err := em.begin(e, int64(len(j.data)), j.sparse, ""); err != nil {
		return err
	}
	m := em.member
	m.hadBase = j.old != nil
	em.address(e, m, j.sum)
	m.chunk = j.data
	if err := em.raw(j.data); err != nil {
		return err
	}
	return em.stored(j, j.warn)
}

// address sets the entry's content address: the next byte of the stream.
func (em *emitter) address(e *snapshot.Entry, m *member, sum [32]byte) {
	if m.stored == 0 {
		e.Content = snapshot.Content{}
		return
	}
	vol, off := em.w.Pos()
	e.Content = snapshot.Content{N: em.n, Volume: vol, Offset: off, Stored: m.stored, Sparse: m.sparse, SHA256: sum}
}

// stored ends a member whose content is written, and records the entry.
func (em *emitter) stored(j *job, warn error) error {
	e := &j.entry
	if err := em.raw(zeros[:tarstream.Padding(em.member.stored)]); err != nil {
		return err
	}
	em.member = nil
	if warn != nil {
		e.Torn = true
		if err := em.problem(e.Path, reason(warn)); err != nil {
			return err
		}
	}
	em.links.add(e)
	em.count(j.action, e)
	return em.rec.Put(em.ctx, e)
}

var zeros [512]byte

// large emits a file that is read now, a chunk ahead of the stream.
func (em *emitter) large(j *job) error {
	e := &j.entry
	now := em.r.o.Wall()
	f, err := em.r.o.Tree.Open(e)
	if err != nil {
		j.err = err
		return em.failed(j)
	}
	defer f.Close()
	markRacy(e, now)
	if err := em.begin(e, f.Stored(), f.Sparse(), ""); err != nil {
		return err
	}
	em.member.hadBase = j.old != nil
	em.address(e, em.member, [32]byte{})
	return em.content(j, f, sha256.New())
}

// content copies what is left of f, whose beginning h has seen, into the stream and ends the member.
func (em *emitter) content(j *job, f source.File, h hash.Hash) error {
	m := em.member
	ctx, cancel := context.WithCancel(em.ctx)
	defer cancel()
	c := readAhead(ctx, f, h, m.chunkAt, em.spare)
	defer func() { em.spare = c.stop() }()
	for p := range c.full {
		m.chunk, m.chunkAt, m.before = p.data, p.at, p.before
		if err := em.raw(p.data); err != nil {
			return err
		}
		c.free <- p.buf // never blocks: there is room for every buffer
	}
	if err := context.Cause(em.ctx); err != nil {
		return err
	}
	m.chunk, m.chunkAt, m.before = nil, m.stored, c.last
	if !j.entry.Content.IsZero() {
		h.Sum(j.entry.Content.SHA256[:0])
	}
	return em.stored(j, f.Check())
}

// piece is one chunk read ahead.
type piece struct {
	buf    []byte
	data   []byte
	at     int64
	before []byte
}

type chunks struct {
	full chan piece
	free chan []byte
	last []byte // state of the hash at the end
	quit context.CancelFunc
}

const (
	chunkSize   = 512 << 10
	chunksAhead = 4
)

// readAhead reads and hashes f in a goroutine of its own, at most three chunks ahead, into
// the spare buffers of the file before, as far as there are any.
func readAhead(ctx context.Context, f io.Reader, h hash.Hash, at int64, spare [][]byte) *chunks {
	ctx, quit := context.WithCancel(ctx)
	c := &chunks{full: make(chan piece, chunksAhead), free: make(chan []byte, chunksAhead), quit: quit}
	for i := range chunksAhead {
		if i < len(spare) {
			c.free <- spare[i]
		} else {
			c.free <- nil
		}
	}
	go func() {
		defer close(c.full)
		for {
			var buf []byte
			select {
			case buf = <-c.free:
			case <-ctx.Done():
				return
			}
			if buf == nil {
				buf = make([]byte, chunkSize)
			}
			state, err := h.(encoding.BinaryMarshaler).MarshalBinary()
			if err != nil {
				panic(fmt.Sprintf("backup: %v", err)) // SHA-256 of the standard library always marshals
			}
			n, err := io.ReadFull(f, buf)
			if n > 0 {
				h.Write(buf[:n])
				select {
				case c.full <- piece{buf, buf[:n], at, state}:
				case <-ctx.Done():
					return
				}
				at += int64(n)
			}
			if err != nil {
				c.last, _ = h.(encoding.BinaryMarshaler).MarshalBinary()
				return
			}
		}
	}()
	return c
}

// stop ends the reading, and returns the buffers; nothing uses f or the hash afterwards.
func (c *chunks) stop() [][]byte {
	c.quit()
	var spare [][]byte
	for p := range c.full {
		spare = append(spare, p.buf)
	}
	for {
		select {
		case b := <-c.free:
			if b != nil {
				spare = append(spare, b)
			}
		default:
			return spare
		}
	}
}

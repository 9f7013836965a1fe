package backup

import (
	"bytes"
	"crypto/sha256"
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
	written int64  // bytes of the member in the stream so far, header included
	torn    bool   // what is being written is filling
	fault   string // why the content, all of which is written, is not the file's; empty: it is

	// The content: whole, or, of a large file, the hash of what is in the stream. Neither: none is, or it is filling.
	data []byte
	seen hash.Hash
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
	Fault   string // why the content, of which only padding is missing, is not the file's; empty: it is
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
		st.Fault = m.fault
	}
	if m.torn {
		st.Torn = true
		return st
	}
	if m.seen != nil {
		m.seen.Sum(st.Prefix[:0])
	} else {
		st.Prefix = sha256.Sum256(m.data[:min(st.Done, int64(len(m.data)))])
	}
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
		if j.warn != nil {
			if err := em.faulty(e, reason(j.warn)); err != nil {
				return err
			}
		}
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
	e.Content = lead.content
	if lead.torn {
		markTorn(e)
	}
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
	m.data = j.data
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
	fault := ""
	if warn != nil {
		fault = reason(warn)
		em.member.fault = fault
	}
	if err := em.raw(zeros[:tarstream.Padding(em.member.stored)]); err != nil {
		return err
	}
	em.member = nil
	if fault != "" {
		if err := em.faulty(e, fault); err != nil {
			return err
		}
	}
	em.links.add(e)
	em.count(j.action, e)
	return em.rec.Put(em.ctx, e)
}

// faulty reports that what is stored of e is not what the file is.
func (em *emitter) faulty(e *snapshot.Entry, why string) error {
	markTorn(e)
	return em.problem(e.Path, why)
}

var zeros [512]byte

// large emits a file that is read now, into the stream.
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
	return em.content(j, f, 0, sha256.New())
}

// chunkSize is how much of a file is read and hashed at a time: few enough bytes to be still near when they are hashed.
const chunkSize = 512 << 10

// content reads what is left of f into the stream and ends the member. The first done bytes are there, and h has seen them.
func (em *emitter) content(j *job, f source.File, done int64, h hash.Hash) error {
	m := em.member
	m.seen = h
	for done < m.stored {
		room, err := em.w.Room(int(min(chunkSize, m.stored-done)))
		if err != nil {
			return err
		}
		n, err := io.ReadFull(f, room)
		if err != nil { // a source.File yields all it said
			return fmt.Errorf("read %s: %w", j.entry.Path, err)
		}
		h.Write(room)
		done += int64(n)
		if err := em.w.Filled(n); err != nil {
			return err
		}
		em.passed(n)
	}
	if !j.entry.Content.IsZero() {
		h.Sum(j.entry.Content.SHA256[:0])
	}
	return em.stored(j, f.Check())
}

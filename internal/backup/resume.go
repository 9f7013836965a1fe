package backup

import (
	"bytes"
	"crypto/sha256"
	"io"

	"github.com/firn-backup/firn/internal/snapshot"
	"github.com/firn-backup/firn/internal/tarstream"
)

// goOn completes the member that the last stored volume ends in. first is the
// first job of this run, if there is one; took says that it was used up. When
// the file is as it was, its content goes on where it was cut. When it is not,
// the rest that the header promised is filled with zeros and a fresh copy,
// being the first job, follows: in tar the last one counts.
func (em *emitter) goOn(first *job, ok bool, st fileState) (took bool, err error) {
	e := st.Entry
	if st.Filled {
		return false, em.gone(&e, st.HadBase)
	}
	em.member = &member{entry: &e, torn: st.Torn, hadBase: st.HadBase, stored: st.Stored, sparse: st.Sparse, head: st.Rest}
	// The member's written counts from what is left of the header, so that a
	// further cut finds the state right: what is before is written.
	if len(st.Rest) == 0 {
		em.member.head = nil
		em.member.written = st.Done
		if st.Done == st.Stored {
			em.member.written += int64(tarstream.Padding(st.Stored) - st.Pad)
		}
	}
	if err := em.raw(st.Rest); err != nil {
		return false, err
	}
	if st.Torn {
		return false, em.fill(&e, st)
	}
	if st.Done == st.Stored {
		// Only padding was missing, or content not yet begun and empty.
		return em.goOnPadding(first, ok, st)
	}
	if ok && first.kind == jobStore && first.entry.Path == e.Path && first.err == nil {
		took, err = em.goOnContent(first, &e, st)
		if took || err != nil {
			return took, err
		}
	}
	return false, em.fill(&e, st)
}

// goOnContent continues the content if the file is what it was.
func (em *emitter) goOnContent(first *job, e *snapshot.Entry, st fileState) (bool, error) {
	now := *e
	f, err := em.r.o.Tree.Open(&now)
	if err != nil {
		return false, nil
	}
	defer f.Close()
	if !sameFile(&now, e) || f.Stored() != st.Stored || f.Sparse() != st.Sparse {
		return false, nil
	}
	h := sha256.New()
	if _, err := io.CopyN(h, f, st.Done); err != nil {
		return false, nil
	}
	if !bytes.Equal(h.Sum(nil), st.Prefix[:]) {
		return false, nil
	}
	if first.done != nil {
		<-first.done
		em.load.release(first)
	}
	if st.Done == 0 && e.Content.IsZero() {
		em.address(e, em.member, [32]byte{})
	}
	j := &job{kind: jobStore, action: New, entry: *e}
	if st.HadBase {
		j.action = Changed
	}
	em.member.entry = &j.entry
	if err := em.content(j, f, st.Done, h); err != nil {
		return true, err
	}
	em.lastPath, em.started = e.Path, true
	return true, nil
}

// goOnPadding ends a member whose content is all stored, and records it.
func (em *emitter) goOnPadding(first *job, ok bool, st fileState) (bool, error) {
	e := st.Entry
	if err := em.raw(zeros[:st.Pad]); err != nil {
		return false, err
	}
	em.member = nil
	if st.Stored > 0 {
		e.Content.SHA256 = st.Prefix
	}
	if st.Fault != "" {
		if err := em.faulty(&e, st.Fault); err != nil {
			return false, err
		}
	}
	if e.Type == snapshot.File {
		em.links.add(&e)
	}
	if err := em.rec.Put(em.ctx, &e); err != nil {
		return false, err
	}
	action := New
	if st.HadBase {
		action = Changed
	}
	em.count(action, &e)
	// The first job, if it is this path, has it as it is now: it is dealt with
	// as a change against what was just stored.
	if ok && first.kind == jobStore && first.entry.Path == e.Path {
		if first.done != nil {
			<-first.done
		}
		if first.err == nil && sameFile(&first.entry, &e) {
			if first.done != nil {
				em.load.release(first)
			}
			em.lastPath, em.started = e.Path, true
			return true, nil
		}
		first.old = &e
	}
	return false, nil
}

// fill writes the rest of a member that cannot be had any more as zeros.
func (em *emitter) fill(e *snapshot.Entry, st fileState) error {
	em.member.torn = true
	left := st.Stored - st.Done + int64(tarstream.Padding(st.Stored))
	if st.Done == st.Stored {
		left = int64(st.Pad)
	}
	for left > 0 {
		n := min(left, int64(len(zeros)))
		if err := em.raw(zeros[:n]); err != nil {
			return err
		}
		left -= n
	}
	em.member = nil
	return em.gone(e, st.HadBase)
}

// gone records that the copy of e in the stream is worth nothing. That is no problem: if the file is still there, the
// job that follows records it anew, or says why not; until then a cut must not count its path as dealt with.
func (em *emitter) gone(e *snapshot.Entry, hadBase bool) error {
	em.redo = &fileState{InFile: true, Filled: true, Entry: snapshot.Entry{Path: e.Path, Type: e.Type}, HadBase: hadBase}
	if hadBase {
		return em.rec.Delete(em.ctx, e.Path)
	}
	return nil
}

// sameFile says that the file is, as far as its inode tells, the one that was being read.
func sameFile(a, b *snapshot.Entry) bool {
	return a.Type == b.Type && a.Size == b.Size && a.MTime == b.MTime && a.Ino == b.Ino &&
		sameCTime(a.CTime, b.CTime)
}

package manifest

import (
	"errors"
	"fmt"
	"math"
	"strings"

	"github.com/firn-backup/firn/internal/codec"
	"github.com/firn-backup/firn/internal/snapshot"
	"github.com/firn-backup/firn/treehash"
)

// What is checked here is checked on writing and on reading alike, so that
// nothing is written that would be refused later.

// CleanPath says whether p is a path as entries have it: absolute without the
// leading slash, no trailing slash, no empty, "." or ".." elements, no NUL.
func CleanPath(p string) bool {
	start := 0
	for i := 0; i <= len(p); i++ {
		if i < len(p) && p[i] != '/' {
			if p[i] == 0 {
				return false
			}
			continue
		}
		switch e := p[start:i]; e {
		case "", ".", "..":
			return false
		}
		start = i + 1
	}
	return true
}

func hasNUL(s string) bool { return strings.IndexByte(s, 0) >= 0 }

func canonicalID(s string) bool {
	return snapshot.ValidID(s) && s == strings.ToUpper(s)
}

func checkHeader(h *Header) error {
	for _, s := range []string{h.Set, h.Label, h.Host, h.Stream, h.Point, h.PointID, h.Compress, h.Encrypt} {
		if hasNUL(s) {
			return errors.New("a name in the header has a NUL")
		}
	}
	for _, p := range h.Paths {
		if p == "" || hasNUL(p) {
			return fmt.Errorf("path %q of the set is empty or has a NUL", p)
		}
	}
	switch {
	case !canonicalID(h.SetID):
		return fmt.Errorf("setid %q is not an identifier", h.SetID)
	case !canonicalID(h.Snap):
		return fmt.Errorf("snap %q is not an identifier", h.Snap)
	case h.N < 1:
		return errors.New("n is not from 1 on")
	case h.Stream == "" || h.Compress == "" || h.Encrypt == "":
		return errors.New("stream, compress or encrypt is missing")
	case !yearOK(h.At.UTC().Year()) || !yearOK(h.Made.UTC().Year()):
		return errors.New("a date is outside the years 0 to 9999")
	}
	switch h.Kind {
	case snapshot.Full:
		if h.Base != "" || h.BaseHash != (Hash{}) {
			return errors.New("a full snapshot with a base")
		}
	case snapshot.Incremental:
		if !canonicalID(h.Base) || h.BaseHash == (Hash{}) || h.Base == h.Snap || h.N < 2 {
			return errors.New("an incremental snapshot without a good base")
		}
	default:
		return fmt.Errorf("kind %q is neither full nor incremental", h.Kind)
	}
	return nil
}

func yearOK(y int) bool { return y >= 0 && y <= 9999 }

// state is what the lines of one manifest have told so far, as far as the
// following ones must fit to it.
type state struct {
	n      uint64
	full   bool
	stream bool    // has no entries
	sealed bool    // encrypt is one whose ciphertext is never smaller than the plaintext
	starts []int64 // where each volume begins in the snapshot's raw stream; the last element is its end
	path   string  // of the last entry or deletion
	totals Totals
}

func newState(h *Header) state {
	return state{
		n:      h.N,
		full:   h.Kind == snapshot.Full,
		stream: h.IsStream(),
		sealed: h.Encrypt == codec.Age || h.Encrypt == codec.None,
		starts: []int64{0},
	}
}

func (st *state) volume(v *Volume) error {
	switch {
	case v.N != len(st.starts):
		return fmt.Errorf("volume %d comes after volume %d", v.N, len(st.starts)-1)
	case v.Archive == "" || hasNUL(v.Archive):
		return fmt.Errorf("volume %d has no good archive id", v.N)
	case v.Size < 1 || v.Raw < 1 || len(v.Frames) == 0:
		return fmt.Errorf("volume %d is empty", v.N)
	}
	var raw, packed int64
	for i, f := range v.Frames {
		if f.Raw < 1 || f.Packed < 1 || f.Raw > v.Raw-raw || f.Packed > math.MaxInt64-packed {
			return fmt.Errorf("volume %d: frame %d has an impossible size", v.N, i)
		}
		raw, packed = raw+f.Raw, packed+f.Packed
	}
	if raw != v.Raw {
		return fmt.Errorf("volume %d: its frames have %d bytes together, not %d", v.N, raw, v.Raw)
	}
	if st.sealed && packed > v.Size {
		return fmt.Errorf("volume %d: its frames are larger than its archive", v.N)
	}
	if v.Leaves != nil {
		want := (v.Size-1)/treehash.LeafSize + 1
		if int64(len(v.Leaves)) != want {
			return fmt.Errorf("volume %d has %d leaf hashes, not %d", v.N, len(v.Leaves), want)
		}
		if treehash.Combine(v.Leaves) != v.TreeHash {
			return fmt.Errorf("volume %d: its leaf hashes do not give its tree hash", v.N)
		}
	}
	end := st.starts[len(st.starts)-1]
	if v.Raw > math.MaxInt64-end {
		return fmt.Errorf("volume %d: too many bytes altogether", v.N)
	}
	st.starts = append(st.starts, end+v.Raw)
	st.totals.Volumes++
	return nil
}

// next checks the place of an entry or a deletion.
func (st *state) next(path string) error {
	if st.stream {
		return fmt.Errorf("path %q in a stream, which has no entries", path)
	}
	if !CleanPath(path) {
		return fmt.Errorf("path %q is not clean", path)
	}
	if st.path != "" && snapshot.ComparePaths(st.path, path) >= 0 {
		return fmt.Errorf("path %q does not come after %q", path, st.path)
	}
	st.path = path
	return nil
}

func (st *state) deleted(path string) error {
	if st.full {
		return fmt.Errorf("a full snapshot deletes %q", path)
	}
	if err := st.next(path); err != nil {
		return err
	}
	st.totals.Deleted++
	return nil
}

func (st *state) entry(e *snapshot.Entry) error {
	if err := st.next(e.Path); err != nil {
		return err
	}
	if err := checkEntry(e); err != nil {
		return fmt.Errorf("entry %q: %w", e.Path, err)
	}
	if err := st.content(e); err != nil {
		return fmt.Errorf("entry %q: %w", e.Path, err)
	}
	st.totals.Entries++
	return nil
}

func checkEntry(e *snapshot.Entry) error {
	switch e.Type {
	case snapshot.File, snapshot.Dir, snapshot.Symlink, snapshot.Fifo, snapshot.CharDev, snapshot.BlkDev:
	default:
		return fmt.Errorf("unknown type %q", byte(e.Type))
	}
	device := e.Type == snapshot.CharDev || e.Type == snapshot.BlkDev
	switch {
	case e.Mode > 0o7777:
		return errors.New("mode is out of range")
	case e.MTime.Nsec < 0 || e.MTime.Nsec > 999_999_999:
		return errors.New("mtime is out of range")
	case e.Size < 0 || e.Size > 0 && e.Type != snapshot.File:
		return errors.New("size is out of range")
	case (e.Type == snapshot.Symlink) != (e.Link != ""):
		return errors.New("only symbolic links have, and must have, a link target")
	case !device && (e.Major != 0 || e.Minor != 0):
		return errors.New("not a device, but has device numbers")
	case e.Type == snapshot.Dir && e.LinkGroup != "":
		return errors.New("a directory with several names")
	case e.Torn && e.Type != snapshot.File:
		return errors.New("torn, but not a regular file")
	case hasNUL(e.Link) || hasNUL(e.User) || hasNUL(e.Group) || hasNUL(e.LinkGroup):
		return errors.New("a name or link target has a NUL")
	}
	for i, x := range e.Xattrs {
		if x.Name == "" || hasNUL(x.Name) {
			return fmt.Errorf("bad name %q of an extended attribute", x.Name)
		}
		if i > 0 && x.Name <= e.Xattrs[i-1].Name {
			return fmt.Errorf("extended attribute %q is not in order", x.Name)
		}
	}
	return nil
}

// content checks an entry's content address.
func (st *state) content(e *snapshot.Entry) error {
	c := &e.Content
	if c.IsZero() {
		if e.Size != 0 {
			return errors.New("the content is missing")
		}
		return nil
	}
	if e.Type != snapshot.File {
		return errors.New("content, but not a regular file")
	}
	if c.Stored == 0 && e.Size == 0 && !c.Sparse {
		return nil // no bytes lie anywhere
	}
	switch {
	case !c.Sparse && c.Stored != e.Size:
		return errors.New("stored bytes and size differ")
	case c.Volume < 1 || c.Offset < 0 || c.Stored < 1:
		return errors.New("the content's address is out of range")
	case c.N > st.n || st.full && c.N != st.n:
		return fmt.Errorf("the content lies in snapshot %d, not of this chain", c.N)
	}
	if c.N != st.n {
		return nil // other volumes than these
	}
	if c.Volume >= len(st.starts) {
		return errors.New("the content's volume is not listed")
	}
	begin, end := st.starts[c.Volume-1], st.starts[c.Volume]
	if c.Offset >= end-begin || c.Stored > st.starts[len(st.starts)-1]-begin-c.Offset {
		return errors.New("the content lies outside of the volumes")
	}
	return nil
}

func (st *state) problem(p *snapshot.Problem) error {
	if p.Path != "" && !CleanPath(p.Path) {
		return fmt.Errorf("problem's path %q is not clean", p.Path)
	}
	st.totals.Problems++
	return nil
}

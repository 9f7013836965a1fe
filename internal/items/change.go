package items

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/firn-backup/firn/internal/catalog"
	"github.com/firn-backup/firn/internal/failure"
	"github.com/firn-backup/firn/internal/itemstore"
	"github.com/firn-backup/firn/internal/snapshot"
)

// same says whether an item is what is stored of it. What was found the same under other metadata is written down.
func (r *run) same(ctx context.Context, c Candidate, old catalog.Item) (bool, error) {
	if old.Dated {
		return r.sameByDate(ctx, c, old)
	}
	if !c.Dir && old.Snapshot == "" {
		return r.sameFile(ctx, c, old)
	}
	return r.sameDir(ctx, c, old)
}

// sameByDate says whether an item of which only the date is known has anything in it that is younger. If it has not, what
// it is like now is written down, and counts from then on. Dates of other programs are whole seconds.
func (r *run) sameByDate(ctx context.Context, c Candidate, old catalog.Item) (bool, error) {
	now := old
	now.Dated, now.Bare = false, false
	younger := func(t time.Time) bool { return t.Truncate(time.Second).After(old.Stored) }
	if c.Dir {
		m, err := r.measure(ctx, c, true)
		if err != nil || younger(m.Newest) {
			return false, err
		}
		fill(&now, m)
		return true, r.learnt(ctx, now)
	}
	open := itemstore.FileOpener(c.Full)
	e, err := itemstore.StatFile(open)
	if err != nil || younger(e.MTime.Time()) {
		return false, err
	}
	h, e, at, err := itemstore.HashFile(ctx, open, itemstore.HashBuffer(), r.o.Items.Wall, r.o.Observe.Read)
	if errors.Is(err, itemstore.ErrChanged) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	now.Plain, now.PlainHash, now.State = e.Size, h, itemstore.FileState(&e, at)
	now.Mode, now.UID, now.GID, now.MTime = e.Mode, e.UID, e.GID, e.MTime
	return true, r.learnt(ctx, now)
}

func (r *run) sameFile(ctx context.Context, c Candidate, old catalog.Item) (bool, error) {
	open := itemstore.FileOpener(c.Full)
	e, err := itemstore.StatFile(open)
	if err != nil {
		return false, err
	}
	state := itemstore.FileState(&e, r.o.Items.Wall())
	if !r.o.Checksum && !old.Bare && old.Plain == e.Size && state == old.State && state != [32]byte{} {
		return true, nil
	}
	now := old
	now.Bare = false
	if old.Bare && old.Compress != "none" {
		// Only the archive's own hash is known.
		p := itemstore.FilePiece(old, e.Size, open, r.o.Items.Wall, nil, r.o.Observe.Read)
		same, err := itemstore.SameArchive(ctx, r.o.Items, p, old)
		if err != nil || !same {
			return false, err
		}
		h, _, _, err := itemstore.HashFile(ctx, open, itemstore.HashBuffer(), r.o.Items.Wall, nil)
		if err != nil {
			return false, err
		}
		now.Plain, now.PlainHash, now.State = e.Size, h, state
		now.Mode, now.UID, now.GID, now.MTime = e.Mode, e.UID, e.GID, e.MTime
		return true, r.learnt(ctx, now)
	}
	if old.Plain != e.Size {
		return false, nil
	}
	h, e, at, err := itemstore.HashFile(ctx, open, itemstore.HashBuffer(), r.o.Items.Wall, r.o.Observe.Read)
	if errors.Is(err, itemstore.ErrChanged) {
		return false, nil
	}
	if err != nil || h != old.PlainHash {
		return false, err
	}
	now.State = itemstore.FileState(&e, at)
	now.Mode, now.UID, now.GID, now.MTime = e.Mode, e.UID, e.GID, e.MTime
	return true, r.seen(ctx, now)
}

func (r *run) measure(ctx context.Context, c Candidate, contents bool) (itemstore.Measure, error) {
	tree, err := r.o.Tree(c.Full)
	if err != nil {
		return itemstore.Measure{}, err
	}
	m, err := itemstore.MeasureDir(ctx, tree, c.Full, contents, r.o.Items.Wall)
	return m, errors.Join(unreadable(err), tree.Close())
}

// unreadable marks an error as one of what is to be stored.
func unreadable(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%w: %w", itemstore.ErrSource, err)
}

func (r *run) sameDir(ctx context.Context, c Candidate, old catalog.Item) (bool, error) {
	m, err := r.measure(ctx, c, false)
	if err != nil {
		return false, err
	}
	switch {
	case m.State == old.State && m.State != [32]byte{} && !r.o.Checksum && !old.Bare:
		return true, nil
	case old.Bare:
		return r.sameBare(ctx, c, old)
	case !bytes.Equal(m.Shape[:], old.Shape):
		return false, nil
	}
	if m, err = r.measure(ctx, c, true); err != nil {
		return false, err
	}
	if asOnce(m, old) {
		fill(&old, m)
		return true, r.learnt(ctx, old)
	}
	if !bytes.Equal(m.Content[:], old.Content) || !bytes.Equal(m.Shape[:], old.Shape) {
		return false, nil
	}
	for _, f := range m.Faults {
		r.o.Observe.Problem(f)
	}
	old.State = m.State
	return true, r.seen(ctx, old)
}

// attributesSettled is how long before a directory was stored something must have been changed to be in its archive for certain: longer than a run
// takes from a look at a directory to the end of its upload.
const attributesSettled = 7 * 24 * time.Hour

// asOnce says whether a directory is what was stored of it when attributes were not compared yet. Those of files have not changed where State
// says so, and those of directories where these have not changed since. Else all directories of a system that labels its files (SELinux)
// would be stored again.
func asOnce(m itemstore.Measure, old catalog.Item) bool {
	return m.OldState != [32]byte{} && m.OldState == old.State && m.OldContent != [32]byte{} && bytes.Equal(m.OldContent[:], old.Content) &&
		m.DirChange.Add(attributesSettled).Before(old.Stored)
}

// steady says that an item was stored without what could not be read, and that the same things missing next time are no
// change. What changed while it was read is stored again.
func steady(i catalog.Item) bool {
	return i.Torn && i.Dir && len(i.Content) > 0 && !bytes.Equal(i.Content, make([]byte, len(i.Content)))
}

// sameBare compares a directory with an archive of which nothing but its hash is known.
func (r *run) sameBare(ctx context.Context, c Candidate, old catalog.Item) (bool, error) {
	var m itemstore.Measure
	counted := &counter{}
	p := r.dirPiece(c, old, &m, counted)
	same, err := itemstore.SameArchive(ctx, r.o.Items, p, old)
	if err != nil || !same || len(m.Faults) > 0 {
		return false, err
	}
	now := old
	now.Bare, now.Plain = false, counted.n
	fill(&now, m)
	if now.PlainHash, err = itemstore.PlainHash(ctx, p); err != nil {
		return false, err
	}
	return true, r.learnt(ctx, now)
}

type counter struct{ n int64 }

func (c *counter) Write(p []byte) (int, error) {
	c.n += int64(len(p))
	return len(p), nil
}

// fill puts into an item what was measured of it.
func fill(i *catalog.Item, m itemstore.Measure) {
	i.State, i.Files, i.Bytes = m.State, m.Files, m.Bytes
	i.Shape, i.Content = m.Shape[:], m.Content[:]
	i.Torn = len(m.Faults) > 0
}

// dirPiece is a directory as a piece. counted may be nil.
func (r *run) dirPiece(c Candidate, i catalog.Item, m *itemstore.Measure, counted io.Writer) itemstore.Piece {
	return itemstore.Piece{
		Item: i, Expect: i.Bytes,
		Write: func(ctx context.Context, w io.Writer) error {
			tree, err := r.o.Tree(c.Full)
			if err != nil {
				return err
			}
			if cw, ok := counted.(*counter); ok {
				cw.n = 0
				w = io.MultiWriter(w, cw)
			}
			*m, err = itemstore.WriteTar(ctx, tree, c.Full, itemstore.TarName(c.Full), w, r.o.Items.Wall)
			return errors.Join(err, tree.Close())
		},
		Done: func(i *catalog.Item) error {
			fill(i, *m)
			return nil
		},
	}
}

// store stores an item.
func (r *run) store(ctx context.Context, c Candidate) (catalog.Item, error) {
	i := catalog.Item{Path: c.Name, ItemMore: catalog.ItemMore{Dir: c.Dir}}
	switch {
	case r.o.Snapshot != nil:
		return r.storeSnapshot(ctx, c, i)
	case !c.Dir:
		return r.s.PutFile(ctx, i, itemstore.FileOpener(c.Full), r.o.Names, r.o.Observe.Read)
	}
	// What is torn is read again: mostly it is whole then.
	for try := 0; ; try++ {
		m, err := r.measure(ctx, c, false)
		if err != nil {
			return i, err
		}
		i.Bytes, i.Files, i.State = m.Bytes, m.Files, m.State
		i.MTime = snapshot.TimeOf(m.Newest)
		if m.Newest.IsZero() {
			i.MTime = snapshot.TimeOf(r.o.Items.Now())
		}
		var got itemstore.Measure
		p := r.dirPiece(c, i, &got, nil)
		done := p.Done
		p.Done = func(i *catalog.Item) error {
			if len(got.Faults) > 0 && try < 2 && got.Changing {
				return itemstore.ErrChanged
			}
			for _, f := range got.Faults {
				r.o.Observe.Problem(f)
			}
			return done(i)
		}
		stored, err := r.s.Put(ctx, p)
		if !errors.Is(err, itemstore.ErrChanged) {
			return stored, err
		}
	}
}

// storeSnapshot stores an item in Firn's format: a snapshot of its own.
func (r *run) storeSnapshot(ctx context.Context, c Candidate, i catalog.Item) (catalog.Item, error) {
	m, err := r.measure(ctx, c, true)
	if err != nil {
		return i, err
	}
	id, sent, err := r.o.Snapshot(ctx, c.Full)
	r.extra = sent
	torn := failure.KindOf(err) == failure.Partial && id != ""
	if err != nil && !torn {
		return i, err
	}
	run, err := r.s.Begin(ctx)
	if err != nil {
		return i, err
	}
	fill(&i, m)
	i.SetID, i.Vault, i.N, i.Snapshot, i.Stored, i.Listed = r.o.Items.Set.ID, r.o.Items.Vault, run.N, id, r.o.Items.Now(), run.N
	i.Plain, i.MTime = m.Bytes, snapshot.TimeOf(m.Newest)
	i.Torn = i.Torn || torn
	return i, r.o.Items.Catalog.ItemStored(ctx, i)
}

package backup

import (
	"context"
	"fmt"
	"slices"

	"github.com/firn-backup/firn/internal/catalog"
	"github.com/firn-backup/firn/internal/snapshot"
	"github.com/firn-backup/firn/internal/source"
)

// merger compares the walk with the base snapshot, both in path order, and
// gives what differs, in that order, to emit.
type merger struct {
	rows     *catalog.Cursor // nil: there is no base
	row      *catalog.Row    // the next row not yet dealt with; nil: none left
	checksum bool
	hole     string // nothing is known of what lies below it
	inHole   bool

	// From is where an attempt goes on: paths up to it were dealt with before,
	// but for the path itself when inFile is set.
	from    string
	started bool
	inFile  bool

	bare []string // the roots below which nothing was seen yet

	// The link groups, most recent first, of which a name was given to emit: see compare.
	links, before map[string]struct{}

	emit func(context.Context, *job) error
	seen tally // what the walk showed
	same tally // what of it is unchanged
	pass func(t tally)
}

// tally counts entries and their logical bytes.
type tally struct{ entries, bytes int64 }

func (t *tally) add(bytes int64) { t.entries++; t.bytes += bytes }

func (m *merger) start(ctx context.Context) error {
	if m.rows == nil {
		return nil
	}
	var err error
	m.row, err = m.rows.Next(ctx)
	return err
}

func (m *merger) advance(ctx context.Context) error {
	var err error
	m.row, err = m.rows.Next(ctx)
	return err
}

// batch takes the next items of the walk.
func (m *merger) batch(ctx context.Context, items []source.Item) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	before := m.same
	for i := range items {
		if err := m.item(ctx, &items[i]); err != nil {
			return err
		}
	}
	if m.pass != nil && m.same != before {
		m.pass(tally{m.same.entries - before.entries, m.same.bytes - before.bytes})
	}
	return nil
}

func (m *merger) item(ctx context.Context, it *source.Item) error {
	path := it.Entry.Path
	if len(m.bare) > 0 {
		m.bare = slices.DeleteFunc(m.bare, func(root string) bool { return len(path) > len(root) && snapshot.Below(path, root) })
	}
	if m.started {
		c := snapshot.ComparePaths(path, m.from)
		if c < 0 || c == 0 && !m.inFile {
			m.seen.add(it.Entry.Size)
			if it.Err != nil && !it.Gone && snapshot.Below(m.from, path) {
				return m.trouble(ctx, it)
			}
			return nil
		}
	}
	if err := m.missing(ctx, path); err != nil {
		return err
	}
	var old *catalog.Row
	if m.row != nil && m.row.Path == path {
		old = m.row
	}
	if it.Err != nil {
		if err := m.trouble(ctx, it); err != nil {
			return err
		}
		if !it.Gone && !it.Known {
			old = nil // what is known of it stays; the hole skips its row
		}
	}
	if it.Err == nil || it.Known {
		if err := m.compare(ctx, &it.Entry, old); err != nil {
			return err
		}
		if old != nil {
			return m.advance(ctx)
		}
	}
	return nil
}

// trouble reports an item that could not be read, and remembers below which path nothing is known.
func (m *merger) trouble(ctx context.Context, it *source.Item) error {
	if !it.Gone {
		m.hole, m.inHole = it.Entry.Path, true
	}
	return m.emit(ctx, &job{kind: jobProblem, entry: it.Entry, reason: reason(it.Err)})
}

// missing deals with the rows before path: they are gone, unless nothing is
// known of where they lay.
func (m *merger) missing(ctx context.Context, path string) error {
	for m.row != nil && snapshot.ComparePaths(m.row.Path, path) < 0 {
		if err := m.drop(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (m *merger) drop(ctx context.Context) error {
	if m.inHole && snapshot.Below(m.row.Path, m.hole) {
		m.seen.add(m.row.Size)
		m.same.add(m.row.Size)
	} else {
		j := &job{kind: jobDelete}
		j.entry.Path, j.entry.Type = m.row.Path, m.row.Type
		if err := m.emit(ctx, j); err != nil {
			return err
		}
	}
	return m.advance(ctx)
}

func (m *merger) compare(ctx context.Context, e *snapshot.Entry, old *catalog.Row) error {
	m.seen.add(e.Size)
	if old == nil {
		m.given(e)
		return m.emit(ctx, &job{kind: jobStore, action: New, entry: *e})
	}
	// The names of an inode look the same at any time, but the base may have read one of them before a change and another
	// after it: then only the first differs now, and is to be the other's name again, not a file of its own.
	if sameStat(e, old) && (!m.checksum || e.Type != snapshot.File) && !m.linked(e) {
		m.same.add(e.Size)
		return nil
	}
	m.given(e)
	was, err := old.Entry()
	if err != nil {
		return fmt.Errorf("catalog: %s: %w", e.Path, err)
	}
	return m.emit(ctx, &job{kind: jobStore, action: Changed, entry: *e, old: &was})
}

// given remembers that a name of e's inode was given to emit. Where there is no base nothing can be unchanged.
func (m *merger) given(e *snapshot.Entry) {
	if e.LinkGroup == "" || m.rows == nil {
		return
	}
	if m.links == nil || len(m.links) >= linksKept {
		m.before, m.links = m.links, make(map[string]struct{})
	}
	m.links[e.LinkGroup] = struct{}{}
}

// linked says that a name of e's inode was given to emit.
func (m *merger) linked(e *snapshot.Entry) bool {
	if e.LinkGroup == "" {
		return false
	}
	if _, ok := m.links[e.LinkGroup]; ok {
		return true
	}
	_, ok := m.before[e.LinkGroup]
	return ok
}

// finish deals with the rows after the walk's end.
func (m *merger) finish(ctx context.Context) error {
	for m.row != nil {
		if err := m.drop(ctx); err != nil {
			return err
		}
	}
	return nil
}

// sameStat says that an entry need not be looked at: size, times, inode and
// mode are what they were. (The device's number changes between mounts.)
func sameStat(e *snapshot.Entry, r *catalog.Row) bool {
	return e.Type == r.Type && e.Size == r.Size && e.MTime == r.MTime && e.CTime == r.CTime &&
		e.Ino == r.Ino && e.Mode == r.Mode
}

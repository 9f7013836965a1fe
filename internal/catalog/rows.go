package catalog

import (
	"context"
	"database/sql"
	"fmt"
	"strconv"

	"github.com/firn-backup/firn/internal/failure"
	"github.com/firn-backup/firn/internal/snapshot"
)

// pageBytes is about what a page, the answer of one query, holds at most: entries
// may have 64 KiB of attributes each.
const pageBytes = 1 << 20

// Row is an entry as a comparison needs it; Entry decodes the rest.
type Row struct {
	Path         string
	Type         snapshot.Type
	Mode         uint32
	UID, GID     uint32
	Size         int64
	MTime, CTime snapshot.Time
	Dev, Ino     uint64

	owner                owner
	content, group, more []byte // packed
	n, until             int64  // 0: still valid
}

// Entry decodes the whole entry. Valid until the cursor's next Next.
func (r *Row) Entry() (snapshot.Entry, error) {
	e := snapshot.Entry{
		Path: r.Path, Type: r.Type, Mode: r.Mode, UID: r.UID, GID: r.GID, User: r.owner.user, Group: r.owner.group,
		MTime: r.MTime, Size: r.Size, LinkGroup: string(r.group), CTime: r.CTime, Dev: r.Dev, Ino: r.Ino,
	}
	if r.content != nil {
		if err := unpackContent(r.content, &e.Content); err != nil {
			return e, r.damaged(err)
		}
	}
	if r.more != nil {
		if err := unpackMore(r.more, &e); err != nil {
			return e, r.damaged(err)
		}
	}
	return e, nil
}

func (r *Row) damaged(err error) error {
	return failure.Errorf(failure.Damaged, "catalog: entry %q: %w", r.Path, err)
}

// rowColumns are what rowScan scans; versionColumns too, when it is asked for versions. Every column
// costs, so that they are two.
const (
	rowColumns     = `e.path, e.stat, e.content, e.grp, e.more`
	versionColumns = rowColumns + `, e.n, e.until`
)

// valid picks the rows of the snapshot with the sequence number $2 of the chain $1.
const valid = `e.chain = $1 AND e.n <= $2 AND (e.until IS NULL OR e.until > $2)`

// rowScan holds the columns of one row; they are the driver's until the next.
type rowScan struct {
	key, stat, content, group, more sql.RawBytes
	n, until                        sql.NullInt64
}

func (s *rowScan) dest(versions bool) []any {
	dest := []any{&s.key, &s.stat, &s.content, &s.group, &s.more}
	if versions {
		dest = append(dest, &s.n, &s.until)
	}
	return dest
}

func (s *rowScan) size() int {
	return len(s.key) + len(s.stat) + len(s.content) + len(s.group) + len(s.more)
}

// row decodes what was scanned into r, which keeps nothing of it.
func (d *DB) row(ctx context.Context, s *rowScan, r *Row) error {
	r.Path = keyPath(s.key)
	r.n, r.until = s.n.Int64, s.until.Int64
	number, err := unpackStat(s.stat, r)
	if err != nil {
		return r.damaged(err)
	}
	if r.owner, err = d.ownerNames(ctx, number); err != nil {
		return err
	}
	b := make([]byte, 0, len(s.content)+len(s.group)+len(s.more))
	take := func(v []byte) []byte {
		if v == nil {
			return nil
		}
		from := len(b)
		b = append(b, v...)
		return b[from:len(b):len(b)]
	}
	r.content, r.group, r.more = take(s.content), take(s.group), take(s.more)
	return nil
}

// walk goes through the keys from lo on, up to hi where that is not nil, a page at
// a time. Each page is a query, and so a read transaction, of its own.
type walk struct {
	d      *DB
	chain  int64
	n      int64
	all    bool // every version of a path, not only the one valid in n
	lo, hi []byte
	past   int64 // with all: of lo, only versions after this one
	desc   bool
	rows   int // of the page before
}

// next returns the next page, which is empty at the end.
func (w *walk) next(ctx context.Context) ([]Row, error) {
	query := `SELECT ` + rowColumns + ` FROM entries e WHERE ` + valid + ` AND e.path >= $3`
	args := []any{w.chain, w.n, w.lo}
	if w.all {
		query = `SELECT ` + versionColumns + ` FROM entries e WHERE e.chain = $1 AND e.n <= $2 AND (e.path, e.n) > ($3, $4)`
		args = append(args, w.past)
	}
	if w.hi != nil {
		args = append(args, w.hi)
		query += ` AND e.path < $` + strconv.Itoa(len(args))
	}
	if w.desc {
		query += ` ORDER BY e.path DESC, e.n DESC LIMIT `
	} else {
		query += ` ORDER BY e.path, e.n LIMIT `
	}
	// Whoever looks for one entry stops at the first: pages begin small.
	limit := min(max(32, 16*w.rows), w.d.b.PageRows)
	page, err := w.d.page(ctx, limit, w.all, query+strconv.Itoa(limit), args...)
	if err != nil || len(page) == 0 {
		return nil, err
	}
	w.rows = len(page)
	last := &page[len(page)-1]
	key := slashToNul([]byte(last.Path))
	switch {
	case w.desc:
		w.hi = key
	case w.all:
		w.lo, w.past = key, last.n
	default:
		w.lo = nextKey(key)
	}
	return page, nil
}

// page runs a query for rowColumns, or versionColumns, and returns what it answers, up to pageBytes;
// about so many rows are expected.
func (d *DB) page(ctx context.Context, expect int, versions bool, query string, args ...any) (page []Row, err error) {
	rows, err := d.b.Read.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer func() { err = closed(rows, err) }()
	page = make([]Row, 0, expect)
	var s rowScan
	dest := s.dest(versions)
	for size := 0; size < pageBytes && rows.Next(); size += s.size() {
		if err := rows.Scan(dest...); err != nil {
			return nil, err
		}
		page = append(page, Row{})
		if err := d.row(ctx, &s, &page[len(page)-1]); err != nil {
			return nil, err
		}
	}
	return page, rows.Err()
}

// still fails when a snapshot is no more: then what was read of it may have been a part.
func (d *DB) still(ctx context.Context, id string) error {
	_, err := d.view(ctx, d.b.Read, id)
	return err
}

// Cursor walks a snapshot's entries in path order, a page at a time, so that no
// long transaction stands in the way of the journal. The next page is
// read while one is looked at.
type Cursor struct {
	pages  <-chan readPage
	cancel context.CancelFunc
	rows   []Row
	i      int
	ended  bool
	err    error
}

type readPage struct {
	rows []Row
	err  error
}

// Rows begins at the first path after `after`, or the very first when it is empty.
// ctx must outlive the cursor, which must be closed.
func (d *DB) Rows(ctx context.Context, snap string, after string) (*Cursor, error) {
	v, err := d.view(ctx, d.b.Read, snap)
	if err != nil {
		return nil, d.fail("read entries", err)
	}
	w := &walk{d: d, chain: v.chain, n: v.n, lo: []byte{}}
	if after != "" {
		key, err := pathKey(after)
		if err != nil {
			return nil, d.fail("read entries", err)
		}
		w.lo = nextKey(key)
	}
	ctx, cancel := context.WithCancel(ctx)
	pages := make(chan readPage, 1)
	go func() {
		defer close(pages)
		for {
			var p readPage
			p.rows, p.err = w.next(ctx)
			if p.err == nil && len(p.rows) == 0 {
				p.err = d.still(ctx, snap)
			}
			p.err = d.fail("read entries of "+snap, p.err)
			select {
			case pages <- p:
			case <-ctx.Done():
				return
			}
			if p.err != nil || len(p.rows) == 0 {
				return
			}
		}
	}()
	return &Cursor{pages: pages, cancel: cancel}, nil
}

// Next returns nil at the end. The row is valid until the next call.
func (c *Cursor) Next(ctx context.Context) (*Row, error) {
	if c.i < len(c.rows) {
		c.i++
		return &c.rows[c.i-1], nil
	}
	if c.err != nil {
		return nil, c.err
	}
	select {
	case p, ok := <-c.pages:
		if !ok && c.ended {
			return nil, nil
		}
		if !ok { // ctx of Rows ended, or the cursor was closed
			return nil, fmt.Errorf("catalog: read entries: %w", context.Canceled)
		}
		c.rows, c.i, c.err = p.rows, 0, p.err
		c.ended = len(p.rows) == 0
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	if c.err != nil || len(c.rows) == 0 {
		return nil, c.err
	}
	c.i = 1
	return &c.rows[0], nil
}

// Close ends the cursor. Next must not be called after it.
func (c *Cursor) Close() error {
	c.cancel()
	for range c.pages { // until the reader is gone
	}
	return nil
}

package catalog

import (
	"bytes"
	"context"
	"database/sql"
	"database/sql/driver"
	"slices"
	"sort"
	"strconv"

	"github.com/firn-backup/firn/internal/snapshot"
)

// Order of a query's answer.
type Order int

const (
	ByPath     Order = iota
	ByPathDesc       // children before their directory
	ByContent        // by content address, then LinkGroup, then path: the order in which a vault is read
)

// Query selects entries of one snapshot. The zero value is all, by path.
type Query struct {
	Under []string // these paths and all below them; empty: everything
	Order Order
}

// span is a range of keys: from lo on, before hi where that is not nil.
type span struct{ lo, hi []byte }

// spans turns paths into disjoint ranges in order.
func spans(under []string) ([]span, error) {
	if len(under) == 0 || slices.Contains(under, "") {
		return []span{{lo: []byte{}}}, nil
	}
	keys := make([][]byte, len(under))
	for i, p := range under {
		var err error
		if keys[i], err = pathKey(p); err != nil {
			return nil, err
		}
	}
	slices.SortFunc(keys, bytes.Compare)
	var list []span
	for _, k := range keys {
		if n := len(list); n > 0 && bytes.Compare(k, list[n-1].hi) < 0 {
			continue // below the one before
		}
		list = append(list, span{k, belowEnd(k)})
	}
	return list, nil
}

// Entries calls fn for each entry of the tree as it was in snap. The entry is fn's to keep. fn may
// call other methods of the DB. Bounded memory for any number of entries.
func (d *DB) Entries(ctx context.Context, snap string, q Query, fn func(snapshot.Entry) error) error {
	v, err := d.view(ctx, d.b.Read, snap)
	if err != nil {
		return d.fail("read entries", err)
	}
	ranges, err := spans(q.Under)
	if err != nil {
		return d.fail("read entries of "+snap, err)
	}
	if q.Order == ByContent {
		return d.byContent(ctx, snap, v, ranges, fn)
	}
	if q.Order == ByPathDesc {
		slices.Reverse(ranges)
	}
	for _, r := range ranges {
		w := &walk{d: d, chain: v.chain, n: v.n, lo: r.lo, hi: r.hi, desc: q.Order == ByPathDesc}
		for {
			page, err := w.next(ctx)
			if err != nil {
				return d.fail("read entries of "+snap, err)
			}
			if len(page) == 0 {
				break
			}
			for i := range page {
				if err := callEntry(&page[i], fn); err != nil {
					return err
				}
			}
		}
	}
	return d.fail("read entries of "+snap, d.still(ctx, snap))
}

func callEntry(r *Row, fn func(snapshot.Entry) error) error {
	e, err := r.Entry()
	if err != nil {
		return err
	}
	return fn(e)
}

// byContent leaves sorting to the database, which does it on disk. The query stays open on
// a connection of its own while fn is called.
func (d *DB) byContent(ctx context.Context, snap string, v view, ranges []span, fn func(snapshot.Entry) error) (err error) {
	conn, err := d.b.Read.Conn(ctx)
	if err != nil {
		return d.fail("read entries of "+snap, err)
	}
	defer conn.Close()
	from := `entries e WHERE ` + valid
	if ranges[0].hi != nil {
		defer dropChosen(context.WithoutCancel(ctx), conn)
		if err := choose(ctx, conn, ranges); err != nil {
			return d.fail("read entries of "+snap, err)
		}
		from = `chosen c CROSS JOIN entries e WHERE ` + valid + ` AND e.path >= c.lo AND e.path < c.hi`
	}
	rows, err := conn.QueryContext(ctx, `SELECT `+rowColumns+` FROM `+from+
		` ORDER BY e.content NULLS FIRST, e.grp NULLS FIRST, e.path`, v.chain, v.n)
	if err != nil {
		return d.fail("sort entries of "+snap, err)
	}
	defer func() { err = closed(rows, err) }()
	var s rowScan
	dest := s.dest(false)
	for rows.Next() {
		var r Row
		if err := rows.Scan(dest...); err != nil {
			return d.fail("read entries of "+snap, err)
		}
		if err := d.row(ctx, &s, &r); err != nil {
			return d.fail("read entries of "+snap, err)
		}
		if err := callEntry(&r, fn); err != nil {
			return err
		}
	}
	return d.fail("read entries of "+snap, rows.Err())
}

// choose writes the ranges into a table of the connection's own, so that there may be any number.
func choose(ctx context.Context, conn *sql.Conn, ranges []span) error {
	tx, err := conn.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	err = func() error {
		// This way the columns have the type that paths have, whatever its name is.
		if _, err := tx.ExecContext(ctx, `CREATE TEMP TABLE chosen AS SELECT path AS lo, path AS hi FROM changes WHERE 1 = 0`); err != nil {
			return err
		}
		stmt, err := tx.PrepareContext(ctx, `INSERT INTO chosen (lo, hi) VALUES ($1, $2)`)
		if err != nil {
			return err
		}
		for _, r := range ranges {
			if _, err := stmt.ExecContext(ctx, r.lo, r.hi); err != nil {
				return err
			}
		}
		return nil
	}()
	if err != nil {
		_ = tx.Rollback()
		return err
	}
	return tx.Commit()
}

// dropChosen removes the table; if that fails, the connection goes with it.
func dropChosen(ctx context.Context, conn *sql.Conn) {
	if _, err := conn.ExecContext(ctx, `DROP TABLE IF EXISTS chosen`); err != nil {
		_ = conn.Raw(func(any) error { return driver.ErrBadConn })
	}
}

// Changes calls fn, in path order, for what is new, changed (e) or deleted (e == nil)
// in snap against its base; for a full, every entry. fn may call other methods of the DB.
func (d *DB) Changes(ctx context.Context, snap string, fn func(path string, e *snapshot.Entry) error) error {
	v, err := d.view(ctx, d.b.Read, snap)
	if err != nil {
		return d.fail("read changes", err)
	}
	if v.full() {
		return d.Entries(ctx, snap, Query{}, func(e snapshot.Entry) error { return fn(e.Path, &e) })
	}
	for lo := []byte{}; ; {
		page, err := d.changes(ctx, v, lo)
		if err != nil {
			return d.fail("read changes of "+snap, err)
		}
		if len(page) == 0 {
			return d.fail("read changes of "+snap, d.still(ctx, snap))
		}
		for _, c := range page {
			var e *snapshot.Entry
			if c.row != nil {
				entry, err := c.row.Entry()
				if err != nil {
					return err
				}
				e = &entry
			}
			if err := fn(keyPath(c.key), e); err != nil {
				return err
			}
		}
		lo = nextKey(page[len(page)-1].key)
	}
}

type changed struct {
	key []byte
	row *Row // nil: deleted
}

// changes reads a page of an incremental's changes.
func (d *DB) changes(ctx context.Context, v view, lo []byte) (page []changed, err error) {
	rows, err := d.b.Read.QueryContext(ctx, `SELECT c.path, `+rowColumns+` FROM changes c
		LEFT JOIN entries e ON e.chain = $1 AND e.path = c.path AND e.n = $2
		WHERE c.snap = $3 AND c.path >= $4 ORDER BY c.path LIMIT `+strconv.Itoa(d.b.PageRows), v.chain, v.n, v.num, lo)
	if err != nil {
		return nil, err
	}
	defer func() { err = closed(rows, err) }()
	var s rowScan
	var key sql.RawBytes
	dest := append([]any{&key}, s.dest(false)...)
	for size := 0; size < pageBytes && rows.Next(); size += s.size() + len(key) {
		if err := rows.Scan(dest...); err != nil {
			return nil, err
		}
		c := changed{key: bytes.Clone(key)}
		if s.stat != nil {
			c.row = new(Row)
			if err := d.row(ctx, &s, c.row); err != nil {
				return nil, err
			}
		}
		page = append(page, c)
	}
	return page, rows.Err()
}

// Find calls fn for every version of entries (Stored snapshots) for which match says yes, by chain, path and
// age. first and last are the sequence
// numbers of the first and the last snapshot of the chain that have it as it is. fn may call other methods of the DB.
func (d *DB) Find(ctx context.Context, setID string, match func(path string) bool, fn func(e snapshot.Entry, chain string, first, last uint64) error) error {
	chains, err := d.storedChains(ctx, setID)
	if err != nil {
		return d.fail("search set "+setID, err)
	}
	for _, c := range chains {
		w := &walk{d: d, chain: c.num, n: c.stored[len(c.stored)-1], all: true, lo: []byte{}}
		for {
			page, err := w.next(ctx)
			if err != nil {
				return d.fail("search set "+setID, err)
			}
			if len(page) == 0 {
				break
			}
			for i := range page {
				r := &page[i]
				if !match(r.Path) {
					continue
				}
				e, err := r.Entry()
				if err != nil {
					return err
				}
				if err := fn(e, c.id, uint64(r.n), uint64(c.last(r.until))); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// storedChain is a chain with the sequence numbers of its stored snapshots, at least one.
type storedChain struct {
	num    int64
	id     string
	stored []int64
}

// last is the number of the last stored snapshot before until; 0 is no end.
func (c *storedChain) last(until int64) int64 {
	i := len(c.stored)
	if until != 0 {
		i = sort.Search(len(c.stored), func(i int) bool { return c.stored[i] >= until })
	}
	return c.stored[max(i, 1)-1]
}

func (d *DB) storedChains(ctx context.Context, setID string) ([]storedChain, error) {
	var chains []storedChain
	err := each(ctx, d.b.Read, func(r scanner) error {
		var c storedChain
		var n int64
		if err := r.Scan(&c.num, &c.id, &n); err != nil {
			return err
		}
		if last := len(chains) - 1; last < 0 || chains[last].num != c.num {
			chains = append(chains, c)
		}
		last := &chains[len(chains)-1]
		last.stored = append(last.stored, n)
		return nil
	}, `SELECT c.num, c.id, s.n FROM snapshots s JOIN snapshots c ON c.num = s.chain
		WHERE s.set_id = $1 AND s.state = $2 ORDER BY c.n, s.n`, setID, string(Stored))
	return chains, err
}

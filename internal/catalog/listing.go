package catalog

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/firn-backup/firn/internal/coldstore"
)

// A Listing is a vault's listing on its way into the catalog: Add all of it, Compare it
// with what is known, Apply what follows from that, End. A run that ends earlier
// leaves nothing that counts. It is for one goroutine, and one process at a time takes in the
// listing of a vault: the caller holds a lock. Other processes may record uploads and deletions meanwhile. Memory is bounded, whatever the
// vault holds.
type Listing struct {
	d        *DB
	vault    string
	asOf     time.Time
	page     []coldstore.Archive
	archives int64
	bytes    int64
}

// NewListing begins one, of the vault at a URL; what an earlier one left half done is thrown away.
func (d *DB) NewListing(ctx context.Context, vault string) (*Listing, error) {
	l := &Listing{d: d, vault: vault}
	return l, d.fail("take in a listing of "+vault, l.clear(ctx))
}

func (l *Listing) clear(ctx context.Context) error {
	return l.d.deleteAll(ctx, `DELETE FROM listed WHERE vault = $1 AND archive IN (SELECT archive FROM listed WHERE vault = $1 LIMIT $2)`, l.vault)
}

// Add adds an archive that is listed. One listed twice counts once.
func (l *Listing) Add(ctx context.Context, a coldstore.Archive) error {
	l.page = append(l.page, a)
	if len(l.page) < l.d.b.PageRows {
		return nil
	}
	return l.d.fail("take in a listing of "+l.vault, l.flush(ctx))
}

func (l *Listing) flush(ctx context.Context) error {
	// In the order of the table: neighbours are on one page of it.
	slices.SortFunc(l.page, func(a, b coldstore.Archive) int { return bytes.Compare([]byte(a.ID), []byte(b.ID)) })
	err := l.d.change(ctx, lazy, func(tx *sql.Tx) error {
		insert, err := tx.PrepareContext(ctx, `INSERT INTO listed (vault, archive, description, size, tree_hash, created)
			VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (vault, archive) DO NOTHING`)
		if err != nil {
			return err
		}
		defer insert.Close() // with the transaction at the latest
		for _, a := range l.page {
			created, err := timeText(a.Created)
			if err != nil {
				return fmt.Errorf("archive %s: %w", a.ID, err)
			}
			n, err := affected(insert.ExecContext(ctx, blob(l.vault), blob(a.ID), blob(a.Description), a.Size, a.TreeHash[:], created))
			if err != nil {
				return err
			}
			l.archives += n
			l.bytes += n * a.Size
		}
		return nil
	})
	l.page = l.page[:0]
	return err
}

// Added says that the listing is complete, and of when it is.
func (l *Listing) Added(ctx context.Context, asOf time.Time) error {
	l.asOf = asOf
	return l.d.fail("take in a listing of "+l.vault, l.flush(ctx))
}

// ArchiveState is what is known of one archive, from all sides. Record or Listed is not nil, or
// Snapshot is not empty.
type ArchiveState struct {
	ID     string
	Record *ArchiveRecord     // what the catalog knew
	Listed *coldstore.Archive // as the listing has it
	// Current says that the record was in the last listing and needs no change to be in this one too.
	Current bool
	// Snapshot is the id of one that needs the archive, as a volume or manifest.
	Snapshot string
}

// Compare calls fn for every archive that is known or listed or needed by a snapshot
// of the catalog, in the order of ids. It stops at fn's first error and returns it. fn may use the catalog.
func (l *Listing) Compare(ctx context.Context, fn func(ArchiveState) error) error {
	recs := &recordPages{d: l.d, vault: l.vault}
	list := &listedPages{d: l.d, vault: l.vault}
	named := &neededPages{d: l.d, vault: l.vault}
	if err := named.load(ctx); err != nil {
		return l.d.fail("list archives that snapshots need", err)
	}
	for {
		r, err := recs.peek(ctx)
		if err != nil {
			return l.d.fail("list archives of "+l.vault, err)
		}
		a, err := list.peek(ctx)
		if err != nil {
			return l.d.fail("list archives of "+l.vault, err)
		}
		id, found := "", false
		for _, c := range []struct {
			id string
			ok bool
		}{{r.ID, r.ok}, {a.ID, a.ok}, {named.peek().archive, named.more()}} {
			if c.ok && (!found || c.id < id) {
				id, found = c.id, true
			}
		}
		if !found {
			return nil
		}
		s := ArchiveState{ID: id}
		if r.ok && r.ID == id {
			s.Record, s.Current = &r.ArchiveRecord, r.last
			recs.next()
		}
		if a.ok && a.ID == id {
			s.Listed = &a.Archive
			list.next()
		}
		for named.more() && named.peek().archive == id {
			s.Snapshot = named.peek().snap
			named.at++
		}
		if err := fn(s); err != nil {
			return err
		}
	}
}

// ArchiveChange is what becomes of the record of an archive.
type ArchiveChange struct {
	Was    *ArchiveRecord // nil: there was none
	Record ArchiveRecord  // SeenAsOf equal to the listing's time: it is in the listing
	Drop   bool           // the record goes
}

// Apply makes changes. One whose record was changed by an upload or a deletion since it
// was compared is left out: the next listing sees to it.
func (l *Listing) Apply(ctx context.Context, changes []ArchiveChange) error {
	err := l.d.change(ctx, lazy, func(tx *sql.Tx) error {
		insert, err := tx.PrepareContext(ctx, insertArchive+`NOTHING`)
		if err != nil {
			return err
		}
		defer insert.Close() // with the transaction at the latest
		for i := range changes {
			if err := l.apply(ctx, tx, insert, &changes[i]); err != nil {
				return err
			}
		}
		return nil
	})
	return l.d.fail("take in a listing of "+l.vault, err)
}

func (l *Listing) apply(ctx context.Context, tx *sql.Tx, insert *sql.Stmt, c *ArchiveChange) error {
	r := &c.Record
	created, seen, uploaded, deleted, err := archiveTimes(r)
	if err != nil {
		return err
	}
	if !r.SeenAsOf.IsZero() && r.SeenAsOf.Equal(l.asOf) {
		seen = seenLast
	}
	if c.Was == nil {
		_, err = insert.ExecContext(ctx, blob(l.vault), blob(r.ID), blob(r.Name), blob(r.Description),
			r.Size, r.TreeHash[:], created, seen, uploaded, deleted)
		return err
	}
	_, _, wasUploaded, wasDeleted, err := archiveTimes(c.Was)
	if err != nil {
		return err
	}
	const same = ` WHERE vault = $1 AND archive = $2 AND uploaded = $3 AND deleted = $4`
	args := []any{blob(l.vault), blob(c.Was.ID), wasUploaded, wasDeleted}
	if c.Drop {
		if _, err = tx.ExecContext(ctx, `DELETE FROM archives`+same, args...); err != nil {
			return err
		}
		asOf, err := timeText(l.asOf)
		if err != nil {
			return err
		}
		return itemLost(ctx, tx, l.vault, c.Was.ID, asOf)
	}
	args = append(args, blob(r.Name), blob(r.Description), r.Size, r.TreeHash[:], created, seen, uploaded, deleted)
	_, err = tx.ExecContext(ctx, `UPDATE archives SET name = $5, description = $6, size = $7, tree_hash = $8,
		created = $9, seen = $10, uploaded = $11, deleted = $12`+same, args...)
	return err
}

// End makes this the vault's last listing. It is durable, and with it all that was applied.
func (l *Listing) End(ctx context.Context, taken time.Time) error {
	err := l.d.change(ctx, durable, func(tx *sql.Tx) error {
		if l.asOf.IsZero() {
			return errors.New("the listing is not complete")
		}
		asOf, err := timeText(l.asOf)
		if err != nil {
			return err
		}
		at, err := timeText(taken)
		if err != nil {
			return err
		}
		_, err = tx.ExecContext(ctx, `INSERT INTO listings (vault, as_of, taken, archives, bytes) VALUES ($1, $2, $3, $4, $5)
			ON CONFLICT (vault) DO UPDATE SET as_of = excluded.as_of, taken = excluded.taken,
			archives = excluded.archives, bytes = excluded.bytes`, blob(l.vault), asOf, at, l.archives, l.bytes)
		return err
	})
	if err == nil {
		err = l.clear(ctx)
	}
	return l.d.fail("take in a listing of "+l.vault, err)
}

// Totals are what the listing has.
func (l *Listing) Totals() (archives, bytes int64) { return l.archives, l.bytes }

// listedArchive and knownArchive are rows; ok is false after the last.
type listedArchive struct {
	coldstore.Archive
	ok bool
}

type knownArchive struct {
	ArchiveRecord
	last, ok bool
}

// recordPages reads records in the order of ids, a page at a time: an open query
// would keep all that is written meanwhile in the database's log.
type recordPages struct {
	d     *DB
	vault string
	page  []knownArchive
	after []byte
	end   bool
}

func (p *recordPages) peek(ctx context.Context) (knownArchive, error) {
	if len(p.page) == 0 && !p.end {
		op := `>`
		if p.after == nil {
			p.after, op = []byte{}, `>=`
		}
		err := each(ctx, p.d.b.Read, func(s scanner) error {
			r, last, err := scanArchive(s)
			p.page = append(p.page, knownArchive{r, last, true})
			p.after = blob(r.ID)
			return err
		}, archiveQuery+`WHERE a.vault = $1 AND a.archive `+op+` $2 ORDER BY a.archive LIMIT $3`, blob(p.vault), p.after, p.d.b.PageRows)
		if err != nil {
			return knownArchive{}, err
		}
		p.end = len(p.page) < p.d.b.PageRows
	}
	if len(p.page) == 0 {
		return knownArchive{}, nil
	}
	return p.page[0], nil
}

func (p *recordPages) next() { p.page = p.page[1:] }

type listedPages struct {
	d     *DB
	vault string
	page  []listedArchive
	after []byte
	end   bool
}

func (p *listedPages) peek(ctx context.Context) (listedArchive, error) {
	if len(p.page) == 0 && !p.end {
		op := `>`
		if p.after == nil {
			p.after, op = []byte{}, `>=`
		}
		err := each(ctx, p.d.b.Read, func(s scanner) error {
			a := listedArchive{ok: true}
			err := s.Scan(&a.ID, &a.Description, &a.Size, hashColumn{(*[32]byte)(&a.TreeHash)}, timeColumn{&a.Created})
			p.page = append(p.page, a)
			p.after = blob(a.ID)
			return err
		}, `SELECT archive, description, size, tree_hash, created FROM listed
			WHERE vault = $1 AND archive `+op+` $2 ORDER BY archive LIMIT $3`, blob(p.vault), p.after, p.d.b.PageRows)
		if err != nil {
			return listedArchive{}, err
		}
		p.end = len(p.page) < p.d.b.PageRows
	}
	if len(p.page) == 0 {
		return listedArchive{}, nil
	}
	return p.page[0], nil
}

func (p *listedPages) next() { p.page = p.page[1:] }

// neededArchive is an archive that a snapshot is stored in.
type neededArchive struct{ archive, snap string }

// neededPages are all of a vault's in memory: two hundred bytes for each volume, which is a gigabyte or so.
type neededPages struct {
	d     *DB
	vault string
	all   []neededArchive
	at    int
}

func (p *neededPages) load(ctx context.Context) error {
	return p.d.eachNeeded(ctx, p.vault, func(archive, snap string) error {
		p.all = append(p.all, neededArchive{archive, snap})
		return nil
	})
}

func (p *neededPages) more() bool { return p.at < len(p.all) }

func (p *neededPages) peek() neededArchive {
	if !p.more() {
		return neededArchive{}
	}
	return p.all[p.at]
}

// eachNeeded calls fn, in the order of archives, for what the volumes and manifests of a vault's
// snapshots, and of attempts at one, are stored in.
func (d *DB) eachNeeded(ctx context.Context, vault string, fn func(archive, snap string) error) error {
	return each(ctx, d.b.Read, func(s scanner) error {
		var archive, snap string
		if err := s.Scan(&archive, &snap); err != nil {
			return err
		}
		return fn(archive, snap)
	}, `SELECT v.archive AS archive, s.id FROM volumes v JOIN snapshots s ON s.num = v.snap WHERE s.vault = $1
		UNION ALL SELECT s.manifest_archive AS archive, s.id FROM snapshots s WHERE s.vault = $1 AND s.manifest_archive IS NOT NULL
		UNION ALL SELECT i.archive AS archive, 'item ' || i.set_id FROM items i WHERE i.vault = $1 AND i.archive <> $2 AND i.deleted = ''
		UNION ALL SELECT r.listing AS archive, r.id FROM item_runs r WHERE r.vault = $1 AND r.listing <> $2
		ORDER BY 1`, blob(vault), []byte{})
}

// NeededArchives calls fn, in the order of ids, for every archive that a snapshot of the catalog, or an attempt
// at one, needs of a vault. It stops at fn's first error and returns it. fn must not change the catalog.
func (d *DB) NeededArchives(ctx context.Context, vault string, fn func(archive, snapshot string) error) error {
	var stop error
	err := d.eachNeeded(ctx, vault, func(archive, snap string) error {
		stop = fn(archive, snap)
		return stop
	})
	if stop != nil {
		return stop
	}
	return d.fail("list archives that snapshots need", err)
}

// NeededBy returns the id of a snapshot, or of an attempt at one, that needs an archive; empty: none does.
func (d *DB) NeededBy(ctx context.Context, vault, archive string) (string, error) {
	var snap string
	err := d.b.Read.QueryRowContext(ctx, `SELECT s.id FROM volumes v JOIN snapshots s ON s.num = v.snap WHERE s.vault = $1 AND v.archive = $2
		UNION ALL SELECT s.id FROM snapshots s WHERE s.vault = $1 AND s.manifest_archive = $2
		UNION ALL SELECT 'item ' || i.set_id FROM items i WHERE i.vault = $1 AND i.archive = $2 AND i.deleted = ''
		UNION ALL SELECT r.id FROM item_runs r WHERE r.vault = $1 AND r.listing = $2 LIMIT 1`, blob(vault), blob(archive)).Scan(&snap)
	if errors.Is(err, sql.ErrNoRows) {
		return "", nil
	}
	return snap, d.fail("find who needs archive "+archive, err)
}

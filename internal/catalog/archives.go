package catalog

import (
	"context"
	"database/sql"
	"errors"
	"time"

	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/internal/failure"
)

// ArchiveRecord is what is known of one archive of a vault.
type ArchiveRecord struct {
	Vault string // URL, as in the catalog
	coldstore.Archive
	// SeenAsOf is the time of the last listing that had it; zero: none had.
	SeenAsOf time.Time
	// UploadedAt is when it was uploaded here; zero: it was not, or that is not known.
	UploadedAt time.Time
	// DeletedAt is when it was deleted here; zero: it was not. Such a record stays until a
	// listing made afterwards has it no more.
	DeletedAt time.Time
	Name      string // of the file uploaded here; may be empty
}

// Columns of an archive. In what is scanned, seen is a time, and whether that is the last listing's.
const archiveColumns = `a.vault, a.archive, a.name, a.description, a.size, a.tree_hash, a.created,
	CASE a.seen WHEN 'last' THEN COALESCE(l.as_of, '') ELSE a.seen END, a.uploaded, a.deleted, CASE a.seen WHEN 'last' THEN 1 ELSE 0 END`

const archiveQuery = `SELECT ` + archiveColumns + ` FROM archives a LEFT JOIN listings l ON l.vault = a.vault `

// seenLast stands for the time of the vault's last listing.
const seenLast = "last"

func scanArchive(s scanner) (r ArchiveRecord, last bool, err error) {
	err = s.Scan(&r.Vault, &r.ID, &r.Name, &r.Description, &r.Size, hashColumn{(*[32]byte)(&r.TreeHash)}, timeColumn{&r.Created},
		timeColumn{&r.SeenAsOf}, timeColumn{&r.UploadedAt}, timeColumn{&r.DeletedAt}, &last)
	return r, last, err
}

// archiveTimes are a record's times as text.
func archiveTimes(r *ArchiveRecord) (created, seen, uploaded, deleted string, err error) {
	for _, c := range []struct {
		text *string
		t    time.Time
	}{{&created, r.Created}, {&seen, r.SeenAsOf}, {&uploaded, r.UploadedAt}, {&deleted, r.DeletedAt}} {
		if *c.text, err = timeText(c.t); err != nil {
			return "", "", "", "", err
		}
	}
	return created, seen, uploaded, deleted, nil
}

const insertArchive = `INSERT INTO archives
	(vault, archive, name, description, size, tree_hash, created, seen, uploaded, deleted)
	VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) ON CONFLICT (vault, archive) DO `

// PutArchive records an archive that was uploaded here; what was known of that id is replaced. It is durable.
func (d *DB) PutArchive(ctx context.Context, r ArchiveRecord) error {
	err := d.change(ctx, durable, func(tx *sql.Tx) error {
		if r.Vault == "" || r.ID == "" {
			return failure.Errorf(failure.Usage, "a record needs a vault and an archive id")
		}
		created, seen, uploaded, deleted, err := archiveTimes(&r)
		if err != nil {
			return err
		}
		_, err = tx.ExecContext(ctx, insertArchive+`UPDATE SET name = excluded.name, description = excluded.description,
			size = excluded.size, tree_hash = excluded.tree_hash, created = excluded.created, seen = excluded.seen,
			uploaded = excluded.uploaded, deleted = excluded.deleted`,
			blob(r.Vault), blob(r.ID), blob(r.Name), blob(r.Description), r.Size, r.TreeHash[:], created, seen, uploaded, deleted)
		return err
	})
	return d.fail("record archive "+r.ID, err)
}

// ArchiveDeleted records that an archive was deleted here, one that was not known before too. It is durable.
func (d *DB) ArchiveDeleted(ctx context.Context, vault, id string, at time.Time) error {
	return d.ArchivesDeleted(ctx, vault, []string{id}, at)
}

// ArchivesDeleted is ArchiveDeleted for several in one transaction.
func (d *DB) ArchivesDeleted(ctx context.Context, vault string, ids []string, at time.Time) error {
	err := d.change(ctx, durable, func(tx *sql.Tx) error {
		text, err := timeText(at)
		if err != nil {
			return err
		}
		if text == "" || vault == "" {
			return failure.Errorf(failure.Usage, "a deletion needs a vault and a time")
		}
		for _, id := range ids {
			_, err = tx.ExecContext(ctx, insertArchive+`UPDATE SET deleted = excluded.deleted`,
				blob(vault), blob(id), []byte{}, []byte{}, 0, make([]byte, 32), "", "", "", text)
			if err == nil {
				err = itemLost(ctx, tx, vault, id, text)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
	name := "archives"
	if len(ids) == 1 {
		name = "archive " + ids[0]
	}
	return d.fail("record "+name+" as deleted", err)
}

// ArchiveByID returns what is known of one archive, deleted ones included.
func (d *DB) ArchiveByID(ctx context.Context, vault, id string) (ArchiveRecord, error) {
	r, _, err := scanArchive(d.b.Read.QueryRowContext(ctx, archiveQuery+`WHERE a.vault = $1 AND a.archive = $2`, blob(vault), blob(id)))
	return r, d.fail("find archive", notFound(err, "archive %s in %s", id, vault))
}

// FindArchives calls fn for every archive known of a vault, deleted ones included, that
// match says yes to; nil says yes to all. The oldest (Created) come first, and among equals the
// order is that of ids. It stops at fn's first error and returns it. fn may use the catalog: what it
// changes may or may not be met later in the same call.
func (d *DB) FindArchives(ctx context.Context, vault string, match func(ArchiveRecord) bool, fn func(ArchiveRecord) error) error {
	created, id := "", []byte{}
	for first := true; ; first = false {
		var page []ArchiveRecord
		more := `(a.created > $2 OR (a.created = $2 AND a.archive > $3))`
		if first {
			more = `a.created >= $2 AND a.archive >= $3`
		}
		n := 0
		err := each(ctx, d.b.Read, func(s scanner) error {
			r, _, err := scanArchive(s)
			if err != nil {
				return err
			}
			n++
			id = blob(r.ID)
			if created, err = timeText(r.Created); err != nil {
				return err
			}
			if match == nil || match(r) {
				page = append(page, r)
			}
			return nil
		}, archiveQuery+`WHERE a.vault = $1 AND a.created >= $2 AND `+more+` ORDER BY a.created, a.archive LIMIT $4`,
			blob(vault), created, id, d.b.PageRows)
		if err != nil {
			return d.fail("list archives of "+vault, err)
		}
		for _, r := range page {
			if err := fn(r); err != nil {
				return err
			}
		}
		if n < d.b.PageRows {
			return nil
		}
	}
}

// VaultListing is the last listing of a vault that was taken in.
type VaultListing struct {
	AsOf     time.Time // zero: none was
	Taken    time.Time
	Archives int64
	Bytes    int64
}

// LastListing returns the last listing of a vault that was taken in; the zero one where there was none.
func (d *DB) LastListing(ctx context.Context, vault string) (VaultListing, error) {
	var v VaultListing
	err := d.b.Read.QueryRowContext(ctx, `SELECT as_of, taken, archives, bytes FROM listings WHERE vault = $1`, blob(vault)).
		Scan(timeColumn{&v.AsOf}, timeColumn{&v.Taken}, &v.Archives, &v.Bytes)
	if errors.Is(err, sql.ErrNoRows) {
		return VaultListing{}, nil
	}
	return v, d.fail("find the last listing of "+vault, err)
}

// LastDeletion returns when an archive of a vault was last deleted here, of those that a listing may
// still have; zero: there is none.
func (d *DB) LastDeletion(ctx context.Context, vault string) (time.Time, error) {
	var t time.Time
	err := d.b.Read.QueryRowContext(ctx, `SELECT COALESCE(MAX(deleted), '') FROM archives WHERE vault = $1`, blob(vault)).Scan(timeColumn{&t})
	return t, d.fail("find the last deletion in "+vault, err)
}

// ForgetVault forgets all archives and listings of a vault that is no more.
func (d *DB) ForgetVault(ctx context.Context, vault string) error {
	for _, piece := range []string{
		`DELETE FROM archives WHERE num IN (SELECT num FROM archives WHERE vault = $1 LIMIT $2)`,
		`DELETE FROM listed WHERE vault = $1 AND archive IN (SELECT archive FROM listed WHERE vault = $1 LIMIT $2)`,
		`DELETE FROM listings WHERE vault IN (SELECT vault FROM listings WHERE vault = $1 LIMIT $2)`,
		`DELETE FROM questions WHERE vault = $1 AND name IN (SELECT name FROM questions WHERE vault = $1 LIMIT $2)`,
		`DELETE FROM deletions WHERE vault = $1 AND archive IN (SELECT archive FROM deletions WHERE vault = $1 LIMIT $2)`,
		`DELETE FROM retrievals WHERE vault = $1 AND token IN (SELECT token FROM retrievals WHERE vault = $1 LIMIT $2)`,
	} {
		if err := d.deleteAll(ctx, piece, vault); err != nil {
			return d.fail("forget vault "+vault, err)
		}
	}
	return nil
}

// deleteAll repeats a statement that deletes at most so many rows until none is left: others may write in between.
func (d *DB) deleteAll(ctx context.Context, stmt, vault string) error {
	for {
		var n int64
		err := d.change(ctx, lazy, func(tx *sql.Tx) (err error) {
			n, err = affected(tx.ExecContext(ctx, stmt, blob(vault), sweepPiece))
			return err
		})
		if err != nil || n == 0 {
			return err
		}
	}
}

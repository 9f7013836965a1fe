package catalog

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/firn-backup/firn/internal/failure"
	"github.com/firn-backup/firn/internal/manifest"
)

// Doomed is an archive that no snapshot needs any more and that is to be deleted
// from its vault. It stays on the list until the vault has acknowledged that, so that
// what was interrupted goes on.
type Doomed struct {
	Num      int64  // of the list
	Vault    string // URL
	Archive  string
	SetID    string
	Snap     string // id of the snapshot or attempt that it was of
	Manifest bool   // manifests go before all volumes
	Size     int64  // bytes
	Stored   time.Time
}

// ErrInUse says that a chain cannot be forgotten: something needs it.
var ErrInUse = errors.New("it is still needed")

// ForgetChain forgets all snapshots of a chain, which must be those whose ids are given, and puts
// their archives on the list of the doomed: one transaction, durable. ErrInUse: an attempt
// builds on it, or it is the only chain of its set. An adopted archive that another snapshot was made of, too, is not put on the list.
func (d *DB) ForgetChain(ctx context.Context, ids []string) error {
	err := d.change(ctx, durable, func(tx *sql.Tx) error { return d.forgetChain(ctx, tx, ids) })
	if err == nil {
		// What a failed sweep leaves, the next Begin sweeps, and reports: the chain is gone.
		_ = d.sweep(ctx)
	}
	name := "chain"
	if len(ids) > 0 {
		name += " of " + ids[len(ids)-1]
	}
	return d.fail("forget "+name, err)
}

func (d *DB) forgetChain(ctx context.Context, tx *sql.Tx, ids []string) error {
	if len(ids) == 0 {
		return failure.Errorf(failure.Usage, "a chain without snapshots")
	}
	v, err := d.view(ctx, tx, ids[0])
	if err != nil {
		return err
	}
	var set string
	var found []string
	err = each(ctx, tx, func(s scanner) error {
		var id string
		var state State
		if err := s.Scan(&id, &state, &set); err != nil {
			return err
		}
		if state != Stored {
			return fmt.Errorf("%w: attempt %s builds on it", ErrInUse, id)
		}
		found = append(found, id)
		return nil
	}, `SELECT id, state, set_id FROM snapshots WHERE chain = $1`, v.chain)
	if err != nil {
		return err
	}
	if want := slices.Sorted(slices.Values(ids)); !slices.Equal(want, slices.Sorted(slices.Values(found))) {
		return fmt.Errorf("its snapshots are others than was thought: %d, and not %d", len(found), len(ids))
	}
	var others int
	err = tx.QueryRowContext(ctx, `SELECT COUNT(*) FROM snapshots WHERE set_id = $1 AND chain <> $2 AND state = $3`,
		set, v.chain, string(Stored)).Scan(&others)
	if err != nil {
		return err
	}
	if others == 0 {
		return fmt.Errorf("%w: the set has no other chain", ErrInUse)
	}
	const stored = `CASE s.stored WHEN '' THEN s.made ELSE s.stored END`
	for _, stmt := range []string{
		`INSERT INTO doomed (vault, archive, set_id, snap, manifest, size, stored)
			SELECT s.vault, s.manifest_archive, s.set_id, s.id, 1, s.manifest_size, ` + stored + ` FROM snapshots s
			WHERE s.chain = $1 AND length(s.manifest_archive) > 0 ORDER BY s.n DESC ON CONFLICT (vault, archive) DO NOTHING`,
		`INSERT INTO doomed (vault, archive, set_id, snap, manifest, size, stored)
			SELECT s.vault, v.archive, s.set_id, s.id, 0, v.size, ` + stored + ` FROM volumes v JOIN snapshots s ON s.num = v.snap
			WHERE s.chain = $1 AND (s.adopted = '' OR NOT EXISTS (SELECT 1 FROM snapshots q JOIN volumes w ON w.snap = q.num
				WHERE q.adopted <> '' AND q.chain <> s.chain AND q.vault = s.vault AND w.archive = v.archive))
			ORDER BY s.n DESC, v.n ON CONFLICT (vault, archive) DO NOTHING`,
		`INSERT INTO garbage (chain) VALUES ($1)`,
		`DELETE FROM changes WHERE snap IN (SELECT num FROM snapshots WHERE chain = $1)`,
		`DELETE FROM problems WHERE snap IN (SELECT num FROM snapshots WHERE chain = $1)`,
		`DELETE FROM pending WHERE snap IN (SELECT num FROM snapshots WHERE chain = $1)`,
		`DELETE FROM volumes WHERE snap IN (SELECT num FROM snapshots WHERE chain = $1)`,
		`DELETE FROM snapshots WHERE chain = $1`,
	} {
		if _, err := tx.ExecContext(ctx, stmt, v.chain); err != nil {
			return err
		}
	}
	return nil
}

// Abandon is Discard of an attempt whose volumes nobody needs: it puts them on the list of the doomed, as
// stored by now at the latest, in the same transaction.
func (d *DB) Abandon(ctx context.Context, id string, now time.Time) ([]manifest.Volume, error) {
	vols, err := d.endAttempt(ctx, id, func(tx *sql.Tx, v view) error {
		at, err := timeText(now)
		if err != nil {
			return err
		}
		_, err = tx.ExecContext(ctx, `INSERT INTO doomed (vault, archive, set_id, snap, manifest, size, stored)
			SELECT s.vault, v.archive, s.set_id, s.id, 0, v.size, $2 FROM volumes v JOIN snapshots s ON s.num = v.snap
			WHERE s.num = $1 ORDER BY v.n ON CONFLICT (vault, archive) DO NOTHING`, v.num, at)
		return err
	})
	return vols, d.fail("abandon attempt "+id, err)
}

// AddDoomed puts archives on the list; those that are there stay as they are. It is durable. Num is not looked at.
func (d *DB) AddDoomed(ctx context.Context, list []Doomed) error {
	err := d.change(ctx, durable, func(tx *sql.Tx) error {
		for i := range list {
			x := &list[i]
			at, err := timeText(x.Stored)
			if err != nil {
				return err
			}
			if x.Vault == "" || x.Archive == "" {
				return failure.Errorf(failure.Usage, "a deletion needs a vault and an archive")
			}
			m := 0
			if x.Manifest {
				m = 1
			}
			_, err = tx.ExecContext(ctx, `INSERT INTO doomed (vault, archive, set_id, snap, manifest, size, stored)
				VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (vault, archive) DO NOTHING`,
				blob(x.Vault), blob(x.Archive), x.SetID, x.Snap, m, x.Size, at)
			if err != nil {
				return err
			}
		}
		return nil
	})
	return d.fail("record what is to be deleted", err)
}

const doomedColumns = `num, vault, archive, set_id, snap, manifest, size, stored`

func scanDoomed(s scanner) (x Doomed, err error) {
	err = s.Scan(&x.Num, &x.Vault, &x.Archive, &x.SetID, &x.Snap, &x.Manifest, &x.Size, timeColumn{&x.Stored})
	return x, err
}

// Doomed calls fn for every archive of a set that is to be deleted, in the order in which that must
// be done: manifests, the newest of each chain first, then volumes. It stops at fn's first error and returns it. fn may use
// the catalog, and take what it is called with off the list.
func (d *DB) Doomed(ctx context.Context, setID string, fn func(Doomed) error) error {
	for _, m := range []int{1, 0} {
		last := int64(0)
		for {
			var page []Doomed
			err := each(ctx, d.b.Read, func(s scanner) error {
				x, err := scanDoomed(s)
				page = append(page, x)
				return err
			}, `SELECT `+doomedColumns+` FROM doomed WHERE set_id = $1 AND manifest = $2 AND num > $3 ORDER BY num LIMIT $4`,
				setID, m, last, d.b.PageRows)
			if err != nil {
				return d.fail("list what is to be deleted", err)
			}
			for _, x := range page {
				if err := fn(x); err != nil {
					return err
				}
				last = x.Num
			}
			if len(page) < d.b.PageRows {
				break
			}
		}
	}
	return nil
}

// IsDoomed says whether an archive is on the list of the doomed.
func (d *DB) IsDoomed(ctx context.Context, vault, archive string) (bool, error) {
	var n int
	err := d.b.Read.QueryRowContext(ctx, `SELECT COUNT(*) FROM doomed WHERE vault = $1 AND archive = $2`,
		blob(vault), blob(archive)).Scan(&n)
	return n > 0, d.fail("look for what is to be deleted", err)
}

// DoomedGone takes archives off the list. It may be undone by a loss of power: deleting them again does no harm.
func (d *DB) DoomedGone(ctx context.Context, nums []int64) error {
	err := d.change(ctx, lazy, func(tx *sql.Tx) error {
		for _, n := range nums {
			if _, err := tx.ExecContext(ctx, `DELETE FROM doomed WHERE num = $1`, n); err != nil {
				return err
			}
		}
		return nil
	})
	return d.fail("record deletions", err)
}

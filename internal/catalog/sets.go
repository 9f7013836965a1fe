package catalog

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"github.com/firn-backup/firn/internal/failure"
)

// Set is a named thing to back up.
type Set struct {
	ID      string // ULID, made once
	Name    string // unique together with Host
	Label   string // the name at creation
	Host    string
	Kind    string // "tree"
	Vault   string // URL of the vault its snapshots go to
	Root    string // the absolute path an implicit set is bound to; empty for a configured one
	Created time.Time
}

const setColumns = `id, name, label, host, kind, vault, root, created`

// PutSet inserts a set, or updates it by ID. Another set of the same name and
// host is a failure of kind failure.Usage.
func (d *DB) PutSet(ctx context.Context, s Set) error {
	err := d.change(ctx, durable, func(tx *sql.Tx) error { return putSet(ctx, tx, s) })
	return d.fail(fmt.Sprintf("record set %q", s.Name), err)
}

func putSet(ctx context.Context, tx *sql.Tx, s Set) error {
	if s.ID == "" || s.Name == "" {
		return failure.Errorf(failure.Usage, "a set needs an id and a name")
	}
	created, err := timeText(s.Created)
	if err != nil {
		return err
	}
	var other string
	err = tx.QueryRowContext(ctx, `SELECT id FROM sets WHERE name = $1 AND host = $2 AND id <> $3`,
		blob(s.Name), blob(s.Host), s.ID).Scan(&other)
	if err == nil {
		return failure.Errorf(failure.Usage, "there is a set %q of host %q already (%s)", s.Name, s.Host, other)
	}
	if err != sql.ErrNoRows {
		return err
	}
	_, err = tx.ExecContext(ctx, `INSERT INTO sets (`+setColumns+`) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
		ON CONFLICT (id) DO UPDATE SET name = excluded.name, label = excluded.label, host = excluded.host,
		kind = excluded.kind, vault = excluded.vault, root = excluded.root, created = excluded.created`,
		s.ID, blob(s.Name), blob(s.Label), blob(s.Host), s.Kind, blob(s.Vault), blob(s.Root), created)
	return err
}

// Sets lists all sets by name, then host.
func (d *DB) Sets(ctx context.Context) ([]Set, error) {
	var sets []Set
	err := each(ctx, d.b.Read, func(r scanner) error {
		s, err := scanSet(r)
		sets = append(sets, s)
		return err
	}, `SELECT `+setColumns+` FROM sets ORDER BY name, host`)
	if err != nil {
		return nil, d.fail("list sets", err)
	}
	return sets, nil
}

// SetByID returns one set.
func (d *DB) SetByID(ctx context.Context, id string) (Set, error) {
	s, err := scanSet(d.b.Read.QueryRowContext(ctx, `SELECT `+setColumns+` FROM sets WHERE id = $1`, id))
	return s, d.fail("find set", notFound(err, "set %s", id))
}

func scanSet(r scanner) (Set, error) {
	var s Set
	err := r.Scan(&s.ID, &s.Name, &s.Label, &s.Host, &s.Kind, &s.Vault, &s.Root, timeColumn{&s.Created})
	return s, err
}

// RemoveSet forgets a set with all its snapshots and attempts. What they stored
// stays in the vault.
func (d *DB) RemoveSet(ctx context.Context, id string) error {
	err := d.change(ctx, durable, func(tx *sql.Tx) error {
		for _, stmt := range []string{
			`INSERT INTO garbage (chain) SELECT num FROM snapshots WHERE set_id = $1 AND num = chain`,
			`DELETE FROM changes WHERE snap IN (SELECT num FROM snapshots WHERE set_id = $1)`,
			`DELETE FROM problems WHERE snap IN (SELECT num FROM snapshots WHERE set_id = $1)`,
			`DELETE FROM pending WHERE snap IN (SELECT num FROM snapshots WHERE set_id = $1)`,
			`DELETE FROM volumes WHERE snap IN (SELECT num FROM snapshots WHERE set_id = $1)`,
			`DELETE FROM snapshots WHERE set_id = $1 AND num <> chain`,
			`DELETE FROM snapshots WHERE set_id = $1`,
			`DELETE FROM leases WHERE set_id = $1`,
		} {
			if _, err := tx.ExecContext(ctx, stmt, id); err != nil {
				return err
			}
		}
		if err := removeItems(ctx, tx, id); err != nil {
			return err
		}
		n, err := affected(tx.ExecContext(ctx, `DELETE FROM sets WHERE id = $1`, id))
		if err == nil && n == 0 {
			err = failure.Errorf(failure.NotFound, "no set %s", id)
		}
		return err
	})
	if err == nil {
		err = d.sweep(ctx)
	}
	return d.fail("remove set "+id, err)
}

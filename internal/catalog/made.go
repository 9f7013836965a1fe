package catalog

import (
	"context"
	"database/sql"
	"time"
)

// MadeVault is a vault that Firn made by itself, for a period of a template, and may remove when nothing is
// in it any more.
type MadeVault struct {
	Vault    string // URL
	Template string // URL with placeholders
	Made     time.Time
	Ended    time.Time // when it was first tried to remove it; zero: not yet
}

// PutMadeVault records one, durably, or changes what is recorded.
func (d *DB) PutMadeVault(ctx context.Context, m MadeVault) error {
	made, err := timeText(m.Made)
	if err != nil {
		return d.fail("record vault "+m.Vault, err)
	}
	ended, err := timeText(m.Ended)
	if err != nil {
		return d.fail("record vault "+m.Vault, err)
	}
	err = d.change(ctx, durable, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `INSERT INTO made_vaults (vault, template, made, ended) VALUES ($1, $2, $3, $4)
			ON CONFLICT (vault) DO UPDATE SET template = excluded.template, made = excluded.made, ended = excluded.ended`,
			blob(m.Vault), blob(m.Template), made, ended)
		return err
	})
	return d.fail("record vault "+m.Vault, err)
}

// MadeVaults lists them, oldest first.
func (d *DB) MadeVaults(ctx context.Context) ([]MadeVault, error) {
	var list []MadeVault
	err := each(ctx, d.b.Read, func(s scanner) error {
		var m MadeVault
		if err := s.Scan(&m.Vault, &m.Template, timeColumn{&m.Made}, timeColumn{&m.Ended}); err != nil {
			return err
		}
		list = append(list, m)
		return nil
	}, `SELECT CAST(vault AS TEXT), CAST(template AS TEXT), made, ended FROM made_vaults ORDER BY made, vault`)
	return list, d.fail("list vaults that were made", err)
}

// DropMadeVault forgets that a vault was made.
func (d *DB) DropMadeVault(ctx context.Context, vault string) error {
	err := d.change(ctx, durable, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `DELETE FROM made_vaults WHERE vault = $1`, blob(vault))
		return err
	})
	return d.fail("forget vault "+vault, err)
}

// VaultInUse says whether the catalog knows a snapshot or attempt in a vault, an item, or an archive that is still to
// be deleted there.
func (d *DB) VaultInUse(ctx context.Context, vault string) (bool, error) {
	var n int
	err := d.b.Read.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM snapshots WHERE vault = $1)
		+ EXISTS (SELECT 1 FROM doomed WHERE vault = $1)
		+ EXISTS (SELECT 1 FROM items WHERE vault = $1 AND archive <> $2 AND deleted = '')`, blob(vault), blob("")).Scan(&n)
	return n > 0, d.fail("look for what needs "+vault, err)
}

package catalog

import (
	"context"
	"database/sql"
	"errors"
	"time"

	"github.com/firn-backup/firn/internal/failure"
)

// Account returns the account that a caller, known by a hash, was found to belong to; empty: nobody has asked yet.
func (d *DB) Account(ctx context.Context, caller string) (string, error) {
	var account string
	err := d.b.Read.QueryRowContext(ctx, `SELECT account FROM accounts WHERE caller = $1`, blob(caller)).Scan(&account)
	if errors.Is(err, sql.ErrNoRows) {
		return "", nil
	}
	return account, d.fail("find the account", err)
}

// PutAccount remembers to which account a caller belongs.
func (d *DB) PutAccount(ctx context.Context, caller, account string) error {
	err := d.change(ctx, lazy, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `INSERT INTO accounts (caller, account) VALUES ($1, $2)
			ON CONFLICT (caller) DO UPDATE SET account = excluded.account`, blob(caller), account)
		return err
	})
	return d.fail("remember the account", err)
}

// Vaults are the URLs of all vaults of which archives or listings are known, in order.
func (d *DB) Vaults(ctx context.Context) ([]string, error) {
	var list []string
	err := each(ctx, d.b.Read, func(s scanner) error {
		var url string
		err := s.Scan(&url)
		list = append(list, url)
		return err
	}, `WITH RECURSIVE v (vault) AS (SELECT MIN(vault) FROM archives
			UNION ALL SELECT (SELECT MIN(a.vault) FROM archives a WHERE a.vault > v.vault) FROM v WHERE v.vault IS NOT NULL)
		SELECT vault FROM v WHERE vault IS NOT NULL UNION SELECT vault FROM listings ORDER BY 1`)
	return list, d.fail("list vaults", err)
}

// ArchivesCalled returns what is known of a vault's archives that have that name, or one of those
// descriptions; deleted ones included, the oldest (Created) first, and of those of one time what was recorded first.
func (d *DB) ArchivesCalled(ctx context.Context, vault, name string, descriptions ...string) ([]ArchiveRecord, error) {
	var list []ArchiveRecord
	seen := map[string]bool{}
	find := func(where, what string) error {
		return each(ctx, d.b.Read, func(s scanner) error {
			r, _, err := scanArchive(s)
			if err == nil && !seen[r.ID] {
				seen[r.ID] = true
				list = append(list, r)
			}
			return err
		}, archiveQuery+where, blob(vault), blob(what))
	}
	var err error
	if name != "" {
		err = find(`WHERE a.vault = $1 AND a.name = $2 AND a.name <> x'' ORDER BY a.created, a.num`, name)
	}
	for _, text := range descriptions {
		if err == nil {
			err = find(`WHERE a.vault = $1 AND a.description = $2 ORDER BY a.created, a.num`, text)
		}
	}
	return list, d.fail("find archives called "+name, err)
}

// RememberDeleted remembers for good that an archive with a description was deleted here. It is durable.
func (d *DB) RememberDeleted(ctx context.Context, vault, archive, description string, at time.Time) error {
	text, err := timeText(at)
	if err == nil {
		err = d.change(ctx, durable, func(tx *sql.Tx) error {
			_, err := tx.ExecContext(ctx, `INSERT INTO deletions (vault, archive, description, deleted) VALUES ($1, $2, $3, $4)
				ON CONFLICT (vault, archive) DO NOTHING`, blob(vault), blob(archive), blob(description), text)
			return err
		})
	}
	return d.fail("remember the deletion of archive "+archive, err)
}

// WasDeleted says whether an archive of that id, or of one of those descriptions, was ever deleted here.
func (d *DB) WasDeleted(ctx context.Context, vault, archive string, descriptions ...string) (bool, error) {
	var n int64
	err := d.b.Read.QueryRowContext(ctx, `SELECT COUNT(*) FROM deletions WHERE vault = $1 AND archive = $2`, blob(vault), blob(archive)).Scan(&n)
	for _, text := range descriptions {
		if err == nil && n == 0 {
			err = d.b.Read.QueryRowContext(ctx, `SELECT COUNT(*) FROM (SELECT 1 FROM deletions WHERE vault = $1 AND description = $2 LIMIT 1)`,
				blob(vault), blob(text)).Scan(&n)
		}
	}
	return n > 0, d.fail("find deletions", err)
}

// QuestionLife is how long a question counts: it has an answer long before, if it is asked again and again.
const QuestionLife = 4 * 24 * time.Hour

// Asked remembers that a name was asked for in vain, the first time; those older than QuestionLife are forgotten.
func (d *DB) Asked(ctx context.Context, vault, name string, at time.Time) error {
	text, err := timeText(at)
	old := ""
	if err == nil {
		old, err = timeText(at.Add(-QuestionLife))
	}
	if err == nil {
		err = d.change(ctx, lazy, func(tx *sql.Tx) error {
			if _, err := tx.ExecContext(ctx, `DELETE FROM questions WHERE vault = $1 AND asked < $2`, blob(vault), old); err != nil {
				return err
			}
			_, err := tx.ExecContext(ctx, `INSERT INTO questions (vault, name, asked) VALUES ($1, $2, $3) ON CONFLICT (vault, name) DO NOTHING`,
				blob(vault), blob(name), text)
			return err
		})
	}
	return d.fail("remember a question", err)
}

// WhenAsked is when a name was first asked for in vain and not answered since; zero: it was not.
func (d *DB) WhenAsked(ctx context.Context, vault, name string) (time.Time, error) {
	var at time.Time
	err := d.b.Read.QueryRowContext(ctx, `SELECT asked FROM questions WHERE vault = $1 AND name = $2`, blob(vault), blob(name)).Scan(timeColumn{&at})
	if errors.Is(err, sql.ErrNoRows) {
		return time.Time{}, nil
	}
	return at, d.fail("find a question", err)
}

// Answered forgets that a name was asked for.
func (d *DB) Answered(ctx context.Context, vault, name string) error {
	err := d.change(ctx, lazy, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `DELETE FROM questions WHERE vault = $1 AND name = $2`, blob(vault), blob(name))
		return err
	})
	return d.fail("forget a question", err)
}

// VaultMade records that a vault was made here at a time, and so was empty then. What was known of one of that URL
// that had been there before is forgotten. It is durable.
func (d *DB) VaultMade(ctx context.Context, vault string, at time.Time) error {
	if err := d.ForgetVault(ctx, vault); err != nil {
		return err
	}
	text, err := timeText(at)
	if err == nil {
		err = d.change(ctx, durable, func(tx *sql.Tx) error {
			_, err := tx.ExecContext(ctx, `INSERT INTO listings (vault, as_of, taken, archives, bytes) VALUES ($1, $2, $3, 0, 0)
				ON CONFLICT (vault) DO NOTHING`, blob(vault), text, text)
			return err
		})
	}
	return d.fail("record that "+vault+" was made", err)
}

// adoptPiece is how many records are adopted in one transaction.
const adoptPiece = 1000

// AdoptArchives records archives that another program knew of. Of those that are known already, only a deletion is
// taken over that is newer than what is known. added counts those that were not known. It may be repeated.
func (d *DB) AdoptArchives(ctx context.Context, list []ArchiveRecord) (added int64, err error) {
	for len(list) > 0 {
		piece := list[:min(len(list), adoptPiece)]
		list = list[len(piece):]
		err := d.change(ctx, durable, func(tx *sql.Tx) error {
			for i := range piece {
				n, err := adopt(ctx, tx, &piece[i])
				if err != nil {
					return err
				}
				added += n
			}
			return nil
		})
		if err != nil {
			return added, d.fail("adopt archives", err)
		}
	}
	return added, nil
}

func adopt(ctx context.Context, tx *sql.Tx, r *ArchiveRecord) (int64, error) {
	if r.Vault == "" || r.ID == "" {
		return 0, failure.Errorf(failure.Usage, "a record needs a vault and an archive id")
	}
	created, seen, uploaded, deleted, err := archiveTimes(r)
	if err != nil {
		return 0, err
	}
	n, err := affected(tx.ExecContext(ctx, insertArchive+`NOTHING`, blob(r.Vault), blob(r.ID), blob(r.Name), blob(r.Description),
		r.Size, r.TreeHash[:], created, seen, uploaded, deleted))
	if err != nil {
		return 0, err
	}
	if deleted == "" {
		return n, nil
	}
	if n == 0 {
		_, err = tx.ExecContext(ctx, `UPDATE archives SET deleted = $3 WHERE vault = $1 AND archive = $2 AND deleted = '' AND uploaded < $3
			AND CASE seen WHEN 'last' THEN COALESCE((SELECT as_of FROM listings WHERE vault = $1), '') ELSE seen END < $3`,
			blob(r.Vault), blob(r.ID), deleted)
		if err != nil {
			return 0, err
		}
	}
	_, err = tx.ExecContext(ctx, `INSERT INTO deletions (vault, archive, description, deleted) VALUES ($1, $2, $3, $4)
		ON CONFLICT (vault, archive) DO NOTHING`, blob(r.Vault), blob(r.ID), blob(r.Description), deleted)
	return n, err
}

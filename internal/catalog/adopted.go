package catalog

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"

	"github.com/firn-backup/firn/internal/failure"
	"github.com/firn-backup/firn/internal/manifest"
	"github.com/firn-backup/firn/internal/snapshot"
)

// Adopted is a snapshot that another program stored, to be recorded. Of Snapshot, N, State, Totals, Chain and ManifestPart
// are filled in. A base that is not there is none: the snapshot is kept, and cannot be restored.
type Adopted struct {
	Snapshot
	// Archive is where it lies. Zero size and hash are looked up among the archives of the vault whenever they are asked for.
	Archive ArchiveRef
}

// AdoptSnapshots records snapshots of one set that another program stored, each after its base, in one transaction. Those that are there
// stay as they are; added is how many were not. It is durable.
func (d *DB) AdoptSnapshots(ctx context.Context, list []Adopted) (added int64, err error) {
	err = d.change(ctx, durable, func(tx *sql.Tx) error {
		added = 0
		roots := map[string]int64{} // chains, by the missing base that they stand on
		number := int64(0)
		for i := range list {
			n, err := adoptSnapshot(ctx, tx, list[i], roots, &number)
			if err != nil {
				return fmt.Errorf("snapshot %s: %w", list[i].ID, err)
			}
			added += n
		}
		return nil
	})
	return added, d.fail("adopt snapshots", err)
}

func adoptSnapshot(ctx context.Context, tx *sql.Tx, a Adopted, roots map[string]int64, number *int64) (int64, error) {
	if a.ID == "" || a.Adopted == "" || a.Archive.Archive == "" || !a.Header.IsStream() || (a.Kind == snapshot.Full) != (a.Base == "") {
		return 0, failure.Errorf(failure.Usage, "an adopted snapshot needs an id, a program, an archive, what it is a stream of, and a base where it is no full one")
	}
	var chain int64
	err := tx.QueryRowContext(ctx, `SELECT chain FROM snapshots WHERE id = $1`, a.ID).Scan(&chain)
	if err == nil {
		if a.Base != "" {
			if _, there := roots[a.Base]; !there {
				roots[a.Base] = chain
			}
		}
		return 0, nil
	}
	if err != sql.ErrNoRows {
		return 0, err
	}
	if a.Base != "" {
		err := tx.QueryRowContext(ctx, `SELECT chain FROM snapshots WHERE id = $1 AND set_id = $2`, a.Base, a.SetID).Scan(&chain)
		if err == sql.ErrNoRows {
			chain, err = roots[a.Base], nil
		}
		if err != nil {
			return 0, err
		}
	}
	if err := nextNumber(ctx, tx, a.SetID, number); err != nil {
		return 0, err
	}
	num, err := insertAdopted(ctx, tx, a, *number, chain)
	if err != nil {
		return 0, err
	}
	if chain == 0 {
		if _, err := tx.ExecContext(ctx, `UPDATE snapshots SET chain = num WHERE num = $1`, num); err != nil {
			return 0, err
		}
		if a.Base != "" {
			roots[a.Base] = num
		}
	}
	v := manifest.Volume{N: 1, Archive: a.Archive.Archive, Size: a.Archive.Size, TreeHash: a.Archive.TreeHash}
	args := append([]any{num, v.N, blob(v.Archive)}, volumeArgs(&v)...)
	_, err = tx.ExecContext(ctx, `INSERT INTO volumes (snap, n, archive, `+volumeColumns+`, leaves)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)`, append(args, packLeaves(nil))...)
	return 1, err
}

func insertAdopted(ctx context.Context, tx *sql.Tx, a Adopted, n, chain int64) (num int64, err error) {
	at, err := timeText(a.At)
	if err != nil {
		return 0, err
	}
	made, err := timeText(a.Made)
	if err != nil {
		return 0, err
	}
	stored, err := timeText(a.Archive.Stored)
	if err != nil {
		return 0, err
	}
	header, err := headerJSON(&a.Header)
	if err != nil {
		return 0, err
	}
	totals, err := json.Marshal(Totals{Stored: a.Archive.Size})
	if err != nil {
		return 0, err
	}
	err = tx.QueryRowContext(ctx, `INSERT INTO snapshots
		(id, set_id, n, chain, kind, base, at, made, state, header, params, vault, manifest_hash, manifest_archive, manifest_size, manifest_tree, totals, stored, adopted)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, 0, $15, $16, $17, $18) RETURNING num`,
		a.ID, a.SetID, n, chain, string(a.Kind), a.Base, at, made, string(Stored), header, []byte{}, blob(a.Vault),
		a.ManifestHash[:], []byte{}, make([]byte, 32), totals, stored, a.Adopted).Scan(&num)
	return num, err
}

// nextNumber goes on to the next number that no snapshot of a set has.
func nextNumber(ctx context.Context, tx *sql.Tx, set string, n *int64) error {
	for {
		*n++
		var taken int
		err := tx.QueryRowContext(ctx, `SELECT COUNT(*) FROM snapshots WHERE set_id = $1 AND n = $2`, set, *n).Scan(&taken)
		if err != nil || taken == 0 {
			return err
		}
	}
}

// giveWay gives an adopted snapshot that has a number another one: to Firn's own the number is a part of what they are.
func giveWay(ctx context.Context, tx *sql.Tx, set string, n int64) error {
	_, err := tx.ExecContext(ctx, `UPDATE snapshots SET n = (SELECT MAX(n) + 1 FROM snapshots WHERE set_id = $1)
		WHERE set_id = $1 AND n = $2 AND adopted <> ''`, set, n)
	return err
}

package catalog

import (
	"context"
	"crypto/ed25519"
	"database/sql"
	"time"

	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/internal/failure"
)

// SavedRetrieval is a retrieval under way or ready, kept so that a later run goes on with it.
type SavedRetrieval struct {
	Vault string
	coldstore.Retrieval
}

// PutRetrieval inserts a retrieval, or updates it by vault and token.
func (d *DB) PutRetrieval(ctx context.Context, r SavedRetrieval) error {
	if d.b.ReadOnly {
		d.asked.put(r)
		return nil
	}
	err := d.change(ctx, durable, func(tx *sql.Tx) error {
		requested, err := timeText(r.Requested)
		if err != nil {
			return err
		}
		expires, err := timeText(r.Expires)
		if err != nil {
			return err
		}
		ready := 0
		if r.Ready {
			ready = 1
		}
		_, err = tx.ExecContext(ctx, `INSERT INTO retrievals
			(vault, token, archive, range_offset, range_size, tier, ready, requested, expires)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
			ON CONFLICT (vault, token) DO UPDATE SET archive = excluded.archive,
			range_offset = excluded.range_offset, range_size = excluded.range_size, tier = excluded.tier,
			ready = excluded.ready, requested = excluded.requested, expires = excluded.expires`,
			blob(r.Vault), blob(r.Token), blob(r.Archive), r.Range.Offset, r.Range.Size, string(r.Tier), ready, requested, expires)
		return err
	})
	return d.fail("record retrieval of "+r.Archive, err)
}

// Retrievals lists those of an archive, or of the whole vault when archive is
// empty, oldest first.
func (d *DB) Retrievals(ctx context.Context, vault, archive string) ([]coldstore.Retrieval, error) {
	query := `SELECT token, archive, range_offset, range_size, tier, ready, requested, expires
		FROM retrievals WHERE vault = $1`
	args := []any{blob(vault)}
	if archive != "" {
		query += ` AND archive = $2`
		args = append(args, blob(archive))
	}
	var list []coldstore.Retrieval
	err := each(ctx, d.b.Read, func(s scanner) error {
		var r coldstore.Retrieval
		var ready int
		err := s.Scan(&r.Token, &r.Archive, &r.Range.Offset, &r.Range.Size, &r.Tier, &ready,
			timeColumn{&r.Requested}, timeColumn{&r.Expires})
		r.Ready = ready != 0
		list = append(list, r)
		return err
	}, query+` ORDER BY requested, token`, args...)
	if err != nil {
		return nil, d.fail("list retrievals", err)
	}
	if d.b.ReadOnly {
		list = d.asked.over(list, vault, archive)
	}
	return list, nil
}

// DropRetrieval forgets a retrieval. Forgetting what is not there succeeds.
func (d *DB) DropRetrieval(ctx context.Context, vault, token string) error {
	if d.b.ReadOnly {
		d.asked.drop(vault, token)
		return nil
	}
	err := d.change(ctx, durable, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `DELETE FROM retrievals WHERE vault = $1 AND token = $2`, blob(vault), blob(token))
		return err
	})
	return d.fail("forget retrieval", err)
}

// Trust adds a trusted signer: a public key whose manifests are believed,
// besides those of the key file. Trusting it again replaces the note.
func (d *DB) Trust(ctx context.Context, key ed25519.PublicKey, note string) error {
	err := d.change(ctx, durable, func(tx *sql.Tx) error {
		if len(key) != ed25519.PublicKeySize {
			return failure.Errorf(failure.Usage, "public key of %d bytes", len(key))
		}
		_, err := tx.ExecContext(ctx, `INSERT INTO trusted (signer, note) VALUES ($1, $2)
			ON CONFLICT (signer) DO UPDATE SET note = excluded.note`, []byte(key), blob(note))
		return err
	})
	return d.fail("trust a signer", err)
}

// Trusted lists the trusted signers.
func (d *DB) Trusted(ctx context.Context) ([]ed25519.PublicKey, error) {
	var keys []ed25519.PublicKey
	err := each(ctx, d.b.Read, func(s scanner) error {
		var key []byte
		err := s.Scan(&key)
		keys = append(keys, key)
		return err
	}, `SELECT signer FROM trusted ORDER BY signer`)
	if err != nil {
		return nil, d.fail("list trusted signers", err)
	}
	return keys, nil
}

// Run is one run of a command, for `firn log`.
type Run struct {
	ID      string
	Command string
	Set     string // name; may be empty
	Started time.Time
	Ended   time.Time // zero: still running, or killed
	Exit    int
	Summary string // one line
}

// PutRun inserts a run, or updates it by ID. In a catalog that is read-only it does nothing.
func (d *DB) PutRun(ctx context.Context, r Run) error {
	if d.b.ReadOnly {
		return nil
	}
	err := d.change(ctx, lazy, func(tx *sql.Tx) error {
		started, err := timeText(r.Started)
		if err != nil {
			return err
		}
		ended, err := timeText(r.Ended)
		if err != nil {
			return err
		}
		_, err = tx.ExecContext(ctx, `INSERT INTO runs (id, command, set_name, started, ended, exit_code, summary)
			VALUES ($1, $2, $3, $4, $5, $6, $7)
			ON CONFLICT (id) DO UPDATE SET command = excluded.command, set_name = excluded.set_name,
			started = excluded.started, ended = excluded.ended, exit_code = excluded.exit_code, summary = excluded.summary`,
			r.ID, blob(r.Command), blob(r.Set), started, ended, r.Exit, blob(r.Summary))
		return err
	})
	return d.fail("record run "+r.ID, err)
}

// Runs lists the runs of a set, or all when set is empty, newest first; at most limit when it is above 0.
func (d *DB) Runs(ctx context.Context, set string, limit int) ([]Run, error) {
	query := `SELECT id, command, set_name, started, ended, exit_code, summary FROM runs`
	var args []any
	if set != "" {
		args = append(args, blob(set))
		query += ` WHERE set_name = $1`
	}
	query += ` ORDER BY started DESC, id DESC`
	if limit > 0 {
		args = append(args, limit)
		query += map[int]string{1: ` LIMIT $1`, 2: ` LIMIT $2`}[len(args)]
	}
	var list []Run
	err := each(ctx, d.b.Read, func(s scanner) error {
		var r Run
		err := s.Scan(&r.ID, &r.Command, &r.Set, timeColumn{&r.Started}, timeColumn{&r.Ended}, &r.Exit, &r.Summary)
		list = append(list, r)
		return err
	}, query, args...)
	if err != nil {
		return nil, d.fail("list runs", err)
	}
	return list, nil
}

// Lease takes a set's lease for holder until now+ttl, or renews it; false when another
// holds it. A lease that has run out is free.
func (d *DB) Lease(ctx context.Context, setID, holder string, ttl time.Duration, now time.Time) (bool, error) {
	took := false
	err := d.change(ctx, lazy, func(tx *sql.Tx) error {
		until, err := timeText(now.Add(ttl))
		if err != nil {
			return err
		}
		at, err := timeText(now)
		if err != nil {
			return err
		}
		n, err := affected(tx.ExecContext(ctx, `INSERT INTO leases (set_id, holder, expires) VALUES ($1, $2, $3)
			ON CONFLICT (set_id) DO UPDATE SET holder = excluded.holder, expires = excluded.expires
			WHERE leases.holder = excluded.holder OR leases.expires <= $4`,
			setID, blob(holder), until, at))
		took = n > 0
		return err
	})
	if err != nil {
		return false, d.fail("lease set "+setID, err)
	}
	return took, nil
}

// Unlease gives a lease back. Giving back what another holds, or nobody, succeeds and does nothing.
func (d *DB) Unlease(ctx context.Context, setID, holder string) error {
	err := d.change(ctx, lazy, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `DELETE FROM leases WHERE set_id = $1 AND holder = $2`, setID, blob(holder))
		return err
	})
	return d.fail("give back the lease of set "+setID, err)
}

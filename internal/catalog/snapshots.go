package catalog

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/firn-backup/firn/internal/failure"
	"github.com/firn-backup/firn/internal/manifest"
	"github.com/firn-backup/firn/internal/snapshot"
)

// State of a snapshot in the catalog.
type State string

const (
	Running State = "running" // an attempt: its manifest is not stored
	Stored  State = "stored"
)

// Snapshot is one run's result, or an attempt at one. At most one of a set is Running.
type Snapshot struct {
	ID           string
	SetID        string
	N            uint64
	Kind         snapshot.Kind
	Base         string
	ChainN       uint64 // N of the chain's full snapshot
	Chain        string // id of the chain's full snapshot
	At           time.Time
	Made         time.Time
	State        State
	Header       manifest.Header // as it is, or will be, in its manifest
	Params       string          // what must be unchanged for the attempt to go on
	Vault        string          // URL
	ManifestHash manifest.Hash
	ManifestPart ArchiveRef // the archive the manifest is stored as
	Totals       Totals
	// Adopted is the program that stored it; empty: Firn. Such a snapshot is one archive, its only volume, of which the size before
	// the codecs and the frames are not known. It has no manifest (ManifestPart has nothing but a time), ManifestHash is of what is known
	// of it, and N is no order: it comes before all of Firn's own.
	Adopted string
}

// ArchiveRef is a stored archive.
type ArchiveRef struct {
	Archive  string
	Size     int64
	TreeHash [32]byte
	Stored   time.Time // zero: not known
}

// Totals of a snapshot, for lists.
type Totals struct {
	Entries  int64 // in the whole tree
	Bytes    int64 // logical size of the whole tree
	Changed  int64 // entries new or changed in this snapshot
	Deleted  int64
	Raw      int64 // bytes of this snapshot's stream
	Stored   int64 // bytes of its volumes in the vault, manifest included
	Problems int64
}

// view is a snapshot as the tables of entries know it.
type view struct {
	num   int64 // of the snapshot
	chain int64 // num of the chain's full snapshot
	n     int64
	state State
}

func (v view) full() bool { return v.num == v.chain }

func (d *DB) view(ctx context.Context, q querier, id string) (view, error) {
	var v view
	err := q.QueryRowContext(ctx, `SELECT num, chain, n, state FROM snapshots WHERE id = $1`, id).
		Scan(&v.num, &v.chain, &v.n, &v.state)
	return v, notFound(err, "snapshot %s", id)
}

// attempt is view for what must be Running.
func (d *DB) attempt(ctx context.Context, q querier, id string) (view, error) {
	v, err := d.view(ctx, q, id)
	if err == nil && v.state != Running {
		err = fmt.Errorf("snapshot %s is not an attempt under way", id)
	}
	return v, err
}

// Begin records a new attempt; a Running one of the set must have been discarded or stored before.
// An incremental's base must be stored and the last of its chain, from which it takes Chain and ChainN; a
// stream's may be any stored snapshot of the set that is a stream of the same kind.
func (d *DB) Begin(ctx context.Context, s Snapshot) error {
	err := d.sweep(ctx)
	if err == nil {
		err = d.change(ctx, durable, func(tx *sql.Tx) error { return d.begin(ctx, tx, &s) })
	}
	return d.fail("begin snapshot "+s.ID, err)
}

func (d *DB) begin(ctx context.Context, tx *sql.Tx, s *Snapshot) error {
	n, err := number(s.N)
	if err != nil {
		return err
	}
	if s.ID == "" || n == 0 {
		return failure.Errorf(failure.Usage, "a snapshot needs an id and a sequence number")
	}
	if _, err := scanSet(tx.QueryRowContext(ctx, `SELECT `+setColumns+` FROM sets WHERE id = $1`, s.SetID)); err != nil {
		return notFound(err, "set %s", s.SetID)
	}
	var other string
	if err := giveWay(ctx, tx, s.SetID, n); err != nil {
		return err
	}
	err = tx.QueryRowContext(ctx, `SELECT id FROM snapshots WHERE id = $1 OR (set_id = $2 AND (n = $3 OR state = $4))`,
		s.ID, s.SetID, n, string(Running)).Scan(&other)
	if err == nil {
		return fmt.Errorf("attempt %s stands in the way", other)
	}
	if !errors.Is(err, sql.ErrNoRows) {
		return err
	}
	chain, err := d.chainOf(ctx, tx, s)
	if err != nil {
		return err
	}
	at, err := timeText(s.At)
	if err != nil {
		return err
	}
	made, err := timeText(s.Made)
	if err != nil {
		return err
	}
	header, err := headerJSON(&s.Header)
	if err != nil {
		return err
	}
	var num int64
	err = tx.QueryRowContext(ctx, `INSERT INTO snapshots
		(id, set_id, n, chain, kind, base, at, made, state, header, params, vault)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12) RETURNING num`,
		s.ID, s.SetID, n, chain, string(s.Kind), s.Base, at, made, string(Running), header,
		blob(s.Params), blob(s.Vault)).Scan(&num)
	if err != nil || chain != 0 {
		return err
	}
	_, err = tx.ExecContext(ctx, `UPDATE snapshots SET chain = num WHERE num = $1`, num)
	return err
}

// chainOf returns the chain an attempt goes on, 0 for a full one, which begins its own.
func (d *DB) chainOf(ctx context.Context, tx *sql.Tx, s *Snapshot) (int64, error) {
	switch s.Kind {
	case snapshot.Full:
		if s.Base != "" {
			return 0, failure.Errorf(failure.Damaged, "full snapshot with a base")
		}
		return 0, nil
	case snapshot.Incremental:
	default:
		return 0, failure.Errorf(failure.Damaged, "snapshot of kind %q", s.Kind)
	}
	var set string
	var base view
	var head []byte
	err := tx.QueryRowContext(ctx, `SELECT num, chain, CASE adopted WHEN '' THEN n ELSE 0 END, state, set_id, header FROM snapshots WHERE id = $1`, s.Base).
		Scan(&base.num, &base.chain, &base.n, &base.state, &set, &head)
	if err != nil {
		return 0, notFound(err, "snapshot %s, the base", s.Base)
	}
	was, err := parseHeader(head)
	if err != nil {
		return 0, failure.Wrap(failure.Damaged, fmt.Errorf("snapshot %s: %w", s.Base, err))
	}
	// A tree's entries are rows that are valid from one snapshot to another; a stream has none.
	if s.Header.IsStream() || was.IsStream() {
		if s.Header.Stream != was.Stream || set != s.SetID || base.state != Stored || uint64(base.n) >= s.N {
			return 0, failure.Errorf(failure.Damaged, "base %s is not a stored %s stream of the set", s.Base, s.Header.Stream)
		}
		return base.chain, nil
	}
	var last int64
	if err := tx.QueryRowContext(ctx, `SELECT MAX(n) FROM snapshots WHERE chain = $1`, base.chain).Scan(&last); err != nil {
		return 0, err
	}
	if set != s.SetID || base.state != Stored || base.n != last || uint64(base.n) >= s.N {
		return 0, failure.Errorf(failure.Damaged, "base %s is not the last stored snapshot of a chain of the set", s.Base)
	}
	return base.chain, nil
}

const snapshotQuery = `SELECT s.id, s.set_id, s.n, s.kind, s.base, c.n, c.id, s.at, s.made, s.state, s.header, s.params,
	s.vault, s.manifest_hash, s.manifest_archive, s.manifest_size, s.manifest_tree, s.stored, s.totals, s.adopted
	FROM snapshots s JOIN snapshots c ON c.num = s.chain `

// Snapshot returns one snapshot or attempt.
func (d *DB) Snapshot(ctx context.Context, id string) (Snapshot, error) {
	s, err := scanSnapshot(d.b.Read.QueryRowContext(ctx, snapshotQuery+`WHERE s.id = $1`, id))
	return s, d.fail("find snapshot", notFound(err, "snapshot %s", id))
}

// Snapshots of a set, Running ones included: adopted ones by date, then Firn's own by N.
func (d *DB) Snapshots(ctx context.Context, setID string) ([]Snapshot, error) {
	var list []Snapshot
	err := each(ctx, d.b.Read, func(r scanner) error {
		s, err := scanSnapshot(r)
		list = append(list, s)
		return err
	}, snapshotQuery+`WHERE s.set_id = $1
		ORDER BY CASE s.adopted WHEN '' THEN 1 ELSE 0 END, CASE s.adopted WHEN '' THEN '' ELSE s.at END, s.n`, setID)
	if err != nil {
		return nil, d.fail("list snapshots", err)
	}
	return list, nil
}

func scanSnapshot(r scanner) (Snapshot, error) {
	var s Snapshot
	var header, hash, archive, tree, totals []byte
	var size sql.NullInt64
	var stored time.Time
	err := r.Scan(&s.ID, &s.SetID, &s.N, &s.Kind, &s.Base, &s.ChainN, &s.Chain, timeColumn{&s.At}, timeColumn{&s.Made},
		&s.State, &header, &s.Params, &s.Vault, &hash, &archive, &size, &tree,
		timeColumn{&stored}, &totals, &s.Adopted)
	if err != nil {
		return s, err
	}
	if s.Header, err = parseHeader(header); err != nil {
		return s, failure.Wrap(failure.Damaged, fmt.Errorf("snapshot %s: %w", s.ID, err))
	}
	if s.State != Stored {
		return s, nil
	}
	s.ManifestPart = ArchiveRef{Archive: string(archive), Size: size.Int64, Stored: stored}
	if len(hash) != len(s.ManifestHash) || len(tree) != len(s.ManifestPart.TreeHash) {
		return s, failure.Errorf(failure.Damaged, "snapshot %s: hash of %d bytes", s.ID, len(hash))
	}
	copy(s.ManifestHash[:], hash)
	copy(s.ManifestPart.TreeHash[:], tree)
	if err := json.Unmarshal(totals, &s.Totals); err != nil {
		return s, failure.Wrap(failure.Damaged, fmt.Errorf("snapshot %s: totals: %w", s.ID, err))
	}
	return s, nil
}

// FinishStored makes an attempt a snapshot: one transaction, durable. All its entries
// must have been flushed. Doing it again with the same hash succeeds.
func (d *DB) FinishStored(ctx context.Context, id string, h manifest.Hash, ref ArchiveRef, t Totals) error {
	err := d.change(ctx, durable, func(tx *sql.Tx) error {
		v, err := d.view(ctx, tx, id)
		if err != nil {
			return err
		}
		if v.state == Stored {
			var was [32]byte
			err := tx.QueryRowContext(ctx, `SELECT manifest_hash FROM snapshots WHERE num = $1`, v.num).Scan(hashColumn{&was})
			if err == nil && manifest.Hash(was) != h {
				err = fmt.Errorf("it is stored already, with another manifest")
			}
			return err
		}
		totals, err := json.Marshal(t)
		if err != nil {
			return err
		}
		stored, err := timeText(ref.Stored)
		if err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, `DELETE FROM pending WHERE snap = $1`, v.num); err != nil {
			return err
		}
		_, err = tx.ExecContext(ctx, `UPDATE snapshots SET state = $2, manifest_hash = $3, manifest_archive = $4,
			manifest_size = $5, manifest_tree = $6, totals = $7, stored = $8 WHERE num = $1`,
			v.num, string(Stored), h[:], blob(ref.Archive), ref.Size, ref.TreeHash[:], totals, stored)
		return err
	})
	return d.fail("finish snapshot "+id, err)
}

// Discard forgets a Running attempt: its volumes and entries, and what it ended.
// Volumes it had stored are returned, without leaves: they are orphans in the vault.
func (d *DB) Discard(ctx context.Context, id string) ([]manifest.Volume, error) {
	vols, err := d.endAttempt(ctx, id, func(*sql.Tx, view) error { return nil })
	return vols, d.fail("discard attempt "+id, err)
}

// endAttempt forgets a Running attempt, in one transaction with what first does.
func (d *DB) endAttempt(ctx context.Context, id string, first func(tx *sql.Tx, v view) error) (vols []manifest.Volume, err error) {
	err = d.change(ctx, durable, func(tx *sql.Tx) error {
		v, err := d.attempt(ctx, tx, id)
		if err != nil {
			return err
		}
		if vols, err = volumesOf(ctx, tx, v.num); err != nil {
			return err
		}
		if err := first(tx, v); err != nil {
			return err
		}
		return d.drop(ctx, tx, v)
	})
	if err != nil {
		return nil, err
	}
	// What a failed sweep leaves, the next Begin sweeps, and reports: the attempt is gone.
	_ = d.sweep(ctx)
	return vols, nil
}

// DropSnapshot removes a stored snapshot that is the last of its chain; of a stream's, one that nothing builds on.
func (d *DB) DropSnapshot(ctx context.Context, id string) error {
	err := d.change(ctx, durable, func(tx *sql.Tx) error {
		v, err := d.view(ctx, tx, id)
		if err != nil {
			return err
		}
		last, err := isLast(ctx, tx, v, id)
		if err != nil {
			return err
		}
		if v.state != Stored || !last {
			return errors.New("it is not the last stored snapshot of its chain")
		}
		return d.drop(ctx, tx, v)
	})
	if err == nil {
		err = d.sweep(ctx)
	}
	return d.fail("drop snapshot "+id, err)
}

// isLast says whether nothing builds on a snapshot. Numbers tell that of trees; of streams several may build on one.
func isLast(ctx context.Context, tx *sql.Tx, v view, id string) (bool, error) {
	var head []byte
	if err := tx.QueryRowContext(ctx, `SELECT header FROM snapshots WHERE num = $1`, v.num).Scan(&head); err != nil {
		return false, err
	}
	h, err := parseHeader(head)
	if err != nil {
		return false, failure.Wrap(failure.Damaged, err)
	}
	n := 0
	if h.IsStream() {
		err = tx.QueryRowContext(ctx, `SELECT COUNT(*) FROM snapshots WHERE chain = $1 AND base = $2`, v.chain, id).Scan(&n)
	} else {
		err = tx.QueryRowContext(ctx, `SELECT COUNT(*) FROM snapshots WHERE chain = $1 AND n > $2`, v.chain, v.n).Scan(&n)
	}
	return n == 0, err
}

// drop removes a snapshot that nothing is based on. The entries of a full one, which
// may be millions, become garbage: nobody sees them, and sweep removes them piecemeal.
func (d *DB) drop(ctx context.Context, tx *sql.Tx, v view) error {
	if v.full() {
		if _, err := tx.ExecContext(ctx, `INSERT INTO garbage (chain) VALUES ($1)`, v.chain); err != nil {
			return err
		}
	} else if err := undo(ctx, tx, v, []byte{}); err != nil {
		return err
	}
	for _, stmt := range []string{
		`DELETE FROM problems WHERE snap = $1`,
		`DELETE FROM pending WHERE snap = $1`,
		`DELETE FROM volumes WHERE snap = $1`,
		`DELETE FROM snapshots WHERE num = $1`,
	} {
		if _, err := tx.ExecContext(ctx, stmt, v.num); err != nil {
			return err
		}
	}
	return nil
}

// undo takes back what a snapshot, the last of its chain, did to entries from the key on.
func undo(ctx context.Context, tx *sql.Tx, v view, from []byte) error {
	if v.full() {
		_, err := tx.ExecContext(ctx, `DELETE FROM entries WHERE chain = $1 AND path >= $2`, v.chain, from)
		return err
	}
	if _, err := tx.ExecContext(ctx, `DELETE FROM entries WHERE chain = $1 AND n = $2
		AND path IN (SELECT path FROM changes WHERE snap = $3 AND path >= $4)`, v.chain, v.n, v.num, from); err != nil {
		return err
	}
	if _, err := tx.ExecContext(ctx, `UPDATE entries SET until = NULL WHERE chain = $1 AND until = $2
		AND path IN (SELECT path FROM changes WHERE snap = $3 AND path >= $4)`, v.chain, v.n, v.num, from); err != nil {
		return err
	}
	_, err := tx.ExecContext(ctx, `DELETE FROM changes WHERE snap = $1 AND path >= $2`, v.num, from)
	return err
}

// sweepPiece is how many rows sweep removes in one transaction.
const sweepPiece = 20_000

// sweep removes the entries of chains that are no more. It may be interrupted anywhere.
func (d *DB) sweep(ctx context.Context) error {
	for {
		var chain int64
		err := d.b.Read.QueryRowContext(ctx, `SELECT chain FROM garbage ORDER BY chain LIMIT 1`).Scan(&chain)
		if errors.Is(err, sql.ErrNoRows) {
			return nil
		}
		if err != nil {
			return err
		}
		err = d.change(ctx, lazy, func(tx *sql.Tx) error {
			var upTo []byte
			err := tx.QueryRowContext(ctx, `SELECT path FROM entries WHERE chain = $1 ORDER BY path LIMIT 1 OFFSET $2`,
				chain, sweepPiece).Scan(&upTo)
			if err == nil {
				_, err = tx.ExecContext(ctx, `DELETE FROM entries WHERE chain = $1 AND path <= $2`, chain, upTo)
				return err
			}
			if !errors.Is(err, sql.ErrNoRows) {
				return err
			}
			if _, err := tx.ExecContext(ctx, `DELETE FROM entries WHERE chain = $1`, chain); err != nil {
				return err
			}
			_, err = tx.ExecContext(ctx, `DELETE FROM garbage WHERE chain = $1`, chain)
			return err
		})
		if err != nil {
			return err
		}
	}
}

// Package catalog is the database of sets, snapshots, volumes and entries, and
// the journal of what is under way. One SQL text over database/sql; the
// databases it runs on are adapters (catalog/sqlite). It knows nothing of
// vaults' contents or of files: losing it loses time, never data.
//
// Safe for concurrent use by several goroutines and processes.
//
// # Tables
//
// An entry is a row that is valid from one snapshot of a chain on until
// another (columns n and until, docs/adr/0050), so that what does not change
// costs nothing. Rows never span chains. An attempt writes its rows at once,
// with its own n; readers of stored snapshots ask for a smaller n and never
// see them.
package catalog

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math"
	"sync"
	"time"

	"github.com/firn-backup/firn/internal/failure"
)

// Backend is what an adapter gives: a database with the tables made, and what
// differs between databases. All fields but the last two must be set.
type Backend struct {
	// Name tells people which catalog it is: a path.
	Name string

	// Read answers queries. It must not limit its connections: a query may be
	// open while another is made.
	Read *sql.DB

	// Write has one connection at most, and a transaction begun on it excludes all
	// others that write, of all processes, until it ends.
	Write *sql.DB

	// Fsync and NoFsync are statements, run before a transaction, that say whether its
	// commit must have reached the disk when it returns. A durable commit makes
	// all earlier ones durable.
	Fsync, NoFsync string

	// Placeholder is parameter i (from 1) of a statement that has hundreds.
	Placeholder func(i int) string

	// PageRows is how many rows a query, or a transaction of entries, handles at
	// most; 0 is 4,096.
	PageRows int

	// Explain turns the database's own errors into failures with a kind. Nil: as they are.
	Explain func(error) error

	// ReadOnly says that nothing can be written: Write is nil then, and so are Fsync and NoFsync.
	ReadOnly bool
	Reason   string // why, where the user cannot tell from the file's permissions; may be empty
}

// ErrReadOnly is what changing a catalog that can only be read fails with. Retrievals are
// remembered by such a catalog until it is closed, and runs not at all.
var ErrReadOnly = errors.New("the catalog is read-only")

// DB is an open catalog. Not found is a failure of kind failure.NotFound.
type DB struct {
	b      Backend
	owners ownerCache
	asked  askedFor       // of a catalog that is read-only
	flush  sync.WaitGroup // batches being written in the background
}

// New makes a catalog of a database, which it closes when it is closed.
func New(b Backend) *DB {
	if b.PageRows <= 0 {
		b.PageRows = 4096
	}
	return &DB{b: b, owners: newOwnerCache()}
}

// Close waits for what is being written and closes the database.
func (d *DB) Close() error {
	d.flush.Wait()
	if d.b.ReadOnly {
		return d.fail("close", d.b.Read.Close())
	}
	// The writer last, so that SQLite tidies its log away.
	return d.fail("close", errors.Join(d.b.Read.Close(), d.b.Write.Close()))
}

// ReadOnly says that the catalog can be read and not written; see ErrReadOnly.
func (d *DB) ReadOnly() bool { return d.b.ReadOnly }

// ReadOnlyReason is Backend.Reason.
func (d *DB) ReadOnlyReason() string { return d.b.Reason }

// fail names the operation that failed. Nil stays nil.
func (d *DB) fail(what string, err error) error {
	if err == nil {
		return nil
	}
	if d.b.Explain != nil {
		err = d.b.Explain(err)
	}
	return fmt.Errorf("catalog: %s: %w", what, err)
}

// lasting says whether a transaction must have reached the disk when it is committed.
type lasting bool

const (
	durable lasting = true
	lazy    lasting = false // kept through a kill of the process; a loss of power may undo it
)

// change runs fn in a transaction that excludes all other writers.
func (d *DB) change(ctx context.Context, l lasting, fn func(tx *sql.Tx) error) error {
	if d.b.ReadOnly && d.b.Reason != "" {
		return fmt.Errorf("%w: %s", ErrReadOnly, d.b.Reason)
	}
	if d.b.ReadOnly {
		return ErrReadOnly
	}
	conn, err := d.b.Write.Conn(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	mode := d.b.NoFsync
	if l == durable {
		mode = d.b.Fsync
	}
	if _, err := conn.ExecContext(ctx, mode); err != nil {
		return err
	}
	tx, err := conn.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	if err := fn(tx); err != nil {
		// What went wrong is err. A rollback that fails too ends the connection, and so the transaction.
		_ = tx.Rollback()
		return err
	}
	return tx.Commit()
}

// querier is a database or a transaction.
type querier interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

// scanner is a row.
type scanner interface{ Scan(dest ...any) error }

// each calls fn for every row of a query.
func each(ctx context.Context, q querier, fn func(scanner) error, query string, args ...any) (err error) {
	rows, err := q.QueryContext(ctx, query, args...)
	if err != nil {
		return err
	}
	defer func() { err = closed(rows, err) }()
	for rows.Next() {
		if err := fn(rows); err != nil {
			return err
		}
	}
	return rows.Err()
}

// closed closes rows and returns the first error: err, unless that is nil.
func closed(rows *sql.Rows, err error) error {
	if cerr := rows.Close(); err == nil {
		err = cerr
	}
	return err
}

// notFound gives sql.ErrNoRows the kind and the name of what is not there.
func notFound(err error, format string, args ...any) error {
	if errors.Is(err, sql.ErrNoRows) {
		return failure.Errorf(failure.NotFound, "no "+format, args...)
	}
	return err
}

// affected returns how many rows a statement changed.
func affected(r sql.Result, err error) (int64, error) {
	if err != nil {
		return 0, err
	}
	return r.RowsAffected()
}

// Byte strings go into binary columns: names of sets, hosts and files are
// bytes, which text columns of some databases refuse.
func blob[T ~string](s T) []byte {
	if s == "" {
		return []byte{} // not nil, which is NULL
	}
	return []byte(s)
}

// number checks that a sequence number fits the databases' integers.
func number(n uint64) (int64, error) {
	if n > math.MaxInt64 {
		return 0, failure.Errorf(failure.Damaged, "sequence number %d is too large", n)
	}
	return int64(n), nil
}

// Times are text of a fixed width, so that their order is that of time; the zero time is empty.
const timeFormat = "2006-01-02T15:04:05.000000000Z"

func timeText(t time.Time) (string, error) {
	if t.IsZero() {
		return "", nil
	}
	t = t.UTC()
	if y := t.Year(); y < 0 || y > 9999 {
		return "", failure.Errorf(failure.Damaged, "time of year %d", y)
	}
	return t.Format(timeFormat), nil
}

// timeColumn scans what timeText makes.
type timeColumn struct{ t *time.Time }

func (c timeColumn) Scan(v any) error {
	var s string
	switch v := v.(type) {
	case string:
		s = v
	case []byte:
		s = string(v)
	default:
		return fmt.Errorf("time of type %T", v)
	}
	if s == "" {
		*c.t = time.Time{}
		return nil
	}
	t, err := time.Parse(timeFormat, s)
	if err != nil {
		return err
	}
	*c.t = t.UTC()
	return nil
}

// hashColumn scans a 32-byte binary column.
type hashColumn struct{ h *[32]byte }

func (c hashColumn) Scan(v any) error {
	b, ok := v.([]byte)
	if !ok || len(b) != len(c.h) {
		return fmt.Errorf("hash of %d bytes", len(b))
	}
	copy(c.h[:], b)
	return nil
}

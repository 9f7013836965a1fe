package sqlite

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/pressly/goose/v3"
	"golang.org/x/sys/unix"
	"modernc.org/sqlite"

	"github.com/firn-backup/firn/internal/failure"
)

// version is that of the newest migration; a test compares them. Each migration sets
// the file's user_version to its own.
const version = 9

// applicationID marks the file as Firn's: "Firn".
const applicationID = 0x4669726e

//go:embed migrations/*.sql
var migrations embed.FS

// prepare brings the tables up to date. Where they are, which is nearly always, that
// costs one query.
func prepare(ctx context.Context, path string, read, write *sql.DB) error {
	ok, err := current(ctx, read)
	if ok || err != nil {
		return err
	}
	// The lock is on a file of its own: on the catalog, closing it would take SQLite's locks away.
	lock, err := os.OpenFile(path+".migrate", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer lock.Close() // and with it the lock
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		return fmt.Errorf("lock %s: %w", lock.Name(), err)
	}
	if ok, err := current(ctx, read); ok || err != nil {
		return err
	}
	if err := migrate(ctx, write); err != nil {
		return err
	}
	ok, err = current(ctx, read)
	if err == nil && !ok {
		err = fmt.Errorf("the migrations did not lead to version %d", version)
	}
	if err == nil {
		err = os.Remove(lock.Name())
	}
	return err
}

// current says whether the file needs nothing done.
func current(ctx context.Context, db *sql.DB) (bool, error) {
	file, mode, err := identify(ctx, db)
	return err == nil && file == version && mode == "wal", err
}

// identify says which version a catalog is of, and how its changes are kept. Other databases, and those
// of a newer Firn, are an error.
func identify(ctx context.Context, db *sql.DB) (file int64, mode string, err error) {
	var app, tables int64
	err = db.QueryRowContext(ctx, `SELECT u.user_version, a.application_id, j.journal_mode,
		(SELECT COUNT(*) FROM sqlite_schema WHERE name <> 'goose_db_version' AND name NOT LIKE 'sqlite\_%' ESCAPE '\')
		FROM pragma_user_version u, pragma_application_id a, pragma_journal_mode j`).Scan(&file, &app, &mode, &tables)
	switch {
	case err != nil:
		return 0, "", err
	case app != applicationID && (tables > 0 || file != 0):
		return 0, "", failure.Errorf(failure.Usage, "it is a database of another program")
	case file > version:
		return 0, "", failure.Errorf(failure.Failed, "it was made by a newer version of Firn (catalog version %d, this one knows %d)", file, version)
	}
	return file, mode, nil
}

func migrate(ctx context.Context, db *sql.DB) error {
	if _, err := db.ExecContext(ctx, `PRAGMA journal_mode = WAL`); err != nil {
		return err
	}
	dir, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return err
	}
	p, err := goose.NewProvider(goose.DialectSQLite3, db, dir, goose.WithDisableGlobalRegistry(true))
	if err != nil {
		return err
	}
	if _, err := p.Up(ctx); err != nil {
		var partial *goose.PartialError
		if !errors.As(err, &partial) || partial.Failed == nil {
			return err
		}
		err = partial.Err
		if e := (*sqlite.Error)(nil); errors.As(err, &e) {
			err = e // without what follows from it: that the transaction is gone
		}
		return fmt.Errorf("migration %d: %w", partial.Failed.Source.Version, err)
	}
	return nil
}

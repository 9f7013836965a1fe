// Package sqlite is the catalog on SQLite: one file, with its log beside it,
// that several processes of one machine may use at once. It owns where the file is, how
// it is opened and how its tables come to be; what is asked of them is
// package catalog's.
package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"modernc.org/sqlite"

	"github.com/firn-backup/firn/internal/catalog"
	"github.com/firn-backup/firn/internal/failure"
)

// Options of a catalog. The zero value is a good choice.
type Options struct {
	// Wait is how long an operation waits for other processes' writes, each of which
	// takes a fraction of a second; 0 is two minutes. After it the failure is of kind failure.Locked.
	Wait time.Duration

	// PageRows is catalog.Backend's.
	PageRows int
}

// Memory, in KiB: of the one connection that writes and of each that reads. There
// are two or three of the latter at once, and four are kept.
const (
	writeCache = 16 << 10
	readCache  = 4 << 10
	idleReads  = 4
)

// The log is moved into the file whenever it has so many pages of 4 KiB; when it had to grow beyond
// logLimit bytes, it is cut again.
const (
	logPages = 4000
	logLimit = 64 << 20
)

// Open opens the catalog in the file path, and makes it, and its directory, where
// there is none: for the user's eyes only. A file that is damaged, that belongs to
// another program or that was made by a newer version is refused. One that cannot be written,
// or whose directory cannot, is opened for reading only (catalog.DB.ReadOnly).
func Open(ctx context.Context, path string, o Options) (*catalog.DB, error) {
	b, err := backend(ctx, path, o)
	switch {
	case err == nil:
	case strings.Contains(err.Error(), path): // explained: it is named
		return nil, fmt.Errorf("open catalog: %w", err)
	default:
		return nil, fmt.Errorf("open catalog %s: %w", path, err)
	}
	return catalog.New(b), nil
}

func backend(ctx context.Context, path string, o Options) (catalog.Backend, error) {
	var none catalog.Backend
	path, err := filepath.Abs(path)
	if err != nil {
		return none, err
	}
	if err := create(path); err != nil {
		return none, err
	}
	if o.Wait == 0 {
		o.Wait = 2 * time.Minute
	}
	if !writable(path) {
		return readOnly(ctx, path, o)
	}
	read, err := sql.Open("sqlite", dsn(path, o, readCache, ""))
	if err != nil {
		return none, err
	}
	read.SetMaxIdleConns(idleReads)
	write, err := sql.Open("sqlite", dsn(path, o, writeCache, ""))
	if err != nil {
		return none, errors.Join(err, read.Close())
	}
	write.SetMaxOpenConns(1)
	if err := prepare(ctx, path, read, write); err != nil {
		err = errors.Join(err, read.Close(), write.Close())
		// Where not even the file of its index can be made, mostly because the disk is full, the catalog can still be read.
		if b, rerr := noRoom(ctx, path, o, err); rerr == nil {
			return b, nil
		}
		return none, explain(path, err)
	}
	return catalog.Backend{
		Name: path, Read: read, Write: write,
		Fsync: `PRAGMA synchronous = FULL`, NoFsync: `PRAGMA synchronous = NORMAL`,
		// A bare question mark: numbered parameters are found by a search through all of them.
		Placeholder: func(int) string { return "?" },
		PageRows:    o.PageRows,
		Explain:     func(err error) error { return explain(path, err) },
	}, nil
}

// create makes the file, and its directory, where it is not there. It must not open one that
// is: closing it again would take away the locks that this process has on it (POSIX).
func create(path string) error {
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return nil // another process was faster
	}
	if err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// dsn names the file, as a URL, and what every connection is told first. how are
// parameters of SQLite's own, such as mode=ro; empty: none.
func dsn(path string, o Options, cacheKiB int, how string) string {
	q := url.Values{
		"_txlock": {"immediate"},
		"_dqs":    {"0"},
		"_pragma": {
			fmt.Sprintf("busy_timeout(%d)", o.Wait.Milliseconds()),
			"foreign_keys(1)", "trusted_schema(0)", "synchronous(FULL)", "mmap_size(0)", "temp_store(FILE)",
			fmt.Sprintf("cache_size(%d)", -cacheKiB),
			fmt.Sprintf("wal_autocheckpoint(%d)", logPages),
			fmt.Sprintf("journal_size_limit(%d)", logLimit),
		},
	}
	if how != "" {
		q["_pragma"] = slices.DeleteFunc(q["_pragma"], func(p string) bool {
			return strings.HasPrefix(p, "wal_autocheckpoint") || strings.HasPrefix(p, "journal_size")
		})
		for one := range strings.SplitSeq(how, "&") {
			name, value, _ := strings.Cut(one, "=")
			q.Set(name, value)
		}
	}
	u := url.URL{Scheme: "file", Path: path, RawQuery: q.Encode()}
	return u.String()
}

// explain gives SQLite's errors their kinds, and says in words what can be done.
func explain(path string, err error) error {
	var e *sqlite.Error
	if !errors.As(err, &e) {
		return err
	}
	switch e.Code() & 0xff { // the rest is detail
	case codeCorrupt, codeNotADB:
		return failure.Errorf(failure.Damaged, "the catalog %s is damaged: %w; "+
			"move it away and rebuild it from the vault with recover", path, err)
	case codeBusy, codeLocked:
		return failure.Errorf(failure.Locked, "another process does not let go of the catalog %s: %w", path, err)
	case codeFull:
		return fmt.Errorf("no space left for the catalog %s: %w", path, err)
	}
	if e.Code() == codeShmSize {
		return fmt.Errorf("no space left for the files beside the catalog %s: %w", path, err)
	}
	return err
}

// Result codes of SQLite (https://sqlite.org/rescode.html).
const (
	codeBusy    = 5
	codeLocked  = 6
	codeCorrupt = 11
	codeFull    = 13
	codeCant    = 14
	codeNotADB  = 26
	codeShmOpen = 4618 // SQLITE_IOERR_SHMOPEN: the index of the log cannot be made
	codeShmSize = 4874 // SQLITE_IOERR_SHMSIZE: there is no room for the index of the log
)

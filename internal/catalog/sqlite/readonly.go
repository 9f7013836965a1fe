package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
	"modernc.org/sqlite"

	"github.com/firn-backup/firn/internal/catalog"
	"github.com/firn-backup/firn/internal/failure"
)

// writable says whether this process may write the file and, for the log beside it, its directory. The
// files are not opened for that: see create.
func writable(path string) bool {
	for _, p := range []string{path, filepath.Dir(path)} {
		err := unix.Access(p, unix.W_OK)
		if errors.Is(err, unix.EROFS) || errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM) {
			return false
		}
	}
	return true
}

// noRoom opens a catalog for reading whose opening failed with err because there was no room for the files beside it.
func noRoom(ctx context.Context, path string, o Options, err error) (catalog.Backend, error) {
	var e *sqlite.Error
	if !errors.As(err, &e) || e.Code() != codeShmSize && e.Code() != codeShmOpen && e.Code()&0xff != codeFull && e.Code()&0xff != codeCant {
		return catalog.Backend{}, err
	}
	// The log's index need not be a file: SQLite makes one in memory for who says that it will not write. That
	// goes with the locks of other processes. It wants to see the file all the same, however empty.
	b, rerr := readHow(ctx, path, o, "mode=ro&readonly_shm=1")
	if rerr != nil {
		b, rerr = readOnly(ctx, path, o)
	}
	b.Reason = explain(path, err).Error()
	return b, rerr
}

// readOnly opens a catalog that cannot be written.
func readOnly(ctx context.Context, path string, o Options) (catalog.Backend, error) {
	// With a log beside it the newest is in there, and the two are read together, as other processes write
	// them. Without, nobody has it open, and SQLite is told that it need not lock: it could not.
	how := "mode=ro"
	if info, err := os.Stat(path + "-wal"); err != nil || info.Size() == 0 {
		how = "immutable=1"
	}
	return readHow(ctx, path, o, how)
}

// readHow opens a catalog for reading, with parameters of SQLite's own.
func readHow(ctx context.Context, path string, o Options, how string) (catalog.Backend, error) {
	var none catalog.Backend
	read, err := sql.Open("sqlite", dsn(path, o, readCache, how))
	if err != nil {
		return none, err
	}
	read.SetMaxIdleConns(idleReads)
	file, _, err := identify(ctx, read)
	if err == nil && file != version {
		err = failure.Errorf(failure.Failed, "it is of version %d, cannot be written, and so not be brought to version %d; copy it to where it can be, and name that with --catalog", file, version)
	} else if err != nil && how == "mode=ro" && failure.KindOf(err) == failure.Failed {
		err = fmt.Errorf("it cannot be written, and its log %s-wal has what is not in it yet: %w; copy both to where they can be, and name that with --catalog", path, err)
	}
	if err != nil {
		return none, errors.Join(explain(path, err), read.Close())
	}
	return catalog.Backend{
		Name: path, Read: read, ReadOnly: true,
		Placeholder: func(int) string { return "?" },
		PageRows:    o.PageRows,
		Explain:     func(err error) error { return explain(path, err) },
	}, nil
}

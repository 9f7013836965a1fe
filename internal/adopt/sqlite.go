package adopt

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/firn-backup/firn/internal/failure"
)

// foreignDB is an SQLite file of another program.
type foreignDB struct {
	*sql.DB
	scratch string // the directory of the copy that is read in its place; empty: none
}

// Close removes the copy, too.
func (d *foreignDB) Close() error {
	err := d.DB.Close()
	if d.scratch != "" {
		err = errors.Join(err, os.RemoveAll(d.scratch))
	}
	return err
}

// openForeign opens an SQLite file of another program, which is not changed. Where the program was interrupted while it wrote, SQLite wants to put the
// file in order before it reads it, and in a directory that may not be written to it cannot read what is in a write-ahead log: then a copy is read.
func openForeign(ctx context.Context, file string) (*foreignDB, error) {
	path, err := filepath.Abs(file)
	if err != nil {
		return nil, err
	}
	if err := regular(path); err != nil {
		return nil, err
	}
	db, err := openSQLite(ctx, path, "mode=ro&_pragma=query_only(1)")
	if err == nil || !wantsToWrite(err) {
		return &foreignDB{DB: db}, nil // an error comes again, with the query that meets it
	}
	if err := db.Close(); err != nil {
		return nil, err
	}
	scratch, err := os.MkdirTemp("", "firn-adopt-")
	if err != nil {
		return nil, err
	}
	if err = copyDatabase(scratch, path); err == nil {
		if db, err = openSQLite(ctx, filepath.Join(scratch, filepath.Base(path)), "mode=rw"); err == nil {
			return &foreignDB{db, scratch}, nil
		}
		err = sqliteFault(errors.Join(err, db.Close()))
	}
	return nil, errors.Join(fmt.Errorf("read %s: %w", file, err), os.RemoveAll(scratch))
}

// openSQLite opens a file, and returns what SQLite says of it when it first looks; the caller closes the database all the same.
func openSQLite(ctx context.Context, path, query string) (*sql.DB, error) {
	u := url.URL{Scheme: "file", Path: path, RawQuery: query + "&_pragma=busy_timeout(5000)&_pragma=trusted_schema(0)"}
	db, err := sql.Open("sqlite", u.String())
	if err != nil {
		return nil, err
	}
	var n int
	return db, db.QueryRowContext(ctx, `SELECT COUNT(*) FROM sqlite_master`).Scan(&n)
}

// wantsToWrite says of an error whether SQLite could not read a file because it must not write.
func wantsToWrite(err error) bool {
	var e *sqlite.Error
	if !errors.As(err, &e) {
		return false
	}
	code := e.Code() & 0xff
	return code == sqlite3.SQLITE_READONLY || code == sqlite3.SQLITE_CANTOPEN
}

// superMagic ends the journal of a transaction over several databases, behind the name of a file that SQLite deletes in the end.
// https://www.sqlite.org/fileformat.html#the_rollback_journal
const superMagic = "\xd9\xd5\x05\xf9\x20\xa1\x63\xd7"

// copyDatabase copies a database and what SQLite has put beside it. A journal that names a file to be deleted is refused.
func copyDatabase(dir, path string) error {
	for _, end := range []string{"", "-journal", "-wal"} {
		in, err := os.Open(path + end)
		if errors.Is(err, fs.ErrNotExist) && end != "" {
			continue
		}
		if err != nil {
			return err
		}
		err = copyInto(filepath.Join(dir, filepath.Base(path)+end), in, end == "-journal")
		if err = errors.Join(err, in.Close()); err != nil {
			return err
		}
	}
	return nil
}

func copyInto(to string, in *os.File, journal bool) error {
	info, err := in.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return failure.Errorf(failure.Usage, "%s is not a regular file", in.Name())
	}
	if journal && info.Size() >= int64(len(superMagic)) {
		last := make([]byte, len(superMagic))
		if _, err := in.ReadAt(last, info.Size()-int64(len(last))); err != nil {
			return err
		}
		if string(last) == superMagic {
			return failure.Errorf(failure.Damaged, "its program was interrupted in a transaction over several databases: start it once more, then adopt")
		}
	}
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, io.LimitReader(in, info.Size()))
	return errors.Join(err, out.Close())
}

// columnsOf lists the columns of a table; none where there is no such table. What is called like it and is a view, a virtual table or has columns that
// are computed is refused: reading it would carry out what a stranger wrote, which need not come to an end.
func columnsOf(ctx context.Context, db *foreignDB, table string) ([]string, error) {
	var kind, text sql.NullString
	err := db.QueryRowContext(ctx, `SELECT type, sql FROM sqlite_master WHERE name = $1 COLLATE NOCASE AND type IN ('table', 'view')
		ORDER BY type DESC LIMIT 1`, table).Scan(&kind, &text)
	if err == sql.ErrNoRows {
		return nil, nil
	}
	if err != nil {
		return nil, sqliteFault(err)
	}
	words := strings.Fields(strings.ToUpper(text.String[:min(len(text.String), 100)]))
	if kind.String != "table" || len(words) < 2 || words[1] != "TABLE" {
		return nil, failure.Errorf(failure.Usage, "%s is a view or a virtual table, and not a plain one", table)
	}
	rows, err := db.QueryContext(ctx, `SELECT name, hidden FROM pragma_table_xinfo($1)`, table)
	if err != nil {
		return nil, sqliteFault(err)
	}
	defer rows.Close() // after an error; else it is at its end
	var list []string
	for rows.Next() {
		var name string
		var hidden int
		if err := rows.Scan(&name, &hidden); err != nil {
			return nil, err
		}
		if hidden != 0 {
			return nil, failure.Errorf(failure.Usage, "the column %s of the table %s is computed", oneLine(name), table)
		}
		list = append(list, name)
	}
	return list, sqliteFault(rows.Err())
}

// sqliteFault says of an error of SQLite what kind it is: a file that is cut off or overwritten is damaged, one that is no database is another.
func sqliteFault(err error) error {
	var e *sqlite.Error
	if !errors.As(err, &e) {
		return err
	}
	switch e.Code() & 0xff { // the rest says more exactly what it is
	case sqlite3.SQLITE_CORRUPT:
		return failure.Wrap(failure.Damaged, err)
	case sqlite3.SQLITE_NOTADB:
		return failure.Wrap(failure.Usage, err)
	}
	return err
}

// number is a column that should be one, of whatever type the column is; NULL is 0. A column that is scanned into it is written with a + before
// it: of one of type DATETIME the driver makes a time.
type number struct {
	value float64
	bad   string // what it is instead, for people; empty: it is a number
}

var _ sql.Scanner = (*number)(nil)

// Scan takes any value.
func (n *number) Scan(v any) error {
	*n = number{}
	switch x := v.(type) {
	case nil:
	case int64:
		n.value = float64(x)
	case float64:
		n.value = x
	case string:
		n.bad = fmt.Sprintf("the text %q", oneLine(x))
	case []byte:
		n.bad = fmt.Sprintf("the bytes %q", oneLine(string(x)))
	default:
		n.bad = fmt.Sprintf("%v", x)
	}
	return nil
}

package adopt

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"strings"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/firn-backup/firn/internal/failure"
)

// openForeign opens an SQLite file of another program, which is not changed.
func openForeign(file string) (*sql.DB, error) {
	path, err := filepath.Abs(file)
	if err != nil {
		return nil, err
	}
	if err := regular(path); err != nil {
		return nil, err
	}
	u := url.URL{Scheme: "file", Path: path, RawQuery: "mode=ro&_pragma=busy_timeout(5000)&_pragma=query_only(1)&_pragma=trusted_schema(0)"}
	return sql.Open("sqlite", u.String())
}

// columnsOf lists the columns of a table; none where there is no such table. What is called like it and is a view, a virtual table or has columns that
// are computed is refused: reading it would carry out what a stranger wrote, which need not come to an end.
func columnsOf(ctx context.Context, db *sql.DB, table string) ([]string, error) {
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

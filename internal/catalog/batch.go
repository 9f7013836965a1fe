package catalog

import (
	"bytes"
	"context"
	"database/sql"
	"strings"

	"github.com/firn-backup/firn/internal/failure"
	"github.com/firn-backup/firn/internal/snapshot"
)

// ascending counts how many operations from the first on are on ever larger
// paths. They are on different paths, so that their order among each other does
// not matter and each kind can be done by statements of many rows.
func ascending(ops []op) int {
	for i := 1; i < len(ops); i++ {
		if bytes.Compare(ops[i-1].row.key, ops[i].row.key) >= 0 {
			return i
		}
	}
	return len(ops)
}

// batchTx writes operations within a transaction.
type batchTx struct {
	snap view
	bulk *bulk
}

func (t *batchTx) apply(ctx context.Context, ops []op) error {
	var puts, deletes, refreshes []*op
	for i := range ops {
		o := &ops[i]
		switch o.kind {
		case opPut:
			puts = append(puts, o)
		case opDelete:
			deletes = append(deletes, o)
		case opRefresh:
			refreshes = append(refreshes, o)
		}
	}
	if err := t.put(ctx, puts); err != nil {
		return err
	}
	if err := t.delete(ctx, deletes); err != nil {
		return err
	}
	return t.refresh(ctx, refreshes)
}

// The statements of many rows, in three pieces: what is before the rows, a row, and
// what is after. $1, and $2 where there is one, are the same for all rows.
type bulkText struct {
	before, after  string
	shared, perRow int // parameters
}

func insertRows() *bulkText {
	return &bulkText{`INSERT INTO entries (chain, n, path, stat, content, grp, more) VALUES `,
		` ON CONFLICT (chain, path, n) DO UPDATE SET stat = excluded.stat, content = excluded.content,
		grp = excluded.grp, more = excluded.more`, 2, 5}
}

func insertChanges() *bulkText {
	return &bulkText{`INSERT INTO changes (snap, path) VALUES `, ` ON CONFLICT (snap, path) DO NOTHING`, 1, 1}
}

func endRows() *bulkText {
	return &bulkText{`UPDATE entries SET until = $2 WHERE chain = $1 AND n < $2 AND until IS NULL AND path IN (`, `)`, 2, 0}
}

func deleteRows() *bulkText {
	return &bulkText{`DELETE FROM entries WHERE chain = $1 AND n = $2 AND path IN (`, `)`, 2, 0}
}

func deleteChanges() *bulkText {
	return &bulkText{`DELETE FROM changes WHERE snap = $1 AND path IN (`, `)`, 1, 0}
}

func findEnded() *bulkText {
	return &bulkText{`SELECT path FROM entries WHERE chain = $1 AND until = $2 AND path IN (`, `)`, 2, 0}
}

func findRows() *bulkText {
	return &bulkText{`SELECT path, n, stat FROM entries WHERE chain = $1 AND n <= $2 AND until IS NULL AND path IN (`, `)`, 2, 0}
}

// put ends the rows that were, inserts those that are, and notes the change. A full's
// entries are all new: there is nothing to end or to note.
func (t *batchTx) put(ctx context.Context, ops []*op) error {
	if !t.snap.full() {
		if err := t.bulk.exec(ctx, endRows(), len(ops), keyArg(ops), t.snap.chain, t.snap.n); err != nil {
			return err
		}
		if err := t.bulk.exec(ctx, insertChanges(), len(ops), keyArg(ops), t.snap.num); err != nil {
			return err
		}
	}
	row := func(args []any, i int) []any {
		r := &ops[i].row
		return append(args, r.key, r.stat, r.content, r.group, r.more)
	}
	return t.bulk.exec(ctx, insertRows(), len(ops), row, t.snap.chain, t.snap.n)
}

// delete removes this snapshot's own rows and ends older ones. Only the latter are a change.
func (t *batchTx) delete(ctx context.Context, ops []*op) error {
	if err := t.bulk.exec(ctx, deleteRows(), len(ops), keyArg(ops), t.snap.chain, t.snap.n); err != nil || t.snap.full() {
		return err
	}
	if err := t.bulk.exec(ctx, endRows(), len(ops), keyArg(ops), t.snap.chain, t.snap.n); err != nil {
		return err
	}
	if err := t.bulk.exec(ctx, deleteChanges(), len(ops), keyArg(ops), t.snap.num); err != nil {
		return err
	}
	var ended [][]byte
	err := t.bulk.query(ctx, findEnded(), len(ops), keyArg(ops), func(s scanner) error {
		var key []byte
		err := s.Scan(&key)
		ended = append(ended, key)
		return err
	}, t.snap.chain, t.snap.n)
	if err != nil {
		return err
	}
	arg := func(args []any, i int) []any { return append(args, ended[i]) }
	return t.bulk.exec(ctx, insertChanges(), len(ended), arg, t.snap.num)
}

// refresh rewrites the local part of the rows that are valid.
func (t *batchTx) refresh(ctx context.Context, ops []*op) error {
	type update struct {
		key, stat []byte
		n         int64
	}
	local := make(map[string]*localStat, len(ops))
	for _, o := range ops {
		local[string(o.row.key)] = o.local
	}
	var updates []update
	err := t.bulk.query(ctx, findRows(), len(ops), keyArg(ops), func(s scanner) error {
		var u update
		var stat []byte
		if err := s.Scan(&u.key, &u.n, &stat); err != nil {
			return err
		}
		var r Row
		owner, err := unpackStat(stat, &r)
		if err != nil {
			return failure.Errorf(failure.Damaged, "entry %q: %w", keyPath(u.key), err)
		}
		l := local[string(u.key)]
		e := snapshot.Entry{Type: r.Type, Mode: r.Mode, UID: r.UID, GID: r.GID, Size: r.Size, MTime: r.MTime,
			CTime: l.ctime, Dev: l.dev, Ino: l.ino}
		if u.stat = packStat(nil, &e, owner); !bytes.Equal(u.stat, stat) {
			updates = append(updates, u)
		}
		return nil
	}, t.snap.chain, t.snap.n)
	if err != nil || len(updates) == 0 {
		return err
	}
	stmt, err := t.bulk.prepare(ctx, `UPDATE entries SET stat = $4 WHERE chain = $1 AND path = $2 AND n = $3`)
	if err != nil {
		return err
	}
	for _, u := range updates {
		if _, err := stmt.ExecContext(ctx, t.snap.chain, u.key, u.n, u.stat); err != nil {
			return err
		}
	}
	return nil
}

func keyArg(ops []*op) func([]any, int) []any {
	return func(args []any, i int) []any { return append(args, ops[i].row.key) }
}

// bulk runs statements of many rows in a transaction, each in a few sizes, prepared once.
type bulk struct {
	tx          *sql.Tx
	placeholder func(int) string
	stmts       map[string]*sql.Stmt // closed with the transaction
	args        []any
}

func newBulk(tx *sql.Tx, placeholder func(int) string) *bulk {
	return &bulk{tx: tx, placeholder: placeholder, stmts: make(map[string]*sql.Stmt)}
}

// exec runs the statement for n rows; arg appends the parameters of row i.
func (b *bulk) exec(ctx context.Context, t *bulkText, n int, arg func([]any, int) []any, shared ...any) error {
	return b.each(ctx, t, n, arg, shared, func(s *sql.Stmt, args []any) error {
		_, err := s.ExecContext(ctx, args...)
		return err
	})
}

// query is exec for statements that answer.
func (b *bulk) query(ctx context.Context, t *bulkText, n int, arg func([]any, int) []any, fn func(scanner) error, shared ...any) error {
	return b.each(ctx, t, n, arg, shared, func(s *sql.Stmt, args []any) error {
		return each(ctx, stmtQuerier{s}, fn, "", args...)
	})
}

func (b *bulk) each(ctx context.Context, t *bulkText, n int, arg func([]any, int) []any, shared []any, do func(*sql.Stmt, []any) error) error {
	for i := 0; i < n; {
		rows := 1
		for _, size := range []int{64, 8} { // more than 64 gain nothing
			if size <= n-i {
				rows = size
				break
			}
		}
		stmt, err := b.prepare(ctx, b.text(t, rows))
		if err != nil {
			return err
		}
		b.args = append(b.args[:0], shared...)
		for range rows {
			b.args = arg(b.args, i)
			i++
		}
		if err := do(stmt, b.args); err != nil {
			return err
		}
	}
	return nil
}

func (b *bulk) prepare(ctx context.Context, text string) (*sql.Stmt, error) {
	if s := b.stmts[text]; s != nil {
		return s, nil
	}
	s, err := b.tx.PrepareContext(ctx, text)
	if err == nil {
		b.stmts[text] = s
	}
	return s, err
}

// text makes the statement for so many rows. With parameters of their own a row is a list
// in parentheses that begins with the shared ones; without, it is one parameter of a longer list.
func (b *bulk) text(t *bulkText, rows int) string {
	var s strings.Builder
	s.WriteString(t.before)
	p := t.shared
	for i := range rows {
		if i > 0 {
			s.WriteByte(',')
		}
		if t.perRow == 0 {
			p++
			s.WriteString(b.placeholder(p))
			continue
		}
		s.WriteString("($1")
		if t.shared == 2 {
			s.WriteString(",$2")
		}
		for range t.perRow {
			p++
			s.WriteByte(',')
			s.WriteString(b.placeholder(p))
		}
		s.WriteByte(')')
	}
	s.WriteString(t.after)
	return s.String()
}

// stmtQuerier lets each run a prepared statement.
type stmtQuerier struct{ *sql.Stmt }

func (s stmtQuerier) QueryContext(ctx context.Context, _ string, args ...any) (*sql.Rows, error) {
	return s.Stmt.QueryContext(ctx, args...)
}

func (s stmtQuerier) QueryRowContext(ctx context.Context, _ string, args ...any) *sql.Row {
	return s.Stmt.QueryRowContext(ctx, args...)
}

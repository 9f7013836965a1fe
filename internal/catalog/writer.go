package catalog

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync"

	"github.com/firn-backup/firn/internal/snapshot"
)

// batchBytes is what is written in one transaction at most, however few rows it is: entries
// may have 64 KiB of attributes each.
const batchBytes = 4 << 20

// EntryWriter records an attempt's entries, in path order, in transactions of
// thousands of rows. Safe for concurrent use. What was put is seen by others after Flush, PutPending or Close.
// After an error the batch it befell is lost, and every further call fails with that error.
type EntryWriter struct {
	d    *DB
	id   string
	snap view

	mu    sync.Mutex
	batch batch
	busy  chan error // tells how the batch in the background fared; nil: there is none
	err   error      // what broke the writer
}

// batch is what one transaction writes.
type batch struct {
	ops      []op
	problems []snapshot.Problem
	bytes    int
}

type opKind byte

const (
	opPut opKind = iota
	opRefresh
	opDelete
)

type op struct {
	kind  opKind
	row   packed     // of a deletion, only the key
	local *localStat // of a refresh
}

type localStat struct {
	ctime    snapshot.Time
	dev, ino uint64
}

// EntryWriter makes a writer of an attempt's entries. There must be one at a time.
func (d *DB) EntryWriter(ctx context.Context, snap string) (*EntryWriter, error) {
	v, err := d.attempt(ctx, d.b.Read, snap)
	if err != nil {
		return nil, d.fail("write entries", err)
	}
	return &EntryWriter{d: d, id: snap, snap: v}, nil
}

// Put records e as new or changed in this snapshot: a row valid from it on, ending the one before.
// Putting a path again replaces what this snapshot had of it.
func (w *EntryWriter) Put(ctx context.Context, e *snapshot.Entry) error {
	owner, err := w.d.ownerNumber(ctx, owner{e.User, e.Group})
	if err != nil {
		return w.fail(fmt.Errorf("record owner of %q: %w", e.Path, err))
	}
	row, err := pack(e, owner)
	if err != nil {
		return w.fail(err)
	}
	return w.add(ctx, op{kind: opPut, row: row})
}

// Refresh updates only what is local (CTime, Dev, Ino) of an unchanged entry, so that the next run need not look again.
// An entry that is not there is left alone.
func (w *EntryWriter) Refresh(ctx context.Context, e *snapshot.Entry) error {
	key, err := pathKey(e.Path)
	if err != nil {
		return w.fail(err)
	}
	return w.add(ctx, op{kind: opRefresh, row: packed{key: key}, local: &localStat{e.CTime, e.Dev, e.Ino}})
}

// Delete ends the row of path. Deleting what is not there succeeds, and is no change.
func (w *EntryWriter) Delete(ctx context.Context, path string) error {
	key, err := pathKey(path)
	if err != nil {
		return w.fail(err)
	}
	return w.add(ctx, op{kind: opDelete, row: packed{key: key}})
}

// Problem records p.
func (w *EntryWriter) Problem(ctx context.Context, p snapshot.Problem) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.batch.problems = append(w.batch.problems, p)
	w.batch.bytes += len(p.Path) + len(p.Reason) + 64
	return w.fail(w.hand(ctx))
}

func (w *EntryWriter) add(ctx context.Context, o op) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.batch.ops = append(w.batch.ops, o)
	w.batch.bytes += o.row.size()
	return w.fail(w.hand(ctx))
}

// hand gives a full batch to a goroutine that writes it while the next one is gathered.
func (w *EntryWriter) hand(ctx context.Context) error {
	if w.err != nil {
		return w.err
	}
	if len(w.batch.ops)+len(w.batch.problems) < w.d.b.PageRows && w.batch.bytes < batchBytes {
		return nil
	}
	if err := w.settle(); err != nil {
		return err
	}
	b := w.batch
	w.batch = batch{ops: make([]op, 0, w.d.b.PageRows)}
	busy := make(chan error, 1)
	w.busy = busy
	// The batch is to be written also when the call that happened to fill it is over.
	ctx = context.WithoutCancel(ctx)
	w.d.flush.Go(func() { busy <- w.write(ctx, lazy, &b, nil) })
	return nil
}

// settle waits for the batch in the background.
func (w *EntryWriter) settle() error {
	if w.busy != nil {
		err := <-w.busy
		w.busy = nil
		if w.err == nil {
			w.err = err
		}
	}
	return w.err
}

// Flush writes what was put, so that others see it. It survives a kill of the process, and a
// loss of power once PutPending or another durable step follows.
func (w *EntryWriter) Flush(ctx context.Context) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.fail(w.flush(ctx, lazy, nil))
}

// Close is Flush; the writer has nothing else to give back.
func (w *EntryWriter) Close(ctx context.Context) error { return w.Flush(ctx) }

// PutPending writes p down durably (fsynced), in one transaction with all entries put before.
func (w *EntryWriter) PutPending(ctx context.Context, p Pending) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if p.Snap != w.id {
		return w.fail(fmt.Errorf("pending volume of another attempt, %s", p.Snap))
	}
	return w.fail(w.flush(ctx, durable, &p))
}

func (w *EntryWriter) flush(ctx context.Context, l lasting, p *Pending) error {
	if err := w.settle(); err != nil {
		return err
	}
	if p == nil && len(w.batch.ops) == 0 && len(w.batch.problems) == 0 {
		return nil
	}
	b := w.batch
	w.batch = batch{}
	w.err = w.write(ctx, l, &b, p)
	return w.err
}

func (w *EntryWriter) fail(err error) error {
	return w.d.fail("record entries of "+w.id, err)
}

// write writes a batch in one transaction, with a pending upload if there is one.
func (w *EntryWriter) write(ctx context.Context, l lasting, b *batch, p *Pending) error {
	return w.d.change(ctx, l, func(tx *sql.Tx) error {
		// Rows of an attempt that is no more would never go away.
		if v, err := w.d.attempt(ctx, tx, w.id); err != nil {
			return err
		} else if v != w.snap {
			return errors.New("the attempt was begun anew")
		}
		t := batchTx{snap: w.snap, bulk: newBulk(tx, w.d.b.Placeholder)}
		for ops := b.ops; len(ops) > 0; {
			n := ascending(ops)
			if err := t.apply(ctx, ops[:n]); err != nil {
				return err
			}
			ops = ops[n:]
		}
		for _, pr := range b.problems {
			_, err := tx.ExecContext(ctx, `INSERT INTO problems (snap, path, reason) VALUES ($1, $2, $3)`,
				w.snap.num, slashToNul(blob(pr.Path)), blob(pr.Reason))
			if err != nil {
				return err
			}
		}
		if p != nil {
			return putPending(ctx, tx, w.snap.num, p)
		}
		return nil
	})
}

// Problems lists what was recorded of a snapshot, by path.
func (d *DB) Problems(ctx context.Context, snap string) ([]snapshot.Problem, error) {
	var list []snapshot.Problem
	err := each(ctx, d.b.Read, func(r scanner) error {
		var key []byte
		var p snapshot.Problem
		err := r.Scan(&key, &p.Reason)
		p.Path = keyPath(key)
		list = append(list, p)
		return err
	}, `SELECT path, reason FROM problems WHERE snap = (SELECT num FROM snapshots WHERE id = $1) ORDER BY path, id`, snap)
	if err != nil {
		return nil, d.fail("list problems of "+snap, err)
	}
	return list, nil
}

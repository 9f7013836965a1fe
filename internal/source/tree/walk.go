package tree

import (
	"context"
	"io/fs"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/firn-backup/firn/internal/snapshot"
	"github.com/firn-backup/firn/internal/source"
)

// batchItems is how many entries come in one batch at most, and maxBatches how
// many batches wait for Walk's fn.
const (
	batchItems = 512
	maxBatches = 4
)

// walk is one walk over the roots.
type walk struct {
	t     *Tree
	set   *rootSet
	ahead *ahead
	out   chan []source.Item
	s     scratch

	items    []source.Item // the batch that is being filled
	paths    []byte        // its paths
	ends     []int         // where each ends
	released int           // entries handed on since ahead was last told

	mu   sync.Mutex
	dirs map[*openDir]bool // that are open
}

// openDir is a directory that several tasks read.
type openDir struct {
	fd    int
	users atomic.Int32
}

// Walk is that of source.Tree. Entries of the root / itself do not exist:
// there its contents are all.
func (t *Tree) Walk(ctx context.Context, fn func([]source.Item) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	set, err := t.openRoots()
	if err != nil {
		return err
	}
	t.mu.Lock()
	t.open.Store(set) // the last one's is closed once nobody uses it
	t.mu.Unlock()

	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	w := &walk{t: t, set: set, ahead: newAhead(ctx, t.workers()), out: make(chan []source.Item, maxBatches), dirs: make(map[*openDir]bool)}
	go func() {
		defer close(w.out)
		w.all(ctx)
	}()
	for items := range w.out {
		if err == nil {
			if err = fn(items); err != nil {
				cancel()
			}
		}
	}
	w.ahead.stop()
	w.closeDirs()
	runtime.KeepAlive(set)
	if err == nil {
		err = context.Cause(ctx)
	}
	return err
}

func (t *Tree) workers() int {
	if t.o.Workers > 0 {
		return t.o.Workers
	}
	return max(2, min(runtime.NumCPU(), 4))
}

// all hands on everything.
func (w *walk) all(ctx context.Context) {
	for _, r := range w.set.roots {
		if r.outer == nil && !w.root(ctx, r) {
			return
		}
	}
	w.flush(ctx)
}

// root hands on a root and what is below it. It says whether to go on.
func (w *walk) root(ctx context.Context, r *root) bool {
	st := infoOf(&r.st)
	if r.name != "" {
		var now unix.Statx_t
		if err := stat(int(r.dir.Fd()), r.name, 0, &now); err != nil {
			return w.add(ctx, "", &found{name: r.path, gone: err == unix.ENOENT, err: &fs.PathError{Op: "stat", Path: r.full, Err: err}})
		}
		return w.add(ctx, "", &found{name: r.path, st: infoOf(&now)})
	}
	n := w.newNode(r.path, r, st, st.dev)
	return w.dir(ctx, "", &found{name: r.path, st: st, child: n})
}

// dir hands on the directory f.child, whose entry is f in the directory parent,
// and what is below it.
func (w *walk) dir(ctx context.Context, parent string, f *found) bool {
	n := f.child
	if !w.need(n.list) {
		return false
	}
	if n.fresh != nil {
		f.st = *n.fresh
	}
	f.err, f.gone = n.err, n.gone
	if n.path != "" {
		if !w.add(ctx, parent, f) {
			return false
		}
	} else if n.err != nil && !w.add(ctx, "", f) {
		return false
	}
	for i := range n.blocks {
		b := &n.blocks[i]
		if b.task != nil && !w.need(b.task) {
			return false
		}
		for j := range b.found {
			if !w.found(ctx, n.path, &b.found[j]) {
				return false
			}
		}
		w.released += len(b.found)
		*b = block{}
	}
	if n.toward && (n.err != nil || n.closed) {
		return w.others(ctx, n.path)
	}
	return true
}

// found hands on one thing found in the directory dir.
func (w *walk) found(ctx context.Context, dir string, f *found) bool {
	switch {
	case f.child != nil:
		ok := w.dir(ctx, dir, f)
		f.child = nil // what was read of it is no longer needed
		return ok
	case f.name != "":
		if !w.add(ctx, dir, f) {
			return false
		}
	}
	for _, r := range f.others {
		if !w.root(ctx, r) {
			return false
		}
	}
	return true
}

// others hands on the roots below a directory that is not descended into.
func (w *walk) others(ctx context.Context, path string) bool {
	for _, r := range w.set.below(path) {
		if r.path != path && !w.root(ctx, r) {
			return false
		}
	}
	return true
}

func (w *walk) need(t *task) bool {
	released := w.released
	w.released = 0
	return w.ahead.need(t, released, &w.s)
}

// add puts one item into the batch. It says whether to go on.
func (w *walk) add(ctx context.Context, dir string, f *found) bool {
	if w.items == nil {
		w.items = make([]source.Item, 0, batchItems)
	}
	w.items = append(w.items, source.Item{})
	it := &w.items[len(w.items)-1]
	switch {
	case f.err == nil:
		f.st.fill(&it.Entry)
	case f.gone:
		it.Err, it.Gone = f.err, true
	default:
		it.Err = f.err
		if f.child != nil && f.name != "" {
			f.st.fill(&it.Entry)
			it.Known = true
		}
	}
	if dir != "" {
		w.paths = append(append(w.paths, dir...), '/')
	}
	w.paths = append(w.paths, f.name...)
	w.ends = append(w.ends, len(w.paths))
	if len(w.items) == batchItems {
		return w.flush(ctx)
	}
	return true
}

// flush hands on the batch.
func (w *walk) flush(ctx context.Context) bool {
	if len(w.items) == 0 {
		return ctx.Err() == nil
	}
	paths, begin := string(w.paths), 0
	for i, end := range w.ends {
		w.items[i].Entry.Path = paths[begin:end]
		begin = end
	}
	items := w.items
	w.items, w.paths, w.ends = nil, w.paths[:0], w.ends[:0]
	select {
	case w.out <- items:
		return true
	case <-ctx.Done():
		return false
	}
}

// fill sets what lstat tells of an entry.
func (i *info) fill(e *snapshot.Entry) {
	e.Type, e.Mode, e.UID, e.GID = i.typ, uint32(i.mode), i.uid, i.gid
	e.Size, e.MTime, e.CTime = i.size, i.mtime, i.ctime
	e.Major, e.Minor, e.Dev, e.Ino = i.major, i.minor, i.dev, i.ino
	e.LinkGroup = ""
	if i.linked {
		var b [40]byte
		e.LinkGroup = string(strconv.AppendUint(append(strconv.AppendUint(b[:0], i.dev, 16), ':'), i.ino, 16))
	}
}

func (w *walk) openDir(fd int) *openDir {
	d := &openDir{fd: fd}
	d.users.Store(1)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.dirs[d] = true
	return d
}

func (w *walk) done(d *openDir) {
	if d.users.Add(-1) > 0 {
		return
	}
	unix.Close(d.fd)
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.dirs, d)
}

// closeDirs closes what a walk that was stopped left open.
func (w *walk) closeDirs() {
	for d := range w.dirs {
		unix.Close(d.fd)
	}
}

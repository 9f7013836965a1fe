// Package mirror is the use case of keeping a directory's files, each as an archive of its own, the same in a vault as they are
// on disk: thousands of large pieces of a disk image, of which a few change. It owns which files are new, changed or gone, and
// when a file may not be believed to be gone. It knows nothing of how an item is stored.
package mirror

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/firn-backup/firn/internal/catalog"
	"github.com/firn-backup/firn/internal/failure"
	"github.com/firn-backup/firn/internal/itemstore"
	"github.com/firn-backup/firn/internal/snapshot"
	"github.com/firn-backup/firn/internal/source"
	"github.com/firn-backup/firn/internal/units"
	"github.com/firn-backup/firn/treehash"
)

// Options say what to reconcile, and with what. Items, Tree and Dir are needed.
type Options struct {
	Items itemstore.Options
	Tree  source.Tree // of Dir
	Dir   string      // absolute

	Commit bool // do it; else only find out, and change nothing: Items.Catalog and Items.Store may be nil then
	Delete bool // delete archives of what was replaced or is gone
	Early  bool // also before the vault's minimum storage duration is over
	// AllowShrunk believes that files are gone also where a directory has lost most of its files, or is not mounted.
	AllowShrunk bool
	Checksum    bool // read every file, whatever its metadata say
	Workers     int  // files read at a time while looking; 0: one for each processor
	// Names tells the names of owners; nil: they have none.
	Names func(uid, gid uint32) (user, group string)

	Observe Observer // may be nil
}

// Kind says what is to be done, or was.
type Kind string

const (
	New     Kind = "new"     // stored for the first time
	Changed Kind = "changed" // stored again
	Lost    Kind = "lost"    // stored again, as its archive is known to be gone from the vault
	Gone    Kind = "gone"    // its archive is deleted, as it is not on disk any more
	Old     Kind = "old"     // an archive is deleted of which a newer version is stored
)

// Change is one thing to do.
type Change struct {
	Kind    Kind
	Path    string
	Size    int64 // bytes of the file
	Archive string
	// Due is when an archive may be deleted; zero: now. Then it is kept until a run after that.
	Due time.Time

	mount   string // where what the file lies on is mounted, or lay; empty: it is the mount of the set's directory, or not known
	mounted bool   // of what is gone: it lay on something that was mounted
	lost    bool   // of what is gone: so is its archive
}

// Observer is told what happens. Read, Stored and Problem come from several goroutines.
type Observer interface {
	Looking(files int64) // so many files were met so far
	Read(bytes int64)    // read to be compared
	Sending(bytes int64) // read to be stored
	Stored(c Change)
	Deleted(c Change)
	Problem(p snapshot.Problem)
}

// Withheld is why files that are not there are not believed to be gone.
type Withheld struct {
	Dir    string // relative; empty: the whole directory
	Files  int64  // gone
	Known  int64  // of so many
	Reason string
}

// Result is what was found and done.
type Result struct {
	Run       catalog.ItemRun // zero where nothing was changed
	Files     int64           // on disk
	Bytes     int64
	Unchanged int64
	Read      int64 // files read to compare them
	Upload    []Change
	Delete    []Change // what is gone or replaced, those with Due among them
	Withheld  []Withheld
	Left      int64 // entries that are no regular files and no directories: not stored
	Known     int   // archives of the vault that turned out to be this set's
	Settled   int   // uploads of an interrupted run that had been completed

	Stored  int64
	Sent    int64 // bytes
	Deleted int64
	itemstore.Problems
}

type run struct {
	o      Options
	s      *itemstore.Session // nil: nothing is done
	dir    *itemstore.Dir
	mu     sync.Mutex
	res    Result
	seen   []catalog.Item // unchanged, under other metadata
	learnt []catalog.Item // the same, of which the catalog knew the archive only

	found  []catalog.Item // what the vault has and the catalog does not know; only where nothing is done
	gone   []Change
	blind  []string          // relative paths below which nothing is known
	dirs   map[string]*tally // by relative path
	bands  map[string]place  // of directories that are there, by relative path
	device place             // of Dir
}

// Run compares the directory with what is stored of it, and with Commit stores what is new and changed and then deletes what was
// replaced or is gone. What cannot be read, or is not believed to be gone, is failure.Partial. A directory that is missing, not mounted, or empty
// though something is stored of it, is an error before anything is done.
func Run(ctx context.Context, o Options) (Result, error) {
	r := &run{o: o, dirs: map[string]*tally{}, bands: map[string]place{}}
	if o.Observe == nil {
		r.o.Observe = silent{}
	}
	if o.Tree == nil || !filepath.IsAbs(o.Dir) {
		return r.res, errors.New("mirror: an option is missing")
	}
	if o.Workers <= 0 {
		r.o.Workers = runtime.GOMAXPROCS(0)
	}
	if r.o.Items.Wall == nil {
		r.o.Items.Wall = time.Now
	}
	var err error
	if r.dir, err = itemstore.OpenDir(o.Dir); err != nil {
		return r.res, failure.Wrap(failure.Failed, err)
	}
	defer r.dir.Close()
	if err := r.open(ctx); err != nil {
		return r.res, err
	}
	if err := r.compare(ctx); err != nil {
		return r.res, err
	}
	if err := r.judge(ctx); err != nil {
		return r.res, err
	}
	if !o.Commit {
		return r.res, r.verdict()
	}
	if err := r.commit(ctx); err != nil {
		return r.res, err
	}
	return r.res, r.verdict()
}

// open finds out what is stored.
func (r *run) open(ctx context.Context) (err error) {
	if !r.o.Commit {
		f, err := itemstore.Find(ctx, r.o.Items, r.local)
		r.found, r.res.Known = f.Items, len(f.Items)
		return err
	}
	if r.s, err = itemstore.Open(ctx, r.o.Items); err != nil {
		return err
	}
	r.res.Settled = len(r.s.Settled)
	f, err := itemstore.TakeOver(ctx, r.o.Items, r.local)
	r.res.Known = len(f.Items)
	return err
}

// stored calls fn for the versions that are current, or for those that are not any more and whose archives are still there.
func (r *run) stored(ctx context.Context, ended bool, fn func(catalog.Item) error) error {
	for _, i := range r.found {
		if (i.Until != 0) == ended {
			if err := fn(i); err != nil {
				return err
			}
		}
	}
	if len(r.found) > 0 || r.o.Items.Catalog == nil {
		return nil
	}
	return r.o.Items.Catalog.Items(ctx, r.o.Items.Set.ID, catalog.ItemQuery{Ended: ended}, fn)
}

func (r *run) verdict() error {
	switch {
	case r.res.Bad > 0:
		return failure.Errorf(failure.Partial, "%s could not be dealt with; the first: %s", units.Count(r.res.Bad, "file"), r.res.First())
	case len(r.res.Withheld) > 0:
		w := r.res.Withheld[0]
		return failure.Errorf(failure.Partial, "nothing is deleted where files are not believed to be gone: %s", w.Text())
	}
	return nil
}

// Text is one line for people.
func (w Withheld) Text() string {
	where := w.Dir
	if where == "" {
		where = "the directory"
	}
	return fmt.Sprintf("%s: %s (%d of %d)", where, w.Reason, w.Files, w.Known)
}

func (r *run) problem(path string, err error) {
	r.mu.Lock()
	p := r.res.Add(path, err)
	r.mu.Unlock()
	r.o.Observe.Problem(p)
}

// local hashes a file that a strange archive may be of; ok is false where it cannot be.
func (r *run) local(ctx context.Context, name string, size int64) (h treehash.Hash, ok bool) {
	open := r.dir.Opener(name)
	if e, err := itemstore.StatFile(open); err != nil || e.Size != size {
		return h, false
	}
	h, _, _, err := itemstore.HashFile(ctx, open, itemstore.HashBuffer(), r.o.Items.Wall, r.o.Observe.Read)
	return h, err == nil
}

// rel is the path of an entry below the directory.
func (r *run) rel(path string) string {
	root := strings.TrimPrefix(r.o.Dir, "/")
	if root == "" {
		return path
	}
	if len(path) <= len(root) {
		return ""
	}
	return path[len(root)+1:]
}

// rows reads the current versions, one after the other.
func (r *run) rows(ctx context.Context) iter.Seq2[catalog.Item, error] {
	return func(yield func(catalog.Item, error) bool) {
		stop := errors.New("stop")
		err := r.stored(ctx, false, func(i catalog.Item) error {
			if !yield(i, nil) {
				return stop
			}
			return nil
		})
		if err != nil && !errors.Is(err, stop) {
			yield(catalog.Item{}, err)
		}
	}
}

// compare walks the directory beside the catalog, both in the order of paths.
func (r *run) compare(ctx context.Context) error {
	var st unix.Stat_t
	if err := unix.Stat(r.o.Dir, &st); err != nil {
		return fmt.Errorf("%s: %w", r.o.Dir, err)
	}
	r.device = placeOf(r.o.Dir, st.Dev, 0, place{device: st.Dev})
	next, stop := iter.Pull2(r.rows(ctx))
	defer stop()
	row, err, more := next()
	if err != nil {
		return err
	}
	group, gctx := errgroup.WithContext(ctx)
	group.SetLimit(r.o.Workers)
	buffers := sync.Pool{New: func() any { b := itemstore.HashBuffer(); return &b }}
	werr := r.o.Tree.Walk(gctx, func(items []source.Item) error {
		for k := range items {
			e := &items[k].Entry
			rel := r.rel(e.Path)
			if items[k].Err != nil {
				r.problem(e.Path, items[k].Err)
				r.blind = append(r.blind, rel)
				continue
			}
			for more && snapshot.ComparePaths(row.Path, rel) < 0 {
				r.missing(row)
				if row, err, more = next(); err != nil {
					return err
				}
			}
			switch e.Type {
			case snapshot.Dir:
				at := r.device
				if rel != "" {
					_, above := r.nearest(rel)
					at = placeOf("/"+e.Path, e.Dev, unix.AT_SYMLINK_NOFOLLOW, above)
				}
				r.bands[rel] = at
			case snapshot.File:
				var old *catalog.Item
				if more && row.Path == rel {
					mine := row
					old = &mine
				}
				if err := r.file(gctx, group, &buffers, *e, rel, old); err != nil {
					return err
				}
			default:
				r.res.Left++
			}
			if more && row.Path == rel {
				if e.Type != snapshot.File {
					r.missing(row)
				}
				if row, err, more = next(); err != nil {
					return err
				}
			}
		}
		r.o.Observe.Looking(r.res.Files)
		return nil
	})
	gerr := group.Wait()
	if err := errors.Join(werr, gerr); err != nil {
		return err
	}
	for more {
		r.missing(row)
		if row, err, more = next(); err != nil {
			return err
		}
	}
	slices.SortFunc(r.res.Upload, func(a, b Change) int { return snapshot.ComparePaths(a.Path, b.Path) })
	return r.remember(ctx, true)
}

// file decides about a file that is there.
func (r *run) file(ctx context.Context, group *errgroup.Group, buffers *sync.Pool, e snapshot.Entry, rel string, old *catalog.Item) error {
	r.res.Files++
	r.res.Bytes += e.Size
	c := Change{Kind: New, Path: rel, Size: e.Size, mount: r.mount(rel)}
	if old == nil {
		r.upload(c)
		return nil
	}
	r.count(*old, false)
	c.Kind = Changed
	state := itemstore.FileState(&e, r.o.Items.Wall())
	switch {
	case !old.Deleted.IsZero():
		c.Kind = Lost
		r.upload(c)
		return nil
	case old.Plain == e.Size && state == old.State && state != [32]byte{} && !r.o.Checksum:
		if now := *old; now.Mounted != (c.mount != "") || now.Mount != c.mount {
			now.Mounted, now.Mount = c.mount != "", c.mount
			return r.unchanged(ctx, now, false)
		}
		r.mu.Lock()
		r.res.Unchanged++
		r.mu.Unlock()
		return nil
	case old.Plain != e.Size && !old.Bare:
		r.upload(c)
		return nil
	}
	group.Go(func() error {
		buf := buffers.Get().(*[]byte)
		defer buffers.Put(buf)
		return r.read(ctx, rel, *buf, *old, c)
	})
	return nil
}

// read compares a file by its tree hash.
func (r *run) read(ctx context.Context, rel string, buf []byte, old catalog.Item, c Change) error {
	h, now, at, err := itemstore.HashFile(ctx, r.dir.Opener(rel), buf, r.o.Items.Wall, r.o.Observe.Read)
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.Is(err, itemstore.ErrChanged):
		r.upload(c) // it is looked at again when it is stored
		return nil
	case err != nil:
		r.problem(rel, err)
		return nil
	}
	r.mu.Lock()
	r.res.Read++
	r.mu.Unlock()
	same, learn := h == old.PlainHash, old.Bare && old.Compress != "none"
	if learn { // only the archive's own hash is known
		if same, err = r.sameArchive(ctx, rel, old, c.Size); err != nil {
			return err
		}
	}
	if !same {
		r.upload(c)
		return nil
	}
	old.Plain, old.PlainHash = now.Size, h
	old.State, old.Bare = itemstore.FileState(&now, at), false
	old.Mode, old.UID, old.GID, old.MTime = now.Mode, now.UID, now.GID, now.MTime
	if r.o.Names != nil {
		old.User, old.Group = r.o.Names(old.UID, old.GID)
	}
	old.Mounted, old.Mount = c.mount != "", c.mount
	return r.unchanged(ctx, old, learn)
}

// unchanged notes a file whose contents are what is stored, and of which something else has changed. What is noted is written down
// as soon as it is much. learnt says that its hash was not known either.
func (r *run) unchanged(ctx context.Context, i catalog.Item, learnt bool) error {
	r.mu.Lock()
	r.res.Unchanged++
	if learnt {
		r.learnt = append(r.learnt, i)
	} else {
		r.seen = append(r.seen, i)
	}
	full := len(r.seen) >= pieceOfRows || len(r.learnt) >= pieceOfRows
	r.mu.Unlock()
	if full {
		return r.remember(ctx, false)
	}
	return nil
}

// sameArchive says whether a file would become the archive that is stored of it.
func (r *run) sameArchive(ctx context.Context, rel string, old catalog.Item, size int64) (bool, error) {
	p := itemstore.FilePiece(old, size, r.dir.Opener(rel), r.o.Items.Wall, nil, nil)
	same, err := itemstore.SameArchive(ctx, r.o.Items, p, old)
	switch {
	case ctx.Err() != nil:
		return false, context.Cause(ctx)
	case errors.Is(err, itemstore.ErrChanged), errors.Is(err, itemstore.ErrSource):
		return false, nil // it is looked at again when it is stored
	}
	return same, err
}

// pieceOfRows is how many rows are written down at a time.
const pieceOfRows = 1000

// remember writes down what was found unchanged under other metadata.
func (r *run) remember(ctx context.Context, all bool) error {
	r.mu.Lock()
	take := func(list *[]catalog.Item) (taken []catalog.Item) {
		if all || len(*list) >= pieceOfRows {
			taken, *list = *list, nil
		}
		return taken
	}
	seen, learnt := take(&r.seen), take(&r.learnt)
	r.mu.Unlock()
	if !r.o.Commit {
		return nil
	}
	if len(learnt) > 0 {
		if err := r.o.Items.Catalog.PutItems(ctx, learnt); err != nil {
			return err
		}
	}
	if len(seen) == 0 {
		return nil
	}
	return r.o.Items.Catalog.ItemsSeen(ctx, seen)
}

func (r *run) upload(c Change) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.res.Upload = append(r.res.Upload, c)
}

// missing notes a file that is stored and was not met.
func (r *run) missing(i catalog.Item) {
	for _, b := range r.blind {
		if b == "" || snapshot.Below(i.Path, b) {
			return
		}
	}
	r.count(i, true)
	c := r.deletion(Gone, i)
	c.mount, c.mounted, c.lost = i.Mount, i.Mounted, !i.Deleted.IsZero()
	r.gone = append(r.gone, c)
}

type silent struct{}

func (silent) Looking(int64)            {}
func (silent) Read(int64)               {}
func (silent) Sending(int64)            {}
func (silent) Stored(Change)            {}
func (silent) Deleted(Change)           {}
func (silent) Problem(snapshot.Problem) {}

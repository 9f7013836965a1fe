// Package items is the use case of storing each child of a directory as an archive of its own, once or again when anything in
// it has changed, and of getting such archives, and those of mirrors, back. It owns what an item is and when it has changed. How one is stored is
// package itemstore's.
package items

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/firn-backup/firn/internal/catalog"
	"github.com/firn-backup/firn/internal/exclude"
	"github.com/firn-backup/firn/internal/failure"
	"github.com/firn-backup/firn/internal/itemstore"
	"github.com/firn-backup/firn/internal/snapshot"
	"github.com/firn-backup/firn/internal/source"
	"github.com/firn-backup/firn/internal/units"
)

// Tree is the tree of one directory.
type Tree interface {
	source.Tree
	Close() error
}

// Options say what to store, and with what. Items, Path, Tree and Skip are needed.
type Options struct {
	Items itemstore.Options
	Path  string // absolute

	Files, Dirs bool // which children; both false: Path itself is the one item
	Exclude     []string
	Once        bool          // an item that is stored is not looked at again
	Replace     bool          // archives of which there is a newer version are deleted, once they are old enough
	Early       bool          // also before the vault's minimum storage duration is over
	AllowShrunk bool          // also of a directory that has lost most of its files since
	Checksum    bool          // read everything, whatever the metadata say
	DryRun      bool          // Items.Catalog and Items.Store may be nil then
	MinInterval time.Duration // an item is not stored again sooner than this after its last version; 0: whenever it has changed
	// Tree opens the tree of a directory, with the set's excludes. Skip says that a path is Firn's own.
	Tree func(full string) (Tree, error)
	Skip func(full string) bool
	// Snapshot stores a path as a snapshot of its own, for items in Firn's format, and returns its id and the bytes sent. Nil: plain archives.
	Snapshot func(ctx context.Context, full string) (id string, sent int64, err error)
	Names    func(uid, gid uint32) (user, group string)

	Observe Observer // may be nil
}

// Observer is told what happens, from several goroutines.
type Observer interface {
	Looking(path string)
	Read(bytes int64)
	Stored(i catalog.Item, why string)
	Deleted(i catalog.Item)
	Problem(p snapshot.Problem)
	Notice(p snapshot.Problem) // of what is left out
	Kept(path, reason string)  // an older archive that would be replaced, as what is stored since has less in it
}

// Candidate is an item that is to be looked at.
type Candidate struct {
	Name string // in the catalog: the base name
	Full string
	Dir  bool
	Size int64 // of a file
}

// Change is an item that is stored, or would be.
type Change struct {
	Candidate
	Why string // "new", "changed", or "lost": its archive is known to be gone from the vault
}

// Result is what was done, or with DryRun would be.
type Result struct {
	Run       catalog.ItemRun // zero where nothing was changed
	Items     int64           // candidates
	Unchanged int64
	TooEarly  int64     // changed, and stored less than Options.MinInterval ago
	Due       time.Time // when the first of those may be stored; zero: there are none
	Upload    []Change
	Known     int // archives of the vault that turned out to be this set's
	Settled   int

	Stored  int64
	Sent    int64
	Deleted int64
	Young   int64 // archives that go once they are old enough
	Worse   int64 // archives that are kept since what replaced them has less in it
	itemstore.Problems
}

const maxFailures = 5 // of the vault in a row

// ErrTooMany says that the vault failed several times in a row.
var ErrTooMany = errors.New("the vault failed several times in a row: the other items were not tried")

type run struct {
	o   Options
	s   *itemstore.Session // nil in a dry run
	mu  sync.Mutex
	res Result
	bad int // failures of the vault in a row

	found map[string]catalog.Item // what the vault has and the catalog does not know; in a dry run only
	extra int64                   // bytes that the last snapshot sent
}

// Run stores what is new or changed. One item that fails does not stop the others: what failed is told of in the end, as
// failure.Partial. A path that is not there is an error.
func Run(ctx context.Context, o Options) (Result, error) {
	r := &run{o: o}
	if o.Observe == nil {
		r.o.Observe = silent{}
	}
	if o.Tree == nil || o.Skip == nil || !filepath.IsAbs(o.Path) {
		return r.res, errors.New("items: an option is missing")
	}
	if r.o.Items.Wall == nil {
		r.o.Items.Wall = time.Now
	}
	list, err := r.candidates()
	if err != nil {
		return r.res, err
	}
	r.res.Items = int64(len(list))
	if err := r.open(ctx); err != nil {
		return r.res, err
	}
	err = r.all(ctx, list)
	slices.SortFunc(r.res.Upload, func(a, b Change) int { return strings.Compare(a.Name, b.Name) })
	if !o.DryRun {
		var eerr error
		r.res.Run, eerr = r.s.End(context.WithoutCancel(ctx))
		err = errors.Join(err, eerr)
	}
	if err == nil && o.Replace && !o.DryRun {
		r.res.Young, err = r.s.Delete(ctx, itemstore.Deleting{
			Early: o.Early, Shrunk: o.AllowShrunk, Failed: r.problem,
			Deleted: func(i catalog.Item) {
				r.res.Deleted++
				r.o.Observe.Deleted(i)
			},
			Kept: func(path, reason string) {
				r.res.Worse++
				r.o.Observe.Kept(path, reason)
			},
		})
	}
	if err == nil && r.res.Bad > 0 {
		err = failure.Errorf(failure.Partial, "%s could not be dealt with; the first: %s", units.Count(r.res.Bad, "item"), r.res.First())
	}
	return r.res, err
}

// open finds out what is stored.
func (r *run) open(ctx context.Context) (err error) {
	if !r.o.DryRun {
		if r.s, err = itemstore.Open(ctx, r.o.Items); err != nil {
			return err
		}
		r.res.Settled = len(r.s.Settled)
	}
	if r.o.Snapshot != nil {
		return nil
	}
	look := itemstore.TakeOver
	if r.o.DryRun {
		look = itemstore.Find
	}
	f, err := look(ctx, r.o.Items, nil)
	r.res.Known = len(f.Items)
	if r.o.DryRun {
		r.found = map[string]catalog.Item{}
		for _, i := range f.Items {
			r.found[i.Path] = i // the last is the newest
		}
	}
	return err
}

// current is the version of an item that is stored; known is false where there is none.
func (r *run) current(ctx context.Context, name string) (i catalog.Item, known bool, err error) {
	if i, known = r.found[name]; known || r.o.Items.Catalog == nil {
		return i, known, nil
	}
	i, err = r.o.Items.Catalog.CurrentItem(ctx, r.o.Items.Set.ID, name)
	if failure.KindOf(err) == failure.NotFound {
		return i, false, nil
	}
	return i, err == nil, err
}

// learnt writes down what else is known of an item whose contents have not changed.
func (r *run) learnt(ctx context.Context, i catalog.Item) error {
	if r.o.DryRun {
		return nil
	}
	return r.o.Items.Catalog.PutItems(ctx, []catalog.Item{i})
}

// seen writes down under which metadata an item was found unchanged.
func (r *run) seen(ctx context.Context, i catalog.Item) error {
	if r.o.DryRun {
		return nil
	}
	return r.o.Items.Catalog.ItemsSeen(ctx, []catalog.Item{i})
}

// candidates finds the items: the direct children that are wanted, links followed, in the order of names.
func (r *run) candidates() ([]Candidate, error) {
	info, err := os.Stat(r.o.Path)
	if err != nil {
		return nil, err
	}
	if !info.IsDir() || !r.o.Files && !r.o.Dirs {
		c := Candidate{Name: itemstore.TarName(r.o.Path), Full: r.o.Path, Dir: info.IsDir(), Size: info.Size()}
		if !c.Dir && !info.Mode().IsRegular() {
			return nil, failure.Errorf(failure.Usage, "%s is neither a directory nor a regular file", r.o.Path)
		}
		return []Candidate{c}, nil
	}
	entries, err := os.ReadDir(r.o.Path)
	if err != nil {
		return nil, err
	}
	match, err := exclude.Parse(r.o.Exclude, "")
	if err != nil {
		return nil, failure.Wrap(failure.Usage, err)
	}
	var list []Candidate
	for _, e := range entries {
		full := filepath.Join(r.o.Path, e.Name())
		if r.o.Skip(full) {
			continue
		}
		info, err := os.Stat(full)
		if err != nil {
			if !match.Match(e.Name(), false) {
				r.left(full, err)
			}
			continue
		}
		c := Candidate{Name: e.Name(), Full: full, Dir: info.IsDir(), Size: info.Size()}
		switch {
		case match.Match(e.Name(), c.Dir):
		case c.Dir && r.o.Dirs, info.Mode().IsRegular() && r.o.Files:
			list = append(list, c)
		case !c.Dir && !info.Mode().IsRegular():
			r.o.Observe.Notice(snapshot.Problem{Path: full, Reason: "it is neither a directory nor a regular file"})
		}
	}
	return list, nil
}

// left tells of a child that cannot be looked at: a link that leads nowhere, or in a circle, is left out, anything else is a problem.
func (r *run) left(full string, err error) {
	nowhere := errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ENOTDIR)
	if info, lerr := os.Lstat(full); lerr == nil && info.Mode()&fs.ModeSymlink != 0 && nowhere {
		r.o.Observe.Notice(snapshot.Problem{Path: full, Reason: "the link leads nowhere"})
		return
	}
	if errors.Is(err, fs.ErrNotExist) {
		return // it vanished
	}
	r.problem(full, err)
}

func (r *run) problem(path string, err error) {
	r.mu.Lock()
	p := r.res.Add(path, err)
	r.mu.Unlock()
	r.o.Observe.Problem(p)
}

// all deals with every candidate. An attempt at a snapshot that was interrupted comes first: it goes on.
func (r *run) all(ctx context.Context, list []Candidate) error {
	if r.o.Snapshot != nil && r.o.Items.Catalog != nil {
		list, err := r.attemptFirst(ctx, list)
		if err == nil {
			err = r.adoptSnapshots(ctx, list)
		}
		if err != nil {
			return err
		}
		for _, c := range list {
			if err := r.one(ctx, c); err != nil {
				return err
			}
		}
		return nil
	}
	parallel := r.o.Items.Parallel
	if parallel <= 0 {
		parallel = itemstore.DefaultParallel
	}
	group, gctx := errgroup.WithContext(ctx)
	group.SetLimit(parallel)
	for _, c := range list {
		if gctx.Err() != nil {
			break
		}
		group.Go(func() error { return r.one(gctx, c) })
	}
	return errors.Join(group.Wait(), context.Cause(ctx))
}

// one deals with one candidate. Its error ends the run.
func (r *run) one(ctx context.Context, c Candidate) error {
	r.o.Observe.Looking(c.Full)
	old, known, err := r.current(ctx, c.Name)
	if err != nil {
		return err
	}
	lost := known && !old.Deleted.IsZero() // its archive is known to be gone from the vault
	once := r.o.Once && !old.Torn
	if known && !lost && (once || old.Dir == c.Dir && (!old.Torn || steady(old))) {
		same := once
		if !same {
			if same, err = r.same(ctx, c, old); err != nil {
				return r.failed(ctx, c, err)
			}
		}
		if same {
			r.mu.Lock()
			r.res.Unchanged++
			r.mu.Unlock()
			r.torn(c, old)
			return nil
		}
	}
	ch := Change{Candidate: c, Why: "new"}
	if lost {
		ch.Why = "lost"
	} else if known {
		if due := old.Stored.Add(r.o.MinInterval); r.o.MinInterval > 0 && r.o.Items.Now().Before(due) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.res.TooEarly++
			if r.res.Due.IsZero() || due.Before(r.res.Due) {
				r.res.Due = due
			}
			return nil
		}
		ch.Why = "changed"
	}
	r.mu.Lock()
	r.res.Upload = append(r.res.Upload, ch)
	r.mu.Unlock()
	if r.o.DryRun {
		return nil
	}
	i, err := r.store(ctx, c)
	if err != nil {
		return r.failed(ctx, c, err)
	}
	r.mu.Lock()
	r.bad = 0
	r.res.Stored++
	r.res.Sent += i.Archive.Size + r.extra
	r.extra = 0
	r.mu.Unlock()
	r.o.Observe.Stored(i, ch.Why)
	r.torn(c, i)
	return nil
}

// torn tells of an item that is not stored whole.
func (r *run) torn(c Candidate, i catalog.Item) {
	switch {
	case steady(i):
		r.problem(c.Full, errors.New("something in it could not be read; the rest is stored"))
	case i.Torn:
		r.problem(c.Full, errors.New("something in it changed while it was read, or could not be: it is stored again by the next run"))
	}
}

// failed notes that a candidate could not be dealt with, and ends the run when the vault is out of reach.
func (r *run) failed(ctx context.Context, c Candidate, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if kind := failure.KindOf(err); kind == failure.NoKey || kind == failure.Locked || kind == failure.Interrupted {
		return err
	}
	r.problem(c.Full, err)
	if errors.Is(err, itemstore.ErrSource) || errors.Is(err, itemstore.ErrChanged) || errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.bad++; r.bad >= maxFailures {
		return fmt.Errorf("%w: %w", ErrTooMany, err)
	}
	return nil
}

type silent struct{}

func (silent) Looking(string)              {}
func (silent) Read(int64)                  {}
func (silent) Stored(catalog.Item, string) {}
func (silent) Deleted(catalog.Item)        {}
func (silent) Problem(snapshot.Problem)    {}
func (silent) Notice(snapshot.Problem)     {}
func (silent) Kept(string, string)         {}

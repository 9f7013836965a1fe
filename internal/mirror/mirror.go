// Package mirror is the use case of keeping a directory's files, each as an archive of its own, the same in a vault as they are
// on disk: thousands of large pieces of a disk image, of which a few change. It owns which files are new, changed or gone, and
// when a file may not be believed to be gone. It knows nothing of how an item is stored.
package mirror

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"sync"
	"time"

	"github.com/firn-backup/firn/internal/catalog"
	"github.com/firn-backup/firn/internal/failure"
	"github.com/firn-backup/firn/internal/itemstore"
	"github.com/firn-backup/firn/internal/snapshot"
	"github.com/firn-backup/firn/internal/source"
	"github.com/firn-backup/firn/internal/units"
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
	mounted bool   // of what is gone or hidden: it lay on something that was mounted
	bare    bool   // of what is gone: it was never met, so that what it lay on is not known
	lost    bool   // of what is gone: so is its archive
	hides   bool   // of what is there: another file of that name is stored, which lay on something that is not mounted
	was     string // mounted there
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
	hidden []Change          // by other files of the same names
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

type silent struct{}

func (silent) Looking(int64)            {}
func (silent) Read(int64)               {}
func (silent) Sending(int64)            {}
func (silent) Stored(Change)            {}
func (silent) Deleted(Change)           {}
func (silent) Problem(snapshot.Problem) {}

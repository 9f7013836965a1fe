// Package restore is the use case of getting entries back: it chooses them in
// the catalog, plans which ranges of which archives must be read, asks the
// vault for these, and streams them to disk in the order in which they are
// stored. It owns what is restored, in which order, and what becomes of the
// rest when a part is damaged; streams of a producer it hands, the chain's one after the other, to
// who takes them. How names are put on disk it leaves to package
// extract; which signers a catalog's snapshots have, to those who put them there.
//
// Memory is bounded whatever the number of entries: two bits for each file,
// some hundred bytes for each volume that is read, and what package volume takes for frames.
package restore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"time"

	"github.com/firn-backup/firn/internal/catalog"
	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/internal/cost"
	"github.com/firn-backup/firn/internal/extract"
	"github.com/firn-backup/firn/internal/failure"
	"github.com/firn-backup/firn/internal/retrieval"
	"github.com/firn-backup/firn/internal/transfer"
	"github.com/firn-backup/firn/internal/units"
)

// Options say what to restore, and where to. Catalog, Codecs, Snapshot, To and Now are
// needed, and Store unless DryRun is set.
type Options struct {
	Catalog  *catalog.DB
	Store    coldstore.Retriever
	Traits   coldstore.Traits
	Codecs   retrieval.Codecs
	Snapshot string // id

	// Paths are what to restore: names as they are stored, with or without the
	// leading slash, or glob patterns (*, ?, [a-z], {a,b}, ** for any number of
	// directories). Each stands for what it names and all below that. Empty: everything.
	Paths []string
	To    string // the directory beneath which entries appear under their whole names
	// Strip is left off the beginnings of names: what is restored must lie below it.
	Strip string

	Overwrite    extract.Overwrite
	NumericOwner bool
	DryRun       bool // only plan; Store may be nil

	Tier     coldstore.Tier
	Days     int           // how long retrievals stay readable, where one can choose
	Wait     bool          // wait for retrievals; without it failure.NotReady is returned
	Poll     time.Duration // between looks while waiting, at first; 0: a good choice
	Gap      int64         // ranges of an archive less than so many bytes apart are read as one; 0: 1 MiB
	Transfer transfer.Options
	Approve  func(ctx context.Context, b retrieval.Bill) error // see retrieval.Options
	Pace     cost.Pace                                         // of requests; the zero Pace: none
	Now      func() time.Time

	Observe Observer // may be nil
}

// Observer is told of progress. All methods but Read are called from the
// goroutine that called Run. They must be quick.
type Observer interface {
	// Planned: what is going to be read is known. Before that, Range was called for each range.
	Planned(p Plan)
	Range(archive string, r coldstore.Range)
	// Waiting: so many of all retrievals are ready.
	Waiting(ready, all int)
	// Entry: an entry is in place; size is a file's, in bytes. kept says that it was there already.
	Entry(path string, size int64, kept bool)
	// Read: so many bytes came from the vault.
	Read(bytes int64)
	Problem(p Problem)
	Warning(w extract.Warning)
}

// Plan is what a restore is going to do.
type Plan struct {
	Entries  int64 // selected, directories and links included
	Files    int64 // selected regular files
	Bytes    int64 // their sizes
	Kept     int64 // files that are there already, with the same content
	Taken    int64 // files whose names are taken by something else that is not to be overwritten
	Archives int   // to be read
	Ranges   int
	Read     int64 // bytes of those ranges
}

// ProblemKind says what is the matter with an entry.
type ProblemKind string

const (
	Damaged ProblemKind = "damaged" // not, or not as it should be, in the vault
	Taken   ProblemKind = "exists"  // something else has the name
	Failed  ProblemKind = "failed"  // could not be made or finished
)

// Problem is something that could not be restored as it should have been.
// Damage that affects no entry has an empty Path.
type Problem struct {
	Kind    ProblemKind
	Path    string // as stored
	Archive string // the damaged one
	Reason  string // one line for people
}

// Sample is how many problems a Result lists; an Observer sees all.
const Sample = 100

// Result is what came of it.
type Result struct {
	Snapshot catalog.Snapshot
	Plan     Plan

	Files    int64 // restored now
	Dirs     int64
	Others   int64 // symbolic links, pipes, devices, further hard links
	Bytes    int64 // sizes of the files restored now
	Kept     int64 // files that were there already
	Read     int64 // bytes read from the vault
	Problems int64
	Damaged  int64 // of the problems
	Taken    int64
	Sample   []Problem
	Warnings []extract.Warning
}

// Run restores. The result is good with every error. Errors have kinds:
// failure.NotReady when retrievals are under way (the same call continues later),
// NoKey when the keys at hand open an archive not (nothing is written then), Damaged when something in
// the vault is damaged, Partial when something else could not be restored, NotFound when a path is not in
// the snapshot, Usage. A full or read-only disk ends it at once; the same call goes on where it ended.
func Run(ctx context.Context, o Options) (Result, error) {
	r, err := begin(ctx, o)
	if err != nil {
		return r.result(), err
	}
	defer r.close()
	if err := r.plan(ctx); err != nil {
		return r.result(), err
	}
	if o.DryRun {
		return r.result(), nil
	}
	if err := r.request(ctx); err != nil {
		return r.result(), retrieval.Explain(err)
	}
	if err := r.tryKeys(ctx); err != nil {
		return r.result(), retrieval.Explain(err)
	}
	if err := r.write(ctx); err != nil {
		return r.result(), retrieval.Explain(err)
	}
	return r.result(), r.verdict()
}

// run is one call of Run.
type run struct {
	o     Options
	snap  catalog.Snapshot
	sel   *selection
	chain map[uint64]*link // snapshots of the chain, by number
	desk  *retrieval.Desk
	root  *extract.Root // nil until something is there or made
	res   Result
	read  retrieval.Tally

	states  states
	volumes []volumePlan // in the order of reading
	cached  [2]cachedVolume
	tried   *retrieval.Volume // the first of volumes, still open where a key was tried on it
	bare    int64             // problems of no entry
	lost    []string          // damaged archives, in the order they were met; at most Sample
}

// link is one snapshot of the chain.
type link struct {
	id      string
	opener  retrieval.Opener
	err     error // the codecs are not known
	untried bool  // only reading tells whether the keys at hand open it
}

func begin(ctx context.Context, o Options) (*run, error) {
	if o.Observe == nil {
		o.Observe = silent{}
	}
	if o.Gap <= 0 {
		o.Gap = 1 << 20
	}
	r := &run{o: o, chain: map[uint64]*link{}}
	switch {
	case o.Catalog == nil || o.Now == nil || !o.DryRun && o.Store == nil:
		return r, errors.New("restore: an option is missing")
	case o.To == "":
		return r, failure.Errorf(failure.Usage, "restore: no target directory")
	}
	var err error
	if r.snap, err = o.Catalog.Snapshot(ctx, o.Snapshot); err != nil {
		return r, err
	}
	r.res.Snapshot = r.snap
	if r.snap.State != catalog.Stored {
		return r, failure.Errorf(failure.NotFound, "snapshot %s is not stored yet", o.Snapshot)
	}
	all, err := o.Catalog.Snapshots(ctx, r.snap.SetID)
	if err != nil {
		return r, err
	}
	for _, s := range all {
		if s.Chain == r.snap.Chain && s.N <= r.snap.N && s.State == catalog.Stored {
			l := &link{id: s.ID}
			l.opener, l.err = o.Codecs.Opener(&s.Header)
			r.chain[s.N] = l
		}
	}
	if r.sel, err = selectPaths(o.Paths, o.Strip, r.exists(ctx)); err != nil {
		return r, err
	}
	r.desk = retrieval.New(retrieval.Options{
		Store: o.Store, Traits: o.Traits, Journal: o.Catalog, Vault: r.snap.Vault, Codecs: o.Codecs, Now: o.Now,
		Tier: o.Tier, Days: o.Days, Wait: o.Wait, Poll: o.Poll, Transfer: o.Transfer,
		Approve: o.Approve, Pace: o.Pace,
		Read:    func(n int64) { r.read.Add(n); o.Observe.Read(n) },
		Waiting: o.Observe.Waiting,
		Damaged: r.read.Damage,
	})
	return r, r.openRoot(false)
}

// exists answers whether a snapshot has anything at or below a path.
func (r *run) exists(ctx context.Context) func(path string) (bool, error) {
	return func(path string) (bool, error) {
		e, err := r.first(ctx, path)
		return e != nil, err
	}
}

// openRoot opens the target if it is there, and with create makes it.
func (r *run) openRoot(create bool) error {
	if r.root != nil {
		return nil
	}
	if !create {
		if _, err := os.Stat(r.o.To); errors.Is(err, fs.ErrNotExist) {
			return nil
		}
	}
	root, err := extract.Open(r.o.To, extract.Options{
		Overwrite: r.o.Overwrite, NumericOwner: r.o.NumericOwner, Warn: r.o.Observe.Warning,
	})
	if err != nil {
		return err
	}
	r.root = root
	return nil
}

func (r *run) close() {
	if r.tried != nil {
		r.tried.Close()
	}
	if r.root != nil {
		r.root.Close()
	}
}

func (r *run) result() Result {
	if r.root != nil {
		r.res.Warnings = r.root.Warnings()
	}
	r.res.Read = r.read.Bytes()
	return r.res
}

func (r *run) problem(p Problem) {
	r.res.Problems++
	if p.Path == "" {
		r.bare++
	}
	switch p.Kind {
	case Damaged:
		r.res.Damaged++
		if p.Archive != "" && len(r.lost) < Sample && !slices.Contains(r.lost, p.Archive) {
			r.lost = append(r.lost, p.Archive)
		}
	case Taken:
		r.res.Taken++
	}
	if len(r.res.Sample) < Sample {
		r.res.Sample = append(r.res.Sample, p)
	}
	r.o.Observe.Problem(p)
}

// failed reports what went wrong with the entry at path, or returns err when
// going on makes no sense.
func (r *run) failed(path string, err error) error {
	kind := Failed
	switch {
	case extract.Fatal(err):
		return fmt.Errorf("restore to %s: %w", r.o.To, err)
	case errors.Is(err, extract.ErrExists), errors.Is(err, extract.ErrBlocked):
		kind = Taken
	}
	r.problem(Problem{Kind: kind, Path: path, Reason: err.Error()})
	return nil
}

// verdict is the error that belongs to the problems.
func (r *run) verdict() error {
	switch {
	case r.res.Damaged > 0:
		what := "the catalog does not know all of its archives"
		if len(r.lost) > 0 {
			what = "damaged in the vault: archive " + r.lost[0]
			if n := len(r.lost) - 1; n > 0 {
				what += fmt.Sprintf(" and %d more", n)
			}
		}
		return failure.Errorf(failure.Damaged, "%s: %s could not be restored, all others are", what, units.Count(r.res.Problems-r.bare, "entry"))
	case r.res.Problems > 0:
		return failure.Errorf(failure.Partial, "%s could not be restored as in the snapshot", units.Count(r.res.Problems, "entry"))
	}
	return nil
}

type silent struct{}

func (silent) Planned(Plan)                  {}
func (silent) Range(string, coldstore.Range) {}
func (silent) Waiting(int, int)              {}
func (silent) Entry(string, int64, bool)     {}
func (silent) Read(int64)                    {}
func (silent) Problem(Problem)               {}
func (silent) Warning(extract.Warning)       {}

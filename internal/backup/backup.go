// Package backup is the use case of storing a tree, or a producer's stream: it
// compares a tree with the catalog, streams what is new into volumes, journals
// at their boundaries so that an interrupted run goes on where it was, and makes
// the snapshot exist by storing its manifest. It owns the decision what is stored; how
// files are read, bytes are packed and archives are kept it leaves to the
// contracts it is given.
package backup

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/firn-backup/firn/internal/catalog"
	"github.com/firn-backup/firn/internal/codec"
	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/internal/failure"
	"github.com/firn-backup/firn/internal/snapshot"
	"github.com/firn-backup/firn/internal/source"
	"github.com/firn-backup/firn/internal/transfer"
	"github.com/firn-backup/firn/internal/units"
)

// Options say what to back up, how, and where to. Catalog, Tree, Set, Compress,
// Encrypt, Now and Rand are needed; Store and Signer unless DryRun is set.
type Options struct {
	Catalog *catalog.DB
	Store   coldstore.Uploader
	Tree    source.Tree
	Set     catalog.Set
	Host    string
	Paths   []string // what the set names, for the manifest

	Compress codec.Compressor
	Encrypt  codec.Encryptor
	Signer   ed25519.PrivateKey

	// Params is everything that must be unchanged for an interrupted attempt to
	// go on: paths, excludes, codec, recipients, volume size. It is compared, not understood.
	Params string

	VolumeSize   int64 // raw bytes a volume; 0: volume.DefaultSize
	FrameSize    int   // raw bytes a frame; 0: volume.DefaultFrameSize
	Workers      int   // compressing goroutines; 0: one a processor
	Readers      int   // goroutines that read ahead; 0: 4
	NoVerify     bool  // do not decode and compare frames before they are sent
	Transfer     transfer.Options
	Full         bool // begin a new chain
	Incrementals int  // at most so many after a full, then a new full; 0: no limit
	AllowEmpty   bool // back up a root that is empty now and was not: ErrEmptied otherwise
	Checksum     bool // hash every file, whatever its times say

	Now  func() time.Time // the snapshot's date, identifiers
	Wall func() time.Time // the clock that file systems stamp with; nil: time.Now
	Rand io.Reader

	Observe Observer // may be nil
}

// Action says what a run did, or would do, with an entry.
type Action string

const (
	New       Action = "new"
	Changed   Action = "changed"
	Metadata  Action = "metadata" // content as before
	Deleted   Action = "deleted"
	Unchanged Action = "unchanged"
)

// Observer is told of progress. Its methods are called from several
// goroutines and must be quick.
type Observer interface {
	// Entry: one entry was dealt with; size is its logical size in bytes.
	// Unchanged entries are told in sums, with an empty path.
	Entry(a Action, path string, count, size int64)
	// Read: so many bytes of the stream were produced.
	Read(bytes int64)
	// Sent: so many bytes were acknowledged by the vault.
	Sent(bytes int64)
	// Volume: an archive is stored; n is 0 for the manifest.
	Volume(n int, archive string, size int64)
	Problem(p snapshot.Problem)
	// Resumed: an interrupted attempt goes on after so many volumes.
	Resumed(snap string, volumes int)
}

// Counts of entries by what was done with them.
type Counts struct {
	New, Changed, Metadata, Deleted, Unchanged int64
	Bytes                                      int64 // logical bytes of New and Changed
}

// Result of a run.
type Result struct {
	Snapshot catalog.Snapshot
	Counts   Counts
	Volumes  int      // stored by this run
	Sent     int64    // bytes stored by this run, manifest included
	Resumed  bool     // an interrupted attempt went on, and is the snapshot or, if there is one, the last of Settled
	Settled  []string // snapshots before this one that an earlier run had begun and this one completed
	Orphans  []string // archives of an abandoned attempt that stay behind
	Problems int64
	// Shrunk is set when the tree has less than half the bytes or entries of the
	// snapshot before: backed up all the same, but worth a look.
	Shrunk bool
}

// Run makes one snapshot of the tree. A failure leaves an attempt in the catalog
// that the next Run goes on with. Files that could not be read as they should
// give a result with Problems and a failure of kind Partial; the snapshot is stored then.
//
// An attempt that goes on has what was read before the interruption as it was then. If the tree is
// not that any more, a second, incremental snapshot has it as it is now: the result is that one's.
func Run(ctx context.Context, o Options) (Result, error) {
	res, err := runOnce(ctx, o, true)
	if !res.Resumed || err != nil && failure.KindOf(err) != failure.Partial {
		return res, err
	}
	o.Full, o.Incrementals = false, 0
	if o.Observe != nil {
		o.Observe = changesOnly{o.Observe}
	}
	late, lateErr := runOnce(ctx, o, false)
	if late.Snapshot.ID == "" && lateErr == nil {
		return res, err // nothing has changed
	}
	late.Resumed = true
	late.Settled = append(res.Settled, res.Snapshot.ID)
	late.Orphans = append(res.Orphans, late.Orphans...)
	late.Volumes += res.Volumes
	late.Sent += res.Sent
	late.Shrunk = late.Shrunk || res.Shrunk
	return late, lateErr
}

// runOnce makes one snapshot, or, unless evenSame is set, none when the tree is what the base is; the result is empty then.
func runOnce(ctx context.Context, o Options, evenSame bool) (Result, error) {
	r, err := newRun(ctx, &o)
	if err != nil {
		return Result{}, err
	}
	if err := r.stream(ctx); err != nil {
		return r.res, err
	}
	if c := r.stats.counts; !evenSame && c.New+c.Changed+c.Metadata+c.Deleted == 0 {
		if _, err := o.Catalog.Discard(ctx, r.snap.ID); err != nil {
			return r.res, fmt.Errorf("give up attempt %s, which has nothing to store: %w", r.snap.ID, err)
		}
		return Result{}, nil
	}
	if err := r.storeManifest(ctx); err != nil {
		return r.res, err
	}
	if r.res.Problems > 0 {
		return r.res, failure.Errorf(failure.Partial, "%s: %s; the snapshot is stored and lists what was met",
			o.Set.Name, units.Count(r.res.Problems, "problem"))
	}
	return r.res, nil
}

// changesOnly is an Observer of the second run over a tree: what is unchanged was counted before.
type changesOnly struct{ Observer }

func (o changesOnly) Entry(a Action, path string, count, size int64) {
	if a != Unchanged {
		o.Observer.Entry(a, path, count, size)
	}
}

func (o *Options) check(dry bool) error {
	if o.Tree == nil {
		return errors.New("backup: an option is missing")
	}
	return o.checkAll(dry)
}

// checkAll checks what trees and streams need, and fills in what may be missing.
func (o *Options) checkAll(dry bool) error {
	switch {
	case o.Catalog == nil && !dry, o.Compress == nil, o.Encrypt == nil, o.Now == nil, o.Rand == nil:
		return errors.New("backup: an option is missing")
	case !dry && (o.Store == nil || o.Signer == nil):
		return fmt.Errorf("backup: set %s: no vault or no signing key", o.Set.Name)
	}
	if o.Wall == nil {
		o.Wall = time.Now
	}
	if o.Readers <= 0 {
		o.Readers = 4
	}
	if o.Observe == nil {
		o.Observe = silent{}
	}
	return nil
}

type silent struct{}

func (silent) Entry(Action, string, int64, int64) {}
func (silent) Read(int64)                         {}
func (silent) Sent(int64)                         {}
func (silent) Volume(int, string, int64)          {}
func (silent) Problem(snapshot.Problem)           {}
func (silent) Resumed(string, int)                {}

package reconcile

import (
	"context"
	"errors"
	"time"

	"github.com/firn-backup/firn/internal/catalog"
	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/internal/failure"
	"github.com/firn-backup/firn/internal/foreign"
	"github.com/firn-backup/firn/internal/manifest"
	"github.com/firn-backup/firn/internal/retrieval"
	"github.com/firn-backup/firn/internal/transfer"
	"github.com/firn-backup/firn/internal/units"
)

// Options say what to sync. Catalog, Store, Vault and Now are needed. The caller sees to it that
// one process at a time syncs a vault.
type Options struct {
	Catalog *catalog.DB
	Store   coldstore.Lister
	Vault   string // URL, as in the catalog
	Now     func() time.Time

	Fix    bool          // accept disappearances and differences
	MaxAge time.Duration // how long ago a listing may have been finished to be used again; 0: the store's own rule
	// Asked is when a listing of at most MaxAge was first asked for: one that was finished since then is young enough,
	// however long this run, or the next, takes to come back for it. Zero: now.
	Asked time.Time
	Wait  bool          // wait for the listing, instead of failing with failure.NotReady
	Poll  time.Duration // between looks while waiting, at first; 0: 30 s. It doubles up to 10 min
	// Sleep waits; nil: by the real clock.
	Sleep func(ctx context.Context, d time.Duration) error
	// LockSet takes a set for a moment, so that an upload of its attempt can be settled. Nil: nothing
	// is settled. A set that cannot be had is left alone.
	LockSet func(ctx context.Context, s catalog.Set) (held context.Context, release func(), err error)

	Observe Observer // may be nil
}

// Observer is told what happens, by one goroutine.
type Observer interface {
	Waiting(text string)
	Finding(f Finding)
}

// A JudgeObserver is an Observer that is told of each archive what was known and what follows.
type JudgeObserver interface {
	Observer
	Judged(s catalog.ArchiveState, v Verdict)
}

// Finding is one thing found.
type Finding struct {
	Kind     Kind
	Archive  string
	Size     int64 // bytes
	Snapshot string
	Reason   string
}

// Result of a sync.
type Result struct {
	AsOf     time.Time // of the listing
	Older    bool      // it is older than the last one that was taken in, and was ignored
	Archives int64     // listed
	Bytes    int64
	New      int64 // not known before
	Newer    int64 // uploaded here after the listing was made: kept
	Dropped  int64 // deleted here, and gone from the listing now
	Found    map[Kind]int64
	// Tools are the other programs that stored what is listed, as far as descriptions tell, and how many archives each.
	Tools map[foreign.Tool]int64
}

type run struct {
	o       Options
	view    View
	res     Result
	damage  error // of the listing
	sets    map[string]bool
	pending []pending
	batch   []catalog.ArchiveChange
}

// pending is an upload whose completion was begun and not recorded.
type pending struct {
	catalog.Pending
	set   catalog.Set
	found *coldstore.Archive
}

// batchSize is how many changes are made in one transaction.
const batchSize = 2000

// Sync takes a listing of the vault into the catalog. What is newer than the listing is kept, and what was
// deleted here stays deleted though an older listing has it. What disappeared is reported, and is an error of kind failure.Partial
// unless Fix accepts it. failure.NotReady: the vault is making the listing; sync again later, and it goes on with that.
func Sync(ctx context.Context, o Options) (Result, error) {
	if o.Observe == nil {
		o.Observe = silent{}
	}
	if o.Sleep == nil {
		o.Sleep = transfer.Sleep
	}
	r := &run{o: o, res: Result{Found: map[Kind]int64{}, Tools: map[foreign.Tool]int64{}}}
	if o.Catalog == nil || o.Store == nil || o.Now == nil || o.Vault == "" {
		return r.res, errors.New("sync: an option is missing")
	}
	last, err := o.Catalog.LastListing(ctx, o.Vault)
	if err != nil {
		return r.res, err
	}
	l, asOf, err := r.list(ctx)
	if err != nil {
		return r.res, err
	}
	r.res.AsOf = asOf
	r.res.Archives, r.res.Bytes = l.Totals()
	if asOf.Before(last.AsOf) {
		r.res.Older = true
		return r.res, nil
	}
	if err := r.expect(ctx); err != nil {
		return r.res, err
	}
	r.view = View{Vault: o.Vault, AsOf: asOf, Taken: o.Now(), Margin: margin(o.Store.Traits()), Terse: o.Store.Traits().Terse, Fix: o.Fix}
	err = l.Compare(ctx, func(s catalog.ArchiveState) error {
		if err := r.one(ctx, s); err != nil {
			return err
		}
		if len(r.batch) < batchSize {
			return nil
		}
		return r.flush(ctx, l)
	})
	if err == nil {
		err = r.flush(ctx, l)
	}
	if err == nil && r.damage == nil {
		err = l.End(ctx, o.Now())
	}
	if err == nil {
		err = r.settle(ctx)
	}
	if err != nil {
		return r.res, err
	}
	return r.res, r.verdict()
}

func (r *run) verdict() error {
	if r.damage != nil {
		return failure.Wrap(failure.Damaged, r.damage)
	}
	gone, different := r.res.Found[Gone], r.res.Found[Different]
	if r.o.Fix || gone+different == 0 {
		return nil
	}
	return failure.Errorf(failure.Partial, "disappeared from the vault: %s; different there: %d; the catalog still has them as they were", units.Count(gone, "archive"), different)
}

// list stages the listing, waiting for it where that is wanted.
func (r *run) list(ctx context.Context) (*catalog.Listing, time.Time, error) {
	pause := r.o.Poll
	if pause <= 0 {
		pause = firstPoll
	}
	if r.o.Asked.IsZero() {
		r.o.Asked = r.o.Now()
	}
	for try := 0; ; {
		l, err := r.o.Catalog.NewListing(ctx, r.o.Vault)
		if err != nil {
			return nil, time.Time{}, err
		}
		asOf, err := r.listOnce(ctx, l)
		switch {
		case err == nil, errors.Is(err, coldstore.ErrIntegrity) && !asOf.IsZero():
			r.damage = err
			return l, asOf, l.Added(ctx, asOf)
		case errors.Is(err, coldstore.ErrNotReady) && !r.o.Wait:
			return nil, time.Time{}, failure.Wrap(failure.NotReady, err)
		case errors.Is(err, coldstore.ErrNotReady):
			r.o.Observe.Waiting(err.Error())
			if err := r.o.Sleep(ctx, pause); err != nil {
				return nil, time.Time{}, err
			}
			pause = min(2*pause, maxPoll)
		case transfer.Transient(err) && try < maxTries:
			if serr := r.o.Sleep(ctx, time.Second<<try); serr != nil {
				return nil, time.Time{}, errors.Join(serr, err)
			}
			try++
		default:
			return nil, time.Time{}, err // it names the vault
		}
	}
}

func (r *run) listOnce(ctx context.Context, l *catalog.Listing) (time.Time, error) {
	add := func(a coldstore.Archive) error { return l.Add(ctx, a) }
	if s, ok := r.o.Store.(coldstore.LaggingLister); ok {
		age := r.o.MaxAge
		if age > 0 {
			age = max(age, r.o.Now().Sub(r.o.Asked))
		}
		return s.ListWithin(ctx, age, add)
	}
	return r.o.Store.List(ctx, add)
}

const (
	firstPoll = 30 * time.Second
	maxPoll   = 10 * time.Minute
	maxTries  = 5
)

// expect gathers the sets of the catalog and the uploads in doubt. It comes before the archives that snapshots need are
// read: what is not in doubt any more then is among those.
func (r *run) expect(ctx context.Context) error {
	sets, err := r.o.Catalog.Sets(ctx)
	if err != nil {
		return err
	}
	r.sets = map[string]bool{}
	for _, s := range sets {
		r.sets[s.ID] = true
		snaps, err := r.o.Catalog.Snapshots(ctx, s.ID)
		if err != nil {
			return err
		}
		for _, snap := range snaps {
			if snap.State == catalog.Stored || snap.Vault != r.o.Vault {
				continue
			}
			list, err := r.o.Catalog.PendingOf(ctx, snap.ID)
			if err != nil {
				return err
			}
			for _, p := range list {
				r.pending = append(r.pending, pending{Pending: p, set: s})
			}
		}
	}
	return nil
}

func (r *run) one(ctx context.Context, s catalog.ArchiveState) error {
	v := Judge(s, r.view)
	if s.Listed == nil && s.Record != nil && v.Finding == Gone {
		if v = r.look(ctx, s, v); v.Finding == "" {
			return nil
		}
	}
	if j, ok := r.o.Observe.(JudgeObserver); ok {
		j.Judged(s, v)
	}
	if v.New {
		r.res.New++
	}
	if v.Newer {
		r.res.Newer++
	}
	if v.Change != nil {
		if v.Change.Drop && v.Finding == "" {
			r.res.Dropped++
		}
		r.batch = append(r.batch, *v.Change)
	}
	if v.Finding != "" {
		f := Finding{Kind: v.Finding, Archive: s.ID, Snapshot: s.Snapshot, Reason: v.Reason}
		if s.Record != nil {
			f.Size = s.Record.Size
		}
		r.found(f)
	}
	if s.Listed != nil {
		if f, ok := foreign.Decode(s.Listed.Description); ok && f.Tool != foreign.Firn {
			r.res.Tools[f.Tool]++
		}
	}
	if s.Listed != nil && s.Snapshot == "" && (s.Record == nil || s.Record.DeletedAt.IsZero()) {
		r.stray(s.Listed)
	}
	return nil
}

// look asks about an archive that disappeared, where the vault can tell of one.
func (r *run) look(ctx context.Context, s catalog.ArchiveState, v Verdict) Verdict {
	st, ok := r.o.Store.(coldstore.Stater)
	if !ok {
		return v
	}
	switch _, err := st.Stat(ctx, s.ID); {
	case err == nil: // it came while the vault was listed
		return Verdict{}
	case errors.Is(err, coldstore.ErrIntegrity):
		return Verdict{Finding: Damaged, Reason: retrieval.Reason(err)}
	case !errors.Is(err, coldstore.ErrNotFound):
		return Verdict{Finding: Damaged, Reason: "it is not in the listing, and the vault cannot tell of it: " + err.Error()}
	}
	return v
}

// stray looks at a listed archive that no snapshot needs.
func (r *run) stray(a *coldstore.Archive) {
	for i := range r.pending {
		p := &r.pending[i]
		named := r.o.Store.Traits().NamesKept && p.Name == a.ID
		if p.found == nil && (named || p.Volume.Size == a.Size && p.Volume.TreeHash == a.TreeHash) {
			p.found = a
			return
		}
	}
	d, ok := manifest.ParseDescription(a.Description)
	if !ok {
		d, ok = manifest.ParseName(a.ID)
	}
	if ok && d.What != manifest.WhatKey && r.sets[d.SetID] {
		r.found(Finding{Kind: Orphan, Archive: a.ID, Size: a.Size, Snapshot: d.Snap, Reason: "no snapshot of the catalog needs it"})
	}
}

func (r *run) found(f Finding) {
	r.res.Found[f.Kind]++
	r.o.Observe.Finding(f)
}

func (r *run) flush(ctx context.Context, l *catalog.Listing) error {
	if len(r.batch) == 0 {
		return nil
	}
	err := l.Apply(ctx, r.batch)
	r.batch = r.batch[:0]
	return err
}

// settle records uploads whose completion was in doubt and that the listing has.
func (r *run) settle(ctx context.Context) error {
	if r.o.LockSet == nil {
		return nil
	}
	for i := range r.pending {
		p := &r.pending[i]
		// A manifest says that all its volumes are stored: the set's next backup settles it after them.
		if p.found == nil || p.Volume.N == 0 {
			continue
		}
		if p.found.Size != p.Volume.Size || !p.found.TreeHash.IsZero() && p.found.TreeHash != p.Volume.TreeHash {
			continue // a file of that name with another content: the next backup will say so
		}
		held, release, err := r.o.LockSet(ctx, p.set)
		if failure.KindOf(err) == failure.Locked {
			continue // the run that holds it settles it
		}
		if err != nil {
			return err
		}
		err = r.settleOne(held, p)
		release()
		if err != nil {
			return err
		}
	}
	return nil
}

func (r *run) settleOne(ctx context.Context, p *pending) error {
	list, err := r.o.Catalog.PendingOf(ctx, p.Snap)
	if err != nil {
		return err
	}
	for _, now := range list { // as it was when it was found
		if now.Volume.N == p.Volume.N && now.UploadID == p.UploadID {
			if err := r.o.Catalog.VolumeStored(ctx, p.Snap, p.Volume.N, p.found.ID); err != nil {
				return err
			}
			r.found(Finding{Kind: Settled, Archive: p.found.ID, Size: p.found.Size, Snapshot: p.Snap, Reason: "its upload had been completed"})
		}
	}
	return nil
}

type silent struct{}

func (silent) Waiting(string)  {}
func (silent) Finding(Finding) {}

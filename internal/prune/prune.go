// Package prune is the use case of deleting what has expired: whole chains of a set, and
// what abandoned attempts left in its vaults. What expires package plan decides; this
// package sees to it that nothing is lost whenever it is interrupted, and that nothing is deleted before its minimum
// storage duration is over unless that is wanted.
package prune

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/firn-backup/firn/internal/adopted"
	"github.com/firn-backup/firn/internal/catalog"
	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/internal/failure"
	"github.com/firn-backup/firn/internal/plan"
	"github.com/firn-backup/firn/internal/transfer"
)

// Store is what is needed of a vault.
type Store interface {
	coldstore.Lister
	coldstore.Deleter
}

// Options say of which set, by which rules. Catalog, Open, Set and Now are needed. The set must be locked.
type Options struct {
	Catalog *catalog.DB
	Open    func(ctx context.Context, vault string) (Store, error) // by URL, as in the catalog
	Set     catalog.Set
	Policy  plan.Policy
	Rules   plan.Rules
	Now     func() time.Time

	DryRun     bool // only say what would be done
	Tidy       bool // look for orphans also when nothing expires, which takes a listing of each vault
	AllowEarly bool // also before minimum storage durations are over, which costs a fee
	// Approve is asked before anything is deleted early; an error ends the run. Nil: nobody is asked.
	Approve func(early []plan.Expiry) error

	Transfer transfer.Options // for its retries
	Parallel int              // deletions of volumes at a time; 0: 8
	Observe  Observer         // may be nil
}

// Observer is told of progress, by one goroutine at a time.
type Observer interface {
	// Forgot: a chain is no more in the catalog; its archives are about to be deleted.
	Forgot(e plan.Expiry)
	// Deleted: the vault has acknowledged a deletion.
	Deleted(x catalog.Doomed)
	// Orphan: an archive that nothing names was found, and is deleted too.
	Orphan(x catalog.Doomed)
}

// Result is what one run did, or, of a dry run, would do.
type Result struct {
	Decision  plan.Decision // as of the begin of the run
	Chains    []plan.Expiry // forgotten by this run
	Early     []plan.Expiry // those of them that cost a fee
	Waiting   []plan.Expiry // expired, but their minimum storage durations are not over, or they are locked
	AfterNew  []plan.Expiry // that expire once the snapshot that is due is stored
	Snapshots int           // of Chains
	Orphans   int           // archives found that nothing names
	Archives  int64         // deleted; of a dry run, those that are on the list already
	Bytes     int64         // of those
	Left      int64         // archives still to be deleted because of their minimum storage durations or locks
	LeftUntil time.Time     // when the last of those may go
	Unlisted  []string      // vaults whose archives could not be looked at, because their listings lag
}

const defaultParallel = 8

// Run prunes a set. It may be stopped at any point, and goes on where it was when it is run again.
//
// failure.Damaged: the newest complete chain is not in the vault as it should be; nothing has expired then.
func Run(ctx context.Context, o Options) (Result, error) {
	r := &run{o: o, listings: map[string]*listing{}, stores: map[string]Store{}}
	if o.Catalog == nil || o.Open == nil || o.Now == nil || o.Set.ID == "" {
		return r.res, errors.New("prune: an option is missing")
	}
	if r.o.Observe == nil {
		r.o.Observe = silent{}
	}
	if r.o.Parallel <= 0 {
		r.o.Parallel = defaultParallel
	}
	if err := r.run(ctx); err != nil {
		return r.res, fmt.Errorf("prune set %s: %w", o.Set.Name, err)
	}
	return r.res, nil
}

type run struct {
	o        Options
	snaps    []catalog.Snapshot
	stores   map[string]Store
	listings map[string]*listing // by vault, of those that list exactly
	res      Result
	mu       sync.Mutex // of res.Left and res.LeftUntil while archives are deleted
}

func (r *run) run(ctx context.Context) error {
	// What an earlier run began comes first: it may be why there is no room, or no money.
	if err := r.deleteDoomed(ctx); err != nil {
		return err
	}
	var err error
	if r.snaps, err = r.o.Catalog.Snapshots(ctx, r.o.Set.ID); err != nil {
		return err
	}
	h, err := History(ctx, r.snaps, r.o.Policy.Zone, r.keeps)
	if err != nil {
		return err
	}
	now := r.o.Now()
	r.res.Decision = plan.Decide(now, r.o.Policy, h, r.o.Rules)
	if b := r.res.Decision.Blocked; b != "" {
		return failure.Errorf(failure.Damaged, "nothing expires: %s", b)
	}
	var going []plan.Expiry
	for _, e := range r.res.Decision.Expire {
		switch {
		case e.AfterNew:
			r.res.AfterNew = append(r.res.AfterNew, e)
		case e.Locked(now), e.Early(now) && !r.o.AllowEarly:
			r.res.Waiting = append(r.res.Waiting, e)
		default:
			going = append(going, e)
			if e.Early(now) {
				r.res.Early = append(r.res.Early, e)
			}
		}
	}
	if len(going) > 0 {
		if err := r.newestThere(ctx); err != nil {
			return err
		}
	}
	if len(r.res.Early) > 0 && r.o.Approve != nil && !r.o.DryRun {
		if err := r.o.Approve(r.res.Early); err != nil {
			return err
		}
	}
	if len(going) > 0 || r.o.Tidy {
		if err := r.orphans(ctx, going); err != nil {
			return err
		}
	}
	for _, e := range going {
		if !r.o.DryRun {
			if err := r.o.Catalog.ForgetChain(ctx, e.IDs); err != nil {
				return err
			}
			r.o.Observe.Forgot(e)
		}
		r.res.Chains = append(r.res.Chains, e)
		r.res.Snapshots += len(e.IDs)
	}
	if len(going) == 0 && r.res.Orphans == 0 {
		return nil
	}
	r.res.Left, r.res.LeftUntil = 0, time.Time{}
	return r.deleteDoomed(ctx)
}

// store opens a vault, once.
func (r *run) store(ctx context.Context, vault string) (Store, error) {
	if s := r.stores[vault]; s != nil {
		return s, nil
	}
	s, err := r.o.Open(ctx, vault)
	if err != nil {
		return nil, fmt.Errorf("open vault %s: %w", vault, err)
	}
	r.stores[vault] = s
	return s, nil
}

func (r *run) keeps(ctx context.Context, vault string) (Keeps, error) {
	s, err := r.store(ctx, vault)
	if err != nil {
		return Keeps{}, err
	}
	return Keeps{MinDays: s.Traits().MinDays, LockDays: s.Traits().LockDays}, nil
}

// Keeps is for how many days from their upload on a vault keeps archives: as coldstore.Traits has it.
type Keeps struct{ MinDays, LockDays int }

// History is what the plan must know of a set's snapshots and attempts. keeps tells how a vault keeps what
// the set stores; nil: it may go at any time. Snapshots of another program are of a date, which begins in zone (nil: UTC), and come
// before all of Firn's own.
func History(ctx context.Context, snaps []catalog.Snapshot, zone *time.Location, keeps func(ctx context.Context, vault string) (Keeps, error)) ([]plan.Snapshot, error) {
	days := map[string]Keeps{}
	var h []plan.Snapshot
	before := uint64(0) // of another program
	for i := range snaps {
		if snaps[i].Adopted != "" {
			before++
		}
	}
	for i := range snaps {
		s := &snaps[i]
		if _, ok := days[s.Vault]; !ok && keeps != nil {
			n, err := keeps(ctx, s.Vault)
			if err != nil {
				return nil, err
			}
			days[s.Vault] = n
		}
		x := plan.Snapshot{
			ID: s.ID, N: before + s.N, At: s.At, Kind: s.Kind, Base: s.Base, Complete: s.State == catalog.Stored,
			Vault: s.Vault, MinDays: days[s.Vault].MinDays, LockDays: days[s.Vault].LockDays, Size: s.Totals.Stored, Stored: s.ManifestPart.Stored,
		}
		if s.Adopted != "" {
			x.N = uint64(i + 1) // they are the first of the list
			if at := adopted.Midnight(s.Header.Point, cmp.Or(zone, time.UTC)); !at.IsZero() {
				x.At = at
			}
		}
		if x.Stored.IsZero() {
			x.Stored = s.Made // begun then, by a version that did not write down more
		}
		h = append(h, x)
	}
	return h, nil
}

type silent struct{}

func (silent) Forgot(plan.Expiry)     {}
func (silent) Deleted(catalog.Doomed) {}
func (silent) Orphan(catalog.Doomed)  {}

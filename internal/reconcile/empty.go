package reconcile

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/firn-backup/firn/internal/catalog"
	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/internal/failure"
	"github.com/firn-backup/firn/internal/transfer"
	"github.com/firn-backup/firn/internal/units"
)

// EmptyOptions say how to empty a vault. Those of Sync are needed, and Deleter.
type EmptyOptions struct {
	Options
	Deleter coldstore.Deleter

	// MinAge is how old an archive must be to be deleted; 0: any age. See coldstore.Traits.MinDays.
	MinAge time.Duration
	// Lock is how old it must be in any case; 0: any age. See coldstore.Traits.LockDays.
	Lock time.Duration
	// Early is told, before anything is deleted, of each archive that is to be although it is younger than FreeAge, of when it
	// was stored, and then, if there was one, Approve is asked, whose error ends the run. FreeAge 0: nobody is.
	FreeAge time.Duration
	Early   func(a coldstore.Archive, stored time.Time)
	Approve func() error
	// Force also deletes what snapshots of the catalog need, and has the catalog forget those snapshots first:
	// nothing may be based on them any more.
	Force bool
	// DeleteVault deletes the vault itself once it is empty; Deleter must be a coldstore.VaultDeleter.
	DeleteVault bool
	Parallel    int // deletions at a time; 0: 8
	// ListingAge is how long ago a listing of a vault that lags may have been taken in so that
	// no other is made first; 0: a day.
	ListingAge time.Duration

	Deleted func(a coldstore.Archive) // told of each; may be nil; by one goroutine at a time
}

// EmptyResult is what one run of Empty did and what is left.
type EmptyResult struct {
	Sync    *Result // nil: the last listing was young enough
	Deleted int64
	Bytes   int64
	Young   int64     // too young to be deleted
	Locked  int64     // locked; not counted as too young
	NextAt  time.Time // when the last of those is old enough
	Dropped int       // snapshots that the catalog has forgotten
	Vault   bool      // the vault is deleted
}

const (
	defaultParallel   = 8
	defaultListingAge = 24 * time.Hour
	journalSize       = 64
)

// Empty deletes the archives of a vault: all that a listing of the vault has and all that was uploaded here. It
// may be stopped at any point, and goes on where it was when it is run again. Each
// deletion is written down after the vault has acknowledged it; one that was not is repeated, which
// does no harm.
//
// failure.NotReady: run it again later, because the listing is being made, because archives are too young, or because the
// vault does not know yet that it is empty. failure.Usage: snapshots need archives, and Force is not set.
func Empty(ctx context.Context, o EmptyOptions) (EmptyResult, error) {
	if o.Deleter == nil {
		return EmptyResult{}, errors.New("empty vault: an option is missing")
	}
	if o.Observe == nil {
		o.Observe = silent{}
	}
	if o.Sleep == nil {
		o.Sleep = transfer.Sleep
	}
	e := &emptying{o: o}
	err := e.run(ctx)
	return e.res, err
}

type emptying struct {
	o   EmptyOptions
	res EmptyResult
	mu  sync.Mutex // of what stays in res, while archives are deleted
}

func (e *emptying) run(ctx context.Context) error {
	if err := e.sync(ctx, false); err != nil {
		return err
	}
	if err := e.protect(ctx); err != nil {
		return err
	}
	if err := e.approve(ctx); err != nil {
		return err
	}
	if err := e.deleteAll(ctx); err != nil {
		return err
	}
	if e.res.Locked > 0 {
		return failure.Errorf(failure.NotReady, "%s locked; the last may be deleted at %s", units.Count(e.res.Locked, "archive"), stamp(e.res.NextAt))
	}
	if e.res.Young > 0 {
		return failure.Errorf(failure.NotReady, "%s younger than the vault's minimum duration of %d days, whose rest deleting would cost; the last is old enough at %s",
			units.Count(e.res.Young, "archive"), int(e.o.MinAge/(24*time.Hour)), stamp(e.res.NextAt))
	}
	if !e.o.DeleteVault {
		return nil
	}
	return e.deleteVault(ctx)
}

// sync makes sure that all archives are known: those of other machines and programs too.
func (e *emptying) sync(ctx context.Context, always bool) error {
	o := e.o.Options
	if o.Store == nil || o.Catalog == nil || o.Now == nil {
		return errors.New("empty vault: an option is missing")
	}
	if o.Store.Traits().ListLag > 0 && !always {
		last, err := o.Catalog.LastListing(ctx, o.Vault)
		if err != nil {
			return err
		}
		live := false
		errLive := errors.New("live")
		err = o.Catalog.FindArchives(ctx, o.Vault, alive, func(catalog.ArchiveRecord) error { live = true; return errLive })
		if err != nil && !errors.Is(err, errLive) {
			return err
		}
		age := e.o.ListingAge
		if age <= 0 {
			age = defaultListingAge
		}
		// When nothing is left that is known, the vault's own word decides, in deleteVault.
		if !last.AsOf.IsZero() && (o.Now().Sub(last.Taken) <= age || !live) {
			return nil
		}
	}
	o.Fix = true // what is not there any more need not be deleted
	res, err := Sync(ctx, o)
	e.res.Sync = &res
	if failure.KindOf(err) == failure.Damaged {
		err = nil // damaged archives are to go too
	}
	return err
}

func alive(r catalog.ArchiveRecord) bool { return r.DeletedAt.IsZero() }

// protect refuses what snapshots need, or forgets the snapshots.
func (e *emptying) protect(ctx context.Context) error {
	sets, err := e.o.Catalog.Sets(ctx)
	if err != nil {
		return err
	}
	for _, s := range sets {
		if err := e.protectItems(ctx, s); err != nil {
			return err
		}
		snaps, err := e.o.Catalog.Snapshots(ctx, s.ID)
		if err != nil {
			return err
		}
		n := 0
		for _, snap := range snaps {
			if snap.Vault == e.o.Vault {
				n++
			}
		}
		if n == 0 {
			continue
		}
		if !e.o.Force {
			return failure.Errorf(failure.Usage, "%s of set %s in this vault would be lost", units.Count(n, "snapshot"), s.Name)
		}
		if err := e.forget(ctx, s); err != nil {
			return err
		}
	}
	return nil
}

// protectItems is protect for single archives of a set.
func (e *emptying) protectItems(ctx context.Context, s catalog.Set) error {
	n := 0
	err := e.o.Catalog.Items(ctx, s.ID, catalog.ItemQuery{}, func(i catalog.Item) error {
		if i.Vault == e.o.Vault && i.Snapshot == "" {
			n++
		}
		return nil
	})
	if err != nil || n == 0 {
		return err
	}
	if !e.o.Force {
		return failure.Errorf(failure.Usage, "%s of set %s in this vault would be lost", units.Count(n, "item"), s.Name)
	}
	if e.o.LockSet != nil {
		held, release, err := e.o.LockSet(ctx, s)
		if err != nil {
			return err
		}
		defer release()
		ctx = held
	}
	return e.o.Catalog.ForgetItems(ctx, s.ID, e.o.Vault)
}

// forget drops a set's snapshots in the vault from the catalog, the newest of each chain first.
func (e *emptying) forget(ctx context.Context, s catalog.Set) error {
	release := func() {}
	if e.o.LockSet != nil {
		var err error
		if ctx, release, err = e.o.LockSet(ctx, s); err != nil {
			return err
		}
	}
	defer release()
	snaps, err := e.o.Catalog.Snapshots(ctx, s.ID)
	if err != nil {
		return err
	}
	for i := len(snaps) - 1; i >= 0; i-- {
		snap := &snaps[i]
		if snap.Vault != e.o.Vault {
			continue
		}
		archives, err := e.archivesOf(ctx, snap)
		if err != nil {
			return err
		}
		// Known as archives before they are forgotten as a snapshot's: a listing may not have them yet.
		for _, a := range archives {
			if err := e.remember(ctx, snap, a); err != nil {
				return err
			}
		}
		if snap.State == catalog.Running {
			_, err = e.o.Catalog.Discard(ctx, snap.ID)
		} else {
			err = e.o.Catalog.DropSnapshot(ctx, snap.ID)
		}
		if err != nil {
			return err
		}
		e.res.Dropped++
	}
	return nil
}

func (e *emptying) archivesOf(ctx context.Context, snap *catalog.Snapshot) ([]coldstore.Archive, error) {
	vols, err := e.o.Catalog.Volumes(ctx, snap.ID)
	if err != nil {
		return nil, err
	}
	var list []coldstore.Archive
	for i := range vols {
		list = append(list, coldstore.Archive{ID: vols[i].Archive, Size: vols[i].Size, TreeHash: vols[i].TreeHash})
	}
	if snap.State == catalog.Stored && snap.Adopted == "" {
		list = append(list, coldstore.Archive{ID: snap.ManifestPart.Archive, Size: snap.ManifestPart.Size, TreeHash: snap.ManifestPart.TreeHash})
	}
	return list, nil
}

func (e *emptying) remember(ctx context.Context, snap *catalog.Snapshot, a coldstore.Archive) error {
	_, err := e.o.Catalog.ArchiveByID(ctx, e.o.Vault, a.ID)
	if failure.KindOf(err) != failure.NotFound {
		return err
	}
	a.Created = snap.Made
	return e.o.Catalog.PutArchive(ctx, catalog.ArchiveRecord{Vault: e.o.Vault, Archive: a, UploadedAt: snap.Made})
}

// approve tells of what deleting will be charged for.
func (e *emptying) approve(ctx context.Context) error {
	if e.o.FreeAge <= e.o.MinAge || e.o.Early == nil {
		return nil
	}
	n := 0
	err := e.o.Catalog.FindArchives(ctx, e.o.Vault, alive, func(r catalog.ArchiveRecord) error {
		if at := since(r); e.o.Now().Before(at.Add(e.o.FreeAge)) && !e.o.Now().Before(at.Add(e.o.wait())) {
			n++
			e.o.Early(r.Archive, at)
		}
		return nil
	})
	if err != nil || n == 0 || e.o.Approve == nil {
		return err
	}
	return e.o.Approve()
}

// wait is how old an archive must be.
func (o *EmptyOptions) wait() time.Duration { return max(o.MinAge, o.Lock) }

// stays counts an archive that cannot be deleted before a time.
func (e *emptying) stays(count *int64, until time.Time) {
	e.mu.Lock()
	defer e.mu.Unlock()
	*count++
	if until.After(e.res.NextAt) {
		e.res.NextAt = until
	}
}

// deleteAll deletes what is old enough. Several deletions are under way at a time, and one
// goroutine writes down what was acknowledged, as much as there is in one transaction.
func (e *emptying) deleteAll(ctx context.Context) error {
	parallel := e.o.Parallel
	if parallel <= 0 {
		parallel = defaultParallel
	}
	// The records are read to the end of a page before any of it is deleted; what is written
	// down meanwhile may be met later, and is passed over.
	work, done := make(chan coldstore.Archive), make(chan coldstore.Archive, journalSize)
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		defer close(work)
		return e.o.Catalog.FindArchives(gctx, e.o.Vault, alive, func(r catalog.ArchiveRecord) error {
			if ok := since(r).Add(e.o.wait()); e.o.wait() > 0 && e.o.Now().Before(ok) {
				if e.o.Lock > 0 && e.o.Now().Before(since(r).Add(e.o.Lock)) {
					e.stays(&e.res.Locked, ok)
				} else {
					e.stays(&e.res.Young, ok)
				}
				return nil
			}
			select {
			case work <- r.Archive:
				return nil
			case <-gctx.Done():
				return gctx.Err()
			}
		})
	})
	var workers sync.WaitGroup
	for range parallel {
		workers.Add(1)
		g.Go(func() error {
			defer workers.Done()
			for a := range work {
				err := e.deleteOne(gctx, a.ID)
				if locked := (*coldstore.LockedError)(nil); errors.As(err, &locked) {
					e.stays(&e.res.Locked, locked.Until)
					continue
				}
				if err != nil {
					return err
				}
				done <- a // the journal reads until all workers have ended
			}
			return nil
		})
	}
	go func() { workers.Wait(); close(done) }()
	err := e.journal(ctx, done)
	return errors.Join(g.Wait(), err)
}

// journal writes down deletions as they are acknowledged. It reads done to its end, so that nobody waits for it for ever.
func (e *emptying) journal(ctx context.Context, done <-chan coldstore.Archive) error {
	ctx = context.WithoutCancel(ctx) // what was deleted is written down also when the run is stopped
	return transfer.InBatches(done, journalSize, func(batch []coldstore.Archive) error {
		ids := make([]string, len(batch))
		for i, b := range batch {
			ids[i] = b.ID
		}
		if err := e.o.Catalog.ArchivesDeleted(ctx, e.o.Vault, ids, e.o.Now()); err != nil {
			return err
		}
		for _, b := range batch {
			e.res.Deleted++
			e.res.Bytes += b.Size
			if e.o.Deleted != nil {
				e.o.Deleted(b)
			}
		}
		return nil
	})
}

func (e *emptying) deleteOne(ctx context.Context, id string) error {
	return e.retry(ctx, func() error {
		err := e.o.Deleter.Delete(ctx, id)
		if errors.Is(err, coldstore.ErrNotFound) {
			return nil
		}
		return err
	})
}

// deleteTries are so many attempts after the first: throttling may last most of a minute.
const deleteTries = 7

func (e *emptying) retry(ctx context.Context, f func() error) error {
	return transfer.Retry(ctx, transfer.Options{Retries: deleteTries, Sleep: e.o.Sleep}, f)
}

// deleteVault deletes the vault, if the vault itself knows that it is empty.
func (e *emptying) deleteVault(ctx context.Context) error {
	d, ok := e.o.Deleter.(coldstore.VaultDeleter)
	if !ok {
		return failure.Wrap(failure.Usage, fmt.Errorf("delete the vault: %w", coldstore.ErrUnsupported))
	}
	if v, ok := e.o.Deleter.(coldstore.VaultDescriber); ok && e.o.Store.Traits().ListLag > 0 {
		var now coldstore.Vault
		err := e.retry(ctx, func() (err error) { now, err = v.DescribeVault(ctx); return err })
		switch {
		case errors.Is(err, coldstore.ErrNotFound): // deleted by a run that was not told
		case err != nil:
			return err
		default:
			if err := e.emptyYet(ctx, now); err != nil {
				return err
			}
		}
	}
	err := e.retry(ctx, func() error { return d.DeleteVault(ctx) })
	if errors.Is(err, coldstore.ErrInvalid) {
		if e.o.Store.Traits().ListLag > 0 {
			return failure.Errorf(failure.NotReady, "the vault was written to since its last inventory, and cannot be deleted before the next: %w", err)
		}
		return err
	}
	if err != nil {
		return err
	}
	e.res.Vault = true
	return e.o.Catalog.ForgetVault(ctx, e.o.Vault)
}

// emptyYet looks whether the vault's last inventory shows it empty.
func (e *emptying) emptyYet(ctx context.Context, now coldstore.Vault) error {
	if now.Archives == 0 {
		return nil
	}
	last, err := e.o.Catalog.LastDeletion(ctx, e.o.Vault)
	if err != nil {
		return err
	}
	if !now.Inventory.After(last.Add(margin(e.o.Store.Traits()))) {
		return failure.Errorf(failure.NotReady, "all archives are deleted; the vault can be deleted once its inventory, made about once a day, shows it empty (the last is of %s)", stamp(now.Inventory))
	}
	// Somebody has stored something since.
	if err := e.sync(ctx, true); err != nil {
		return err
	}
	return failure.Errorf(failure.NotReady, "the vault's inventory of %s shows %s more than were known: run it again to delete all", stamp(now.Inventory), units.Count(now.Archives, "archive"))
}

package prune

import (
	"context"
	"errors"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/firn-backup/firn/internal/catalog"
	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/internal/failure"
	"github.com/firn-backup/firn/internal/transfer"
)

// journalSize is how many deletions are written down at a time.
const journalSize = 64

// deleteDoomed deletes what is on the set's list and old enough: manifests one after the other, and when all of them
// are gone volumes, several at a time.
func (r *run) deleteDoomed(ctx context.Context) error {
	work := make(chan catalog.Doomed)
	done := make(chan catalog.Doomed, journalSize)
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		defer close(work)
		manifests := int64(0) // that must wait
		return r.o.Catalog.Doomed(gctx, r.o.Set.ID, func(x catalog.Doomed) error {
			ok, err := r.mayGo(gctx, &x, manifests > 0)
			switch {
			case err != nil:
				return err
			case !ok && x.Manifest:
				manifests++
				return nil
			case !ok:
				return nil
			case r.o.DryRun:
				r.res.Archives++
				r.res.Bytes += x.Size
				return nil
			case x.Manifest:
				gone, err := r.deleteOne(gctx, &x)
				if err != nil {
					return err
				}
				if !gone {
					manifests++
					return nil
				}
				return r.note(gctx, []catalog.Doomed{x})
			}
			select {
			case work <- x:
				return nil
			case <-gctx.Done():
				return gctx.Err()
			}
		})
	})
	var workers sync.WaitGroup
	for range r.o.Parallel {
		workers.Add(1)
		g.Go(func() error {
			defer workers.Done()
			for x := range work {
				gone, err := r.deleteOne(gctx, &x)
				if err != nil {
					return err
				}
				if !gone {
					continue
				}
				done <- x // the journal reads until all workers have ended
			}
			return nil
		})
	}
	go func() { workers.Wait(); close(done) }()
	err := r.journal(ctx, done)
	return errors.Join(g.Wait(), err)
}

// mayGo says whether an archive may be deleted now, and counts those that may not. Its vault is open then.
func (r *run) mayGo(ctx context.Context, x *catalog.Doomed, manifestsWait bool) (bool, error) {
	s, err := r.store(ctx, x.Vault)
	if err != nil {
		return false, err
	}
	days := s.Traits().KeptDays(r.o.AllowEarly)
	until := x.Stored.Add(time.Duration(days) * 24 * time.Hour)
	if (days == 0 || !until.After(r.o.Now())) && (x.Manifest || !manifestsWait) {
		return true, nil
	}
	r.leave(until)
	return false, nil
}

// leave counts an archive that must stay until a time.
func (r *run) leave(until time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.res.Left++
	if until.After(r.res.LeftUntil) {
		r.res.LeftUntil = until
	}
}

// deleteOne deletes an archive of a vault that is open. One that is not there is deleted; one that is locked stays on the list.
func (r *run) deleteOne(ctx context.Context, x *catalog.Doomed) (gone bool, err error) {
	s := r.stores[x.Vault]
	err = transfer.Retry(ctx, r.o.Transfer, func() error { return s.Delete(ctx, x.Archive) })
	var locked *coldstore.LockedError
	switch {
	case errors.As(err, &locked):
		r.leave(locked.Until)
		return false, nil
	case err == nil || errors.Is(err, coldstore.ErrNotFound):
		return true, nil
	}
	return false, err // it names the archive
}

// journal writes down deletions as they are acknowledged. It reads done to its end, so that nobody waits for it for ever.
func (r *run) journal(ctx context.Context, done <-chan catalog.Doomed) error {
	ctx = context.WithoutCancel(ctx) // what was deleted is written down also when the run is stopped
	return transfer.InBatches(done, journalSize, func(batch []catalog.Doomed) error { return r.note(ctx, batch) })
}

// recorded are those of a vault's archives that the catalog knows by themselves, as of what another program stored.
func (r *run) recorded(ctx context.Context, vault string, ids []string) (known []string, err error) {
	for _, id := range ids {
		_, err := r.o.Catalog.ArchiveByID(ctx, vault, id)
		switch {
		case err == nil:
			known = append(known, id)
		case failure.KindOf(err) != failure.NotFound:
			return nil, err
		}
	}
	return known, nil
}

// note takes what was deleted off the list, and tells the records of what the vault has, where such are kept.
func (r *run) note(ctx context.Context, batch []catalog.Doomed) error {
	nums := make([]int64, len(batch))
	byVault := map[string][]string{}
	for i, x := range batch {
		nums[i] = x.Num
		byVault[x.Vault] = append(byVault[x.Vault], x.Archive)
	}
	for vault, ids := range byVault {
		l, err := r.o.Catalog.LastListing(ctx, vault)
		if err != nil {
			return err
		}
		if l.AsOf.IsZero() && r.stores[vault].Traits().ListLag == 0 {
			if ids, err = r.recorded(ctx, vault, ids); err != nil {
				return err
			}
			if len(ids) == 0 {
				continue
			}
		}
		if err := r.o.Catalog.ArchivesDeleted(ctx, vault, ids, r.o.Now()); err != nil {
			return err
		}
	}
	if err := r.o.Catalog.DoomedGone(ctx, nums); err != nil {
		return err
	}
	for _, x := range batch {
		r.res.Archives++
		r.res.Bytes += x.Size
		r.o.Observe.Deleted(x)
	}
	return nil
}

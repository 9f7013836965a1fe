package mirror

import (
	"context"
	"errors"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/firn-backup/firn/internal/catalog"
	"github.com/firn-backup/firn/internal/itemstore"
)

// maxFailures is after how many failures of the vault in a row the run ends: it is out of reach.
const maxFailures = 5

// commit does it: uploads first, then the deletions.
func (r *run) commit(ctx context.Context) error {
	err := r.uploads(ctx)
	if err == nil && len(r.gone) > 0 {
		err = r.endGone(ctx)
	}
	run, eerr := r.s.End(context.WithoutCancel(ctx))
	r.res.Run = run
	if err = errors.Join(err, eerr); err != nil || !r.o.Delete {
		return err
	}
	gone := map[string]bool{}
	for _, c := range r.gone {
		gone[c.Path] = true
	}
	_, err = r.s.Delete(ctx, itemstore.Deleting{
		Early: r.o.Early, Failed: r.problem, Kept: func(string, string) {},
		Deleted: func(i catalog.Item) {
			r.res.Deleted++
			c := Change{Kind: Old, Path: i.Path, Size: i.Plain, Archive: i.Archive.Archive}
			if gone[i.Path] {
				c.Kind = Gone
			}
			r.o.Observe.Deleted(c)
		},
	})
	return err
}

// uploads stores what is new and changed.
func (r *run) uploads(ctx context.Context) error {
	parallel := r.o.Items.Parallel
	if parallel <= 0 {
		parallel = itemstore.DefaultParallel
	}
	group, gctx := errgroup.WithContext(ctx)
	group.SetLimit(parallel)
	var mu sync.Mutex
	failed := 0
	for _, c := range r.res.Upload {
		if gctx.Err() != nil {
			break
		}
		group.Go(func() error {
			i, err := r.s.PutFile(gctx, catalog.Item{Path: c.Path, ItemMore: catalog.ItemMore{Mounted: c.mount != "", Mount: c.mount}}, r.dir.Opener(c.Path), r.o.Names, r.o.Observe.Sending)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil:
				failed = 0
				r.res.Stored++
				r.res.Sent += i.Archive.Size
				c.Archive = i.Archive.Archive
				r.o.Observe.Stored(c)
				return nil
			case gctx.Err() != nil:
				return context.Cause(gctx)
			}
			if !errors.Is(err, itemstore.ErrSource) && !errors.Is(err, itemstore.ErrChanged) {
				if failed++; failed >= maxFailures {
					return err
				}
			}
			r.problem(c.Path, err)
			return nil
		})
	}
	return errors.Join(group.Wait(), context.Cause(ctx))
}

// mount is the directory where the file system, or the mount of the same one, that a file lies on is mounted; empty: it is the one that the
// set's directory lies on.
func (r *run) mount(p string) string {
	dir, at := r.nearest(p)
	if at == r.device {
		return ""
	}
	for dir != "" {
		above, next := r.nearest(dir)
		if next != at {
			return dir
		}
		dir = above
	}
	return ""
}

// endGone writes down that files are gone.
func (r *run) endGone(ctx context.Context) error {
	run, err := r.s.Begin(ctx)
	if err != nil {
		return err
	}
	var paths []string
	for _, c := range r.gone {
		paths = append(paths, c.Path)
	}
	return r.o.Items.Catalog.ItemsGone(ctx, r.o.Items.Set.ID, run.N, paths)
}

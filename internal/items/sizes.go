package items

import (
	"context"
	"errors"
	"fmt"

	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/internal/failure"
	"github.com/firn-backup/firn/internal/transfer"
	"github.com/firn-backup/firn/treehash"
)

// unknown says that nobody has told yet how large the archive of an item is, as of what another program stored.
func (w *wanted) unknown() bool { return w.Archive.Archive != "" && w.Archive.Size == 0 }

// learn finds out sizes that are not known, and remembers them: vaults that tell of an archive are asked; others tell of those that
// they were asked for, in their list of jobs. What they do not tell stays unknown.
func (r *restorer) learn(ctx context.Context, store coldstore.Store, vault string, list []wanted) error {
	var told map[string]coldstore.Archive // by jobs
	for i := range list {
		w := &list[i]
		if !w.unknown() {
			continue
		}
		var a coldstore.Archive
		var err error
		if s, ok := store.(coldstore.Stater); ok {
			err = transfer.Retry(ctx, r.o.Transfer, func() (err error) {
				a, err = s.Stat(ctx, w.Archive.Archive)
				return err
			})
		} else {
			if told == nil {
				told, err = jobSizes(ctx, store, r.o.Transfer)
			}
			a = told[w.Archive.Archive]
		}
		switch {
		case errors.Is(err, coldstore.ErrNotFound), errors.Is(err, coldstore.ErrIntegrity):
			continue // met again when it is asked for
		case err != nil:
			return fmt.Errorf("ask for the size of archive %s: %w", w.Archive.Archive, err)
		case a.Size == 0:
			continue
		}
		w.Archive.Size = a.Size
		if treehash.Hash(w.Archive.TreeHash).IsZero() {
			w.Archive.TreeHash = a.TreeHash
		}
		if err := r.remember(ctx, vault, w); err != nil {
			return err
		}
	}
	return nil
}

// jobSizes are the archives that a vault's jobs tell of.
func jobSizes(ctx context.Context, store coldstore.Store, o transfer.Options) (map[string]coldstore.Archive, error) {
	told := map[string]coldstore.Archive{}
	l, ok := store.(coldstore.JobLister)
	if !ok {
		return told, nil
	}
	err := transfer.Retry(ctx, o, func() error {
		return l.ListJobs(ctx, func(j coldstore.Job) error {
			if j.Archive == "" || j.State == coldstore.JobFailed || j.Size == 0 {
				return nil
			}
			a := coldstore.Archive{ID: j.Archive, Size: j.Size, TreeHash: told[j.Archive].TreeHash}
			if h, err := treehash.Parse(j.TreeHash); err == nil && j.Range.IsWhole() {
				a.TreeHash = h
			}
			told[j.Archive] = a
			return nil
		})
	})
	return told, err
}

// remember writes down what was learnt, where the catalog has the archive: items look there.
func (r *restorer) remember(ctx context.Context, vault string, w *wanted) error {
	if r.o.Catalog.ReadOnly() {
		return nil
	}
	a, err := r.o.Catalog.ArchiveByID(ctx, vault, w.Archive.Archive)
	if failure.KindOf(err) == failure.NotFound {
		return nil
	}
	if err != nil {
		return err
	}
	a.Size, a.TreeHash = w.Archive.Size, w.Archive.TreeHash
	return r.o.Catalog.PutArchive(ctx, a)
}

package items

import (
	"context"
	"slices"

	"github.com/firn-backup/firn/internal/catalog"
	"github.com/firn-backup/firn/internal/itemstore"
	"github.com/firn-backup/firn/internal/snapshot"
)

// isOf says that a snapshot is of the one path.
func isOf(s *catalog.Snapshot, full string) bool {
	return len(s.Header.Paths) == 1 && s.Header.Paths[0] == full
}

// attemptFirst brings the candidate first whose snapshot was interrupted, so that it goes on.
func (r *run) attemptFirst(ctx context.Context, list []Candidate) ([]Candidate, error) {
	snaps, err := r.o.Items.Catalog.Snapshots(ctx, r.o.Items.Set.ID)
	if err != nil {
		return nil, err
	}
	for _, s := range snaps {
		if s.State != catalog.Running {
			continue
		}
		if i := slices.IndexFunc(list, func(c Candidate) bool { return isOf(&s, c.Full) }); i > 0 {
			first := list[i]
			return append([]Candidate{first}, slices.Delete(slices.Clone(list), i, i+1)...), nil
		}
	}
	return list, nil
}

// adoptSnapshots records as items the newest snapshots of each candidate that the catalog's items do not know: those of a run
// that was killed behind them, and those of a recovered catalog.
func (r *run) adoptSnapshots(ctx context.Context, list []Candidate) error {
	db, set := r.o.Items.Catalog, r.o.Items.Set.ID
	snaps, err := db.Snapshots(ctx, set)
	if err != nil {
		return err
	}
	known := map[string]bool{}
	err = db.Items(ctx, set, catalog.ItemQuery{All: true}, func(i catalog.Item) error {
		known[i.Snapshot] = true
		return nil
	})
	if err != nil {
		return err
	}
	for _, c := range list {
		for _, s := range slices.Backward(snaps) {
			if s.State != catalog.Stored || s.Vault != r.o.Items.Vault || !isOf(&s, c.Full) {
				continue
			}
			if !known[s.ID] && !r.o.DryRun {
				if err := r.adopt(ctx, c.Name, c.Full, s); err != nil {
					return err
				}
			}
			break
		}
	}
	return nil
}

func (r *run) adopt(ctx context.Context, name, full string, s catalog.Snapshot) error {
	run, err := r.s.Begin(ctx)
	if err != nil {
		return err
	}
	i, err := snapshotItem(ctx, r.o.Items.Catalog, name, full, s)
	if err != nil {
		return err
	}
	i.N, i.Listed = run.N, run.N
	return r.o.Items.Catalog.ItemStored(ctx, i)
}

// snapshotItem is the item that a snapshot of one path is; its number is not set.
func snapshotItem(ctx context.Context, db *catalog.DB, name, full string, s catalog.Snapshot) (catalog.Item, error) {
	m, dir, err := itemstore.MeasureSnapshot(ctx, db, s.ID, full)
	if err != nil {
		return catalog.Item{}, err
	}
	i := catalog.Item{
		SetID: s.SetID, Path: name, Vault: s.Vault, Snapshot: s.ID, Stored: s.Made, Plain: m.Bytes,
		ItemMore: catalog.ItemMore{Dir: dir, MTime: snapshot.TimeOf(m.Newest)},
	}
	fill(&i, m)
	i.State = [32]byte{} // the inodes are not known
	i.Torn = s.Totals.Problems > 0
	return i, nil
}

// recoverSnapshots records the items of sets in Firn's format whose snapshots were recovered: one run for each snapshot.
func (r *recoverer) recoverSnapshots(ctx context.Context) error {
	sets, err := r.o.Catalog.Sets(ctx)
	if err != nil {
		return err
	}
	for _, set := range sets {
		if set.Kind != "items" || set.Vault != r.o.Vault {
			continue
		}
		runs, err := r.o.Catalog.ItemRuns(ctx, set.ID)
		if err != nil {
			return err
		}
		snaps, err := r.o.Catalog.Snapshots(ctx, set.ID)
		if err != nil || len(runs) > 0 {
			return err
		}
		var n uint64
		run := catalog.ItemRun{SetID: set.ID, Vault: set.Vault}
		current := map[string]int64{}
		for _, s := range snaps {
			if s.State != catalog.Stored || s.Vault != r.o.Vault || len(s.Header.Paths) != 1 {
				continue
			}
			full := s.Header.Paths[0]
			i, err := snapshotItem(ctx, r.o.Catalog, itemstore.TarName(full), full, s)
			if err != nil {
				return err
			}
			n++
			i.N, i.Listed = n, n
			current[i.Path] = i.Size()
			if run.ID, err = snapshot.NewID(r.o.Now(), r.o.Rand); err != nil {
				return err
			}
			run.N, run.At, run.New, run.Sent, run.Items, run.Bytes = n, s.At, 1, s.Totals.Stored, int64(len(current)), 0
			for _, b := range current {
				run.Bytes += b
			}
			if err := r.o.Catalog.PutItemRun(ctx, run); err != nil {
				return err
			}
			if err := r.o.Catalog.ItemStored(ctx, i); err != nil {
				return err
			}
			r.res.Items++
		}
		if n > 0 {
			r.res.Sets++
		}
	}
	return nil
}

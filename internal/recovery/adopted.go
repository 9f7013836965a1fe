package recovery

import (
	"context"

	"github.com/firn-backup/firn/internal/adopted"
	"github.com/firn-backup/firn/internal/catalog"
	"github.com/firn-backup/firn/internal/failure"
	"github.com/firn-backup/firn/internal/manifest"
)

// adopt makes the snapshots again that another program stored, if a manifest builds on one of them and the catalog lacks that: the descriptions
// in the vault tell all that is needed. The ids are returned of those that were not there.
func (r *run) adopt(ctx context.Context, set catalog.Set, h *manifest.Header) (ids []string, err error) {
	if h.Base == "" || !h.IsStream() {
		return nil, nil
	}
	if _, err := r.o.Catalog.Snapshot(ctx, h.Base); failure.KindOf(err) != failure.NotFound {
		return nil, err
	}
	var rows []adopted.Row
	for _, a := range r.archives {
		if row, ok := adopted.RowOf(a); ok && a.Size > 0 {
			rows = append(rows, row)
		}
	}
	list, err := adopted.Chain(set, r.o.Now().Location(), rows)
	if err != nil {
		return nil, failure.Wrap(failure.Damaged, err)
	}
	meant := false
	var fresh []string
	for i := range list {
		meant = meant || list[i].ID == h.Base
		if _, err := r.o.Catalog.Snapshot(ctx, list[i].ID); failure.KindOf(err) == failure.NotFound {
			fresh = append(fresh, list[i].ID)
		} else if err != nil {
			return nil, err
		}
	}
	if !meant {
		return nil, nil
	}
	_, err = r.o.Catalog.AdoptSnapshots(ctx, list)
	return fresh, err
}

// takeName gives a set that was recovered the name that its manifests have, if a set has that in which nothing was ever stored here: one that was
// made by an adoption after the catalog was lost.
func (r *run) takeName(ctx context.Context, set catalog.Set, h *manifest.Header) (catalog.Set, error) {
	if set.Name == h.Set {
		return set, nil
	}
	sets, err := r.o.Catalog.Sets(ctx)
	if err != nil {
		return set, err
	}
	for _, s := range sets {
		if s.ID == set.ID || s.Name != h.Set || s.Host != h.Host {
			continue
		}
		if only, err := r.onlyAdopted(ctx, s); err != nil || !only {
			return set, err
		}
		if err := r.o.Catalog.RemoveSet(ctx, s.ID); err != nil {
			return set, err
		}
		set.Name = h.Set
		return set, r.o.Catalog.PutSet(ctx, set)
	}
	return set, nil
}

// onlyAdopted says whether a set has nothing but what another program stored, and has that in this vault.
func (r *run) onlyAdopted(ctx context.Context, set catalog.Set) (bool, error) {
	if set.Vault != r.o.Vault {
		return false, nil
	}
	snaps, err := r.o.Catalog.Snapshots(ctx, set.ID)
	for _, s := range snaps {
		if s.Adopted == "" {
			return false, err
		}
	}
	return len(snaps) > 0, err
}

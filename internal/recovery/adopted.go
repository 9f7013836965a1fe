package recovery

import (
	"context"
	"slices"

	"github.com/firn-backup/firn/internal/adopted"
	"github.com/firn-backup/firn/internal/catalog"
	"github.com/firn-backup/firn/internal/failure"
	"github.com/firn-backup/firn/internal/manifest"
)

// maxRows is how many archives of another program are looked at.
const maxRows = 10_000

// adopt makes the snapshots again that another program stored, if a manifest builds on one of them and the catalog lacks that: the descriptions
// in the vault tell all that is needed, and the manifest's hash of its base which archives they are. The ids are returned of those that were not there.
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
	if len(rows) > maxRows {
		return nil, refuse(Unusable, "more than %d archives are described like its base, snapshot %s: adopt the program's own database first", maxRows, h.Base)
	}
	list, err := adopted.Chain(set, r.o.Now().Location(), rows)
	if err != nil {
		return nil, failure.Wrap(failure.Damaged, err)
	}
	// What the manifest builds on, all the way down, is what its hash names. Other archives that are described like these may be anybody's.
	chain := map[string]bool{}
	next := h.Base
	for i := range slices.Backward(list) { // each comes after its base
		if list[i].ID == next {
			chain[next], next = true, list[i].Base
		}
	}
	list = slices.DeleteFunc(list, func(x catalog.Adopted) bool { return !chain[x.ID] })
	if len(list) == 0 || list[len(list)-1].ManifestHash != h.BaseHash {
		return nil, nil
	}
	for i := range list {
		if _, err := r.o.Catalog.Snapshot(ctx, list[i].ID); failure.KindOf(err) == failure.NotFound {
			ids = append(ids, list[i].ID)
		} else if err != nil {
			return nil, err
		}
	}
	_, err = r.o.Catalog.AdoptSnapshots(ctx, list)
	return ids, err
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

package recovery

import (
	"context"
	"fmt"

	"github.com/firn-backup/firn/internal/catalog"
	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/internal/failure"
	"github.com/firn-backup/firn/internal/manifest"
	"github.com/firn-backup/firn/internal/snapshot"
	"github.com/firn-backup/firn/treehash"
)

// checkPlace holds a header against where the manifest was found, so that one
// that is right cannot stand for another.
func checkPlace(h *manifest.Header, set *manifest.ListedSet, s *manifest.ListedSnapshot, a coldstore.Archive) error {
	if h.SetID != set.ID || h.Snap != s.ID || s.N != 0 && h.N != s.N {
		return refuse(Damaged, "it is that of snapshot %s, number %d of set %s, and stands in its place", h.Snap, h.N, h.SetID)
	}
	if d, ok := manifest.ParseDescription(a.Description); ok {
		if want := manifest.Describe(h, 0).String(); a.Description != want && (d.SetID != h.SetID || d.Snap != h.Snap ||
			d.N != h.N || d.Kind != h.Kind || d.Base != h.Base || !d.At.Equal(h.At)) {
			return refuse(Damaged, "it contradicts the description of its archive")
		}
	}
	if d, ok := manifest.ParseName(a.ID); ok && (d.SetID != h.SetID || d.Snap != h.Snap) {
		return refuse(Damaged, "it contradicts the name of its archive")
	}
	if h.Stream != "tar" && !h.IsStream() {
		return refuse(Newer, "its stream is of kind %q: it needs a newer Firn", h.Stream)
	}
	return nil
}

// checkBase finds the snapshots that a manifest builds on.
func (r *run) checkBase(ctx context.Context, h *manifest.Header) (chain []uint64, base *catalog.Snapshot, err error) {
	if h.Kind == snapshot.Full {
		return nil, nil, nil
	}
	b, err := r.o.Catalog.Snapshot(ctx, h.Base)
	switch {
	case failure.KindOf(err) == failure.NotFound || err == nil && b.State != catalog.Stored:
		return nil, nil, refuse(Unusable, "its base, snapshot %s, could not be recovered", h.Base)
	case err != nil:
		return nil, nil, err
	case b.SetID != h.SetID || b.N >= h.N && b.Adopted == "" || b.ManifestHash != h.BaseHash:
		return nil, nil, refuse(Damaged, "it builds on another version of its base, snapshot %s", h.Base)
	}
	all, err := r.o.Catalog.Snapshots(ctx, h.SetID)
	if err != nil {
		return nil, nil, err
	}
	for _, s := range all {
		if s.Chain != b.Chain || s.State != catalog.Stored {
			continue
		}
		if s.N > b.N && !h.IsStream() { // streams of one chain need not be in a row
			return nil, nil, refuse(Conflict, "the catalog has snapshot %s built on the same base", s.ID)
		}
		chain = append(chain, s.N)
	}
	return chain, &b, nil
}

// makeRoom looks for what stands in the way: the remains of an interrupted
// recovery are removed, all else stays.
func (r *run) makeRoom(ctx context.Context, h *manifest.Header) error {
	all, err := r.o.Catalog.Snapshots(ctx, h.SetID)
	if err != nil {
		return err
	}
	for _, s := range all {
		switch {
		case s.State == catalog.Running && s.Params == marker:
			if _, err := r.o.Catalog.Discard(ctx, s.ID); err != nil {
				return err
			}
		case s.State == catalog.Running:
			return refuse(Conflict, "an interrupted backup of the set is in the catalog: finish it first")
		case s.N == h.N && s.Adopted == "":
			return refuse(Conflict, "another snapshot of the set, %s, has the number %d too", s.ID, h.N)
		}
	}
	return nil
}

// checkVolume holds a volume against the vault's listing.
func (r *run) checkVolume(v *manifest.Volume) string {
	a, ok := r.archives[v.Archive]
	switch {
	case !ok:
		return "it is not in the vault"
	case a.Size != v.Size:
		return fmt.Sprintf("it has %d bytes and not %d", a.Size, v.Size)
	case !a.TreeHash.IsZero() && a.TreeHash != treehash.Hash(v.TreeHash):
		return "it has another tree hash"
	}
	return ""
}

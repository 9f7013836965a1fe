package prune

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/firn-backup/firn/internal/catalog"
	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/internal/failure"
	"github.com/firn-backup/firn/internal/manifest"
	"github.com/firn-backup/firn/internal/plan"
	"github.com/firn-backup/firn/internal/transfer"
	"github.com/firn-backup/firn/treehash"
)

// strayAge is how old an archive of an unknown snapshot must be to be taken for an orphan.
const strayAge = 24 * time.Hour

// listing is what a vault has of the set.
type listing struct {
	exact    bool
	archives map[string]coldstore.Archive
}

// list lists the archives of the set in a vault, once. Where listings lag it is what the last one that was taken
// into the catalog had, and not exact.
func (r *run) list(ctx context.Context, vault string) (*listing, error) {
	if l := r.listings[vault]; l != nil {
		return l, nil
	}
	s, err := r.store(ctx, vault)
	if err != nil {
		return nil, err
	}
	l := &listing{exact: s.Traits().ListLag == 0}
	others, err := r.adopted(ctx)
	if err != nil {
		return nil, err
	}
	take := func(a coldstore.Archive) error {
		if d, ok := describe(a); ok && d.SetID == r.o.Set.ID || others[a.ID] {
			l.archives[a.ID] = a
		}
		return nil
	}
	if l.exact {
		err = transfer.Retry(ctx, r.o.Transfer, func() error {
			l.archives = map[string]coldstore.Archive{}
			_, err := s.List(ctx, take)
			return err
		})
	} else {
		r.res.Unlisted = append(r.res.Unlisted, vault)
		l.archives = map[string]coldstore.Archive{}
		alive := func(a catalog.ArchiveRecord) bool { return a.DeletedAt.IsZero() && !a.SeenAsOf.IsZero() }
		err = r.o.Catalog.FindArchives(ctx, vault, alive, func(a catalog.ArchiveRecord) error { return take(a.Archive) })
	}
	if err != nil {
		return nil, fmt.Errorf("vault %s: %w", vault, err)
	}
	r.listings[vault] = l
	return l, nil
}

// adopted are the archives of the set's snapshots that another program stored: they are not described as the set's.
func (r *run) adopted(ctx context.Context) (map[string]bool, error) {
	ids := map[string]bool{}
	for i := range r.snaps {
		if r.snaps[i].Adopted == "" {
			continue
		}
		vols, err := r.o.Catalog.Volumes(ctx, r.snaps[i].ID)
		if err != nil {
			return nil, err
		}
		for _, v := range vols {
			ids[v.Archive] = true
		}
	}
	return ids, nil
}

func describe(a coldstore.Archive) (manifest.Description, bool) {
	d, ok := manifest.ParseDescription(a.Description)
	if !ok {
		d, ok = manifest.ParseName(a.ID)
	}
	return d, ok && (d.What == manifest.WhatVolume || d.What == manifest.WhatManifest)
}

// newestThere looks whether the newest complete chain, for whose sake others go, is in its vault
// whole, where that can be told.
func (r *run) newestThere(ctx context.Context) error {
	newest := r.res.Decision.Newest
	for i := range r.snaps {
		s := &r.snaps[i]
		if s.Chain != newest || s.State != catalog.Stored {
			continue
		}
		l, err := r.list(ctx, s.Vault)
		if err != nil {
			return err
		}
		if !l.exact {
			continue
		}
		if s.Adopted == "" {
			if err := l.has(s.ManifestPart.Archive, s.ManifestPart.Size, s.ManifestPart.TreeHash); err != nil {
				return r.incomplete(s, err)
			}
		}
		vols, err := r.o.Catalog.Volumes(ctx, s.ID)
		if err != nil {
			return err
		}
		for _, v := range vols {
			if err := l.has(v.Archive, v.Size, v.TreeHash); err != nil {
				return r.incomplete(s, err)
			}
		}
	}
	return nil
}

func (r *run) incomplete(s *catalog.Snapshot, err error) error {
	return failure.Errorf(failure.Damaged, "nothing is deleted, for the newest chain is not whole in the vault: snapshot %s: %w", s.ID, err)
}

func (l *listing) has(archive string, size int64, hash [32]byte) error {
	a, ok := l.archives[archive]
	switch {
	case !ok:
		return fmt.Errorf("archive %s is not there", archive)
	case size > 0 && a.Size != size: // of what another program stored it may not be known
		return fmt.Errorf("archive %s has %d bytes and not %d", archive, a.Size, size)
	case !a.TreeHash.IsZero() && hash != [32]byte{} && a.TreeHash != treehash.Hash(hash):
		return fmt.Errorf("archive %s has another tree hash", archive)
	}
	return nil
}

// orphans puts on the list what the vaults have of the set and nothing names: copies from uploads whose
// answer was lost, and what abandoned attempts left. Those of the chains that go must not stay: a copy of a
// manifest would bring its snapshot back in a recovery.
func (r *run) orphans(ctx context.Context, going []plan.Expiry) error {
	vaults := []string{}
	newest := uint64(0)
	state := map[string]catalog.State{}
	for _, s := range r.snaps {
		if s.State == catalog.Stored && s.Adopted == "" {
			newest = max(newest, s.N)
		}
		state[s.ID] = s.State
		if !slices.Contains(vaults, s.Vault) {
			vaults = append(vaults, s.Vault)
		}
	}
	if newest == 0 {
		return nil // nothing is known of the set: what is there may be all there is
	}
	goes := map[string]bool{}
	for _, e := range going {
		for _, id := range e.IDs {
			goes[id] = true
		}
	}
	for _, vault := range vaults {
		l, err := r.list(ctx, vault)
		if err != nil {
			return err
		}
		known, err := r.known(ctx, vault, l, state)
		if err != nil {
			return err
		}
		list := r.strays(vault, l, known, state, newest, goes)
		r.res.Orphans += len(list)
		if r.o.DryRun || len(list) == 0 {
			continue
		}
		if err := r.o.Catalog.AddDoomed(ctx, list); err != nil {
			return err
		}
		for _, x := range list {
			r.o.Observe.Orphan(x)
		}
	}
	return nil
}

// known are the archives that the catalog's snapshots and attempts of the set name in a vault. A snapshot of which
// the listing lacks one is taken out of state: a copy may be what saves it.
func (r *run) known(ctx context.Context, vault string, l *listing, state map[string]catalog.State) (map[string]bool, error) {
	known := map[string]bool{}
	for i := range r.snaps {
		s := &r.snaps[i]
		if s.Vault != vault {
			continue
		}
		name := func(archive string) {
			known[archive] = true
			if _, there := l.archives[archive]; !there && s.State == catalog.Stored {
				state[s.ID] = lacking
			}
		}
		if s.Adopted == "" {
			name(s.ManifestPart.Archive)
		}
		vols, err := r.o.Catalog.Volumes(ctx, s.ID)
		if err != nil {
			return nil, err
		}
		for _, v := range vols {
			name(v.Archive)
		}
	}
	err := r.o.Catalog.Doomed(ctx, r.o.Set.ID, func(x catalog.Doomed) error {
		if x.Vault == vault {
			known[x.Archive] = true
		}
		return nil
	})
	return known, err
}

// lacking is the state of a snapshot that is not whole in the vault.
const lacking catalog.State = "lacking"

// strays are the orphans of a vault. Of snapshots that the catalog does not know, only volumes whose number a stored snapshot has passed,
// that are old, of this host, and only where the vault has no manifest that the catalog does not know: it must not
// be the catalog that lags.
func (r *run) strays(vault string, l *listing, known map[string]bool, state map[string]catalog.State, newest uint64, goes map[string]bool) []catalog.Doomed {
	lags := false
	var sure, old []catalog.Doomed
	for id, a := range l.archives {
		d, _ := describe(a)
		if known[id] {
			continue
		}
		x := catalog.Doomed{Vault: vault, Archive: id, SetID: r.o.Set.ID, Snap: d.Snap, Manifest: d.What == manifest.WhatManifest, Size: a.Size, Stored: a.Created}
		if x.Stored.IsZero() {
			x.Stored = r.o.Now()
		}
		st, have := state[d.Snap]
		switch {
		case goes[d.Snap]:
			sure = append(sure, x)
		case have && st != catalog.Stored:
			// An attempt, whose next run settles what is in doubt; or one that a copy may save.
		case have:
			// A copy. Where the listing is old the catalog knows the other one by another way, and so it is a copy all the same.
			sure = append(sure, x)
		case x.Manifest:
			lags = true
		case d.N > 0 && d.N <= newest && d.Host == r.o.Set.Host && a.Created.Before(r.o.Now().Add(-strayAge)):
			old = append(old, x)
		}
	}
	if !lags {
		sure = append(sure, old...)
	}
	slices.SortFunc(sure, func(a, b catalog.Doomed) int { return a.Stored.Compare(b.Stored) })
	return sure
}

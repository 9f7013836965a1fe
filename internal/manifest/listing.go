package manifest

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/internal/snapshot"
)

// Listing sorts a vault's archives by set and snapshot, going by their
// descriptions, or by their names where they bear none of Firn's. Nothing in
// it is proven: which archives belong to a snapshot only its manifest says.
type Listing struct {
	Sets    []ListedSet // by ID
	Keys    []coldstore.Archive
	Foreign []coldstore.Archive // not Firn's, or of a kind not known here
}

// ListedSet is what a vault seems to have of a set.
type ListedSet struct {
	ID        string
	Set       string // the name told most lately, or the label
	Host      string
	Snapshots []ListedSnapshot // by N, then ID
}

// ListedSnapshot is what a vault seems to have of a snapshot. Without a
// manifest there is no snapshot: the volumes are those of a run under way, or strays.
type ListedSnapshot struct {
	ID        string
	N         uint64    // 0 when nothing tells
	At        time.Time // zero when nothing tells
	Kind      snapshot.Kind
	Base      string
	Manifests []coldstore.Archive // newest first
	Volumes   []ListedVolume      // by number, then newest first; several of one number are attempts
}

// ListedVolume is an archive that says it is volume N.
type ListedVolume struct {
	N int
	coldstore.Archive
}

// GroupArchives makes a Listing. It needs memory for all archives.
func GroupArchives(archives []coldstore.Archive) Listing {
	var l Listing
	sets := map[string]*ListedSet{}
	snaps := map[[2]string]*ListedSnapshot{}
	for _, a := range archives {
		d, ok := ParseDescription(a.Description)
		if !ok {
			d, ok = ParseName(a.ID)
		}
		switch {
		case ok && d.What == WhatKey:
			l.Keys = append(l.Keys, a)
			continue
		case !ok || d.What != WhatVolume && d.What != WhatManifest:
			l.Foreign = append(l.Foreign, a)
			continue
		}
		set, snap := sets[d.SetID], snaps[[2]string{d.SetID, d.Snap}]
		if set == nil {
			set = &ListedSet{ID: d.SetID}
			sets[d.SetID] = set
		}
		if snap == nil {
			snap = &ListedSnapshot{ID: d.Snap}
			snaps[[2]string{d.SetID, d.Snap}] = snap
		}
		if snap.N == 0 && d.N != 0 {
			snap.N, snap.At, snap.Kind, snap.Base = d.N, d.At, d.Kind, d.Base
		}
		if d.What == WhatManifest {
			snap.Manifests = append(snap.Manifests, a)
		} else {
			snap.Volumes = append(snap.Volumes, ListedVolume{d.Part, a})
		}
	}
	nameSets(sets, archives)
	for key, snap := range snaps {
		slices.SortFunc(snap.Manifests, newestFirst)
		slices.SortFunc(snap.Volumes, func(a, b ListedVolume) int {
			return cmp.Or(cmp.Compare(a.N, b.N), newestFirst(a.Archive, b.Archive))
		})
		sets[key[0]].Snapshots = append(sets[key[0]].Snapshots, *snap)
	}
	for _, id := range slices.Sorted(maps.Keys(sets)) {
		slices.SortFunc(sets[id].Snapshots, func(a, b ListedSnapshot) int {
			return cmp.Or(cmp.Compare(a.N, b.N), strings.Compare(a.ID, b.ID))
		})
		l.Sets = append(l.Sets, *sets[id])
	}
	slices.SortFunc(l.Keys, newestFirst)
	return l
}

// nameSets gives each set the name and host that its highest snapshot tells.
func nameSets(sets map[string]*ListedSet, archives []coldstore.Archive) {
	best := map[string]uint64{}
	for _, a := range archives {
		d, ok := ParseDescription(a.Description)
		if !ok {
			d, ok = ParseName(a.ID)
		}
		set := sets[d.SetID]
		if !ok || set == nil || d.N < best[d.SetID] || set.Set != "" && d.N == best[d.SetID] {
			continue
		}
		best[d.SetID] = d.N
		set.Set, set.Host = d.Set, d.Host
	}
}

func newestFirst(a, b coldstore.Archive) int {
	return cmp.Or(b.Created.Compare(a.Created), strings.Compare(a.ID, b.ID))
}

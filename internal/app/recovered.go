package app

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/firn-backup/firn/internal/catalog"
	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/internal/itemstore"
	"github.com/firn-backup/firn/internal/manifest"
	"github.com/firn-backup/firn/internal/transfer"
)

// RecoverCommand is the command under which a recovery from a vault is in the list of runs.
func RecoverCommand(vault string) string { return "recover " + vault }

// CheckRecovered returns an error when the newest recovery from a vault did not come to
// its end: then the catalog may not know the vault's newest snapshots, and a
// backup would make another one of their numbers.
func (a *App) CheckRecovered(ctx context.Context, vault string) error {
	db, err := a.Catalog(ctx, false)
	if errors.Is(err, ErrNoCatalog) {
		return nil
	}
	if err != nil {
		return err
	}
	runs, err := db.Runs(ctx, "", keptRuns)
	if err != nil {
		return err
	}
	for _, r := range runs { // newest first
		if r.Command != RecoverCommand(vault) {
			continue
		}
		if r.Ended.IsZero() || !slices.Contains([]int{0, 3, 13}, r.Exit) {
			return fmt.Errorf("the last recovery from %s did not come to its end, so the catalog may not know what is there", vault)
		}
		return nil
	}
	return nil
}

// ErrUnknownArchives says that a vault holds what a set stored there, and the catalog does not know it.
var ErrUnknownArchives = errors.New("the catalog does not know them")

// CheckKnown returns an error where a vault holds snapshots or items of a set of this name on this host that the catalog does not know,
// while it knows nothing else of the set there: it was lost, most likely, and a backup would store everything anew. sure is false where the vault's
// listing does not tell hosts, so that they may be another's. Of a vault whose listings take hours the last one that the catalog has counts.
func (a *App) CheckKnown(ctx context.Context, set catalog.Set, store coldstore.Lister) (sure bool, err error) {
	db, err := a.Catalog(ctx, false)
	if errors.Is(err, ErrNoCatalog) {
		db, err = nil, nil
	}
	if err != nil {
		return true, err
	}
	if db != nil {
		if some, err := hasStored(ctx, db, set.ID, set.Vault); some || err != nil {
			return true, err
		}
	}
	sets := map[string]bool{set.ID: true}
	known := func(id string) bool {
		if _, asked := sets[id]; !asked {
			sets[id] = false
			if db != nil {
				_, err := db.SetByID(ctx, id)
				sets[id] = err == nil
			}
		}
		return sets[id]
	}
	n := 0
	terse := store.Traits().Terse
	look := func(archive coldstore.Archive) error {
		d, ok := itemstore.Described(archive)
		if !ok || d.What == manifest.WhatVolume || d.What == manifest.WhatKey {
			return nil
		}
		mine := d.Set == set.Name && d.Host == a.Host
		if terse {
			dir, _, _ := strings.Cut(manifest.SnapshotDir(&manifest.Header{Label: set.Label, SetID: d.SetID}), "/")
			mine = d.Set+"-"+d.SetID == dir
		}
		if mine && !known(d.SetID) {
			n++
		}
		return nil
	}
	switch {
	case store.Traits().ListLag == 0:
		err = transfer.Retry(ctx, transfer.Options{}, func() error {
			n = 0
			_, err := store.List(ctx, look)
			return err
		})
		if errors.Is(err, coldstore.ErrIntegrity) { // the others were listed
			err = nil
		}
	case db != nil:
		there := func(r catalog.ArchiveRecord) bool {
			return r.DeletedAt.IsZero() && strings.HasPrefix(r.Description, "firn/")
		}
		err = db.FindArchives(ctx, set.Vault, there, func(r catalog.ArchiveRecord) error { return look(r.Archive) })
	}
	if err != nil {
		return true, fmt.Errorf("look for archives of set %s in %s: %w", set.Name, set.Vault, err)
	}
	if n > 0 {
		return !terse, fmt.Errorf("%s holds archives of set %s already, and %w", set.Vault, set.Name, ErrUnknownArchives)
	}
	return true, nil
}

package app

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"time"

	"github.com/firn-backup/firn/internal/catalog"
	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/internal/config"
	"github.com/firn-backup/firn/internal/failure"
	"github.com/firn-backup/firn/internal/manifest"
	"github.com/firn-backup/firn/internal/transfer"
)

// Vaults whose URL is a template (config.Vault.IsTemplate) are made when the first backup of their period comes, and
// removed when nothing of Firn's is in them any more. Only what Firn made by itself does it remove by itself.

// vaultOf is the URL, in the one form, of a configured vault now.
func (a *App) vaultOf(v *config.Vault) (string, error) { return a.vaultAt(v, a.Now()) }

// vaultAt is vaultOf at another time.
func (a *App) vaultAt(v *config.Vault, at time.Time) (string, error) {
	if !v.IsTemplate() {
		return v.URL, nil
	}
	url, err := canonicalURL(v.URLAt(at.In(a.Now().Location())))
	if err != nil {
		return "", failure.Wrap(failure.Usage, fmt.Errorf("vault %s: %w", v.Name, err))
	}
	return url, nil
}

// vaultThen puts a target whose vault is a template into the vault of a time, or into that of its interrupted attempt.
func (a *App) vaultThen(ctx context.Context, t *Target, at time.Time) error {
	if t.Config == nil {
		return nil
	}
	v := a.Config.Vaults[t.Config.Vault]
	if v == nil || !v.IsTemplate() {
		return nil
	}
	url, err := a.vaultAt(v, at)
	if err != nil {
		return err
	}
	t.Set.Vault = url
	return a.KeepVault(ctx, t)
}

// KeepVault lets an interrupted attempt of a set whose vault is a template go on in the vault that it was begun in,
// although the period is over.
func (a *App) KeepVault(ctx context.Context, t *Target) error {
	v := a.Config.Vaults[t.Config.Vault]
	if v == nil || !v.IsTemplate() || t.New {
		return nil
	}
	db, err := a.Catalog(ctx, false)
	if err != nil {
		return err
	}
	snaps, err := db.Snapshots(ctx, t.Set.ID)
	if err != nil {
		return err
	}
	for _, s := range snaps {
		if s.State != catalog.Running {
			continue
		}
		if url, err := canonicalURL(v.URLAt(s.Made.In(a.Now().Location()))); err == nil && url == s.Vault {
			t.Set.Vault = url
		}
	}
	return nil
}

// templateOf is the configured template that a URL is of now; nil: none is.
func (a *App) templateOf(url string) *config.Vault {
	for _, name := range slices.Sorted(maps.Keys(a.Config.Vaults)) {
		v := a.Config.Vaults[name]
		if !v.IsTemplate() {
			continue
		}
		if now, err := a.vaultOf(v); err == nil && now == url {
			return v
		}
	}
	return nil
}

// makeVault makes the vault of a template's period, and writes down that Firn did.
func (a *App) makeVault(ctx context.Context, url string, v *config.Vault) (coldstore.Store, error) {
	db, err := a.Catalog(ctx, true)
	if err != nil {
		return nil, err
	}
	store, err := a.CreateVault(ctx, url)
	switch {
	case errors.Is(err, coldstore.ErrExists): // another run was faster, and has written it down
		return a.OpenStore(ctx, url, false)
	case err != nil:
		return nil, err
	}
	// A vault that is made and not written down is only one that is not removed by itself.
	if err := db.PutMadeVault(ctx, catalog.MadeVault{Vault: url, Template: v.URL, Made: a.Now()}); err != nil {
		return nil, err
	}
	a.o.Notice("made the vault " + url)
	return store, nil
}

// Retired is a vault that was made for a period which is over, and what became of it.
type Retired struct {
	URL  string
	Gone bool
	Why  string // why it is still there
}

// RetireVaults removes the vaults of periods that are over, once nothing that Firn stored is in them. What others
// stored there stays, and the vault with it. A vault of the vault API can be removed about a day after its last
// archive was deleted: until then this is to be called again.
func (a *App) RetireVaults(ctx context.Context) ([]Retired, error) {
	db, err := a.Catalog(ctx, false)
	if errors.Is(err, ErrNoCatalog) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	made, err := db.MadeVaults(ctx)
	if err != nil {
		return nil, err
	}
	var list []Retired
	var errs []error
	for _, m := range made {
		used, err := db.VaultInUse(ctx, m.Vault)
		if err != nil {
			return list, err
		}
		if used || a.templateOf(m.Vault) != nil {
			continue
		}
		r := Retired{URL: m.Vault}
		if r.Gone, r.Why, err = a.retire(ctx, db, m); err != nil {
			errs = append(errs, fmt.Errorf("remove the vault %s: %w", m.Vault, err))
			continue
		}
		list = append(list, r)
	}
	return list, errors.Join(errs...)
}

func (a *App) retire(ctx context.Context, db *catalog.DB, m catalog.MadeVault) (gone bool, why string, err error) {
	if m.Ended.IsZero() {
		m.Ended = a.Now()
		if err := db.PutMadeVault(ctx, m); err != nil {
			return false, "", err
		}
	}
	store, err := a.OpenStore(ctx, m.Vault, false)
	switch {
	case errors.Is(err, ErrNoVault): // an earlier run removed it and was stopped before it wrote that down
		return true, "", a.forgetMade(ctx, db, m.Vault)
	case err != nil:
		return false, "", err
	}
	d, ok := store.(coldstore.VaultDeleter)
	if !ok { // a prefix of a bucket is there as long as something is in it
		return true, "", a.forgetMade(ctx, db, m.Vault)
	}
	if err := a.deleteKeyCopies(ctx, db, store, m.Vault); err != nil {
		return false, "", err
	}
	err = transfer.Retry(ctx, transfer.Options{}, func() error { return d.DeleteVault(ctx) })
	if errors.Is(err, coldstore.ErrInvalid) {
		return false, err.Error(), nil
	}
	if err != nil {
		return false, "", err
	}
	return true, "", a.forgetMade(ctx, db, m.Vault)
}

func (a *App) forgetMade(ctx context.Context, db *catalog.DB, url string) error {
	return errors.Join(db.ForgetVault(ctx, url), db.DropMadeVault(ctx, url))
}

// deleteKeyCopies deletes the copies of the key file (StoreKey) from a vault in which nothing is left that they open.
func (a *App) deleteKeyCopies(ctx context.Context, db *catalog.DB, store coldstore.Store, url string) error {
	var copies []string
	add := func(id, description string) {
		if d, ok := manifest.ParseDescription(description); ok && d.What == manifest.WhatKey && d.Host == a.Host {
			copies = append(copies, id)
		}
	}
	if store.Traits().ListLag == 0 {
		if _, err := store.List(ctx, func(x coldstore.Archive) error { add(x.ID, x.Description); return nil }); err != nil {
			return err
		}
	} else {
		err := db.FindArchives(ctx, url, func(r catalog.ArchiveRecord) bool { return r.DeletedAt.IsZero() },
			func(r catalog.ArchiveRecord) error { add(r.ID, r.Description); return nil })
		if err != nil {
			return err
		}
	}
	for _, id := range copies {
		err := transfer.Retry(ctx, transfer.Options{}, func() error { return store.Delete(ctx, id) })
		if err != nil && !errors.Is(err, coldstore.ErrNotFound) {
			return err
		}
		if err := db.ArchiveDeleted(ctx, url, id, a.Now()); err != nil && failure.KindOf(err) != failure.NotFound {
			return err
		}
	}
	return nil
}

// templateDirs are the directories of all periods of the templates that are dir: vaults.
func (a *App) templateDirs() []string {
	var dirs []string
	for _, v := range a.Config.Vaults {
		if !v.IsTemplate() {
			continue
		}
		if pattern := v.Glob(vaultDir); pattern != "." {
			there, err := filepath.Glob(pattern)
			if err == nil {
				dirs = append(dirs, there...)
			}
		}
	}
	return dirs
}

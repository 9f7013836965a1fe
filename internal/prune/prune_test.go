package prune_test

import (
	"context"
	"crypto/ed25519"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/firn-backup/firn/internal/backup"
	"github.com/firn-backup/firn/internal/catalog"
	"github.com/firn-backup/firn/internal/catalog/sqlite"
	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/internal/coldstore/localdir"
	"github.com/firn-backup/firn/internal/plan"
	"github.com/firn-backup/firn/internal/prune"
	"github.com/firn-backup/firn/internal/recovery"
	"github.com/firn-backup/firn/internal/restore/restoretest"
	"github.com/firn-backup/firn/internal/transfer"
)

const day = 24 * time.Hour

func policy() plan.Policy {
	return plan.Policy{Incrementals: 1, Retention: plan.Retention{Expire: 10 * day}}
}

// site is a vault and a catalog that can be copied.
type site struct {
	t   *testing.T
	w   *restoretest.World
	db  *catalog.DB
	v   *localdir.Store
	now time.Time
}

// origin makes a set of chains, a snapshot every four days.
func origin(t *testing.T, snapshots int) *site {
	t.Helper()
	w := restoretest.New(t, "zstd:1", "age", 0)
	w.Write("big", restoretest.Noise(7, 400_000))
	for i := range snapshots {
		w.Write(fmt.Sprint("f", i), restoretest.Noise(byte(i), 50_000))
		w.Backup(func(o *backup.Options) { o.Incrementals = 1 })
		w.Advance(4 * day)
	}
	return &site{t: t, w: w, db: w.DB, v: w.Vault, now: w.Now()}
}

// copyTo copies a site's files; its catalog must not be open for writing.
func (s *site) copyTo(t *testing.T, dir string) *site {
	t.Helper()
	must(t, os.CopyFS(filepath.Join(dir, "vault"), os.DirFS(s.v.Root())))
	cats, err := filepath.Glob(filepath.Join(s.w.Dir, "catalog-*", "*"))
	must(t, err)
	for _, c := range cats {
		b, err := os.ReadFile(c)
		must(t, err)
		must(t, os.WriteFile(filepath.Join(dir, filepath.Base(c)), b, 0o600))
	}
	return open(t, s.w, dir, s.now)
}

func open(t *testing.T, w *restoretest.World, dir string, now time.Time) *site {
	t.Helper()
	c := &site{t: t, w: w, now: now}
	var err error
	c.v, err = localdir.Open(filepath.Join(dir, "vault"), localdir.Options{})
	must(t, err)
	c.db, err = sqlite.Open(context.Background(), filepath.Join(dir, "catalog.db"), sqlite.Options{})
	must(t, err)
	t.Cleanup(func() { c.db.Close() })
	return c
}

func (s *site) options(set catalog.Set) prune.Options {
	return prune.Options{
		Catalog: s.db, Set: set, Policy: policy(), Tidy: true, Now: func() time.Time { return s.now },
		Open:     func(context.Context, string) (prune.Store, error) { return s.v, nil },
		Transfer: transfer.Options{Sleep: func(ctx context.Context, _ time.Duration) error { return ctx.Err() }},
	}
}

// memory is a directory in memory where there is one: these tests sync thousands of times.
func memory(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "firn-test-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// archives are those in the vault.
func (s *site) archives() map[string]bool {
	s.t.Helper()
	all := map[string]bool{}
	_, err := s.v.List(context.Background(), func(a coldstore.Archive) error { all[a.ID] = true; return nil })
	must(s.t, err)
	return all
}

// snapshots are those of the set that the catalog has, the oldest first.
func (s *site) snapshots() []catalog.Snapshot {
	s.t.Helper()
	all, err := s.db.Snapshots(context.Background(), s.w.Set.ID)
	must(s.t, err)
	return all
}

// prune is a prune that nothing disturbs.
func (s *site) prune() prune.Result {
	s.t.Helper()
	res, err := prune.Run(context.Background(), s.options(s.w.Set))
	must(s.t, err)
	return res
}

// recover recovers the vault's snapshots into a catalog.
func (s *site) recover(into *catalog.DB) (recovery.Result, error) {
	return recovery.Run(context.Background(), recovery.Options{
		Catalog: into, Lister: s.v, Store: s.v, Vault: s.w.URL, Codecs: s.w.Codecs(), Now: s.w.Now,
		Signers: []ed25519.PublicKey{s.w.Signer.Public().(ed25519.PublicKey)},
	})
}

// whole proves that all that the catalog believes in is in the vault, and that a recovery on another machine
// finds nothing that cannot be restored, and at least the newest chain. It returns what nobody names.
func (s *site) whole() (snaps []string, strays map[string]bool) {
	s.t.Helper()
	ctx := context.Background()
	strays = s.archives()
	named := map[string]bool{}
	for _, x := range s.snapshots() {
		snaps = append(snaps, x.ID)
		named[x.ManifestPart.Archive] = true
		vols, err := s.db.Volumes(ctx, x.ID)
		must(s.t, err)
		for _, v := range vols {
			named[v.Archive] = true
		}
	}
	for a := range named {
		if !strays[a] {
			s.t.Errorf("%s is needed, and not in the vault", a)
		}
		delete(strays, a)
	}
	dir := memory(s.t)
	defer os.RemoveAll(dir)
	other, err := sqlite.Open(ctx, filepath.Join(dir, "other.db"), sqlite.Options{})
	must(s.t, err)
	defer other.Close()
	res, err := s.recover(other)
	if err != nil || res.Recovered < len(snaps) {
		s.t.Errorf("recovered %d of %d: %v", res.Recovered, len(snaps), err)
	}
	for _, id := range snaps {
		if _, err := other.Snapshot(ctx, id); err != nil {
			s.t.Error(err)
		}
	}
	return snaps, strays
}

// done proves that the set is as a prune that nothing interrupts leaves it.
func (s *site) done(kept int) {
	s.t.Helper()
	snaps, strays := s.whole()
	if len(snaps) != kept || len(strays) > 0 {
		s.t.Errorf("%d snapshots, and %d archives that nobody names", len(snaps), len(strays))
	}
	must(s.t, s.db.Doomed(context.Background(), s.w.Set.ID, func(x catalog.Doomed) error {
		s.t.Errorf("%s is still to be deleted", x.Archive)
		return nil
	}))
}

// goesOn proves of a prune that was interrupted that what it left is whole, and that the next one ends its work. It closes the site.
func (s *site) goesOn() {
	s.t.Helper()
	s.whole()
	s.prune()
	s.done(3)
	must(s.t, s.db.Close())
}

func TestPrune(t *testing.T) {
	t.Parallel()
	s := origin(t, 7) // four chains at days 0/4, 8/12, 16/20, 24; it is day 28
	ctx := context.Background()
	o := s.options(s.w.Set)
	o.DryRun = true
	before := s.archives()
	res, err := prune.Run(ctx, o)
	must(t, err)
	if len(res.Chains) != 2 || res.Snapshots != 4 || res.Archives != 0 || len(s.archives()) != len(before) {
		t.Errorf("dry run: %+v", res)
	}
	o.DryRun = false
	res, err = prune.Run(ctx, o)
	must(t, err)
	if len(res.Chains) != 2 || res.Snapshots != 4 || int(res.Archives) != len(before)-len(s.archives()) || res.Orphans != 0 {
		t.Errorf("%+v", res)
	}
	s.done(3)
	res, err = prune.Run(ctx, o)
	must(t, err)
	if len(res.Chains)+res.Snapshots+int(res.Archives) != 0 {
		t.Errorf("again: %+v", res)
	}
	// However old, the newest chain stays.
	s.now = s.now.Add(9999 * day)
	_, err = prune.Run(ctx, o)
	must(t, err)
	s.done(1)
}

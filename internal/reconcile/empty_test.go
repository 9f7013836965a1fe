package reconcile_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/firn-backup/firn/internal/catalog"
	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/internal/coldstore/faultstore"
	"github.com/firn-backup/firn/internal/coldstore/localdir"
	"github.com/firn-backup/firn/internal/failure"
	"github.com/firn-backup/firn/internal/manifest"
	"github.com/firn-backup/firn/internal/reconcile"
	"github.com/firn-backup/firn/internal/snapshot"
	"github.com/firn-backup/firn/treehash"
)

// deleter is a vault whose deletion can be made to fail, and which lags as an inventory does.
type deleter struct {
	coldstore.Store
	vault  *localdir.Store
	lag    time.Duration
	asOf   time.Time // of the inventory
	list   []coldstore.Archive
	refuse error
	gone   bool
}

func (d *deleter) Traits() coldstore.Traits {
	t := d.Store.Traits()
	t.ListLag = d.lag
	return t
}

func (d *deleter) List(ctx context.Context, fn func(coldstore.Archive) error) (time.Time, error) {
	if d.lag == 0 {
		return d.Store.List(ctx, fn)
	}
	for _, a := range d.list {
		if err := fn(a); err != nil {
			return time.Time{}, err
		}
	}
	return d.asOf, nil
}

// inventory makes a new inventory.
func (d *deleter) inventory(t fataler, asOf time.Time) {
	t.Helper()
	d.asOf, d.list = asOf, nil
	_, err := d.vault.List(context.Background(), func(a coldstore.Archive) error {
		d.list = append(d.list, a)
		return nil
	})
	ok(t, err)
}

func (d *deleter) DescribeVault(context.Context) (coldstore.Vault, error) {
	if d.gone {
		return coldstore.Vault{}, coldstore.ErrNotFound
	}
	return coldstore.Vault{Inventory: d.asOf, Archives: int64(len(d.list))}, nil
}

func (d *deleter) DeleteVault(ctx context.Context) error {
	if d.refuse != nil {
		return d.refuse
	}
	if d.gone {
		return nil
	}
	err := d.vault.DeleteVault(ctx)
	d.gone = err == nil
	return err
}

func newVault(t testing.TB, now *time.Time, archives int) *localdir.Store {
	t.Helper()
	s, err := localdir.Create(filepath.Join(t.TempDir(), "vault"), localdir.Options{Now: func() time.Time { return *now }})
	ok(t, err)
	for i := range archives {
		put(t, s, fmt.Sprintf("a%d", i))
	}
	return s
}

func put(t testing.TB, s *localdir.Store, name string) {
	t.Helper()
	ctx := context.Background()
	data := []byte(name)
	u, err := s.CreateUpload(ctx, coldstore.NewArchive{Name: name}, 1<<20)
	ok(t, err)
	ok(t, s.PutPart(ctx, u.ID, 0, data, treehash.Sum(data)))
	_, err = s.CompleteUpload(ctx, u.ID, int64(len(data)), treehash.Sum(data))
	ok(t, err)
}

func count(t fataler, s *localdir.Store) int {
	t.Helper()
	n := 0
	_, err := s.List(context.Background(), func(coldstore.Archive) error { n++; return nil })
	ok(t, err)
	return n
}

func emptyOptions(d *catalog.DB, v *deleter, now *time.Time) reconcile.EmptyOptions {
	return reconcile.EmptyOptions{
		Options: reconcile.Options{Catalog: d, Store: v, Vault: vault, Now: func() time.Time { return *now },
			Sleep: func(context.Context, time.Duration) error { return nil }},
		Deleter: v,
	}
}

// TestEmptyKilled: killed before or after any call, the same command goes on and ends with an empty vault, deleted.
func TestEmptyKilled(t *testing.T) {
	t.Parallel()
	for _, mode := range []faultstore.Mode{faultstore.DeadFrom, faultstore.DeadAfter, faultstore.LostBefore, faultstore.LostAfter} {
		t.Run(mode.String(), func(t *testing.T) {
			t.Parallel()
			for call := 0; ; call++ {
				now := day(1)
				s := newVault(t, &now, 5)
				db := openCatalog(t)
				f := faultstore.New(faultstore.Fault{Mode: mode, Call: call})
				v := &deleter{Store: f.Wrap(s), vault: s}
				o := emptyOptions(db, v, &now)
				o.DeleteVault, o.Parallel = true, 1+call%3
				res, err := reconcile.Empty(t.Context(), o)
				if f.Hit() && err != nil {
					if !errors.Is(err, faultstore.ErrDead) && !errors.Is(err, faultstore.ErrLost) {
						t.Fatalf("call %d: %v", call, err)
					}
					v.Store = s // the process is started again
					res, err = reconcile.Empty(t.Context(), o)
				}
				if err != nil || !res.Vault {
					t.Fatalf("call %d: %+v, %v", call, res, err)
				}
				if got := live(t, db, vault); len(got) != 0 || !v.gone {
					t.Fatalf("call %d: %v is left", call, got)
				}
				if !f.Hit() {
					if call < 6 {
						t.Fatalf("only %d calls were made", call)
					}
					break
				}
			}
		})
	}
}

// TestEmptyOverDays: a vault that lags is emptied, keeps what is too young, and is deleted once an inventory shows it empty.
func TestEmptyOverDays(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	now := day(0)
	s := newVault(t, &now, 3)
	db := openCatalog(t)
	v := &deleter{Store: s, vault: s, lag: 48 * time.Hour}
	now = day(60)
	put(t, s, "young")
	v.inventory(t, day(60.5))
	now = day(100)
	put(t, s, "own") // after the inventory; known here
	ok(t, db.PutArchive(ctx, catalog.ArchiveRecord{Vault: vault, Archive: coldstore.Archive{ID: "own", Size: 3, Created: now}, UploadedAt: now}))

	o := emptyOptions(db, v, &now)
	o.MinAge, o.DeleteVault = 90*24*time.Hour, true
	run := func(at time.Time, kind failure.Kind, left int) reconcile.EmptyResult {
		t.Helper()
		now = at
		res, err := reconcile.Empty(ctx, o)
		if (err == nil) != (kind == failure.Failed) || err != nil && failure.KindOf(err) != kind {
			t.Fatalf("%+v, %v", res, err)
		}
		if !v.gone && count(t, s) != left {
			t.Fatalf("%d archives are left, want %d", count(t, s), left)
		}
		return res
	}
	res := run(day(100), failure.NotReady, 2)
	if res.Deleted != 3 || res.Young != 2 || !res.NextAt.Equal(day(190)) {
		t.Errorf("%+v", res)
	}
	run(day(100.5), failure.NotReady, 2) // nothing new; the old inventory still has what was deleted
	v.inventory(t, day(101))
	run(day(151), failure.NotReady, 1) // young is old enough
	v.inventory(t, day(152))
	run(day(191), failure.NotReady, 0) // the inventory still has own
	if res := run(day(191.2), failure.NotReady, 0); res.Deleted != 0 || res.Sync != nil {
		t.Errorf("%+v", res)
	}
	v.inventory(t, day(192))
	v.refuse = fmt.Errorf("recently written to: %w", coldstore.ErrInvalid)
	run(day(192.1), failure.NotReady, 0)
	v.refuse = nil
	put(t, s, "other") // by somebody else
	v.inventory(t, day(194))
	run(day(194.1), failure.NotReady, 1)
	o.MinAge = 0
	run(day(194.2), failure.NotReady, 0)
	v.inventory(t, day(196))
	if res := run(day(196.1), failure.Failed, 0); !res.Vault || !v.gone {
		t.Errorf("%+v", res)
	}
	last, err := db.LastListing(ctx, vault)
	if err != nil || !last.AsOf.IsZero() {
		t.Errorf("%+v, %v", last, err)
	}
}

func TestEmptyRefusesWhatSnapshotsNeed(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	now := day(1)
	s := newVault(t, &now, 4)
	db := openCatalog(t)
	ok(t, db.PutSet(ctx, catalog.Set{ID: "S", Name: "documents", Host: "h", Vault: vault}))
	for i, base := range []string{"", "s1"} {
		id, kind := fmt.Sprint("s", i+1), snapshot.Full
		if base != "" {
			kind = snapshot.Incremental
		}
		ok(t, db.Begin(ctx, catalog.Snapshot{ID: id, SetID: "S", N: uint64(i + 1), Kind: kind, Base: base, At: now, Made: now, Vault: vault}))
		ok(t, db.PutVolume(ctx, id, &manifest.Volume{N: 1, Archive: fmt.Sprint("a", i*2), Size: 2}))
		ok(t, db.FinishStored(ctx, id, manifest.Hash{1}, catalog.ArchiveRef{Archive: fmt.Sprint("a", i*2+1), Size: 2}, catalog.Totals{}))
	}
	v := &deleter{Store: s, vault: s}
	o := emptyOptions(db, v, &now)
	_, err := reconcile.Empty(ctx, o)
	if err == nil || failure.KindOf(err) != failure.Usage || count(t, s) != 4 {
		t.Fatalf("%v, %d left", err, count(t, s))
	}
	o.Force = true
	var deleted []string
	o.Deleted = func(a coldstore.Archive) { deleted = append(deleted, a.ID) }
	res, err := reconcile.Empty(ctx, o)
	ok(t, err)
	slices.Sort(deleted)
	if res.Deleted != 4 || res.Dropped != 2 || count(t, s) != 0 || len(deleted) != 4 {
		t.Errorf("%+v, %v", res, deleted)
	}
	snaps, err := db.Snapshots(ctx, "S")
	if err != nil || len(snaps) != 0 {
		t.Errorf("%v, %v", snaps, err)
	}
}

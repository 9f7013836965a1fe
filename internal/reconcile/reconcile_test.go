package reconcile_test

import (
	"context"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/firn-backup/firn/internal/catalog"
	"github.com/firn-backup/firn/internal/catalog/sqlite"
	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/internal/failure"
	"github.com/firn-backup/firn/internal/manifest"
	"github.com/firn-backup/firn/internal/reconcile"
	"github.com/firn-backup/firn/internal/snapshot"
)

const vault = "glacier://eu-west-1/v"

func day(n float64) time.Time {
	return time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC).Add(time.Duration(n * float64(24*time.Hour)))
}

// inventory is a vault that lists what it once was.
type inventory struct {
	asOf time.Time
	list map[string]coldstore.Archive
	lag  time.Duration
	err  error
	asks int
}

func (i *inventory) Traits() coldstore.Traits { return coldstore.Traits{ListLag: i.lag, MinDays: 90} }

func (i *inventory) List(_ context.Context, fn func(coldstore.Archive) error) (time.Time, error) {
	i.asks++
	if i.err != nil {
		return time.Time{}, i.err
	}
	for _, a := range i.list { // in no order
		if err := fn(a); err != nil {
			return time.Time{}, err
		}
	}
	return i.asOf, nil
}

type fataler interface {
	Helper()
	Fatalf(format string, args ...any)
}

func openCatalog(t testing.TB) *catalog.DB {
	t.Helper()
	d, err := sqlite.Open(t.Context(), filepath.Join(t.TempDir(), "catalog.db"), sqlite.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

func archive(id string, created time.Time) coldstore.Archive {
	return coldstore.Archive{ID: id, Size: 10, TreeHash: [32]byte{1, id[0]}, Created: created}
}

func ok(t fataler, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("%v", err)
	}
}

func live(t fataler, d *catalog.DB, of string) map[string]catalog.ArchiveRecord {
	t.Helper()
	got := map[string]catalog.ArchiveRecord{}
	ok(t, d.FindArchives(context.Background(), of, func(r catalog.ArchiveRecord) bool { return r.DeletedAt.IsZero() }, func(r catalog.ArchiveRecord) error {
		got[r.ID] = r
		return nil
	}))
	return got
}

func ids[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

type findings []reconcile.Finding

func (f *findings) Waiting(string)              {}
func (f *findings) Finding(x reconcile.Finding) { *f = append(*f, x) }

func (f findings) of(k reconcile.Kind) []string {
	var list []string
	for _, x := range f {
		if x.Kind == k {
			list = append(list, x.Archive)
		}
	}
	return list
}

func TestSync(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	d := openCatalog(t)
	inv := &inventory{asOf: day(2), lag: 48 * time.Hour, list: map[string]coldstore.Archive{"a": archive("a", day(1)), "f": archive("f", day(1))}}
	var found findings
	sync := func(fix bool) (reconcile.Result, error) {
		found = nil
		return reconcile.Sync(ctx, reconcile.Options{Catalog: d, Store: inv, Vault: vault, Now: func() time.Time { return inv.asOf.Add(12 * time.Hour) }, Fix: fix, Observe: &found})
	}
	expect := func(want ...string) {
		t.Helper()
		if got := ids(live(t, d, vault)); !slices.Equal(got, want) {
			t.Fatalf("known are %v, want %v", got, want)
		}
	}
	put := func(id string, at time.Time) {
		ok(t, d.PutArchive(ctx, catalog.ArchiveRecord{Vault: vault, Archive: archive(id, at), UploadedAt: at, Name: "name of " + id}))
	}
	put("a", day(1))
	put("new", day(2.1))
	res, err := sync(false)
	ok(t, err)
	if res.New != 1 || res.Newer != 1 || res.Archives != 2 || res.Bytes != 20 {
		t.Errorf("%+v", res)
	}
	expect("a", "f", "new") // f was uploaded elsewhere
	if r := live(t, d, vault)["a"]; r.Name != "name of a" || !r.SeenAsOf.Equal(day(2)) || !r.UploadedAt.Equal(day(1)) {
		t.Errorf("%+v", r)
	}

	// Deleted here; the listing is older and still has it.
	ok(t, d.ArchiveDeleted(ctx, vault, "f", day(2.6)))
	inv.asOf = day(2.58)
	_, err = sync(false)
	ok(t, err)
	expect("a", "new")

	// Much later, listings still have it: it was not deleted after all.
	inv.asOf = day(5)
	inv.list["new"] = archive("new", day(2.1))
	_, err = sync(false)
	ok(t, err)
	expect("a", "f", "new")
	if got := found.of(reconcile.Returned); !slices.Equal(got, []string{"f"}) {
		t.Errorf("returned: %v", got)
	}
	ok(t, d.ArchiveDeleted(ctx, vault, "f", day(5.1)))
	delete(inv.list, "f")

	// Gone: reported as long as it is not accepted.
	delete(inv.list, "a")
	for i := range 2 {
		inv.asOf = day(7 + float64(i))
		res, err = sync(false)
		if failure.KindOf(err) != failure.Partial || err == nil {
			t.Fatalf("error %v", err)
		}
		expect("a", "new")
		if got := found.of(reconcile.Gone); !slices.Equal(got, []string{"a"}) {
			t.Errorf("gone: %v", got)
		}
	}
	if r := live(t, d, vault)["a"]; !r.SeenAsOf.Equal(day(5)) {
		t.Errorf("seen as of %v", r.SeenAsOf)
	}
	_, err = d.ArchiveByID(ctx, vault, "f") // its deletion is history now
	if failure.KindOf(err) != failure.NotFound {
		t.Errorf("error %v", err)
	}

	// An older listing is not believed any more.
	inv.asOf, inv.list = day(6), map[string]coldstore.Archive{"f": archive("f", day(1))}
	if res, err = sync(true); err != nil || !res.Older {
		t.Errorf("%+v, %v", res, err)
	}
	expect("a", "new")

	inv.asOf, inv.list = day(9), map[string]coldstore.Archive{"new": {ID: "new", Size: 11, Created: day(2.1)}}
	if _, err = sync(false); failure.KindOf(err) != failure.Partial {
		t.Fatalf("error %v", err)
	}
	if got := found.of(reconcile.Different); !slices.Equal(got, []string{"new"}) || live(t, d, vault)["new"].Size != 10 {
		t.Errorf("different: %v", got)
	}
	_, err = sync(true)
	ok(t, err)
	expect("new")
	if live(t, d, vault)["new"].Size != 11 {
		t.Error("the fix was not made")
	}
}

func TestSyncWaits(t *testing.T) {
	t.Parallel()
	d := openCatalog(t)
	inv := &inventory{lag: 48 * time.Hour, err: fmt.Errorf("in hours: %w", coldstore.ErrNotReady), asOf: day(1)}
	var slept time.Duration
	o := reconcile.Options{Catalog: d, Store: inv, Vault: vault, Now: func() time.Time { return day(2) }}
	_, err := reconcile.Sync(t.Context(), o)
	if failure.KindOf(err) != failure.NotReady {
		t.Fatalf("error %v", err)
	}
	o.Wait = true
	o.Sleep = func(_ context.Context, p time.Duration) error {
		if slept += p; slept > 4*time.Hour {
			inv.err = nil
		}
		return nil
	}
	_, err = reconcile.Sync(t.Context(), o)
	ok(t, err)
	if inv.asks > 40 {
		t.Errorf("asked %d times in four hours", inv.asks)
	}
}

// TestSettles: an upload whose completion was in doubt is found in the listing, and one that was made twice is an orphan.
func TestSettles(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	d := openCatalog(t)
	const setid, snap = "01JZZZZZZZZZZZZZZZZZZZZZZ0", "01JZZZZZZZZZZZZZZZZZZZZZZ1"
	ok(t, d.PutSet(ctx, catalog.Set{ID: setid, Name: "s", Host: "h", Vault: vault}))
	h := manifest.Header{SetID: setid, Snap: snap, N: 1, At: day(1), Made: day(1), Kind: snapshot.Full, Stream: "tar", Compress: "zstd", Encrypt: "age"}
	ok(t, d.Begin(ctx, catalog.Snapshot{ID: snap, SetID: setid, N: 1, Kind: snapshot.Full, At: day(1), Made: day(1), Vault: vault, Header: h}))
	w, err := d.EntryWriter(ctx, snap)
	ok(t, err)
	ok(t, w.PutPending(ctx, catalog.Pending{Snap: snap, UploadID: "u", Volume: manifest.Volume{N: 1, Size: 10, TreeHash: [32]byte{1, 'v'}}}))
	desc := manifest.Describe(&h, 1).String()
	v, twice := archive("v1", day(1)), archive("w", day(1))
	v.Description, twice.Description = desc, desc
	inv := &inventory{asOf: day(2), lag: 48 * time.Hour, list: map[string]coldstore.Archive{"v1": v, "w": twice}}
	var found findings
	locked := 0
	o := reconcile.Options{Catalog: d, Store: inv, Vault: vault, Now: func() time.Time { return day(3) }, Observe: &found,
		LockSet: func(ctx context.Context, s catalog.Set) (context.Context, func(), error) {
			if locked++; locked == 1 {
				return nil, nil, failure.Errorf(failure.Locked, "a backup is running")
			}
			return ctx, func() {}, nil
		}}
	for range 3 {
		found = nil
		_, err = reconcile.Sync(ctx, o)
		ok(t, err)
		if got := found.of(reconcile.Orphan); !slices.Equal(got, []string{"w"}) {
			t.Errorf("orphans: %v", got)
		}
		want := []string{"v1"}
		if locked != 2 {
			want = nil
		} else {
			locked++
		}
		if got := found.of(reconcile.Settled); !slices.Equal(got, want) {
			t.Errorf("settled: %v, want %v", got, want)
		}
	}
	vol, err := d.Volume(ctx, snap, 1)
	ok(t, err)
	if vol.Archive != "v1" {
		t.Errorf("the volume is archive %q", vol.Archive)
	}
}

// TestNothingIsLost: whatever uploads, deletions and listings, stale ones too, follow each
// other, what was uploaded here and not deleted here is known, and what was deleted here does not come back.
func TestNothingIsLost(t *testing.T) {
	t.Parallel()
	d := openCatalog(t)
	cases := 0
	rapid.Check(t, func(t *rapid.T) {
		cases++
		url := fmt.Sprint(vault, cases)
		ctx := context.Background()
		now := day(0)
		own, deletedHere, there := map[string]bool{}, map[string]time.Time{}, map[string]coldstore.Archive{}
		seenGone := map[string]bool{}
		var history []*inventory
		n := 0
		for range rapid.IntRange(1, 30).Draw(t, "steps") {
			now = now.Add(time.Duration(rapid.IntRange(1, 72).Draw(t, "hours")) * time.Hour)
			pick := func() string {
				if len(there) == 0 {
					return ""
				}
				return rapid.SampledFrom(ids(there)).Draw(t, "archive")
			}
			switch rapid.SampledFrom([]string{"upload", "upload elsewhere", "delete", "delete elsewhere", "list", "sync", "sync"}).Draw(t, "step") {
			case "upload":
				n++
				id := fmt.Sprint("own", n)
				own[id], there[id] = true, archive(id, now)
				ok(t, d.PutArchive(ctx, catalog.ArchiveRecord{Vault: url, Archive: there[id], UploadedAt: now}))
			case "upload elsewhere":
				n++
				id := fmt.Sprint("foreign", n)
				there[id] = archive(id, now)
			case "delete":
				if id := pick(); id != "" {
					delete(there, id)
					deletedHere[id] = now
					ok(t, d.ArchiveDeleted(ctx, url, id, now))
				}
			case "delete elsewhere":
				if id := pick(); id != "" {
					delete(there, id)
					seenGone[id] = true
				}
			case "list":
				history = append(history, &inventory{asOf: now, list: maps.Clone(there), lag: 48 * time.Hour})
			case "sync":
				if len(history) == 0 {
					continue
				}
				inv := rapid.SampledFrom(history).Draw(t, "listing")
				var found findings
				_, err := reconcile.Sync(ctx, reconcile.Options{Catalog: d, Store: inv, Vault: url, Now: func() time.Time { return now }, Observe: &found})
				if err != nil && failure.KindOf(err) != failure.Partial {
					t.Fatalf("%v", err)
				}
				for _, f := range found {
					if f.Kind != reconcile.Gone || !seenGone[f.Archive] {
						t.Fatalf("%v, though nobody else deleted it", f)
					}
				}
				got := live(t, d, url)
				for id := range own {
					_, known := got[id]
					if _, deleted := deletedHere[id]; known == deleted {
						t.Fatalf("%s: known %v, deleted here %v", id, known, deleted)
					}
				}
				for id, a := range got {
					if _, deleted := deletedHere[id]; deleted {
						t.Fatalf("%s came back", id)
					}
					if a.Size != 10 || a.TreeHash != archive(id, now).TreeHash {
						t.Fatalf("%s is %+v", id, a)
					}
				}
			}
		}
		// In the end, a listing of long after tells of everything.
		now = now.Add(1000 * time.Hour)
		var found findings
		_, err := reconcile.Sync(ctx, reconcile.Options{Catalog: d, Store: &inventory{asOf: now, list: there, lag: 48 * time.Hour}, Vault: url,
			Now: func() time.Time { return now }, Observe: &found, Fix: true})
		ok(t, err)
		if got := live(t, d, url); !slices.Equal(ids(got), ids(there)) {
			t.Fatalf("known are %v, there are %v", ids(got), ids(there))
		}
		for id := range seenGone {
			if own[id] && !slices.Contains(found.of(reconcile.Gone), id) {
				t.Fatalf("%s disappeared, and nobody was told", id)
			}
		}
	})
}

// damagedVault lists what is not damaged and says so of the rest.
type damagedVault struct {
	inventory
	damaged string
}

func (d *damagedVault) List(ctx context.Context, fn func(coldstore.Archive) error) (time.Time, error) {
	asOf, err := d.inventory.List(ctx, fn)
	if err == nil {
		err = fmt.Errorf("archive %s: %w", d.damaged, coldstore.ErrIntegrity)
	}
	return asOf, err
}

func (d *damagedVault) Stat(_ context.Context, id string) (coldstore.Archive, error) {
	switch a, there := d.list[id]; {
	case id == d.damaged:
		return a, coldstore.ErrIntegrity
	case !there:
		return a, coldstore.ErrNotFound
	default:
		return a, nil
	}
}

// TestSyncOfADamagedVault: what is damaged has not disappeared, even with Fix.
func TestSyncOfADamagedVault(t *testing.T) {
	t.Parallel()
	d := openCatalog(t)
	v := &damagedVault{inventory: inventory{asOf: day(2), list: map[string]coldstore.Archive{"b": archive("b", day(1))}}, damaged: "a"}
	for _, id := range []string{"a", "c"} {
		ok(t, d.PutArchive(t.Context(), catalog.ArchiveRecord{Vault: vault, Archive: archive(id, day(1)), UploadedAt: day(1)}))
	}
	var found findings
	_, err := reconcile.Sync(t.Context(), reconcile.Options{Catalog: d, Store: v, Vault: vault, Now: func() time.Time { return day(2) }, Fix: true, Observe: &found})
	if failure.KindOf(err) != failure.Damaged {
		t.Fatalf("error %v", err)
	}
	if got := ids(live(t, d, vault)); !slices.Equal(got, []string{"a", "b"}) {
		t.Errorf("known are %v", got)
	}
	if !slices.Equal(found.of(reconcile.Damaged), []string{"a"}) || !slices.Equal(found.of(reconcile.Gone), []string{"c"}) {
		t.Errorf("found %v", found)
	}
}

package catalogtest

import (
	"fmt"
	"testing"
	"time"

	"github.com/firn-backup/firn/internal/catalog"
	"github.com/firn-backup/firn/internal/failure"
	"github.com/firn-backup/firn/internal/snapshot"
	"github.com/firn-backup/firn/treehash"
)

func item(set, path string, n uint64) catalog.Item {
	return catalog.Item{
		SetID: set, Path: path, N: n, Vault: vaultURL, Archive: catalog.ArchiveRef{Archive: fmt.Sprintf("a-%q%d", path, n), Size: 7, TreeHash: treehash.Sum([]byte(path))},
		Stored: epoch().AddDate(0, 0, int(n)), Plain: 9, PlainHash: treehash.Sum([]byte("plain")), State: [32]byte{byte(n)},
		ItemMore: catalog.ItemMore{Name: path + "\xff", Desc: "mt2 x", Mode: 0o600, MTime: snapshot.Time{Sec: 5, Nsec: 6}},
	}
}

func testItems(t *testing.T, target Target) {
	d := &db{target(t)(2), t, t.Context()} // pages of two
	set := catalog.Set{ID: "01ARZ3NDEKTSV4RRFFQ69G5FAV", Name: "m", Host: "h", Kind: "mirror", Vault: vaultURL, Created: epoch()}
	d.ok(d.PutSet(d.ctx, set))
	list := func(q catalog.ItemQuery) []catalog.Item {
		t.Helper()
		var out []catalog.Item
		d.ok(d.Items(d.ctx, set.ID, q, func(i catalog.Item) error { out = append(out, i); return nil }))
		return out
	}
	names := func(q catalog.ItemQuery) string {
		t.Helper()
		out := ""
		for _, i := range list(q) {
			out += fmt.Sprintf("%s:%d-%d ", i.Path, i.N, i.Until)
		}
		return out
	}
	paths := []string{"a", "a/b\xfe", "a/c", "a.b", "z"} // in the order of paths
	for _, p := range paths {
		d.ok(d.PutItemUpload(d.ctx, catalog.ItemUpload{Item: item(set.ID, p, 1), UploadID: "u", Begun: epoch()}))
	}
	ups, err := d.ItemUploads(d.ctx, set.ID)
	d.ok(err)
	d.same(item(set.ID, "a/b\xfe", 1), ups[1].Item)
	for _, p := range paths {
		d.ok(d.ItemStored(d.ctx, item(set.ID, p, 1)))
	}
	ups, err = d.ItemUploads(d.ctx, set.ID)
	d.ok(err)
	d.same(0, len(ups))
	d.same(item(set.ID, "a", 1), list(catalog.ItemQuery{})[0])
	d.ok(d.ItemStored(d.ctx, item(set.ID, "a/c", 2)))
	d.ok(d.ItemStored(d.ctx, item(set.ID, "a/c", 2))) // again
	d.ok(d.ItemsGone(d.ctx, set.ID, 3, []string{"z", "nothing"}))
	d.same("a:1-0 a/b\xfe:1-0 a/c:2-0 a.b:1-0 ", names(catalog.ItemQuery{}))
	d.same("a:1-0 a/b\xfe:1-0 a/c:1-2 a.b:1-0 z:1-3 ", names(catalog.ItemQuery{At: 1}))
	d.same("a:1-0 a/b\xfe:1-0 a/c:2-0 a.b:1-0 z:1-3 ", names(catalog.ItemQuery{At: 2}))
	d.same("a/c:1-2 a/c:2-0 ", names(catalog.ItemQuery{All: true, Under: []string{"a/c"}}))
	d.same("a:1-0 a/b\xfe:1-0 a/c:2-0 ", names(catalog.ItemQuery{Under: []string{"a"}}))
	d.same("a/c:1-2 z:1-3 ", names(catalog.ItemQuery{Ended: true}))

	by, err := d.NeededBy(d.ctx, vaultURL, `a-"z"1`)
	d.ok(err)
	d.same("item "+set.ID, by)
	gone := list(catalog.ItemQuery{Ended: true})[1]
	d.ok(d.ItemDeleted(d.ctx, gone, epoch()))
	by, err = d.NeededBy(d.ctx, vaultURL, `a-"z"1`)
	d.ok(err)
	d.same("", by)
	rec, err := d.ArchiveByID(d.ctx, vaultURL, `a-"z"1`)
	d.ok(err)
	d.same(epoch(), rec.DeletedAt)
	d.same("a/c:1-2 ", names(catalog.ItemQuery{Ended: true}))

	seen := item(set.ID, "a", 1)
	seen.State, seen.Mode = [32]byte{9}, 0o644
	d.ok(d.ItemsSeen(d.ctx, []catalog.Item{seen}))
	got, err := d.CurrentItem(d.ctx, set.ID, "a")
	d.ok(err)
	d.same(seen, got)
	_, err = d.CurrentItem(d.ctx, set.ID, "z")
	d.kind(failure.NotFound, err)

	run := catalog.ItemRun{SetID: set.ID, N: 3, ID: "01ARZ3NDEKTSV4RRFFQ69G5FAX", Vault: vaultURL, At: epoch(), New: 2}
	d.ok(d.PutItemRun(d.ctx, run))
	run.Index, run.IndexFrom = catalog.ArchiveRef{Archive: "ix", Size: 3}, 2
	d.ok(d.ItemsListed(d.ctx, run, "firn/1 x", epoch().Add(time.Hour)))
	runs, err := d.ItemRuns(d.ctx, set.ID)
	d.ok(err)
	d.same([]catalog.ItemRun{run}, runs)
	one, err := d.ItemRunByID(d.ctx, run.ID)
	d.ok(err)
	d.same(run, one)
	_, err = d.ItemRunByID(d.ctx, "x")
	d.kind(failure.NotFound, err)
	got, err = d.CurrentItem(d.ctx, set.ID, "a/c")
	d.ok(err)
	d.same(uint64(3), got.Listed)
	n := 0
	d.ok(d.ItemArchives(d.ctx, vaultURL, nil, func(catalog.Item) error { n++; return nil }))
	d.same(5, n)
	by, err = d.NeededBy(d.ctx, vaultURL, "ix")
	d.ok(err)
	d.same(run.ID, by)
	// An archive that is known to be gone is no version's any more, nor an index a run's, whoever deleted it.
	d.ok(d.ArchivesDeleted(d.ctx, vaultURL, []string{`a-"a"1`, "ix"}, epoch()))
	got, err = d.CurrentItem(d.ctx, set.ID, "a")
	d.ok(err)
	d.same(epoch(), got.Deleted)
	by, err = d.NeededBy(d.ctx, vaultURL, "ix")
	d.ok(err)
	d.same("", by)
	d.ok(d.ItemsUnlisted(d.ctx, run))
	got, err = d.CurrentItem(d.ctx, set.ID, "a/c")
	d.ok(err)
	d.same(uint64(0), got.Listed)
	one, err = d.ItemRunByID(d.ctx, run.ID)
	d.ok(err)
	d.same(true, one.IndexGone)
	d.ok(d.RemoveSet(d.ctx, set.ID))
	d.same("", names(catalog.ItemQuery{All: true}))
}

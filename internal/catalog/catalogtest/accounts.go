package catalogtest

import (
	"slices"
	"testing"
	"time"

	"github.com/firn-backup/firn/internal/catalog"
	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/internal/failure"
)

func testAccounts(t *testing.T, target Target) {
	d := openDB(t, target)
	for _, want := range []string{"", "111122223333", "444455556666"} {
		if want != "" {
			d.ok(d.PutAccount(d.ctx, "caller", want))
		}
		got, err := d.Account(d.ctx, "caller")
		d.ok(err)
		if got != want {
			t.Errorf("account is %q, want %q", got, want)
		}
	}
}

func testCalled(t *testing.T, target Target) {
	d := openDB(t, target)
	put := func(vault, id, name, description string, created int) {
		t.Helper()
		d.ok(d.PutArchive(d.ctx, catalog.ArchiveRecord{Vault: vault, Name: name, Archive: coldstore.Archive{
			ID: id, Description: description, Size: 1, Created: epoch().Add(time.Duration(created) * time.Hour)}}))
	}
	put("dir:/v", "a", "", "x", 3)
	put("dir:/v", "b", "x", "x", 1)
	put("dir:/v", "c", "x\xff", "x%FF", 2)
	put("dir:/w", "d", "x", "x", 4)
	put("dir:/a", "e", "", "", 4)
	called := func(name string, descriptions ...string) []string {
		t.Helper()
		list, err := d.ArchivesCalled(d.ctx, "dir:/v", name, descriptions...)
		d.ok(err)
		ids := []string{}
		for _, r := range list {
			ids = append(ids, r.ID)
		}
		return ids
	}
	for _, c := range []struct{ got, want []string }{
		{called("x", "x"), []string{"b", "a"}},
		{called("x\xff", "x%FF"), []string{"c"}},
		{called("", "x%FF", "x"), []string{"c", "b", "a"}},
		{called(""), []string{}},
		{called("y", "y"), []string{}},
	} {
		if !slices.Equal(c.got, c.want) {
			t.Errorf("got %q, want %q", c.got, c.want)
		}
	}
	vaults, err := d.Vaults(d.ctx)
	d.ok(err)
	if want := []string{"dir:/a", "dir:/v", "dir:/w"}; !slices.Equal(vaults, want) {
		t.Errorf("vaults are %q, want %q", vaults, want)
	}
}

func testDeletions(t *testing.T, target Target) {
	d := openDB(t, target)
	was := func(vault, id, description string) bool {
		t.Helper()
		is, err := d.WasDeleted(d.ctx, vault, id, description)
		d.ok(err)
		return is
	}
	d.ok(d.RememberDeleted(d.ctx, "dir:/v", "a", "x", epoch()))
	d.ok(d.RememberDeleted(d.ctx, "dir:/v", "a", "x", epoch()))
	if !was("dir:/v", "a", "-") || !was("dir:/v", "-", "x") || was("dir:/w", "a", "x") || was("dir:/v", "x", "a") {
		t.Error("what was deleted is not what is remembered")
	}
	d.ok(d.VaultMade(d.ctx, "dir:/v", epoch().Add(time.Hour)))
	if was("dir:/v", "a", "x") {
		t.Error("a vault made anew has deletions of the one before")
	}
	l, err := d.LastListing(d.ctx, "dir:/v")
	d.ok(err)
	if want := epoch().Add(time.Hour); !l.AsOf.Equal(want) || l.Archives != 0 {
		t.Errorf("a vault made has listing %+v", l)
	}
}

func testAdopt(t *testing.T, target Target) {
	d := openDB(t, target)
	at := func(h int) time.Time { return epoch().Add(time.Duration(h) * time.Hour) }
	r := func(id string, deleted int) catalog.ArchiveRecord {
		r := catalog.ArchiveRecord{Vault: "dir:/v", Archive: coldstore.Archive{ID: id, Description: "adopted"}, SeenAsOf: at(1)}
		if deleted > 0 {
			r.DeletedAt = at(deleted)
		}
		return r
	}
	own := catalog.ArchiveRecord{Vault: "dir:/v", Archive: coldstore.Archive{ID: "own", Description: "mine", Size: 7}, UploadedAt: at(5)}
	d.ok(d.PutArchive(d.ctx, own))
	older := own
	older.ID, older.UploadedAt = "older", at(2)
	d.ok(d.PutArchive(d.ctx, older))
	var many []catalog.ArchiveRecord
	many = append(many, r("own", 4), r("older", 4), r("gone", 3))
	for i := range 1500 {
		many = append(many, r("n"+time.Duration(i).String(), 0))
	}
	for _, want := range []int64{1501, 0} {
		n, err := d.AdoptArchives(d.ctx, many)
		d.ok(err)
		if n != want {
			t.Errorf("%d are new, want %d", n, want)
		}
	}
	for id, deleted := range map[string]time.Time{"own": {}, "older": at(4), "gone": at(3)} {
		got, err := d.ArchiveByID(d.ctx, "dir:/v", id)
		d.ok(err)
		if !got.DeletedAt.Equal(deleted) {
			t.Errorf("%s was deleted at %s, want %s", id, got.DeletedAt, deleted)
		}
		if id != "gone" && (got.Size != 7 || got.Description != "mine") {
			t.Errorf("%s is %+v now", id, got)
		}
	}
	if _, err := d.AdoptArchives(d.ctx, []catalog.ArchiveRecord{{}}); failure.KindOf(err) != failure.Usage {
		t.Errorf("a record of nothing: %v", err)
	}
}

func testQuestions(t *testing.T, target Target) {
	d := openDB(t, target)
	when := func(want time.Time) {
		t.Helper()
		at, err := d.WhenAsked(d.ctx, "dir:/v", "x")
		d.ok(err)
		if !at.Equal(want) {
			t.Errorf("asked at %s, want %s", at, want)
		}
	}
	when(time.Time{})
	d.ok(d.Asked(d.ctx, "dir:/v", "x", epoch()))
	d.ok(d.Asked(d.ctx, "dir:/v", "x", epoch().Add(time.Hour)))
	d.ok(d.Asked(d.ctx, "dir:/w", "x", epoch().Add(9000*time.Hour)))
	when(epoch())
	d.ok(d.Answered(d.ctx, "dir:/v", "x"))
	d.ok(d.Answered(d.ctx, "dir:/v", "x"))
	when(time.Time{})
	d.ok(d.Asked(d.ctx, "dir:/v", "x", epoch()))
	d.ok(d.Asked(d.ctx, "dir:/v", "y", epoch().Add(9000*time.Hour)))
	when(time.Time{})
}

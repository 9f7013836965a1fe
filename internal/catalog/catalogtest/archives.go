package catalogtest

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/firn-backup/firn/internal/catalog"
	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/internal/failure"
	"github.com/firn-backup/firn/internal/manifest"
)

const vaultURL = "glacier://eu-west-1/v"

func (d *db) archives(vault string) []catalog.ArchiveRecord {
	d.t.Helper()
	var list []catalog.ArchiveRecord
	d.ok(d.FindArchives(d.ctx, vault, nil, func(r catalog.ArchiveRecord) error {
		list = append(list, r)
		return nil
	}))
	return list
}

func (d *db) same(want, got any) {
	d.t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		d.t.Fatalf("(-want +got):\n%s", diff)
	}
}

func record(vault, id string, day int) catalog.ArchiveRecord {
	return catalog.ArchiveRecord{Vault: vault, Archive: coldstore.Archive{ID: id, Created: epoch().AddDate(0, 0, day)}}
}

func testArchives(t *testing.T, target Target) {
	d := &db{target(t)(3), t, t.Context()} // pages of three
	full := filled[catalog.ArchiveRecord](t)
	full.Vault = vaultURL
	d.ok(d.PutArchive(d.ctx, full))
	got, err := d.ArchiveByID(d.ctx, vaultURL, full.ID)
	d.ok(err)
	d.same(full, got)
	_, err = d.ArchiveByID(d.ctx, "dir:/v", full.ID)
	d.kind(failure.NotFound, err)
	full.Name = "new"
	d.ok(d.PutArchive(d.ctx, full)) // replaces
	d.same([]catalog.ArchiveRecord{full}, d.archives(vaultURL))

	var want []catalog.ArchiveRecord
	for i := range 10 { // three a day; the ids against the order of days
		r := record("dir:/w", fmt.Sprint("id", 9-i/3, i%3), i/3)
		if i == 0 {
			r.Created = time.Time{}
		}
		want = append(want, r)
		d.ok(d.PutArchive(d.ctx, r))
	}
	d.same(want, d.archives("dir:/w"))
	var some []catalog.ArchiveRecord
	d.ok(d.FindArchives(d.ctx, "dir:/w", func(r catalog.ArchiveRecord) bool { return r.ID > "id8" }, func(r catalog.ArchiveRecord) error {
		some = append(some, r)
		return d.ArchiveDeleted(d.ctx, r.Vault, r.ID, epoch()) // fn may write
	}))
	d.same(want[:6], some)
	stop := errors.New("stop")
	if err := d.FindArchives(d.ctx, "dir:/w", nil, func(catalog.ArchiveRecord) error { return stop }); err != stop {
		t.Errorf("error %v", err)
	}
	d.kind(failure.Usage, d.PutArchive(d.ctx, catalog.ArchiveRecord{}))
	d.ok(d.ForgetVault(d.ctx, "dir:/w"))
	d.same([]catalog.ArchiveRecord(nil), d.archives("dir:/w"))
	d.same([]catalog.ArchiveRecord{full}, d.archives(vaultURL))
}

func testArchiveDeleted(t *testing.T, target Target) {
	d := openDB(t, target)
	last := func(want time.Time) {
		t.Helper()
		got, err := d.LastDeletion(d.ctx, vaultURL)
		d.ok(err)
		d.same(want, got)
	}
	last(time.Time{})
	r := record(vaultURL, "a", 1)
	d.ok(d.PutArchive(d.ctx, r))
	at := epoch().Add(time.Hour)
	d.ok(d.ArchiveDeleted(d.ctx, vaultURL, "a", at))
	d.ok(d.ArchivesDeleted(d.ctx, vaultURL, []string{"unknown", "b"}, at.Add(time.Second)))
	r.DeletedAt = at
	got, err := d.ArchiveByID(d.ctx, vaultURL, "a")
	d.ok(err)
	d.same(r, got)
	got, err = d.ArchiveByID(d.ctx, vaultURL, "unknown")
	d.ok(err)
	d.same(catalog.ArchiveRecord{Vault: vaultURL, Archive: coldstore.Archive{ID: "unknown"}, DeletedAt: at.Add(time.Second)}, got)
	last(at.Add(time.Second))
	d.kind(failure.Usage, d.ArchiveDeleted(d.ctx, vaultURL, "a", time.Time{}))
}

// listing takes in a listing of archives and calls fn with what is known of each.
func (d *db) listing(vault string, asOf time.Time, list []coldstore.Archive, fn func(l *catalog.Listing, s catalog.ArchiveState)) {
	d.t.Helper()
	l, err := d.NewListing(d.ctx, vault)
	d.ok(err)
	for _, a := range list {
		d.ok(l.Add(d.ctx, a))
	}
	d.ok(l.Added(d.ctx, asOf))
	d.ok(l.Compare(d.ctx, func(s catalog.ArchiveState) error {
		fn(l, s)
		return nil
	}))
	d.ok(l.End(d.ctx, asOf.Add(time.Hour)))
}

func testListing(t *testing.T, target Target) {
	d := &db{target(t)(3), t, t.Context()}
	d.set("A")
	s := attempt("A", "S", 1, "")
	s.Vault = vaultURL
	d.ok(d.Begin(d.ctx, s))
	d.ok(d.PutVolume(d.ctx, "S", &manifest.Volume{N: 1, Archive: "v05"}))
	d.ok(d.FinishStored(d.ctx, "S", manifest.Hash{1}, catalog.ArchiveRef{Archive: "v04x"}, catalog.Totals{}))
	var list []coldstore.Archive
	for i := 9; i >= 0; i-- {
		list = append(list, coldstore.Archive{ID: fmt.Sprintf("v%02d", i), Description: "d", Size: 2, TreeHash: [32]byte{byte(i)}, Created: epoch()})
	}
	list = append(list, list[0]) // twice
	for i := 5; i < 20; i += 2 {
		d.ok(d.PutArchive(d.ctx, record(vaultURL, fmt.Sprintf("v%02d", i), 1)))
	}
	var ids []string
	d.listing(vaultURL, epoch(), list, func(l *catalog.Listing, s catalog.ArchiveState) {
		ids = append(ids, s.ID)
		if (s.Listed != nil) != (s.ID < "v10" && s.ID != "v04x") || (s.Record != nil) != (s.ID >= "v05" && (s.ID[2]-'0')%2 == 1) || s.Current {
			t.Errorf("%s: %v, %v, %v", s.ID, s.Listed, s.Record, s.Current)
		}
		if (s.Snapshot == "S") != (s.ID == "v05" || s.ID == "v04x") {
			t.Errorf("%s is of snapshot %q", s.ID, s.Snapshot)
		}
		if s.Listed != nil && s.Record == nil {
			d.ok(l.Apply(d.ctx, []catalog.ArchiveChange{{Record: catalog.ArchiveRecord{Vault: vaultURL, Archive: *s.Listed, SeenAsOf: epoch()}}}))
		}
		if s.Listed == nil && s.Record != nil {
			d.ok(l.Apply(d.ctx, []catalog.ArchiveChange{{Was: s.Record, Drop: true}}))
		}
	})
	d.same([]string{"v00", "v01", "v02", "v03", "v04", "v04x", "v05", "v06", "v07", "v08", "v09", "v11", "v13", "v15", "v17", "v19"}, ids)
	v, err := d.LastListing(d.ctx, vaultURL)
	d.ok(err)
	d.same(catalog.VaultListing{AsOf: epoch(), Taken: epoch().Add(time.Hour), Archives: 10, Bytes: 20}, v)
	if n := len(d.archives(vaultURL)); n != 10 {
		t.Errorf("%d archives are known", n)
	}

	// What is in the next listing again needs no change to be of that.
	next := epoch().Add(time.Minute)
	d.listing(vaultURL, next, list, func(_ *catalog.Listing, s catalog.ArchiveState) {
		if s.Record != nil && s.Current != s.Record.SeenAsOf.Equal(epoch()) {
			t.Errorf("%s: current %v, seen %v", s.ID, s.Current, s.Record.SeenAsOf)
		}
	})
	r, err := d.ArchiveByID(d.ctx, vaultURL, "v02")
	d.ok(err)
	d.same(next, r.SeenAsOf)
	by, err := d.NeededBy(d.ctx, vaultURL, "v05")
	d.ok(err)
	d.same("S", by)
	if by, err = d.NeededBy(d.ctx, vaultURL, "v06"); err != nil || by != "" {
		t.Errorf("%q, %v", by, err)
	}
	var needed []string
	d.ok(d.NeededArchives(d.ctx, vaultURL, func(a, s string) error {
		needed = append(needed, a+" "+s)
		return nil
	}))
	d.same([]string{"v04x S", "v05 S"}, needed)
}

// testListingMeanwhile: an upload or a deletion while a listing is taken in is not lost.
func testListingMeanwhile(t *testing.T, target Target) {
	d := openDB(t, target)
	at := epoch().Add(time.Hour)
	for _, id := range []string{"a", "b"} {
		d.ok(d.PutArchive(d.ctx, record(vaultURL, id, 0)))
	}
	mine := record(vaultURL, "c", 0)
	mine.UploadedAt, mine.Name = at, "mine"
	d.listing(vaultURL, epoch(), []coldstore.Archive{{ID: "a"}, {ID: "c"}}, func(l *catalog.Listing, s catalog.ArchiveState) {
		changed := catalog.ArchiveRecord{Vault: vaultURL, Archive: coldstore.Archive{ID: s.ID}, SeenAsOf: epoch()}
		switch s.ID {
		case "a": // deleted meanwhile
			d.ok(d.ArchiveDeleted(d.ctx, vaultURL, "a", at))
			d.ok(l.Apply(d.ctx, []catalog.ArchiveChange{{Was: s.Record, Record: changed}}))
		case "b": // uploaded meanwhile
			r := record(vaultURL, "b", 0)
			r.UploadedAt = at
			d.ok(d.PutArchive(d.ctx, r))
			d.ok(l.Apply(d.ctx, []catalog.ArchiveChange{{Was: s.Record, Drop: true}}))
		case "c": // uploaded meanwhile, and not known before
			d.ok(d.PutArchive(d.ctx, mine))
			d.ok(l.Apply(d.ctx, []catalog.ArchiveChange{{Record: changed}}))
		}
	})
	got := d.archives(vaultURL)
	if len(got) != 3 || got[0].DeletedAt != at || got[1].UploadedAt != at {
		t.Errorf("%+v", got)
	}
	d.same(mine, got[2])
}

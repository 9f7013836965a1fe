package catalogtest

import (
	"errors"
	"testing"
	"time"

	"github.com/firn-backup/firn/internal/catalog"
	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/internal/manifest"
	"github.com/firn-backup/firn/internal/snapshot"
)

// adopted is a snapshot of another program.
func adopted(set, id, base, archive string, day int) catalog.Adopted {
	s := attempt(set, id, 0, base)
	s.Header.Stream, s.Header.Compress, s.Header.Encrypt = "btrfs", "gzip", "openpgp"
	s.At, s.Made, s.Adopted, s.ManifestHash, s.Vault = epoch().AddDate(0, 0, day), epoch().AddDate(0, 0, day), "btrsend", manifest.Hash{1, byte(day)}, "vault"
	return catalog.Adopted{Snapshot: s, Archive: catalog.ArchiveRef{Archive: archive, Size: int64(100 + day), Stored: s.At}}
}

// Snapshots of another program come first, by date; they take numbers that Firn's own do not want.
func testAdoptSnapshots(t *testing.T, target Target) {
	d := openDB(t, target)
	d.set("set1")
	stream := func(id string, n uint64, base string) {
		s := attempt("set1", id, n, base)
		s.Header.Stream = "btrfs"
		d.ok(d.Begin(d.ctx, s))
		d.finish(id)
	}
	stream("own1", 1, "")
	list := []catalog.Adopted{
		adopted("set1", "a1", "", "arch1", 1), adopted("set1", "a2", "a1", "arch2", 2),
		adopted("set1", "o1", "nowhere", "arch3", 3), adopted("set1", "o2", "nowhere", "arch4", 4), adopted("set1", "o3", "o2", "arch5", 5),
	}
	list[1].Archive.Size = 0 // a listing knows
	for _, want := range []int64{5, 0} {
		n, err := d.AdoptSnapshots(d.ctx, list)
		d.ok(err)
		d.same(want, n)
	}
	stream("own2", 2, "a2") // a2 has that number, or a1: they give way
	stream("own3", 3, "own2")
	ids := func() (ids []string) {
		snaps, err := d.Snapshots(d.ctx, "set1")
		d.ok(err)
		numbers := map[uint64]bool{}
		for _, s := range snaps {
			ids = append(ids, s.ID)
			numbers[s.N] = true
		}
		d.same(len(snaps), len(numbers))
		return ids
	}
	d.same([]string{"a1", "a2", "o1", "o2", "o3", "own1", "own2", "own3"}, ids())
	s, err := d.Snapshot(d.ctx, "own3")
	d.ok(err)
	d.same("a1", s.Chain)
	s, err = d.Snapshot(d.ctx, "o3")
	d.ok(err)
	d.same("o1", s.Chain)
	d.same("btrsend", s.Adopted)
	d.same(manifest.Hash{1, 5}, s.ManifestHash)
	d.same(time.Duration(0), s.ManifestPart.Stored.Sub(s.At))

	vols, err := d.Volumes(d.ctx, "a2")
	d.ok(err)
	d.same(int64(0), vols[0].Size)
	_, err = d.AdoptArchives(d.ctx, []catalog.ArchiveRecord{{Vault: s.Vault, Archive: coldstore.Archive{ID: "arch2", Size: 77, TreeHash: [32]byte{9}}}})
	d.ok(err)
	vol, err := d.Volume(d.ctx, "a2", 1)
	d.ok(err)
	d.same(int64(77), vol.Size)
	d.same(byte(9), vol.TreeHash[0])

	// Another set that was made of the same archive keeps it.
	d.set("set2")
	_, err = d.AdoptSnapshots(d.ctx, []catalog.Adopted{adopted("set2", "b1", "", "arch1", 1)})
	d.ok(err)
	if err := d.DropSnapshot(d.ctx, "a2"); err == nil {
		t.Error("a snapshot was dropped that another builds on")
	}
	d.ok(d.ForgetChain(d.ctx, []string{"a1", "a2", "own2", "own3"}))
	d.same(1, countArchive(d, "set1", "arch2"))
	d.same(0, countArchive(d, "set1", "arch1"))
	d.ok(d.ForgetChain(d.ctx, []string{"o1", "o2", "o3"}))
	d.same([]string{"own1"}, ids())
	if err := d.ForgetChain(d.ctx, []string{"own1"}); !errors.Is(err, catalog.ErrInUse) {
		t.Errorf("the only chain was forgotten: %v", err)
	}
	bad := adopted("set1", "x", "", "arch9", 1)
	bad.Kind = snapshot.Incremental
	if _, err := d.AdoptSnapshots(d.ctx, []catalog.Adopted{bad}); err == nil {
		t.Error("an incremental without a base was adopted")
	}
}

func countArchive(d *db, set, archive string) (n int) {
	d.ok(d.Doomed(d.ctx, set, func(x catalog.Doomed) error {
		if x.Archive == archive {
			n++
		}
		return nil
	}))
	return n
}

package catalogtest

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/firn-backup/firn/internal/catalog"
	"github.com/firn-backup/firn/internal/failure"
	"github.com/firn-backup/firn/internal/manifest"
)

func (d *db) doomed(set string) []string {
	d.t.Helper()
	var list []string
	d.ok(d.Doomed(d.ctx, set, func(x catalog.Doomed) error {
		list = append(list, fmt.Sprintf("%s of %s %v %d", x.Archive, x.Snap, x.Manifest, x.Size))
		return nil
	}))
	return list
}

// storedWithVolumes is stored, with volumes.
func (d *db) storedWithVolumes(set, id string, n uint64, base string, vols int) {
	d.t.Helper()
	d.begin(set, id, n, base)
	w := d.writer(id)
	d.put(w, int64(n), fmt.Sprint("file", n))
	for v := 1; v <= vols; v++ {
		d.ok(w.PutPending(d.ctx, catalog.Pending{Snap: id, Volume: testVolume(v), Check: catalog.Checkpoint{Path: fmt.Sprint("file", n), Started: true}}))
		d.ok(d.VolumeStored(d.ctx, id, v, fmt.Sprintf("%s.%d", id, v)))
	}
	d.ok(d.FinishStored(d.ctx, id, manifest.Hash{1}, catalog.ArchiveRef{Archive: "m" + id, Size: 7, Stored: epoch().Add(time.Hour)}, catalog.Totals{}))
}

func testForgetChain(t *testing.T, target Target) {
	d := openDB(t, target)
	d.set("A")
	d.storedWithVolumes("A", "a1", 1, "", 2)
	d.storedWithVolumes("A", "a2", 2, "a1", 1)
	if err := d.ForgetChain(d.ctx, []string{"a1", "a2"}); !errors.Is(err, catalog.ErrInUse) {
		t.Errorf("the only chain is forgotten: %v", err)
	}
	d.storedWithVolumes("A", "a3", 3, "", 1)
	if d.ForgetChain(d.ctx, []string{"a1"}) == nil || d.ForgetChain(d.ctx, []string{"a1", "a3"}) == nil || d.ForgetChain(d.ctx, nil) == nil {
		t.Error("other snapshots than the chain has are forgotten")
	}
	d.begin("A", "a4", 4, "a2")
	if err := d.ForgetChain(d.ctx, []string{"a1", "a2"}); !errors.Is(err, catalog.ErrInUse) {
		t.Errorf("the chain of an attempt is forgotten: %v", err)
	}
	_, err := d.Discard(d.ctx, "a4")
	d.ok(err)
	if list := d.doomed("A"); len(list) != 0 {
		t.Errorf("%v", list)
	}
	s, err := d.Snapshot(d.ctx, "a2")
	d.ok(err)
	if !s.ManifestPart.Stored.Equal(epoch().Add(time.Hour)) {
		t.Errorf("stored %s", s.ManifestPart.Stored)
	}
	d.ok(d.ForgetChain(d.ctx, []string{"a2", "a1"}))
	d.kind(failure.NotFound, d.ForgetChain(d.ctx, []string{"a2", "a1"}))
	size := testVolume(1).Size
	want := []string{"ma2 of a2 true 7", "ma1 of a1 true 7", fmt.Sprintf("a2.1 of a2 false %d", size), fmt.Sprintf("a1.1 of a1 false %d", size),
		fmt.Sprintf("a1.2 of a1 false %d", testVolume(2).Size)}
	if diff := cmp.Diff(want, d.doomed("A")); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	_, err = d.Snapshot(d.ctx, "a1")
	d.kind(failure.NotFound, err)
	if diff := cmp.Diff([]string{"file3"}, d.paths("a3", catalog.Query{})); diff != "" {
		t.Errorf("another chain (-want +got):\n%s", diff)
	}
	// What is acknowledged goes while the list is read.
	d.ok(d.Doomed(d.ctx, "A", func(x catalog.Doomed) error {
		if x.Archive == "ma1" && !x.Stored.Equal(epoch().Add(time.Hour)) {
			t.Errorf("%+v", x)
		}
		return d.DoomedGone(d.ctx, []int64{x.Num})
	}))
	if list := d.doomed("A"); len(list) != 0 {
		t.Errorf("%v", list)
	}
}

func testAbandon(t *testing.T, target Target) {
	d := openDB(t, target)
	d.set("A")
	d.stored("A", "a1", 1, "", "a")
	d.begin("A", "a2", 2, "a1")
	w := d.writer("a2")
	d.put(w, 2, "b")
	d.ok(w.PutPending(d.ctx, catalog.Pending{Snap: "a2", Volume: testVolume(1), Check: catalog.Checkpoint{Path: "b", Started: true}}))
	d.ok(d.VolumeStored(d.ctx, "a2", 1, "v"))
	if _, err := d.Abandon(d.ctx, "a1", epoch()); err == nil {
		t.Error("a snapshot was abandoned")
	}
	vols, err := d.Abandon(d.ctx, "a2", epoch())
	d.ok(err)
	if len(vols) != 1 || vols[0].Archive != "v" {
		t.Errorf("%v", vols)
	}
	if diff := cmp.Diff([]string{fmt.Sprintf("v of a2 false %d", testVolume(1).Size)}, d.doomed("A")); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	_, err = d.Snapshot(d.ctx, "a2")
	d.kind(failure.NotFound, err)
}

func testAddDoomed(t *testing.T, target Target) {
	d := openDB(t, target)
	x := catalog.Doomed{Vault: "dir:/v", Archive: "x", SetID: "A", Snap: "s", Size: 3, Stored: epoch()}
	m := catalog.Doomed{Vault: "dir:/v", Archive: "m", SetID: "A", Snap: "s", Manifest: true}
	other := catalog.Doomed{Vault: "dir:/w", Archive: "x", SetID: "B"}
	d.ok(d.AddDoomed(d.ctx, []catalog.Doomed{x, other, m, x}))
	if diff := cmp.Diff([]string{"m of s true 0", "x of s false 3"}, d.doomed("A")); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if d.AddDoomed(d.ctx, []catalog.Doomed{{Archive: "x"}}) == nil {
		t.Error("a record without a vault is taken")
	}
	for _, c := range []struct {
		vault, archive string
		want           bool
	}{{"dir:/v", "x", true}, {"dir:/w", "x", true}, {"dir:/w", "m", false}} {
		got, err := d.IsDoomed(d.ctx, c.vault, c.archive)
		d.ok(err)
		if got != c.want {
			t.Errorf("%v: %v", c, got)
		}
	}
}

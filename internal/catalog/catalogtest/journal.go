package catalogtest

import (
	"crypto/sha256"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/firn-backup/firn/internal/catalog"
	"github.com/firn-backup/firn/internal/codec"
	"github.com/firn-backup/firn/internal/failure"
	"github.com/firn-backup/firn/internal/manifest"
	"github.com/firn-backup/firn/internal/snapshot"
	"github.com/firn-backup/firn/treehash"
)

func testPendingRoundTrip(t *testing.T, target Target) {
	d := openDB(t, target)
	d.set("A")
	d.begin("A", "a1", 1, "")
	w := d.writer("a1")
	p := filled[catalog.Pending](t)
	p.Snap, p.Volume.N, p.Check.Volume, p.Check.Path = "a1", 5, 5, "dir/\xff"
	m := catalog.Pending{Snap: "a1", UploadID: "u", Name: "n"} // the manifest: all else zero
	d.ok(w.PutPending(d.ctx, p))
	d.ok(w.PutPending(d.ctx, m))
	d.ok(w.PutPending(d.ctx, m)) // replaces
	got, err := d.PendingOf(d.ctx, "a1")
	d.ok(err)
	if diff := cmp.Diff([]catalog.Pending{m, p}, got); diff != "" {
		t.Errorf("pending (-want +got):\n%s", diff)
	}
	if w.PutPending(d.ctx, catalog.Pending{Snap: "a2", Volume: manifest.Volume{N: 1}}) == nil {
		t.Error("a pending upload of another attempt was taken")
	}
	d.ok(d.DropPending(d.ctx, "a1", 5))
	d.ok(d.DropPending(d.ctx, "a1", 5))
	got, err = d.PendingOf(d.ctx, "a1")
	d.ok(err)
	if len(got) != 1 || got[0].Volume.N != 0 {
		t.Errorf("pending are %v", got)
	}
	d.finish("a1")
	got, err = d.PendingOf(d.ctx, "a1")
	d.ok(err)
	if len(got) != 0 {
		t.Errorf("a stored snapshot has pending uploads %v", got)
	}
}

func testVolume(n int) manifest.Volume {
	sum := sha256.Sum256([]byte{byte(n)})
	v := manifest.Volume{N: n, Archive: fmt.Sprintf("archive %d", n), Size: 1 << 40, TreeHash: treehash.Hash{byte(n)},
		Raw: int64(n) << 33, RawSHA256: &sum, Header: []byte("header"), Tail: []byte{0, 1}}
	for i := range 300 {
		v.Leaves = append(v.Leaves, treehash.Hash{byte(i), byte(i >> 8)})
		v.Frames = append(v.Frames, codec.Frame{Raw: 4 << 20, Packed: int64(i) << 20})
	}
	return v
}

func testVolumeStored(t *testing.T, target Target) {
	d := openDB(t, target)
	d.set("A")
	d.begin("A", "a1", 1, "")
	w := d.writer("a1")
	v := testVolume(1)
	d.ok(w.Put(d.ctx, file("f", 1)))
	d.ok(w.PutPending(d.ctx, catalog.Pending{Snap: "a1", Volume: v, Check: catalog.Checkpoint{Volume: 1, Path: "f", Started: true}}))
	if diff := cmp.Diff([]string{"f"}, d.paths("a1", catalog.Query{})); diff != "" {
		t.Errorf("entries put before PutPending (-want +got):\n%s", diff)
	}
	vols, err := d.Volumes(d.ctx, "a1")
	d.ok(err)
	if len(vols) != 0 {
		t.Errorf("a pending volume counts: %v", vols)
	}
	c, err := d.CheckpointOf(d.ctx, "a1")
	d.ok(err)
	if diff := cmp.Diff(catalog.Checkpoint{}, c); diff != "" {
		t.Errorf("checkpoint without a volume (-want +got):\n%s", diff)
	}
	d.kind(failure.NotFound, d.VolumeStored(d.ctx, "a1", 2, "x"))
	d.kind(failure.NotFound, d.VolumeStored(d.ctx, "a2", 1, "x"))
	d.ok(d.VolumeStored(d.ctx, "a1", 1, "real"))
	d.ok(d.VolumeStored(d.ctx, "a1", 1, "real"))
	if d.VolumeStored(d.ctx, "a1", 1, "other") == nil {
		t.Error("one volume in two archives")
	}
	v.Archive = "real"
	one, err := d.Volume(d.ctx, "a1", 1)
	d.ok(err)
	if diff := cmp.Diff(v, one); diff != "" {
		t.Errorf("volume (-want +got):\n%s", diff)
	}
	v.Leaves = nil
	vols, err = d.Volumes(d.ctx, "a1")
	d.ok(err)
	if diff := cmp.Diff([]manifest.Volume{v}, vols); diff != "" {
		t.Errorf("volumes (-want +got):\n%s", diff)
	}
	c, err = d.CheckpointOf(d.ctx, "a1")
	d.ok(err)
	if diff := cmp.Diff(catalog.Checkpoint{Volume: 1, Path: "f", Started: true}, c); diff != "" {
		t.Errorf("checkpoint (-want +got):\n%s", diff)
	}
	_, err = d.Volume(d.ctx, "a1", 2)
	d.kind(failure.NotFound, err)
	_, err = d.Volumes(d.ctx, "a2")
	d.kind(failure.NotFound, err)
	_, err = d.CheckpointOf(d.ctx, "a2")
	d.kind(failure.NotFound, err)
}

func testVolumesOutOfOrder(t *testing.T, target Target) {
	d := openDB(t, target)
	d.set("A")
	d.begin("A", "a1", 1, "")
	w := d.writer("a1")
	paths := []string{"", "a", "b", "c"}
	for n := 1; n <= 3; n++ {
		d.ok(w.Put(d.ctx, file(paths[n], 1)))
		d.ok(w.PutPending(d.ctx, catalog.Pending{Snap: "a1", Volume: manifest.Volume{N: n},
			Check: catalog.Checkpoint{Path: paths[n], Started: true}}))
	}
	check := func(want int) {
		t.Helper()
		c, err := d.CheckpointOf(d.ctx, "a1")
		d.ok(err)
		if c.Volume != want || c.Path != paths[want] {
			t.Errorf("checkpoint is %+v, want that of volume %d", c, want)
		}
	}
	d.ok(d.VolumeStored(d.ctx, "a1", 3, "3"))
	check(0)
	d.ok(d.VolumeStored(d.ctx, "a1", 1, "1"))
	check(1)
	d.ok(d.Rewind(d.ctx, "a1"))
	check(1)
	if diff := cmp.Diff([]string{"a"}, d.paths("a1", catalog.Query{})); diff != "" {
		t.Errorf("entries after rewinding to volume 1 (-want +got):\n%s", diff)
	}
	vols, err := d.Volumes(d.ctx, "a1")
	d.ok(err)
	pend, err := d.PendingOf(d.ctx, "a1")
	d.ok(err)
	if len(vols) != 1 || len(pend) != 0 {
		t.Errorf("left are %d volumes and %d pending, want 1 and 0", len(vols), len(pend))
	}
}

func testPutVolume(t *testing.T, target Target) {
	d := openDB(t, target)
	d.set("A")
	d.begin("A", "a1", 1, "")
	for _, n := range []int{2, 1, 2} {
		v := testVolume(n)
		d.ok(d.PutVolume(d.ctx, "a1", &v))
	}
	bare := manifest.Volume{N: 3}
	d.ok(d.PutVolume(d.ctx, "a1", &bare))
	for n, want := range map[int]manifest.Volume{1: testVolume(1), 2: testVolume(2), 3: bare} {
		got, err := d.Volume(d.ctx, "a1", n)
		d.ok(err)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("volume %d (-want +got):\n%s", n, diff)
		}
	}
	c, err := d.CheckpointOf(d.ctx, "a1")
	d.ok(err)
	if c.Volume != 0 {
		t.Errorf("checkpoint %+v of volumes without any", c)
	}
	d.kind(failure.NotFound, d.PutVolume(d.ctx, "a2", &bare))
}

func testRewind(t *testing.T, target Target) {
	for _, c := range []struct {
		name  string
		check *catalog.Checkpoint // nil: no volume is stored
		left  []string            // of the base a, b, b/x, c and the attempt's changes
		sizes []int64
	}{
		{"nothing stored", nil, []string{"a", "b", "b/x", "c"}, []int64{1, 1, 1, 1}},
		{"not started", &catalog.Checkpoint{}, []string{"a", "b", "b/x", "c"}, []int64{1, 1, 1, 1}},
		{"after b", &catalog.Checkpoint{Path: "b", Started: true}, []string{"b", "b/x", "c"}, []int64{2, 1, 1}},
		{"in b", &catalog.Checkpoint{Path: "b", Started: true, InFile: true}, []string{"b", "b/x", "c"}, []int64{1, 1, 1}},
		{"after b/x", &catalog.Checkpoint{Path: "b/x", Started: true}, []string{"b", "b/x", "c"}, []int64{2, 2, 1}},
		{"at the end", &catalog.Checkpoint{Path: "d", Started: true}, []string{"b", "b/x", "d"}, []int64{2, 2, 2}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			d := openDB(t, target)
			d.set("A")
			d.stored("A", "a1", 1, "", "a", "b", "b/x", "c")
			d.begin("A", "a2", 2, "a1")
			w := d.writer("a2")
			d.ok(w.Delete(d.ctx, "a"))
			d.ok(w.Problem(d.ctx, snapshot.Problem{Path: "a", Reason: "r"}))
			d.put(w, 2, "b", "b/x")
			d.ok(w.Problem(d.ctx, snapshot.Problem{Path: "b", Reason: "r"}))
			d.ok(w.Delete(d.ctx, "c"))
			d.put(w, 2, "d")
			d.ok(w.Problem(d.ctx, snapshot.Problem{Path: "d", Reason: "r"}))
			d.ok(w.Flush(d.ctx))
			problems := 0
			if c.check != nil {
				d.ok(w.PutPending(d.ctx, catalog.Pending{Snap: "a2", Volume: manifest.Volume{N: 1}, Check: *c.check}))
				d.ok(d.VolumeStored(d.ctx, "a2", 1, "v"))
				for _, p := range []string{"a", "b", "d"} {
					cmp := snapshot.ComparePaths(p, c.check.Path)
					if c.check.Started && (cmp < 0 || cmp == 0 && !c.check.InFile) {
						problems++
					}
				}
			}
			for range 2 { // doing it again changes nothing
				d.ok(d.Rewind(d.ctx, "a2"))
				var paths []string
				var sizes []int64
				for _, e := range d.entries("a2", catalog.Query{}) {
					paths, sizes = append(paths, e.Path), append(sizes, e.Size)
				}
				if diff := cmp.Diff(c.left, paths); diff != "" {
					t.Errorf("paths (-want +got):\n%s", diff)
				}
				if diff := cmp.Diff(c.sizes, sizes); diff != "" {
					t.Errorf("sizes (-want +got):\n%s", diff)
				}
				list, err := d.Problems(d.ctx, "a2")
				d.ok(err)
				if len(list) != problems {
					t.Errorf("problems are %v, want %d", list, problems)
				}
			}
			d.finish("a2")
			if d.Rewind(d.ctx, "a2") == nil {
				t.Error("a stored snapshot was rewound")
			}
		})
	}
}

package restore_test

import (
	"fmt"
	"path/filepath"
	"testing"

	"github.com/firn-backup/firn/internal/backup"
	"github.com/firn-backup/firn/internal/restore/restoretest"
)

func TestDryRunTouchesNothing(t *testing.T) {
	t.Parallel()
	w := restoretest.New(t, "zstd:1", "age", 0)
	w.Fill()
	snap := w.Backup()
	o := w.RestoreOptions(snap, filepath.Join(w.Dir, "to"))
	o.DryRun, o.Store = true, nil
	res := run(t, o)
	nothingAt(t, o.To)
	if res.Plan.Archives < 4 || res.Plan.Read < 700_000 || res.Plan.Files != 28 {
		t.Errorf("%+v", res.Plan)
	}
	o.Paths = []string{w.Tree + "/zz-last"}
	if part := run(t, o).Plan; part.Archives != 1 || part.Read >= res.Plan.Read/2 {
		t.Errorf("%+v", part)
	}
}

// TestOneFileIsCheap: a file of 1 MiB out of a large snapshot.
func TestOneFileIsCheap(t *testing.T) {
	t.Parallel()
	w := restoretest.New(t, "zstd:1", "age", 0)
	for i := range 64 {
		w.Write(fmt.Sprintf("f%02d", i), restoretest.Noise(byte(i), 1<<20))
	}
	snap := w.Backup(func(o *backup.Options) { o.VolumeSize, o.FrameSize = 0, 0 })
	for i := 0; i < 64; i += 5 {
		to := filepath.Join(w.Dir, fmt.Sprint("to", i))
		o := w.RestoreOptions(snap, to)
		o.Paths = []string{fmt.Sprintf("%s/f%02d", w.Tree, i)}
		if res := run(t, o); res.Read >= 4<<20 {
			t.Errorf("file %d: read %d bytes", i, res.Read)
		}
	}
}

// TestNothingIsReadTwice: that the keys open a small archive, whose end the manifest does not keep, is known from its header.
func TestNothingIsReadTwice(t *testing.T) {
	t.Parallel()
	w := restoretest.New(t, "zstd:1", "age", 0)
	for i := range 3 {
		w.Write(fmt.Sprintf("f%d", i), restoretest.Noise(byte(i), 10_000))
	}
	whole := func(o *backup.Options) { o.VolumeSize, o.FrameSize = 0, 0 }
	var sizes []int64 // of the volumes of both snapshots
	snap := w.Backup(whole)
	for range 2 {
		vols, err := w.DB.Volumes(ctx, snap.ID)
		w.Must(err)
		sizes = append(sizes, vols[0].Size)
		if len(sizes) < 2 {
			w.Write("new", restoretest.Noise(9, 10_000))
			snap = w.Backup(whole)
		}
	}
	for i, tc := range []struct {
		paths []string
		most  int64
	}{{nil, sizes[0] + sizes[1]}, {[]string{w.Tree + "/f1"}, sizes[0]}} {
		o := w.RestoreOptions(snap, filepath.Join(w.Dir, fmt.Sprint("to", i)))
		o.Paths = tc.paths
		if res := run(t, o); res.Read > tc.most {
			t.Errorf("%d bytes were read of %d", res.Read, tc.most)
		}
	}
}

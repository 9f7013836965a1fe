package sqlite_test

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/firn-backup/firn/internal/catalog"
	"github.com/firn-backup/firn/internal/catalog/sqlite"
	"github.com/firn-backup/firn/internal/manifest"
	"github.com/firn-backup/firn/internal/mustrun"
	"github.com/firn-backup/firn/internal/snapshot"
)

// TestFullDisk: where the disk is full, that is said, and what was stored before is still there.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	mustrun.Root(t)
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=4m"); err != nil {
		mustrun.Skip(t, "cannot mount a small file system: "+err.Error())
	}
	defer func() { must(t, unix.Unmount(dir, unix.MNT_DETACH)) }()
	path := filepath.Join(dir, "catalog.db")
	ctx := t.Context()
	d, err := sqlite.Open(ctx, path, sqlite.Options{})
	must(t, err)
	makeTree(t, d, 1000)
	must(t, d.Begin(ctx, catalog.Snapshot{ID: "s2", SetID: "A", N: 2, Kind: snapshot.Incremental, Base: "s1"}))
	w, err := d.EntryWriter(ctx, "s2")
	must(t, err)
	for i := 0; err == nil; i++ {
		e := treeEntry(i, 2)
		err = w.Put(ctx, &e)
	}
	if !strings.Contains(err.Error(), "no space left for the catalog "+path) {
		t.Errorf("error is %v", err)
	}
	if w.PutPending(ctx, catalog.Pending{Snap: "s2", Volume: manifest.Volume{N: 1}}) == nil {
		t.Error("a pending upload after entries were lost")
	}
	must(t, d.Close())

	d, err = sqlite.Open(ctx, path, sqlite.Options{})
	must(t, err)
	n := 0
	must(t, d.Entries(ctx, "s1", catalog.Query{Order: catalog.ByContent}, func(e snapshot.Entry) error {
		if e.Path != treeEntry(int(e.Ino)-5_000_000, 1).Path {
			return fmt.Errorf("entry %q", e.Path)
		}
		n++
		return nil
	}))
	if n != 1000 {
		t.Errorf("%d entries are left, want 1000", n)
	}
	must(t, d.Close())
}

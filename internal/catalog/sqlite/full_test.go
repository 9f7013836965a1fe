package sqlite_test

import (
	"fmt"
	"os"
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

// TestFullDiskReads: where there is no room for anything, what is known can be read, with what is only in the log.
func TestFullDiskReads(t *testing.T) {
	t.Parallel()
	mustrun.Root(t)
	ctx := t.Context()
	from := t.TempDir()
	d, err := sqlite.Open(ctx, filepath.Join(from, "catalog.db"), sqlite.Options{})
	must(t, err)
	makeTree(t, d, 100) // which is in the log alone, as a kill would leave it
	names := []string{"catalog.db", "catalog.db-wal", "catalog.db-shm"}
	for _, n := range []int{3, 2, 1} { // killed; killed, and the index lost; closed
		dir := t.TempDir()
		if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=1m"); err != nil {
			mustrun.Skip(t, "cannot mount a small file system: "+err.Error())
		}
		defer func() { must(t, unix.Unmount(dir, unix.MNT_DETACH)) }()
		if n == 1 {
			must(t, d.Close())
		}
		readFull(t, from, dir, names[:n])
	}
}

// readFull copies a catalog's files to dir, which is on a small file system, fills that, and reads the catalog.
func readFull(t *testing.T, from, dir string, names []string) {
	t.Helper()
	for _, n := range names {
		b, err := os.ReadFile(filepath.Join(from, n))
		must(t, err)
		must(t, os.WriteFile(filepath.Join(dir, n), b, 0o600))
	}
	fill, err := os.Create(filepath.Join(dir, "fill"))
	must(t, err)
	for b := make([]byte, 4096); err == nil; {
		_, err = fill.Write(b)
	}
	must(t, fill.Close())
	d, err := sqlite.Open(t.Context(), filepath.Join(dir, "catalog.db"), sqlite.Options{})
	must(t, err)
	n := 0
	must(t, d.Entries(t.Context(), "s1", catalog.Query{}, func(snapshot.Entry) error { n++; return nil }))
	if n != 100 {
		t.Errorf("%v: %d entries", names, n)
	}
	if err := d.PutSet(t.Context(), catalog.Set{ID: "B", Name: "B"}); err == nil || !strings.Contains(err.Error(), "no space left") {
		t.Errorf("%v: a set was recorded: %v", names, err)
	}
	must(t, d.Close())
}

// TestFullDiskOpens: there is no room to make a catalog, which is said once, in one line, and in no other words.
func TestFullDiskOpens(t *testing.T) {
	t.Parallel()
	mustrun.Root(t)
	for _, size := range []string{"120k", "200k"} {
		dir := t.TempDir()
		if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size="+size); err != nil {
			mustrun.Skip(t, "cannot mount a small file system: "+err.Error())
		}
		defer func() { must(t, unix.Unmount(dir, unix.MNT_DETACH)) }()
		path := filepath.Join(dir, "catalog.db")
		d, err := sqlite.Open(t.Context(), path, sqlite.Options{})
		if err == nil {
			must(t, d.Close())
			t.Fatal("a catalog has room in " + size)
		}
		text := err.Error()
		if !strings.HasPrefix(text, "open catalog: no space left for ") || strings.Count(text, path) != 1 || strings.Contains(text, "transaction") || strings.Contains(text, "\n") {
			t.Errorf("%s: %s", size, text)
		}
	}
}

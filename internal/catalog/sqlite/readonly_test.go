package sqlite_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/firn-backup/firn/internal/catalog"
	"github.com/firn-backup/firn/internal/catalog/sqlite"
	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/internal/mustrun"
	"github.com/firn-backup/firn/internal/snapshot"
)

// readOnlyCopy copies files of dir into a directory on a file system that is read-only.
func readOnlyCopy(t *testing.T, dir string, names ...string) string {
	t.Helper()
	mustrun.Root(t)
	to := t.TempDir()
	for _, n := range names {
		b, err := os.ReadFile(filepath.Join(dir, n))
		must(t, err)
		must(t, os.WriteFile(filepath.Join(to, n), b, 0o600))
	}
	if err := unix.Mount(to, to, "", unix.MS_BIND, ""); err != nil {
		mustrun.Skip(t, "cannot mount: "+err.Error())
	}
	t.Cleanup(func() { must(t, unix.Unmount(to, unix.MNT_DETACH)) })
	must(t, unix.Mount("", to, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""))
	return filepath.Join(to, "catalog.db")
}

func TestReadOnly(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	dir := t.TempDir()
	d := open(t, filepath.Join(dir, "catalog.db"), 0)
	makeTree(t, d, 100)
	known := catalog.SavedRetrieval{Vault: "v", Retrieval: coldstore.Retrieval{Token: "old", Archive: "a", Requested: time.Unix(1, 0).UTC()}}
	must(t, d.PutRetrieval(ctx, known))
	look := func(path string) *catalog.DB {
		t.Helper()
		r, err := sqlite.Open(ctx, path, sqlite.Options{})
		must(t, err)
		t.Cleanup(func() { must(t, r.Close()) })
		n := 0
		must(t, r.Entries(ctx, "s1", catalog.Query{}, func(snapshot.Entry) error { n++; return nil }))
		if n != 100 || !r.ReadOnly() || d.ReadOnly() {
			t.Errorf("%d entries; read-only: %v", n, r.ReadOnly())
		}
		return r
	}
	// With the log of a process that was killed.
	look(readOnlyCopy(t, dir, "catalog.db", "catalog.db-wal", "catalog.db-shm"))
	// Its index gone too, that is not to be had: it is said, and not read without the log.
	if r, err := sqlite.Open(ctx, readOnlyCopy(t, dir, "catalog.db", "catalog.db-wal"), sqlite.Options{}); err == nil {
		if got, err := r.Snapshots(ctx, "A"); err == nil && len(got) != 1 {
			t.Errorf("the log was left out: %v", got)
		}
		must(t, r.Close())
	}
	must(t, d.Close())
	r := look(readOnlyCopy(t, dir, "catalog.db"))
	// What cannot be written.
	if err := r.PutSet(ctx, catalog.Set{ID: "B", Name: "B"}); !errors.Is(err, catalog.ErrReadOnly) {
		t.Errorf("a set was recorded: %v", err)
	}
	must(t, r.PutRun(ctx, catalog.Run{ID: "run"}))
	// What is remembered as long as it is open.
	list := func(want ...string) {
		t.Helper()
		got, err := r.Retrievals(ctx, "v", "a")
		must(t, err)
		if len(got) != len(want) {
			t.Fatalf("%v, want %v", got, want)
		}
		for i := range got {
			if got[i].Token != want[i] {
				t.Errorf("%v, want %v", got, want)
			}
		}
	}
	list("old")
	fresh := known
	fresh.Token, fresh.Requested = "new", time.Unix(2, 0).UTC()
	must(t, r.PutRetrieval(ctx, fresh))
	fresh.Archive, fresh.Token = "b", "other"
	must(t, r.PutRetrieval(ctx, fresh))
	list("old", "new")
	must(t, r.DropRetrieval(ctx, "v", "old"))
	list("new")
	must(t, r.DropRetrieval(ctx, "v", "new"))
	list()
}

// An old catalog that cannot be brought up to date is not half read.
func TestReadOnlyOld(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	d := open(t, filepath.Join(dir, "catalog.db"), 0)
	must(t, d.Close())
	execSQL(t, filepath.Join(dir, "catalog.db"), "PRAGMA user_version = 1")
	if d, err := sqlite.Open(t.Context(), readOnlyCopy(t, dir, "catalog.db"), sqlite.Options{}); err == nil {
		t.Error("an old catalog was opened")
		must(t, d.Close())
	}
}

package sqlite_test

import (
	"bytes"
	"context"
	"database/sql"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/firn-backup/firn/internal/catalog"
	"github.com/firn-backup/firn/internal/catalog/sqlite"
	"github.com/firn-backup/firn/internal/failure"
	"github.com/firn-backup/firn/internal/snapshot"
)

func TestForTheUsersEyesOnly(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "a", "b")
	d := open(t, filepath.Join(dir, "catalog.db"), 0)
	must(t, d.PutSet(t.Context(), catalog.Set{ID: "A", Name: "A"}))
	for name, want := range map[string]os.FileMode{"": 0o700, "catalog.db": 0o600, "catalog.db-wal": 0o600, "catalog.db-shm": 0o600} {
		fi, err := os.Stat(filepath.Join(dir, name))
		must(t, err)
		if fi.Mode().Perm() != want {
			t.Errorf("%q has mode %o, want %o", name, fi.Mode().Perm(), want)
		}
	}
	list, err := os.ReadDir(dir)
	must(t, err)
	if len(list) != 3 {
		t.Errorf("the directory holds %v", list)
	}
}

func TestAnyName(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, name := range []string{"a b?mode=ro&x=1", "100%41#frag", "ü\xff", "'\"", ":memory:", "file:x", "a;b"} {
		path := filepath.Join(dir, name)
		d, err := sqlite.Open(t.Context(), path, sqlite.Options{})
		must(t, err)
		must(t, d.PutSet(t.Context(), catalog.Set{ID: "A", Name: name}))
		must(t, d.Close())
		if fi, err := os.Stat(path); err != nil || fi.Size() == 0 {
			t.Errorf("%q: the file is elsewhere: %v", name, err)
		}
	}
	list, err := os.ReadDir(dir)
	must(t, err)
	if len(list) != 7 {
		t.Errorf("the directory holds %v", list)
	}
}

// execSQL runs statements on a file, as another program would.
func execSQL(t *testing.T, path string, stmts ...string) {
	t.Helper()
	raw, err := sql.Open("sqlite", path)
	must(t, err)
	defer raw.Close()
	for _, s := range stmts {
		if _, err := raw.Exec(s); err != nil {
			t.Fatalf("%s: %v", s, err)
		}
	}
}

func refused(t *testing.T, path string, kind failure.Kind, words ...string) {
	t.Helper()
	before, err := os.ReadFile(path)
	must(t, err)
	d, err := sqlite.Open(t.Context(), path, sqlite.Options{})
	if err == nil {
		d.Close()
		t.Fatal("opened")
	}
	if failure.KindOf(err) != kind {
		t.Errorf("error %q is of kind %d, want %d", err, failure.KindOf(err), kind)
	}
	for _, w := range append(words, path) {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("error %q does not say %q", err, w)
		}
	}
	after, err := os.ReadFile(path)
	must(t, err)
	if !bytes.Equal(before, after) {
		t.Error("the file was changed")
	}
}

func TestRefuses(t *testing.T) {
	t.Parallel()
	path := func(t *testing.T) string { return filepath.Join(t.TempDir(), "catalog.db") }
	t.Run("newer", func(t *testing.T) {
		p := path(t)
		must(t, open(t, p, 0).Close())
		execSQL(t, p, `PRAGMA user_version = 99`)
		refused(t, p, failure.Failed, "newer version of Firn")
	})
	t.Run("another program's", func(t *testing.T) {
		p := path(t)
		execSQL(t, p, `CREATE TABLE t (x)`)
		refused(t, p, failure.Usage, "another program")
	})
	t.Run("no database", func(t *testing.T) {
		p := path(t)
		must(t, os.WriteFile(p, bytes.Repeat([]byte("not a database\n"), 1000), 0o600))
		refused(t, p, failure.Damaged, "recover")
	})
	t.Run("damaged header", func(t *testing.T) {
		p := path(t)
		must(t, open(t, p, 0).Close())
		b, err := os.ReadFile(p)
		must(t, err)
		copy(b[100:], bytes.Repeat([]byte{0xff}, 2000)) // the table of tables
		must(t, os.WriteFile(p, b, 0o600))
		refused(t, p, failure.Damaged, "recover")
	})
	t.Run("directory", func(t *testing.T) {
		d, err := sqlite.Open(t.Context(), t.TempDir(), sqlite.Options{})
		if err == nil {
			d.Close()
			t.Error("a directory was opened")
		}
	})
}

// TestDamagedInside: what is found later is told in the same words.
func TestDamagedInside(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "catalog.db")
	d, err := sqlite.Open(t.Context(), path, sqlite.Options{})
	must(t, err)
	makeTree(t, d, 20_000)
	must(t, d.Close())
	b, err := os.ReadFile(path)
	must(t, err)
	for i := len(b) / 2 / 4096 * 4096; i < len(b); i += 4096 { // the begin of pages: the rest may be anything
		copy(b[i:], bytes.Repeat([]byte{0xff}, 50))
	}
	must(t, os.WriteFile(path, b, 0o600))
	d = open(t, path, 0)
	err = d.Entries(t.Context(), "s1", catalog.Query{}, func(snapshot.Entry) error { return nil })
	if failure.KindOf(err) != failure.Damaged || !strings.Contains(err.Error(), "recover") {
		t.Errorf("error is %v, want one of kind Damaged that says recover", err)
	}
}

// TestMigrateAtOnce: many begin with an empty file at the same time.
func TestMigrateAtOnce(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "catalog.db")
	must(t, os.WriteFile(path, nil, 0o600))
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			d, err := sqlite.Open(context.Background(), path, sqlite.Options{})
			if err != nil {
				t.Error(err)
				return
			}
			if err := d.PutSet(context.Background(), catalog.Set{ID: fmt.Sprint(i), Name: fmt.Sprint(i)}); err != nil {
				t.Error(err)
			}
			if err := d.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	sets, err := open(t, path, 0).Sets(t.Context())
	must(t, err)
	if len(sets) != 8 {
		t.Errorf("%d sets, want 8", len(sets))
	}
}

// TestWaits: a write waits for another's, gives up when it is told to, and says why.
func TestWaits(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "catalog.db")
	d := open(t, path, 0)
	raw, err := sql.Open("sqlite", path)
	must(t, err)
	defer raw.Close()
	raw.SetMaxOpenConns(1)
	_, err = raw.Exec(`BEGIN IMMEDIATE`)
	must(t, err)

	impatient, err := sqlite.Open(t.Context(), path, sqlite.Options{Wait: time.Millisecond})
	must(t, err)
	defer impatient.Close()
	err = impatient.PutSet(t.Context(), catalog.Set{ID: "A", Name: "A"})
	if failure.KindOf(err) != failure.Locked {
		t.Errorf("error is %v, want one of kind Locked", err)
	}
	if _, err := impatient.Sets(t.Context()); err != nil {
		t.Errorf("a reader waits for a writer: %v", err)
	}

	done := make(chan error)
	go func() { done <- d.PutSet(t.Context(), catalog.Set{ID: "A", Name: "A"}) }()
	select {
	case err := <-done:
		t.Fatalf("two writers at once: %v", err)
	case <-time.After(20 * time.Millisecond):
	}
	_, err = raw.Exec(`COMMIT`)
	must(t, err)
	must(t, <-done)
}

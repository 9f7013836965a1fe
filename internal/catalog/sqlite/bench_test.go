package sqlite_test

import (
	"context"
	"fmt"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/firn-backup/firn/internal/catalog"
	"github.com/firn-backup/firn/internal/catalog/sqlite"
	"github.com/firn-backup/firn/internal/manifest"
	"github.com/firn-backup/firn/internal/snapshot"
)

// treeEntry is entry i of a tree as trees are: 40 files a directory, paths of 60 bytes.
func treeEntry(i int, n uint64) snapshot.Entry {
	e := snapshot.Entry{
		Path: fmt.Sprintf("home/user/projects/%04d/src/module-%05d", i/4000, i/40), Type: snapshot.Dir, Mode: 0o755,
		UID: 1000, GID: 1000, User: "user", Group: "users", MTime: snapshot.Time{Sec: 1_700_000_000 + int64(i), Nsec: 123456789},
		CTime: snapshot.Time{Sec: 1_700_000_001 + int64(i), Nsec: 987654321}, Dev: 2049, Ino: 5_000_000 + uint64(i),
	}
	if i%40 == 0 {
		return e
	}
	e.Path = fmt.Sprintf("%s/file-name-%02d.txt", e.Path, i%40)
	e.Type, e.Mode, e.Size = snapshot.File, 0o644, int64(i%100_000)
	e.Content = snapshot.Content{N: n, Volume: 1 + i/100_000, Offset: int64(i%100_000) << 13, Stored: e.Size}
	e.Content.SHA256 = [32]byte{byte(i), byte(i >> 8), byte(i >> 16), 3, 31: 1}
	return e
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// makeTree makes a set with one stored snapshot of n entries.
func makeTree(t testing.TB, d *catalog.DB, n int) {
	t.Helper()
	ctx := context.Background()
	must(t, d.PutSet(ctx, catalog.Set{ID: "A", Name: "A"}))
	must(t, d.Begin(ctx, catalog.Snapshot{ID: "s1", SetID: "A", N: 1, Kind: snapshot.Full}))
	w, err := d.EntryWriter(ctx, "s1")
	must(t, err)
	for i := range n {
		e := treeEntry(i, 1)
		must(t, w.Put(ctx, &e))
	}
	must(t, w.Flush(ctx))
	must(t, d.FinishStored(ctx, "s1", manifest.Hash{}, catalog.ArchiveRef{}, catalog.Totals{}))
}

func benchDB(b *testing.B) *catalog.DB {
	return open(b, filepath.Join(b.TempDir(), "catalog.db"), 0)
}

func perRow(b *testing.B, rows int) {
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(rows), "ns/row")
}

func BenchmarkOpen(b *testing.B) {
	path := filepath.Join(b.TempDir(), "catalog.db")
	open(b, path, 0) // stays open: the log need not be replayed
	for b.Loop() {
		d, err := sqlite.Open(b.Context(), path, sqlite.Options{})
		must(b, err)
		if _, err := d.Sets(b.Context()); err != nil {
			b.Fatal(err)
		}
		must(b, d.Close())
	}
}

func BenchmarkPut(b *testing.B) {
	d := benchDB(b)
	ctx := b.Context()
	must(b, d.PutSet(ctx, catalog.Set{ID: "A", Name: "A"}))
	n := uint64(0)
	const rows = 200_000
	entries := make([]snapshot.Entry, rows)
	for i := range entries {
		entries[i] = treeEntry(i, 1)
	}
	for b.Loop() {
		n++
		id := fmt.Sprint("s", n)
		must(b, d.Begin(ctx, catalog.Snapshot{ID: id, SetID: "A", N: n, Kind: snapshot.Full}))
		w, err := d.EntryWriter(ctx, id)
		must(b, err)
		for i := range entries {
			must(b, w.Put(ctx, &entries[i]))
		}
		must(b, w.Flush(ctx))
		must(b, d.FinishStored(ctx, id, manifest.Hash{}, catalog.ArchiveRef{}, catalog.Totals{}))
	}
	perRow(b, rows)
}

// BenchmarkPutIncremental changes every entry of a tree, and discards it all.
func BenchmarkPutIncremental(b *testing.B) {
	const rows = 100_000
	benchChange(b, rows, func(ctx context.Context, w *catalog.EntryWriter, e *snapshot.Entry) error {
		e.Size++
		return w.Put(ctx, e)
	})
}

func BenchmarkDelete(b *testing.B) {
	benchChange(b, 100_000, func(ctx context.Context, w *catalog.EntryWriter, e *snapshot.Entry) error {
		return w.Delete(ctx, e.Path)
	})
}

func BenchmarkRefresh(b *testing.B) {
	benchChange(b, 100_000, func(ctx context.Context, w *catalog.EntryWriter, e *snapshot.Entry) error {
		e.CTime.Sec += time.Now().UnixNano() % 100_000
		return w.Refresh(ctx, e)
	})
}

func benchChange(b *testing.B, rows int, do func(context.Context, *catalog.EntryWriter, *snapshot.Entry) error) {
	d := benchDB(b)
	ctx := b.Context()
	makeTree(b, d, rows)
	for b.Loop() {
		must(b, d.Begin(ctx, catalog.Snapshot{ID: "s2", SetID: "A", N: 2, Kind: snapshot.Incremental, Base: "s1"}))
		w, err := d.EntryWriter(ctx, "s2")
		must(b, err)
		for i := range rows {
			e := treeEntry(i, 2)
			must(b, do(ctx, w, &e))
		}
		must(b, w.Flush(ctx))
		_, err = d.Discard(ctx, "s2")
		must(b, err)
	}
	perRow(b, rows)
}

// BenchmarkRows is the catalog's part in a run without changes.
func BenchmarkRows(b *testing.B) {
	d := benchDB(b)
	const rows = 100_000
	makeTree(b, d, rows)
	for b.Loop() {
		c, err := d.Rows(b.Context(), "s1", "")
		must(b, err)
		n := 0
		for {
			r, err := c.Next(b.Context())
			must(b, err)
			if r == nil {
				break
			}
			n++
		}
		must(b, c.Close())
		if n != rows {
			b.Fatal(n)
		}
	}
	perRow(b, rows)
}

func BenchmarkEntries(b *testing.B) {
	const rows = 1_000_000
	d := benchDB(b)
	makeTree(b, d, rows)
	for _, c := range []struct {
		name string
		q    catalog.Query
		rows int
	}{
		{"path", catalog.Query{}, rows},
		{"desc", catalog.Query{Order: catalog.ByPathDesc}, rows},
		{"content", catalog.Query{Order: catalog.ByContent}, rows},
		{"one", catalog.Query{Under: []string{treeEntry(777_777, 1).Path}}, 1},
		{"one-content", catalog.Query{Under: []string{treeEntry(777_777, 1).Path}, Order: catalog.ByContent}, 1},
	} {
		b.Run(c.name, func(b *testing.B) {
			for b.Loop() {
				n := 0
				must(b, d.Entries(b.Context(), "s1", c.q, func(snapshot.Entry) error { n++; return nil }))
				if n != c.rows {
					b.Fatal(n)
				}
			}
			perRow(b, c.rows)
		})
	}
	b.Run("find", func(b *testing.B) {
		for b.Loop() {
			must(b, d.Find(b.Context(), "A", func(string) bool { return false }, nil))
		}
		perRow(b, rows)
	})
	runtime.KeepAlive(d)
}

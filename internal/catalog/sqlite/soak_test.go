package sqlite_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/firn-backup/firn/internal/catalog"
	"github.com/firn-backup/firn/internal/manifest"
	"github.com/firn-backup/firn/internal/snapshot"
)

// soakMemory is what a process that does nothing but use the catalog may take, whatever the size of the tree.
const soakMemory = 128 << 20

// peak returns the most memory this process has had in RAM, in bytes.
func peak(t *testing.T) int64 {
	t.Helper()
	b, err := os.ReadFile("/proc/self/status")
	must(t, err)
	var kib int64
	_, rest, _ := strings.Cut(string(b), "VmHWM:")
	_, err = fmt.Sscan(rest, &kib)
	must(t, err)
	return kib << 10
}

// TestSoak does with ten million entries all that is done with a tree, and measures memory.
// It must run alone: FIRN_SOAK=1 go test -run TestSoak ./internal/catalog/sqlite.
func TestSoak(t *testing.T) {
	if os.Getenv("FIRN_SOAK") != "1" {
		t.Skip("FIRN_SOAK=1 runs it")
	}
	const rows = 10_000_000
	ctx := t.Context()
	path := filepath.Join(t.TempDir(), "catalog.db")
	d := open(t, path, 0)
	step := time.Now()
	tell := func(what string) {
		fi, err := os.Stat(path)
		must(t, err)
		log, err := os.Stat(path + "-wal")
		must(t, err)
		t.Logf("%-12s %6.1f s, peak memory %d MiB, file %d MiB, log %d MiB", what, time.Since(step).Seconds(), peak(t)>>20, fi.Size()>>20, log.Size()>>20)
		step = time.Now()
	}
	makeTree(t, d, rows)
	tell("full")
	begin := func() *catalog.EntryWriter {
		must(t, d.Begin(ctx, catalog.Snapshot{ID: "s2", SetID: "A", N: 2, Kind: snapshot.Incremental, Base: "s1"}))
		w, err := d.EntryWriter(ctx, "s2")
		must(t, err)
		return w
	}
	w := begin()
	c, err := d.Rows(ctx, "s1", "")
	must(t, err)
	n := 0
	for {
		r, err := c.Next(ctx)
		must(t, err)
		if r == nil {
			break
		}
		n++
		if n%100 == 0 {
			e, err := r.Entry()
			must(t, err)
			e.Size++
			must(t, w.Put(ctx, &e))
		}
	}
	must(t, c.Close())
	must(t, w.Flush(ctx))
	must(t, d.FinishStored(ctx, "s2", manifest.Hash{}, catalog.ArchiveRef{}, catalog.Totals{}))
	if n != rows {
		t.Errorf("%d rows", n)
	}
	tell("incremental")
	for name, o := range map[string]catalog.Order{"by path": catalog.ByPath, "descending": catalog.ByPathDesc, "by content": catalog.ByContent} {
		n := 0
		must(t, d.Entries(ctx, "s2", catalog.Query{Order: o}, func(snapshot.Entry) error { n++; return nil }))
		if n != rows {
			t.Errorf("%s: %d entries", name, n)
		}
		tell(name)
	}
	n = 0
	must(t, d.Changes(ctx, "s2", func(string, *snapshot.Entry) error { n++; return nil }))
	if n != rows/100 {
		t.Errorf("%d changes", n)
	}
	tell("changes")
	must(t, d.Find(ctx, "A", func(p string) bool { return strings.HasSuffix(p, "-07.txt") }, func(snapshot.Entry, string, uint64, uint64) error { return nil }))
	tell("find")
	must(t, d.DropSnapshot(ctx, "s2"))
	tell("drop")
	must(t, d.DropSnapshot(ctx, "s1"))
	tell("drop full")
	if p := peak(t); p > soakMemory {
		t.Errorf("peak memory is %d MiB", p>>20)
	}
}

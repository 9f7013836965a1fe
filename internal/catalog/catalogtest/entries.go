package catalogtest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/firn-backup/firn/internal/catalog"
	"github.com/firn-backup/firn/internal/failure"
	"github.com/firn-backup/firn/internal/snapshot"
)

func testWriterIsOfAnAttempt(t *testing.T, target Target) {
	d := openDB(t, target)
	d.set("A")
	d.begin("A", "a1", 1, "")
	w := d.writer("a1")
	d.finish("a1")
	if _, err := d.EntryWriter(d.ctx, "a1"); err == nil {
		t.Error("a writer of a stored snapshot")
	}
	_, err := d.EntryWriter(d.ctx, "a2")
	d.kind(failure.NotFound, err)
	if d.put2(w, "x") == nil {
		t.Error("written after the snapshot was stored")
	}
	if w.Flush(d.ctx) == nil {
		t.Error("the error is forgotten")
	}
}

// drawEntry draws an entry with anything in any field.
func drawEntry(t *rapid.T, path string) *snapshot.Entry {
	text := rapid.Map(rapid.SliceOfN(rapid.Byte(), 0, 6), func(b []byte) string { return string(b) })
	when := func(label string) snapshot.Time {
		return snapshot.Time{Sec: rapid.Int64().Draw(t, label), Nsec: rapid.Int32Range(0, 999_999_999).Draw(t, label)}
	}
	e := &snapshot.Entry{
		Path: path,
		Type: rapid.SampledFrom([]snapshot.Type{snapshot.File, snapshot.Dir, snapshot.Symlink, snapshot.Fifo, snapshot.CharDev, snapshot.BlkDev}).Draw(t, "type"),
		Mode: rapid.Uint32().Draw(t, "mode"), UID: rapid.Uint32().Draw(t, "uid"), GID: rapid.Uint32().Draw(t, "gid"),
		User: text.Draw(t, "user"), Group: text.Draw(t, "group"),
		MTime: when("mtime"), CTime: when("ctime"), Size: rapid.Int64().Draw(t, "size"),
		Link: text.Draw(t, "link"), Major: rapid.Uint32().Draw(t, "major"), Minor: rapid.Uint32().Draw(t, "minor"),
		LinkGroup: text.Draw(t, "group"), Torn: rapid.Bool().Draw(t, "torn"),
		Dev: rapid.Uint64().Draw(t, "dev"), Ino: rapid.Uint64().Draw(t, "ino"),
	}
	for range rapid.IntRange(0, 3).Draw(t, "xattrs") {
		e.Xattrs = append(e.Xattrs, snapshot.Xattr{Name: text.Draw(t, "name"), Value: text.Draw(t, "value")})
	}
	if rapid.Bool().Draw(t, "content") {
		e.Content = drawContent(t)
	}
	return e
}

// drawContent draws an address; there are few, and equal ones have equal content.
func drawContent(t *rapid.T) snapshot.Content {
	c := snapshot.Content{
		N:      rapid.SampledFrom([]uint64{1, 2, 255, 256, 1 << 40, 1<<64 - 1}).Draw(t, "n"),
		Volume: rapid.SampledFrom([]int{1, 2, 255, 256, 1 << 20}).Draw(t, "volume"),
		Offset: rapid.SampledFrom([]int64{0, 1, 255, 256, 65536, 1<<62 + 5}).Draw(t, "offset"),
	}
	c.Stored = c.Offset%1000 + int64(c.Volume)
	c.Sparse = c.Volume%2 == 0
	c.SHA256 = [32]byte{byte(c.N), 2, 31: byte(c.Volume)}
	return c
}

func testEntryRoundTrip(t *testing.T, target Target) {
	d := openDB(t, target)
	d.set("A")
	n := uint64(0)
	rapid.Check(t, func(rt *rapid.T) {
		d := &db{d.DB, rt, d.ctx}
		n++
		id := fmt.Sprint("s", n)
		d.begin("A", id, n, "")
		w := d.writer(id)
		names := rapid.Map(rapid.SliceOfN(rapid.ByteRange(1, 255), 1, 5), func(b []byte) string { return string(b) })
		var want []snapshot.Entry
		for _, p := range rapid.SliceOfNDistinct(names, 1, 8, rapid.ID).Draw(rt, "paths") {
			e := drawEntry(rt, p)
			d.ok(w.Put(d.ctx, e))
			want = append(want, *e)
		}
		d.ok(w.Close(d.ctx))
		slices.SortFunc(want, func(a, b snapshot.Entry) int { return snapshot.ComparePaths(a.Path, b.Path) })
		got := d.entries(id, catalog.Query{})
		if diff := cmp.Diff(want, got); diff != "" {
			rt.Fatalf("entries (-want +got):\n%s", diff)
		}
		d.finish(id)
	})
}

func testWriterRefuses(t *testing.T, target Target) {
	d := openDB(t, target)
	d.set("A")
	d.begin("A", "a1", 1, "")
	w := d.writer("a1")
	d.kind(failure.Damaged, w.Put(d.ctx, file("", 1)))
	d.kind(failure.Damaged, w.Put(d.ctx, file("a\x00b", 1)))
	d.kind(failure.Damaged, w.Delete(d.ctx, ""))
	d.kind(failure.Damaged, w.Refresh(d.ctx, file("\x00", 1)))
	for _, c := range []snapshot.Content{{N: 1, Volume: -1}, {N: 1, Offset: -1}, {N: 1, Stored: -1}} {
		e := file("x", 1)
		e.Content = c
		d.kind(failure.Damaged, w.Put(d.ctx, e))
	}
	d.put(w, 1, "fine") // an entry refused does not break the writer
	if diff := cmp.Diff([]string{"fine"}, d.paths("a1", catalog.Query{})); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	ctx, cancel := context.WithCancel(d.ctx)
	cancel()
	d.ok(w.Put(d.ctx, file("lost", 1)))
	if err := w.Flush(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("flush after cancelling: %v", err)
	}
	if w.Flush(d.ctx) == nil || w.Put(d.ctx, file("x", 1)) == nil {
		t.Error("the writer forgot that entries were lost")
	}
}

func testWriterConcurrent(t *testing.T, target Target) {
	open := target(t)
	d := &db{open(50), t, t.Context()}
	d.set("A")
	d.begin("A", "a1", 1, "")
	w := d.writer("a1")
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range 500 {
				e := file(fmt.Sprintf("%03d/%d", i, g), 1)
				e.User = fmt.Sprint("user", i%7)
				if err := w.Put(d.ctx, e); err != nil {
					t.Error(err)
				}
				if i%100 == 0 {
					if err := w.Flush(d.ctx); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	wg.Wait()
	d.ok(w.Flush(d.ctx))
	if n := len(d.paths("a1", catalog.Query{})); n != 4000 {
		t.Errorf("%d entries, want 4000", n)
	}
}

func testRefresh(t *testing.T, target Target) {
	d := openDB(t, target)
	d.set("A")
	d.begin("A", "a1", 1, "")
	w := d.writer("a1")
	e := file("f", 10)
	e.User, e.Link, e.MTime, e.Content = "u", "l", snapshot.Time{Sec: 5, Nsec: 6}, snapshot.Content{N: 1, Volume: 1, Stored: 10}
	d.ok(w.Put(d.ctx, e))
	d.put(w, 1, "g", "gone")
	d.finish("a1")
	d.begin("A", "a2", 2, "a1")
	w = d.writer("a2")
	want := *e
	want.CTime, want.Dev, want.Ino = snapshot.Time{Sec: 9, Nsec: 8}, 7, 1<<64-1
	seen := want
	seen.Size, seen.User, seen.Mode, seen.MTime = 99, "x", 0, snapshot.Time{} // not to be taken over
	d.ok(w.Refresh(d.ctx, &seen))
	d.ok(w.Put(d.ctx, file("g", 2)))
	d.ok(w.Flush(d.ctx))
	g := file("g", 2)
	g.Ino = 3
	d.ok(w.Refresh(d.ctx, g)) // of what this attempt put
	d.ok(w.Delete(d.ctx, "gone"))
	d.ok(w.Refresh(d.ctx, file("gone", 1)))
	d.ok(w.Refresh(d.ctx, file("never", 1)))
	d.ok(w.Flush(d.ctx))
	if diff := cmp.Diff([]snapshot.Entry{want, *g}, d.entries("a2", catalog.Query{})); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]change{{"g", g}, {"gone", nil}}, d.changes("a2")); diff != "" {
		t.Errorf("changes (-want +got):\n%s", diff)
	}
	_, err := d.Discard(d.ctx, "a2")
	d.ok(err)
	if got := d.entries("a1", catalog.Query{})[0]; got.Ino != want.Ino {
		t.Errorf("what was refreshed is lost: %+v", got)
	}
}

func testPutAgain(t *testing.T, target Target) {
	d := openDB(t, target)
	d.set("A")
	d.stored("A", "a1", 1, "", "b", "c", "d", "e")
	d.begin("A", "a2", 2, "a1")
	w := d.writer("a2")
	do := func(path string, sizes ...int64) { // 0 deletes
		t.Helper()
		for _, s := range sizes {
			if s == 0 {
				d.ok(w.Delete(d.ctx, path))
			} else {
				d.ok(w.Put(d.ctx, file(path, s)))
			}
		}
	}
	do("a", 5, 0)       // came and went: no change
	do("a2", 0)         // was never there
	do("b", 5, 6)       // torn, and copied again
	do("c", 0, 5)       // back
	do("d", 5, 0)       // changed, then gone
	do("e", 0, 5, 0, 6) //
	do("b", 7)          // back in the order
	d.ok(w.Flush(d.ctx))
	do("f", 5)
	d.ok(w.Flush(d.ctx))
	do("f", 0)
	d.ok(w.Flush(d.ctx))
	want := []change{{"b", file("b", 7)}, {"c", file("c", 5)}, {"d", nil}, {"e", file("e", 6)}}
	if diff := cmp.Diff(want, d.changes("a2")); diff != "" {
		t.Errorf("changes (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"b", "c", "e"}, d.paths("a2", catalog.Query{})); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	d.begin2full(t)
}

// begin2full does the same in a full.
func (d *db) begin2full(t *testing.T) {
	t.Helper()
	d.set("F")
	d.begin("F", "f1", 1, "")
	w := d.writer("f1")
	for _, size := range []int64{1, 2, 3} {
		d.ok(w.Put(d.ctx, file("x", size)))
		d.ok(w.Put(d.ctx, file("y", size)))
	}
	d.ok(w.Delete(d.ctx, "y"))
	d.ok(w.Delete(d.ctx, "z"))
	d.ok(w.Flush(d.ctx))
	if diff := cmp.Diff([]change{{"x", file("x", 3)}}, d.changes("f1")); diff != "" {
		t.Errorf("changes of a full (-want +got):\n%s", diff)
	}
}

func testLargeEntries(t *testing.T, target Target) {
	d := openDB(t, target)
	d.set("A")
	d.begin("A", "a1", 1, "")
	w := d.writer("a1")
	for i := range 100 {
		e := file(fmt.Sprintf("%03d", i), 1)
		for j := range 3 {
			e.Xattrs = append(e.Xattrs, snapshot.Xattr{Name: fmt.Sprint("user.", j), Value: strings.Repeat("x", 60_000+i)})
		}
		d.ok(w.Put(d.ctx, e))
	}
	d.ok(w.Flush(d.ctx))
	for _, o := range []catalog.Order{catalog.ByPath, catalog.ByPathDesc, catalog.ByContent} {
		n := 0
		d.ok(d.Entries(d.ctx, "a1", catalog.Query{Order: o}, func(e snapshot.Entry) error {
			n++
			if len(e.Xattrs) != 3 || len(e.Xattrs[2].Value) < 60_000 {
				t.Errorf("%s has lost its attributes", e.Path)
			}
			return nil
		}))
		if n != 100 {
			t.Errorf("order %d: %d entries", o, n)
		}
	}
	if n := len(d.changes("a1")); n != 100 {
		t.Errorf("%d changes", n)
	}
	if n := len(d.rows("a1", "049")); n != 50 {
		t.Errorf("%d rows", n)
	}
}

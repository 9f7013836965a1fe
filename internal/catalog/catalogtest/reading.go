package catalogtest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/firn-backup/firn/internal/catalog"
	"github.com/firn-backup/firn/internal/failure"
	"github.com/firn-backup/firn/internal/snapshot"
)

// compareContent is the order of catalog.ByContent.
func compareContent(a, b snapshot.Entry) int {
	address := func(c snapshot.Content) [3]uint64 { return [3]uint64{c.N, uint64(c.Volume), uint64(c.Offset)} }
	x, y := address(a.Content), address(b.Content)
	if c := slices.Compare(x[:], y[:]); c != 0 {
		return c
	}
	if c := strings.Compare(a.LinkGroup, b.LinkGroup); c != 0 {
		return c
	}
	return snapshot.ComparePaths(a.Path, b.Path)
}

func testOrderByContent(t *testing.T, target Target) {
	d := openDB(t, target)
	d.set("A")
	d.begin("A", "a1", 1, "")
	w := d.writer("a1")
	var want []snapshot.Entry
	for i := range 200 {
		e := file(fmt.Sprintf("%02d/%02d", i%20, i/20), int64(i))
		if i%5 != 0 {
			e.Content = snapshot.Content{N: uint64(1 + i%3), Volume: i % 7 * 100, Offset: int64(i%11) << 30, Stored: 1}
		}
		if i%4 != 0 {
			e.LinkGroup = fmt.Sprint("g", i%13)
		}
		d.ok(w.Put(d.ctx, e))
		want = append(want, *e)
	}
	d.ok(w.Flush(d.ctx))
	slices.SortFunc(want, compareContent)
	if diff := cmp.Diff(want, d.entries("a1", catalog.Query{Order: catalog.ByContent})); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	var below []snapshot.Entry
	for _, e := range want {
		if snapshot.Below(e.Path, "03") || snapshot.Below(e.Path, "11/04") {
			below = append(below, e)
		}
	}
	q := catalog.Query{Under: []string{"11/04", "03/01", "03"}, Order: catalog.ByContent}
	for range 2 { // the second time on a connection that has done it before
		if diff := cmp.Diff(below, d.entries("a1", q)); diff != "" {
			t.Errorf("under two paths (-want +got):\n%s", diff)
		}
	}
}

func testUnder(t *testing.T, target Target) {
	d := openDB(t, target)
	d.set("A")
	all := []string{"a", "a/b", "a/b/c", "a/b\x01", "a/b-", "a/bb", "a-", "a\x01", "a0", "b", "b/\xff", "b/\xff/x", "b/\xff\xff", "\xff", "\xff/\xff"}
	d.stored("A", "a1", 1, "", all...)
	slices.SortFunc(all, snapshot.ComparePaths)
	many := []string{}
	for i := range 3000 { // more than an SQL text could name
		many = append(many, fmt.Sprint("none", i))
	}
	for _, under := range [][]string{
		nil, {}, {""}, {"a", ""}, {"a"}, {"a/b"}, {"a/b", "a"}, {"a", "a/b", "a"}, {"b/\xff"}, {"\xff"},
		{"b", "a/b"}, {"a\x01", "a"}, {"nothing"}, {"a/"}, append(many, "a/b", "b"),
	} {
		want := []string{}
		for _, p := range all {
			if len(under) == 0 || slices.ContainsFunc(under, func(dir string) bool { return snapshot.Below(p, dir) }) {
				want = append(want, p)
			}
		}
		name := fmt.Sprintf("%.60q", under)
		if diff := cmp.Diff(want, d.paths("a1", catalog.Query{Under: under})); diff != "" {
			t.Errorf("under %s (-want +got):\n%s", name, diff)
		}
		if diff := cmp.Diff(want, d.paths("a1", catalog.Query{Under: under, Order: catalog.ByContent})); diff != "" {
			t.Errorf("under %s by content (-want +got):\n%s", name, diff)
		}
		slices.Reverse(want)
		if diff := cmp.Diff(want, d.paths("a1", catalog.Query{Under: under, Order: catalog.ByPathDesc})); diff != "" {
			t.Errorf("under %s descending (-want +got):\n%s", name, diff)
		}
	}
	err := d.Entries(d.ctx, "a1", catalog.Query{Under: []string{"a\x00"}}, nil)
	d.kind(failure.Damaged, err)
}

func testRows(t *testing.T, target Target) {
	open := target(t)
	d := &db{open(3), t, t.Context()}
	d.set("A")
	d.begin("A", "a1", 1, "")
	w := d.writer("a1")
	var want []snapshot.Entry
	for i := range 20 {
		e := file(fmt.Sprintf("f%02d", i), int64(i))
		e.UID, e.GID, e.User, e.Ino, e.Dev, e.Link = 1, 2, "u", uint64(i), 3, "l"
		e.MTime, e.CTime, e.LinkGroup = snapshot.Time{Sec: -4, Nsec: 5}, snapshot.Time{Sec: 6, Nsec: 7}, "g"
		e.Content = snapshot.Content{N: 1, Volume: 1, Offset: int64(i)}
		d.ok(w.Put(d.ctx, e))
		want = append(want, *e)
	}
	d.ok(w.Flush(d.ctx))
	c, err := d.Rows(d.ctx, "a1", "")
	d.ok(err)
	for i := range want {
		r, err := c.Next(d.ctx)
		d.ok(err)
		e, err := r.Entry()
		d.ok(err)
		if diff := cmp.Diff(want[i], e); diff != "" {
			t.Errorf("entry of row (-want +got):\n%s", diff)
		}
		if r.Path != e.Path || r.Type != e.Type || r.Mode != e.Mode || r.UID != e.UID || r.GID != e.GID || r.Size != e.Size ||
			r.MTime != e.MTime || r.CTime != e.CTime || r.Dev != e.Dev || r.Ino != e.Ino {
			t.Errorf("row %+v is not entry %+v", r, e)
		}
	}
	for range 3 {
		if r, err := c.Next(d.ctx); r != nil || err != nil {
			t.Errorf("after the end: %v, %v", r, err)
		}
	}
	d.ok(c.Close())
	for after, first := range map[string]int{"f": 0, "f03": 4, "f03/x": 4, "f19": 20, "z": 20} {
		if n := len(d.rows("a1", after)); n != 20-first {
			t.Errorf("%d rows after %s, want %d", n, after, 20-first)
		}
	}
	_, err = d.Rows(d.ctx, "a2", "")
	d.kind(failure.NotFound, err)

	// A cursor that is interrupted does not look as if it were at its end.
	ctx, cancel := context.WithCancel(d.ctx)
	c, err = d.Rows(ctx, "a1", "")
	d.ok(err)
	cancel()
	for {
		r, err := c.Next(d.ctx)
		if err != nil {
			break
		}
		if r == nil {
			t.Fatal("the end, after cancelling")
		}
	}
	d.ok(c.Close())
	d.ok(c.Close())
}

func testNestedCalls(t *testing.T, target Target) {
	open := target(t)
	d := &db{open(2), t, t.Context()}
	d.set("A")
	d.stored("A", "a1", 1, "", "a", "b", "c", "d", "e")
	n := 0
	stop := errors.New("stop")
	for _, o := range []catalog.Order{catalog.ByPath, catalog.ByPathDesc, catalog.ByContent} {
		d.ok(d.Entries(d.ctx, "a1", catalog.Query{Order: o, Under: []string{"a", "c", "e"}}, func(snapshot.Entry) error {
			return d.Entries(d.ctx, "a1", catalog.Query{Order: catalog.ByContent, Under: []string{"b", "d"}}, func(snapshot.Entry) error {
				return d.Find(d.ctx, "A", func(p string) bool { return p == "a" }, func(snapshot.Entry, string, uint64, uint64) error {
					n++
					d.ok(d.PutRun(d.ctx, catalog.Run{ID: fmt.Sprint(n)}))
					return d.Changes(d.ctx, "a1", func(string, *snapshot.Entry) error {
						_, err := d.Sets(d.ctx)
						return err
					})
				})
			})
		}))
		calls := 0
		err := d.Entries(d.ctx, "a1", catalog.Query{Order: o}, func(snapshot.Entry) error { calls++; return stop })
		if err != stop || calls != 1 {
			t.Errorf("order %d: error %v after %d calls, want fn's own, at once", o, err, calls)
		}
	}
	if n != 18 {
		t.Errorf("%d calls, want 18", n)
	}
	if err := d.Changes(d.ctx, "a1", func(string, *snapshot.Entry) error { return stop }); err != stop {
		t.Error(err)
	}
}

func testLinkLeader(t *testing.T, target Target) {
	d := openDB(t, target)
	linked := func(path, group string, size int64) *snapshot.Entry {
		e := file(path, size)
		e.LinkGroup = group
		return e
	}
	for _, set := range []string{"A", "B"} { // link groups of different sets are different ones
		d.set(set)
		d.begin(set, set+"1", 1, "")
		w := d.writer(set + "1")
		for _, e := range []*snapshot.Entry{file("a", 1), linked("b", "g", 1), linked("c", "g", 1), linked("d", "h", 1)} {
			d.ok(w.Put(d.ctx, e))
		}
		d.ok(w.Flush(d.ctx))
		d.finish(set + "1")
	}
	d.begin("A", "A2", 2, "A1")
	w := d.writer("A2")
	d.ok(w.Put(d.ctx, linked("e", "g", 2)))
	d.ok(w.Put(d.ctx, linked("f", "g", 2)))
	d.ok(w.Put(d.ctx, linked("a\x01", "i\xff", 2)))
	d.ok(w.Put(d.ctx, linked("a/1", "i\xff", 2)))
	d.ok(w.Delete(d.ctx, "d"))
	d.ok(w.Flush(d.ctx))
	for _, c := range []struct{ snap, group, path string }{
		{"A1", "g", "b"}, {"B1", "g", "b"}, {"A1", "h", "d"}, {"A2", "g", "e"}, {"A2", "i\xff", "a/1"}, {"A2", "h", ""}, {"A2", "", ""}, {"A1", "", ""},
	} {
		e, found, err := d.LinkLeader(d.ctx, c.snap, c.group)
		d.ok(err)
		if e.Path != c.path || found != (c.path != "") {
			t.Errorf("leader of %q in %s is %q (%v), want %q", c.group, c.snap, e.Path, found, c.path)
		}
	}
	_, _, err := d.LinkLeader(d.ctx, "A3", "g")
	d.kind(failure.NotFound, err)
}

func testProblems(t *testing.T, target Target) {
	d := openDB(t, target)
	d.set("A")
	d.begin("A", "a1", 1, "")
	w := d.writer("a1")
	list := []snapshot.Problem{{Path: "", Reason: "r0"}, {Path: "a", Reason: "r2"}, {Path: "a", Reason: "r1"}, {Path: "a", Reason: "r1"}, {Path: "a/\xff", Reason: "\xfe"}, {Path: "a-", Reason: ""}}
	for _, i := range []int{5, 4, 1, 2, 3, 0} {
		d.ok(w.Problem(d.ctx, list[i]))
	}
	d.ok(w.Flush(d.ctx))
	d.finish("a1")
	got, err := d.Problems(d.ctx, "a1")
	d.ok(err)
	if diff := cmp.Diff(list, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func testIsolation(t *testing.T, target Target) {
	open := target(t)
	d, other := &db{open(0), t, t.Context()}, &db{open(0), t, t.Context()}
	d.set("A")
	d.stored("A", "a1", 1, "", "a", "b")
	d.begin("A", "a2", 2, "a1")
	w := d.writer("a2")
	d.ok(w.Put(d.ctx, file("a", 2)))
	if len(other.changes("a2")) != 0 {
		t.Error("seen before it was flushed")
	}
	d.ok(w.Delete(d.ctx, "b"))
	d.ok(w.Flush(d.ctx))
	if diff := cmp.Diff([]string{"a"}, other.paths("a2", catalog.Query{})); diff != "" {
		t.Errorf("attempt, from another process (-want +got):\n%s", diff)
	}
	for _, o := range []catalog.Order{catalog.ByPath, catalog.ByPathDesc, catalog.ByContent} {
		if n := len(other.entries("a1", catalog.Query{Order: o})); n != 2 {
			t.Errorf("order %d: the attempt shows in the snapshot before it", o)
		}
	}
	for _, f := range other.find("A", func(string) bool { return true }) {
		if f.First != 1 || f.Last != 1 {
			t.Errorf("found %+v", f)
		}
	}
	d.finish("a2")
	want := []found{{*file("a", 1), "a1", 1, 1}, {*file("a", 2), "a1", 2, 2}, {*file("b", 1), "a1", 1, 1}}
	if diff := cmp.Diff(want, other.find("A", func(string) bool { return true })); diff != "" {
		t.Errorf("found (-want +got):\n%s", diff)
	}
}

// testFind: versions of one path, more than a page holds.
func testFind(t *testing.T, target Target) {
	open := target(t)
	d := &db{open(2), t, t.Context()}
	d.set("A")
	d.set("B")
	d.stored("B", "b1", 1, "", "a", "b")
	d.stored("A", "a1", 1, "", "a", "b", "c", "d")
	for n := uint64(2); n <= 6; n++ {
		d.stored("A", fmt.Sprint("a", n), n, fmt.Sprint("a", n-1), "b", "d") // a and c stay as they are
	}
	d.stored("A", "a8", 8, "", "b", "c")
	d.stored("A", "a11", 11, "a8", "c")
	d.begin("A", "a12", 12, "a11")
	w := d.writer("a12")
	d.put(w, 12, "b")
	d.ok(w.Delete(d.ctx, "c"))
	d.ok(w.Flush(d.ctx))
	var want []found
	for n := uint64(1); n <= 6; n++ {
		want = append(want, found{*file("b", int64(n)), "a1", n, n})
	}
	want = append(want, found{*file("c", 1), "a1", 1, 6})
	want = append(want, found{*file("b", 8), "a8", 8, 11}, found{*file("c", 8), "a8", 8, 8}, found{*file("c", 11), "a8", 11, 11})
	asked := map[string]bool{}
	got := d.find("A", func(p string) bool { asked[p] = true; return p == "b" || p == "c" })
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if len(asked) != 4 {
		t.Errorf("asked of %v", asked)
	}
	if got := d.find("none", func(string) bool { return true }); len(got) != 0 {
		t.Errorf("found %v in no set", got)
	}
}

// testGone: what is read of a snapshot that is dropped meanwhile is not taken for all of it.
func testGone(t *testing.T, target Target) {
	open := target(t)
	d := &db{open(2), t, t.Context()}
	d.set("A")
	d.stored("A", "a1", 1, "", "a", "b", "c", "d", "e")
	err := d.Entries(d.ctx, "a1", catalog.Query{}, func(e snapshot.Entry) error {
		if e.Path == "a" {
			return d.DropSnapshot(d.ctx, "a1")
		}
		return nil
	})
	d.kind(failure.NotFound, err)
	d.kind(failure.NotFound, d.Entries(d.ctx, "a1", catalog.Query{}, nil))
	d.kind(failure.NotFound, d.Changes(d.ctx, "a1", nil))
}

package catalogtest

import (
	"errors"
	"fmt"
	"reflect"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/firn-backup/firn/internal/catalog"
	"github.com/firn-backup/firn/internal/failure"
	"github.com/firn-backup/firn/internal/manifest"
	"github.com/firn-backup/firn/internal/snapshot"
)

func testSets(t *testing.T, target Target) {
	d := openDB(t, target)
	a := catalog.Set{ID: "01A", Name: "b\xff'\"", Label: "l\xfe", Host: "h\x80", Kind: "tree", Vault: "dir:/\xffv", Root: "/r\xff", Created: epoch()}
	b := catalog.Set{ID: "01B", Name: "a", Host: "z"}
	c := catalog.Set{ID: "01C", Name: "a", Host: "y"}
	for _, s := range []catalog.Set{a, b, c} {
		d.ok(d.PutSet(d.ctx, s))
	}
	got, err := d.Sets(d.ctx)
	d.ok(err)
	if diff := cmp.Diff([]catalog.Set{c, b, a}, got); diff != "" {
		t.Errorf("sets by name and host (-want +got):\n%s", diff)
	}
	a.Name, a.Vault = "z", "dir:/w"
	d.ok(d.PutSet(d.ctx, a))
	one, err := d.SetByID(d.ctx, "01A")
	d.ok(err)
	if one != a {
		t.Errorf("updated set is %+v, want %+v", one, a)
	}
	c.Host = "z"
	d.kind(failure.Usage, d.PutSet(d.ctx, c))
	_, err = d.SetByID(d.ctx, "01D")
	d.kind(failure.NotFound, err)
}

func testRemoveSet(t *testing.T, target Target) {
	d := openDB(t, target)
	d.set("A")
	d.set("B")
	d.stored("A", "a1", 1, "", "x", "y")
	d.stored("A", "a2", 2, "a1", "y", "z")
	d.begin("A", "a3", 3, "a2")
	d.put(d.writer("a3"), 3, "x")
	d.ok(d.writer("a3").PutPending(d.ctx, catalog.Pending{Snap: "a3", Volume: manifest.Volume{N: 1}}))
	d.stored("B", "b1", 1, "", "x")
	d.ok(d.RemoveSet(d.ctx, "A"))
	d.kind(failure.NotFound, d.RemoveSet(d.ctx, "A"))
	_, err := d.SetByID(d.ctx, "A")
	d.kind(failure.NotFound, err)
	_, err = d.Snapshot(d.ctx, "a1")
	d.kind(failure.NotFound, err)
	if diff := cmp.Diff([]string{"x"}, d.paths("b1", catalog.Query{})); diff != "" {
		t.Errorf("other set (-want +got):\n%s", diff)
	}
	d.set("A")
	d.stored("A", "a1", 1, "", "w")
	if diff := cmp.Diff([]string{"w"}, d.paths("a1", catalog.Query{})); diff != "" {
		t.Errorf("set made anew (-want +got):\n%s", diff)
	}
}

// fill sets every field of a struct to something that is not its zero value, and no field to
// what another of the same type has.
func fill(t *testing.T, v reflect.Value, seed *int) {
	*seed++
	switch v.Kind() {
	case reflect.Struct:
		if v.Type() == reflect.TypeFor[time.Time]() {
			v.Set(reflect.ValueOf(epoch().Add(time.Duration(*seed) * time.Second)))
			return
		}
		for i := range v.NumField() {
			fill(t, v.Field(i), seed)
		}
	case reflect.String:
		v.SetString(fmt.Sprintf("text %d \xff\x00", *seed))
	case reflect.Int, reflect.Int64:
		v.SetInt(int64(*seed))
	case reflect.Uint64:
		v.SetUint(uint64(*seed))
	case reflect.Uint8:
		v.SetUint(uint64(*seed % 256))
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Array:
		for i := range v.Len() {
			fill(t, v.Index(i), seed)
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 3, 3))
		for i := range v.Len() {
			fill(t, v.Index(i), seed)
		}
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(t, v.Elem(), seed)
	default:
		t.Fatalf("a field of type %s: teach the catalog and this test to keep it", v.Type())
	}
}

func filled[T any](t *testing.T) T {
	var v T
	seed := 0
	fill(t, reflect.ValueOf(&v).Elem(), &seed)
	return v
}

func testSnapshotRoundTrip(t *testing.T, target Target) {
	d := openDB(t, target)
	d.set("A")
	s := filled[catalog.Snapshot](t)
	// What is a number, a name or a word of the format is plain.
	s.ID, s.SetID, s.Kind, s.Base, s.State, s.N = "s1", "A", snapshot.Full, "", catalog.Running, 7
	s.Chain, s.ChainN = "s1", 7
	s.Header.SetID, s.Header.Snap, s.Header.Base, s.Header.Kind = "A", "s1", "", snapshot.Full
	s.Header.Stream, s.Header.Compress, s.Header.Encrypt = "tar", "zstd", "age"
	s.Adopted = "" // Begin is for Firn's own
	want := s
	want.ManifestHash, want.ManifestPart, want.Totals = manifest.Hash{}, catalog.ArchiveRef{}, catalog.Totals{}
	d.ok(d.Begin(d.ctx, s))
	got, err := d.Snapshot(d.ctx, "s1")
	d.ok(err)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("attempt (-want +got):\n%s", diff)
	}
	d.ok(d.FinishStored(d.ctx, "s1", s.ManifestHash, s.ManifestPart, s.Totals))
	s.State = catalog.Stored
	got, err = d.Snapshot(d.ctx, "s1")
	d.ok(err)
	if diff := cmp.Diff(s, got); diff != "" {
		t.Errorf("snapshot (-want +got):\n%s", diff)
	}

	// An incremental takes its chain from its base; times may be zero.
	inc := catalog.Snapshot{ID: "s2", SetID: "A", N: 9, Kind: snapshot.Incremental, Base: "s1"}
	d.ok(d.Begin(d.ctx, inc))
	list, err := d.Snapshots(d.ctx, "A")
	d.ok(err)
	inc.Chain, inc.ChainN, inc.State = "s1", 7, catalog.Running
	if diff := cmp.Diff([]catalog.Snapshot{s, inc}, list); diff != "" {
		t.Errorf("list (-want +got):\n%s", diff)
	}
	_, err = d.Snapshot(d.ctx, "s3")
	d.kind(failure.NotFound, err)
	list, err = d.Snapshots(d.ctx, "no such set")
	d.ok(err)
	if len(list) != 0 {
		t.Errorf("snapshots of no set: %v", list)
	}
}

func testBeginRefuses(t *testing.T, target Target) {
	d := openDB(t, target)
	d.set("A")
	d.set("B")
	d.kind(failure.NotFound, d.Begin(d.ctx, attempt("C", "c1", 1, "")))
	d.kind(failure.NotFound, d.Begin(d.ctx, attempt("A", "a1", 1, "nowhere")))
	d.begin("A", "a1", 1, "")
	refused := func(s catalog.Snapshot, why string) {
		t.Helper()
		if d.Begin(d.ctx, s) == nil {
			t.Errorf("begun although %s", why)
		}
	}
	refused(attempt("A", "a2", 2, ""), "another is running")
	d.begin("B", "b1", 1, "") // of another set
	d.finish("a1")
	refused(attempt("A", "a1", 2, ""), "the id is used")
	refused(attempt("A", "a2", 1, ""), "the number is used")
	refused(attempt("A", "a2", 0, ""), "the number is 0")
	refused(attempt("A", "a2", 1<<63, ""), "the number is too large")
	refused(attempt("B", "b2", 2, "a1"), "the base is another set's")
	d.stored("A", "a2", 2, "a1")
	refused(attempt("A", "a3", 3, "a1"), "the base is not the chain's last")
	bad := attempt("A", "a3", 3, "a2")
	bad.Kind = snapshot.Full
	refused(bad, "it is full and has a base")
	bad.Kind = "partial"
	refused(bad, "it is neither full nor incremental")
	d.begin("A", "a3", 3, "a2")
	d.kind(failure.NotFound, d.FinishStored(d.ctx, "a9", manifest.Hash{}, catalog.ArchiveRef{}, catalog.Totals{}))
}

func testFinishTwice(t *testing.T, target Target) {
	d := openDB(t, target)
	d.set("A")
	d.stored("A", "a1", 1, "")
	d.finish("a1")
	if d.FinishStored(d.ctx, "a1", manifest.Hash{2}, catalog.ArchiveRef{}, catalog.Totals{}) == nil {
		t.Error("finished with another manifest")
	}
}

func testDiscard(t *testing.T, target Target) {
	d := openDB(t, target)
	d.set("A")
	d.stored("A", "a1", 1, "", "a", "b", "c")
	before := d.entries("a1", catalog.Query{})
	d.begin("A", "a2", 2, "a1")
	w := d.writer("a2")
	d.ok(w.Put(d.ctx, file("b", 2)))
	d.ok(w.Delete(d.ctx, "c"))
	d.ok(w.Put(d.ctx, file("d", 2)))
	d.ok(w.Problem(d.ctx, snapshot.Problem{Path: "x", Reason: "y"}))
	for n := 1; n <= 3; n++ {
		v := manifest.Volume{N: n, Archive: "planned", Size: int64(n)}
		d.ok(w.PutPending(d.ctx, catalog.Pending{Snap: "a2", Volume: v}))
	}
	d.ok(d.VolumeStored(d.ctx, "a2", 1, "one"))
	d.ok(d.VolumeStored(d.ctx, "a2", 3, "three"))
	vols, err := d.Discard(d.ctx, "a2")
	d.ok(err)
	if len(vols) != 2 || vols[0].Archive != "one" || vols[1].Archive != "three" {
		t.Errorf("orphans are %+v, want one and three", vols)
	}
	if diff := cmp.Diff(before, d.entries("a1", catalog.Query{})); diff != "" {
		t.Errorf("the base changed (-want +got):\n%s", diff)
	}
	_, err = d.Snapshot(d.ctx, "a2")
	d.kind(failure.NotFound, err)
	_, err = d.Discard(d.ctx, "a2")
	d.kind(failure.NotFound, err)
	if _, err = d.Discard(d.ctx, "a1"); err == nil {
		t.Error("a stored snapshot was discarded")
	}
	if d.put2(w, "e") == nil {
		t.Error("the writer of a discarded attempt goes on")
	}
	// The same number again, and nothing is left of the first.
	d.begin("A", "a2b", 2, "a1")
	if c := d.changes("a2b"); len(c) != 0 {
		t.Errorf("changes of an attempt without any: %v", c)
	}
	vols, err = d.Discard(d.ctx, "a2b")
	d.ok(err)
	if len(vols) != 0 {
		t.Errorf("orphans %v", vols)
	}
	// A full one, of several pieces of sweeping.
	d.begin("A", "a3", 3, "")
	w = d.writer("a3")
	for i := range 50_000 {
		d.ok(w.Put(d.ctx, file(fmt.Sprintf("f%06d", i), 1)))
	}
	d.ok(w.Flush(d.ctx))
	_, err = d.Discard(d.ctx, "a3")
	d.ok(err)
	d.begin("A", "a3", 3, "")
	if p := d.paths("a3", catalog.Query{}); len(p) != 0 {
		t.Errorf("%d entries are left", len(p))
	}
}

// put2 puts one file and returns the error.
func (d *db) put2(w *catalog.EntryWriter, path string) error {
	return errors.Join(w.Put(d.ctx, file(path, 1)), w.Flush(d.ctx))
}

func testDropSnapshot(t *testing.T, target Target) {
	d := openDB(t, target)
	d.set("A")
	d.stored("A", "a1", 1, "", "a", "b")
	d.begin("A", "a2", 2, "a1")
	w := d.writer("a2")
	d.ok(w.Delete(d.ctx, "a"))
	d.put(w, 2, "b", "c")
	d.finish("a2")
	before := d.entries("a1", catalog.Query{})
	if d.DropSnapshot(d.ctx, "a1") == nil {
		t.Error("a base was dropped")
	}
	d.begin("A", "a3", 3, "a2")
	if d.DropSnapshot(d.ctx, "a2") == nil {
		t.Error("the base of an attempt was dropped")
	}
	if d.DropSnapshot(d.ctx, "a3") == nil {
		t.Error("an attempt was dropped")
	}
	_, err := d.Discard(d.ctx, "a3")
	d.ok(err)
	d.ok(d.DropSnapshot(d.ctx, "a2"))
	if diff := cmp.Diff(before, d.entries("a1", catalog.Query{})); diff != "" {
		t.Errorf("the base changed (-want +got):\n%s", diff)
	}
	d.ok(d.DropSnapshot(d.ctx, "a1"))
	d.kind(failure.NotFound, d.DropSnapshot(d.ctx, "a1"))
	d.stored("A", "a1", 1, "", "z")
	if diff := cmp.Diff([]string{"z"}, d.paths("a1", catalog.Query{})); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

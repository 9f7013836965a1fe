package itemstore

import (
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/firn-backup/firn/internal/catalog"
	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/internal/manifest"
	"github.com/firn-backup/firn/internal/snapshot"
)

// A description that fits tells name, time and mark again.
func TestMT2RoundTrip(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		name := drawPath(t)
		m := Mark{SetID: testSet, Set: rapid.String().Draw(t, "set"), Host: "nb", Kind: "items", Dir: rapid.Bool().Draw(t, "dir")}
		m.Set = strings.ToValidUTF8(m.Set, "")
		if rapid.Bool().Draw(t, "ext") {
			m.Ext, m.Codec = ".tar.zst", "zstd"
		}
		at := time.Unix(rapid.Int64Range(0, 4e9).Draw(t, "at"), 0).UTC()
		text, ok := DescribeMT2(name+m.Ext, at, m)
		if !ok {
			return
		}
		got, mtime, mark, ok := ParseMT2(text)
		if !ok || got != name || !mtime.Equal(at) || mark != m || len(text) > manifest.MaxDescription {
			t.Fatalf("%q became %q, %v, %+v, %v", name, got, mtime, mark, ok)
		}
	})
}

// Names tell what listings without descriptions have to tell.
func TestNames(t *testing.T) {
	t.Parallel()
	dir := manifest.SnapshotDir(&manifest.Header{Label: "my bands", SetID: testSet, Snap: namesDir})
	for name, want := range map[string]manifest.Description{
		indexName(catalog.ItemRun{N: 12, IndexFrom: 1}) + "-" + testRun + ".jsonl.zst.age": {What: WhatIndex, N: 12, Kind: snapshot.Full, Codecs: []string{"zstd", "age"}},
		indexName(catalog.ItemRun{N: 13, IndexFrom: 3}) + "-" + testRun + ".jsonl.gz":      {What: WhatIndex, N: 13, Kind: snapshot.Incremental, Codecs: []string{"gzip"}},
		"items-" + testRun + ".jsonl.zst.gpg":                                              {What: WhatIndex, Codecs: []string{"zstd", "openpgp"}},
		"item-" + testRun + ".age":                                                         {What: WhatItem},
		"items-12-" + testRun:                                                              {What: WhatItem}, // the name of an item
	} {
		want.Set, want.SetID = "my_bands", testSet
		got, ok := Described(coldstore.Archive{ID: dir + "/" + name})
		if !ok || got.String() != want.String() || got.What != want.What || got.N != want.N {
			t.Errorf("%s: %+v, %v", name, got, ok)
		}
	}
	for _, name := range []string{"", "a/items/b", "x-" + testSet + "/other/item-1", "items/item-1", "/items/"} {
		if d, ok := Described(coldstore.Archive{ID: name}); ok {
			t.Errorf("%q: %+v", name, d)
		}
	}
}

// Whatever stands in a vault is read without a panic, and never as a path that leads elsewhere.
func FuzzDescribed(f *testing.F) {
	text, _ := DescribeMT2("a/b", time.Unix(1e9, 0), Mark{SetID: testSet, Set: "s", Host: "h"})
	f.Add(text, "x-"+testSet+"/items/items-000012-full-"+testRun+".jsonl.zst.age")
	f.Add("mt1 x", "x-"+testSet+"/items/item-"+testRun)
	f.Fuzz(func(t *testing.T, text, name string) {
		if p, _, _, ok := ParseMT2(text); ok && (!goodPath(p) || strings.HasPrefix(p, "/") || strings.Contains("/"+p+"/", "/../")) {
			t.Errorf("%q is the path %q", text, p)
		}
		if d, ok := Described(coldstore.Archive{ID: name, Description: text}); ok && d.What == "" {
			t.Errorf("%q %q: %+v", text, name, d)
		}
	})
}

// harmless gives what any vault takes in a name.
func TestHarmless(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		s := harmless(rapid.String().Draw(t, "name"))
		if s == "" || len(s) > 100 || strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") != "" || strings.HasPrefix(s, ".") || strings.HasSuffix(s, ".") {
			t.Fatalf("%q", s)
		}
	})
}

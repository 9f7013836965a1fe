package catalog

import (
	"bytes"
	"testing"

	"pgregory.net/rapid"

	"github.com/firn-backup/firn/internal/snapshot"
)

// FuzzUnpack: columns of a damaged catalog are errors, never panics, and what is
// accepted is what was packed.
func FuzzUnpack(f *testing.F) {
	e := snapshot.Entry{Type: snapshot.File, Size: 1, Link: "l", Major: 1, Torn: true, Xattrs: []snapshot.Xattr{{Name: "n", Value: "v"}}}
	content, err := packContent(nil, &snapshot.Content{N: 1, Volume: 300, Offset: 1 << 40, Stored: 5, Sparse: true})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(packStat(nil, &e, 3))
	f.Add(content)
	f.Add(packMore(nil, &e))
	f.Add([]byte{moreXattr, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1})
	f.Add([]byte{255, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		var r Row
		if owner, err := unpackStat(b, &r); err == nil {
			e, err := r.Entry()
			if err != nil {
				t.Fatal(err)
			}
			var again Row
			if o, err := unpackStat(packStat(nil, &e, owner), &again); err != nil || o != owner || again.Ino != r.Ino || again.MTime != r.MTime {
				t.Errorf("%+v became %+v: %v", r, again, err)
			}
		}
		var c snapshot.Content
		if unpackContent(b, &c) == nil && c.Volume >= 0 && c.Offset >= 0 && c.Stored >= 0 {
			p, err := packContent(nil, &c)
			var again snapshot.Content
			if err != nil || unpackContent(p, &again) != nil || again != c {
				t.Errorf("%+v became %+v: %v", c, again, err)
			}
		}
		var m snapshot.Entry
		if unpackMore(b, &m) == nil {
			var again snapshot.Entry
			if err := unpackMore(packMore(nil, &m), &again); err != nil || len(again.Xattrs) != len(m.Xattrs) || again.Link != m.Link {
				t.Errorf("%+v became %+v: %v", m, again, err)
			}
		}
		_, _ = unpackFrames(b)
		_, _ = unpackLeaves(b)
	})
}

// TestKeysAreInOrder: bytewise order of keys is that of paths, and what is below one is in one range.
func TestKeysAreInOrder(t *testing.T) {
	t.Parallel()
	path := rapid.Custom(func(t *rapid.T) string {
		return string(rapid.SliceOfN(rapid.SampledFrom([]byte("a/\x01\xff-b")), 1, 6).Draw(t, "path"))
	})
	rapid.Check(t, func(t *rapid.T) {
		a, b := path.Draw(t, "a"), path.Draw(t, "b")
		ka, err := pathKey(a)
		if err != nil {
			t.Fatal(err)
		}
		kb, err := pathKey(b)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Compare(ka, kb) != snapshot.ComparePaths(a, b) {
			t.Errorf("%q and %q", a, b)
		}
		in := bytes.Compare(kb, ka) >= 0 && bytes.Compare(kb, belowEnd(ka)) < 0
		if in != snapshot.Below(b, a) {
			t.Errorf("%q below %q: %v", b, a, in)
		}
		if keyPath(ka) != a {
			t.Errorf("%q became %q", a, keyPath(ka))
		}
	})
}

// TestAddressesAreInOrder: bytewise order of packed contents is that of addresses.
func TestAddressesAreInOrder(t *testing.T) {
	t.Parallel()
	draw := func(t *rapid.T) snapshot.Content {
		n := rapid.OneOf(rapid.Uint64Range(0, 300), rapid.Uint64())
		return snapshot.Content{N: n.Draw(t, "n"), Volume: int(n.Draw(t, "volume") >> 1), Offset: int64(n.Draw(t, "offset") >> 1)}
	}
	rapid.Check(t, func(t *rapid.T) {
		a, b := draw(t), draw(t)
		pa, err := packContent(nil, &a)
		if err != nil {
			t.Fatal(err)
		}
		pb, err := packContent(nil, &b)
		if err != nil {
			t.Fatal(err)
		}
		less := a.N < b.N || a.N == b.N && (a.Volume < b.Volume || a.Volume == b.Volume && a.Offset < b.Offset)
		if less != (bytes.Compare(pa, pb) < 0) {
			t.Errorf("%+v and %+v", a, b)
		}
	})
}

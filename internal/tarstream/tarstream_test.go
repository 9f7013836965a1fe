package tarstream

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"math"
	"path"
	"sort"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/firn-backup/firn/internal/snapshot"
)

func TestPadding(t *testing.T) {
	for stored, want := range map[int64]int{0: 0, 1: 511, 511: 1, 512: 0, 513: 511, 1 << 40: 0, 1<<40 + 1: 511} {
		if got := Padding(stored); got != want {
			t.Errorf("Padding(%d) = %d, want %d", stored, got, want)
		}
	}
}

func TestRefused(t *testing.T) {
	for name, e := range map[string]*snapshot.Entry{
		"empty path":       {Type: snapshot.File},
		"NUL in path":      {Path: "a\x00b", Type: snapshot.File},
		"NUL in link":      {Path: "a", Type: snapshot.Symlink, Link: "a\x00b"},
		"NUL in user":      {Path: "a", Type: snapshot.File, User: "\x00"},
		"NUL in xattr":     {Path: "a", Type: snapshot.File, Xattrs: []snapshot.Xattr{{Name: "user.\x00"}}},
		"no type":          {Path: "a"},
		"socket":           {Path: "a", Type: 's'},
		"negative":         {Path: "a", Type: snapshot.File, Size: -1},
		"nameless xattr":   {Path: "a", Type: snapshot.File, Xattrs: []snapshot.Xattr{{}}},
		"dir with content": {Path: "a", Type: snapshot.Dir},
	} {
		var stored int64
		if name == "dir with content" {
			stored = 1
		}
		got, err := AppendHeader([]byte("before"), e, stored, false, "")
		if err == nil {
			t.Errorf("%s: no error", name)
		}
		if string(got) != "before" {
			t.Errorf("%s: dst was changed to %q", name, got)
		}
	}
}

// texts draws names that are hard on tar: of all lengths around the fields'
// limits, not ASCII, not UTF-8, with newlines and equals signs.
func texts(maxLen int) *rapid.Generator[string] {
	return rapid.Custom(func(t *rapid.T) string {
		n := rapid.SampledFrom([]int{1, 2, 3, 31, 32, 33, 98, 99, 100, 101, 154, 155, 156, 254, 255, 256, 257, 600}).Draw(t, "length")
		n = min(n, maxLen)
		alphabet := rapid.SampledFrom([]string{"a", "ab", "a=%\n -", "\xff\x80a", "é\u0301x", "\x01\x7f\\\"*"}).Draw(t, "alphabet")
		b := make([]byte, n)
		seed := rapid.Uint32().Draw(t, "seed")
		for i := range b {
			seed = seed*1664525 + 1013904223
			b[i] = alphabet[int(seed>>16)%len(alphabet)]
		}
		return string(b)
	})
}

func paths() *rapid.Generator[string] {
	return rapid.Custom(func(t *rapid.T) string {
		parts := rapid.SliceOfN(texts(255), 1, 5).Draw(t, "elements")
		for i, p := range parts {
			if strings.Trim(p, ".") == "" {
				parts[i] = "d"
			}
		}
		return strings.Join(parts, "/")
	})
}

func entries() *rapid.Generator[snapshot.Entry] {
	return rapid.Custom(func(t *rapid.T) snapshot.Entry {
		e := snapshot.Entry{
			Path:  paths().Draw(t, "path"),
			Type:  rapid.SampledFrom([]snapshot.Type{'f', 'd', 'l', 'p', 'c', 'b'}).Draw(t, "type"),
			Mode:  rapid.Uint32Range(0, 0o7777).Draw(t, "mode"),
			UID:   rapid.SampledFrom([]uint32{0, 1000, max7, max7 + 1, math.MaxUint32}).Draw(t, "uid"),
			GID:   rapid.SampledFrom([]uint32{0, 1000, max7, max7 + 1, math.MaxUint32}).Draw(t, "gid"),
			User:  rapid.OneOf(rapid.Just(""), texts(40)).Draw(t, "user"),
			Group: rapid.OneOf(rapid.Just(""), texts(40)).Draw(t, "group"),
			MTime: snapshot.Time{
				Sec:  rapid.SampledFrom([]int64{0, 1, -1, -2, max11, max11 + 1, 1 << 40, -1 << 40, 1700000000}).Draw(t, "sec"),
				Nsec: rapid.SampledFrom([]int32{0, 1, 999999999, 500000000, 120}).Draw(t, "nsec"),
			},
		}
		switch e.Type {
		case snapshot.Symlink:
			e.Link = paths().Draw(t, "link")
		case snapshot.CharDev, snapshot.BlkDev:
			e.Major = rapid.SampledFrom([]uint32{0, 8, 4095, max7, max7 + 1, math.MaxUint32}).Draw(t, "major")
			e.Minor = rapid.SampledFrom([]uint32{0, 1, 1<<20 - 1, math.MaxUint32}).Draw(t, "minor")
		}
		names := rapid.SliceOfNDistinct(texts(200), 0, 3, rapid.ID[string]).Draw(t, "xattr names")
		sort.Strings(names)
		for _, name := range names {
			e.Xattrs = append(e.Xattrs, snapshot.Xattr{Name: "user." + name, Value: rapid.StringN(0, 300, 70000).Draw(t, "value")})
		}
		return e
	})
}

// TestReadBack has the standard library's reader give back what was written.
func TestReadBack(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		e := entries().Draw(t, "entry")
		var content []byte
		sparse, linkTo := false, ""
		var logical []byte
		if e.Type == snapshot.File {
			content = rapid.SliceOfN(rapid.Byte(), 0, 1100).Draw(t, "content")
			e.Size, logical = int64(len(content)), content
			switch rapid.IntRange(0, 3).Draw(t, "form") {
			case 1:
				sparse = true
				e.Size += 5000
				extents := []Extent{{4000, int64(len(content))}}
				if len(content) == 0 {
					extents = nil
				}
				logical = append(append(make([]byte, 4000), content...), make([]byte, 1000)...)
				content = append(AppendSparseMap(nil, extents, e.Size), content...)
			case 2:
				linkTo, content, logical = paths().Draw(t, "link to"), nil, nil
			}
		}
		b, err := AppendHeader(nil, &e, int64(len(content)), sparse, linkTo)
		if err != nil {
			t.Fatal(err)
		}
		if len(b)%512 != 0 {
			t.Fatalf("header of %d bytes", len(b))
		}
		b = append(append(append(b, content...), make([]byte, Padding(int64(len(content))))...), Trailer[:]...)
		check(t, b, &e, logical, linkTo)
	})
}

func check(t *rapid.T, b []byte, e *snapshot.Entry, logical []byte, linkTo string) {
	r := tar.NewReader(bytes.NewReader(b))
	h, err := r.Next()
	if err != nil {
		t.Fatalf("%v in %q", err, b[:min(len(b), 3000)])
	}
	want := snapshot.Entry{
		Path: e.Path, Type: e.Type, Mode: e.Mode, UID: e.UID, GID: e.GID, User: e.User, Group: e.Group,
		MTime: e.MTime, Size: int64(len(logical)), Link: e.Link, Major: e.Major, Minor: e.Minor, Xattrs: e.Xattrs,
	}
	got := snapshot.Entry{
		Path: strings.TrimSuffix(h.Name, "/"), Mode: uint32(h.Mode), UID: uint32(h.Uid), GID: uint32(h.Gid), User: h.Uname, Group: h.Gname,
		MTime: snapshot.TimeOf(h.ModTime), Size: h.Size, Link: h.Linkname, Major: uint32(h.Devmajor), Minor: uint32(h.Devminor),
	}
	got.Type = map[byte]snapshot.Type{'0': 'f', '1': 'f', '2': 'l', '3': 'c', '4': 'b', '5': 'd', '6': 'p'}[h.Typeflag]
	if linkTo != "" {
		want.Link, want.Xattrs = linkTo, nil
		if h.Typeflag != tar.TypeLink {
			t.Fatalf("type flag %q of a hard link", h.Typeflag)
		}
	}
	if (e.Type == snapshot.Dir) != strings.HasSuffix(h.Name, "/") {
		t.Fatalf("name %q of type %c", h.Name, e.Type)
	}
	unescape := strings.NewReplacer("%3D", "=", "%25", "%")
	for k, v := range h.PAXRecords {
		if name, ok := strings.CutPrefix(k, "SCHILY.xattr."); ok {
			got.Xattrs = append(got.Xattrs, snapshot.Xattr{Name: unescape.Replace(name), Value: v})
		}
	}
	sort.Slice(got.Xattrs, func(i, j int) bool { return got.Xattrs[i].Name < got.Xattrs[j].Name })
	if d := cmp.Diff(want, got); d != "" {
		t.Fatalf("want -, got +\n%s", d)
	}
	data, err := io.ReadAll(r)
	if err != nil || !bytes.Equal(data, logical) {
		t.Fatalf("content of %d bytes came back as %d, %v", len(logical), len(data), err)
	}
	if _, err := r.Next(); err != io.EOF {
		t.Fatalf("after the only member: %v", err)
	}
}

// TestPlainNeedsNoPAX keeps the many files of a system without the 1024 bytes
// of an extended header.
func TestPlainNeedsNoPAX(t *testing.T) {
	for _, p := range []string{"a", strings.Repeat("a", 100), strings.Repeat("a", 155) + "/" + strings.Repeat("b", 100), path.Join(strings.Repeat("ab/", 40), "c")} {
		b, err := AppendHeader(nil, &snapshot.Entry{Path: p, Type: snapshot.File, UID: 1000, MTime: snapshot.Time{Sec: 1e9}, User: "root"}, 0, false, "")
		if err != nil || len(b) != 512 {
			t.Errorf("%q takes %d bytes, %v", p, len(b), err)
		}
	}
}

func TestTimes(t *testing.T) {
	for _, c := range []struct {
		sec  int64
		nsec int32
		want string
	}{
		{0, 0, "0"}, {-1, 0, "-1"}, {0, 1, "0.000000001"}, {-1, 500000000, "-0.5"}, {-1, 999999999, "-0.000000001"},
		{-2, 1, "-1.999999999"}, {1 << 34, 120000000, "17179869184.12"},
	} {
		if got := string(appendTime(nil, c.sec, c.nsec)); got != c.want {
			t.Errorf("%d, %d: %s, want %s", c.sec, c.nsec, got, c.want)
		}
	}
}

func TestACLText(t *testing.T) {
	const obj = "\xff\xff\xff\xff"
	acl := "\x02\x00\x00\x00" + "\x01\x00\x06\x00" + obj + "\x02\x00\x07\x00\xe8\x03\x00\x00" + "\x04\x00\x04\x00" + obj +
		"\x08\x00\x01\x00\xff\xff\xff\x7f" + "\x10\x00\x07\x00" + obj + "\x20\x00\x00\x00" + obj
	want := "user::rw-\nuser:1000:rwx\ngroup::r--\ngroup:2147483647:--x\nmask::rwx\nother::---\n"
	if got, ok := aclText(acl); !ok || got != want {
		t.Errorf("got %q, %v", got, ok)
	}
	for _, bad := range []string{"", "\x01\x00\x00\x00", acl[:len(acl)-1], "\x02\x00\x00\x00\x40\x00\x06\x00" + obj} {
		if got, ok := aclText(bad); ok {
			t.Errorf("%q gave %q", bad, got)
		}
	}
}

func TestSparseMap(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var extents []Extent
		var end int64
		for range rapid.IntRange(0, 200).Draw(t, "n") {
			x := Extent{end + rapid.Int64Range(0, 1<<45).Draw(t, "gap"), rapid.Int64Range(1, 1<<45).Draw(t, "size")}
			extents = append(extents, x)
			end = x.Offset + x.Size
		}
		size := end + rapid.Int64Range(0, 1<<40).Draw(t, "tail")
		b := AppendSparseMap([]byte("xyz"), extents, size)[3:]
		if len(b)%512 != 0 {
			t.Fatalf("%d bytes", len(b))
		}
		for _, n := range []int{0, 1, len(b) / 2, len(b) - 1} {
			if _, _, err := ParseSparseMap(b[:n], size); err != io.ErrUnexpectedEOF {
				t.Fatalf("%d of %d bytes: %v", n, len(b), err)
			}
		}
		got, n, err := ParseSparseMap(append(b, "data"...), size)
		if err != nil || n != len(b) {
			t.Fatalf("%d of %d, %v", n, len(b), err)
		}
		if len(got)+len(extents) > 0 && !cmp.Equal(got, extents) {
			t.Fatal(cmp.Diff(extents, got))
		}
	})
}

func TestBadSparseMaps(t *testing.T) {
	for _, s := range []string{
		"x\n", "-1\n", "+1\n", "\n", " 1\n", "01\n0\n1\n", "1\n0\n11\n", "1\n11\n0\n", "2\n0\n5\n4\n1\n", "2\n5\n1\n0\n1\n",
		"9223372036854775808\n", "9223372036854775807\n", "131074\n", "1\n9223372036854775807\n1\n", "1\n1\n9223372036854775807\n",
		"1\n0\n1\nx", "99999999999999999999999999", "1\r\n",
	} {
		b := []byte(s)
		b = append(b, make([]byte, 1024)...)
		if x, _, err := ParseSparseMap(b, 10); !errors.Is(err, errMap) {
			t.Errorf("%q: %v, %v", s, x, err)
		}
	}
	if n := testing.AllocsPerRun(10, func() { _, _, _ = ParseSparseMap([]byte("131072\n"), 10) }); n > 2 {
		t.Errorf("a count alone cost %v allocations", n)
	}
	largest := make([]Extent, MaxExtents)
	for i := range largest {
		largest[i] = Extent{math.MaxInt64 - int64(2*(MaxExtents-i)), 1}
	}
	if n := len(AppendSparseMap(nil, largest, math.MaxInt64)); n > MaxSparseMap {
		t.Errorf("a map of %d bytes", n)
	}
}

func FuzzParseSparseMap(f *testing.F) {
	f.Add(AppendSparseMap(nil, []Extent{{1, 2}, {7, 1}}, 10), int64(10))
	f.Add(AppendSparseMap(nil, nil, 1<<40), int64(1<<40))
	f.Fuzz(func(t *testing.T, b []byte, size int64) {
		extents, n, err := ParseSparseMap(b, size)
		if err != nil {
			return
		}
		if n > len(b) || n%512 != 0 || len(extents) > len(b)/4 {
			t.Fatalf("%d of %d bytes, %d extents", n, len(b), len(extents))
		}
		again, _, err := ParseSparseMap(AppendSparseMap(nil, extents, size), size)
		if err != nil || (len(again)+len(extents) > 0 && !cmp.Equal(extents, again)) {
			t.Fatalf("%v came back as %v, %v", extents, again, err)
		}
	})
}

func BenchmarkAppendHeader(b *testing.B) {
	e := snapshot.Entry{
		Path: "usr/share/doc/some-package/examples/some-file.txt", Type: snapshot.File, Mode: 0o644, User: "root", Group: "root",
		MTime: snapshot.Time{Sec: 1700000000, Nsec: 123456789}, Size: 1234,
	}
	for _, c := range []struct {
		name string
		nsec int32
		x    []snapshot.Xattr
	}{
		{"plain", 0, nil},
		{"ns", 123456789, nil},
		{"xattrs", 123456789, []snapshot.Xattr{{Name: "security.selinux", Value: "system_u:object_r:usr_t:s0\x00"}}},
	} {
		b.Run(c.name, func(b *testing.B) {
			e.MTime.Nsec, e.Xattrs = c.nsec, c.x
			var dst []byte
			b.ReportAllocs()
			for b.Loop() {
				dst, _ = AppendHeader(dst[:0], &e, e.Size, false, "")
			}
		})
	}
	b.Run("archive-tar", func(b *testing.B) {
		h := &tar.Header{Name: e.Path, Typeflag: tar.TypeReg, Mode: 0o644, Uname: "root", Gname: "root", ModTime: time.Unix(1700000000, 123456789), Format: tar.FormatPAX}
		var buf bytes.Buffer
		b.ReportAllocs()
		for b.Loop() {
			buf.Reset()
			if err := tar.NewWriter(&buf).WriteHeader(h); err != nil {
				b.Fatal(err)
			}
		}
	})
}

package manifest_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"flag"
	"io"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/firn-backup/firn/internal/codec"
	"github.com/firn-backup/firn/internal/failure"
	"github.com/firn-backup/firn/internal/manifest"
	"github.com/firn-backup/firn/internal/snapshot"
	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

var update = flag.Bool("update", false, "write the golden files")

// everything is a manifest with every feature of version 1.
func everything() document {
	h := incrementalHeader()
	h.Paths = []string{"/home/me", "/srv/na\xefve"}
	h.Host = "h\xf6st"
	h.Must = []string{"sparse"}
	content := func(n uint64, vol int, off, stored int64) snapshot.Content {
		return snapshot.Content{N: n, Volume: vol, Offset: off, Stored: stored, SHA256: sha256.Sum256([]byte{byte(vol), byte(off)})}
	}
	sparse := content(12, 2, 1024, 1536)
	sparse.Sparse = true
	mt := snapshot.Time{Sec: 1_800_000_000, Nsec: 987654321}
	entries := []manifest.Record{
		{Entry: &snapshot.Entry{Path: "home/me", Type: snapshot.Dir, Mode: 0o755, UID: 1000, GID: 1000, User: "me", Group: "us\xff", MTime: mt}},
		{Entry: &snapshot.Entry{Path: "home/me/\x01\"\\<>&\u2028\ufffd\x7f", Type: snapshot.File, Mode: 0o4755, MTime: snapshot.Time{Sec: -1, Nsec: 999999999}}},
		{Entry: &snapshot.Entry{Path: "home/me/a", Type: snapshot.File, Mode: 0o644, UID: 4294967295, MTime: mt, Size: 5 << 20, Content: content(12, 1, 512, 5<<20)}},
		{Entry: &snapshot.Entry{Path: "home/me/a0", Type: snapshot.File, Mode: 0o644, MTime: mt, Size: 3, LinkGroup: "1", Content: content(9, 7, 0, 3)}},
		{Entry: &snapshot.Entry{Path: "home/me/a1", Type: snapshot.File, Mode: 0o644, MTime: mt, Size: 3, LinkGroup: "1", Content: content(9, 7, 0, 3)}},
		{Deleted: ptr("home/me/b")},
		{Deleted: ptr("home/me/b/\xfe")},
		{Entry: &snapshot.Entry{Path: "home/me/b-", Type: snapshot.Symlink, Mode: 0o777, MTime: mt, Link: "../\xff"}},
		{Entry: &snapshot.Entry{Path: "home/me/c", Type: snapshot.CharDev, Mode: 0o600, MTime: mt, Major: 5, Minor: 1}},
		{Entry: &snapshot.Entry{Path: "home/me/d", Type: snapshot.BlkDev, Mode: 0o600, MTime: mt}},
		{Entry: &snapshot.Entry{Path: "home/me/p", Type: snapshot.Fifo, Mode: 0o600, MTime: mt}},
		{Entry: &snapshot.Entry{
			Path: "home/me/s", Type: snapshot.File, Mode: 0, MTime: mt, Size: 1 << 40, Content: sparse, Torn: true,
			Xattrs: []snapshot.Xattr{{Name: "security.capability", Value: "\x00\x01"}, {Name: "user.empty"}, {Name: "user.\xff", Value: "odd"}},
		}},
		{Problem: &snapshot.Problem{Path: "home/me/secret", Reason: "permission denied"}},
		{Problem: &snapshot.Problem{Path: "home/me/\xff", Reason: "odd\xff"}},
		{Problem: &snapshot.Problem{Reason: "of nothing special"}},
	}
	v2 := testVolume(2, codec.Frame{Raw: 4096, Packed: 700})
	v2.RawSHA256, v2.Leaves, v2.Header, v2.Tail = nil, nil, nil, nil
	return document{h, append([]manifest.Record{
		{Volume: testVolume(1, codec.Frame{Raw: 4 << 20, Packed: 3 << 20}, codec.Frame{Raw: 3 << 20, Packed: 3<<20 - 7})},
		{Volume: v2},
	}, entries...)}
}

// TestGolden holds the bytes of version 1: they must be written as they are
// until the version changes, and be read for ever.
func TestGolden(t *testing.T) {
	t.Parallel()
	golden(t, "testdata/v1.jsonl", everything())
}

// TestGoldenStream is TestGolden of a producer's stream.
func TestGoldenStream(t *testing.T) {
	t.Parallel()
	h := incrementalHeader()
	h.Stream, h.Point, h.PointID, h.Paths = "zfs", "tank/home@firn-\xff", "6226480617313127048", nil
	golden(t, "testdata/v1-stream.jsonl", document{h, []manifest.Record{
		{Volume: testVolume(1, codec.Frame{Raw: 4 << 20, Packed: 3 << 20})},
		{Problem: &snapshot.Problem{Reason: "something"}},
	}})
}

// A stream has no entries.
func TestStreamWithEntries(t *testing.T) {
	t.Parallel()
	for _, stream := range []string{"zfs", "btrfs", "raw"} {
		h := incrementalHeader()
		h.Stream = stream
		for _, r := range []manifest.Record{{Deleted: ptr("home/me")}, {Entry: &snapshot.Entry{Path: "home", Type: snapshot.Dir}}} {
			if _, _, err := tryWrite(document{h, []manifest.Record{r}}); err == nil {
				t.Errorf("%s: written with %+v", stream, r)
			}
		}
	}
}

func golden(t *testing.T, file string, d document) {
	t.Helper()
	got, hash := write(t, d)
	if *update {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Error(diff)
	}
	back, r, err := read(bytes.NewReader(want))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(d, back, cmp.AllowUnexported(document{})); diff != "" {
		t.Error(diff)
	}
	if r.Hash() != hash || hash != sha256.Sum256(want) {
		t.Errorf("hash %x, written %x", r.Hash(), hash)
	}
	if !r.Signer().Equal(testKey().Public()) {
		t.Errorf("signer %x", r.Signer())
	}
	for i, line := range strings.Split(strings.TrimSuffix(string(want), "\n"), "\n") {
		if !json.Valid([]byte(line)) {
			t.Errorf("line %d is not JSON to encoding/json: %s", i+1, line)
		}
	}
}

// TestFrozen reads what versions of old have written; nothing is ever removed from testdata.
func TestFrozen(t *testing.T) {
	t.Parallel()
	b, err := os.ReadFile("testdata/v1.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	d, r, err := read(iotest.OneByteReader(bytes.NewReader(b)))
	if err != nil || len(d.records) != 17 || len(r.Signer()) != 32 {
		t.Fatalf("%d records, %v", len(d.records), err)
	}
}

// TestEveryByte changes each byte of a manifest, and cuts it at each: nothing of that may go unnoticed.
func TestEveryByte(t *testing.T) {
	t.Parallel()
	b, _ := write(t, everything())
	for i := range b {
		for _, x := range []byte{1, 0x20} {
			c := bytes.Clone(b)
			c[i] ^= x
			if _, r, err := read(bytes.NewReader(c)); err == nil && r.Signer().Equal(testKey().Public()) {
				t.Fatalf("byte %d changed from %q to %q: read without an error", i, b[i], c[i])
			}
		}
		if _, r, err := read(bytes.NewReader(b[:i])); err == nil || failure.KindOf(err) != failure.Damaged || r != nil && r.Signer() != nil {
			t.Fatalf("cut at %d: %v", i, err)
		}
	}
}

func genPath(t *rapid.T) string {
	elem := rapid.OneOf(
		rapid.StringN(1, 8, 20), rapid.StringOfN(rapid.RuneFrom([]rune("ab-.0\ufffd\u2028<\"\\\n\x01\x7f")), 1, 6, -1),
		rapid.Map(rapid.SliceOfN(rapid.Byte(), 1, 6), func(b []byte) string { return string(b) }),
	).Filter(func(s string) bool { return !strings.ContainsAny(s, "/\x00") && s != "." && s != ".." && s != "" })
	return strings.Join(rapid.SliceOfN(elem, 1, 4).Draw(t, "path"), "/")
}

func genText(t *rapid.T, name string) string {
	s := rapid.OneOf(rapid.String(), rapid.Map(rapid.SliceOf(rapid.Byte()), func(b []byte) string { return string(b) })).Draw(t, name)
	return strings.ReplaceAll(s, "\x00", "")
}

func genEntry(t *rapid.T, path string, h *manifest.Header) *snapshot.Entry {
	e := &snapshot.Entry{
		Path: path,
		Type: rapid.SampledFrom([]snapshot.Type{'f', 'f', 'f', 'd', 'l', 'p', 'c', 'b'}).Draw(t, "type"),
		Mode: uint32(rapid.IntRange(0, 0o7777).Draw(t, "mode")),
		UID:  rapid.Uint32().Draw(t, "uid"), GID: rapid.Uint32().Draw(t, "gid"),
		User: genText(t, "user"), Group: genText(t, "group"),
		MTime: snapshot.Time{Sec: rapid.Int64().Draw(t, "sec"), Nsec: rapid.Int32Range(0, 999_999_999).Draw(t, "nsec")},
	}
	if e.Type != snapshot.Dir {
		e.LinkGroup = genText(t, "links")
	}
	names := map[string]bool{}
	for range rapid.IntRange(0, 3).Draw(t, "xattrs") {
		if n := genText(t, "xattr"); n != "" && !names[n] {
			names[n] = true
			value := rapid.SliceOf(rapid.Byte()).Draw(t, "value")
			e.Xattrs = append(e.Xattrs, snapshot.Xattr{Name: n, Value: string(value)})
		}
	}
	slices.SortFunc(e.Xattrs, func(a, b snapshot.Xattr) int { return strings.Compare(a.Name, b.Name) })
	switch e.Type {
	case snapshot.Symlink:
		e.Link = "x" + genText(t, "link")
	case snapshot.CharDev, snapshot.BlkDev:
		e.Major, e.Minor = rapid.Uint32().Draw(t, "major"), rapid.Uint32().Draw(t, "minor")
	case snapshot.File:
		e.Size = rapid.SampledFrom([]int64{0, 1, 1000, 1 << 40}).Draw(t, "size")
		e.Torn = rapid.Bool().Draw(t, "torn")
		if e.Size == 0 {
			break
		}
		c := snapshot.Content{N: h.N, Volume: 1, Offset: rapid.Int64Range(0, 99).Draw(t, "off"), Stored: e.Size}
		if e.Size > 1000 {
			c.Sparse, c.Stored = true, 512
		}
		if h.Kind == snapshot.Incremental && rapid.Bool().Draw(t, "old") {
			c.N, c.Volume = rapid.Uint64Range(1, h.N).Draw(t, "n"), 1
		}
		c.SHA256 = sha256.Sum256([]byte(path))
		e.Content = c
	}
	return e
}

func TestRoundTrip(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		h := fullHeader()
		if rapid.Bool().Draw(t, "incremental") {
			h = incrementalHeader()
		}
		h.N = rapid.Uint64Range(2, 1<<63).Draw(t, "n")
		h.Set, h.Host, h.Label = genText(t, "set"), genText(t, "host"), genText(t, "label")
		h.At = time.Unix(rapid.Int64Range(0, 1<<37).Draw(t, "at"), rapid.Int64Range(0, 999_999_999).Draw(t, "atns")).UTC()
		h.Paths = nil
		for range rapid.IntRange(0, 3).Draw(t, "paths") {
			h.Paths = append(h.Paths, "/"+genPath(t))
		}
		d := document{header: h}
		for i := range rapid.IntRange(1, 3).Draw(t, "volumes") {
			d.records = append(d.records, manifest.Record{Volume: testVolume(i+1, codec.Frame{Raw: 1100, Packed: 1}, codec.Frame{Raw: 1 << 20, Packed: 2 << 20})})
		}
		paths := map[string]bool{}
		for range rapid.IntRange(0, 8).Draw(t, "entries") {
			paths[genPath(t)] = true
		}
		sorted := make([]string, 0, len(paths))
		for p := range paths {
			sorted = append(sorted, p)
		}
		slices.SortFunc(sorted, snapshot.ComparePaths)
		for _, p := range sorted {
			if h.Kind == snapshot.Incremental && rapid.IntRange(0, 3).Draw(t, "del") == 0 {
				d.records = append(d.records, manifest.Record{Deleted: ptr(p)})
				continue
			}
			d.records = append(d.records, manifest.Record{Entry: genEntry(t, p, &h)})
		}
		for range rapid.IntRange(0, 2).Draw(t, "problems") {
			reason := rapid.String().Draw(t, "reason")
			d.records = append(d.records, manifest.Record{Problem: &snapshot.Problem{Path: genPath(t), Reason: reason}})
		}
		b, hash, err := tryWrite(d)
		if err != nil {
			t.Fatal(err)
		}
		back, r, err := read(bytes.NewReader(b))
		if err != nil {
			t.Fatalf("%v\n%s", err, b)
		}
		if diff := cmp.Diff(d, back, cmp.AllowUnexported(document{})); diff != "" {
			t.Fatal(diff)
		}
		if r.Hash() != hash {
			t.Fatal("hashes differ")
		}
		checkWithJSON(t, b, d)
	})
}

// checkWithJSON reads the entries' paths with encoding/json, as a stranger would.
func checkWithJSON(t *rapid.T, b []byte, d document) {
	var paths []string
	for _, line := range bytes.Split(bytes.TrimSuffix(b, []byte("\n")), []byte("\n")) {
		var x struct {
			Path, Deleted     *string
			Path64, Deleted64 []byte
		}
		if err := json.Unmarshal(line, &x); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		switch {
		case x.Path != nil:
			paths = append(paths, *x.Path)
		case x.Deleted != nil:
			paths = append(paths, *x.Deleted)
		case x.Path64 != nil:
			paths = append(paths, string(x.Path64))
		case x.Deleted64 != nil:
			paths = append(paths, string(x.Deleted64))
		}
	}
	var want []string
	for _, r := range d.records {
		if r.Entry != nil {
			want = append(want, r.Entry.Path)
		} else if r.Deleted != nil {
			want = append(want, *r.Deleted)
		}
	}
	if !slices.Equal(paths, want) {
		t.Fatalf("encoding/json reads %q, not %q", paths, want)
	}
}

func TestWriterRefuses(t *testing.T) {
	t.Parallel()
	file := func(path string, change func(*snapshot.Entry)) []manifest.Record {
		e := &snapshot.Entry{
			Path: path, Type: snapshot.File, Mode: 0o644, Size: 10,
			Content: snapshot.Content{N: 12, Volume: 1, Offset: 0, Stored: 10},
		}
		change(e)
		return []manifest.Record{{Volume: testVolume(1, codec.Frame{Raw: 10, Packed: 10})}, {Entry: e}}
	}
	same := func(*snapshot.Entry) {}
	header := func(change func(*manifest.Header)) document {
		h := fullHeader()
		change(&h)
		return document{h, nil}
	}
	for name, d := range map[string]document{
		"good incremental N": {incrementalHeader(), file("a", func(e *snapshot.Entry) { e.Content.N = 13 })},
		"other n in a full":  {fullHeader(), file("a", func(e *snapshot.Entry) { e.Content.N = 11 })},
		"absolute":           {fullHeader(), file("/a", same)},
		"dotdot":             {fullHeader(), file("a/../b", same)},
		"dot":                {fullHeader(), file("./a", same)},
		"slash at the end":   {fullHeader(), file("a/", same)},
		"empty element":      {fullHeader(), file("a//b", same)},
		"empty":              {fullHeader(), file("", same)},
		"NUL":                {fullHeader(), file("a\x00b", same)},
		"order":              {fullHeader(), append(file("b", same), file("a", same)[1])},
		"slash sorts first":  {fullHeader(), append(file("a-", same), file("a/b", same)[1])},
		"twice":              {fullHeader(), append(file("b", same), file("b", same)[1])},
		"volume after entry": {fullHeader(), append(file("b", same), manifest.Record{Volume: testVolume(2, codec.Frame{Raw: 10, Packed: 10})})},
		"volume 2 first":     {fullHeader(), []manifest.Record{{Volume: testVolume(2, codec.Frame{Raw: 10, Packed: 10})}}},
		"entry after problem": {fullHeader(), append([]manifest.Record{{Problem: &snapshot.Problem{Path: "x"}}},
			manifest.Record{Entry: &snapshot.Entry{Path: "b", Type: snapshot.Fifo}})},
		"deletion in a full": {fullHeader(), []manifest.Record{{Deleted: ptr("a")}}},
		"beyond the volumes": {fullHeader(), file("a", func(e *snapshot.Entry) { e.Content.Offset = 1 })},
		"no such volume":     {fullHeader(), file("a", func(e *snapshot.Entry) { e.Content.Volume = 2 })},
		"volume 0":           {fullHeader(), file("a", func(e *snapshot.Entry) { e.Content.Volume = 0 })},
		"negative offset":    {fullHeader(), file("a", func(e *snapshot.Entry) { e.Content.Offset = -1 })},
		"negative stored":    {fullHeader(), file("a", func(e *snapshot.Entry) { e.Content.Sparse, e.Content.Stored = true, -1 })},
		"stored not size":    {fullHeader(), file("a", func(e *snapshot.Entry) { e.Content.Stored = 9 })},
		"content missing":    {fullHeader(), file("a", func(e *snapshot.Entry) { e.Content = snapshot.Content{} })},
		"directory's size":   {fullHeader(), file("a", func(e *snapshot.Entry) { e.Type = snapshot.Dir })},
		"no link target":     {fullHeader(), []manifest.Record{{Entry: &snapshot.Entry{Path: "a", Type: snapshot.Symlink}}}},
		"link with NUL":      {fullHeader(), []manifest.Record{{Entry: &snapshot.Entry{Path: "a", Type: snapshot.Symlink, Link: "a\x00"}}}},
		"type":               {fullHeader(), []manifest.Record{{Entry: &snapshot.Entry{Path: "a", Type: 's'}}}},
		"mode":               {fullHeader(), file("a", func(e *snapshot.Entry) { e.Mode = 0o10000 })},
		"xattrs' order":      {fullHeader(), file("a", func(e *snapshot.Entry) { e.Xattrs = []snapshot.Xattr{{Name: "b"}, {Name: "a"}} })},
		"no setid":           header(func(h *manifest.Header) { h.SetID = "" }),
		"n 0":                header(func(h *manifest.Header) { h.N = 0 }),
		"kind":               header(func(h *manifest.Header) { h.Kind = "" }),
		"base of a full":     header(func(h *manifest.Header) { h.Base = baseID }),
		"no base":            header(func(h *manifest.Header) { h.Kind = snapshot.Incremental }),
		"unknown must":       header(func(h *manifest.Header) { h.Must = []string{"dedup"} }),
		"frames' sum": {fullHeader(), []manifest.Record{{Volume: func() *manifest.Volume {
			v := testVolume(1, codec.Frame{Raw: 10, Packed: 10})
			v.Raw = 11
			return v
		}()}}},
		"leaves": {fullHeader(), []manifest.Record{{Volume: func() *manifest.Volume {
			v := testVolume(1, codec.Frame{Raw: 10, Packed: 10})
			v.Leaves[0][0]++
			return v
		}()}}},
	} {
		if _, _, err := tryWrite(d); err == nil {
			t.Errorf("%s: written", name)
		}
	}
	if _, _, err := tryWrite(document{fullHeader(), file("a", same)}); err != nil {
		t.Errorf("what all of these were made from: %v", err)
	}
}

// TestEmptyFileHasNoAddress: no bytes lie anywhere, not even past the last volume.
func TestEmptyFileHasNoAddress(t *testing.T) {
	t.Parallel()
	e := &snapshot.Entry{Path: "a", Type: snapshot.File, Content: snapshot.Content{N: 12, Volume: 1}}
	b, _ := write(t, document{fullHeader(), []manifest.Record{{Entry: e}}})
	d, _, err := read(bytes.NewReader(b))
	if err != nil || !d.records[0].Entry.Content.IsZero() {
		t.Fatalf("%+v, %v", d.records, err)
	}
}

func TestReaderPassesErrorsOn(t *testing.T) {
	t.Parallel()
	b, _ := write(t, everything())
	lost := errors.New("line is down")
	for _, at := range []int{0, 10, 700, len(b)} {
		_, _, err := read(io.MultiReader(bytes.NewReader(b[:at]), iotest.ErrReader(lost)))
		if !errors.Is(err, lost) || failure.KindOf(err) == failure.Damaged {
			t.Errorf("at %d: %v", at, err)
		}
	}
}

// failingWriter fails after n bytes.
type failingWriter struct{ n int }

func (f *failingWriter) Write(p []byte) (int, error) {
	if f.n -= len(p); f.n < 0 {
		return 0, io.ErrShortWrite
	}
	return len(p), nil
}

func TestWriterPassesErrorsOn(t *testing.T) {
	t.Parallel()
	w, err := manifest.NewWriter(&failingWriter{100}, fullHeader())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Close(testKey()); !errors.Is(err, io.ErrShortWrite) {
		t.Error(err)
	}
	w, _ = manifest.NewWriter(io.Discard, fullHeader())
	if _, err := w.Close(nil); err == nil {
		t.Error("signed without a key")
	}
	if _, err := w.Close(ed25519.PrivateKey{}); err == nil {
		t.Error("signed without a key")
	}
}

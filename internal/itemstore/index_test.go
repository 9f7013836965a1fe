package itemstore

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"flag"
	"fmt"
	"os"
	"reflect"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/firn-backup/firn/internal/catalog"
	"github.com/firn-backup/firn/internal/failure"
	"github.com/firn-backup/firn/internal/snapshot"
	"github.com/firn-backup/firn/treehash"
)

var update = flag.Bool("update", false, "write the golden files")

const (
	testSet = "01JD0000000000000000000001"
	testRun = "01JD0000000000000000000002"
	golden  = "testdata/index-v1.jsonl"
)

func testKey() ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, ed25519.SeedSize))
}

// index is a whole index.
func index(t interface{ Fatal(...any) }, h IndexHeader, items []catalog.Item) []byte {
	var b bytes.Buffer
	x := &indexWriter{w: &b, hash: sha256.New()}
	err := x.line(h)
	for k := range items {
		err = errors.Join(err, x.item(&items[k]))
	}
	if err = errors.Join(err, x.end(testKey())); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// readAll reads an index.
func readAll(b []byte) (h IndexHeader, items []catalog.Item, signer ed25519.PublicKey, err error) {
	signer, err = ReadIndex(bytes.NewReader(b), func(x IndexHeader) error { h = x; return nil }, func(i catalog.Item) error {
		items = append(items, i)
		return nil
	})
	return h, items, signer, err
}

func sampleHeader() IndexHeader {
	return IndexHeader{Version: 1, SetID: testSet, Set: "bands", Label: "bands", Kind: "mirror", Host: "nb", Run: testRun, N: 9, From: 1,
		At: time.Date(2026, 11, 22, 2, 0, 0, 0, time.UTC), Path: []byte("/srv/\xff")}
}

// sample has every field that an item can have.
func sample() []catalog.Item {
	at := time.Date(2026, 11, 22, 2, 0, 0, 5000, time.UTC)
	hash := func(s string) treehash.Hash { return treehash.Sum([]byte(s)) }
	ref := func(s string) catalog.ArchiveRef {
		return catalog.ArchiveRef{Archive: "bands-" + testSet + "/items/item-" + s, Size: 200, TreeHash: hash(s)}
	}
	more := catalog.ItemMore{Compress: "zstd", Encrypt: "age", Mode: 0o640, UID: 1000, GID: 100, User: "me", Group: "users", MTime: snapshot.Time{Sec: 1700000000, Nsec: 42}}
	dir := more
	dir.Dir, dir.Files, dir.Bytes, dir.Shape, dir.Content, dir.Torn = true, 3, 4096, []byte("shape"), []byte("content"), true
	other := more
	other.Self, other.Desc, other.Mounted, other.Encrypt = true, "mt2 eyJmaWxlbmFtZSI6ImEifQ", true, "none"
	return []catalog.Item{
		{SetID: testSet, Path: "a", N: 1, Until: 4, Archive: ref("a1"), Stored: at, Deleted: at.Add(time.Hour), Plain: 100, PlainHash: hash("A1"), ItemMore: more, Listed: 9},
		{SetID: testSet, Path: "a", N: 4, Archive: ref("a4"), Stored: at, Plain: 101, PlainHash: hash("A4"), ItemMore: more, Listed: 9},
		{SetID: testSet, Path: "a/b", N: 2, Archive: ref("d"), Stored: at, Plain: 8192, PlainHash: hash("D"), ItemMore: dir, Listed: 9},
		{SetID: testSet, Path: "a b\xffc", N: 9, Archive: ref("x"), Stored: at, Plain: 1, PlainHash: hash("X"), ItemMore: more, Listed: 9},
		{SetID: testSet, Path: "empty", N: 3, Stored: at, PlainHash: hash(""), ItemMore: more, Listed: 9},
		{SetID: testSet, Path: "self", N: 3, Until: 9, Archive: ref("s"), Stored: at, Plain: 7, PlainHash: hash("S"), ItemMore: other, Listed: 9},
	}
}

// The frozen sample is read as what it was written from, by this reader and every later one. What is written today is the same.
func TestGolden(t *testing.T) {
	t.Parallel()
	now := index(t, sampleHeader(), sample())
	if *update {
		if err := os.WriteFile(golden, now, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	b, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	h, items, signer, err := readAll(b)
	if err != nil || !signer.Equal(testKey().Public()) {
		t.Fatal(err, signer)
	}
	if !reflect.DeepEqual(h, sampleHeader()) {
		t.Errorf("%+v", h)
	}
	for k, want := range sample() {
		if k >= len(items) || !reflect.DeepEqual(items[k], want) {
			t.Fatalf("item %d: %+v, and it was %+v", k, items[min(k, len(items)-1)], want)
		}
	}
	if !bytes.Equal(now, b) {
		t.Error("an index is written otherwise than before: that takes a new version and a sample of it")
	}
}

// Whatever is changed or cut off is refused as damage, or the signature is another's.
func TestDamagedIndex(t *testing.T) {
	t.Parallel()
	b := index(t, sampleHeader(), sample())
	for k := range b {
		if _, _, _, err := readAll(b[:k]); failure.KindOf(err) != failure.Damaged {
			t.Fatalf("cut at %d: %v", k, err)
		}
		c := slices.Clone(b)
		c[k] ^= 1
		_, _, signer, err := readAll(c)
		if err == nil && signer.Equal(testKey().Public()) && !sameText(b, c) {
			t.Fatalf("byte %d (%q) changed: believed", k, b[max(0, k-10):k+1])
		}
	}
	if _, _, _, err := readAll(append(slices.Clone(b), 'x')); failure.KindOf(err) != failure.Damaged {
		t.Error(err)
	}
	newer := sampleHeader()
	newer.Version = 2
	if _, _, _, err := readAll(index(t, newer, nil)); failure.KindOf(err) != failure.Failed {
		t.Error(err)
	}
}

// sameText says whether two indexes differ in their last line at most, in what JSON takes for the same.
func sameText(a, b []byte) bool {
	cut := bytes.LastIndexByte(a[:len(a)-1], '\n')
	return bytes.Equal(a[:cut], b[:cut])
}

func drawPath(t *rapid.T) string {
	part := rapid.Custom(func(t *rapid.T) string {
		return string(rapid.SliceOfN(rapid.SampledFrom([]byte("ab. \"\\\n\xff\xc3\xa9-%")), 1, 6).Draw(t, "bytes"))
	}).Filter(func(s string) bool { return s != "." && s != ".." })
	p := part.Draw(t, "part")
	for range rapid.IntRange(0, 2).Draw(t, "depth") {
		p += "/" + part.Draw(t, "part")
	}
	return p
}

// What is written is read again, for any names and numbers.
func TestIndexRoundTrip(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		h := sampleHeader()
		h.N = rapid.Uint64Range(1, 1<<40).Draw(t, "n")
		h.From = rapid.Uint64Range(1, h.N).Draw(t, "from")
		seen := map[string]bool{}
		var items []catalog.Item
		for range rapid.IntRange(0, 8).Draw(t, "items") {
			i := sample()[rapid.IntRange(0, 5).Draw(t, "like")]
			i.Path, i.N, i.Until, i.Listed = drawPath(t), rapid.Uint64Range(1, h.N).Draw(t, "n"), 0, h.N
			if key := fmt.Sprint(i.Path, "\x00", i.N); seen[key] {
				continue
			} else {
				seen[key] = true
			}
			if i.N < h.N && rapid.Bool().Draw(t, "ended") {
				i.Until = rapid.Uint64Range(i.N+1, h.N).Draw(t, "until")
			}
			items = append(items, i)
		}
		slices.SortFunc(items, func(a, b catalog.Item) int {
			if c := snapshot.ComparePaths(a.Path, b.Path); c != 0 {
				return c
			}
			return int(int64(a.N) - int64(b.N))
		})
		got, back, _, err := readAll(index(t, h, items))
		if err != nil || !reflect.DeepEqual(got, h) || len(back) != len(items) {
			t.Fatal(err, got)
		}
		for k := range items {
			if !reflect.DeepEqual(items[k], back[k]) {
				t.Fatalf("%+v became %+v", items[k], back[k])
			}
		}
	})
}

// Whatever a vault gives is read without a panic, and what is told of it can be recorded.
func FuzzReadIndex(f *testing.F) {
	b, err := os.ReadFile(golden)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add(b[:len(b)/2])
	f.Add(index(f, sampleHeader(), nil))
	f.Add([]byte("{\"firn-items\":1}\n{\"items\":0}\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, items, signer, err := readAll(b)
		if err == nil && len(signer) != ed25519.PublicKeySize {
			t.Error("believed without a signer")
		}
		for _, i := range items {
			if !goodPath(i.Path) || i.SetID != h.SetID || i.N == 0 || i.N > h.N || i.Until != 0 && i.Until <= i.N || i.Plain < 0 || i.Archive.Size < 0 {
				t.Errorf("%+v", i)
			}
		}
	})
}

package manifest_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"io"
	"testing"
	"time"

	"github.com/firn-backup/firn/internal/codec"
	"github.com/firn-backup/firn/internal/manifest"
	"github.com/firn-backup/firn/internal/snapshot"
	"github.com/firn-backup/firn/treehash"
)

const (
	setID  = "01JD9ZK3V7Q4W8X2M5N6P7R8S9"
	snapID = "01JDA0000000000000000000AB"
	baseID = "01JCA0000000000000000000CD"
)

func testKey() ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, ed25519.SeedSize))
}

func fullHeader() manifest.Header {
	return manifest.Header{
		SetID: setID, Set: "documents", Label: "documents", Host: "nb", Snap: snapID, N: 12,
		At:   time.Date(2026, 11, 22, 2, 0, 0, 123456789, time.UTC),
		Made: time.Date(2026, 11, 22, 2, 0, 1, 0, time.UTC),
		Kind: snapshot.Full, Stream: "tar", Compress: "zstd", Encrypt: "age", Paths: []string{"/home/me/Documents"},
	}
}

func incrementalHeader() manifest.Header {
	h := fullHeader()
	h.Kind, h.Base, h.BaseHash = snapshot.Incremental, baseID, sha256.Sum256([]byte("base"))
	return h
}

// leavesOf makes up leaf hashes for an archive of size bytes, and their tree hash.
func leavesOf(size int64) ([]treehash.Hash, treehash.Hash) {
	leaves := make([]treehash.Hash, (size-1)/treehash.LeafSize+1)
	for i := range leaves {
		leaves[i] = sha256.Sum256([]byte{byte(i)})
	}
	return leaves, treehash.Combine(leaves)
}

func testVolume(n int, frames ...codec.Frame) *manifest.Volume {
	v := &manifest.Volume{
		N: n, Archive: "documents-" + setID + "/" + snapID + "/00000" + string(rune('0'+n)) + "-A.tar.zst.age",
		Frames: frames, Header: []byte("age-encryption.org/v1\n…"), Tail: bytes.Repeat([]byte{0xee}, 17),
	}
	for _, f := range frames {
		v.Raw += f.Raw
		v.Size += f.Packed
	}
	v.Size += 1000
	v.Leaves, v.TreeHash = leavesOf(v.Size)
	sum := sha256.Sum256([]byte{byte(n)})
	v.RawSHA256 = &sum
	return v
}

// document is a manifest in memory.
type document struct {
	header  manifest.Header
	records []manifest.Record
}

func write(t testing.TB, d document) ([]byte, manifest.Hash) {
	t.Helper()
	b, h, err := tryWrite(d)
	if err != nil {
		t.Fatal(err)
	}
	return b, h
}

func tryWrite(d document) ([]byte, manifest.Hash, error) {
	var buf bytes.Buffer
	w, err := manifest.NewWriter(&buf, d.header)
	if err != nil {
		return nil, manifest.Hash{}, err
	}
	for _, r := range d.records {
		switch {
		case r.Volume != nil:
			err = w.Volume(r.Volume)
		case r.Entry != nil:
			err = w.Entry(r.Entry)
		case r.Deleted != nil:
			err = w.Delete(*r.Deleted)
		default:
			err = w.Problem(r.Problem)
		}
		if err != nil {
			return nil, manifest.Hash{}, err
		}
	}
	hash, err := w.Close(testKey())
	return buf.Bytes(), hash, err
}

func read(r io.Reader) (document, *manifest.Reader, error) {
	mr, err := manifest.NewReader(r)
	if err != nil {
		return document{}, nil, err
	}
	d := document{header: mr.Header()}
	for {
		rec, err := mr.Next()
		if errors.Is(err, io.EOF) {
			return d, mr, nil
		}
		if err != nil {
			return d, mr, err
		}
		d.records = append(d.records, rec)
	}
}

func ptr[T any](v T) *T { return &v }

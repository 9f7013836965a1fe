package manifest_test

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"testing"

	"github.com/firn-backup/firn/internal/codec"
	"github.com/firn-backup/firn/internal/manifest"
	"github.com/firn-backup/firn/internal/snapshot"
)

func benchEntry(i int) snapshot.Entry {
	return snapshot.Entry{
		Path: fmt.Sprintf("home/me/Documents/project-%04d/src/component-%03d/file-%07d.go", i/10000, i/100%100, i),
		Type: snapshot.File, Mode: 0o644, UID: 1000, GID: 1000, User: "me", Group: "users",
		MTime: snapshot.Time{Sec: 1_800_000_000 + int64(i), Nsec: 123456789}, Size: 1000,
		Content: snapshot.Content{N: 12, Volume: 1, Offset: int64(i), Stored: 1000, SHA256: sha256.Sum256([]byte{byte(i)})},
	}
}

func BenchmarkWrite(b *testing.B) {
	w, err := manifest.NewWriter(io.Discard, fullHeader())
	if err != nil {
		b.Fatal(err)
	}
	if err := w.Volume(testVolume(1, codec.Frame{Raw: 1 << 40, Packed: 1 << 30})); err != nil {
		b.Fatal(err)
	}
	entries := make([]snapshot.Entry, b.N)
	for i := range entries {
		entries[i] = benchEntry(i)
	}
	b.ResetTimer()
	b.ReportAllocs()
	for i := range entries {
		if err := w.Entry(&entries[i]); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkRead(b *testing.B) {
	var buf bytes.Buffer
	w, err := manifest.NewWriter(&buf, fullHeader())
	if err != nil {
		b.Fatal(err)
	}
	if err := w.Volume(testVolume(1, codec.Frame{Raw: 1 << 40, Packed: 1 << 30})); err != nil {
		b.Fatal(err)
	}
	for i := range b.N {
		e := benchEntry(i)
		if err := w.Entry(&e); err != nil {
			b.Fatal(err)
		}
	}
	if _, err := w.Close(testKey()); err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(buf.Len() / b.N))
	b.ReportAllocs()
	b.ResetTimer()
	if _, _, err := drain(&buf); err != nil {
		b.Fatal(err)
	}
}

func drain(r io.Reader) (n int, mr *manifest.Reader, err error) {
	if mr, err = manifest.NewReader(r); err != nil {
		return 0, nil, err
	}
	for {
		if _, err = mr.Next(); err == io.EOF {
			return n, mr, nil
		} else if err != nil {
			return n, mr, err
		}
		n++
	}
}

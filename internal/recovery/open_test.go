package recovery

import (
	"testing"

	"github.com/firn-backup/firn/internal/codec"
	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/internal/manifest"
	"github.com/firn-backup/firn/internal/snapshot"
)

// How a manifest is packed is told by its description, in which a codec that does nothing is left out, or by its name.
func TestPackingOf(t *testing.T) {
	t.Parallel()
	describe := func(codecs ...string) string {
		return manifest.Description{Set: "s", SetID: "01ARZ3NDEKTSV4RRFFQ69G5FAV", Snap: "01ARZ3NDEKTSV4RRFFQ69G5FAV", N: 1, Kind: snapshot.Full, What: manifest.WhatManifest, Codecs: codecs}.String()
	}
	for _, c := range []struct {
		description, id string
		want            codec.Packing
	}{
		{describe("zstd", "age"), "s/S/manifest.jsonl.gz", codec.Packing{Compress: "zstd", Encrypt: "age"}},
		{describe("none", "openpgp"), "x", codec.Packing{Compress: "none", Encrypt: "openpgp"}},
		{describe(), "x", codec.Packing{Compress: "none", Encrypt: "none"}},
		{"", "s.zst/S/manifest.jsonl.gz.age", codec.Packing{Compress: "gzip", Encrypt: "age"}},
		{"", "s/S/manifest.jsonl", codec.Packing{Compress: "none", Encrypt: "none"}},
	} {
		p, err := packingOf(coldstore.Archive{ID: c.id, Description: c.description})
		if err != nil || p != c.want {
			t.Errorf("%q %q: %+v, %v", c.description, c.id, p, err)
		}
	}
	for _, a := range []coldstore.Archive{{ID: "x", Description: describe("rot13")}, {ID: "s/S/manifest.jsonl.xz"}} {
		if _, err := packingOf(a); err == nil {
			t.Errorf("%+v: a codec that is not known was taken for none", a)
		} else if k, _ := kindOf(err); k != Newer {
			t.Errorf("%+v: %v", a, err)
		}
	}
}

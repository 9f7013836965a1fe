package recovery

import (
	"testing"

	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/internal/manifest"
	"github.com/firn-backup/firn/internal/snapshot"
)

// How a manifest is packed is told by its description, in which a codec that does nothing is left out, or by its name.
func TestCodecsOf(t *testing.T) {
	t.Parallel()
	describe := func(codecs ...string) string {
		return manifest.Description{Set: "s", SetID: "01ARZ3NDEKTSV4RRFFQ69G5FAV", Snap: "01ARZ3NDEKTSV4RRFFQ69G5FAV", N: 1, Kind: snapshot.Full, What: manifest.WhatManifest, Codecs: codecs}.String()
	}
	for _, c := range []struct{ description, id, compress, encrypt string }{
		{describe("zstd", "age"), "x", "zstd", "age"},
		{describe("zstd"), "x", "zstd", "none"},
		{describe("gzip"), "x", "gzip", "none"},
		{describe("bzip2", "none"), "x", "bzip2", "none"},
		{describe("age"), "x", "none", "age"},
		{describe("none", "openpgp"), "x", "none", "openpgp"},
		{describe(), "x", "none", "none"},
		{"", "s/S/manifest.jsonl.gz", "gzip", "none"},
		{"", "s/S/manifest.jsonl.age", "none", "age"},
		{"", "s/S/manifest.jsonl", "none", "none"},
	} {
		compress, encrypt, err := codecsOf(coldstore.Archive{ID: c.id, Description: c.description})
		if err != nil || compress != c.compress || encrypt != c.encrypt {
			t.Errorf("%q %q: %s, %s, %v", c.description, c.id, compress, encrypt, err)
		}
	}
	if _, _, err := codecsOf(coldstore.Archive{ID: "x", Description: describe("rot13")}); err == nil {
		t.Error("a codec that is not known was taken for none")
	}
}

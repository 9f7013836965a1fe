package reconcile_test

import (
	"testing"
	"time"

	"github.com/firn-backup/firn/internal/catalog"
	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/internal/reconcile"
)

// TestSameMeaning: mt-aws-glacier's journal does not tell in which order it had written a description. What means the same is no finding, and
// the vault's words count from then on.
func TestSameMeaning(t *testing.T) {
	const (
		written = "mt2 eyJmaWxlbmFtZSI6ImZpbGUvYSIsIm10aW1lIjoiMjAxMjExMDNUMDYyOTM4WiJ9" // {"filename":"file/a","mtime":"20121103T062938Z"}
		swapped = "mt2 eyJtdGltZSI6IjIwMTIxMTAzVDA2MjkzOFoiLCJmaWxlbmFtZSI6ImZpbGUvYSJ9" // {"mtime":"20121103T062938Z","filename":"file/a"}
		first   = "mt1 eyJtdGltZSI6IjIwMTIxMTAzVDA2MjkzOFoiLCJmaWxlbmFtZSI6ImZpbGUvYSJ9" // of its first version
		other   = "mt2 eyJtdGltZSI6IjIwMTIxMTAzVDA2MjkzOVoiLCJmaWxlbmFtZSI6ImZpbGUvYSJ9" // a second later
		grsync  = "grsync|/file/a|1|1351924178.0|"
	)
	asOf := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	for _, tt := range []struct {
		was, listed string
		here        bool
		want        reconcile.Kind
		description string
	}{
		{written, swapped, false, "", swapped},
		{written, first, false, "", first},
		{written, other, false, reconcile.Renamed, written},
		{written, grsync, false, reconcile.Renamed, written},
		{"a", "b", false, reconcile.Renamed, "a"},
		{written, swapped, true, reconcile.Renamed, written},
	} {
		record := catalog.ArchiveRecord{Vault: "v", Archive: coldstore.Archive{ID: "1", Size: 1, Description: tt.was}, Name: "file/a"}
		if tt.here {
			record.UploadedAt = asOf.Add(-time.Hour)
		}
		got := reconcile.Judge(catalog.ArchiveState{Record: &record, Listed: &coldstore.Archive{ID: "1", Size: 1, Description: tt.listed}},
			reconcile.View{Vault: "v", AsOf: asOf})
		if got.Finding != tt.want || got.Change == nil || got.Change.Record.Description != tt.description || got.Change.Record.Name != "file/a" {
			t.Errorf("%q listed as %q: %+v", tt.was, tt.listed, got)
		}
	}
}

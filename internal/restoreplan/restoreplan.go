// Package restoreplan decides which bytes of which archives must be read to
// have stretches of a snapshot's stream. It is pure arithmetic over the index.
package restoreplan

import (
	"github.com/firn-backup/firn/internal/codec"
	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/internal/manifest"
)

// Span is a stretch of a volume's raw stream, in bytes.
type Span struct{ Offset, Size int64 }

// Read is one range of an archive to retrieve, and the frames it gives.
type Read struct {
	Range       coldstore.Range // aligned as the store wants it; never zero-sized; the whole archive where only that can be had
	First, Last int             // frames [First, Last)
}

// Volume plans one volume: the fewest reads that cover the frames of the
// spans, neighbours less than gap bytes of ciphertext apart taken together. spans need not be sorted. The reads are in order
// and do not overlap. Spans beyond the volume are an error.
func Volume(v *manifest.Volume, spans []Span, g codec.Geometry, t coldstore.Traits, gap int64) ([]Read, error) {
	panic("not yet")
}

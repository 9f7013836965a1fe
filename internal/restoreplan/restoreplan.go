// Package restoreplan decides which bytes of which archives must be read to
// have stretches of a snapshot's stream. It is pure arithmetic over the index.
package restoreplan

import (
	"cmp"
	"fmt"
	"slices"
	"sort"

	"github.com/firn-backup/firn/internal/codec"
	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/internal/manifest"
	"github.com/firn-backup/firn/treehash"
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
// and do not overlap. Spans beyond the volume are an error (codec.ErrDamaged: the index contradicts itself); empty ones need nothing.
//
// Header and tail are in v, so no read is made for them; a small archive's tail is not, and it is read whole. Ranges begin and end
// at MiBs where the store's granularity allows it, or at the archive's end: only of a whole MiB
// does the manifest know the hash. When every frame is wanted in one read, that is of the
// whole archive, so that restoring all looks at every byte.
func Volume(v *manifest.Volume, spans []Span, g codec.Geometry, t coldstore.Traits, gap int64) ([]Read, error) {
	x, err := newIndex(v, g)
	if err != nil {
		return nil, err
	}
	wanted, err := x.frames(spans)
	if err != nil || len(wanted) == 0 {
		return nil, err
	}
	all := Read{Range: coldstore.Range{Size: v.Size}, Last: len(v.Frames)}
	if g.Whole || t.WholeOnly || g.Chunk > 0 && len(v.Tail) == 0 { // without the tail at hand, nothing but the whole opens
		return []Read{all}, nil
	}
	unit := max(t.Granularity, 1)
	if unit < treehash.LeafSize && treehash.LeafSize%unit == 0 {
		unit = treehash.LeafSize
	}
	var reads []Read
	var lastEnd int64 // of the frames of the last read, not aligned
	for _, w := range wanted {
		start, end := x.cipher(w.first, w.last)
		from := start / unit * unit
		to := v.Size
		if up := (end + unit - 1) / unit; up <= v.Size/unit {
			to = up * unit
		}
		if n := len(reads); n > 0 {
			r := &reads[n-1]
			if from <= r.Range.Offset+r.Range.Size || start-lastEnd < gap {
				r.Range.Size = to - r.Range.Offset
				r.Last = w.last
				lastEnd = end
				continue
			}
		}
		reads = append(reads, Read{Range: coldstore.Range{Offset: from, Size: to - from}, First: w.first, Last: w.last})
		lastEnd = end
	}
	if len(reads) == 1 && reads[0].First == 0 && reads[0].Last == len(v.Frames) {
		return []Read{all}, nil
	}
	return reads, nil
}

// An index is where a volume's frames lie.
type index struct {
	v      *manifest.Volume
	g      codec.Geometry
	raw    []int64 // where each frame begins in the raw stream, and the last one ends
	packed []int64 // the same in the plaintext
}

func newIndex(v *manifest.Volume, g codec.Geometry) (*index, error) {
	x := &index{v: v, g: g, raw: make([]int64, 1, len(v.Frames)+1), packed: make([]int64, 1, len(v.Frames)+1)}
	for i, f := range v.Frames {
		raw, packed := x.raw[i]+f.Raw, x.packed[i]+f.Packed
		// A sum that has overflowed is smaller than what was added to.
		if f.Raw <= 0 || f.Packed <= 0 || raw < x.raw[i] || packed < x.packed[i] {
			return nil, fmt.Errorf("plan volume %d: frame %d of %d bytes in %d: %w", v.N, i, f.Raw, f.Packed, codec.ErrDamaged)
		}
		x.raw, x.packed = append(x.raw, raw), append(x.packed, packed)
	}
	n := len(v.Frames)
	if v.Size <= 0 {
		return nil, fmt.Errorf("plan volume %d: an archive of %d bytes: %w", v.N, v.Size, codec.ErrDamaged)
	}
	if x.raw[n] != v.Raw {
		return nil, fmt.Errorf("plan volume %d: frames of %d bytes, and it has %d: %w", v.N, x.raw[n], v.Raw, codec.ErrDamaged)
	}
	if !g.Whole && x.packed[n] > v.Size-int64(len(v.Header)) {
		return nil, fmt.Errorf("plan volume %d: frames of %d packed bytes, and the archive has %d: %w", v.N, x.packed[n], v.Size, codec.ErrDamaged)
	}
	if n > 0 && !g.Whole {
		if start, _ := g.CipherRange(int64(len(v.Header)), x.packed[n]-1, 1); start < 0 || start >= v.Size {
			return nil, fmt.Errorf("plan volume %d: frames to byte %d, and the archive has %d: %w", v.N, start, v.Size, codec.ErrDamaged)
		}
	}
	return x, nil
}

// A run is a row of frames [first, last).
type run struct{ first, last int }

// frames finds the frames of spans, in runs that neither overlap nor touch.
func (x *index) frames(spans []Span) ([]run, error) {
	var runs []run
	for _, s := range spans {
		if s.Offset < 0 || s.Size < 0 || s.Offset > x.v.Raw || s.Size > x.v.Raw-s.Offset {
			return nil, fmt.Errorf("plan volume %d: bytes %d to %d, and it has %d: %w", x.v.N, s.Offset, s.Offset+s.Size, x.v.Raw, codec.ErrDamaged)
		}
		if s.Size == 0 {
			continue
		}
		// The last frame that begins at or before the first byte, and the first one that begins at or after the end.
		first := sort.Search(len(x.raw), func(i int) bool { return x.raw[i] > s.Offset }) - 1
		last := sort.Search(len(x.raw), func(i int) bool { return x.raw[i] >= s.Offset+s.Size })
		runs = append(runs, run{first, last})
	}
	slices.SortFunc(runs, func(a, b run) int { return cmp.Compare(a.first, b.first) })
	merged := runs[:0]
	for _, r := range runs {
		if n := len(merged); n > 0 && r.first <= merged[n-1].last {
			merged[n-1].last = max(merged[n-1].last, r.last)
		} else {
			merged = append(merged, r)
		}
	}
	return merged, nil
}

// cipher is the stretch of the archive that frames [first, last) lie in.
func (x *index) cipher(first, last int) (start, end int64) {
	start, n := x.g.CipherRange(int64(len(x.v.Header)), x.packed[first], x.packed[last]-x.packed[first])
	return start, min(start+n, x.v.Size)
}

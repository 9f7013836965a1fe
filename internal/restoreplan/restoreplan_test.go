package restoreplan

import (
	"errors"
	"math"
	"reflect"
	"testing"

	"github.com/firn-backup/firn/internal/codec"
	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/internal/manifest"
	"pgregory.net/rapid"
)

const mib = 1 << 20

var age = codec.Geometry{Chunk: 64 << 10, Tag: 16}

// volume makes the index of a volume with a header of 200 bytes and a trailer.
func volume(g codec.Geometry, trailer int64, frames ...codec.Frame) *manifest.Volume {
	v := &manifest.Volume{N: 1, Frames: frames}
	for _, f := range frames {
		v.Raw += f.Raw
	}
	plain := v.Packed() + trailer
	v.Size = plain
	if g.Chunk > 0 {
		v.Header = make([]byte, 200)
		chunks := (plain + g.Chunk - 1) / g.Chunk
		v.Size += 200 + chunks*g.Tag
		v.Tail = make([]byte, plain-(chunks-1)*g.Chunk+g.Tag)
	}
	return v
}

func TestVolume(t *testing.T) {
	t.Parallel()
	frame := codec.Frame{Raw: 4 * mib, Packed: 2 * mib}
	v := volume(codec.Geometry{}, 1000, frame, frame, frame, frame, frame, frame, frame, frame) // 16 MiB and 1,000 bytes
	glacier := coldstore.Traits{Granularity: mib}
	type reads = []Read
	for _, tc := range []struct {
		name   string
		spans  []Span
		g      codec.Geometry
		traits coldstore.Traits
		gap    int64
		want   reads
	}{
		{"nothing", nil, codec.Geometry{}, glacier, 0, nil},
		{"an empty file", []Span{{5 * mib, 0}}, codec.Geometry{}, glacier, 0, nil},
		{"one byte", []Span{{5 * mib, 1}}, codec.Geometry{}, glacier, 0, reads{{coldstore.Range{Offset: 2 * mib, Size: 2 * mib}, 1, 2}}},
		{"across frames", []Span{{8*mib - 1, 2}}, codec.Geometry{}, glacier, 0, reads{{coldstore.Range{Offset: 2 * mib, Size: 4 * mib}, 1, 3}}},
		{"neighbours, not sorted", []Span{{8 * mib, 5}, {4 * mib, 4 * mib}}, codec.Geometry{}, glacier, 0, reads{{coldstore.Range{Offset: 2 * mib, Size: 4 * mib}, 1, 3}}},
		{"apart", []Span{{0, 1}, {8 * mib, 1}}, codec.Geometry{}, glacier, 0,
			reads{{coldstore.Range{Offset: 0, Size: 2 * mib}, 0, 1}, {coldstore.Range{Offset: 4 * mib, Size: 2 * mib}, 2, 3}}},
		{"apart by the gap", []Span{{0, 1}, {8 * mib, 1}}, codec.Geometry{}, glacier, 2 * mib,
			reads{{coldstore.Range{Offset: 0, Size: 2 * mib}, 0, 1}, {coldstore.Range{Offset: 4 * mib, Size: 2 * mib}, 2, 3}}},
		{"apart by less", []Span{{0, 1}, {8 * mib, 1}}, codec.Geometry{}, glacier, 2*mib + 1, reads{{coldstore.Range{Offset: 0, Size: 6 * mib}, 0, 3}}},
		{"the last frame ends at a MiB", []Span{{31 * mib, 1}}, codec.Geometry{}, glacier, 0, reads{{coldstore.Range{Offset: 14 * mib, Size: 2 * mib}, 7, 8}}},
		{"a coarse store", []Span{{31 * mib, 1}}, codec.Geometry{}, coldstore.Traits{Granularity: 4 * mib}, 0, reads{{coldstore.Range{Offset: 12 * mib, Size: 4 * mib}, 7, 8}}},
		{"a coarser one", []Span{{31 * mib, 1}}, codec.Geometry{}, coldstore.Traits{Granularity: 12 * mib}, 0, reads{{coldstore.Range{Offset: 12 * mib, Size: v.Size - 12*mib}, 7, 8}}},
		{"an odd one", []Span{{31 * mib, 1}}, codec.Geometry{}, coldstore.Traits{Granularity: 1000}, 0, reads{{coldstore.Range{Offset: 14680000, Size: 2098000}, 7, 8}}},
		{"a fine one", []Span{{5 * mib, 1}}, codec.Geometry{}, coldstore.Traits{Granularity: 1}, 0, reads{{coldstore.Range{Offset: 2 * mib, Size: 2 * mib}, 1, 2}}},
		{"everything", []Span{{0, 32 * mib}}, codec.Geometry{}, glacier, 0, reads{{coldstore.Range{Size: v.Size}, 0, 8}}},
		{"whole archives only", []Span{{5 * mib, 1}}, codec.Geometry{}, coldstore.Traits{WholeOnly: true}, 0, reads{{coldstore.Range{Size: v.Size}, 0, 8}}},
		{"whole cipher", []Span{{5 * mib, 1}}, codec.Geometry{Whole: true}, glacier, 0, reads{{coldstore.Range{Size: v.Size}, 0, 8}}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			got, err := Volume(v, tc.spans, tc.g, tc.traits, tc.gap)
			if err != nil || !reflect.DeepEqual(got, tc.want) {
				t.Errorf("got %v, %v; want %v", got, err, tc.want)
			}
		})
	}
}

func TestVolumeErrors(t *testing.T) {
	t.Parallel()
	good := func() *manifest.Volume {
		return volume(age, 0, codec.Frame{Raw: 100, Packed: 50}, codec.Frame{Raw: 100, Packed: 50})
	}
	for name, change := range map[string]func(v *manifest.Volume, s *Span){
		"beyond":          func(v *manifest.Volume, s *Span) { s.Offset = 101 },
		"far beyond":      func(v *manifest.Volume, s *Span) { s.Offset = 201 },
		"overflow":        func(v *manifest.Volume, s *Span) { s.Offset, s.Size = 50, math.MaxInt64-10 },
		"negative offset": func(v *manifest.Volume, s *Span) { s.Offset = -1 },
		"negative size":   func(v *manifest.Volume, s *Span) { s.Size = -1 },
		"raw":             func(v *manifest.Volume, s *Span) { v.Raw++ },
		"frame":           func(v *manifest.Volume, s *Span) { v.Frames[0].Packed = 0 },
		"negative frame":  func(v *manifest.Volume, s *Span) { v.Frames[0].Raw = -1 },
		"frames overflow": func(v *manifest.Volume, s *Span) { v.Frames[0].Packed = math.MaxInt64; v.Frames[1].Packed = 10 },
		"packed":          func(v *manifest.Volume, s *Span) { v.Frames[0].Packed = 5000 },
	} {
		v, s := good(), Span{0, 100}
		change(v, &s)
		if r, err := Volume(v, []Span{s}, age, coldstore.Traits{}, 0); !errors.Is(err, codec.ErrDamaged) {
			t.Errorf("%s: %v, %v", name, r, err)
		}
	}
	if r, err := Volume(good(), []Span{{0, 100}, {100, 100}, {200, 0}}, age, coldstore.Traits{}, 0); err != nil || len(r) != 1 {
		t.Error(r, err)
	}
}

func TestVolumeProperty(t *testing.T) {
	t.Parallel()
	rapid.Check(t, property)
}

func FuzzVolume(f *testing.F) {
	f.Add([]byte{})
	f.Fuzz(rapid.MakeFuzz(property))
}

func property(t *rapid.T) {
	g := rapid.SampledFrom([]codec.Geometry{{}, age, {Chunk: 100, Tag: 7}, {Whole: true}}).Draw(t, "geometry")
	traits := coldstore.Traits{
		Granularity: rapid.SampledFrom([]int64{0, 1, 512, 1000, mib, 3 * mib, 4 * mib}).Draw(t, "granularity"),
		WholeOnly:   rapid.IntRange(0, 9).Draw(t, "wholeonly") == 0,
	}
	gap := rapid.SampledFrom([]int64{0, 1, 1000, mib, 10 * mib}).Draw(t, "gap")
	frames := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) codec.Frame {
		raw := rapid.SampledFrom([]int64{1, 1000, 300_000, mib, 4 * mib}).Draw(t, "raw")
		return codec.Frame{Raw: raw, Packed: 1 + rapid.Int64Range(raw/4, raw).Draw(t, "packed")}
	}), 1, 40).Draw(t, "frames")
	v := volume(g, rapid.Int64Range(0, 70_000).Draw(t, "trailer"), frames...)
	spans := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) Span {
		off := rapid.Int64Range(0, v.Raw).Draw(t, "offset")
		return Span{off, rapid.Int64Range(0, min(v.Raw-off, 5*mib)).Draw(t, "size")}
	}), 0, 12).Draw(t, "spans")
	reads, err := Volume(v, spans, g, traits, gap)
	if err != nil {
		t.Fatalf("%v", err)
	}
	check(t, v, spans, g, traits, gap, reads)
}

// check holds a plan against the promises, one frame and one byte at a time.
func check(t *rapid.T, v *manifest.Volume, spans []Span, g codec.Geometry, traits coldstore.Traits, gap int64, reads []Read) {
	needed := make([]bool, len(v.Frames))
	var raw int64
	for i, f := range v.Frames {
		for _, s := range spans {
			if s.Size > 0 && s.Offset < raw+f.Raw && s.Offset+s.Size > raw {
				needed[i] = true
			}
		}
		raw += f.Raw
	}
	given := make([]bool, len(v.Frames))
	var end int64 = -1
	lastFrame := 0
	for k, r := range reads {
		if r.Range.Size <= 0 || r.Range.Offset <= end || r.Range.Offset+r.Range.Size > v.Size || r.First < lastFrame || r.Last <= r.First {
			t.Fatalf("read %+v after %d", r, end)
		}
		if k > 0 && cipherStart(v, g, r.First)-cipherStart(v, g, lastFrame) < gap-g.Chunk-g.Tag {
			t.Fatalf("read %+v is less than %d from the one before", r, gap)
		}
		end, lastFrame = r.Range.Offset+r.Range.Size, r.Last
		if unit := max(traits.Granularity, 1); r.Range.Offset%unit != 0 || (end%unit != 0 && end != v.Size) {
			t.Fatalf("read %+v is not aligned", r)
		}
		if !needed[r.First] && !g.Whole && !traits.WholeOnly || !needed[r.Last-1] && !g.Whole && !traits.WholeOnly {
			t.Fatalf("read %+v begins or ends with frames that nobody needs", r)
		}
		for i := r.First; i < r.Last; i++ {
			given[i] = true
			if g.Whole {
				continue
			}
			var packed int64
			for _, f := range v.Frames[:i] {
				packed += f.Packed
			}
			start, n := g.CipherRange(int64(len(v.Header)), packed, v.Frames[i].Packed)
			if start < r.Range.Offset || min(start+n, v.Size) > end {
				t.Fatalf("frame %d lies at %d+%d, outside of %+v", i, start, n, r.Range)
			}
		}
	}
	if g.Whole || traits.WholeOnly {
		if len(reads) > 1 || (len(reads) == 1 && (reads[0] != Read{coldstore.Range{Size: v.Size}, 0, len(v.Frames)})) {
			t.Fatalf("reads %+v", reads)
		}
	}
	for i := range needed {
		if needed[i] && !given[i] {
			t.Fatalf("frame %d is missing", i)
		}
	}
}

// cipherStart is where frame i begins, to a chunk.
func cipherStart(v *manifest.Volume, g codec.Geometry, i int) int64 {
	var packed int64
	for _, f := range v.Frames[:i] {
		packed += f.Packed
	}
	start, _ := g.CipherRange(int64(len(v.Header)), packed, 1)
	return start
}

// A manifest is signed, but not every signer is right: whatever numbers it has, a plan stays
// within the archive, or there is none.
func TestHostileIndex(t *testing.T) {
	t.Parallel()
	rapid.Check(t, hostile)
}

func FuzzHostileIndex(f *testing.F) {
	f.Add([]byte{})
	f.Fuzz(rapid.MakeFuzz(hostile))
}

func hostile(t *rapid.T) {
	number := rapid.OneOf(rapid.Int64(), rapid.Int64Range(0, 1000), rapid.SampledFrom([]int64{math.MaxInt64, math.MaxInt64 - 100}))
	v := &manifest.Volume{
		N: 1, Size: number.Draw(t, "size"), Raw: number.Draw(t, "raw"),
		Header: make([]byte, rapid.IntRange(0, 300).Draw(t, "header")),
	}
	for range rapid.IntRange(0, 5).Draw(t, "frames") {
		v.Frames = append(v.Frames, codec.Frame{Raw: number.Draw(t, "raw"), Packed: number.Draw(t, "packed")})
	}
	if rapid.Bool().Draw(t, "right sum") {
		v.Raw = 0
		for _, f := range v.Frames {
			v.Raw += f.Raw
		}
	}
	g := rapid.SampledFrom([]codec.Geometry{{}, age, {Whole: true}}).Draw(t, "geometry")
	traits := coldstore.Traits{Granularity: rapid.SampledFrom([]int64{1, mib}).Draw(t, "granularity")}
	reads, err := Volume(v, []Span{{number.Draw(t, "offset"), number.Draw(t, "size")}}, g, traits, number.Draw(t, "gap"))
	if err != nil {
		return
	}
	for _, r := range reads {
		if r.Range.Offset < 0 || r.Range.Size <= 0 || r.Range.Size > v.Size-r.Range.Offset || r.First < 0 || r.First >= r.Last || r.Last > len(v.Frames) {
			t.Fatalf("read %+v of %d", r, v.Size)
		}
	}
}

package compress

import (
	"encoding/binary"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/firn-backup/firn/internal/codec"
	"github.com/firn-backup/firn/internal/mustrun"
)

func TestSeekTable(t *testing.T) {
	t.Parallel()
	c := mustNew(t, "zstd")
	rapid.Check(t, func(rt *rapid.T) {
		frames := rapid.SliceOfN(rapid.Custom(func(rt *rapid.T) codec.Frame {
			return codec.Frame{Raw: rapid.Int64Range(0, 1<<32-1).Draw(rt, "raw"), Packed: rapid.Int64Range(9, 1<<32-1).Draw(rt, "packed")}
		}), 0, 300).Draw(rt, "frames")
		pad := rapid.Bool().Draw(rt, "pad")
		b, err := c.Trailer(frames, pad)
		if err != nil {
			rt.Fatal(err)
		}
		if got := parseSeekTable(rt, b, frames); pad && got%(64<<10) != 1 {
			rt.Fatalf("plaintext ends at %d, %d past a multiple of 64 KiB", got, got%(64<<10))
		} else if !pad && len(b) != 8+8*len(frames)+9 {
			rt.Fatalf("%d bytes", len(b))
		}
	})
	for _, bad := range []codec.Frame{{Raw: 1 << 32, Packed: 1}, {Raw: 1, Packed: 1 << 32}, {Raw: -1, Packed: 1}, {Raw: 1, Packed: -1}} {
		if _, err := c.Trailer([]codec.Frame{bad}, false); err == nil {
			t.Errorf("%+v is listed", bad)
		}
	}
	for _, name := range []string{Gzip, None} {
		if b, err := mustNew(t, name).Trailer([]codec.Frame{{Raw: 1, Packed: 1}}, true); err != nil || len(b) > 0 {
			t.Errorf("%s: trailer of %d bytes, %v", name, len(b), err)
		}
	}
}

// parseSeekTable reads a trailer as the seekable format's page says, from the
// end, compares it with frames and returns the whole volume's size.
func parseSeekTable(t interface{ Fatalf(string, ...any) }, b []byte, frames []codec.Frame) int64 {
	le := binary.LittleEndian
	foot := b[len(b)-9:]
	if m := le.Uint32(foot[5:]); m != 0x8F92EAB1 {
		t.Fatalf("footer's magic %x", m)
	}
	if foot[4] != 0 {
		t.Fatalf("descriptor %x", foot[4])
	}
	n := int(le.Uint32(foot))
	table := b[len(b)-9-8*n-8:]
	if m, size := le.Uint32(table), le.Uint32(table[4:]); m != 0x184D2A5E || int(size) != len(table)-8 {
		t.Fatalf("table's magic %x, size %d", m, size)
	}
	var sum, want int64
	for i := range n {
		packed, raw := int64(le.Uint32(table[8+8*i:])), int64(le.Uint32(table[12+8*i:]))
		if i < len(frames) && (packed != frames[i].Packed || raw != frames[i].Raw) {
			t.Fatalf("entry %d is %d %d, want %+v", i, packed, raw, frames[i])
		}
		if i >= len(frames) && raw != 0 {
			t.Fatalf("entry %d has raw size %d", i, raw)
		}
		sum += packed
	}
	for _, f := range frames {
		want += f.Packed
	}
	padding := int64(len(b) - len(table))
	if sum != want+padding || n > len(frames)+1 {
		t.Fatalf("the entries add up to %d, and the table begins at %d", sum, want+padding)
	}
	if padding > 0 {
		if m, size := le.Uint32(b), le.Uint32(b[4:]); m != 0x184D2A50 || int64(size) != padding-8 {
			t.Fatalf("padding's magic %x, size %d", m, size)
		}
	}
	return sum + int64(len(table))
}

// TestZstdLists: the zstd program lists and tests a volume, and sees all frames.
func TestZstdLists(t *testing.T) {
	t.Parallel()
	mustrun.Tool(t, "zstd")
	c := mustNew(t, "zstd")
	e, _ := coders(t, c)
	var volume []byte
	var frames []codec.Frame
	r := rand.New(rand.NewPCG(11, 12))
	for range 5 {
		start := len(volume)
		var err error
		if volume, err = e.EncodeFrame(volume, mixed(r, 200_000)); err != nil {
			t.Fatal(err)
		}
		frames = append(frames, codec.Frame{Raw: 200_000, Packed: int64(len(volume) - start)})
	}
	trailer, err := c.Trailer(frames, true)
	if err != nil {
		t.Fatal(err)
	}
	volume = append(volume, trailer...)
	if len(volume)%(64<<10) != 1 {
		t.Errorf("volume of %d bytes", len(volume))
	}
	path := filepath.Join(t.TempDir(), "v.zst")
	if err := os.WriteFile(path, volume, 0o600); err != nil {
		t.Fatal(err)
	}
	run(t, nil, "zstd", "-t", "-q", path)
	list := string(run(t, nil, "zstd", "-lv", path))
	for _, want := range []string{"# Zstandard Frames: 5", "# Skippable Frames: 2", "1000000 B", "XXH64"} {
		if !strings.Contains(list, want) {
			t.Errorf("zstd -lv does not say %q:\n%s", want, list)
		}
	}
}

package compress

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os/exec"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
	"pgregory.net/rapid"

	"github.com/firn-backup/firn/internal/codec"
	"github.com/firn-backup/firn/internal/failure"
	"github.com/firn-backup/firn/internal/mustrun"
)

// programs are the decoders of the usual programs.
func programs(name string) [][]string {
	switch name {
	case Zstd:
		return [][]string{{"zstd", "-d", "-c"}}
	case Gzip:
		return [][]string{{"gzip", "-d", "-c"}}
	case Bzip2:
		return [][]string{{"bzip2", "-d", "-c"}, {"lbzip2", "-d", "-c"}}
	}
	return [][]string{{"cat"}}
}

func run(t testing.TB, in []byte, args ...string) []byte {
	t.Helper()
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stdin = bytes.NewReader(in)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %v: %s", args, err, stderr.Bytes())
	}
	return out
}

func mustNew(t testing.TB, spec string) codec.Compressor {
	t.Helper()
	if strings.HasPrefix(spec, Bzip2) {
		mustrun.Tool(t, "bzip2", "lbzip2")
	}
	c, err := New(spec)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func coders(t testing.TB, c codec.Compressor) (codec.FrameEncoder, codec.FrameDecoder) {
	t.Helper()
	e, err := c.NewEncoder()
	if err != nil {
		t.Fatal(err)
	}
	d, err := c.NewDecoder()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(e.Close(), d.Close()); err != nil {
			t.Error(err)
		}
	})
	return e, d
}

// mixed is data that compresses in part: words, noise and zeros.
func mixed(r *rand.Rand, n int) []byte {
	b := make([]byte, 0, n)
	for len(b) < n {
		switch r.IntN(3) {
		case 0:
			for range r.IntN(400) {
				b = fmt.Appendf(b, "line %d of %x\n", r.IntN(1000), r.IntN(16))
			}
		case 1:
			for range r.IntN(4000) {
				b = append(b, byte(r.Uint32()))
			}
		case 2:
			b = append(b, make([]byte, r.IntN(4000))...)
		}
	}
	return b[:n]
}

var specs = []string{"zstd", "zstd:1", "zstd:7", "zstd:19", "gzip", "gzip:1", "gzip:9", "bzip2", "bzip2:1", "none"}

func TestNewSpecs(t *testing.T) {
	mustrun.Tool(t, "bzip2")
	good := append([]string{}, specs...)
	for n := 1; n <= 19; n++ {
		good = append(good, fmt.Sprintf("zstd:%d", n))
	}
	for n := 1; n <= 9; n++ {
		good = append(good, fmt.Sprintf("gzip:%d", n), fmt.Sprintf("bzip2:%d", n))
	}
	exts := map[string]string{Zstd: ".zst", Gzip: ".gz", Bzip2: ".bz2", None: ""}
	for _, spec := range good {
		c, err := New(spec)
		if err != nil {
			t.Errorf("New(%q): %v", spec, err)
			continue
		}
		name, _, _ := strings.Cut(spec, ":")
		if c.Name() != name || c.Ext() != exts[name] {
			t.Errorf("New(%q) is %q %q", spec, c.Name(), c.Ext())
		}
		if by, err := ByName(name); err != nil || by.Name() != name {
			t.Errorf("ByName(%q): %v %v", name, by, err)
		}
	}
	for _, spec := range []string{"", "xz", "zstd:0", "zstd:20", "zstd:-1", "zstd:+3", "zstd:03", "zstd:", "zstd:x", "gzip:0", "gzip:10",
		"bzip2:10", "none:1", "none:", ":3", "Zstd", "zstd "} {
		if c, err := New(spec); err == nil {
			t.Errorf("New(%q) = %v, want an error", spec, c)
		} else if failure.KindOf(err) != failure.Usage {
			t.Errorf("New(%q): %v is not failure.Usage", spec, err)
		}
	}
	for _, name := range []string{"", "zstd:3", "xz"} {
		if _, err := ByName(name); err == nil {
			t.Errorf("ByName(%q) succeeds", name)
		}
	}
}

func TestPropertyRoundTrip(t *testing.T) {
	for _, spec := range []string{"zstd", "zstd:7", "zstd:19", "gzip", "none"} {
		t.Run(spec, func(t *testing.T) {
			t.Parallel()
			c := mustNew(t, spec)
			e, d := coders(t, c)
			var packed, back []byte
			rapid.Check(t, func(rt *rapid.T) {
				raw := rapid.OneOf(
					rapid.SliceOfN(rapid.Byte(), 0, 3000),
					rapid.Map(rapid.Uint64(), func(seed uint64) []byte {
						r := rand.New(rand.NewPCG(seed, 0))
						return mixed(r, r.IntN(300_000))
					}),
				).Draw(rt, "raw")
				var err error
				if packed, err = e.EncodeFrame(packed[:0], raw); err != nil {
					rt.Fatal(err)
				}
				if back, err = d.DecodeFrame(back[:0], packed, int64(len(raw))); err != nil || !bytes.Equal(back, raw) {
					rt.Fatalf("round trip: %v", err)
				}
				// A wrong size, a cut and a changed byte are never taken for good data.
				for _, size := range []int64{int64(len(raw)) - 1, int64(len(raw)) + 1, 1 << 40, -1} {
					if size == int64(len(raw)) {
						continue
					}
					if _, err := d.DecodeFrame(nil, packed, size); err == nil || size >= 0 && !errors.Is(err, codec.ErrDamaged) {
						rt.Fatalf("size %d instead of %d: %v", size, len(raw), err)
					}
				}
				if len(packed) == 0 {
					return
				}
				cut := rapid.IntRange(0, len(packed)-1).Draw(rt, "cut")
				if _, err := d.DecodeFrame(nil, packed[:cut], int64(len(raw))); !errors.Is(err, codec.ErrDamaged) {
					rt.Fatalf("cut at %d of %d: %v", cut, len(packed), err)
				}
				if spec == None {
					return
				}
				i := rapid.IntRange(0, len(packed)-1).Draw(rt, "changed")
				packed[i] ^= byte(rapid.IntRange(1, 255).Draw(rt, "xor"))
				if got, err := d.DecodeFrame(nil, packed, int64(len(raw))); err == nil && !bytes.Equal(got, raw) {
					rt.Fatalf("byte %d changed and other bytes come out", i)
				} else if err != nil && !errors.Is(err, codec.ErrDamaged) {
					rt.Fatalf("byte %d changed: %v is not ErrDamaged", i, err)
				}
			})
		})
	}
}

// TestMapping pins the documented mapping of levels to the library's.
func TestMapping(t *testing.T) {
	for level, want := range map[int]zstd.EncoderLevel{1: zstd.SpeedFastest, 2: zstd.SpeedFastest, 3: zstd.SpeedDefault, 5: zstd.SpeedDefault,
		6: zstd.SpeedBetterCompression, 9: zstd.SpeedBetterCompression, 10: zstd.SpeedBestCompression, 19: zstd.SpeedBestCompression} {
		if got := zstd.EncoderLevelFromZstd(level); got != want {
			t.Errorf("level %d is %v, want %v", level, got, want)
		}
	}
}

// Without a checksum a frame is four bytes shorter and decodes like any other.
func TestBare(t *testing.T) {
	t.Parallel()
	whole, err := New("zstd")
	if err != nil {
		t.Fatal(err)
	}
	raw := bytes.Repeat([]byte("a line of a log\n"), 10_000)
	frames := map[bool][]byte{}
	for _, c := range []codec.Compressor{whole, Bare(whole)} {
		enc, err := c.NewEncoder()
		if err != nil {
			t.Fatal(err)
		}
		frame, err := enc.EncodeFrame(nil, raw)
		if err != nil {
			t.Fatal(err)
		}
		dec, err := whole.NewDecoder()
		if err != nil {
			t.Fatal(err)
		}
		if got, err := dec.DecodeFrame(nil, frame, int64(len(raw))); err != nil || !bytes.Equal(got, raw) {
			t.Errorf("%d bytes, %v", len(got), err)
		}
		frames[c == whole] = frame
		_, _ = enc.Close(), dec.Close()
	}
	if len(frames[true]) != len(frames[false])+4 {
		t.Errorf("frames of %d and %d bytes", len(frames[true]), len(frames[false]))
	}
	none, err := New("none")
	if err != nil || Bare(none) != none {
		t.Errorf("none is not none any more: %v", err)
	}
}

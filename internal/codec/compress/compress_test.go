package compress

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"

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

func TestBzip2WithoutProgram(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	for _, f := range []func() error{
		func() error { _, err := New("bzip2"); return err },
		func() error {
			c, err := ByName("bzip2")
			if err != nil {
				t.Fatal(err)
			}
			if _, err := c.NewDecoder(); err != nil {
				t.Errorf("reading needs no program: %v", err)
			}
			_, err = c.NewEncoder()
			return err
		},
	} {
		if err := f(); err == nil || !strings.Contains(err.Error(), "lbzip2 or bzip2") {
			t.Errorf("error %v does not name the programs", err)
		}
	}
}

func TestBzip2ProgramFails(t *testing.T) {
	dir := t.TempDir()
	script := "#!/bin/sh\necho no space on sky >&2\nexit 4\n"
	if err := os.WriteFile(filepath.Join(dir, "lbzip2"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	c, err := New("bzip2")
	if err != nil {
		t.Fatal(err)
	}
	e, _ := coders(t, c)
	if _, err := e.EncodeFrame(nil, []byte("x")); err == nil || !strings.Contains(err.Error(), "no space on sky") {
		t.Errorf("error %v does not say what the program said", err)
	}
}

// TestPrograms makes volumes of several frames, trailer included, and has the
// usual programs and NewReader decode them.
func TestPrograms(t *testing.T) {
	for _, spec := range specs {
		for _, pad := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s pad=%v", spec, pad), func(t *testing.T) {
				t.Parallel()
				c := mustNew(t, spec)
				e, d := coders(t, c)
				r := rand.New(rand.NewPCG(1, 2))
				var raw, volume []byte
				var frames []codec.Frame
				for _, size := range []int{300_000, 0, 1, 128 << 10, 100, 64 << 10, 1_000_000} {
					piece := mixed(r, size)
					start := len(volume)
					var err error
					if volume, err = e.EncodeFrame(volume, piece); err != nil {
						t.Fatal(err)
					}
					frame := volume[start:]
					frames = append(frames, codec.Frame{Raw: int64(size), Packed: int64(len(frame))})
					back, err := d.DecodeFrame([]byte("before"), frame, int64(size))
					if err != nil || !bytes.Equal(back, append([]byte("before"), piece...)) {
						t.Fatalf("frame of %d bytes: %v", size, err)
					}
					raw = append(raw, piece...)
				}
				trailer, err := c.Trailer(frames, pad)
				if err != nil {
					t.Fatal(err)
				}
				volume = append(volume, trailer...)
				mustrun.Tool(t, programs(c.Name())[0][0])
				for _, p := range programs(c.Name()) {
					if got := run(t, volume, p...); !bytes.Equal(got, raw) {
						t.Errorf("%s gives %d bytes that differ", p[0], len(got))
					}
				}
				s, err := NewReader(c.Name(), iotest.HalfReader(bytes.NewReader(volume)))
				if err != nil {
					t.Fatal(err)
				}
				got, err := io.ReadAll(s)
				if err != nil || !bytes.Equal(got, raw) {
					t.Errorf("NewReader: %d bytes, %v", len(got), err)
				}
				if err := s.Close(); err != nil {
					t.Error(err)
				}
			})
		}
	}
}

// TestForeignFrames decodes what the usual programs write.
func TestForeignFrames(t *testing.T) {
	t.Parallel()
	mustrun.Tool(t, "zstd", "gzip", "bzip2", "lbzip2")
	raw := mixed(rand.New(rand.NewPCG(3, 4)), 1<<20)
	for _, p := range [][]string{{"zstd", "-1"}, {"zstd", "-19", "--no-check"}, {"zstd", "--long=27", "--stream-size=1048576"},
		{"gzip", "-1"}, {"gzip", "-9"}, {"bzip2", "-1"}, {"lbzip2", "-9"}} {
		t.Run(strings.Join(p, " "), func(t *testing.T) {
			t.Parallel()
			name := strings.TrimPrefix(p[0], "l")
			c, err := ByName(name)
			if err != nil {
				t.Fatal(err)
			}
			d, err := c.NewDecoder()
			if err != nil {
				t.Fatal(err)
			}
			frame := run(t, raw, append(p, "-c")...)
			got, err := d.DecodeFrame(nil, frame, int64(len(raw)))
			if err != nil || !bytes.Equal(got, raw) {
				t.Errorf("%d bytes, %v", len(got), err)
			}
		})
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

// TestOneFrameOnly: what follows a frame is damage, even a good frame.
func TestOneFrameOnly(t *testing.T) {
	for _, spec := range []string{"zstd", "gzip", "bzip2", "none"} {
		t.Run(spec, func(t *testing.T) {
			t.Parallel()
			c := mustNew(t, spec)
			e, d := coders(t, c)
			frame := func(s string) []byte {
				b, err := e.EncodeFrame(nil, []byte(s))
				if err != nil {
					t.Fatal(err)
				}
				return b
			}
			trailer, err := c.Trailer([]codec.Frame{{Raw: 5, Packed: int64(len(frame("hello")))}}, true)
			if err != nil {
				t.Fatal(err)
			}
			hello, empty := frame("hello"), frame("")
			join := func(bs ...[]byte) []byte { return bytes.Join(bs, nil) }
			for name, c := range map[string]struct {
				frame []byte
				size  int64
			}{
				"two frames":         {join(hello, hello), 10},
				"two, first's size":  {join(hello, hello), 5},
				"empty after":        {join(hello, empty), 5},
				"empty before":       {join(empty, hello), 5},
				"a byte after":       {join(hello, []byte{0}), 5},
				"garbage after":      {join(hello, []byte("garbage of some length")), 5},
				"trailer after":      {join(hello, trailer), 5},
				"trailer alone":      {trailer, 0},
				"nothing":            {nil, 0},
				"garbage":            {[]byte("garbage of some length"), 5},
				"less than it holds": {hello, 4},
				"more than it holds": {hello, 6},
			} {
				if spec == None && (len(c.frame) == int(c.size)) {
					continue // it is a frame, then
				}
				if (name == "trailer after" || name == "trailer alone") && len(trailer) == 0 {
					continue
				}
				if got, err := d.DecodeFrame(nil, c.frame, c.size); !errors.Is(err, codec.ErrDamaged) || len(got) > 0 {
					t.Errorf("%s: %q, %v; want ErrDamaged", name, got, err)
				}
			}
			if got, err := d.DecodeFrame(nil, empty, 0); err != nil || len(got) > 0 {
				t.Errorf("empty frame: %q, %v", got, err)
			}
		})
	}
}

// TestSecondStreamPattern: bytes that look like a second bzip2 stream but are
// part of the first do not count.
func TestSecondStreamPattern(t *testing.T) {
	t.Parallel()
	mustrun.Tool(t, "bzip2")
	frame := run(t, []byte("hello"), "bzip2", "-c")
	fake := append(append([]byte{}, frame[:20]...), "BZh91AY&SY"...)
	if at := secondStream(append(fake, frame[20:]...)); at != 0 {
		t.Errorf("found a stream at %d", at)
	}
	if at := secondStream(append(frame, frame...)); at != len(frame) {
		t.Errorf("found a stream at %d instead of %d", at, len(frame))
	}
}

func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// TestHostileFrames: nothing is allocated for what a frame claims.
func TestHostileFrames(t *testing.T) {
	le := binary.LittleEndian
	magic := []byte{0x28, 0xb5, 0x2f, 0xfd}
	huge := append(append([]byte{}, magic...), 0xe0) // single segment, 8 bytes of size
	huge = le.AppendUint64(huge, 1<<40)
	huge = append(huge, 1, 0, 0) // an empty last block
	window := append(append([]byte{}, magic...), 0x00, 0xff, 1, 0, 0)
	var bomb []byte // a GiB in blocks of one repeated byte
	bomb = append(append(bomb, magic...), 0xe0)
	bomb = le.AppendUint64(bomb, 1<<30)
	for i := range 8192 {
		last := 0
		if i == 8191 {
			last = 1
		}
		h := last | 1<<1 | (128<<10)<<3
		bomb = append(bomb, byte(h), byte(h>>8), byte(h>>16), 'x')
	}
	mustrun.Tool(t, "bzip2", "gzip")
	zeros := make([]byte, 16<<20)
	gz, bz := run(t, zeros, "gzip", "-9", "-c"), run(t, zeros, "bzip2", "-9", "-c")
	for name, c := range map[string]struct {
		codec string
		frame []byte
		size  int64
		limit uint64
	}{
		"zstd header claims 1 TiB":          {Zstd, huge, 1 << 40, 1 << 20},
		"zstd header claims 1 TiB, index 5": {Zstd, huge, 5, 1 << 20},
		"zstd window of 3.75 TiB":           {Zstd, window, 5, 1 << 20},
		"zstd bomb":                         {Zstd, bomb, 1 << 20, 1 << 20},
		"gzip bomb":                         {Gzip, gz, 1 << 20, 8 << 20},
		"gzip claims 1 TiB":                 {Gzip, gz, 1<<40 + 16<<20, 1 << 20},
		"bzip2 bomb":                        {Bzip2, bz, 1 << 20, 12 << 20},
		"bzip2 index claims 1 TiB":          {Bzip2, bz, 1 << 40, 400 << 20},
	} {
		cc, err := ByName(c.codec)
		if err != nil {
			t.Fatal(err)
		}
		d, err := cc.NewDecoder()
		if err != nil {
			t.Fatal(err)
		}
		used := allocated(func() { _, err = d.DecodeFrame(nil, c.frame, c.size) })
		if !errors.Is(err, codec.ErrDamaged) {
			t.Errorf("%s: %v", name, err)
		}
		if used > c.limit {
			t.Errorf("%s: %d bytes allocated, limit %d", name, used, c.limit)
		}
	}
}

func TestEncoderMemory(t *testing.T) {
	raw := mixed(rand.New(rand.NewPCG(5, 6)), 4<<20)
	for level, limit := range map[int]uint64{1: 8 << 20, 3: 12 << 20, 6: 15 << 20, 19: 48 << 20} {
		c := mustNew(t, fmt.Sprintf("zstd:%d", level))
		dst := make([]byte, 0, 8<<20)
		used := allocated(func() {
			e, err := c.NewEncoder()
			if err != nil {
				t.Fatal(err)
			}
			for range 3 {
				if _, err := e.EncodeFrame(dst, raw); err != nil {
					t.Fatal(err)
				}
			}
		})
		t.Logf("level %d: %.1f MiB", level, float64(used)/(1<<20))
		if used > limit {
			t.Errorf("level %d: %d bytes, limit %d", level, used, limit)
		}
	}
}

func TestDecoderReusesBuffer(t *testing.T) {
	for _, spec := range []string{"zstd", "gzip", "none"} {
		e, d := coders(t, mustNew(t, spec))
		buf := make([]byte, 0, 1<<20)
		for _, size := range []int{1000, 500_000, 3, 900_000} {
			raw := mixed(rand.New(rand.NewPCG(7, 8)), size)
			frame, err := e.EncodeFrame(nil, raw)
			if err != nil {
				t.Fatal(err)
			}
			got, err := d.DecodeFrame(buf, frame, int64(size))
			if err != nil || !bytes.Equal(got, raw) {
				t.Fatal(err)
			}
			if cap(got) != cap(buf) || &got[0] != &buf[:1][0] {
				t.Errorf("%s: frame of %d bytes did not go into the buffer given", spec, size)
			}
			buf = got[:0]
		}
	}
}

func TestReaderErrors(t *testing.T) {
	broken := errors.New("line is broken")
	for _, spec := range []string{"zstd", "gzip", "bzip2"} {
		t.Run(spec, func(t *testing.T) {
			t.Parallel()
			c := mustNew(t, spec)
			e, _ := coders(t, c)
			raw := mixed(rand.New(rand.NewPCG(9, 10)), 300_000)
			frame, err := e.EncodeFrame(nil, raw)
			if err != nil {
				t.Fatal(err)
			}
			read := func(r io.Reader) error {
				s, err := NewReader(spec, r)
				if err != nil {
					return err
				}
				defer s.Close()
				_, err = io.Copy(io.Discard, s)
				return err
			}
			for _, cut := range []int{1, 5, 30, len(frame) / 2, len(frame) - 1} {
				if err := read(bytes.NewReader(frame[:cut])); !errors.Is(err, codec.ErrDamaged) {
					t.Errorf("cut at %d: %v", cut, err)
				}
				err := read(io.MultiReader(bytes.NewReader(frame[:cut]), iotest.ErrReader(broken)))
				if !errors.Is(err, broken) || errors.Is(err, codec.ErrDamaged) {
					t.Errorf("line broken at %d: %v", cut, err)
				}
			}
			if err := read(strings.NewReader("garbage, garbage, garbage")); !errors.Is(err, codec.ErrDamaged) {
				t.Errorf("garbage: %v", err)
			}
		})
	}
}

func FuzzZstd(f *testing.F)  { fuzz(f, Zstd) }
func FuzzGzip(f *testing.F)  { fuzz(f, Gzip) }
func FuzzBzip2(f *testing.F) { fuzz(f, Bzip2) }

// fuzz: a decoder never panics, never gives another size than asked for, and
// agrees with the streaming reader.
func fuzz(f *testing.F, name string) {
	c := mustNew(f, name)
	e, d := coders(f, c)
	for _, raw := range []string{"", "hello", strings.Repeat("snow ", 5000)} {
		frame, err := e.EncodeFrame(nil, []byte(raw))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(frame, int64(len(raw)))
		f.Add(append(frame, frame...), int64(2*len(raw)))
	}
	f.Fuzz(func(t *testing.T, frame []byte, size int64) {
		if size > 16<<20 {
			return
		}
		got, err := d.DecodeFrame(nil, frame, size)
		if err != nil {
			if size >= 0 && !errors.Is(err, codec.ErrDamaged) {
				t.Fatal(err)
			}
			return
		}
		if int64(len(got)) != size {
			t.Fatalf("%d bytes instead of %d", len(got), size)
		}
		s, err := NewReader(name, bytes.NewReader(frame))
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		if again, err := io.ReadAll(s); err != nil || !bytes.Equal(got, again) {
			t.Fatalf("NewReader gives something else: %v", err)
		}
	})
}

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

// TestMapping pins the documented mapping of levels to the library's.
func TestMapping(t *testing.T) {
	for level, want := range map[int]zstd.EncoderLevel{1: zstd.SpeedFastest, 2: zstd.SpeedFastest, 3: zstd.SpeedDefault, 5: zstd.SpeedDefault,
		6: zstd.SpeedBetterCompression, 9: zstd.SpeedBetterCompression, 10: zstd.SpeedBestCompression, 19: zstd.SpeedBestCompression} {
		if got := zstd.EncoderLevelFromZstd(level); got != want {
			t.Errorf("level %d is %v, want %v", level, got, want)
		}
	}
}

func BenchmarkEncode(b *testing.B) {
	for _, spec := range []string{"zstd:1", "zstd", "zstd:7", "zstd:19", "gzip", "bzip2", "none"} {
		b.Run(spec, func(b *testing.B) {
			e, _ := coders(b, mustNew(b, spec))
			raw := mixed(rand.New(rand.NewPCG(13, 14)), 4<<20)
			var dst []byte
			b.SetBytes(int64(len(raw)))
			b.ReportAllocs()
			for b.Loop() {
				var err error
				if dst, err = e.EncodeFrame(dst[:0], raw); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(len(raw))/float64(len(dst)), "ratio")
		})
	}
}

func BenchmarkDecode(b *testing.B) {
	for _, spec := range []string{"zstd", "gzip", "bzip2", "none"} {
		b.Run(spec, func(b *testing.B) {
			e, d := coders(b, mustNew(b, spec))
			raw := mixed(rand.New(rand.NewPCG(13, 14)), 4<<20)
			frame, err := e.EncodeFrame(nil, raw)
			if err != nil {
				b.Fatal(err)
			}
			var dst []byte
			b.SetBytes(int64(len(raw)))
			b.ReportAllocs()
			for b.Loop() {
				if dst, err = d.DecodeFrame(dst[:0], frame, int64(len(raw))); err != nil {
					b.Fatal(err)
				}
			}
		})
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

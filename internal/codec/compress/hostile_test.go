package compress

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/firn-backup/firn/internal/codec"
	"github.com/firn-backup/firn/internal/mustrun"
)

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

func FuzzZstd(f *testing.F) { fuzz(f, Zstd) }

func FuzzGzip(f *testing.F) { fuzz(f, Gzip) }

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

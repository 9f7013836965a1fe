package compress

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/firn-backup/firn/internal/codec"
	"github.com/firn-backup/firn/internal/mustrun"
)

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

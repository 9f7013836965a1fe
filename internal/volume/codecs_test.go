package volume_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/firn-backup/firn/internal/codec"
	"github.com/firn-backup/firn/internal/codec/compress"
	"github.com/firn-backup/firn/internal/codec/encrypt"
	"github.com/firn-backup/firn/internal/manifest"
	"github.com/firn-backup/firn/internal/mustrun"
	"github.com/firn-backup/firn/internal/volume"
)

// A key pair for these tests and nothing else.
const (
	recipient = "age15473zame7rvpd0z9r6nnefdgxwx0rvmhvtf9rdgvdhqavr7n6a7qr3ww8c"
	identity  = "AGE-SECRET-KEY-1HU2N8VMN4L453VT0ANCMUHZ2GSGM03VUYAX7DMXSVRSUUNZHMRZQEH3N6M"
)

const mib = 1 << 20

// A pair is a compressor and a cipher.
type pair struct {
	comp codec.Compressor
	enc  codec.Encryptor
	dec  codec.Decryptor
}

func newPair(t testing.TB, comp, cipher string) pair {
	t.Helper()
	var p pair
	var err error
	if comp == "bzip2" {
		mustrun.Tool(t, "lbzip2")
	}
	if p.comp, err = compress.New(comp); err != nil {
		t.Fatal(err)
	}
	var eo encrypt.EncryptOptions
	var keys encrypt.Keys
	switch cipher {
	case "age":
		eo.Recipients = []string{recipient}
		if keys.Age, err = encrypt.ParseIdentities([]byte(identity), encrypt.IdentityOptions{}); err != nil {
			t.Fatal(err)
		}
	case "openpgp":
		eo.RecipientFiles = []string{"testdata/openpgp-public.asc"}
		keys.OpenPGPFiles = []string{"testdata/openpgp-secret.asc"}
	}
	if p.enc, err = encrypt.NewEncryptor(cipher, eo); err != nil {
		t.Fatal(err)
	}
	if p.dec, err = encrypt.NewDecryptor(cipher, keys); err != nil {
		t.Fatal(err)
	}
	return p
}

// member makes n bytes that compress to about half.
func member(seed uint64, n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)}).Read(b)
	for i := range b {
		if i%4096 < 2048 {
			b[i] = "the same again "[i%15]
		}
	}
	return b
}

type memSink struct {
	bytes.Buffer
	done func(v *manifest.Volume, data []byte)
}

func (m *memSink) Finish(_ context.Context, v *manifest.Volume) error {
	m.done(v, m.Bytes())
	return nil
}
func (m *memSink) Abort(context.Context) error { return nil }

type stored struct {
	v    *manifest.Volume
	data []byte
}

func (p pair) write(t testing.TB, o volume.Options, members ...[]byte) (volumes []stored) {
	t.Helper()
	o.Compress, o.Encrypt = p.comp, p.enc
	o.Open = func(context.Context, int) (volume.Sink, error) {
		return &memSink{done: func(v *manifest.Volume, data []byte) { volumes = append(volumes, stored{v, data}) }}, nil
	}
	w := volume.NewWriter(t.Context(), o)
	for _, m := range members {
		if err := w.Boundary(int64(len(m))); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(m); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return volumes
}

var pairs = [][2]string{
	{"zstd", "age"}, {"gzip", "openpgp"}, {"none", "none"},
	{"zstd", "none"}, {"none", "age"}, {"bzip2", "age"}, {"zstd", "openpgp"},
}

func TestCodecs(t *testing.T) {
	t.Parallel()
	members := [][]byte{member(1, 100), member(2, 70_000), member(3, 700_000), member(4, mib), member(5, 5000), member(6, 900_000)}
	stream := bytes.Join(members, nil)
	for _, names := range pairs {
		t.Run(names[0]+"+"+names[1], func(t *testing.T) {
			t.Parallel()
			p := newPair(t, names[0], names[1])
			volumes := p.write(t, volume.Options{Size: mib, FrameSize: 256 << 10}, members...)
			var got []byte
			for _, s := range volumes {
				if s.v.Size != int64(len(s.data)) || s.v.Raw > mib {
					t.Errorf("volume %d: %d bytes, %d raw", s.v.N, s.v.Size, s.v.Raw)
				}
				checkEnds(t, p, names, s)
				raw := p.frames(t, s, 0, len(s.v.Frames))
				// A part of it, through what is kept of header and tail.
				first, last := len(s.v.Frames)/2, len(s.v.Frames)
				var off int64
				for _, f := range s.v.Frames[:first] {
					off += f.Raw
				}
				if part := p.frames(t, s, first, last); !bytes.Equal(part, raw[off:]) {
					t.Errorf("volume %d: frames %d to %d differ", s.v.N, first, last)
				}
				got = append(got, raw...)
			}
			if !bytes.Equal(got, stream) || len(volumes) < 3 {
				t.Errorf("%d volumes of %d bytes", len(volumes), len(got))
			}
		})
	}
}

func checkEnds(t *testing.T, p pair, names [2]string, s stored) {
	t.Helper()
	header, err := encrypt.HeaderSize(names[1], s.data)
	if err != nil || header != len(s.v.Header) || !bytes.HasPrefix(s.data, s.v.Header) || !bytes.HasSuffix(s.data, s.v.Tail) {
		t.Errorf("volume %d: header of %d, want %d, %v; tail of %d", s.v.N, len(s.v.Header), header, err, len(s.v.Tail))
	}
	large := s.v.Packed() >= 512<<10
	if large && names == [2]string{"zstd", "age"} && len(s.v.Tail) != 17 {
		t.Errorf("volume %d: tail of %d", s.v.N, len(s.v.Tail))
	}
	if (large && p.enc.Geometry().Chunk > 0) != (len(s.v.Tail) > 0) {
		t.Errorf("volume %d: tail of %d", s.v.N, len(s.v.Tail))
	}
}

func (p pair) frames(t testing.TB, s stored, first, last int) []byte {
	t.Helper()
	var raw []byte
	err := volume.Frames(t.Context(), s.v, bytes.NewReader(s.data), p.dec, p.comp, p.enc.Geometry(), first, last,
		func(_ int, _ int64, b []byte, err error) error {
			raw = append(raw, b...)
			return err
		})
	if err != nil {
		t.Fatalf("volume %d: %v", s.v.N, err)
	}
	return raw
}

// The usual programs read the volumes, concatenated, without Firn.
func TestPrograms(t *testing.T) {
	t.Parallel()
	members := [][]byte{member(1, 100), member(2, 700_000), member(3, mib), member(4, 900_000)}
	decoders := map[string]string{"zstd": "zstd -dc", "gzip": "gzip -dc", "bzip2": "bzip2 -dc", "none": "cat"}
	for _, names := range pairs {
		t.Run(names[0]+"+"+names[1], func(t *testing.T) {
			t.Parallel()
			mustrun.Tool(t, "age", "gpg", "zstd", "gzip", "bzip2")
			p := newPair(t, names[0], names[1])
			dir := t.TempDir()
			decrypt := "cat"
			switch names[1] {
			case "age":
				key := filepath.Join(dir, "key.txt")
				if err := os.WriteFile(key, []byte(identity+"\n"), 0o600); err != nil {
					t.Fatal(err)
				}
				decrypt = "age -d -i " + key
			case "openpgp":
				decrypt = gpg(t, dir) + " -d"
			}
			var parts strings.Builder
			for _, s := range p.write(t, volume.Options{Size: mib, FrameSize: 256 << 10}, members...) {
				name := filepath.Join(dir, fmt.Sprint(s.v.N))
				if err := os.WriteFile(name, s.data, 0o600); err != nil {
					t.Fatal(err)
				}
				fmt.Fprintf(&parts, "%s < %s; ", decrypt, name)
			}
			cmd := exec.Command("sh", "-c", "{ "+parts.String()+"} | "+decoders[names[0]])
			var stderr bytes.Buffer
			cmd.Stderr = &stderr
			got, err := cmd.Output()
			if err != nil || !bytes.Equal(got, bytes.Join(members, nil)) {
				t.Fatalf("%d bytes, %v: %s", len(got), err, &stderr)
			}
		})
	}
}

// gpg makes a keyring with the tests' key and returns the command that uses it.
func gpg(t *testing.T, dir string) string {
	t.Helper()
	home, err := os.MkdirTemp("", "gpg") // short: the agent's socket lies in it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = exec.Command("gpgconf", "--homedir", home, "--kill", "all").Run()
		_ = os.RemoveAll(home)
	})
	out, err := exec.Command("gpg", "--homedir", home, "--batch", "--import", "testdata/openpgp-secret.asc").CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return "gpg --homedir " + home + " --batch --quiet"
}

// A flipped bit costs the frames it lies in, and is never decoded to something else.
func TestDamagedVolume(t *testing.T) {
	t.Parallel()
	for _, names := range [][2]string{{"zstd", "age"}, {"zstd", "none"}, {"gzip", "openpgp"}, {"none", "age"}} {
		t.Run(names[0]+"+"+names[1], func(t *testing.T) {
			t.Parallel()
			p := newPair(t, names[0], names[1])
			raw := member(7, mib)
			s := p.write(t, volume.Options{FrameSize: 64 << 10}, raw)[0]
			whole := p.enc.Geometry().Whole
			for k := range 24 {
				at := k * (len(s.data) - 1) / 23
				data := bytes.Clone(s.data)
				data[at] ^= 4
				bad, n := 0, 0
				err := volume.Frames(t.Context(), s.v, bytes.NewReader(data), p.dec, p.comp, p.enc.Geometry(), 0, len(s.v.Frames),
					func(i int, off int64, b []byte, err error) error {
						n++
						switch {
						case err != nil:
							bad++
							if !errors.Is(err, codec.ErrDamaged) && !errors.Is(err, codec.ErrNoKey) {
								t.Errorf("byte %d, frame %d: %v", at, i, err)
							}
						case !bytes.Equal(b, raw[off:off+int64(len(b))]) && !whole:
							t.Errorf("byte %d, frame %d: wrong bytes", at, i)
						}
						return nil
					})
				inEnds := at < len(s.v.Header) || at >= len(data)-len(s.v.Tail)
				switch {
				case n != len(s.v.Frames):
					t.Errorf("byte %d: %d frames of %d", at, n, len(s.v.Frames))
				case whole && err == nil && bad == 0:
					t.Errorf("byte %d: nothing noticed", at)
				case !whole && err != nil:
					t.Errorf("byte %d: %v", at, err)
				case !whole && !inEnds && bad > 3: // a chunk is no larger than a frame here
					t.Errorf("byte %d: %d frames lost", at, bad)
				}
			}
		})
	}
}

// BenchmarkWriter measures the pipeline alone: MB/s are of raw bytes.
func BenchmarkWriter(b *testing.B) {
	members := make([][]byte, 64)
	for i := range members {
		members[i] = member(uint64(i), mib)
	}
	for _, bc := range []struct {
		names  [2]string
		verify bool
	}{{[2]string{"zstd", "age"}, false}, {[2]string{"zstd", "age"}, true}, {[2]string{"none", "age"}, false}, {[2]string{"none", "none"}, false}} {
		b.Run(fmt.Sprintf("%s+%s/verify=%v", bc.names[0], bc.names[1], bc.verify), func(b *testing.B) {
			p := newPair(b, bc.names[0], bc.names[1])
			o := volume.Options{
				Compress: p.comp, Encrypt: p.enc, NoVerify: !bc.verify,
				Open: func(context.Context, int) (volume.Sink, error) { return discard{io.Discard}, nil },
			}
			b.SetBytes(64 * mib)
			b.ReportAllocs()
			for b.Loop() {
				w := volume.NewWriter(b.Context(), o)
				for _, m := range members {
					if err := w.Boundary(int64(len(m))); err != nil {
						b.Fatal(err)
					}
					if _, err := w.Write(m); err != nil {
						b.Fatal(err)
					}
				}
				if err := w.Close(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

type discard struct{ io.Writer }

func (discard) Finish(context.Context, *manifest.Volume) error { return nil }
func (discard) Abort(context.Context) error                    { return nil }

func BenchmarkFrames(b *testing.B) {
	p := newPair(b, "zstd", "age")
	members := make([][]byte, 64)
	for i := range members {
		members[i] = member(uint64(i), mib)
	}
	s := p.write(b, volume.Options{}, members...)[0]
	b.SetBytes(64 * mib)
	b.ReportAllocs()
	for b.Loop() {
		err := volume.Frames(b.Context(), s.v, bytes.NewReader(s.data), p.dec, p.comp, p.enc.Geometry(), 0, len(s.v.Frames),
			func(_ int, _ int64, _ []byte, err error) error { return err })
		if err != nil {
			b.Fatal(err)
		}
	}
}

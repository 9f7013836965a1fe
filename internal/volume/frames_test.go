package volume

import (
	"bytes"
	"context"
	"errors"
	"io"
	"testing"
	"testing/synctest"

	"github.com/firn-backup/firn/internal/codec"
	"github.com/firn-backup/firn/internal/manifest"
	"pgregory.net/rapid"
)

func oneVolume(t failer, cipher fakeCipher, raw []byte, frame int) *stored {
	s := &store{}
	o := s.options(cipher)
	o.FrameSize, o.Size, o.Workers = frame, -1, 2
	w := NewWriter(context.Background(), o)
	if _, err := w.Write(raw); err != nil {
		t.Fatalf("%v", err)
	}
	if err := w.Close(); err != nil {
		t.Fatalf("%v", err)
	}
	return s.volumes[0]
}

// Any byte of the ciphertext flipped: frames that come are right, and of a
// cipher with chunks only those that the damage lies in do not come.
func TestFramesOfDamagedVolume(t *testing.T) {
	t.Parallel()
	raw := noise(9, 1000)
	for name, cipher := range map[string]fakeCipher{
		"chunks": {header: []byte("header"), chunk: 16},
		"whole":  {header: []byte("header"), whole: true},
		"plain":  {plain: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			st := oneVolume(t, cipher, raw, 100)
			g := cipher.Geometry()
			rapid.Check(t, func(t *rapid.T) {
				at := rapid.IntRange(0, len(st.data)-1).Draw(t, "at")
				first := rapid.IntRange(0, 9).Draw(t, "first")
				last := rapid.IntRange(first, 10).Draw(t, "last")
				data := bytes.Clone(st.data)
				data[at] ^= 0x10
				next, bad := first, 0
				err := Frames(context.Background(), st.v, bytes.NewReader(data), cipher, newFakeCompress(1), g, first, last,
					func(i int, off int64, b []byte, err error) error {
						if i != next || off != int64(i)*100 {
							t.Fatalf("frame %d at %d, want %d", i, off, next)
						}
						next++
						if err != nil {
							if !errors.Is(err, codec.ErrDamaged) && !errors.Is(err, codec.ErrNoKey) || b != nil {
								t.Fatalf("frame %d: %d bytes, %v", i, len(b), err)
							}
							bad++
							if g.Whole || at < len(st.v.Header) || at >= len(data)-len(st.v.Tail) {
								return nil
							}
							start, n := g.CipherRange(int64(len(st.v.Header)), int64(i)*108, 108)
							if int64(at) < start || int64(at) >= start+n {
								t.Fatalf("frame %d is lost by byte %d: %v", i, at, err)
							}
							return nil
						}
						if !bytes.Equal(b, raw[off:off+100]) {
							t.Fatalf("frame %d is wrong", i)
						}
						return nil
					})
				if next != last {
					t.Fatalf("frames to %d, want %d", next, last)
				}
				if err != nil && (!g.Whole || last != 10 || !errors.Is(err, codec.ErrDamaged)) {
					t.Fatalf("Frames: %v", err)
				}
				if g.Whole && last == 10 && first < last && err == nil && bad == 0 {
					t.Fatalf("byte %d: nothing noticed", at)
				}
			})
		})
	}
}

func TestFramesRefusesContradictions(t *testing.T) {
	t.Parallel()
	cipher := fakeCipher{header: []byte("header"), chunk: 16}
	st := oneVolume(t, cipher, noise(1, 1000), 100)
	for name, change := range map[string]func(v *manifest.Volume){
		"raw size":       func(v *manifest.Volume) { v.Raw++ },
		"archive size":   func(v *manifest.Volume) { v.Size = v.Packed() },
		"huge frame":     func(v *manifest.Volume) { v.Frames[3].Raw = 1 << 40; v.Raw += 1<<40 - 100 },
		"negative frame": func(v *manifest.Volume) { v.Frames[3].Raw = -100; v.Raw -= 200 },
		"huge packed":    func(v *manifest.Volume) { v.Frames[3].Packed = 1 << 62 },
		"empty packed":   func(v *manifest.Volume) { v.Frames[3].Packed = 0 },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			v := *st.v
			v.Frames = append([]codec.Frame(nil), v.Frames...)
			change(&v)
			err := Frames(t.Context(), &v, bytes.NewReader(st.data), cipher, newFakeCompress(1), cipher.Geometry(), 0, 1,
				func(int, int64, []byte, error) error { t.Error("a frame came"); return nil })
			if !errors.Is(err, codec.ErrDamaged) {
				t.Fatal(err)
			}
		})
	}
	nothing := func(int, int64, []byte, error) error { t.Error("a frame came"); return nil }
	if err := Frames(t.Context(), st.v, nil, cipher, newFakeCompress(1), cipher.Geometry(), 3, 3, nothing); err != nil {
		t.Error(err)
	}
	for _, r := range [][2]int{{-1, 2}, {2, 1}, {0, 11}} {
		if err := Frames(t.Context(), st.v, nil, cipher, newFakeCompress(1), cipher.Geometry(), r[0], r[1], nothing); err == nil {
			t.Errorf("frames %v", r)
		}
	}
}

// The callback's error and cancellation end it, and no goroutine stays.
func TestFramesStops(t *testing.T) {
	t.Parallel()
	cipher := fakeCipher{header: []byte("header"), chunk: 16}
	st := oneVolume(t, cipher, noise(1, 10000), 100)
	for _, how := range []string{"error", "cancel"} {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			calls := 0
			err := Frames(ctx, st.v, bytes.NewReader(st.data), cipher, newFakeCompress(1), cipher.Geometry(), 0, 100,
				func(i int, _ int64, _ []byte, err error) error {
					if err != nil {
						t.Error(err)
					}
					calls++
					if calls == 7 {
						cancel()
						if how == "error" {
							return errTest
						}
					}
					return nil
				})
			want := context.Canceled
			if how == "error" {
				want = errTest
			}
			if calls != 7 || !errors.Is(err, want) {
				t.Fatal(how, calls, err)
			}
		})
	}
}

type brokenAt struct {
	io.ReaderAt
	from, to int64
}

func (b brokenAt) ReadAt(p []byte, off int64) (int, error) {
	if off < b.to && off+int64(len(p)) > b.from {
		return 0, errTest
	}
	return b.ReaderAt.ReadAt(p, off)
}

// What src says of a stretch is what the frames in it are given with.
func TestFramesOfBrokenSource(t *testing.T) {
	t.Parallel()
	cipher := fakeCipher{header: []byte("header"), chunk: 16}
	st := oneVolume(t, cipher, noise(1, 1000), 100)
	start, _ := cipher.Geometry().CipherRange(6, 5*108+50, 1)
	var bad []int
	err := Frames(t.Context(), st.v, brokenAt{bytes.NewReader(st.data), start, start + 1}, cipher, newFakeCompress(1), cipher.Geometry(), 0, 10,
		func(i int, _ int64, _ []byte, err error) error {
			if err != nil {
				if !errors.Is(err, errTest) {
					t.Error(err)
				}
				bad = append(bad, i)
			}
			return nil
		})
	if err != nil || len(bad) != 1 || bad[0] != 5 {
		t.Fatal(bad, err)
	}
}

package volume

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"

	"github.com/firn-backup/firn/internal/codec"
	"pgregory.net/rapid"
)

func noise(seed uint64, n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)}).Read(b)
	return b
}

func (s *store) options(cipher fakeCipher) Options {
	return Options{Compress: newFakeCompress(max(cipher.chunk, 1)), Encrypt: cipher, Open: s.open}
}

func readAll(t failer, s *stored, cipher fakeCipher) []byte {
	var raw []byte
	err := Frames(context.Background(), s.v, bytes.NewReader(s.data), cipher, newFakeCompress(1), cipher.Geometry(), 0, len(s.v.Frames),
		func(i int, off int64, b []byte, err error) error {
			if err != nil {
				return err
			}
			if off != int64(len(raw)) {
				return fmt.Errorf("frame %d at %d, want %d", i, off, len(raw))
			}
			raw = append(raw, b...)
			return nil
		})
	if err != nil {
		t.Fatalf("volume %d: %v", s.v.N, err)
	}
	return raw
}

type failer interface {
	Fatalf(format string, args ...any)
}

type place struct {
	vol    int
	off    int64
	stream int64
}

// A random stream through a random writer comes back, its index tells the
// truth, and Pos told beforehand where everything is.
func TestWriterProperty(t *testing.T) {
	t.Parallel()
	rapid.Check(t, writerProperty)
}

func FuzzWriter(f *testing.F) {
	f.Add([]byte{})
	f.Fuzz(rapid.MakeFuzz(writerProperty))
}

func writerProperty(t *rapid.T) {
	ciphers := []fakeCipher{
		{header: []byte("header"), chunk: 100},
		{header: []byte("h"), chunk: 1},
		{header: []byte("whole"), whole: true},
		{plain: true},
	}
	cipher := rapid.SampledFrom(ciphers).Draw(t, "cipher")
	s := &store{}
	o := s.options(cipher)
	o.Size = rapid.SampledFrom([]int64{-1, 1, 100, 1000, 5000}).Draw(t, "size")
	o.FrameSize = rapid.SampledFrom([]int{1, 64, 1000, 0}).Draw(t, "frame")
	o.Workers = rapid.IntRange(1, 4).Draw(t, "workers")
	o.First = rapid.SampledFrom([]int{0, 1, 7}).Draw(t, "first")
	o.NoVerify = rapid.Bool().Draw(t, "noverify")
	o.HashRaw = rapid.Bool().Draw(t, "hash")
	o.small = rapid.SampledFrom([]int64{1, 500, 1 << 30}).Draw(t, "small")
	var w *Writer
	var cuts []int
	o.OnCut = func(n int) {
		cuts = append(cuts, n)
		if vol, off := w.Pos(); vol != n+1 || off != 0 {
			t.Fatalf("in OnCut(%d): Pos %d, %d", n, vol, off)
		}
	}
	w = NewWriter(context.Background(), o)
	most := 1500
	if o.FrameSize == 1 || o.Size == 1 {
		most = 60 // a frame, or a volume, a byte
	}
	var stream []byte
	var places []place
	for range rapid.IntRange(0, 12).Draw(t, "members") {
		next := rapid.IntRange(0, most).Draw(t, "next")
		if err := w.Boundary(int64(next)); err != nil {
			t.Fatalf("Boundary: %v", err)
		}
		for data := noise(uint64(len(stream)), next); len(data) > 0; {
			vol, off := w.Pos()
			places = append(places, place{vol, off, w.Offset()})
			n := rapid.IntRange(1, len(data)).Draw(t, "write")
			if _, err := w.Write(data[:n]); err != nil {
				t.Fatalf("Write: %v", err)
			}
			stream = append(stream, data[:n]...)
			data = data[n:]
		}
	}
	if err := w.Close(); err != nil {
		t.Fatalf("Close: %v", err)
	}
	checkVolumes(t, o.withDefaults(), cipher, s, stream, places, cuts)
}

func checkVolumes(t *rapid.T, o Options, cipher fakeCipher, s *store, stream []byte, places []place, cuts []int) {
	var all []byte
	begins := map[int]int64{}
	g := cipher.Geometry()
	for i, st := range s.volumes {
		v := st.v
		if v.N != o.First+i || v.Size != int64(len(st.data)) {
			t.Fatalf("volume %d: number %d, size %d of %d", i, v.N, v.Size, len(st.data))
		}
		raw := readAll(t, st, cipher)
		if int64(len(raw)) != v.Raw || (o.Size > 0 && v.Raw > o.Size) {
			t.Fatalf("volume %d: %d bytes", v.N, v.Raw)
		}
		if o.HashRaw != (v.RawSHA256 != nil) || (o.HashRaw && *v.RawSHA256 != sha256.Sum256(raw)) {
			t.Fatalf("volume %d: raw hash", v.N)
		}
		if !bytes.HasPrefix(st.data, v.Header) || !bytes.HasSuffix(st.data, v.Tail) {
			t.Fatalf("volume %d: header or tail", v.N)
		}
		switch {
		case g.Chunk > 0:
			tail := 5
			if v.Packed() < o.small {
				tail = 0
			}
			if !bytes.Equal(v.Header, cipher.header) || len(v.Tail) != tail {
				t.Fatalf("volume %d: header %q, tail of %d", v.N, v.Header, len(v.Tail))
			}
		case len(v.Header)+len(v.Tail) > 0:
			t.Fatalf("volume %d: header %q, tail %q", v.N, v.Header, v.Tail)
		}
		begins[v.N] = int64(len(all))
		all = append(all, raw...)
	}
	if !bytes.Equal(all, stream) {
		t.Fatalf("stream of %d bytes came back as %d others", len(stream), len(all))
	}
	for _, p := range places {
		if begins[p.vol]+p.off != p.stream {
			t.Fatalf("Pos said %d, %d for byte %d; volume begins at %d", p.vol, p.off, p.stream, begins[p.vol])
		}
	}
	var want []int
	for i := range len(s.volumes) - 1 {
		want = append(want, o.First+i)
	}
	if !slices.Equal(cuts, want) {
		t.Fatalf("OnCut %v, want %v", cuts, want)
	}
	var events []string
	for i := range s.volumes {
		events = append(events, fmt.Sprintf("open %d", o.First+i), fmt.Sprintf("finish %d", o.First+i))
	}
	if !slices.Equal(s.events, events) || s.aborted != 0 {
		t.Fatalf("events %v, %d aborted", s.events, s.aborted)
	}
}

func TestOnCutComesBeforeFinish(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &store{}
		cut := 0
		s.fail = func(op string, n int) error {
			if op == "finish" && n < 10 && cut < n {
				return fmt.Errorf("finish %d after cut %d", n, cut)
			}
			return nil
		}
		o := s.options(fakeCipher{plain: true})
		o.Size = 100
		o.OnCut = func(n int) {
			synctest.Wait() // everything that can happen before happens
			cut = n
		}
		w := NewWriter(t.Context(), o)
		if _, err := w.Write(noise(1, 1000)); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil || len(s.volumes) != 10 || cut != 9 {
			t.Fatal(err, len(s.volumes), cut)
		}
	})
}

var errTest = errors.New("test error")

// A fault at any call of any stage is what Write or Close returns, the sink in
// flight is aborted, and no goroutine stays (synctest sees to that).
func TestFaults(t *testing.T) {
	t.Parallel()
	stream := noise(3, 5000)
	write := func(ctx context.Context, o Options) error {
		w := NewWriter(ctx, o)
		for off := 0; off < len(stream); off += 50 {
			if _, err := w.Write(stream[off : off+50]); err != nil {
				if cerr := w.Close(); cerr == nil || cerr.Error() != err.Error() {
					return fmt.Errorf("Write: %v, but Close: %w", err, cerr)
				}
				return err
			}
		}
		return w.Close()
	}
	for _, op := range []string{"open", "write", "finish", "encode"} {
		t.Run(op, func(t *testing.T) {
			t.Parallel()
			for k := 0; ; k++ {
				done := false
				synctest.Test(t, func(t *testing.T) {
					s := &store{}
					o := s.options(fakeCipher{header: []byte("header"), chunk: 64})
					o.Size, o.FrameSize, o.Workers, o.HashRaw = 1000, 100, 2, k%2 == 0
					calls := 0
					s.fail = func(got string, n int) error {
						if got != op {
							return nil
						}
						calls++
						if calls-1 == k {
							return errTest
						}
						return nil
					}
					c := newFakeCompress(64)
					if op == "encode" {
						c.encode = func(n int) error {
							if n == k {
								return errTest
							}
							return nil
						}
					}
					o.Compress = c
					err := write(t.Context(), o)
					if err == nil {
						done = true
						return
					}
					if !errors.Is(err, errTest) {
						t.Fatalf("call %d: %v", k, err)
					}
					opened := 0
					for _, e := range s.events {
						if e[:4] == "open" {
							opened++
						}
						if e[:4] == "fini" {
							opened--
						}
					}
					if op == "open" {
						opened--
					}
					if opened != s.aborted {
						t.Fatalf("call %d: %v, %d aborted", k, s.events, s.aborted)
					}
				})
				if done {
					if k < 4 {
						t.Fatalf("only %d calls", k)
					}
					return
				}
			}
		})
	}
}

func TestVerifyFindsLyingCompressor(t *testing.T) {
	t.Parallel()
	s := &store{}
	o := s.options(fakeCipher{plain: true})
	c := newFakeCompress(1)
	c.lie = true
	o.Compress = c
	w := NewWriter(t.Context(), o)
	_, _ = w.Write(noise(1, 1000))
	if err := w.Close(); !errors.Is(err, codec.ErrDamaged) || len(s.volumes) != 0 {
		t.Fatal(err)
	}
	o.NoVerify = true
	w = NewWriter(t.Context(), o)
	_, _ = w.Write(noise(1, 1000))
	if err := w.Close(); err != nil || len(s.volumes) != 1 {
		t.Fatal(err)
	}
}

func TestCipherOfAnotherShapeIsRefused(t *testing.T) {
	t.Parallel()
	s := &store{}
	o := s.options(fakeCipher{chunk: 64, shape: 1})
	w := NewWriter(t.Context(), o)
	_, _ = w.Write(noise(1, 1000))
	if err := w.Close(); err == nil || len(s.volumes) != 0 || s.aborted != 1 {
		t.Fatal(err)
	}
}

// Abort and cancellation end everything while a sink blocks.
func TestBlockedSink(t *testing.T) {
	t.Parallel()
	for _, op := range []string{"open", "write", "finish"} {
		for _, how := range []string{"abort", "cancel"} {
			t.Run(op+"/"+how, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					s := &store{block: op, blocked: make(chan struct{})}
					o := s.options(fakeCipher{chunk: 64})
					o.Size, o.FrameSize, o.Workers = 500, 100, 4
					ctx, cancel := context.WithCancel(t.Context())
					defer cancel()
					w := NewWriter(ctx, o)
					if _, err := w.Write(noise(1, 501)); err != nil {
						t.Fatal(err)
					}
					<-s.blocked
					if how == "abort" {
						w.Abort()
						if _, err := w.Write([]byte{1}); err == nil {
							t.Fatal("Write after Abort")
						}
					} else {
						cancel()
						if err := w.Close(); !errors.Is(err, context.Canceled) {
							t.Fatal(err)
						}
						w.Abort() // does nothing
					}
					if want := map[string]int{"open": 0, "write": 1, "finish": 0}[op]; s.aborted != want || len(s.volumes) != 0 {
						t.Fatalf("%d aborted, want %d", s.aborted, want)
					}
				})
			})
		}
	}
}

// A blocked sink stops the writer after a bounded number of frames.
func TestBackpressure(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &store{block: "write", blocked: make(chan struct{})}
		o := s.options(fakeCipher{plain: true})
		o.Size, o.FrameSize, o.Workers = -1, 100, 2
		w := NewWriter(t.Context(), o)
		done := make(chan error)
		go func() {
			_, err := w.Write(noise(1, 10000))
			done <- err
		}()
		<-s.blocked
		synctest.Wait()
		if got := w.Offset(); got > 100*(2+spareJobs) {
			t.Errorf("%d bytes taken", got)
		}
		w.pipe.fail(errTest)
		if err := <-done; !errors.Is(err, errTest) {
			t.Fatal(err)
		}
		w.Abort()
	})
}

func TestEmptyStream(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &store{}
		w := NewWriter(t.Context(), s.options(fakeCipher{plain: true}))
		if err := w.Boundary(0); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil || len(s.events) != 0 {
			t.Fatal(err, s.events)
		}
		if _, err := w.Write([]byte{1}); err == nil {
			t.Fatal("Write after Close")
		}
		w = NewWriter(t.Context(), s.options(fakeCipher{plain: true}))
		w.Abort()
		if err := w.Close(); err == nil {
			t.Fatal("Close after Abort")
		}
	})
}

var (
	_ Sink      = (*fakeSink)(nil)
	_ io.Writer = (*Writer)(nil)
)

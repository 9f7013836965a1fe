package encrypt

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/iotest"

	"filippo.io/age"

	"github.com/firn-backup/firn/internal/codec"
)

// TestTruncated: no cut at or around a chunk's edge, or anywhere in the
// header, goes unseen.
func TestTruncated(t *testing.T) {
	t.Parallel()
	e, d := agePair(t, newIdentity(t))
	for _, size := range chunkSizes() {
		whole := encryptAll(t, e, noise(9, size))
		header, err := HeaderSize(Age, whole)
		if err != nil {
			t.Fatal(err)
		}
		var cuts []int
		for n := range header + 20 {
			cuts = append(cuts, n)
		}
		for at := header; at <= len(whole)+ageChunk; at += ageChunk + ageTag {
			cuts = append(cuts, at-1, at, at+1, at+ageTag-1, at+ageTag, at+ageTag+1)
		}
		cuts = append(cuts, len(whole)-1, len(whole)-ageTag, len(whole)-ageTag-1)
		for _, cut := range cuts {
			if cut < 0 || cut >= len(whole) {
				continue
			}
			if _, err := decryptAll(d, bytes.NewReader(whole[:cut])); !errors.Is(err, codec.ErrDamaged) {
				t.Fatalf("%d bytes cut at %d of %d, stream: %v", size, cut, len(whole), err)
			}
			if _, err := readAllAt(d, bytes.NewReader(whole[:cut]), int64(cut)); !errors.Is(err, codec.ErrDamaged) {
				t.Fatalf("%d bytes cut at %d of %d, ReaderAt: %v", size, cut, len(whole), err)
			}
			// The store has less than the catalog says.
			if _, err := readAllAt(d, bytes.NewReader(whole[:cut]), int64(len(whole))); !errors.Is(err, codec.ErrDamaged) {
				t.Fatalf("%d bytes cut at %d of %d, full size: %v", size, cut, len(whole), err)
			}
		}
		for _, extra := range []int{1, 16, 17, ageChunk + ageTag} {
			long := append(whole[:len(whole):len(whole)], make([]byte, extra)...)
			if _, err := decryptAll(d, bytes.NewReader(long)); !errors.Is(err, codec.ErrDamaged) {
				t.Errorf("%d bytes and %d more, stream: %v", size, extra, err)
			}
			if _, err := readAllAt(d, bytes.NewReader(long), int64(len(long))); !errors.Is(err, codec.ErrDamaged) {
				t.Errorf("%d bytes and %d more, ReaderAt: %v", size, extra, err)
			}
		}
	}
}

// TestFlippedBits: every bit of a short ciphertext, and a bit in many places of a
// long one. A header whose stanza is changed cannot be told from one for
// somebody else, so there both errors are right.
func TestFlippedBits(t *testing.T) {
	t.Parallel()
	e, d := agePair(t, newIdentity(t))
	check := func(whole, plain []byte, header, bit int) {
		whole[bit/8] ^= 1 << (bit % 8)
		for way, read := range map[string]func() ([]byte, error){
			"stream":   func() ([]byte, error) { return decryptAll(d, bytes.NewReader(whole)) },
			"ReaderAt": func() ([]byte, error) { return readAllAt(d, bytes.NewReader(whole), int64(len(whole))) },
		} {
			got, err := read()
			ok := errors.Is(err, codec.ErrDamaged) || bit/8 < header && errors.Is(err, codec.ErrNoKey)
			if !ok || !bytes.HasPrefix(plain, got) {
				t.Fatalf("bit %d of byte %d of %d (header %d), %s: %v", bit%8, bit/8, len(whole), header, way, err)
			}
		}
		whole[bit/8] ^= 1 << (bit % 8)
	}
	short := noise(4, 10)
	whole := encryptAll(t, e, short)
	header, _ := HeaderSize(Age, whole)
	for bit := range 8 * len(whole) {
		check(whole, short, header, bit)
	}
	long := noise(5, 2*ageChunk+1)
	whole = encryptAll(t, e, long)
	r := rand.New(rand.NewPCG(6, 6))
	for range 100 {
		check(whole, long, header, 8*header+r.IntN(8*(len(whole)-header)))
	}
}

// TestSourceErrors: a broken line is not a damaged volume.
func TestSourceErrors(t *testing.T) {
	t.Parallel()
	e, d := agePair(t, newIdentity(t))
	whole := encryptAll(t, e, noise(7, 2*ageChunk+1))
	header, _ := HeaderSize(Age, whole)
	broken := errors.New("line is broken")
	for _, cut := range []int{0, 5, 60, header - 5, header, header + 1, header + ageChunk + ageTag, len(whole) - 17, len(whole)} {
		for _, cause := range []error{broken, io.ErrUnexpectedEOF} {
			_, err := decryptAll(d, io.MultiReader(bytes.NewReader(whole[:cut]), iotest.ErrReader(cause)))
			if !errors.Is(err, cause) || errors.Is(err, codec.ErrDamaged) || errors.Is(err, codec.ErrNoKey) {
				t.Errorf("stream broken at %d: %v", cut, err)
			}
		}
		if cut == len(whole) {
			continue
		}
		src := &strictReaderAt{b: whole, allowed: [][2]int64{{0, int64(cut)}}}
		_, err := readAllAt(d, src, int64(len(whole)))
		if !errors.Is(err, errForbidden) || errors.Is(err, codec.ErrDamaged) || errors.Is(err, codec.ErrNoKey) {
			t.Errorf("ReaderAt broken at %d: %v", cut, err)
		}
	}
	// In the middle, when all else can be read.
	src := &strictReaderAt{b: whole, allowed: [][2]int64{{0, int64(header) + 10}, {int64(len(whole)) - 17, int64(len(whole))}}}
	r, _, err := d.DecryptAt(src, int64(len(whole)))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.ReadAt(make([]byte, 10), 0); !errors.Is(err, errForbidden) || errors.Is(err, codec.ErrDamaged) {
		t.Errorf("chunk: %v", err)
	}
}

func TestWriteErrors(t *testing.T) {
	t.Parallel()
	e, _ := agePair(t, newIdentity(t))
	checkWriter(t, e)
}

// checkWriter: what the writer of an encryptor writes to may be full at any place, and says so; and what was closed stays closed.
func checkWriter(t *testing.T, e codec.Encryptor) {
	t.Helper()
	full := errors.New("disk is full")
	for _, room := range []int{0, 10, 120, 300, 100_000} {
		w, err := e.Encrypt(&limitedWriter{room, full})
		if err == nil {
			_, err = w.Write(noise(8, 300_000))
			if cerr := w.Close(); err == nil {
				err = cerr
			}
		}
		if !errors.Is(err, full) {
			t.Errorf("room for %d: %v", room, err)
		}
	}
	w, err := e.Encrypt(io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Error(err)
	}
	if _, err := w.Write([]byte("x")); err == nil {
		t.Error("write after close succeeds")
	}
}

type limitedWriter struct {
	room int
	err  error
}

func (w *limitedWriter) Write(p []byte) (int, error) {
	if len(p) > w.room {
		return w.room, w.err
	}
	w.room -= len(p)
	return len(p), nil
}

func TestNoKey(t *testing.T) {
	t.Parallel()
	e, _ := agePair(t, newIdentity(t))
	whole := encryptAll(t, e, []byte("x"))
	for _, ids := range [][]age.Identity{nil, {newIdentity(t)}, {newIdentity(t), newIdentity(t)}} {
		d, err := NewDecryptor(Age, Keys{Age: ids})
		if err != nil {
			t.Fatal(err)
		}
		for way, err := range map[string]error{
			"stream":   func() error { _, err := decryptAll(d, bytes.NewReader(whole)); return err }(),
			"ReaderAt": func() error { _, err := readAllAt(d, bytes.NewReader(whole), int64(len(whole))); return err }(),
		} {
			if !errors.Is(err, codec.ErrNoKey) || errors.Is(err, codec.ErrDamaged) {
				t.Errorf("%d identities, %s: %v", len(ids), way, err)
			}
		}
	}
}

func TestHostileHeader(t *testing.T) {
	t.Parallel()
	_, d := agePair(t, newIdentity(t))
	long := "age-encryption.org/v1\n-> X25519 " + strings.Repeat("a", 3<<20)
	lines := "age-encryption.org/v1\n" + strings.Repeat("-> x\n\n", 1<<19)
	for name, text := range map[string]string{"endless line": long, "endless stanzas": lines, "empty": "", "text": "hello, world\nhello, world\n" + strings.Repeat("x", 200)} {
		if _, err := decryptAll(d, strings.NewReader(text)); !errors.Is(err, codec.ErrDamaged) {
			t.Errorf("%s, stream: %v", name, err)
		}
		if _, err := readAllAt(d, strings.NewReader(text), int64(len(text))); !errors.Is(err, codec.ErrDamaged) {
			t.Errorf("%s, ReaderAt: %v", name, err)
		}
		if _, err := HeaderSize(Age, []byte(text)); err == nil {
			t.Errorf("%s: has a header", name)
		}
	}
}

func FuzzAgeHeader(f *testing.F) {
	e, d := agePair(f, newIdentity(f), newIdentity(f))
	whole := encryptAll(f, e, []byte("hello"))
	f.Add(whole)
	f.Add(whole[:100])
	f.Add([]byte("age-encryption.org/v1\n-> a\n\n--- \n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		stream, serr := decryptAll(d, bytes.NewReader(b))
		at, aerr := readAllAt(d, bytes.NewReader(b), int64(len(b)))
		if (serr == nil) != (aerr == nil) || serr == nil && !bytes.Equal(stream, at) {
			t.Fatalf("stream: %v, ReaderAt: %v", serr, aerr)
		}
		for _, err := range []error{serr, aerr} {
			if err != nil && !errors.Is(err, codec.ErrDamaged) && !errors.Is(err, codec.ErrNoKey) {
				t.Fatal(err)
			}
		}
		if serr == nil {
			if _, err := HeaderSize(Age, b); err != nil {
				t.Fatal(err)
			}
		}
	})
}

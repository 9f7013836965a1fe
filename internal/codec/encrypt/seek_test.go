package encrypt

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/iotest"

	"filippo.io/age"
	"pgregory.net/rapid"

	"github.com/firn-backup/firn/internal/codec"
)

// strictReaderAt fails on every byte outside what is allowed.
type strictReaderAt struct {
	b       []byte
	allowed [][2]int64 // start and end
	reads   int
}

var errForbidden = errors.New("read of a byte that is not at hand")

func (r *strictReaderAt) ReadAt(p []byte, off int64) (int, error) {
	r.reads++
	for i := range p {
		at := off + int64(i)
		if at >= int64(len(r.b)) || !slices.ContainsFunc(r.allowed, func(a [2]int64) bool { return a[0] <= at && at < a[1] }) {
			return i, fmt.Errorf("%w: %d", errForbidden, at)
		}
		p[i] = r.b[at]
	}
	return len(p), nil
}

// TestReadsNoMore: header, last chunk and the chunks asked for suffice.
func TestReadsNoMore(t *testing.T) {
	t.Parallel()
	id := newIdentity(t)
	e, d := agePair(t, id, newIdentity(t), newIdentity(t))
	pq, err := age.GenerateHybridIdentity()
	if err != nil {
		t.Fatal(err)
	}
	pqe, err := NewEncryptor(Age, EncryptOptions{Recipients: []string{pq.Recipient().String()}})
	if err != nil {
		t.Fatal(err)
	}
	pqd, err := NewDecryptor(Age, Keys{Age: []age.Identity{pq}})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		e codec.Encryptor
		d codec.Decryptor
	}{{e, d}, {pqe, pqd}} {
		plain := noise(3, 9*ageChunk+1)
		whole := encryptAll(t, c.e, plain)
		header, err := HeaderSize(Age, whole)
		if err != nil {
			t.Fatal(err)
		}
		size := int64(len(whole))
		base := [][2]int64{{0, int64(header)}, {size - 17, size}}
		rapid.Check(t, func(rt *rapid.T) {
			off := rapid.Int64Range(0, int64(len(plain)-1)).Draw(rt, "off")
			n := rapid.Int64Range(1, int64(len(plain))-off).Draw(rt, "size")
			start, length := c.e.Geometry().CipherRange(int64(header), off, n)
			src := &strictReaderAt{b: whole, allowed: append(base[:2:2], [2]int64{start, start + length})}
			r, plainSize, err := c.d.DecryptAt(src, size)
			if err != nil || plainSize != int64(len(plain)) {
				rt.Fatalf("open: %d, %v", plainSize, err)
			}
			if most := header/50 + 3; src.reads > most {
				rt.Fatalf("%d reads to open with a header of %d", src.reads, header)
			}
			got := make([]byte, n)
			if m, err := r.ReadAt(got, off); m != int(n) || err != nil || !bytes.Equal(got, plain[off:off+n]) {
				rt.Fatalf("[%d, +%d): %d, %v", off, n, m, err)
			}
		})
		// Without the last chunk it fails with the source's error.
		src := &strictReaderAt{b: whole, allowed: [][2]int64{{0, int64(header)}, {int64(header), size - 17}}}
		if _, _, err := c.d.DecryptAt(src, size); !errors.Is(err, errForbidden) || errors.Is(err, codec.ErrDamaged) {
			t.Errorf("without last chunk: %v", err)
		}
	}
}

// TestReaderAt: what io.ReaderAt promises, at the edges and concurrently.
func TestReaderAt(t *testing.T) {
	t.Parallel()
	e, d := agePair(t, newIdentity(t))
	for _, size := range chunkSizes() {
		plain := noise(uint64(size), size)
		whole := encryptAll(t, e, plain)
		r, n, err := d.DecryptAt(bytes.NewReader(whole), int64(len(whole)))
		if err != nil || n != int64(size) {
			t.Fatalf("%d bytes: %d, %v", size, n, err)
		}
		if size <= 100 { // it reads byte by byte, and each costs a chunk
			if err := iotest.TestReader(io.NewSectionReader(r, 0, n), plain); err != nil {
				t.Errorf("%d bytes: %v", size, err)
			}
		}
		if got, err := decryptAll(d, iotest.HalfReader(bytes.NewReader(whole))); err != nil || !bytes.Equal(got, plain) {
			t.Errorf("%d bytes, in short reads: %v", size, err)
		}
		buf := make([]byte, 10)
		for _, off := range []int64{n, n + 1, n + 1<<40} {
			if m, err := r.ReadAt(buf, off); m != 0 || err != io.EOF {
				t.Errorf("%d bytes, read at %d: %d, %v", size, off, m, err)
			}
		}
		if _, err := r.ReadAt(buf, -1); err == nil || err == io.EOF {
			t.Errorf("read at -1: %v", err)
		}
		var wg sync.WaitGroup
		for g := range 8 {
			wg.Go(func() {
				rng := rand.New(rand.NewPCG(uint64(g), 7))
				for range 20 {
					off := rng.IntN(size + 1)
					p := make([]byte, rng.IntN(size-off+1))
					if m, err := r.ReadAt(p, int64(off)); m != len(p) || err != nil && err != io.EOF || !bytes.Equal(p, plain[off:off+m]) {
						t.Errorf("[%d, +%d): %d, %v", off, len(p), m, err)
					}
				}
			})
		}
		wg.Wait()
	}
}

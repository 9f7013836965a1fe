package localdir

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
	"testing/iotest"

	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/internal/coldstore/storetest"
	"github.com/firn-backup/firn/treehash"
)

// steps is a reader that gives its data only as it is told to.
type steps struct {
	data  []byte
	allow chan int // bytes that may be read; closed: all
	begun chan struct{}
}

func (s *steps) Read(p []byte) (int, error) {
	if s.begun != nil {
		close(s.begun)
		s.begun = nil
	}
	n, ok := <-s.allow
	if !ok {
		n = len(s.data)
	}
	if len(s.data) == 0 {
		return 0, io.EOF
	}
	n = copy(p, s.data[:min(n, len(s.data))])
	s.data = s.data[n:]
	return n, nil
}

func TestPutPartFrom(t *testing.T) {
	t.Parallel()
	s, ctx := newStoreT(t, Options{}), t.Context()
	u, err := s.CreateUpload(ctx, coldstore.NewArchive{Name: "a"}, 4*minPart)
	if err != nil {
		t.Fatal(err)
	}
	data, other := storetest.Bytes(4*minPart, 1), storetest.Bytes(4*minPart, 2)
	put := func(off int64, r io.Reader, size int, of []byte) error {
		return s.PutPartFrom(ctx, u.ID, off, r, int64(size), treehash.Sum(of))
	}
	is := func(off int64, want []byte) {
		t.Helper()
		parts, err := s.ListParts(ctx, u.ID)
		if err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(s.uploadData(u.ID))
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range parts {
			if p.Offset == off {
				if p.TreeHash != treehash.Sum(want) || !bytes.Equal(text[off:][:p.Size], want) {
					t.Errorf("the part at %d is not what was put", off)
				}
				return
			}
		}
		if want != nil {
			t.Errorf("no part at %d", off)
		}
	}
	broken := errors.New("broken")
	failures := func(off int64) {
		t.Helper()
		var mismatch *HashMismatch
		if err := put(off, bytes.NewReader(other), len(other), []byte("x")); !errors.As(err, &mismatch) || !errors.Is(err, coldstore.ErrIntegrity) || mismatch.Got != treehash.Sum(other) {
			t.Errorf("wrong hash: %v", err)
		}
		if err := put(off, io.MultiReader(bytes.NewReader(other[:minPart+5]), iotest.ErrReader(broken)), len(other), other); !errors.Is(err, broken) {
			t.Errorf("broken reader: %v", err)
		}
		if err := put(off, io.MultiReader(bytes.NewReader(other), iotest.ErrReader(broken)), len(other), other); !errors.Is(err, broken) {
			t.Errorf("broken at the end: %v", err)
		}
		if err := put(off, bytes.NewReader(other[:7]), len(other), other); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("short reader: %v", err)
		}
		if err := put(off, bytes.NewReader(other), 7, other[:7]); !errors.Is(err, coldstore.ErrInvalid) {
			t.Errorf("long reader: %v", err)
		}
	}
	failures(0)
	is(0, nil)
	if err := put(0, iotest.HalfReader(bytes.NewReader(data)), len(data), data); err != nil {
		t.Fatal(err)
	}
	is(0, data)
	failures(0)
	is(0, data)
	for _, again := range [][]byte{data, other, data, data[:9]} {
		if err := put(0, bytes.NewReader(again), len(again), again); err != nil {
			t.Fatal(err)
		}
		is(0, again)
	}
	for _, bad := range []struct {
		off  int64
		size int
	}{{1, 5}, {-4 * minPart, 5}, {0, 4*minPart + 1}, {0, 0}, {4 * minPart * maxParts, 1}} {
		if err := put(bad.off, bytes.NewReader(nil), bad.size, nil); !errors.Is(err, coldstore.ErrInvalid) {
			t.Errorf("%d bytes at %d: %v", bad.size, bad.off, err)
		}
	}
	if left, err := filepath.Glob(filepath.Join(s.uploadDir(u.ID), ".tmp~*")); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// A part that comes slowly holds nobody up, and harms nothing when it has been overtaken.
func TestPutPartFromOvertaken(t *testing.T) {
	t.Parallel()
	for _, overtake := range []string{"put", "complete", "abort"} {
		t.Run(overtake, func(t *testing.T) {
			t.Parallel()
			s, ctx := newStoreT(t, Options{}), t.Context()
			u, err := s.CreateUpload(ctx, coldstore.NewArchive{Name: "a"}, 2*minPart)
			if err != nil {
				t.Fatal(err)
			}
			data, other := storetest.Bytes(2*minPart, 1), storetest.Bytes(2*minPart, 2)
			slow := &steps{data: other, allow: make(chan int), begun: make(chan struct{})}
			begun := slow.begun
			off := int64(0)
			if overtake == "complete" {
				off = 2 * minPart
			}
			ended := make(chan error, 1)
			go func() { ended <- s.PutPartFrom(ctx, u.ID, off, slow, int64(len(other)), treehash.Sum(other)) }()
			<-begun
			slow.allow <- minPart
			want := coldstore.ErrNotFound
			if overtake == "abort" {
				err = s.AbortUpload(ctx, u.ID)
			} else {
				err = s.PutPartFrom(ctx, u.ID, 0, bytes.NewReader(data), int64(len(data)), treehash.Sum(data))
			}
			if err == nil && overtake == "complete" {
				_, err = s.CompleteUpload(ctx, u.ID, int64(len(data)), treehash.Sum(data))
			}
			if err != nil {
				t.Fatal(err)
			}
			if overtake == "put" {
				want = coldstore.ErrTemporary
			}
			close(slow.allow)
			if err := <-ended; !errors.Is(err, want) {
				t.Errorf("the slow part: %v, want %v", err, want)
			}
			if overtake == "abort" {
				return
			}
			a, err := s.CompleteUpload(ctx, u.ID, int64(len(data)), treehash.Sum(data))
			if err != nil {
				t.Fatal(err)
			}
			text, err := os.ReadFile(s.archivePath(a.ID))
			if err != nil || !bytes.Equal(text, data) {
				t.Errorf("the archive has %d bytes, and not those that were put: %v", len(text), err)
			}
		})
	}
}

// After a kill at any step, a part that was there is there, as it was or as it was to be.
func TestKillPutPartFrom(t *testing.T) {
	t.Parallel()
	before, after := storetest.Bytes(minPart, 1), storetest.Bytes(1000, 2)
	for n := 0; ; n++ {
		s, ctx := newStoreT(t, Options{}), t.Context()
		u, err := s.CreateUpload(ctx, coldstore.NewArchive{Name: "a"}, minPart)
		if err != nil {
			t.Fatal(err)
		}
		for _, data := range [][]byte{before, after} {
			at, died := killAt(s, n, func() {
				if err := s.PutPartFrom(ctx, u.ID, 0, bytes.NewReader(data), int64(len(data)), treehash.Sum(data)); err != nil {
					t.Error(err)
				}
			})
			if !died {
				continue
			}
			s = reopen(t, s)
			parts, err := s.ListParts(ctx, u.ID)
			if err != nil || len(parts) > 1 {
				t.Fatalf("killed at %q: %v, %v", at, parts, err)
			}
			text, err := os.ReadFile(s.uploadData(u.ID))
			if err != nil {
				t.Fatal(err)
			}
			if len(parts) == 1 && treehash.Sum(text[:parts[0].Size]) != parts[0].TreeHash {
				t.Errorf("killed at %q: a part is listed that is not there", at)
			}
		}
		if n > 6 {
			return
		}
	}
}

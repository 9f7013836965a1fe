package localdir

import (
	"errors"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/internal/coldstore/storetest"
	"github.com/firn-backup/firn/treehash"
)

// putDeferred puts data in deferred parts, the last first.
func putDeferred(t *testing.T, s *Store, u coldstore.Upload, data []byte) {
	t.Helper()
	for off := (int64(len(data)) - 1) / u.PartSize * u.PartSize; off >= 0; off -= u.PartSize {
		part := data[off:min(off+u.PartSize, int64(len(data)))]
		leaves, err := s.PutPartDeferred(t.Context(), u.ID, off, part)
		if err != nil {
			t.Fatal(err)
		}
		if treehash.Combine(leaves) != treehash.Sum(part) {
			t.Errorf("part at %d: other hashes", off)
		}
	}
}

// A kill at any step leaves no part that is claimed and not there: all are put again, and the archive is whole.
func TestKillDeferred(t *testing.T) {
	t.Parallel()
	data := storetest.Bytes(3*minPart+99, 1)
	want := map[string][]byte{"a": data}
	seen := map[string]bool{}
	for n := 0; ; n++ {
		s := newStoreT(t, Options{})
		u, err := s.CreateUpload(t.Context(), coldstore.NewArchive{Name: "a"}, minPart)
		if err != nil {
			t.Fatal(err)
		}
		at, died := killAt(s, n, func() {
			putDeferred(t, s, u, data)
			if err := s.FlushParts(t.Context(), u.ID); err != nil {
				t.Error(err)
			}
		})
		seen[at] = true
		s = reopen(t, s)
		parts, err := s.ListParts(t.Context(), u.ID)
		if err != nil {
			t.Fatal(err)
		}
		if flushed := !died || at == "deferred parts in the log"; (len(parts) == 4) != flushed || !flushed && len(parts) != 0 {
			t.Errorf("killed at %q: parts %v", at, parts)
		}
		if len(parts) == 0 {
			if _, err := s.CompleteUpload(t.Context(), u.ID, int64(len(data)), treehash.Sum(data)); !errors.Is(err, coldstore.ErrInvalid) {
				t.Errorf("killed at %q: completed without parts: %v", at, err)
			}
			putDeferred(t, s, u, data)
			if err := s.FlushParts(t.Context(), u.ID); err != nil {
				t.Error(err)
			}
		}
		if _, err := s.CompleteUpload(t.Context(), u.ID, int64(len(data)), treehash.Sum(data)); err != nil {
			t.Errorf("killed at %q, then completed: %v", at, err)
		}
		checkWhole(t, s, want)
		if !died {
			break
		}
	}
	for _, step := range []string{"deferred part in the cache", "deferred parts synced", "deferred parts in the log"} {
		if !seen[step] {
			t.Errorf("no kill at %q", step)
		}
	}
}

// Parts that last and parts that are deferred, in any order and again with other data: what counts is what was put last.
func TestDeferredAmongOthers(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	for seed := range uint64(30) {
		r := rand.New(rand.NewPCG(seed, 1))
		s := newStoreT(t, Options{})
		u, err := s.CreateUpload(ctx, coldstore.NewArchive{Name: "a"}, minPart)
		if err != nil {
			t.Fatal(err)
		}
		data := storetest.Bytes(3*minPart, seed)
		put := func(i int, part []byte) {
			off := int64(i) * minPart
			var err error
			switch r.IntN(3) {
			case 0:
				err = s.PutPart(ctx, u.ID, off, part, treehash.Sum(part))
			case 1:
				_, err = s.PutPartHashing(ctx, u.ID, off, part)
			default:
				_, err = s.PutPartDeferred(ctx, u.ID, off, part)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		for range 6 {
			put(r.IntN(3), storetest.Bytes(minPart-r.IntN(2)*7, r.Uint64()))
			if r.IntN(3) == 0 {
				if err := s.FlushParts(ctx, u.ID); err != nil {
					t.Fatal(err)
				}
			}
		}
		for _, i := range r.Perm(3) {
			put(i, data[i*minPart:(i+1)*minPart])
		}
		for range 1 + r.IntN(2) {
			if err := s.FlushParts(ctx, u.ID); err != nil {
				t.Fatal(err)
			}
		}
		if r.IntN(2) == 0 {
			s = reopen(t, s)
		}
		if _, err := s.CompleteUpload(ctx, u.ID, int64(len(data)), treehash.Sum(data)); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		checkWhole(t, s, map[string][]byte{"a": data})
	}
}

// Refused are a part that no upload takes, and one of an upload that has ended; Tidy of the same
// process does not forget what is deferred, and what is deferred for long is flushed by itself.
func TestDeferredRules(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	s := newStoreT(t, Options{Now: func() time.Time { return now }})
	u, err := s.CreateUpload(ctx, coldstore.NewArchive{Name: "a"}, minPart)
	if err != nil {
		t.Fatal(err)
	}
	data := storetest.Bytes(2*minPart, 3)
	for _, bad := range []struct {
		off  int64
		data []byte
	}{{1, data[:9]}, {-minPart, data[:9]}, {0, nil}, {0, data}, {maxParts * minPart, data[:9]}} {
		if _, err := s.PutPartDeferred(ctx, u.ID, bad.off, bad.data); !errors.Is(err, coldstore.ErrInvalid) {
			t.Errorf("part of %d bytes at %d: %v", len(bad.data), bad.off, err)
		}
	}
	putDeferred(t, s, u, data)
	if _, err := s.Tidy(ctx, time.Hour); err != nil {
		t.Fatal(err)
	}
	now = now.Add(flushLoose)
	putDeferred(t, s, u, data[:minPart])
	if parts, err := s.ListParts(ctx, u.ID); err != nil || len(parts) != 2 {
		t.Errorf("after an hour: parts %v, %v", parts, err)
	}
	putDeferred(t, s, u, data)
	if err := s.FlushParts(ctx, u.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := s.CompleteUpload(ctx, u.ID, int64(len(data)), treehash.Sum(data)); err != nil {
		t.Fatal(err)
	}
	if _, err := s.PutPartDeferred(ctx, u.ID, 0, data[:9]); !errors.Is(err, coldstore.ErrNotFound) && !errors.Is(err, coldstore.ErrInvalid) {
		t.Errorf("part of a completed upload: %v", err)
	}
	v, err := s.CreateUpload(ctx, coldstore.NewArchive{Name: "b"}, minPart)
	if err != nil {
		t.Fatal(err)
	}
	putDeferred(t, s, v, data)
	if err := s.AbortUpload(ctx, v.ID); err != nil {
		t.Fatal(err)
	}
	if err := s.FlushParts(ctx, v.ID); !errors.Is(err, coldstore.ErrNotFound) {
		t.Errorf("flush of an aborted upload: %v", err)
	}
}

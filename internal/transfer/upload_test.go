package transfer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/treehash"
	"pgregory.net/rapid"
)

var errTest = errors.New("test error")

func TestUploadProperty(t *testing.T) {
	t.Parallel()
	data := noise(1, 5*mib)
	rapid.Check(t, func(t *rapid.T) {
		m := newMemStore()
		size := rapid.SampledFrom([]int{1, 1000, mib - 1, mib, mib + 1, 2 * mib, 3*mib + 5, 4 * mib, 5 * mib}).Draw(t, "size")
		var sent atomic.Int64
		var ps pauser
		o := Options{
			PartSize: rapid.SampledFrom([]int64{0, mib, 2 * mib, 4 * mib}).Draw(t, "part"),
			Parallel: rapid.IntRange(0, 3).Draw(t, "parallel"),
			Sent:     func(n int64) { sent.Add(n) },
			Sleep:    ps.sleep,
		}
		var calls atomic.Int32
		every := int32(rapid.IntRange(2, 9).Draw(t, "every"))
		what := rapid.SampledFrom([]error{coldstore.ErrTemporary, coldstore.ErrThrottled, coldstore.ErrInDoubt, io.ErrUnexpectedEOF}).Draw(t, "error")
		fault := func(context.Context, string) error {
			if calls.Add(1)%every == 0 {
				return fmt.Errorf("fault: %w", what)
			}
			return nil
		}
		if rapid.Bool().Draw(t, "lost before") {
			m.before = fault
		} else {
			m.after = fault
		}
		u := NewUpload(context.Background(), m, coldstore.NewArchive{Name: "a"}, o)
		for off := 0; off < size; {
			n := min(size-off, rapid.SampledFrom([]int{1, 70_000, mib, 3 * mib}).Draw(t, "write"))
			if k, err := u.Write(data[off : off+n]); err != nil || k != n {
				t.Fatalf("Write: %d, %v", k, err)
			}
			off += n
			if size-off > 100 && n == 1 { // not a million steps
				k, _ := u.Write(data[off : off+100])
				off += k
			}
		}
		var p Pending
		a, err := u.Complete(context.Background(), func(got Pending) error { p = got; return nil })
		if err != nil {
			t.Fatalf("Complete: %v", err)
		}
		want := treehash.Sum(data[:size])
		if !bytes.Equal(m.archives["a"], data[:size]) || a.Size != int64(size) || a.TreeHash != want {
			t.Fatalf("archive %+v", a)
		}
		if p.Size != a.Size || p.TreeHash != want || p.Name != "a" || p.UploadID == "" || treehash.Combine(p.Leaves) != want || len(p.Leaves) != (size+mib-1)/mib {
			t.Fatalf("pending %+v", p)
		}
		if sent.Load() != int64(size) {
			t.Fatalf("Sent %d of %d", sent.Load(), size)
		}
		if m.most > max(o.Parallel, 1) && o.Parallel > 0 {
			t.Fatalf("%d parts in flight", m.most)
		}
		if _, err := u.Write([]byte{1}); err == nil {
			t.Fatalf("Write after Complete")
		}
		if err := u.Abort(context.Background()); err != nil || len(m.aborted) > 0 {
			t.Fatalf("Abort after Complete: %v, %v", err, m.aborted)
		}
	})
}

func TestUploadSendsNothingWithoutBytes(t *testing.T) {
	t.Parallel()
	m := newMemStore()
	m.before = func(_ context.Context, op string) error { t.Error("called", op); return nil }
	u := NewUpload(t.Context(), m, coldstore.NewArchive{Name: "a"}, Options{})
	if _, err := u.Write(nil); err != nil {
		t.Error(err)
	}
	if _, err := u.Complete(t.Context(), nil); !errors.Is(err, coldstore.ErrInvalid) {
		t.Error(err)
	}
	if err := u.Abort(t.Context()); err != nil {
		t.Error(err)
	}
}

// What is not passing is returned at once; a passing fault that stays, after the attempts.
func TestUploadErrors(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		op    string
		err   error
		pause int
		abort bool // Abort reaches the store
	}{
		{"create", coldstore.ErrExists, 0, false},
		{"create", coldstore.ErrTemporary, 5, false},
		{"put", coldstore.ErrIntegrity, 0, true},
		{"put", errTest, 0, true},
		{"put", coldstore.ErrThrottled, 5, true},
		{"complete", coldstore.ErrIntegrity, 0, true},
		{"complete", coldstore.ErrExists, 0, true},
		{"complete", coldstore.ErrInDoubt, 5, false},
		{"complete", coldstore.ErrTemporary, 5, false},
	} {
		t.Run(tc.op+" "+tc.err.Error(), func(t *testing.T) {
			t.Parallel()
			m := newMemStore()
			m.before = func(_ context.Context, op string) error {
				switch {
				case op != tc.op:
					return nil
				case op == "create": // a store names what it begins
					return fmt.Errorf("begin upload of name-of-it: %w", tc.err)
				}
				return tc.err
			}
			var ps pauser
			u := NewUpload(t.Context(), m, coldstore.NewArchive{Name: "name-of-it"}, Options{Sleep: ps.sleep, PartSize: mib})
			_, err := u.Write(noise(1, mib/2))
			if (err != nil) != (tc.op == "create") {
				t.Fatal(err)
			}
			_, err = u.Complete(t.Context(), nil)
			if !errors.Is(err, tc.err) || strings.Count(err.Error(), "name-of-it") != 1 {
				t.Fatal(err)
			}
			if len(ps.pauses) != tc.pause {
				t.Errorf("%d pauses", len(ps.pauses))
			}
			for i, p := range ps.pauses {
				if p < firstPause<<i/2 || p > firstPause<<i {
					t.Errorf("pause %d is %s", i, p)
				}
			}
			if err := u.Abort(t.Context()); err != nil || (len(m.aborted) == 1) != tc.abort {
				t.Errorf("Abort: %v, %v", err, m.aborted)
			}
		})
	}
}

func TestUploadTooManyParts(t *testing.T) {
	t.Parallel()
	m := newMemStore()
	m.traits.MaxParts = 3
	u := NewUpload(t.Context(), m, coldstore.NewArchive{Name: "a"}, Options{PartSize: mib})
	_, err := u.Write(noise(1, 4*mib))
	if !errors.Is(err, coldstore.ErrInvalid) || !strings.Contains(err.Error(), "Options.PartSize") {
		t.Fatal(err)
	}
	if err := u.Abort(t.Context()); err != nil || len(m.aborted) != 1 {
		t.Fatal(err)
	}
}

func TestPartSize(t *testing.T) {
	t.Parallel()
	glacier := coldstore.Traits{MinPart: mib, MaxPart: 4 << 30, MaxParts: 10000}
	for _, tc := range []struct {
		o    Options
		t    coldstore.Traits
		want int64 // 0: an error
	}{
		{Options{}, coldstore.Traits{}, 16 * mib},
		{Options{}, glacier, 16 * mib},
		{Options{PartSize: mib}, glacier, mib},
		{Options{PartSize: 3 * mib}, glacier, 0},
		{Options{PartSize: mib / 2}, glacier, 0},
		{Options{PartSize: 8 << 30}, glacier, 0},
		{Options{PartSize: mib}, coldstore.Traits{MinPart: 5 * mib}, 0},
		{Options{}, coldstore.Traits{MinPart: 20 * mib}, 32 * mib},
		{Options{}, coldstore.Traits{MaxPart: 5 * mib}, 4 * mib},
		{Options{Expect: 160000 * mib}, glacier, 16 * mib},
		{Options{Expect: 160000*mib + 1}, glacier, 32 * mib},
		{Options{Expect: 40000 << 30}, glacier, 4 << 30},
		{Options{Expect: 1 << 62}, glacier, 4 << 30},
	} {
		got, err := partSize(tc.o, tc.t)
		if got != tc.want || (err != nil) != (tc.want == 0) {
			t.Errorf("%+v: %d, %v; want %d", tc.o, got, err, tc.want)
		}
	}
}

// An upload's memory is its pool's, and the next upload's too.
func TestPoolIsShared(t *testing.T) {
	t.Parallel()
	pool := NewPool(3)
	m := newMemStore()
	for i := range 5 {
		u := NewUpload(t.Context(), m, coldstore.NewArchive{Name: fmt.Sprint(i)}, Options{PartSize: mib, Pool: pool})
		if _, err := u.Write(noise(byte(i), 7*mib+3)); err != nil {
			t.Fatal(err)
		}
		if i == 2 {
			if err := u.Abort(t.Context()); err != nil {
				t.Fatal(err)
			}
		} else if _, err := u.Complete(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
		if len(pool.tokens) != 0 || len(pool.idle) > 3 {
			t.Fatalf("%d lent, %d idle", len(pool.tokens), len(pool.idle))
		}
	}
	for len(pool.idle) > 0 {
		if b := <-pool.idle; cap(b) > mib {
			t.Errorf("buffer of %d", cap(b))
		}
	}
}

// Abort returns, and leaves no goroutine, while parts block until their context ends.
func TestUploadAbortWhileBlocked(t *testing.T) {
	t.Parallel()
	for _, how := range []string{"abort", "cancel"} {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			m := newMemStore()
			m.before = func(ctx context.Context, op string) error {
				if op == "put" {
					<-ctx.Done()
					return ctx.Err()
				}
				return nil
			}
			u := NewUpload(ctx, m, coldstore.NewArchive{Name: "a"}, Options{PartSize: mib})
			done := make(chan error)
			if how == "abort" {
				if _, err := u.Write(noise(1, 2*mib+1)); err != nil {
					t.Fatal(err)
				}
			} else {
				go func() {
					_, err := u.Write(noise(1, 5*mib))
					done <- err
				}()
				synctest.Wait()
				cancel()
				if err := <-done; !errors.Is(err, context.Canceled) {
					t.Fatal(err)
				}
			}
			if err := u.Abort(t.Context()); err != nil || len(m.aborted) != 1 {
				t.Fatal(err, m.aborted)
			}
		})
	}
}

func TestUploadBeforeFails(t *testing.T) {
	t.Parallel()
	m := newMemStore()
	u := NewUpload(t.Context(), m, coldstore.NewArchive{Name: "a"}, Options{})
	if _, err := u.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := u.Complete(t.Context(), func(Pending) error { return errTest }); !errors.Is(err, errTest) || len(m.archives) > 0 {
		t.Fatal(err)
	}
	if err := u.Abort(t.Context()); err != nil || len(m.aborted) != 1 {
		t.Fatal(err)
	}
}

// The store's answer is not believed.
func TestUploadComparesTheAnswer(t *testing.T) {
	t.Parallel()
	m := lyingStore{newMemStore()}
	u := NewUpload(t.Context(), m, coldstore.NewArchive{Name: "a"}, Options{})
	if _, err := u.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := u.Complete(t.Context(), nil); !errors.Is(err, coldstore.ErrIntegrity) {
		t.Fatal(err)
	}
}

type lyingStore struct{ *memStore }

func (l lyingStore) CompleteUpload(ctx context.Context, id string, size int64, hash treehash.Hash) (coldstore.Archive, error) {
	a, err := l.memStore.CompleteUpload(ctx, id, size, hash)
	a.TreeHash[0]++
	return a, err
}

func TestSettle(t *testing.T) {
	t.Parallel()
	data := noise(1, mib+7)
	begin := func(t *testing.T) (*memStore, Pending) {
		m := newMemStore()
		u := NewUpload(t.Context(), m, coldstore.NewArchive{Name: "a"}, Options{})
		if _, err := u.Write(data); err != nil {
			t.Fatal(err)
		}
		var p Pending
		_, _ = u.Complete(t.Context(), func(got Pending) error { p = got; return errTest })
		return m, p
	}
	check := func(t *testing.T, m *memStore, a coldstore.Archive, err error) {
		t.Helper()
		if err != nil || a.ID != "a" || a.TreeHash != treehash.Sum(data) || !bytes.Equal(m.archives["a"], data) {
			t.Fatal(a, err)
		}
	}
	t.Run("not completed yet", func(t *testing.T) {
		m, p := begin(t)
		a, err := Settle(t.Context(), m, p, Options{})
		check(t, m, a, err)
		a, err = Settle(t.Context(), m, p, Options{}) // and again
		check(t, m, a, err)
	})
	t.Run("completed and forgotten", func(t *testing.T) {
		m, p := begin(t)
		m.archives["a"] = data
		clear(m.uploads)
		a, err := Settle(t.Context(), m, p, Options{})
		check(t, m, a, err)
		m.traits.NamesKept = false
		a, err = Settle(t.Context(), m, p, Options{})
		check(t, m, a, err)
	})
	t.Run("never happened", func(t *testing.T) {
		m, p := begin(t)
		clear(m.uploads)
		if _, err := Settle(t.Context(), m, p, Options{}); !errors.Is(err, coldstore.ErrNotFound) {
			t.Fatal(err)
		}
		m.before = func(_ context.Context, op string) error {
			if op == "list" {
				return coldstore.ErrNotReady
			}
			return nil
		}
		if _, err := Settle(t.Context(), m, p, Options{}); !errors.Is(err, coldstore.ErrNotFound) {
			t.Fatal(err)
		}
	})
	t.Run("another of that name", func(t *testing.T) {
		m, p := begin(t)
		clear(m.uploads)
		m.archives["a"] = data[1:]
		if _, err := Settle(t.Context(), m, p, Options{}); !errors.Is(err, coldstore.ErrIntegrity) {
			t.Fatal(err)
		}
	})
}

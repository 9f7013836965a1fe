package faultstore

import (
	"bytes"
	"context"
	"errors"
	"io"
	"path/filepath"
	"testing"

	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/internal/coldstore/localdir"
	"github.com/firn-backup/firn/internal/coldstore/storetest"
	"github.com/firn-backup/firn/treehash"
)

const mib = treehash.LeafSize

func vault(t testing.TB) *localdir.Store {
	t.Helper()
	s, err := localdir.Create(filepath.Join(t.TempDir(), "vault"), localdir.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// Without a fault a wrapped store is as good as the store.
func TestConformance(t *testing.T) {
	t.Parallel()
	storetest.Run(t, func(t testing.TB) storetest.Harness {
		s := vault(t)
		f := New(Fault{})
		return storetest.Harness{
			Store: f.Wrap(s),
			Reopen: func(t testing.TB) coldstore.Store {
				again, err := localdir.Open(s.Root(), localdir.Options{})
				if err != nil {
					t.Fatal(err)
				}
				return f.Wrap(again)
			},
		}
	})
}

// plain is a store without Stat.
type plain struct{ coldstore.Store }

func TestStater(t *testing.T) {
	t.Parallel()
	s := vault(t)
	f := New(Fault{})
	if _, ok := f.Wrap(s).(coldstore.Stater); !ok {
		t.Error("Stat is hidden")
	}
	if _, ok := f.Wrap(plain{s}).(coldstore.Stater); ok {
		t.Error("Stat is invented")
	}
}

// use calls every method once, in this order, and goes on after errors as far as it can.
func use(ctx context.Context, s coldstore.Store, data []byte) (errs []error) {
	note := func(err error) { errs = append(errs, err) }
	u, err := s.CreateUpload(ctx, coldstore.NewArchive{Name: "a"}, mib)
	note(err)
	note(s.PutPart(ctx, u.ID, 0, data, treehash.Sum(data)))
	_, err = s.ListParts(ctx, u.ID)
	note(err)
	note(s.ListUploads(ctx, func(coldstore.Upload) error { return nil }))
	a, err := s.CompleteUpload(ctx, u.ID, int64(len(data)), treehash.Sum(data))
	note(err)
	note(s.AbortUpload(ctx, "none"))
	_, err = s.List(ctx, func(coldstore.Archive) error { return nil })
	note(err)
	_, err = s.(coldstore.Stater).Stat(ctx, "a")
	note(err)
	r, err := s.RequestRetrieval(ctx, "a", coldstore.Range{}, coldstore.RetrievalOptions{})
	note(err)
	_, err = s.CheckRetrieval(ctx, r.Token)
	note(err)
	rc, err := s.OpenRetrieved(ctx, r, 0, a.Size)
	note(err)
	if err == nil {
		io.Copy(io.Discard, rc)
		rc.Close()
	}
	note(s.Delete(ctx, "a"))
	return errs
}

const calls = 12 // in use

func TestEveryCallFails(t *testing.T) {
	t.Parallel()
	data := storetest.Bytes(1000, 1)
	for _, mode := range []Mode{LostBefore, LostAfter, DeadFrom, DeadAfter} {
		n := 0
		for ; ; n++ {
			f := New(Fault{Mode: mode, Call: n})
			errs := use(t.Context(), f.Wrap(vault(t)), data)
			if f.Count("") != calls || len(errs) != calls || len(f.Methods()) != calls {
				t.Fatalf("%d calls of %v", f.Count(""), f.Methods())
			}
			if !f.Hit() {
				break
			}
			for i, err := range errs {
				mine := errors.Is(err, ErrLost) || errors.Is(err, ErrDead)
				want := i == n || i > n && (mode == DeadFrom || mode == DeadAfter)
				if mine != want {
					t.Errorf("%v at %d: call %d: %v", mode, n, i, err)
				}
			}
		}
		if n != calls {
			t.Errorf("%v: no fault at call %d any more", mode, n)
		}
	}
}

func TestBeforeAndAfter(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	data := storetest.Bytes(1000, 1)
	hash := treehash.Sum(data)
	for _, c := range []struct {
		fault    Fault
		happened bool
		complete error
		put      error
	}{
		{Fault{Mode: LostBefore}, false, coldstore.ErrTemporary, coldstore.ErrTemporary},
		{Fault{Mode: LostBefore, InDoubt: true}, false, coldstore.ErrInDoubt, coldstore.ErrTemporary},
		{Fault{Mode: LostAfter}, true, coldstore.ErrInDoubt, coldstore.ErrTemporary},
		{Fault{Mode: LostAfter, Err: coldstore.ErrThrottled}, true, coldstore.ErrThrottled, coldstore.ErrThrottled},
		{Fault{Mode: LostBefore, Err: ErrLost}, false, ErrLost, ErrLost},
		{Fault{Mode: DeadFrom}, false, ErrDead, ErrDead},
		{Fault{Mode: DeadAfter}, true, ErrDead, ErrDead},
	} {
		s := vault(t)
		u, err := s.CreateUpload(ctx, coldstore.NewArchive{Name: "a"}, mib)
		if err != nil {
			t.Fatal(err)
		}
		fault := c.fault
		fault.Method = "PutPart"
		f := New(fault)
		if err := f.Wrap(s).PutPart(ctx, u.ID, 0, data, hash); !errors.Is(err, c.put) {
			t.Errorf("%+v: PutPart: %v", fault, err)
		}
		if parts, err := s.ListParts(ctx, u.ID); err != nil || (len(parts) == 1) != c.happened {
			t.Errorf("%+v: parts %v, %v", fault, parts, err)
		}
		if got := f.BytesSent(""); (got == 1000) != c.happened || !c.happened && got != 0 {
			t.Errorf("%+v: %d bytes sent", fault, got)
		}
		if err := s.PutPart(ctx, u.ID, 0, data, hash); err != nil {
			t.Fatal(err)
		}
		fault.Method = "CompleteUpload"
		f = New(fault)
		if _, err := f.Wrap(s).CompleteUpload(ctx, u.ID, 1000, hash); !errors.Is(err, c.complete) {
			t.Errorf("%+v: CompleteUpload: %v", fault, err)
		}
		if _, err := s.Stat(ctx, "a"); (err == nil) != c.happened {
			t.Errorf("%+v: Stat: %v", fault, err)
		}
		if (len(f.Completed()) == 1) != c.happened {
			t.Errorf("%+v: completed %v", fault, f.Completed())
		}
	}
}

func TestTimesAndMethod(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	for _, c := range []struct {
		times int
		want  string
	}{{0, "..x......"}, {3, "..xxx...."}, {-1, "..xxxxxxx"}} {
		f := New(Fault{Mode: LostBefore, Method: "Stat", Call: 2, Times: c.times})
		s := f.Wrap(vault(t))
		got := ""
		for range c.want {
			if err := s.AbortUpload(ctx, "none"); err != nil {
				t.Error(err)
			}
			if _, err := s.(coldstore.Stater).Stat(ctx, "a"); errors.Is(err, ErrLost) {
				got += "x"
			} else {
				got += "."
			}
		}
		if got != c.want {
			t.Errorf("Times %d: %s, want %s", c.times, got, c.want)
		}
	}
}

func TestReads(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	data := storetest.Bytes(3*mib, 1)
	s := vault(t)
	storetest.Upload(t, s, coldstore.NewArchive{Name: "a"}, mib, data)
	read := func(f *Faults, off, size int64) ([]byte, error) {
		w := f.Wrap(s)
		r, err := w.RequestRetrieval(ctx, "a", coldstore.Range{}, coldstore.RetrievalOptions{})
		if err != nil {
			t.Fatal(err)
		}
		rc, err := w.OpenRetrieved(ctx, r, off, size)
		if err != nil {
			t.Fatal(err)
		}
		defer rc.Close()
		return io.ReadAll(rc)
	}
	f := New(Fault{Mode: ReadBreak, Call: 1})
	for i := range 3 {
		got, err := read(f, mib, mib)
		want, wantErr := data[mib:2*mib], error(nil)
		if i == 1 {
			want, wantErr = want[:mib/2], io.ErrUnexpectedEOF
		}
		if !bytes.Equal(got, want) || !errors.Is(err, wantErr) {
			t.Errorf("ReadBreak, read %d: %d bytes, %v", i, len(got), err)
		}
	}
	if got := f.BytesRead("a"); got != 2*mib+mib/2 || f.BytesRead("") != got || f.BytesRead("b") != 0 {
		t.Errorf("%d bytes counted", got)
	}
	f = New(Fault{Mode: ReadFlip})
	for i := range 2 {
		got, err := read(f, mib, mib)
		if err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			got[mib/2] ^= 1
		}
		if !bytes.Equal(got, data[mib:2*mib]) {
			t.Errorf("ReadFlip, read %d is wrong", i)
		}
	}
	f = New(Fault{})
	f.Rot("a", mib+7)
	for range 2 {
		got, err := read(f, mib, mib)
		if err != nil || got[7] != data[mib+7]^1 {
			t.Errorf("Rot: %v", err)
		}
		if got, err := read(f, 0, mib); err != nil || !bytes.Equal(got, data[:mib]) {
			t.Errorf("Rot outside: %v", err)
		}
	}
	w := f.Wrap(s)
	r, err := w.RequestRetrieval(ctx, "a", coldstore.Range{}, coldstore.RetrievalOptions{})
	if err != nil {
		t.Fatal(err)
	}
	rc, err := w.OpenRetrieved(ctx, r, 0, 3*mib)
	if err != nil {
		t.Fatal(err)
	}
	defer rc.Close()
	f.Kill()
	if _, err := rc.Read(make([]byte, 1)); !errors.Is(err, ErrDead) {
		t.Errorf("a dead process reads: %v", err)
	}
}

func TestSent(t *testing.T) {
	t.Parallel()
	data := storetest.Bytes(2*mib+5, 1)
	f := New(Fault{})
	s := f.Wrap(vault(t))
	storetest.Upload(t, s, coldstore.NewArchive{Name: "a"}, mib, data)
	storetest.Upload(t, s, coldstore.NewArchive{Name: "b"}, mib, data[:mib])
	if f.BytesSent("a") != 2*mib+5 || f.BytesSent("b") != mib || f.BytesSent("") != 3*mib+5 {
		t.Errorf("sent %v", f.Sent())
	}
	if got := f.Sent()[2]; got.Name != "a" || got.Offset != 2*mib || got.Size != 5 || f.BytesSent(got.Upload) != 2*mib+5 {
		t.Errorf("third part: %+v", got)
	}
	if got := f.Completed(); len(got) != 2 || got[0] != "a" || got[1] != "b" {
		t.Errorf("completed %v", got)
	}
	if f.Count("PutPart") != 4 || f.Count("CompleteUpload") != 2 || f.Count("Delete") != 0 {
		t.Errorf("counts: %v", f.Methods())
	}
}

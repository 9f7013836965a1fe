package transfer_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"path/filepath"
	"testing"
	"time"

	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/internal/coldstore/faultstore"
	"github.com/firn-backup/firn/internal/coldstore/localdir"
	"github.com/firn-backup/firn/internal/manifest"
	"github.com/firn-backup/firn/internal/transfer"
	"github.com/firn-backup/firn/treehash"
)

const mib = 1 << 20

func noPause(ctx context.Context, _ time.Duration) error { return ctx.Err() }

func noise(n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{7}).Read(b)
	return b
}

func vault(t *testing.T) *localdir.Store {
	t.Helper()
	s, err := localdir.Create(filepath.Join(t.TempDir(), "vault"), localdir.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// upload does what a backup does: it writes down what is pending before it completes.
func upload(ctx context.Context, s coldstore.Uploader, data []byte, journal *transfer.Pending) (coldstore.Archive, error) {
	u := transfer.NewUpload(ctx, s, coldstore.NewArchive{Name: "archive", Description: "test"}, transfer.Options{PartSize: mib, Sleep: noPause})
	defer func() { _ = u.Abort(ctx) }()
	if _, err := u.Write(data); err != nil {
		return coldstore.Archive{}, err
	}
	return u.Complete(ctx, func(p transfer.Pending) error {
		*journal = p
		return nil
	})
}

// A real vault that fails at each call in turn, in each way: a passing fault is not even noticed, and
// after a death the next process has the archive by settling it or by sending it again.
func TestFaultAtEveryCall(t *testing.T) {
	t.Parallel()
	data := noise(2*mib + 100)
	for _, mode := range []faultstore.Mode{faultstore.LostBefore, faultstore.LostAfter, faultstore.DeadFrom, faultstore.DeadAfter} {
		t.Run(mode.String(), func(t *testing.T) {
			t.Parallel()
			for call := 0; ; call++ {
				s := vault(t)
				f := faultstore.New(faultstore.Fault{Mode: mode, Call: call, InDoubt: call%2 == 0})
				var p transfer.Pending
				a, err := upload(t.Context(), f.Wrap(s), data, &p)
				dead := f.Hit() && (mode == faultstore.DeadFrom || mode == faultstore.DeadAfter)
				if (err != nil) != dead {
					t.Fatalf("call %d: %v", call, err)
				}
				if err != nil && p.UploadID != "" {
					a, err = transfer.Settle(t.Context(), s, p, transfer.Options{Sleep: noPause})
				}
				if err != nil {
					a, err = upload(t.Context(), s, data, &p)
				}
				if err != nil || a.ID != "archive" || a.TreeHash != treehash.Sum(data) {
					t.Fatalf("call %d: %+v, %v", call, a, err)
				}
				checkStored(t, s, data)
				if !f.Hit() {
					if call < 4 {
						t.Fatalf("only %d calls", call)
					}
					return
				}
			}
		})
	}
}

// checkStored reads the one archive that must be there.
func checkStored(t *testing.T, s coldstore.Store, data []byte) {
	t.Helper()
	n := 0
	if _, err := s.List(t.Context(), func(coldstore.Archive) error { n++; return nil }); err != nil || n != 1 {
		t.Fatalf("%d archives, %v", n, err)
	}
	r, err := s.RequestRetrieval(t.Context(), "archive", coldstore.Range{}, coldstore.RetrievalOptions{})
	if err != nil {
		t.Fatal(err)
	}
	st := transfer.Stream(t.Context(), s, r, int64(len(data)), treehash.Sum(data), transfer.Options{Sleep: noPause})
	defer st.Close()
	if got, err := io.ReadAll(st); err != nil || !bytes.Equal(got, data) {
		t.Fatalf("%d bytes, %v", len(got), err)
	}
}

// Reading a real vault whose connections break, whose answers get lost and whose bytes flip on the way.
func TestReadsSurviveFaults(t *testing.T) {
	t.Parallel()
	data := noise(6*mib + 5)
	s := vault(t)
	var p transfer.Pending
	if _, err := upload(t.Context(), s, data, &p); err != nil {
		t.Fatal(err)
	}
	v := &manifest.Volume{N: 1, Archive: "archive", Size: p.Size, TreeHash: p.TreeHash, Leaves: p.Leaves}
	for _, mode := range []faultstore.Mode{faultstore.LostBefore, faultstore.LostAfter, faultstore.ReadBreak, faultstore.ReadFlip} {
		for call := 0; ; call++ {
			f := faultstore.New(faultstore.Fault{Mode: mode, Call: call, Method: "OpenRetrieved"})
			w := f.Wrap(s)
			r, err := w.RequestRetrieval(t.Context(), "archive", coldstore.Range{}, coldstore.RetrievalOptions{})
			if err != nil {
				t.Fatal(err)
			}
			ra := transfer.NewReaderAt(t.Context(), w, v, []coldstore.Retrieval{r}, transfer.Options{Sleep: noPause},
				func(d transfer.Damage) { t.Errorf("%s %d: damage %+v", mode, call, d) })
			got, err := io.ReadAll(io.NewSectionReader(ra, 0, v.Size))
			if err != nil || !bytes.Equal(got, data) {
				t.Fatalf("%s %d: %d bytes, %v", mode, call, len(got), err)
			}
			if err := ra.Close(); err != nil {
				t.Fatal(err)
			}
			if !f.Hit() {
				break
			}
		}
	}
	for call := range 2 {
		f := faultstore.New(faultstore.Fault{Mode: faultstore.ReadFlip, Call: call})
		w := f.Wrap(s)
		r, err := w.RequestRetrieval(t.Context(), "archive", coldstore.Range{}, coldstore.RetrievalOptions{})
		if err != nil {
			t.Fatal(err)
		}
		st := transfer.Stream(t.Context(), w, r, v.Size, v.TreeHash, transfer.Options{Sleep: noPause})
		if _, err := io.ReadAll(st); errors.Is(err, coldstore.ErrIntegrity) != f.Hit() {
			t.Fatal(call, err)
		}
		_ = st.Close()
	}
}

// Rot in the vault is told once for each MiB, with its place.
func TestRotIsTold(t *testing.T) {
	t.Parallel()
	data := noise(5 * mib)
	s := vault(t)
	var p transfer.Pending
	if _, err := upload(t.Context(), s, data, &p); err != nil {
		t.Fatal(err)
	}
	v := &manifest.Volume{N: 1, Archive: "archive", Size: p.Size, TreeHash: p.TreeHash, Leaves: p.Leaves}
	f := faultstore.New(faultstore.Fault{})
	f.Rot("archive", mib+7)
	f.Rot("archive", mib+9)
	f.Rot("archive", 4*mib)
	w := f.Wrap(s)
	r, err := w.RequestRetrieval(t.Context(), "archive", coldstore.Range{Offset: mib, Size: 4 * mib}, coldstore.RetrievalOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var told []string
	ra := transfer.NewReaderAt(t.Context(), w, v, []coldstore.Retrieval{r}, transfer.Options{}, func(d transfer.Damage) {
		told = append(told, fmt.Sprint(d.Archive, " ", d.Offset, " ", d.Size))
	})
	got := make([]byte, 4*mib)
	if _, err := ra.ReadAt(got, mib); err != nil && err != io.EOF {
		t.Fatal(err)
	}
	if err := ra.Close(); err != nil {
		t.Fatal(err)
	}
	want := bytes.Clone(data[mib:])
	want[7] ^= 1
	want[9] ^= 1
	want[3*mib] ^= 1
	if !bytes.Equal(got, want) {
		t.Error("other bytes than those")
	}
	if fmt.Sprint(told) != fmt.Sprint([]string{"archive 1048576 1048576", "archive 4194304 1048576"}) {
		t.Error(told)
	}
}

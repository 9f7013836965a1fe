// Package storetest is the suite that every vault passes: each promise in the
// comments of package coldstore is a subtest. It knows no store by name; what
// a store cannot do, its Traits say, and the suite leaves it out.
//
// It is made for stores that take hours as well: where a harness can move the
// vault's clock, delays, expiry and stale listings are tested, elsewhere what
// needs them is skipped.
package storetest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/treehash"
)

// Harness is one vault to test, empty, and not used by anybody else.
type Harness struct {
	Store coldstore.Store

	// Reopen opens the same vault as another process would, the first one being dead. Nil: it
	// cannot be done.
	Reopen func(t testing.TB) coldstore.Store

	// Advance moves the vault's clock, which stands still otherwise or goes as clocks go. Nil: it cannot be moved.
	Advance func(d time.Duration)
}

// Run runs the suite. make is called for every subtest; those run in parallel.
func Run(t *testing.T, make func(t testing.TB) Harness) {
	for _, c := range cases() {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			h := make(t)
			c.run(t, newRun(t, h))
		})
	}
}

type testCase struct {
	name string
	run  func(t *testing.T, r *run)
}

func cases() []testCase {
	var all []testCase
	all = append(all, uploadCases()...)
	all = append(all, endCases()...)
	all = append(all, listCases()...)
	all = append(all, retrievalCases()...)
	return all
}

// run is one subtest's vault with what makes tests short.
type run struct {
	Harness
	ctx    context.Context
	s      coldstore.Store
	begun  []coldstore.Upload // by this subtest
	traits coldstore.Traits
	part   int64 // the smallest part size that the store takes
	data   []byte
}

func newRun(t *testing.T, h Harness) *run {
	tr := h.Store.Traits()
	part := int64(treehash.LeafSize)
	for part < tr.MinPart {
		part *= 2
	}
	r := &run{Harness: h, ctx: t.Context(), s: h.Store, traits: tr, part: part}
	r.data = Bytes(int(3*part+12345), 1)
	return r
}

// Bytes are n bytes that look random, the same for the same seed.
func Bytes(n int, seed uint64) []byte {
	b := make([]byte, n)
	var key [32]byte
	key[0], key[1] = byte(seed), byte(seed>>8)
	rand.NewChaCha8(key).Read(b)
	return b
}

// Upload stores data as one archive, in parts of partSize bytes, and fails the test if that fails.
func Upload(t testing.TB, s coldstore.Uploader, a coldstore.NewArchive, partSize int64, data []byte) coldstore.Archive {
	t.Helper()
	u, err := s.CreateUpload(t.Context(), a, partSize)
	if err != nil {
		t.Fatalf("CreateUpload: %v", err)
	}
	PutParts(t, s, u, data)
	got, err := s.CompleteUpload(t.Context(), u.ID, int64(len(data)), treehash.Sum(data))
	if err != nil {
		t.Fatalf("CompleteUpload: %v", err)
	}
	return got
}

// PutParts puts all of data to an upload.
func PutParts(t testing.TB, s coldstore.Uploader, u coldstore.Upload, data []byte) {
	t.Helper()
	for off := int64(0); off < int64(len(data)); off += u.PartSize {
		p := data[off:min(off+u.PartSize, int64(len(data)))]
		if err := s.PutPart(t.Context(), u.ID, off, p, treehash.Sum(p)); err != nil {
			t.Fatalf("PutPart at %d: %v", off, err)
		}
	}
}

func (r *run) upload(t testing.TB, name string, data []byte) coldstore.Archive {
	t.Helper()
	return Upload(t, r.s, coldstore.NewArchive{Name: name, Description: described(name)}, r.part, data)
}

func (r *run) create(t testing.TB, name string) coldstore.Upload {
	t.Helper()
	u, err := r.s.CreateUpload(r.ctx, coldstore.NewArchive{Name: name, Description: described(name)}, r.part)
	if err != nil {
		t.Fatalf("CreateUpload: %v", err)
	}
	r.begun = append(r.begun, u)
	return u
}

// put puts one part of data, whose offset in the archive is off.
func (r *run) put(t testing.TB, u coldstore.Upload, off int64, data []byte) {
	t.Helper()
	if err := r.s.PutPart(r.ctx, u.ID, off, data, treehash.Sum(data)); err != nil {
		t.Fatalf("PutPart at %d: %v", off, err)
	}
}

// reopen goes on as another process.
func (r *run) reopen(t testing.TB) {
	t.Helper()
	if r.Reopen == nil {
		t.Skip("this vault cannot be reopened")
	}
	r.s = r.Reopen(t)
	if l, ok := r.s.(coldstore.UploadLearner); ok {
		for _, u := range r.begun {
			l.LearnUpload(u)
		}
	}
}

// list is the vault's listing by id, fresh: the clock is moved as far as it needs.
func (r *run) list(t testing.TB) map[string]coldstore.Archive {
	t.Helper()
	if r.traits.ListLag > 0 {
		if r.Advance == nil {
			t.Skip("listings are stale, and the clock cannot be moved")
		}
		r.Advance(r.traits.ListLag)
	}
	for range 100 {
		got := map[string]coldstore.Archive{}
		_, err := r.s.List(r.ctx, func(a coldstore.Archive) error {
			if _, twice := got[a.ID]; twice {
				t.Errorf("archive %s is listed twice", a.ID)
			}
			got[a.ID] = a
			return nil
		})
		if errors.Is(err, coldstore.ErrNotReady) && r.Advance != nil {
			r.Advance(time.Hour)
			continue
		}
		if err != nil {
			t.Fatalf("List: %v", err)
		}
		return got
	}
	t.Fatal("List: not ready after 100 hours")
	return nil
}

// has says whether an archive exists, in the cheapest way.
func (r *run) has(t testing.TB, id string) bool {
	t.Helper()
	if st, ok := r.s.(coldstore.Stater); ok {
		_, err := st.Stat(r.ctx, id)
		if err != nil && !errors.Is(err, coldstore.ErrNotFound) {
			t.Fatalf("Stat: %v", err)
		}
		return err == nil
	}
	_, is := r.list(t)[id]
	return is
}

// ready requests a retrieval and waits until it is ready.
func (r *run) ready(t testing.TB, archive string, rg coldstore.Range) coldstore.Retrieval {
	t.Helper()
	got, err := r.s.RequestRetrieval(r.ctx, archive, rg, coldstore.RetrievalOptions{})
	if err != nil {
		t.Fatalf("RequestRetrieval: %v", err)
	}
	return r.await(t, got)
}

func (r *run) await(t testing.TB, got coldstore.Retrieval) coldstore.Retrieval {
	t.Helper()
	for hours := 0; !got.Ready; hours++ {
		if r.Advance == nil {
			t.Skip("retrievals take time, and the clock cannot be moved")
		}
		if hours == 100 {
			t.Fatal("a retrieval is not ready after 100 hours")
		}
		r.Advance(time.Hour)
		var err error
		if got, err = r.s.CheckRetrieval(r.ctx, got.Token); err != nil {
			t.Fatalf("CheckRetrieval: %v", err)
		}
	}
	return got
}

func (r *run) read(t testing.TB, from coldstore.Retrieval, off, size int64) []byte {
	t.Helper()
	rc, err := r.s.OpenRetrieved(r.ctx, from, off, size)
	if err != nil {
		t.Fatalf("OpenRetrieved(%d, %d): %v", off, size, err)
	}
	defer rc.Close()
	data, err := io.ReadAll(rc)
	if err != nil {
		t.Fatalf("reading %d bytes at %d: %v", size, off, err)
	}
	return data
}

// checkContent retrieves a whole archive and compares it.
func (r *run) checkContent(t testing.TB, archive string, want []byte) {
	t.Helper()
	got := r.read(t, r.ready(t, archive, coldstore.Range{}), 0, int64(len(want)))
	if treehash.Sum(got) != treehash.Sum(want) {
		t.Errorf("archive %s has other bytes than were uploaded", archive)
	}
}

func (r *run) checkArchive(t testing.TB, got coldstore.Archive, name string, data []byte) {
	t.Helper()
	if got.ID == "" || r.traits.NamesKept && name != "" && got.ID != name {
		t.Errorf("id is %q, of archive %q", got.ID, name)
	}
	if got.Size != int64(len(data)) {
		t.Errorf("%s: size is %d, want %d", name, got.Size, len(data))
	}
	if !got.TreeHash.IsZero() && got.TreeHash != treehash.Sum(data) {
		t.Errorf("%s: tree hash is %s", name, got.TreeHash)
	}
	if got.Description != described(name) && !(r.traits.Terse && got.Description == "") {
		t.Errorf("%s: description is %q", name, got.Description)
	}
	if got.Created.IsZero() {
		t.Errorf("%s: no creation date", name)
	}
}

// wantErr checks that an error is one of a kind and names its object.
func wantErr(t testing.TB, what string, err error, kind error, object string) {
	t.Helper()
	switch {
	case err == nil:
		t.Errorf("%s: no error, want %v", what, kind)
	case !errors.Is(err, kind):
		t.Errorf("%s: %v; want %v", what, err, kind)
	case !strings.Contains(err.Error(), object):
		t.Errorf("%s: the error does not name %s: %v", what, object, err)
	}
}

// described is the description of the archive with a name. It does not end in a space, which a vault may drop.
func described(name string) string { return "storetest/" + name }

func number(i int) string { return fmt.Sprintf("set/%03d.bin", i) }

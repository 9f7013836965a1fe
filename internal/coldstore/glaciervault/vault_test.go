package glaciervault_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/internal/coldstore/glaciervault"
	"github.com/firn-backup/firn/internal/coldstore/storetest"
	"github.com/firn-backup/firn/internal/glacierserver"
	"github.com/firn-backup/firn/internal/transfer"
	"github.com/firn-backup/firn/treehash"
)

func newClock() *storetest.Clock {
	return storetest.NewClock(time.Date(2026, 3, 4, 5, 6, 7, 123e6, time.UTC))
}

// serve runs the server of this project, which was made from the service's documentation without a look at this package.
func serve(t testing.TB, c *storetest.Clock, d glacierserver.Delays, faults ...string) (endpoint string) {
	t.Helper()
	o := glacierserver.Options{
		Root: t.TempDir(), Delays: d, Clock: &glacierserver.Clock{Real: c.Now},
		Keys: []glacierserver.Key{{ID: glaciervault.KeyForTest, Secret: glaciervault.SecretForTest, Token: glaciervault.TokenForTest}},
	}
	for _, text := range faults {
		f, err := glacierserver.ParseFault(text)
		if err != nil {
			t.Fatal(err)
		}
		o.Faults = append(o.Faults, f)
	}
	s, err := glacierserver.New(o)
	if err != nil {
		t.Fatal(err)
	}
	h := httptest.NewServer(s)
	t.Cleanup(func() {
		h.Close()
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return h.URL
}

func vaultURL(endpoint string) string {
	return "glacier://eu-west-1/photos?endpoint=" + url.QueryEscape(endpoint)
}

func TestContract(t *testing.T) {
	storetest.Run(t, func(t testing.TB) storetest.Harness {
		c := newClock()
		where := vaultURL(serve(t, c, glacierserver.RealDelays()))
		s, err := glaciervault.CreateTest(t.Context(), where, glaciervault.Options{Now: c.Now}, nil)
		if err != nil {
			t.Fatal(err)
		}
		return storetest.Harness{
			Store: s,
			Reopen: func(t testing.TB) coldstore.Store {
				s, err := glaciervault.OpenTest(t.Context(), where, glaciervault.Options{Now: c.Now}, nil)
				if err != nil {
					t.Fatal(err)
				}
				return s
			},
			Advance: c.Advance,
		}
	})
}

// vault makes a vault on a server of its own.
func vault(t testing.TB, c *storetest.Clock) (*glaciervault.Store, string) {
	t.Helper()
	where := vaultURL(serve(t, c, glacierserver.RealDelays()))
	s, err := glaciervault.CreateTest(t.Context(), where, glaciervault.Options{Now: c.Now}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return s, where
}

// A vault of which the answer was lost was made, and is not called one that was there before.
func TestCreateLost(t *testing.T) {
	t.Parallel()
	where := vaultURL(serve(t, newClock(), glacierserver.Delays{}, "CreateVault:lose:1:1"))
	if _, err := glaciervault.CreateTest(t.Context(), where, glaciervault.Options{}, nil); err != nil {
		t.Error(err)
	}
}

func TestCreateAndOpen(t *testing.T) {
	t.Parallel()
	c := newClock()
	s, where := vault(t, c)
	if _, err := glaciervault.CreateTest(t.Context(), where, glaciervault.Options{}, nil); !errors.Is(err, coldstore.ErrExists) {
		t.Errorf("made twice: %v", err)
	}
	other := strings.Replace(where, "/photos", "/other", 1)
	_, err := glaciervault.OpenTest(t.Context(), other, glaciervault.Options{}, nil)
	if !errors.Is(err, coldstore.ErrNotFound) || !strings.Contains(err.Error(), "other") {
		t.Errorf("not there: %v", err)
	}
	v, err := s.DescribeVault(t.Context())
	if err != nil || v.Name != "photos" || !v.Created.Equal(c.Now()) || !v.Inventory.IsZero() || !strings.HasSuffix(v.ID, ":vaults/photos") {
		t.Errorf("%+v, %v", v, err)
	}
	// With the vault goes nothing that could be mistaken for a lost archive.
	if err := s.DeleteVault(t.Context()); err != nil {
		t.Fatal(err)
	}
	_, err = s.RequestRetrieval(t.Context(), "a", coldstore.Range{}, coldstore.RetrievalOptions{})
	if err == nil || errors.Is(err, coldstore.ErrNotFound) || !strings.Contains(err.Error(), "the vault itself is not there") {
		t.Errorf("archive of a vault that is gone: %v", err)
	}
}

// Descriptions go through signed headers: what is in them arrives as it was, but for spaces around it.
func TestDescriptions(t *testing.T) {
	t.Parallel()
	s, _ := vault(t, newClock())
	for in, want := range map[string]string{
		"two  spaces   inside": "two  spaces   inside", "  around ": "around", " ": "", "a, b; c=\"d\" %41 ~": "a, b; c=\"d\" %41 ~",
	} {
		u, err := s.CreateUpload(t.Context(), coldstore.NewArchive{Description: in}, 1<<20)
		if err != nil || u.Description != want {
			t.Errorf("%q became %q, %v", in, u.Description, err)
		}
		if err := s.ListUploads(t.Context(), func(l coldstore.Upload) error {
			if l.ID == u.ID && l.Description != want {
				t.Errorf("%q is kept as %q", in, l.Description)
			}
			return nil
		}); err != nil {
			t.Error(err)
		}
	}
}

// Which job answers a request: any that covers it and will be readable for a while, the
// readable before the running, the newest of equals; never one that failed.
func TestJobsAreReused(t *testing.T) {
	t.Parallel()
	c := newClock()
	s, where := vault(t, c)
	ctx := t.Context()
	data := storetest.Bytes(4<<20+5, 1)
	a := storetest.Upload(t, s, coldstore.NewArchive{}, 1<<20, data)
	ask := func(s *glaciervault.Store, off, size int64, tier coldstore.Tier) coldstore.Retrieval {
		t.Helper()
		r, err := s.RequestRetrieval(ctx, a.ID, coldstore.Range{Offset: off, Size: size}, coldstore.RetrievalOptions{Tier: tier})
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	jobs := func() (n int) {
		t.Helper()
		if err := s.ListJobs(ctx, func(coldstore.Job) error { n++; return nil }); err != nil {
			t.Fatal(err)
		}
		return n
	}
	part := ask(s, 1<<20, 2<<20, coldstore.Bulk)
	if part.Tier != coldstore.Bulk || part.Range != (coldstore.Range{Offset: 1 << 20, Size: 2 << 20}) {
		t.Errorf("%+v", part)
	}
	if in := ask(s, 2<<20, 1<<20, ""); in.Token != part.Token {
		t.Error("a range within a running one was asked for anew")
	}
	c.Advance(time.Minute)
	out := ask(s, 0, 2<<20, coldstore.Expedited)
	if out.Token == part.Token {
		t.Error("a range that goes beyond was not asked for")
	}
	c.Advance(time.Minute)
	whole := ask(s, 0, 0, "")
	if whole.Token == out.Token || !whole.Range.IsWhole() || whole.Tier != coldstore.Standard {
		t.Errorf("%+v", whole)
	}
	if end := ask(s, 4<<20, 5, ""); end.Token != whole.Token {
		t.Error("the end was asked for anew")
	}
	again, err := glaciervault.OpenTest(ctx, where, glaciervault.Options{Now: c.Now}, nil)
	if err != nil {
		t.Fatal(err)
	}
	c.Advance(5 * time.Minute) // the expedited one is done
	if r := ask(again, 1<<20, 1<<20, ""); r.Token != out.Token || !r.Ready || !r.Expires.After(c.Now().Add(23*time.Hour)) {
		t.Errorf("of a ready and two running ones: %+v", r)
	}
	c.Advance(9 * time.Hour) // all are
	if r := ask(s, 1<<20, 1<<20, ""); r.Token != whole.Token || !r.Ready {
		t.Errorf("of three ready ones: %+v", r)
	}
	if n := jobs(); n != 3 {
		t.Errorf("%d jobs", n)
	}
	// The whole one was done four hours after it was asked for. With less than an hour left it does not serve any more.
	c.Advance(18*time.Hour + 30*time.Minute)
	last := ask(s, 0, 1<<20, "")
	if last.Token == whole.Token || last.Ready {
		t.Errorf("one that ends soon was taken: %+v", last)
	}
	if r, err := s.CheckRetrieval(ctx, whole.Token); err != nil || !r.Ready {
		t.Errorf("but it can still be read: %+v, %v", r, err)
	}
}

// between passes time, once, after the first answer that refuses a job.
type between struct{ pass func() }

func (b *between) RoundTrip(req *http.Request) (*http.Response, error) {
	res, err := http.DefaultTransport.RoundTrip(req)
	if err == nil && res.StatusCode == http.StatusNotFound && strings.HasSuffix(req.URL.Path, "/jobs") && b.pass != nil {
		b.pass()
		b.pass = nil
	}
	return res, err
}

// The first inventory is made after it was asked for in vain, and before it is looked whether there is one.
func TestFirstInventoryMeanwhile(t *testing.T) {
	t.Parallel()
	c := newClock()
	made, where := vault(t, c)
	storetest.Upload(t, made, coldstore.NewArchive{}, 1<<20, []byte("x"))
	tr := &between{pass: func() { c.Advance(24 * time.Hour) }}
	s, err := glaciervault.OpenTest(t.Context(), where, glaciervault.Options{Now: c.Now}, &http.Client{Transport: tr})
	if err != nil {
		t.Fatal(err)
	}
	_, err = s.List(t.Context(), func(coldstore.Archive) error { return nil })
	if tr.pass != nil || !errors.Is(err, coldstore.ErrNotReady) || !strings.Contains(err.Error(), "the inventory was asked for at") {
		t.Error(err)
	}
}

func TestInventories(t *testing.T) {
	t.Parallel()
	c := newClock()
	s, _ := vault(t, c)
	ctx := t.Context()
	list := func(maxAge time.Duration) (ids []string, asOf time.Time, err error) {
		asOf, err = s.ListWithin(ctx, maxAge, func(a coldstore.Archive) error { ids = append(ids, a.ID); return nil })
		return ids, asOf, err
	}
	finish := func() []string {
		t.Helper()
		for range 30 {
			ids, asOf, err := list(0)
			if err == nil {
				if age := c.Now().Sub(asOf); age < 0 || age > s.Traits().ListLag {
					t.Errorf("the list is %s old", age)
				}
				return ids
			}
			if !errors.Is(err, coldstore.ErrNotReady) {
				t.Fatal(err)
			}
			c.Advance(time.Hour)
		}
		t.Fatal("no inventory in 30 hours")
		return nil
	}
	jobs := func() (n int) {
		t.Helper()
		if err := s.ListJobs(ctx, func(j coldstore.Job) error {
			if j.Kind == coldstore.JobInventory {
				n++
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		return n
	}
	a := storetest.Upload(t, s, coldstore.NewArchive{Description: "first"}, 1<<20, []byte("x"))
	c.Advance(48 * time.Hour)
	if ids := finish(); len(ids) != 1 || ids[0] != a.ID {
		t.Errorf("listed: %v", ids)
	}
	n := jobs()
	b := storetest.Upload(t, s, coldstore.NewArchive{Description: "second"}, 1<<20, []byte("y"))
	c.Advance(19 * time.Hour)
	if ids := finish(); len(ids) != 1 || jobs() != n {
		t.Errorf("a finished job of 19 hours was not used: %v", ids)
	}
	if _, _, err := list(time.Hour); !errors.Is(err, coldstore.ErrNotReady) || jobs() != n+1 {
		t.Errorf("a younger list was wanted: %v", err)
	}
	if _, _, err := list(time.Hour); !errors.Is(err, coldstore.ErrNotReady) || jobs() != n+1 {
		t.Errorf("the running job was not used: %v", err)
	}
	c.Advance(48 * time.Hour)
	if ids := finish(); len(ids) != 2 || ids[0] != b.ID && ids[1] != b.ID {
		t.Errorf("listed later: %v", ids)
	}
	if v, err := s.DescribeVault(ctx); err != nil || v.Archives != 2 || v.Inventory.IsZero() {
		t.Errorf("%+v, %v", v, err)
	}
}

// More parts, uploads, jobs and vaults than fit on a page.
func TestPages(t *testing.T) {
	t.Parallel()
	c := newClock()
	s, where := vault(t, c)
	ctx := t.Context()
	u, err := s.CreateUpload(ctx, coldstore.NewArchive{}, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	data := storetest.Bytes(120<<20, 1)
	storetest.PutParts(t, s, u, data)
	if parts, err := s.ListParts(ctx, u.ID); err != nil || len(parts) != 120 || parts[119].Offset != 119<<20 {
		t.Errorf("%d parts, %v", len(parts), err)
	}
	a, err := s.CompleteUpload(ctx, u.ID, int64(len(data)), treehash.Sum(data))
	if err != nil {
		t.Fatal(err)
	}
	for i := range int64(60) {
		if _, err := s.CreateUpload(ctx, coldstore.NewArchive{}, 1<<20); err != nil {
			t.Fatal(err)
		}
		if _, err := s.RequestRetrieval(ctx, a.ID, coldstore.Range{Offset: i << 20, Size: 1 << 20}, coldstore.RetrievalOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	uploads, jobs := 0, 0
	err1 := s.ListUploads(ctx, func(coldstore.Upload) error { uploads++; return nil })
	err2 := s.ListJobs(ctx, func(j coldstore.Job) error {
		if j.Archive == a.ID && j.State == coldstore.JobRunning && j.Range.Size == 1<<20 && j.Size == a.Size {
			jobs++
		}
		return nil
	})
	if err1 != nil || err2 != nil || uploads != 60 || jobs != 60 {
		t.Errorf("%d uploads, %v; %d jobs, %v", uploads, err1, jobs, err2)
	}
	for i := range 12 {
		if _, err := glaciervault.CreateTest(ctx, strings.Replace(where, "/photos", "/v"+strconv.Itoa(i), 1), glaciervault.Options{}, nil); err != nil {
			t.Fatal(err)
		}
	}
	vaults := 0
	if err := s.ListVaults(ctx, func(coldstore.Vault) error { vaults++; return nil }); err != nil || vaults != 13 {
		t.Errorf("%d vaults, %v", vaults, err)
	}
}

// What package transfer does over a server that fails in every way: everything arrives, and nothing is there twice.
func TestTransferOverFaults(t *testing.T) {
	t.Parallel()
	c := newClock()
	where := vaultURL(serve(t, c, glacierserver.Delays{},
		"InitiateMultipartUpload:400:1:1", "UploadMultipartPart:500:1:2", "UploadMultipartPart:408:1:1", "UploadMultipartPart:drop:1:2", "UploadMultipartPart:lose:1:2",
		"UploadMultipartPart:400:1:2", "CompleteMultipartUpload:lose:1:2", "CompleteMultipartUpload:503:1:1", "InitiateJob:lose:1:1", "GetJobOutput:500:1:1", "GetJobOutput:drop:1:1"))
	s, err := glaciervault.CreateTest(t.Context(), where, glaciervault.Options{Now: c.Now}, nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, o := t.Context(), transfer.Options{PartSize: 1 << 20, Sleep: func(context.Context, time.Duration) error { return nil }, Retries: 10}
	data := storetest.Bytes(7<<20+99, 1)
	var pending transfer.Pending
	u := transfer.NewUpload(ctx, s, coldstore.NewArchive{Description: "d"}, o)
	if _, err := u.Write(data); err != nil {
		t.Fatal(err)
	}
	a, err := u.Complete(ctx, func(p transfer.Pending) error { pending = p; return nil })
	if err != nil || a.Size != int64(len(data)) || a.TreeHash != treehash.Sum(data) {
		t.Fatalf("%+v, %v", a, err)
	}
	// Another process that has only what was written down before finds the same archive.
	again, err := glaciervault.OpenTest(ctx, where, glaciervault.Options{Now: c.Now}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if settled, err := transfer.Settle(ctx, again, pending, o); err != nil || settled.ID != a.ID {
		t.Errorf("settled as %+v, %v", settled, err)
	}
	var r coldstore.Retrieval
	for try := 0; ; try++ {
		if r, err = s.RequestRetrieval(ctx, a.ID, coldstore.Range{}, coldstore.RetrievalOptions{}); err == nil {
			break
		}
		if try == 3 || !errors.Is(err, coldstore.ErrTemporary) {
			t.Fatal(err)
		}
	}
	rc := transfer.Stream(ctx, s, r, a.Size, a.TreeHash, o)
	defer rc.Close()
	if got, err := io.ReadAll(rc); err != nil || !bytes.Equal(got, data) {
		t.Errorf("%d bytes came back, %v", len(got), err)
	}
	jobs, archives := 0, 0
	if err := s.ListJobs(ctx, func(coldstore.Job) error { jobs++; return nil }); err != nil || jobs != 1 {
		t.Errorf("%d jobs, %v: one was begun twice", jobs, err)
	}
	c.Advance(48 * time.Hour)
	if _, err := s.List(ctx, func(coldstore.Archive) error { archives++; return nil }); err != nil || archives != 1 {
		t.Errorf("%d archives, %v", archives, err)
	}
}

package s3glacier_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/internal/coldstore/s3glacier"
	"github.com/firn-backup/firn/internal/coldstore/storetest"
	"github.com/firn-backup/firn/internal/transfer"
	"github.com/firn-backup/firn/test/s3proxy"
	"github.com/firn-backup/firn/treehash"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// motoWorld is a vault on moto, behind what moto lacks; params are of its URL: &class=GLACIER.
func motoWorld(t testing.TB, params string, o s3proxy.Options) *world {
	o.Classes = true
	return behind(t, moto, o, params)
}

func (w *world) store(t testing.TB) *s3glacier.Store { return w.open(t).(*s3glacier.Store) }

func (w *world) bucket() string { return strings.Split(w.url, "/")[2] }

// Where listings do not tell of restores, HEAD does, and nothing is asked for twice.
func TestSilentLists(t *testing.T) {
	t.Parallel()
	for name, silent := range map[string]bool{"silent": true, "telling": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := motoWorld(t, "&class=GLACIER", s3proxy.Options{NoRestoreStatus: silent})
			s := w.store(t)
			const n = 12
			var tokens []string
			for i := range n {
				put(t, s, fmt.Sprintf("set/%03d", i), []byte{byte(i)})
			}
			w.Proxy.Forget()
			for i := range n {
				r, err := s.RequestRetrieval(t.Context(), fmt.Sprintf("set/%03d", i), coldstore.Range{}, coldstore.RetrievalOptions{Tier: coldstore.Bulk, Days: 3})
				must(t, err)
				if r.Ready || r.Tier != coldstore.Bulk {
					t.Errorf("%+v", r)
				}
				tokens = append(tokens, r.Token)
			}
			// Another process, which has lost its journal, asks for the same.
			for i := range n {
				_, err := w.store(t).RequestRetrieval(t.Context(), fmt.Sprintf("set/%03d", i), coldstore.Range{}, coldstore.RetrievalOptions{})
				must(t, err)
			}
			if got := w.Proxy.Count("RestoreObject"); got != n {
				t.Errorf("%d requests for %d archives", got, n)
			}
			w.clock.advance(13 * time.Hour)
			w.Proxy.Forget()
			for _, tok := range tokens {
				r, err := s.CheckRetrieval(t.Context(), tok)
				if err != nil || !r.Ready || r.Expires.Sub(w.clock.time()) > 4*24*time.Hour || r.Expires.Hour() != 0 {
					t.Errorf("%+v, %v", r, err)
				}
			}
			heads, lists := w.Proxy.Count("HeadObject"), w.Proxy.Count("ListObjectsV2")
			if !silent && heads+lists > 3 || silent && heads != n {
				t.Errorf("looking after %d restores took %d HEADs and %d listings", n, heads, lists)
			}
		})
	}
}

func put(t testing.TB, s coldstore.WholeUploader, name string, data []byte) {
	t.Helper()
	_, err := s.PutWhole(t.Context(), coldstore.NewArchive{Name: name, Description: "of " + name}, data, treehash.Sum(data), nil)
	must(t, err)
}

// A retrieval that is running can be made faster, if that is said.
func TestFaster(t *testing.T) {
	t.Parallel()
	w := motoWorld(t, "&class=GLACIER", s3proxy.Options{})
	s := w.store(t)
	put(t, s, "a", []byte("x"))
	ask := func(o coldstore.RetrievalOptions) (coldstore.Retrieval, error) {
		return s.RequestRetrieval(t.Context(), "a", coldstore.Range{}, o)
	}
	_, err := ask(coldstore.RetrievalOptions{Tier: coldstore.Bulk, Days: 2})
	must(t, err)
	_, err = ask(coldstore.RetrievalOptions{Tier: coldstore.Expedited, Days: 2})
	must(t, err)
	if n := w.Proxy.Count("RestoreObject"); n != 1 {
		t.Errorf("%d requests without a word of haste", n)
	}
	r, err := ask(coldstore.RetrievalOptions{Tier: coldstore.Expedited, Days: 2, Faster: true})
	must(t, err)
	if r.Ready || r.Tier != coldstore.Expedited || w.Proxy.Count("RestoreObject") != 2 {
		t.Errorf("%+v after %d requests", r, w.Proxy.Count("RestoreObject"))
	}
	w.clock.advance(10 * time.Minute)
	if r, err = s.CheckRetrieval(t.Context(), r.Token); err != nil || !r.Ready {
		t.Errorf("ten minutes later: %+v, %v", r, err)
	}
}

// Manifests are read at once where data are not, and a small archive is one request.
func TestMetaAndWhole(t *testing.T) {
	t.Parallel()
	w := motoWorld(t, "", s3proxy.Options{})
	s := w.store(t)
	w.Proxy.Forget()
	for _, meta := range []bool{true, false} {
		a := coldstore.NewArchive{Name: fmt.Sprintf("set/%v", meta), Description: "d", Meta: meta}
		u := transfer.NewUpload(t.Context(), s, a, transfer.Options{})
		_, err := io.WriteString(u, "hello")
		must(t, err)
		_, err = u.Complete(t.Context(), nil)
		must(t, err)
		r, err := s.RequestRetrieval(t.Context(), a.Name, coldstore.Range{}, coldstore.RetrievalOptions{})
		if err != nil || r.Ready != meta {
			t.Errorf("meta %v: %+v, %v", meta, r, err)
		}
	}
	if w.Proxy.Count("PutObject") != 2 || w.Proxy.Count("CreateMultipartUpload") != 0 {
		t.Errorf("%v", w.Proxy.Calls())
	}
	// The same again is the same; other bytes are not.
	put(t, s, "set/again", []byte("one"))
	put(t, s, "set/again", []byte("one"))
	other := []byte("two")
	if _, err := s.PutWhole(t.Context(), coldstore.NewArchive{Name: "set/again"}, other, treehash.Sum(other), nil); !errors.Is(err, coldstore.ErrExists) {
		t.Errorf("over another: %v", err)
	}
}

// Whatever goes wrong with any request of an upload, there is the archive in the end, once and whole, or a clear error.
func TestFaults(t *testing.T) {
	t.Parallel()
	data := storetest.Bytes(9<<20, 1)
	for _, op := range []string{"CreateMultipartUpload", "UploadPart", "CompleteMultipartUpload", "PutObject"} {
		for _, f := range s3proxy.Faults() {
			t.Run(op+"/"+f.String(), func(t *testing.T) {
				w := motoWorld(t, "&class=STANDARD", s3proxy.Options{CompleteOnce: true})
				s := w.store(t)
				w.Proxy.SetPlan(s3proxy.Nth(op, 0, f))
				body := data
				if op == "PutObject" {
					body = data[:1<<20]
				}
				u := transfer.NewUpload(t.Context(), s, coldstore.NewArchive{Name: "set/a"}, transfer.Options{PartSize: 8 << 20, Sleep: noSleep})
				_, err := u.Write(body)
				must(t, err)
				a, err := u.Complete(t.Context(), nil)
				must(t, err)
				if a.ID != "set/a" || a.TreeHash != treehash.Sum(body) {
					t.Errorf("%+v", a)
				}
				list := 0
				_, err = s.List(t.Context(), func(a coldstore.Archive) error { list++; return nil })
				must(t, err)
				r, err := s.RequestRetrieval(t.Context(), "set/a", coldstore.Range{}, coldstore.RetrievalOptions{})
				must(t, err)
				got, err := io.ReadAll(transfer.Stream(t.Context(), s, r, a.Size, a.TreeHash, transfer.Options{Sleep: noSleep}))
				if err != nil || len(got) != len(body) || list != 1 {
					t.Errorf("%d bytes, %v; %d archives", len(got), err, list)
				}
			})
		}
	}
}

// The least that a machine needs that only backs up: it neither reads nor deletes.
const backupOnly = `{"Version":"2012-10-17","Statement":[
 {"Effect":"Allow","Action":["s3:ListBucket","s3:ListBucketMultipartUploads"],"Resource":"arn:aws:s3:::BUCKET"},
 {"Effect":"Allow","Action":["s3:PutObject","s3:AbortMultipartUpload","s3:ListMultipartUploadParts"],"Resource":"arn:aws:s3:::BUCKET/a/vault/*"}]}`

func TestBackupOnly(t *testing.T) {
	t.Parallel()
	w := motoWorld(t, "", s3proxy.Options{CompleteOnce: true})
	p, err := s3proxy.ParsePolicy(strings.ReplaceAll(backupOnly, "BUCKET", w.bucket()))
	must(t, err)
	w.Proxy.SetPolicy(p)
	s := w.store(t)
	data := storetest.Bytes(9<<20, 2)
	w.Proxy.SetPlan(s3proxy.Nth("CompleteMultipartUpload", 0, s3proxy.DropAfter))
	u := transfer.NewUpload(t.Context(), s, coldstore.NewArchive{Name: "set/a"}, transfer.Options{PartSize: 8 << 20, Sleep: noSleep})
	_, err = u.Write(data)
	must(t, err)
	_, err = u.Complete(t.Context(), nil)
	must(t, err)
	w.Proxy.SetPlan(nil)
	put(t, s, "set/b", data[:100])
	if _, err := transfer.Settle(t.Context(), s, transfer.Pending{Name: "set/b", Size: 100, TreeHash: treehash.Sum(data[:100])}, transfer.Options{}); err != nil {
		t.Errorf("settle: %v", err)
	}
	must(t, s.ListUploads(t.Context(), func(u coldstore.Upload) error { return s.AbortUpload(t.Context(), u.ID) }))
	err = s.Delete(t.Context(), "set/a")
	if err == nil || !strings.Contains(err.Error(), "may not do s3:DeleteObject") || errors.Is(err, coldstore.ErrNotFound) {
		t.Errorf("delete: %v", err)
	}
}

func noSleep(context.Context, time.Duration) error { return nil }

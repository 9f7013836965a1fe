package s3glacier_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/internal/coldstore/s3glacier"
	"github.com/firn-backup/firn/internal/coldstore/storetest"
	"github.com/firn-backup/firn/internal/transfer"
	"github.com/firn-backup/firn/test/s3proxy"
	"github.com/firn-backup/firn/test/s3server"
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
			w.clock.Advance(13 * time.Hour)
			w.Proxy.Forget()
			for _, tok := range tokens {
				r, err := s.CheckRetrieval(t.Context(), tok)
				if err != nil || !r.Ready || r.Expires.Sub(w.clock.Now()) > 4*24*time.Hour || r.Expires.Hour() != 0 {
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
	w.clock.Advance(10 * time.Minute)
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

// With the policy that is printed for it, a machine backs up, settles and gives up uploads, and neither reads nor deletes.
func TestBackupOnly(t *testing.T) {
	t.Parallel()
	w := motoWorld(t, "", s3proxy.Options{CompleteOnce: true})
	w.hold(t, "backup-only")
	s := w.store(t)
	if dangers, err := s.Dangers(t.Context()); err != nil || len(dangers) != 0 {
		t.Errorf("dangers that it may not look for: %v, %v", dangers, err)
	}
	data := storetest.Bytes(9<<20, 2)
	w.Proxy.SetPlan(s3proxy.Nth("CompleteMultipartUpload", 0, s3proxy.DropAfter))
	u := transfer.NewUpload(t.Context(), s, coldstore.NewArchive{Name: "set/a"}, transfer.Options{PartSize: 8 << 20, Sleep: noSleep})
	_, err := u.Write(data)
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

// hold holds clients to a policy that the vault prints.
func (w *world) hold(t testing.TB, names ...string) {
	t.Helper()
	in, err := w.store(t).Inspect(t.Context())
	must(t, err)
	var statements []json.RawMessage
	for _, d := range in.Policies {
		if slices.Contains(names, d.Name) {
			var doc struct{ Statement []json.RawMessage }
			must(t, json.Unmarshal([]byte(d.Text), &doc))
			statements = append(statements, doc.Statement...)
		}
	}
	text, err := json.Marshal(map[string]any{"Version": "2012-10-17", "Statement": statements})
	must(t, err)
	p, err := s3proxy.ParsePolicy(string(text))
	must(t, err)
	w.Proxy.SetPolicy(p)
}

// With that for restores, a machine finds, restores and reads, and stores nothing; with that for deletion it deletes.
func TestRestoreAndDeletePolicies(t *testing.T) {
	t.Parallel()
	w := motoWorld(t, "", s3proxy.Options{})
	put(t, w.store(t), "set/a", []byte("hello"))
	w.hold(t, "restore")
	s := w.store(t)
	r, err := s.RequestRetrieval(t.Context(), "set/a", coldstore.Range{}, coldstore.RetrievalOptions{})
	must(t, err)
	w.clock.Advance(13 * time.Hour)
	r, err = s.CheckRetrieval(t.Context(), r.Token)
	must(t, err)
	rc, err := s.OpenRetrieved(t.Context(), r, 1, 3)
	must(t, err)
	if got, err := io.ReadAll(rc); err != nil || string(got) != "ell" {
		t.Errorf("%q, %v", got, err)
	}
	_, err = s.PutWhole(t.Context(), coldstore.NewArchive{Name: "b"}, []byte("x"), treehash.Sum([]byte("x")), nil)
	if err == nil || !strings.Contains(err.Error(), "may not do s3:PutObject on arn:aws:s3:::"+w.bucket()+"/a/vault/*") {
		t.Errorf("store: %v", err)
	}
	w.Proxy.SetPolicy(nil)
	w.hold(t, "delete")
	must(t, w.store(t).Delete(t.Context(), "set/a"))
}

// In a bucket with versions an archive is deleted with all of them, or it is said that it is not.
func TestVersions(t *testing.T) {
	t.Parallel()
	w := motoWorld(t, "", s3proxy.Options{})
	c := w.server.Client("")
	bucket := w.bucket()
	_, err := c.PutBucketVersioning(t.Context(), &s3.PutBucketVersioningInput{Bucket: &bucket, VersioningConfiguration: &types.VersioningConfiguration{Status: types.BucketVersioningStatusEnabled}})
	must(t, err)
	s := w.store(t)
	versions := func() int {
		out, err := c.ListObjectVersions(t.Context(), &s3.ListObjectVersionsInput{Bucket: &bucket})
		must(t, err)
		return len(out.Versions) + len(out.DeleteMarkers)
	}
	put(t, s, "set/a", []byte("one"))
	must(t, s.Delete(t.Context(), "set/a"))
	if n := versions(); n != 0 {
		t.Errorf("%d versions are left", n)
	}
	put(t, s, "set/a", []byte("two")) // the name is free again
	p, err := s3proxy.ParsePolicy(`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["s3:ListBucket","s3:DeleteObject"],"Resource":"*"}]}`)
	must(t, err)
	w.Proxy.SetPolicy(p)
	if err := s.Delete(t.Context(), "set/a"); !errors.Is(err, coldstore.ErrUnsupported) || !strings.Contains(err.Error(), "s3:DeleteObjectVersion") {
		t.Errorf("where only markers may be made: %v", err)
	}
	if err := s.Delete(t.Context(), "set/a"); !errors.Is(err, coldstore.ErrUnsupported) {
		t.Errorf("again, when it is hidden: %v", err)
	}
	w.Proxy.SetPolicy(nil)
	must(t, s.Delete(t.Context(), "set/a")) // it can be deleted, although no listing has it
	if n := versions(); n != 0 {
		t.Errorf("%d versions are left of what was hidden", n)
	}
	if err := s.Delete(t.Context(), "set/a"); !errors.Is(err, coldstore.ErrNotFound) {
		t.Errorf("what is gone: %v", err)
	}
}

// A bucket may come to keep versions after archives were stored: those are deleted too, and not merely hidden.
func TestVersionsSince(t *testing.T) {
	t.Parallel()
	for name, w := range map[string]*world{
		"moto":    motoWorld(t, "", s3proxy.Options{}),
		"versity": behind(t, versity, s3proxy.Options{}, "&class=STANDARD"),
	} {
		c, bucket, s := w.server.Client(""), w.bucket(), w.store(t)
		put(t, s, "set/a", []byte("one"))
		_, err := c.PutBucketVersioning(t.Context(), &s3.PutBucketVersioningInput{Bucket: &bucket, VersioningConfiguration: &types.VersioningConfiguration{Status: types.BucketVersioningStatusEnabled}})
		must(t, err)
		must(t, s.Delete(t.Context(), "set/a"))
		out, err := c.ListObjectVersions(t.Context(), &s3.ListObjectVersionsInput{Bucket: &bucket})
		must(t, err)
		if n := len(out.Versions) + len(out.DeleteMarkers); n != 0 {
			t.Errorf("%s: %d versions and markers are left", name, n)
		}
	}
}

// What is locked is kept, and it is said why.
func TestLock(t *testing.T) {
	t.Parallel()
	w := motoWorld(t, "", s3proxy.Options{})
	c := w.server.Client("")
	bucket := w.bucket() + "-lock"
	_, err := c.CreateBucket(t.Context(), &s3.CreateBucketInput{Bucket: &bucket, ObjectLockEnabledForBucket: aws.Bool(true)})
	must(t, err)
	unlocked := w.url + "&lock=COMPLIANCE&lock-days=30"
	w.url = strings.Replace(unlocked, w.bucket(), bucket, 1)
	s := w.store(t)
	put(t, s, "set/a", []byte("one"))
	key := "a/vault/set/a"
	h, err := c.HeadObject(t.Context(), &s3.HeadObjectInput{Bucket: &bucket, Key: &key})
	must(t, err)
	if h.ObjectLockMode != types.ObjectLockModeCompliance || h.ObjectLockRetainUntilDate.Sub(w.clock.Now()) < 29*24*time.Hour {
		t.Errorf("%v until %v", h.ObjectLockMode, h.ObjectLockRetainUntilDate)
	}
	if h.Metadata["firn-description"] != "of set/a" || h.Metadata["firn-tree-hash"] != treehash.Sum([]byte("one")).String() || h.StorageClass != "DEEP_ARCHIVE" {
		t.Errorf("%v, %v", h.Metadata, h.StorageClass)
	}
	if err := s.Delete(t.Context(), "set/a"); err == nil || !strings.Contains(err.Error(), "locked") {
		t.Errorf("delete: %v", err)
	}
	locked := (*coldstore.LockedError)(nil)
	if err := s.Delete(t.Context(), "set/a"); !errors.As(err, &locked) || !locked.Until.Equal(*h.ObjectLockRetainUntilDate) {
		t.Errorf("delete: %v", err)
	}
	longer := s.Retaining(coldstore.Retention{Days: 40})
	put(t, longer.(*s3glacier.Store), "set/b", []byte("two"))
	key = "a/vault/set/b"
	h, err = c.HeadObject(t.Context(), &s3.HeadObjectInput{Bucket: &bucket, Key: &key})
	must(t, err)
	if h.ObjectLockMode != types.ObjectLockModeGovernance || h.ObjectLockRetainUntilDate.Sub(w.clock.Now()) < 39*24*time.Hour {
		t.Errorf("%v until %v", h.ObjectLockMode, h.ObjectLockRetainUntilDate)
	}
	if a, b := s.Traits().LockDays, longer.Traits().LockDays; a != 30 || b != 40 {
		t.Errorf("%d, %d", a, b)
	}
	w.url = unlocked
	_, err = w.store(t).PutWhole(t.Context(), coldstore.NewArchive{Name: "c"}, []byte("x"), treehash.Sum([]byte("x")), nil)
	if err == nil || !strings.Contains(err.Error(), "has no Object Lock") {
		t.Errorf("where there are no locks: %v", err)
	}
	in, err := w.store(t).Inspect(t.Context())
	must(t, err)
	if len(in.Dangers) != 1 || !strings.Contains(in.Dangers[0], "no Object Lock") {
		t.Errorf("%v", in.Dangers)
	}
}

// Lifecycle rules that delete are found, those of others' objects are not.
func TestDangers(t *testing.T) {
	t.Parallel()
	w := motoWorld(t, "", s3proxy.Options{})
	c := w.server.Client("")
	bucket := w.bucket()
	days := func(n int32) *types.LifecycleExpiration { return &types.LifecycleExpiration{Days: &n} }
	rule := func(id, prefix string, on bool) types.LifecycleRule {
		status := types.ExpirationStatusDisabled
		if on {
			status = types.ExpirationStatusEnabled
		}
		return types.LifecycleRule{ID: &id, Status: status, Filter: &types.LifecycleRuleFilter{Prefix: &prefix}, Expiration: days(10)}
	}
	tagged := rule("tagged", "", true)
	tagged.Filter = &types.LifecycleRuleFilter{Tag: &types.Tag{Key: aws.String("a"), Value: aws.String("b")}}
	_, err := c.PutBucketLifecycleConfiguration(t.Context(), &s3.PutBucketLifecycleConfigurationInput{Bucket: &bucket, LifecycleConfiguration: &types.BucketLifecycleConfiguration{
		Rules: []types.LifecycleRule{rule("all", "", true), rule("part", "a/vault/docs", true), rule("above", "a/", true), rule("off", "", false), rule("other", "a/vaults", true), tagged},
	}})
	must(t, err)
	got, err := w.store(t).Dangers(t.Context())
	must(t, err)
	text := strings.Join(got, "\n")
	for _, name := range []string{"all", "part", "above"} {
		if !strings.Contains(text, "rule "+name+" of bucket") {
			t.Errorf("%s is not found: %s", name, text)
		}
	}
	if len(got) != 3 {
		t.Errorf("%s", text)
	}
}

// Errors say in one line what to do.
func TestErrors(t *testing.T) {
	t.Parallel()
	w := motoWorld(t, "", s3proxy.Options{Region: s3server.Region})
	at := func(old, now string) string { return strings.Replace(w.url, old, now, 1) }
	for what, c := range map[string]struct {
		url, want string
		kind      error
	}{
		"wrong region": {at("region=us-east-1", "region=eu-west-1"), "is in region us-east-1 and not in eu-west-1: write region=us-east-1", nil},
		"no bucket":    {at(w.bucket(), "nobody-has-this"), "there is no bucket nobody-has-this", coldstore.ErrNotFound},
		"no server":    {"s3://bucket/x?endpoint=http%3A%2F%2F127.0.0.1%3A1", "no answer", coldstore.ErrTemporary},
	} {
		_, err := s3glacier.OpenTest(t.Context(), c.url, s3glacier.Options{}, w.server.AccessKey, w.server.SecretKey)
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") || c.kind != nil && !errors.Is(err, c.kind) {
			t.Errorf("%s: %v", what, err)
		}
		if c.kind == nil && errors.Is(err, coldstore.ErrNotFound) {
			t.Errorf("%s: taken for a vault that is not there", what)
		}
	}
	// A region that nobody names is found out.
	s, err := s3glacier.OpenTest(t.Context(), at("region=us-east-1&", ""), s3glacier.Options{}, w.server.AccessKey, w.server.SecretKey)
	if err != nil || s.Region() != "us-east-1" {
		t.Errorf("%v", err)
	}
	// Signatures that another server looks at.
	v := behind(t, versity, s3proxy.Options{}, "&class=STANDARD")
	_, err = s3glacier.OpenTest(t.Context(), v.url, s3glacier.Options{}, v.server.AccessKey, "wrong")
	if err == nil || !strings.Contains(err.Error(), "the secret access key is wrong") || strings.Contains(err.Error(), "wrong\"") {
		t.Errorf("wrong secret: %v", err)
	}
	_, err = s3glacier.OpenTest(t.Context(), v.url, s3glacier.Options{}, "unknown", "wrong")
	if err == nil || !strings.Contains(err.Error(), "access key is not known") {
		t.Errorf("wrong key: %v", err)
	}
}

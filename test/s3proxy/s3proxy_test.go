package s3proxy_test

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc64"
	"io"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/smithy-go"

	"github.com/firn-backup/firn/internal/mustrun"
	"github.com/firn-backup/firn/test/s3proxy"
	"github.com/firn-backup/firn/test/s3server"
)

var moto, stopMoto = s3server.MotoOnce()

func TestMain(m *testing.M) {
	code := m.Run()
	stopMoto()
	os.Exit(code)
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// code is an S3 error's code, or the status where there is no body.
func code(err error) string {
	if e := smithy.APIError(nil); errors.As(err, &e) {
		return e.ErrorCode()
	}
	if err != nil {
		return "no answer"
	}
	return ""
}

func status(err error) int {
	if e := (*awshttp.ResponseError)(nil); errors.As(err, &e) {
		return e.HTTPStatusCode()
	}
	return 0
}

// world is a bucket of moto behind a proxy.
type world struct {
	*s3.Client
	t      *testing.T
	p      *s3proxy.Proxy
	url    string
	bucket string
}

var start = time.Date(2026, 10, 15, 10, 30, 0, 0, time.UTC)

func newWorld(t *testing.T, o s3proxy.Options) *world {
	t.Helper()
	m, err := moto()
	if errors.Is(err, s3server.ErrMissing) {
		mustrun.Skip(t, err.Error())
	}
	must(t, err)
	w := &world{t: t}
	w.bucket, err = m.Bucket(t.Context())
	must(t, err)
	o.Upstream, o.Classes = m.URL, true
	if o.Now == nil {
		o.Now = func() time.Time { return start }
	}
	w.p = s3proxy.New(o)
	h := httptest.NewServer(w.p)
	t.Cleanup(h.Close)
	w.url = h.URL
	w.Client = w.client("us-east-1", "")
	return w
}

// client does not try again: a test sees each answer.
func (w *world) client(region, token string) *s3.Client {
	return s3.New(s3.Options{
		BaseEndpoint: aws.String(w.url), Region: region, UsePathStyle: true, Retryer: aws.NopRetryer{},
		Credentials: credentials.NewStaticCredentialsProvider("AKIAIOSFODNN7EXAMPLE", "x", token),
	})
}

func (w *world) put(key, class, data string) error {
	_, err := w.PutObject(w.t.Context(), &s3.PutObjectInput{Bucket: &w.bucket, Key: &key, Body: strings.NewReader(data),
		StorageClass: types.StorageClass(class), IfNoneMatch: aws.String("*")})
	return err
}

func (w *world) get(key string) (string, error) {
	o, err := w.GetObject(w.t.Context(), &s3.GetObjectInput{Bucket: &w.bucket, Key: &key})
	if err != nil {
		return "", err
	}
	defer o.Body.Close()
	b, err := io.ReadAll(o.Body)
	return string(b), err
}

// restore asks for a copy, and returns the status.
func (w *world) restore(key, tier string, days int32) (int, string) {
	_, err := w.RestoreObject(w.t.Context(), &s3.RestoreObjectInput{Bucket: &w.bucket, Key: &key, RestoreRequest: &types.RestoreRequest{
		Days: &days, GlacierJobParameters: &types.GlacierJobParameters{Tier: types.Tier(tier)}}})
	calls := w.p.Calls()
	return calls[len(calls)-1].Status, code(err)
}

func (w *world) head(key string) string {
	o, err := w.HeadObject(w.t.Context(), &s3.HeadObjectInput{Bucket: &w.bucket, Key: &key})
	must(w.t, err)
	return aws.ToString(o.Restore)
}

func (w *world) listed(key string) *types.RestoreStatus {
	w.t.Helper()
	l, err := w.ListObjectsV2(w.t.Context(), &s3.ListObjectsV2Input{Bucket: &w.bucket, OptionalObjectAttributes: []types.OptionalObjectAttributes{types.OptionalObjectAttributesRestoreStatus}})
	must(w.t, err)
	for _, o := range l.Contents {
		if *o.Key == key {
			return o.RestoreStatus
		}
	}
	w.t.Fatalf("%s is not listed", key)
	return nil
}

// An archived object's life, as the API reference and the guide tell it.
func TestRestore(t *testing.T) {
	t.Parallel()
	w := newWorld(t, s3proxy.Options{})
	must(t, w.put("a&b/ü", "DEEP_ARCHIVE", "cold"))
	const key = "a&b/ü"
	if s := w.listed(key); s != nil || w.head(key) != "" {
		t.Errorf("before: %v, %q", s, w.head(key))
	}
	if _, err := w.get(key); code(err) != "InvalidObjectState" || status(err) != 403 {
		t.Errorf("GET before: %v", err)
	}
	if n, c := w.restore(key, "Bulk", 3); n != 202 || c != "" {
		t.Errorf("restore: %d %s", n, c)
	}
	if s := w.listed(key); w.head(key) != `ongoing-request="true"` || s == nil || !aws.ToBool(s.IsRestoreInProgress) || s.RestoreExpiryDate != nil {
		t.Errorf("while it goes on: %q, %v", w.head(key), s)
	}
	if _, err := w.get(key); code(err) != "InvalidObjectState" {
		t.Errorf("GET while it goes on: %v", err)
	}
	for _, c := range []struct {
		tier string
		days int32
		n    int
		code string
	}{
		{"Bulk", 3, 409, "RestoreAlreadyInProgress"},
		{"Standard", 4, 409, "RestoreAlreadyInProgress"}, // other days
		{"Standard", 3, 202, ""},                         // an upgrade
		{"Bulk", 3, 409, "RestoreAlreadyInProgress"},     // no way back
		{"Expedited", 3, 400, "InvalidArgument"},         // not of this class
	} {
		if n, got := w.restore(key, c.tier, c.days); n != c.n || got != c.code {
			t.Errorf("restore %s %d while it goes on: %d %s", c.tier, c.days, n, got)
		}
	}
	w.p.Advance(12*time.Hour - time.Second)
	if got := w.head(key); got != `ongoing-request="true"` {
		t.Errorf("a second before: %q", got)
	}
	w.p.Advance(time.Second)
	// The guide's example: 15 October 10:30 and three days is 19 October 00:00.
	if s := w.listed(key); w.head(key) != `ongoing-request="false", expiry-date="Mon, 19 Oct 2026 00:00:00 GMT"` || s == nil ||
		aws.ToBool(s.IsRestoreInProgress) || !s.RestoreExpiryDate.Equal(time.Date(2026, 10, 19, 0, 0, 0, 0, time.UTC)) {
		t.Errorf("ready: %q, %v", w.head(key), s)
	}
	if got, err := w.get(key); got != "cold" || err != nil {
		t.Errorf("GET: %q, %v", got, err)
	}
	if n, c := w.restore(key, "Bulk", 1); n != 200 || c != "" { // counts from now: 15 October 22:30
		t.Errorf("restore of what is there: %d %s", n, c)
	}
	if got := w.head(key); !strings.Contains(got, "Sat, 17 Oct 2026 00:00:00 GMT") {
		t.Errorf("with one day: %q", got)
	}
	w.p.Advance(26 * time.Hour)
	if s := w.listed(key); w.head(key) != "" || s != nil {
		t.Errorf("expired: %q, %v", w.head(key), s)
	}
	if _, err := w.get(key); code(err) != "InvalidObjectState" {
		t.Errorf("GET of what expired: %v", err)
	}
	if n, c := w.restore(key, "Standard", 1); n != 202 || c != "" {
		t.Errorf("restore of what expired: %d %s", n, c)
	}
}

func TestRestoreRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t, s3proxy.Options{})
	for _, class := range []string{"STANDARD", "GLACIER_IR", "GLACIER", "DEEP_ARCHIVE", "STANDARD_IA"} {
		must(t, w.put(class, class, class))
	}
	for _, c := range []struct {
		key, tier string
		days      int32
		n         int
		code      string
	}{
		{"STANDARD", "Standard", 1, 403, "InvalidObjectState"},
		{"STANDARD_IA", "Standard", 1, 403, "InvalidObjectState"},
		{"GLACIER_IR", "Standard", 1, 403, "InvalidObjectState"},
		{"GLACIER", "Standard", 0, 400, "InvalidArgument"},
		{"GLACIER", "Fast", 1, 400, "MalformedXML"},
		{"GLACIER", "Expedited", 1, 202, ""},
		{"nothere", "Standard", 1, 404, "NoSuchKey"},
	} {
		if n, got := w.restore(c.key, c.tier, c.days); n != c.n || got != c.code {
			t.Errorf("restore %s %s %d: %d %s", c.key, c.tier, c.days, n, got)
		}
	}
	if err := w.put("bad", "FRIDGE", ""); code(err) != "InvalidStorageClass" {
		t.Errorf("class: %v", err)
	}
	if got, err := w.get("GLACIER_IR"); got != "GLACIER_IR" || err != nil {
		t.Errorf("GLACIER_IR reads at once: %q, %v", got, err)
	}
	copy := &s3.CopyObjectInput{Bucket: &w.bucket, Key: aws.String("copy"), CopySource: aws.String(w.bucket + "/DEEP_ARCHIVE")}
	if _, err := w.CopyObject(t.Context(), copy); code(err) != "ObjectNotInActiveTierError" {
		t.Errorf("copy: %v", err)
	}
	// What is written anew is not restored, and no listing tells of restores where nobody asked.
	w.p.Advance(5 * time.Minute)
	if got, err := w.get("GLACIER"); got != "GLACIER" || err != nil {
		t.Error(got, err)
	}
	_, err := w.DeleteObject(t.Context(), &s3.DeleteObjectInput{Bucket: &w.bucket, Key: aws.String("GLACIER")})
	must(t, err)
	must(t, w.put("GLACIER", "GLACIER", "new"))
	if _, err := w.get("GLACIER"); code(err) != "InvalidObjectState" {
		t.Errorf("GET of a new object: %v", err)
	}
}

func sum(b []byte) *string {
	c := crc64.Checksum(b, crc64.MakeTable(0x9a6c9329ac4bc9b5))
	return aws.String(base64.StdEncoding.EncodeToString(binary.BigEndian.AppendUint64(nil, c)))
}

// CRC64NVME of parts and of the whole, sizes, conditions: what does not fit is refused.
func TestUpload(t *testing.T) {
	t.Parallel()
	if got := *sum([]byte("123456789")); got != "rosUhgp5mIg=" { // the check value of the catalogue of CRCs: ae8b14860a799888
		t.Fatalf("CRC64NVME: %s", got)
	}
	w := newWorld(t, s3proxy.Options{})
	a, b := bytes.Repeat([]byte("a"), 5<<20), bytes.Repeat([]byte("b"), 70_001)
	key := aws.String("whole")
	u, err := w.CreateMultipartUpload(t.Context(), &s3.CreateMultipartUploadInput{Bucket: &w.bucket, Key: key, StorageClass: types.StorageClassDeepArchive,
		ChecksumAlgorithm: types.ChecksumAlgorithmCrc64nvme, ChecksumType: types.ChecksumTypeFullObject})
	must(t, err)
	put := func(n int32, body []byte, crc *string) (*string, error) {
		o, err := w.UploadPart(t.Context(), &s3.UploadPartInput{Bucket: &w.bucket, Key: key, UploadId: u.UploadId, PartNumber: &n,
			Body: bytes.NewReader(body), ChecksumCRC64NVME: crc})
		if err != nil {
			return nil, err
		}
		if aws.ToString(o.ChecksumCRC64NVME) != *sum(body) {
			t.Errorf("the answer's checksum: %v", o.ChecksumCRC64NVME)
		}
		return o.ETag, nil
	}
	if _, err := put(1, a, sum(b)); code(err) != "BadDigest" {
		t.Errorf("a part with another's checksum: %v", err)
	}
	e1, err := put(1, a, sum(a))
	must(t, err)
	e2, err := put(2, b, sum(b))
	must(t, err)
	ps, err := w.ListParts(t.Context(), &s3.ListPartsInput{Bucket: &w.bucket, Key: key, UploadId: u.UploadId})
	must(t, err)
	if len(ps.Parts) != 2 || aws.ToString(ps.Parts[1].ChecksumCRC64NVME) != *sum(b) || !ps.Parts[0].LastModified.Equal(start) {
		t.Errorf("parts: %+v", ps.Parts)
	}
	us, err := w.ListMultipartUploads(t.Context(), &s3.ListMultipartUploadsInput{Bucket: &w.bucket})
	must(t, err)
	if len(us.Uploads) != 1 || !us.Uploads[0].Initiated.Equal(start) {
		t.Errorf("uploads: %+v", us.Uploads)
	}
	complete := func(crc *string, size int64) (*s3.CompleteMultipartUploadOutput, error) {
		return w.CompleteMultipartUpload(t.Context(), &s3.CompleteMultipartUploadInput{Bucket: &w.bucket, Key: key, UploadId: u.UploadId,
			IfNoneMatch: aws.String("*"), ChecksumCRC64NVME: crc, ChecksumType: types.ChecksumTypeFullObject, MpuObjectSize: &size,
			MultipartUpload: &types.CompletedMultipartUpload{Parts: []types.CompletedPart{
				{PartNumber: aws.Int32(1), ETag: e1, ChecksumCRC64NVME: sum(a)}, {PartNumber: aws.Int32(2), ETag: e2, ChecksumCRC64NVME: sum(b)}}}})
	}
	all := append(bytes.Clone(a), b...)
	if _, err := complete(sum(a), int64(len(all))); code(err) != "BadDigest" {
		t.Errorf("another checksum: %v", err)
	}
	if _, err := complete(sum(all), 1); code(err) != "InvalidRequest" {
		t.Errorf("another size: %v", err)
	}
	c, err := complete(sum(all), int64(len(all)))
	must(t, err)
	if aws.ToString(c.ChecksumCRC64NVME) != *sum(all) || c.ChecksumType != types.ChecksumTypeFullObject {
		t.Errorf("completed: %+v", c)
	}
	h, err := w.HeadObject(t.Context(), &s3.HeadObjectInput{Bucket: &w.bucket, Key: key, ChecksumMode: types.ChecksumModeEnabled})
	must(t, err)
	if aws.ToString(h.ChecksumCRC64NVME) != *sum(all) || !h.LastModified.Equal(start) {
		t.Errorf("HEAD: %+v", h)
	}
	if err := w.put("whole", "", "again"); code(err) != "PreconditionFailed" {
		t.Errorf("If-None-Match: %v", err)
	}
	_, err = w.CreateMultipartUpload(t.Context(), &s3.CreateMultipartUploadInput{Bucket: &w.bucket, Key: key,
		ChecksumAlgorithm: types.ChecksumAlgorithmSha256, ChecksumType: types.ChecksumTypeFullObject})
	if code(err) != "InvalidRequest" {
		t.Errorf("SHA-256 of a whole multipart object: %v", err)
	}
}

// Each fault, and what the server has done after it.
func TestFaults(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		f      s3proxy.Fault
		code   string
		status int
		done   bool
	}{
		{s3proxy.None, "", 0, true},
		{s3proxy.DropBefore, "no answer", 0, false},
		{s3proxy.DropAfter, "no answer", 0, true},
		{s3proxy.HalfAsked, "no answer", 0, false},
		{s3proxy.Internal, "InternalError", 500, false},
		{s3proxy.InternalDone, "InternalError", 500, true},
		{s3proxy.SlowDown, "SlowDown", 503, false},
		{s3proxy.Late, "", 0, true},
	} {
		t.Run(c.f.String(), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, s3proxy.Options{Late: time.Millisecond})
			w.p.SetPlan(s3proxy.Nth("PutObject", 1, c.f))
			must(t, w.put("first", "", "data"))
			err := w.put("key", "", "data")
			if got := code(err); got != c.code && !strings.Contains(fmt.Sprint(err), "EOF") || c.status != 0 && status(err) != c.status {
				t.Errorf("%v", err)
			}
			w.p.SetPlan(nil)
			_, err = w.get("key")
			if done := err == nil; done != c.done {
				t.Errorf("done: %t", done)
			}
			if n := w.p.Count("PutObject"); n != 2 {
				t.Errorf("%d calls counted", n)
			}
		})
	}
	w := newWorld(t, s3proxy.Options{Plan: s3proxy.Nth("GetObject", 0, s3proxy.HalfAnswer)})
	must(t, w.put("key", "", "0123456789"))
	if got, err := w.get("key"); err == nil || got != "01234" {
		t.Errorf("half an answer: %q, %v", got, err)
	}
}

// The same seed makes the same faults, about as many as told.
func TestRandom(t *testing.T) {
	t.Parallel()
	a, b := s3proxy.Random(7, 0.3, nil, "GetObject"), s3proxy.Random(7, 0.3, nil, "GetObject")
	faults := map[s3proxy.Fault]int{}
	for range 3000 {
		f := a(s3proxy.Call{Operation: "GetObject"})
		if f != b(s3proxy.Call{Operation: "GetObject"}) {
			t.Fatal("not the same")
		}
		faults[f]++
		if a(s3proxy.Call{Operation: "PutObject"}) != s3proxy.None {
			t.Fatal("another operation")
		}
	}
	if n := faults[s3proxy.None]; n < 1900 || n > 2300 || len(faults) != 1+len(s3proxy.Faults()) {
		t.Errorf("%v", faults)
	}
}

// A policy holds; regions and tokens are looked at.
func TestRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t, s3proxy.Options{Region: "us-east-1"})
	must(t, w.put("data/old", "", "old"))
	policy, err := s3proxy.ParsePolicy(strings.ReplaceAll(`{"Version": "2012-10-17", "Statement": [
		{"Sid": "a", "Effect": "Allow", "Action": ["s3:PutObject", "s3:AbortMultipartUpload"], "Resource": "arn:aws:s3:::BUCKET/*"},
		{"Effect": "Allow", "Action": "s3:Get*", "Resource": "arn:aws:s3:::BUCKET/meta/*"},
		{"Effect": "Allow", "Action": "s3:ListBucket", "Resource": "arn:aws:s3:::BUCKET", "Condition": {"StringLike": {"s3:prefix": "data/*"}}},
		{"Effect": "Deny", "Action": "s3:PutObject", "Resource": "arn:aws:s3:::BUCKET/data/no*"}]}`, "BUCKET", w.bucket))
	must(t, err)
	w.p.SetPolicy(policy)
	list := func(prefix string) error {
		_, err := w.ListObjectsV2(t.Context(), &s3.ListObjectsV2Input{Bucket: &w.bucket, Prefix: &prefix})
		return err
	}
	get := func(key string) error { _, err := w.get(key); return err }
	_, headErr := w.HeadObject(t.Context(), &s3.HeadObjectInput{Bucket: &w.bucket, Key: aws.String("data/old")})
	_, deleteErr := w.DeleteObject(t.Context(), &s3.DeleteObjectInput{Bucket: &w.bucket, Key: aws.String("data/old")})
	_, tagErr := w.PutObject(t.Context(), &s3.PutObjectInput{Bucket: &w.bucket, Key: aws.String("data/tagged"), Tagging: aws.String("a=b")})
	for what, c := range map[string]struct {
		err     error
		allowed bool
	}{
		"put": {w.put("data/a/b", "", "x"), true}, "put denied": {w.put("data/no/b", "", "x"), false}, "put meta": {w.put("meta/b", "", "x"), true},
		"get": {get("data/old"), false}, "get meta": {get("meta/b"), true}, "head": {headErr, false}, "delete": {deleteErr, false},
		"list": {list("data/a"), true}, "list all": {list(""), false}, "tag": {tagErr, false},
	} {
		if c.allowed && c.err != nil || !c.allowed && status(c.err) != 403 {
			t.Errorf("%s: %v", what, c.err)
		}
	}
	w.p.SetPolicy(nil)
	for region, token := range map[string]string{"eu-west-1": "", "us-east-1": "EXPIRED"} {
		_, err := w.client(region, token).ListObjectsV2(t.Context(), &s3.ListObjectsV2Input{Bucket: &w.bucket})
		if got := code(err); got != "PermanentRedirect" && got != "ExpiredToken" {
			t.Errorf("%s %s: %v", region, token, err)
		}
	}
	for _, bad := range []string{`{}`, `{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*", "Condition": {"IpAddress": {}}}]}`,
		`{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "NotAction": "s3:*", "Resource": "*"}]}`} {
		if _, err := s3proxy.ParsePolicy(bad); err == nil {
			t.Errorf("understood: %s", bad)
		}
	}
}

// Signatures verify through the proxy.
func TestSignatures(t *testing.T) {
	t.Parallel()
	s, err := s3server.Versity(t.Context(), t.TempDir()+"/root")
	if errors.Is(err, s3server.ErrMissing) {
		mustrun.Skip(t, err.Error())
	}
	must(t, err)
	t.Cleanup(s.Stop)
	b, err := s.Bucket(t.Context())
	must(t, err)
	h := httptest.NewServer(s3proxy.New(s3proxy.Options{Upstream: s.URL}))
	t.Cleanup(h.Close)
	c := s.Client(h.URL)
	body := bytes.Repeat([]byte("x"), 3<<20) // with Expect: 100-continue
	_, err = c.PutObject(t.Context(), &s3.PutObjectInput{Bucket: &b, Key: aws.String("a b/ü+%"), Body: bytes.NewReader(body)})
	must(t, err)
	o, err := c.GetObject(t.Context(), &s3.GetObjectInput{Bucket: &b, Key: aws.String("a b/ü+%")})
	must(t, err)
	defer o.Body.Close()
	if got, err := io.ReadAll(o.Body); err != nil || !bytes.Equal(got, body) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}

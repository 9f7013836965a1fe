package glaciervault

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/glacier"
	"github.com/aws/smithy-go/middleware"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/test/loopback"
	"github.com/firn-backup/firn/treehash"
)

// fake answers every request by one function and counts them. Opening a vault is answered well.
func fake(t testing.TB, answer http.HandlerFunc) (*Store, *atomic.Int64) {
	t.Helper()
	var calls atomic.Int64
	opened := false
	h := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !opened {
			opened = true
			fmt.Fprint(w, `{"VaultName":"v","CreationDate":"2020-01-01T00:00:00.000Z"}`)
			return
		}
		calls.Add(1)
		answer(w, r)
	}))
	t.Cleanup(h.Close)
	s, err := OpenTest(t.Context(), "glacier://eu-west-1/v?endpoint="+url.QueryEscape(h.URL), Options{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return s, &calls
}

// say answers with an error of the service.
func say(status int, code, message string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("x-amzn-RequestId", "REQ1")
		w.WriteHeader(status)
		_ = json.NewEncoder(w).Encode(map[string]string{"code": code, "message": message, "type": "Client"})
	}
}

func TestErrors(t *testing.T) {
	t.Parallel()
	signed := "The request signature we calculated does not match. The Canonical String should have been 'x-amz-security-token:" + testToken + "'"
	for name, c := range map[string]struct {
		answer http.HandlerFunc
		kind   error    // nil: none of the contract's
		says   []string // of the error's text
		calls  int64    // 0: 1
	}{
		"throttled":     {say(400, "ThrottlingException", "Rate exceeded"), coldstore.ErrThrottled, []string{"Rate exceeded", "REQ1"}, 0},
		"limit":         {say(400, "RequestLimitExceeded", "slow"), coldstore.ErrThrottled, nil, 0},
		"429":           {say(429, "SomethingNew", "x"), coldstore.ErrThrottled, nil, 0},
		"500":           {say(500, "ServiceUnavailableException", "fault"), coldstore.ErrTemporary, []string{"fault"}, 0},
		"503":           {say(503, "WhoKnows", "x"), coldstore.ErrTemporary, nil, 0},
		"408":           {say(408, "RequestTimeoutException", "Request timed out."), coldstore.ErrTemporary, nil, 0},
		"proxy 502":     {html(502), coldstore.ErrTemporary, []string{"status 502"}, 0},
		"proxy 404":     {html(404), nil, []string{"status 404"}, 0},
		"capacity":      {say(503, "InsufficientCapacityException", "no"), nil, []string{"Expedited", "Standard"}, 0},
		"policy":        {say(400, "PolicyEnforcedException", "no"), nil, []string{"data retrieval policy", "Bulk"}, 0},
		"new account":   {say(400, "NoLongerSupportedException", "no"), coldstore.ErrUnsupported, []string{"closed to new customers", "s3://"}, 0},
		"expired":       {say(403, "ExpiredTokenException", "The security token "+testToken), nil, []string{"expired", "aws sso login"}, 0},
		"unknown key":   {say(400, "UnrecognizedClientException", "x"), nil, []string{"access key", "AWS_PROFILE"}, 0},
		"signature":     {say(403, "InvalidSignatureException", signed), nil, []string{"secret access key is wrong", "clock"}, 0},
		"denied":        {say(403, "AccessDeniedException", "User: arn:aws:iam::1:user/u is not authorized to perform: glacier:ListParts"), nil, []string{"not authorized"}, 0},
		"limit of many": {say(400, "LimitExceededException", "too many vaults"), nil, []string{"too many vaults"}, 0},
		"gone":          {say(404, "ResourceNotFoundException", "The upload ID was not found: u"), nil, []string{"the vault itself"}, 2},
		"long":          {say(400, "Odd", strings.Repeat("x", 9999)), nil, []string{"…"}, 0},
		"lines":         {say(400, "Odd", "a\nb\x1b[31m"), nil, []string{"a b"}, 0},
		"hung up":       {hangUp, coldstore.ErrTemporary, []string{"no answer"}, 0},
		"cut short":     {cutShort, coldstore.ErrTemporary, nil, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, calls := fake(t, c.answer)
			_, err := s.ListParts(t.Context(), "upload-1")
			if err == nil {
				t.Fatal("no error")
			}
			for _, k := range []error{
				coldstore.ErrNotFound, coldstore.ErrExists, coldstore.ErrNotReady, coldstore.ErrExpired, coldstore.ErrThrottled,
				coldstore.ErrTemporary, coldstore.ErrIntegrity, coldstore.ErrInDoubt, coldstore.ErrUnsupported, coldstore.ErrInvalid,
			} {
				if errors.Is(err, k) != (k == c.kind) {
					t.Errorf("%v: is %v: %t", err, k, errors.Is(err, k))
				}
			}
			text := err.Error()
			for _, part := range append(c.says, "list parts of upload upload-1: ") {
				if !strings.Contains(text, part) {
					t.Errorf("%q does not say %q", text, part)
				}
			}
			if strings.Contains(text, testSecret) || strings.Contains(text, testToken) || strings.ContainsAny(text, "\n\x1b") || len(text) > 600 {
				t.Errorf("it says too much: %q", text)
			}
			// Questions over a connection that was found closed net/http asks again itself.
			if n := calls.Load(); n != max(c.calls, 1) && !(name == "hung up" && n == 2) {
				t.Errorf("%d requests were sent", n)
			}
		})
	}
}

func html(status int) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		w.WriteHeader(status)
		fmt.Fprint(w, "<html>no</html>")
	}
}

func hangUp(w http.ResponseWriter, _ *http.Request) {
	c, _, _ := w.(http.Hijacker).Hijack()
	_ = c.Close()
}

func cutShort(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Length", "1000")
	fmt.Fprint(w, `{"Parts":[`)
}

// Nothing is sent twice, whatever operation fails: package transfer retries.
func TestNoRetries(t *testing.T) {
	t.Parallel()
	for name, answer := range map[string]http.HandlerFunc{
		"500": say(500, "ServiceUnavailableException", "x"), "throttled": say(400, "ThrottlingException", "x"), "hung up": hangUp,
		"limit": say(400, "LimitExceededException", "x"),
	} {
		s, calls := fake(t, answer)
		ctx, data := t.Context(), []byte("x")
		for what, f := range map[string]func() error{
			"CreateUpload": func() error { _, err := s.CreateUpload(ctx, coldstore.NewArchive{}, mib); return err },
			"PutPart":      func() error { return s.PutPart(ctx, "u", 0, data, treehash.Sum(data)) },
			"ListParts":    func() error { _, err := s.ListParts(ctx, "u"); return err },
			"AbortUpload":  func() error { return s.AbortUpload(ctx, "u") },
			"Delete":       func() error { return s.Delete(ctx, "a") },
			"List":         func() error { _, err := s.List(ctx, nil); return err },
			"Request": func() error {
				_, err := s.RequestRetrieval(ctx, "a", coldstore.Range{}, coldstore.RetrievalOptions{})
				return err
			},
			"Check": func() error { _, err := s.CheckRetrieval(ctx, "j.0.0.1.a"); return err },
			"Open": func() error {
				_, err := s.OpenRetrieved(ctx, coldstore.Retrieval{Token: "j.0.0.1.a"}, 0, 1)
				return err
			},
			"BuyCapacity": func() error { _, err := s.BuyCapacity(ctx); return err },
			"Lock":        func() error { _, err := s.BeginVaultLock(ctx, "{}"); return err },
		} {
			before := calls.Load()
			if err := f(); err == nil {
				t.Errorf("%s, %s: no error", name, what)
			}
			// Questions over a connection that was found closed net/http asks again itself; never what changes or costs anything.
			question := strings.Contains("ListParts List Request Check Open", what)
			if n := calls.Load() - before; n != 1 && !(name == "hung up" && question && n == 2) {
				t.Errorf("%s, %s: %d requests", name, what, n)
			}
		}
	}
}

// A completion whose answer does not come may have happened; one that was refused, or never arrived, has not.
func TestCompletionInDoubt(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		answer http.HandlerFunc
		doubt  bool
	}{
		"hung up": {hangUp, true}, "500": {say(500, "ServiceUnavailableException", "x"), true}, "502": {html(502), true},
		"408": {say(408, "RequestTimeoutException", "x"), true}, "throttled": {say(400, "ThrottlingException", "x"), false},
		"denied": {say(403, "AccessDeniedException", "x"), false}, "gone": {say(404, "ResourceNotFoundException", "x"), false},
		"no id": {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(201) }, true},
	} {
		s, _ := fake(t, c.answer)
		s.uploads.Put("u", coldstore.Upload{ID: "u", PartSize: mib})
		_, err := s.CompleteUpload(t.Context(), "u", 1, treehash.Sum([]byte("x")))
		if err == nil || errors.Is(err, coldstore.ErrInDoubt) != c.doubt {
			t.Errorf("%s: %v", name, err)
		}
	}
	s, _ := fake(t, hangUp)
	s.uploads.Put("u", coldstore.Upload{ID: "u", PartSize: mib})
	nobody, err := newStore(t.Context(), "glacier://eu-west-1/v?endpoint=http://"+loopback.Nobody(), Options{}, static(nil))
	if err != nil {
		t.Fatal(err)
	}
	nobody.uploads.Put("u", coldstore.Upload{ID: "u", PartSize: mib})
	_, err = nobody.CompleteUpload(t.Context(), "u", 1, treehash.Sum([]byte("x")))
	if errors.Is(err, coldstore.ErrInDoubt) || !errors.Is(err, coldstore.ErrTemporary) || !strings.Contains(err.Error(), "refused") {
		t.Errorf("nobody listens: %v", err)
	}
	// Given up in the middle: both are to be seen.
	ctx, cancel := context.WithCancel(t.Context())
	s, _ = fake(t, func(_ http.ResponseWriter, r *http.Request) { cancel(); <-r.Context().Done() })
	s.uploads.Put("u", coldstore.Upload{ID: "u", PartSize: mib})
	_, err = s.CompleteUpload(ctx, "u", 1, treehash.Sum([]byte("x")))
	if !errors.Is(err, context.Canceled) || !errors.Is(err, coldstore.ErrInDoubt) {
		t.Errorf("canceled: %v", err)
	}
}

// A part is read once more than it is sent: for its SHA-256, by this package. The SDK does not read it for a hash, and
// sends both hashes.
func TestOnePass(t *testing.T) {
	t.Parallel()
	data := []byte(strings.Repeat("firn", 3*mib/4))
	linear, tree := sha256.Sum256(data), treehash.Sum(data)
	var read atomic.Int64
	var got http.Header
	var length int64
	s, calls := fake(t, func(w http.ResponseWriter, r *http.Request) {
		sum := sha256.New()
		n, _ := io.Copy(sum, r.Body)
		got, length = r.Header.Clone(), r.ContentLength
		if n != int64(len(data)) || [32]byte(sum.Sum(nil)) != linear {
			t.Errorf("%d bytes arrived", n)
		}
		w.Header().Set("x-amz-sha256-tree-hash", tree.String())
		w.WriteHeader(http.StatusNoContent)
	})
	// In place of the body, one that counts what the SDK and the connection read of it.
	counted, err := newStore(t.Context(), "glacier://eu-west-1/v?endpoint="+url.QueryEscape(*s.c.Options().BaseEndpoint), Options{}, countReads(&read))
	if err != nil {
		t.Fatal(err)
	}
	if err := counted.PutPart(t.Context(), "u", 0, data, tree); err != nil {
		t.Fatal(err)
	}
	if n := read.Load(); n != int64(len(data)) {
		t.Errorf("%d bytes of the body were read, of %d: the SDK makes a pass of its own", n, len(data))
	}
	if calls.Load() != 1 || got.Get("x-amz-content-sha256") != fmt.Sprintf("%x", linear) || got.Get("x-amz-sha256-tree-hash") != tree.String() ||
		got.Get("Content-Range") != fmt.Sprintf("bytes 0-%d/*", len(data)-1) || length != int64(len(data)) || !strings.Contains(got.Get("Authorization"), "x-amz-content-sha256") {
		t.Errorf("sent %v, length %d", got, length)
	}
}

type countedBody struct {
	io.ReadSeeker
	read *atomic.Int64
}

func (c countedBody) Read(p []byte) (int, error) {
	n, err := c.ReadSeeker.Read(p)
	c.read.Add(int64(n))
	return n, err
}

func countReads(read *atomic.Int64) *testSeam {
	seam := static(nil)
	seam.client = func(o *glacier.Options) {
		o.APIOptions = append(o.APIOptions, func(stack *middleware.Stack) error {
			return stack.Build.Add(middleware.BuildMiddlewareFunc("count", func(ctx context.Context, in middleware.BuildInput, next middleware.BuildHandler) (
				middleware.BuildOutput, middleware.Metadata, error,
			) {
				req := in.Request.(*smithyhttp.Request)
				body, ok := req.GetStream().(io.ReadSeeker)
				if !ok {
					return middleware.BuildOutput{}, middleware.Metadata{}, errors.New("the body cannot be sought in")
				}
				req, err := req.SetStream(countedBody{body, read})
				if err != nil {
					return middleware.BuildOutput{}, middleware.Metadata{}, err
				}
				in.Request = req
				return next.HandleBuild(ctx, in)
			}), middleware.After)
		})
	}
	return seam
}

// Only what was wrong is called so.
func TestAnswersAreCompared(t *testing.T) {
	t.Parallel()
	data := []byte("some data")
	other := treehash.Sum([]byte("other")).String()
	s, _ := fake(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("x-amz-sha256-tree-hash", other)
		w.Header().Set("x-amz-archive-id", "A1")
		if r.Method == http.MethodPut {
			w.WriteHeader(http.StatusNoContent)
		} else {
			w.WriteHeader(http.StatusCreated)
		}
	})
	if err := s.PutPart(t.Context(), "u", 0, data, treehash.Sum(data)); !errors.Is(err, coldstore.ErrIntegrity) {
		t.Errorf("PutPart: %v", err)
	}
	s.uploads.Put("u", coldstore.Upload{ID: "u", PartSize: mib})
	if _, err := s.CompleteUpload(t.Context(), "u", 9, treehash.Sum(data)); !errors.Is(err, coldstore.ErrIntegrity) {
		t.Errorf("CompleteUpload: %v", err)
	}
}

// Damage on the way is worth another attempt; the wrong key is not.
func TestPayloadMismatch(t *testing.T) {
	t.Parallel()
	s, _ := fake(t, say(403, "InvalidSignatureException", "The value passed in as x-amz-content-sha256 does not match the computed payload hash."))
	if err := s.PutPart(t.Context(), "u", 0, []byte("x"), treehash.Sum([]byte("x"))); !errors.Is(err, coldstore.ErrTemporary) {
		t.Error(err)
	}
}

func TestReading(t *testing.T) {
	t.Parallel()
	data := []byte(strings.Repeat("x", 3*mib))
	retrieval := coldstore.Retrieval{Token: token{"j", coldstore.Range{Offset: mib, Size: 3 * mib}, 9 * mib, "a"}.String(), Archive: "a"}
	answer := func(status int, span string, body []byte, hash string, length int) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			if span != "" {
				w.Header().Set("Content-Range", span)
			}
			if hash != "" {
				w.Header().Set("x-amz-sha256-tree-hash", hash)
			}
			w.Header().Set("Content-Length", fmt.Sprint(length))
			w.WriteHeader(status)
			_, _ = w.Write(body)
		}
	}
	right, wrong := treehash.Sum(data).String(), treehash.Sum(data[1:]).String()
	for name, c := range map[string]struct {
		off, size int64
		answer    http.HandlerFunc
		open, end error
	}{
		"all":           {mib, 3 * mib, answer(200, "", data, right, len(data)), nil, nil},
		"no hash told":  {mib, 3 * mib, answer(200, "", data, "", len(data)), nil, nil},
		"wrong hash":    {mib, 3 * mib, answer(200, "", data, wrong, len(data)), nil, coldstore.ErrIntegrity},
		"broke off":     {mib, 3 * mib, answer(200, "", data[:2*mib], right, len(data)), nil, io.ErrUnexpectedEOF},
		"too short":     {mib, 3 * mib, answer(200, "", data[:2*mib], right, 2*mib), nil, io.ErrUnexpectedEOF},
		"a range":       {2 * mib, mib, answer(206, "bytes 1048576-2097151/3145728", data[:mib], "", mib), nil, nil},
		"another range": {2 * mib, mib, answer(206, "bytes 0-1048575/3145728", data[:mib], "", mib), errAny, nil},
		"not a range":   {2 * mib, mib, answer(200, "", data, "", len(data)), errAny, nil},
		"gone":          {mib, mib, say(404, "ResourceNotFoundException", "The job ID was not found: j"), errAny, nil},
	} {
		s, _ := fake(t, c.answer)
		rc, err := s.OpenRetrieved(t.Context(), retrieval, c.off, c.size)
		if (err != nil) != (c.open != nil) {
			t.Errorf("%s: %v", name, err)
		}
		if err != nil {
			continue
		}
		got, err := io.ReadAll(rc)
		if c.end == nil && (err != nil || int64(len(got)) != c.size) || c.end != nil && !errors.Is(err, c.end) {
			t.Errorf("%s: %d bytes, %v", name, len(got), err)
		}
		_ = rc.Close()
	}
}

var errAny = errors.New("any")

func TestCredentials(t *testing.T) {
	t.Setenv("AWS_ACCESS_KEY_ID", "")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "")
	t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
	t.Setenv("AWS_CONFIG_FILE", t.TempDir()+"/none")
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", t.TempDir()+"/none")
	_, err := Open(t.Context(), "glacier://eu-west-1/v?endpoint=http://127.0.0.1:1", Options{})
	if err == nil || !strings.Contains(err.Error(), "there are no AWS credentials: set AWS_ACCESS_KEY_ID") || strings.Contains(err.Error(), "\n") {
		t.Errorf("no credentials: %v", err)
	}
	_, err = Open(t.Context(), "glacier://eu-west-1/v?profile=nobody&endpoint=http://127.0.0.1:1", Options{})
	if err == nil || !strings.Contains(err.Error(), "nobody") {
		t.Errorf("no such profile: %v", err)
	}
	// The SDK's own way to another endpoint.
	var seen string
	h := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen = r.URL.Path + " " + r.Header.Get("Authorization") + " " + r.Header.Get("X-Amz-Security-Token")
		fmt.Fprint(w, `{"VaultName":"v"}`)
	}))
	defer h.Close()
	t.Setenv("AWS_ENDPOINT_URL_GLACIER", h.URL)
	t.Setenv("AWS_ACCESS_KEY_ID", testKey)
	t.Setenv("AWS_SECRET_ACCESS_KEY", testSecret)
	t.Setenv("AWS_SESSION_TOKEN", testToken)
	if _, err := Open(t.Context(), "glacier://eu-west-1/v?account=123456789012", Options{}); err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(seen, "/123456789012/vaults/v AWS4-HMAC-SHA256 Credential="+testKey) || !strings.Contains(seen, "/eu-west-1/glacier/") || !strings.HasSuffix(seen, testToken) {
		t.Errorf("asked %s", seen)
	}
	// A profile, by the environment and by the URL.
	file := filepath.Join(t.TempDir(), "credentials")
	if err := os.WriteFile(file, []byte("[one]\naws_access_key_id = AKIDONE\naws_secret_access_key = s\n[two]\naws_access_key_id = AKIDTWO\naws_secret_access_key = s\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", file)
	for _, v := range []string{"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"} {
		t.Setenv(v, "")
	}
	t.Setenv("AWS_PROFILE", "one")
	for url, want := range map[string]string{"glacier://eu-west-1/v": "AKIDONE", "glacier://eu-west-1/v?profile=two": "AKIDTWO"} {
		if _, err := Open(t.Context(), url, Options{}); err != nil || !strings.Contains(seen, "Credential="+want+"/") {
			t.Errorf("%s: asked %s, %v", url, seen, err)
		}
	}
}

// TestHTTPS: without an endpoint of one's own, requests go to the service of the region, whatever region that is, by TLS.
func TestHTTPS(t *testing.T) {
	t.Parallel()
	var seen []string
	client := &http.Client{Transport: tripper(func(r *http.Request) (*http.Response, error) {
		seen = append(seen, r.URL.Scheme+"://"+r.URL.Host)
		return nil, errors.New("no network here")
	})}
	for _, region := range []string{"eu-west-1", "mars-north-7"} {
		if _, err := OpenTest(t.Context(), "glacier://"+region+"/v", Options{}, client); err == nil {
			t.Error("there is a network")
		}
	}
	if want := []string{"https://glacier.eu-west-1.amazonaws.com", "https://glacier.mars-north-7.amazonaws.com"}; !slices.Equal(seen, want) {
		t.Errorf("asked %q, want %q", seen, want)
	}
}

type tripper func(*http.Request) (*http.Response, error)

func (f tripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

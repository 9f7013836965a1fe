package conformance

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"

	"github.com/firn-backup/firn/internal/glacierserver"
	"github.com/firn-backup/firn/treehash"
)

// What well-behaved clients do not do is tried with plain HTTP, signed by the SDK's signer.

type raw struct {
	method, path, body string
	header             map[string]string
	payload            string // SHA-256 that is signed; "" is the body's
	unsigned           bool
	chunked            bool
}

type answer struct {
	status  int
	header  http.Header
	body    string
	code    string
	message string
}

func (s *served) do(t testing.TB, r raw) answer {
	t.Helper()
	var body io.Reader = strings.NewReader(r.body)
	if r.chunked {
		body = struct{ io.Reader }{body}
	}
	req, err := http.NewRequestWithContext(t.Context(), r.method, s.url+r.path, body)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X-Amz-Glacier-Version", "2012-06-01")
	for k, v := range r.header {
		if v == "" {
			req.Header.Del(k)
			continue
		}
		req.Header.Set(k, v)
	}
	if !r.unsigned {
		payload := r.payload
		if payload == "" {
			payload = sha(r.body)
		}
		err := v4.NewSigner().SignHTTP(t.Context(), aws.Credentials{AccessKeyID: accessKey, SecretAccessKey: secretKey}, req, payload, "glacier", "us-east-1", time.Now())
		if err != nil {
			t.Fatal(err)
		}
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text := must[[]byte](t)(io.ReadAll(resp.Body))
	return answered(t, resp, text)
}

func answered(t testing.TB, resp *http.Response, text []byte) answer {
	t.Helper()
	a := answer{status: resp.StatusCode, header: resp.Header, body: string(text)}
	if resp.StatusCode < 400 {
		return a
	}
	var e map[string]string
	if err := json.Unmarshal(text, &e); err != nil || len(e) != 3 {
		t.Fatalf("status %d with body %q", resp.StatusCode, text)
	}
	side := "Client"
	if resp.StatusCode >= 500 {
		side = "Server"
	}
	if e["type"] != side || resp.Header.Get("Content-Type") != "application/json" || resp.Header.Get("X-Amzn-Requestid") == "" || resp.Header.Get("X-Amzn-Errortype") != "" || resp.Header.Get("Date") == "" {
		t.Errorf("status %d with type %q and header %v", resp.StatusCode, e["type"], resp.Header)
	}
	a.code, a.message = e["code"], e["message"]
	return a
}

func sha(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:])
}

func data(s string) map[string]string {
	return map[string]string{"X-Amz-Content-Sha256": sha(s), "X-Amz-Sha256-Tree-Hash": treehash.Sum([]byte(s)).String()}
}

func with(m map[string]string, k, v string) map[string]string {
	m[k] = v
	return m
}

func (a answer) want(t testing.TB, status int, code string) {
	t.Helper()
	if a.status != status || a.code != code {
		t.Errorf("%d %s %q, want %d %s", a.status, a.code, a.message, status, code)
	}
}

// [1]-[5] [7] [8] [10] [18] [19]
func TestRaw(t *testing.T) {
	t.Parallel()
	s := serve(t, nil)
	s.do(t, raw{method: "PUT", path: "/-/vaults/v"}).want(t, 201, "")
	const archives = "/-/vaults/v/archives"
	invalid, missing := "InvalidParameterValueException", "MissingParameterValueException"
	for name, c := range map[string]struct {
		raw
		status int
		code   string
	}{
		"no authorization":   {raw{method: "GET", path: "/-/vaults", unsigned: true}, 400, "MissingAuthenticationTokenException"},
		"half authorization": {raw{method: "GET", path: "/-/vaults", unsigned: true, header: map[string]string{"Authorization": "AWS4-HMAC-SHA256 Credential=x"}}, 400, "IncompleteSignatureException"},
		"no version":         {raw{method: "GET", path: "/-/vaults", header: map[string]string{"X-Amz-Glacier-Version": ""}}, 400, missing},
		"other version":      {raw{method: "GET", path: "/-/vaults", header: map[string]string{"X-Amz-Glacier-Version": "2011-01-01"}}, 400, invalid},
		"other JSON body":    {raw{method: "POST", path: "/-/vaults/v/jobs", body: "{}", payload: sha("[]")}, 403, "InvalidSignatureException"},
		"bad JSON":           {raw{method: "POST", path: "/-/vaults/v/jobs", body: "{"}, 400, "SerializationException"},
		"long JSON":          {raw{method: "POST", path: "/-/vaults/v/jobs", body: strings.Repeat(" ", 2<<20)}, 400, "BadRequest"},
		"unknown path":       {raw{method: "GET", path: "/index.html"}, 400, "BadRequest"},
		"unknown method":     {raw{method: "PATCH", path: "/-/vaults/v"}, 400, "BadRequest"},
		"root":               {raw{method: "GET", path: "/"}, 400, "BadRequest"},
		"tags, no operation": {raw{method: "POST", path: "/-/vaults/v/tags", body: "{}"}, 400, "BadRequest"},
		"empty name":         {raw{method: "PUT", path: "/-/vaults/"}, 400, invalid},
		"dot dot":            {raw{method: "PUT", path: "/-/vaults/%2e%2e"}, 400, invalid},
		"slash":              {raw{method: "PUT", path: "/-/vaults/a%2Fb"}, 400, invalid},
		"two names":          {raw{method: "PUT", path: "/-/vaults/a/b"}, 400, "BadRequest"},
		"state's name":       {raw{method: "PUT", path: "/-/vaults/~server"}, 400, invalid},
		"account":            {raw{method: "GET", path: "/12/vaults"}, 400, invalid},
		"other account":      {raw{method: "GET", path: "/999999999999/vaults"}, 403, "AccessDeniedException"},
		"body altered":       {raw{method: "POST", path: archives, body: "abd", payload: sha("abc"), header: data("abc")}, 403, "InvalidSignatureException"},
		"sha altered":        {raw{method: "POST", path: archives, body: "abd", payload: sha("abc"), header: data("abd")}, 403, "InvalidSignatureException"},
		"no tree hash":       {raw{method: "POST", path: archives, body: "abc", header: with(data("abc"), "X-Amz-Sha256-Tree-Hash", "")}, 400, missing},
		"no sha":             {raw{method: "POST", path: archives, body: "abc", header: with(data("abc"), "X-Amz-Content-Sha256", "")}, 400, missing},
		"bad tree hash":      {raw{method: "POST", path: archives, body: "abc", header: with(data("abc"), "X-Amz-Sha256-Tree-Hash", "abc")}, 400, invalid},
		"other tree hash":    {raw{method: "POST", path: archives, body: "abc", header: with(data("abc"), "X-Amz-Sha256-Tree-Hash", sha("x"))}, 400, invalid},
		"chunked":            {raw{method: "POST", path: archives, body: "abc", header: data("abc"), chunked: true}, 400, missing},
		"empty":              {raw{method: "POST", path: archives, header: data("")}, 400, invalid},
		"description":        {raw{method: "POST", path: archives, body: "abc", header: with(data("abc"), "X-Amz-Archive-Description", "é")}, 400, invalid},
		"no part size":       {raw{method: "POST", path: "/-/vaults/v/multipart-uploads"}, 400, missing},
	} {
		t.Run(name, func(t *testing.T) {
			a := s.do(t, c.raw)
			a.want(t, c.status, c.code)
			if name == "body altered" && a.message != "The value passed in as x-amz-content-sha256 does not match the computed payload hash. Computed digest: "+sha("abd")+" expected hash: "+sha("abc") {
				t.Errorf("message %q", a.message)
			}
		})
	}
	// Nothing of the above has become an archive.
	if left := must[[]os.DirEntry](t)(os.ReadDir(filepath.Join(s.root, "v", "archives"))); len(left) != 0 {
		t.Errorf("%d archives", len(left))
	}
}

// Clients say their content's type in many ways, wrap what need not be wrapped, and know members
// that the server does not [7].
func TestRawLenient(t *testing.T) {
	t.Parallel()
	s := serve(t, nil)
	s.do(t, raw{method: "PUT", path: "/" + account + "/vaults/v", header: map[string]string{"Content-Type": "text/plain", "X-Amz-Date": ""}}).want(t, 201, "")
	up := s.do(t, raw{method: "POST", path: "/-/vaults/v/archives", body: "abc", header: with(data("abc"), "Content-Type", "application/x-www-form-urlencoded")})
	up.want(t, 201, "")
	id := up.header.Get("X-Amz-Archive-Id")
	for _, body := range []string{
		`{"Type":"archive-retrieval","ArchiveId":"` + id + `"}`,
		`{"Type":"archive-retrieval","ArchiveId":"` + id + `","Tier":null,"Format":null,"InventoryRetrievalParameters":null,"Unknown":{"a":[1]}}`,
		`{"jobParameters":{"Type":"archive-retrieval","ArchiveId":"` + id + `","RetrievalByteRange":"0-2"}}`,
		"{\n \"Type\": \"archive-retrieval\",\n \"ArchiveId\": \"" + id + "\", \"SNSTopic\": null, \"Description\": \"\"}\n",
	} {
		for _, kind := range []string{"", "application/x-www-form-urlencoded; charset=utf-8", "application/json", "x"} {
			s.do(t, raw{method: "POST", path: "/-/vaults/v/jobs", body: body, header: map[string]string{"Content-Type": kind}}).want(t, 202, "")
		}
	}
	policy := `{\"Statement\":[]}`
	for body, code := range map[string]string{
		`{"Policy":"` + policy + `"}`:            "InvalidParameterValueException", // no statement
		`{"policy":{"Policy":"` + policy + `"}}`: "InvalidParameterValueException",
		`{}`:                                     "MissingParameterValueException",
		`{"Policy":{"Statement":[]}}`:            "MissingParameterValueException",
		`{"Policy":5}`:                           "SerializationException",
	} {
		s.do(t, raw{method: "PUT", path: "/-/vaults/v/access-policy", body: body}).want(t, 400, code)
	}
	s.do(t, raw{method: "PUT", path: "/-/vaults/v/notification-configuration", body: `{"vaultNotificationConfig":{"SNSTopic":"x","Events":["ArchiveRetrievalCompleted"]}}`}).want(t, 204, "")
}

// A length that is too great is refused before the body comes, and a body that stands still is given up [19] [22].
func TestRawBodies(t *testing.T) {
	t.Parallel()
	s := serve(t, func(o *glacierserver.Options) { o.Keys, o.BodyTimeout = nil, time.Second })
	send := func(method, path, length, body string, header map[string]string) answer {
		conn, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		var b strings.Builder
		fmt.Fprintf(&b, "%s %s HTTP/1.1\r\nHost: x\r\nAuthorization: anything\r\nx-amz-glacier-version: 2012-06-01\r\nContent-Length: %s\r\n", method, path, length)
		for k, v := range header {
			fmt.Fprintf(&b, "%s: %s\r\n", k, v)
		}
		if _, err := io.WriteString(conn, b.String()+"\r\n"+body); err != nil {
			t.Fatal(err)
		}
		resp := must[*http.Response](t)(http.ReadResponse(bufio.NewReader(conn), nil))
		defer resp.Body.Close()
		return answered(t, resp, must[[]byte](t)(io.ReadAll(resp.Body)))
	}
	send("PUT", "/-/vaults/v", "0", "", nil).want(t, 201, "")
	a := send("POST", "/-/vaults/v/archives", "38505164800", "", data("x"))
	if a.want(t, 400, "InvalidParameterValueException"); a.message != "Invalid Content-Length: 38505164800" {
		t.Errorf("message %q", a.message)
	}
	a = send("POST", "/-/vaults/v/archives", "1000", "a few", data("x"))
	if a.want(t, 408, "RequestTimeoutException"); a.message != "Request timed out." {
		t.Errorf("message %q", a.message)
	}
	send("POST", "/-/vaults/v/jobs", "1000", "{", nil).want(t, 408, "RequestTimeoutException")
	up := send("POST", "/-/vaults/v/multipart-uploads", "0", "", map[string]string{"x-amz-part-size": "1048576"})
	path := "/-/vaults/v/multipart-uploads/" + up.header.Get("X-Amz-Multipart-Upload-Id")
	// One part stands still; another client sends the same part meanwhile, and completes.
	ended := make(chan answer)
	go func() {
		ended <- send("PUT", path, "1000", "slow", with(data("x"), "Content-Range", "bytes 0-999/*"))
	}()
	send("PUT", path, "3", "abc", with(data("abc"), "Content-Range", "bytes 0-2/*")).want(t, 204, "")
	send("POST", path, "0", "", with(with(data("abc"), "X-Amz-Content-Sha256", sha("")), "x-amz-archive-size", "3")).want(t, 201, "")
	if a := <-ended; a.status < 400 {
		t.Errorf("the slow part: %+v", a)
	}
	stored := must[[]os.DirEntry](t)(os.ReadDir(filepath.Join(s.root, "v", "archives")))
	if len(stored) != 1 {
		t.Fatalf("%d archives", len(stored))
	}
	if got := must[[]byte](t)(os.ReadFile(filepath.Join(s.root, "v", "archives", stored[0].Name()))); string(got) != "abc" {
		t.Errorf("the archive holds %q", got)
	}
}

// Without keys any signature is good, and beyond this machine nobody is served; TLS is.
func TestListen(t *testing.T) {
	t.Parallel()
	s := serve(t, func(o *glacierserver.Options) { o.Keys = nil })
	s.do(t, raw{method: "GET", path: "/-/vaults", unsigned: true, header: map[string]string{"Authorization": "x"}}).want(t, 200, "")
	s.end()
	server := must[*glacierserver.Server](t)(glacierserver.New(glacierserver.Options{Root: s.root}))
	for _, address := range []string{"0.0.0.0:0", ":0", "[::]:0"} {
		if err := server.Run(t.Context(), glacierserver.Listen{Address: address}); err == nil || !strings.Contains(err.Error(), "without keys") {
			t.Errorf("listen on %s: %v", address, err)
		}
	}
	if _, err := glacierserver.New(glacierserver.Options{Root: s.root}); err == nil {
		t.Error("two servers on one root")
	}
	cert, key := certificate(t)
	ctx, cancel := context.WithCancel(t.Context())
	err := server.Run(ctx, glacierserver.Listen{Address: "127.0.0.1:0", CertFile: cert, KeyFile: key, Ready: func(url string) error {
		defer cancel()
		if !strings.HasPrefix(url, "https://") {
			t.Errorf("url %s", url)
		}
		pool := x509.NewCertPool()
		pool.AppendCertsFromPEM(must[[]byte](t)(os.ReadFile(cert)))
		client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}}
		defer client.CloseIdleConnections()
		resp, err := client.Get(url + "/-/vaults")
		if err != nil {
			return err
		}
		resp.Body.Close()
		if resp.StatusCode != 400 {
			t.Errorf("status %d", resp.StatusCode)
		}
		return nil
	}})
	if err != nil {
		t.Error(err)
	}
	if err := server.Close(); err != nil {
		t.Error(err)
	}
}

func certificate(t *testing.T) (cert, key string) {
	t.Helper()
	private := must[*ecdsa.PrivateKey](t)(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	der := must[[]byte](t)(x509.CreateCertificate(rand.Reader, template, template, private.Public(), private))
	keyDER := must[[]byte](t)(x509.MarshalPKCS8PrivateKey(private))
	dir := t.TempDir()
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for path, block := range map[string]*pem.Block{cert: {Type: "CERTIFICATE", Bytes: der}, key: {Type: "PRIVATE KEY", Bytes: keyDER}} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return cert, key
}

// The access log names what was done, and no secret.
func TestAccessLog(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	s := serve(t, func(o *glacierserver.Options) { o.Log = newLog(&log) })
	s.do(t, raw{method: "PUT", path: "/-/vaults/logged"})
	s.do(t, raw{method: "POST", path: "/-/vaults/logged/archives", body: "abc", header: data("abd")})
	s.end()
	for _, want := range []string{"op=CreateVault", "path=/-/vaults/logged", "status=201", "op=UploadArchive", "status=403", "in=3", "key=" + accessKey} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("%s is not in the log:\n%s", want, &log)
		}
	}
	for _, secret := range []string{secretKey, "Signature="} {
		if strings.Contains(log.String(), secret) {
			t.Errorf("%s is in the log", secret)
		}
	}
}

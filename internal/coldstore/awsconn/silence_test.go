package awsconn

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/smithy-go/middleware"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/firn-backup/firn/internal/coldstore"
)

// said collects notices.
type said struct {
	mu    sync.Mutex
	lines []string
	some  chan struct{} // closed with the first
}

func (s *said) add(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lines = append(s.lines, text); len(s.lines) == 1 {
		close(s.some)
	}
}

func (s *said) all() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.lines)
}

func attention(t *testing.T, h http.HandlerFunc, after, limit time.Duration) (c *attentive, url string, s *said) {
	t.Helper()
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	s = &said{some: make(chan struct{})}
	began, moves := time.Now(), &activity{}
	return &attentive{newHTTPClient(began, moves), moves, began, s.add, after, limit}, server.URL, s
}

func request(t *testing.T, operation, url string, body io.Reader) *http.Request {
	t.Helper()
	req, err := http.NewRequestWithContext(middleware.WithOperationName(t.Context(), operation), http.MethodPost, url, body)
	if err != nil {
		t.Fatal(err)
	}
	return req
}

// A server that takes a request and says nothing is told of, and given up.
func TestSilentServer(t *testing.T) {
	t.Parallel()
	c, url, s := attention(t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, 400*time.Millisecond, 1500*time.Millisecond)
	var wg sync.WaitGroup
	for range 5 {
		wg.Go(func() {
			_, err := c.Do(request(t, "DescribeVault", url, nil))
			var silent *silenceError
			if !errors.As(err, &silent) || errors.Is(err, context.Canceled) {
				t.Errorf("%v", err)
			}
			err = Classify(t.Context(), &smithyhttp.RequestSendError{Err: err}, nil)
			var e *Error
			if !errors.As(err, &e) || !e.Lost || !errors.Is(err, coldstore.ErrTemporary) || e.Text != "no answer: nothing came for 1.5s" {
				t.Errorf("%v", err)
			}
		})
	}
	wg.Wait()
	// How many lines there are depends on when bytes move on a busy machine; see TestSilenceInAnswers.
	if lines := s.all(); len(lines) == 0 || !strings.HasPrefix(lines[0], "waiting for 127.0.0.1: no answer to DescribeVault for ") {
		t.Errorf("%q", lines)
	}
}

// What a service may think about for long, what costs money when it is done twice, and whatever has a body is told of and not given up.
func TestPatience(t *testing.T) {
	t.Parallel()
	for operation, query := range map[string]string{
		"CompleteMultipartUpload": "", "CompleteVaultLock": "", "UploadPart": "", "PutObject": "", "CopyObject": "", "ListObjectsV2": "?max-keys=1000", "ListObjectVersions": "", "ListParts": "",
		"InitiateJob": "", "PurchaseProvisionedCapacity": "", "RestoreObject": "", "HeadObject": "", "GetObject": "", "GetJobOutput": "", "DeleteObject": "", "AbortMultipartUpload": "", "SelectObjectContent": "",
	} {
		c, _, s := attention(t, nil, 20*time.Millisecond, time.Millisecond)
		c2, url, _ := attention(t, func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			<-s.some
			_, _ = io.WriteString(w, "done")
		}, 0, 0)
		c.under, c.moves, c.began = c2.under, c2.moves, c2.began
		res, err := c.Do(request(t, operation, url+query, strings.NewReader("x")))
		if err != nil {
			t.Fatal(operation, err)
		}
		if b, err := io.ReadAll(res.Body); string(b) != "done" || err != nil {
			t.Errorf("%s: %q, %v", operation, b, err)
		}
		if err := res.Body.Close(); err != nil {
			t.Error(err)
		}
		if lines := s.all(); len(lines) != 1 || !strings.Contains(lines[0], operation) {
			t.Errorf("%q", lines)
		}
	}
}

// slowBody is a body that is held back, by a limit of the rate for instance, until it is let go.
type slowBody struct {
	asked chan struct{} // closed when it is read
	let   chan struct{}
	once  sync.Once
	given int
}

func (b *slowBody) Read(p []byte) (int, error) {
	b.once.Do(func() { close(b.asked) })
	<-b.let
	n := copy(p, "body"[b.given:])
	b.given += n
	return n, io.EOF
}

// Time in which a request is not yet on its way is not the server's.
func TestSlowBody(t *testing.T) {
	t.Parallel()
	c, url, s := attention(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/silent" {
			<-r.Context().Done()
		}
		b, _ := io.ReadAll(r.Body)
		_, _ = w.Write(b)
	}, 30*time.Millisecond, 30*time.Millisecond)
	body := &slowBody{asked: make(chan struct{}), let: make(chan struct{})}
	req := request(t, "DescribeVault", url, body)
	req.ContentLength = 4
	done := make(chan error)
	go func() {
		res, err := c.Do(req)
		if err == nil {
			_, err = io.Copy(io.Discard, res.Body)
			err = errors.Join(err, res.Body.Close())
		}
		done <- err
	}()
	<-body.asked
	for range 3 { // three times what the server has
		if _, err := c.Do(request(t, "DescribeJob", url+"/silent", nil)); !errors.As(err, new(*silenceError)) {
			t.Fatal(err)
		}
	}
	select {
	case err := <-done:
		t.Fatalf("given up before it was sent: %v", err)
	default:
	}
	if lines := s.all(); slices.ContainsFunc(lines, func(s string) bool { return strings.Contains(s, "DescribeVault") }) {
		t.Errorf("%q", lines)
	}
	close(body.let) // from here on a slow machine may need too long
	if err := <-done; err != nil && !errors.As(err, new(*silenceError)) {
		t.Error(err)
	}
}

// Connections are used again, and nothing is left when all is over.
func TestNothingIsLeft(t *testing.T) {
	t.Parallel()
	c, url, _ := attention(t, func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		w.Header().Set("Content-Length", strconv.Itoa(300_000+len(b)))
		_, _ = w.Write(append(b, make([]byte, 300_000)...))
	}, time.Hour, time.Hour)
	from := map[string]bool{}
	trace := &httptrace.ClientTrace{GotConn: func(i httptrace.GotConnInfo) { from[i.Conn.LocalAddr().String()] = true }}
	for i := range 50 {
		ctx, cancel := context.WithCancel(t.Context())
		req := request(t, []string{"DescribeVault", "GetObject"}[i%2], url, strings.NewReader("body"))
		res, err := c.Do(req.WithContext(httptrace.WithClientTrace(middleware.WithOperationName(ctx, middleware.GetOperationName(req.Context())), trace)))
		if err != nil {
			t.Fatal(err)
		}
		inner := res.Request.Context()
		// As bodies are read that are exactly so long: nobody meets the end.
		if _, err := io.ReadFull(res.Body, make([]byte, 300_004)); err != nil {
			t.Fatal(err)
		}
		if err := res.Body.Close(); err != nil {
			t.Fatal(err)
		}
		if inner.Err() == nil {
			t.Fatal("the context of a request that is over goes on")
		}
		cancel()
	}
	if len(from) != 1 {
		t.Errorf("%d connections for requests one after the other", len(from))
	}
}

// An answer that stops in its middle is told of; the time in which nobody reads is not, nor is one in which something moves.
func TestSilenceInAnswers(t *testing.T) {
	t.Parallel()
	more := make(chan struct{})
	c, url, s := attention(t, func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "half")
		w.(http.Flusher).Flush()
		<-more
		_, _ = io.WriteString(w, "half")
	}, time.Hour, 2*time.Hour)
	res, err := c.Do(request(t, "GetObject", url, nil))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if _, err := io.ReadFull(res.Body, make([]byte, 4)); err != nil {
		t.Fatal(err)
	}
	if lines := s.all(); len(lines) > 0 {
		t.Errorf("%q", lines)
	}
	c.after = 30 * time.Millisecond
	rest := make(chan error)
	go func() { _, err := io.ReadFull(res.Body, make([]byte, 4)); rest <- err }()
	<-s.some
	close(more)
	if err := <-rest; err != nil {
		t.Error(err)
	}
	if lines := s.all(); len(lines) == 0 || !strings.Contains(lines[0], "nothing more comes in answer to GetObject") {
		t.Errorf("%q", lines)
	}

	// By the time, with none of it passing.
	c = &attentive{moves: &activity{}, began: time.Now().Add(-time.Hour), notice: func(text string) { t.Error(text) }, after: time.Minute}
	w := c.watch("")
	w.since, w.timer = 1, time.NewTimer(time.Hour)
	c.moves.moved(time.Hour)
	w.look()
	w.stop()
	w.look()
	heard := 0
	c.notice = func(string) { heard++ }
	c.moves.moved(58 * time.Minute)
	for range 5 { // requests that wait
		w := c.watch("")
		w.since, w.timer = 58*time.Minute, time.NewTimer(time.Hour)
		w.look()
	}
	if heard != 1 {
		t.Errorf("two minutes of silence are told of %d times", heard)
	}
}

package awsconn

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
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

// A server that takes a request and says nothing is told of, once however many requests wait, and given up.
func TestSilentServer(t *testing.T) {
	t.Parallel()
	c, url, s := attention(t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, 400*time.Millisecond, 1500*time.Millisecond)
	var wg sync.WaitGroup
	for range 5 {
		wg.Go(func() {
			_, err := c.Do(request(t, "ListParts", url, nil))
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
	// One line for five requests; on a busy machine bytes may move after the first.
	if lines := s.all(); len(lines) == 0 || len(lines) >= 5 || !strings.HasPrefix(lines[0], "waiting for 127.0.0.1: no answer to ListParts for ") {
		t.Errorf("%q", lines)
	}
}

// What is thought about for long, or is large, is told of and not given up.
func TestPatience(t *testing.T) {
	t.Parallel()
	for operation, size := range map[string]int{"CompleteMultipartUpload": 10, "UploadPart": smallBody + 1, "CopyObject": 0} {
		c, _, s := attention(t, nil, 20*time.Millisecond, time.Millisecond)
		c2, url, _ := attention(t, func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			<-s.some
			_, _ = io.WriteString(w, "done")
		}, 0, 0)
		c.under, c.moves, c.began = c2.under, c2.moves, c2.began
		res, err := c.Do(request(t, operation, url, strings.NewReader(strings.Repeat("x", size))))
		if err != nil {
			t.Fatal(operation, err)
		}
		if b, err := io.ReadAll(res.Body); string(b) != "done" || err != nil {
			t.Errorf("%s: %q, %v", operation, b, err)
		}
		if err := res.Body.Close(); err != nil {
			t.Error(err)
		}
		if lines := s.all(); len(lines) == 0 || !strings.Contains(lines[0], operation) {
			t.Errorf("%q", lines)
		}
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
	w.since.Store(1)
	c.moves.moved(time.Hour)
	w.look()
	w.stop()
	w.look()
	heard := false
	c.notice = func(string) { heard = true }
	w.since.Store(int64(58 * time.Minute))
	c.moves.moved(58 * time.Minute)
	w.look()
	if !heard {
		t.Error("two minutes of silence are not told of")
	}
}

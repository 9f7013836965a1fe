package s3glacier_test

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/internal/coldstore/s3glacier"
	"github.com/firn-backup/firn/internal/coldstore/storetest"
	"github.com/firn-backup/firn/internal/mustrun"
)

// moto is the server that all tests share: each has a bucket of its own.
type moto struct {
	once sync.Once
	url  string
	why  string
	cmd  *exec.Cmd
}

var server moto

func TestMain(m *testing.M) {
	code := m.Run()
	if server.cmd != nil {
		_ = server.cmd.Process.Kill()
		_ = server.cmd.Wait()
	}
	os.Exit(code)
}

func (m *moto) start(t testing.TB) string {
	t.Helper()
	m.once.Do(func() {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			m.why = err.Error()
			return
		}
		addr := l.Addr().String()
		l.Close()
		_, port, _ := net.SplitHostPort(addr)
		m.cmd = exec.Command("python3", "-m", "moto.server", "-H", "127.0.0.1", "-p", port)
		if err := m.cmd.Start(); err != nil {
			m.cmd, m.why = nil, err.Error()
			return
		}
		m.url = "http://" + addr
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		for range 600 {
			if resp, err := http.Get(m.url + "/moto-api/"); err == nil {
				resp.Body.Close()
				return
			}
			<-tick.C
		}
		m.why = "moto does not answer"
	})
	if m.why != "" {
		mustrun.Skip(t, m.why)
	}
	return m.url
}

// clock stands still until it is moved.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func newClock() *clock { return &clock{now: time.Now().UTC().Truncate(time.Second)} }

func (c *clock) time() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// cold is what moto lacks: restores that take five hours and expire at midnight, 409, and listings that tell of them.
type cold struct {
	*httputil.ReverseProxy
	clock *clock
	lists bool // listings tell
	mu    sync.Mutex
	jobs  map[string]job
	posts int
}

type job struct{ asked, ready, until time.Time }

func (c *cold) job(path string) (job, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	j, ok := c.jobs[path]
	if ok && !c.clock.time().Before(j.until) {
		delete(c.jobs, path)
		ok = false
	}
	return j, ok
}

func (c *cold) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	path := r.URL.Path
	now := c.clock.time()
	j, have := c.job(path)
	switch {
	case r.Method == "POST" && r.URL.Query().Has("restore"):
		c.mu.Lock()
		c.posts++
		c.mu.Unlock()
		if have && now.Before(j.ready) {
			refuse(w, 409, "RestoreAlreadyInProgress")
			return
		}
		rec := httptest.NewRecorder()
		c.ReverseProxy.ServeHTTP(rec, r)
		if rec.Code/100 == 2 && !have {
			until := now.AddDate(0, 0, 7).Truncate(24 * time.Hour).Add(24 * time.Hour)
			c.mu.Lock()
			c.jobs[path] = job{now, now.Add(5 * time.Hour), until}
			c.mu.Unlock()
			rec.Code = 202
		}
		copyTo(w, rec, rec.Body.Bytes())
		return
	case r.Method == "DELETE":
		c.mu.Lock()
		delete(c.jobs, path)
		c.mu.Unlock()
	case r.Method == "HEAD":
		rec := httptest.NewRecorder()
		c.ReverseProxy.ServeHTTP(rec, r)
		rec.Header().Del("X-Amz-Restore")
		if have && now.Before(j.ready) {
			rec.Header().Set("X-Amz-Restore", `ongoing-request="true"`)
		} else if have {
			rec.Header().Set("X-Amz-Restore", fmt.Sprintf(`ongoing-request="false", expiry-date="%s"`, j.until.Format(http.TimeFormat)))
		}
		copyTo(w, rec, nil)
		return
	case r.Method == "GET" && r.URL.Query().Get("list-type") == "2" && c.lists:
		rec := httptest.NewRecorder()
		c.ReverseProxy.ServeHTTP(rec, r)
		copyTo(w, rec, c.tell(path, rec.Body.Bytes()))
		return
	case r.Method == "GET" && r.URL.RawQuery == "x-id=GetObject" && (!have || now.Before(j.ready)):
		rec := httptest.NewRecorder()
		head := r.Clone(r.Context())
		head.Method = "HEAD"
		c.ReverseProxy.ServeHTTP(rec, head)
		if class := rec.Header().Get("X-Amz-Storage-Class"); class == "GLACIER" || class == "DEEP_ARCHIVE" {
			refuse(w, 403, "InvalidObjectState")
			return
		}
	}
	c.ReverseProxy.ServeHTTP(w, r)
}

func (c *cold) tell(bucket string, body []byte) []byte {
	text := string(body)
	for part := range strings.SplitSeq(string(body), "<Key>") {
		key, _, _ := strings.Cut(part, "</Key>")
		j, ok := c.job(strings.TrimSuffix(bucket, "/") + "/" + key)
		if !ok {
			continue
		}
		status := "<RestoreStatus><IsRestoreInProgress>true</IsRestoreInProgress></RestoreStatus>"
		if !c.clock.time().Before(j.ready) {
			status = "<RestoreStatus><IsRestoreInProgress>false</IsRestoreInProgress><RestoreExpiryDate>" + j.until.Format("2006-01-02T15:04:05.000Z") + "</RestoreExpiryDate></RestoreStatus>"
		}
		text = strings.Replace(text, "<Key>"+key+"</Key>", "<Key>"+key+"</Key>"+status, 1)
	}
	return []byte(text)
}

func copyTo(w http.ResponseWriter, rec *httptest.ResponseRecorder, body []byte) {
	for k, v := range rec.Header() {
		if k != "Content-Length" || body == nil {
			w.Header()[k] = v
		}
	}
	w.WriteHeader(rec.Code)
	_, _ = w.Write(body)
}

func refuse(w http.ResponseWriter, status int, code string) {
	w.Header().Set("Content-Type", "application/xml")
	w.WriteHeader(status)
	fmt.Fprintf(w, `<?xml version="1.0"?><Error><Code>%s</Code><Message>refused</Message></Error>`, code)
}

var buckets atomic.Int64

// vault is one on a bucket of its own, behind what moto lacks.
func vault(t testing.TB, params string) (string, *clock, *cold) {
	t.Helper()
	backend, err := url.Parse(server.start(t))
	if err != nil {
		t.Fatal(err)
	}
	c := &cold{ReverseProxy: httputil.NewSingleHostReverseProxy(backend), clock: newClock(), jobs: map[string]job{}}
	c.ReverseProxy.ErrorLog = nil
	h := httptest.NewServer(c)
	t.Cleanup(h.Close)
	bucket := fmt.Sprintf("firn-test-%d-%d", os.Getpid(), buckets.Add(1))
	req, err := http.NewRequestWithContext(t.Context(), "PUT", backend.String()+"/"+bucket, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil || resp.StatusCode != 200 {
		t.Fatal(resp, err)
	}
	resp.Body.Close()
	return "s3://" + bucket + "/a/vault?region=us-east-1&endpoint=" + url.QueryEscape(h.URL) + params, c.clock, c
}

func open(t testing.TB, where string, c *clock) *s3glacier.Store {
	t.Helper()
	s, err := s3glacier.OpenTest(t.Context(), where, s3glacier.Options{Now: c.time}, "AKIDTEST", "secret")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestContract(t *testing.T) {
	for name, c := range map[string]struct {
		params string
		lists  bool
	}{
		"DEEP_ARCHIVE": {"&class=DEEP_ARCHIVE", true}, "GLACIER": {"&class=GLACIER", false}, "STANDARD": {"&class=STANDARD", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			storetest.Run(t, func(t testing.TB) storetest.Harness {
				where, clock, proxy := vault(t, c.params)
				proxy.lists = c.lists
				return storetest.Harness{
					Store:   open(t, where, clock),
					Reopen:  func(t testing.TB) coldstore.Store { return open(t, where, clock) },
					Advance: clock.advance,
				}
			})
		})
	}
}

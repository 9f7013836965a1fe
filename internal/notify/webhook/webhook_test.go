package webhook

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/firn-backup/firn/internal/notify"
)

type request struct{ path, kind, body string }

// server answers with the codes in turn, then 200, and tells what it was asked.
func server(t *testing.T, codes ...int) (*httptest.Server, *[]request) {
	var got []request
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		got = append(got, request{r.URL.RequestURI(), r.Header.Get("Content-Type"), string(body)})
		if len(codes) > 0 {
			w.WriteHeader(codes[0])
			codes = codes[1:]
		}
	}))
	t.Cleanup(s.Close)
	return s, &got
}

func event(k notify.Kind) notify.Event {
	return notify.Event{Kind: k, Set: "documents", Host: "nb", Run: "01R", At: time.Date(2026, 11, 1, 2, 3, 4, 0, time.UTC),
		Took: 90 * time.Second, Code: 1, Summary: "no space left", Details: []string{"a line"}}
}

func open(t *testing.T, o Options) *Webhook {
	t.Helper()
	o.Sleep = func(context.Context, time.Duration) error { return nil }
	w, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func TestJSON(t *testing.T) {
	t.Parallel()
	s, got := server(t)
	w := open(t, Options{URL: s.URL + "/hooks/s3cr3t?x=1"})
	if err := w.Notify(t.Context(), event(notify.Failure)); err != nil {
		t.Fatal(err)
	}
	r := (*got)[0]
	if r.path != "/hooks/s3cr3t?x=1" || r.kind != "application/json" {
		t.Errorf("%+v", r)
	}
	var e struct {
		Event, Set, Host, Run, At, Summary, Text string
		Seconds                                  float64
		Exit                                     int
		Details                                  []string
	}
	if err := json.Unmarshal([]byte(r.body), &e); err != nil {
		t.Fatal(err)
	}
	if e.Event != "failure" || e.Set != "documents" || e.Host != "nb" || e.Run != "01R" || e.At != "2026-11-01T02:03:04Z" || e.Seconds != 90 ||
		e.Exit != 1 || e.Summary != "no space left" || !slices.Equal(e.Details, []string{"a line"}) || !strings.Contains(e.Text, "backup of documents failed (nb)") {
		t.Errorf("%s", r.body)
	}
}

func TestPings(t *testing.T) {
	t.Parallel()
	s, got := server(t)
	w := open(t, Options{URL: s.URL + "/ping/5f5a/", Ping: true})
	for _, k := range notify.Kinds() {
		if err := w.Notify(t.Context(), event(k)); err != nil {
			t.Fatal(err)
		}
	}
	var paths []string
	for _, r := range *got {
		paths = append(paths, r.path)
		if !strings.Contains(r.body, "documents") {
			t.Errorf("%+v", r)
		}
	}
	if want := []string{"/ping/5f5a/start", "/ping/5f5a/", "/ping/5f5a/fail", "/ping/5f5a/fail", "/ping/5f5a/fail"}; !slices.Equal(paths, want) {
		t.Errorf("%q", paths)
	}
}

func TestRetries(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		codes []int
		asked int
		ok    bool
	}{
		{[]int{500, 429}, 3, true},
		{[]int{500, 503, 502}, 3, false},
		{[]int{404}, 1, false},
	} {
		s, got := server(t, c.codes...)
		err := open(t, Options{URL: s.URL + "/s3cr3t"}).Notify(t.Context(), event(notify.Success))
		if (err == nil) != c.ok || len(*got) != c.asked {
			t.Errorf("%v: asked %d times, %v", c.codes, len(*got), err)
		}
		if err != nil && strings.Contains(err.Error(), "s3cr3t") {
			t.Errorf("the error shows the URL: %v", err)
		}
	}
}

// No error shows more of a URL than its host.
func TestSecret(t *testing.T) {
	t.Parallel()
	s, _ := server(t)
	url := strings.Replace(s.URL, "http://", "http://user:s3cr3t@", 1) + "/s3cr3t?token=s3cr3t"
	s.Close()
	err := open(t, Options{URL: url}).Notify(t.Context(), event(notify.Success))
	if err == nil || strings.Contains(err.Error(), "s3cr3t") || !strings.Contains(err.Error(), "127.0.0.1") {
		t.Errorf("%v", err)
	}
	for _, bad := range []string{"", "s3cr3t", "ftp://s3cr3t", "http://", "http://[s3cr3t", "://s3cr3t"} {
		if _, err := New(Options{URL: bad}); err == nil || strings.Contains(err.Error(), "s3cr3t") {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

// A redirect is not followed: it would show the secret URL to another host, and a GET of its target tells nobody.
func TestRedirects(t *testing.T) {
	t.Parallel()
	for code, to := range map[int]string{301: "/landing", 302: "http://[s3cr3t", 303: "/landing", 307: "ftp://x/s3cr3t", 308: "/landing"} {
		asked := 0
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			asked++
			if r.Header.Get("Referer") != "" || r.URL.Path != "/s3cr3t" {
				t.Errorf("%d: asked for %s, come from %s", code, r.URL, r.Header.Get("Referer"))
			}
			w.Header().Set("Location", to)
			w.WriteHeader(code)
		}))
		err := open(t, Options{URL: s.URL + "/s3cr3t"}).Notify(t.Context(), event(notify.Success))
		s.Close()
		if err == nil || strings.Contains(err.Error(), "s3cr3t") || !strings.Contains(err.Error(), "not followed") || asked != 1 {
			t.Errorf("%d to %s: asked %d times, %v", code, to, asked, err)
		}
	}
}

// A server that never answers costs Limit in all, however long the client would wait for each attempt.
func TestSilence(t *testing.T) {
	t.Parallel()
	end := make(chan struct{})
	s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-end:
		case <-r.Context().Done():
		}
	}))
	defer s.Close()
	defer close(end)
	w := open(t, Options{URL: s.URL + "/secret", Client: &http.Client{}, Limit: 50 * time.Millisecond})
	err := w.Notify(t.Context(), event(notify.Success))
	if err == nil || strings.Contains(err.Error(), "secret") {
		t.Errorf("no answer: %v", err)
	}
}

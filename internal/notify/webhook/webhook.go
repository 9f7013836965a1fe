// Package webhook tells of events over HTTP: as JSON, or as the pings that
// services which watch for silence expect. Its URLs are secrets: whoever knows one can speak for the
// machine, so no error shows more of one than its host.
package webhook

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/firn-backup/firn/internal/notify"
)

const (
	attempts = 3
	// answerLimit is what is read of an answer, in bytes.
	answerLimit = 64 << 10
	// pingLimit is what is sent with a ping, in bytes: services keep 10 to 100 kB.
	pingLimit = 10_000
)

// Options say where to. URL is needed.
type Options struct {
	URL string // http or https

	// Ping sends the pings of Healthchecks and services like it instead of JSON: a POST of the text to URL for
	// success, to URL/start when work begins, and to URL/fail for all else.
	// (Source: Healthchecks, "Pinging API".)
	Ping bool

	Client *http.Client // nil: one with a time limit of 10 s a request
	// Limit is how long all attempts may take together; 0: 30 s. Work waits for it.
	Limit time.Duration
	// Sleep waits between attempts; tests replace it. Nil: a timer.
	Sleep func(ctx context.Context, d time.Duration) error
}

// Webhook is a notify.Notifier.
type Webhook struct {
	o Options
	u *url.URL
}

var _ notify.Notifier = (*Webhook)(nil)

// CheckURL says what is wrong with a URL, without showing it.
func CheckURL(s string) error {
	_, err := parse(s)
	return err
}

func parse(s string) (*url.URL, error) {
	u, err := url.Parse(s)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, errors.New("must be an http:// or https:// URL")
	}
	return u, nil
}

// New makes one. An error does not show the URL.
func New(o Options) (*Webhook, error) {
	u, err := parse(o.URL)
	if err != nil {
		return nil, err
	}
	if o.Client == nil {
		o.Client = &http.Client{Timeout: 10 * time.Second}
	}
	if o.Limit == 0 {
		o.Limit = 30 * time.Second
	}
	if o.Sleep == nil {
		o.Sleep = sleep
	}
	client := *o.Client
	client.Transport = direct{client.Transport}
	o.Client = &client
	return &Webhook{o, u}, nil
}

// Notify sends the event, three times at most and not for longer than Options.Limit.
func (w *Webhook) Notify(ctx context.Context, e notify.Event) error {
	ctx, cancel := context.WithTimeout(ctx, w.o.Limit)
	defer cancel()
	to, kind, body, err := w.message(e)
	if err != nil {
		return err
	}
	for i := 1; ; i++ {
		again, err := w.post(ctx, to, kind, body)
		if err == nil {
			return nil
		}
		err = fmt.Errorf("tell %s of %s: %w", w.u.Host, e.Kind, err)
		if !again || i == attempts || ctx.Err() != nil {
			return err
		}
		if serr := w.o.Sleep(ctx, time.Duration(i)*2*time.Second); serr != nil {
			return err
		}
	}
}

// direct makes a redirect the answer. One that is followed gives the secret URL away in the Referer header, turns the POST into a
// GET whose 200 means nothing, and shows the URL in the error when the address it leads to is not one.
type direct struct{ under http.RoundTripper }

func (d direct) RoundTrip(req *http.Request) (*http.Response, error) {
	under := d.under
	if under == nil {
		under = http.DefaultTransport
	}
	res, err := under.RoundTrip(req)
	if err == nil && res.StatusCode/100 == 3 {
		res.Header.Del("Location") // without it http.Client answers as it is
	}
	return res, err
}

func (w *Webhook) message(e notify.Event) (to, kind string, body []byte, err error) {
	if !w.o.Ping {
		body, err = json.Marshal(e)
		return w.u.String(), "application/json", body, err
	}
	u := *w.u
	switch e.Kind {
	case notify.Success:
	case notify.Started:
		u.Path = strings.TrimSuffix(u.Path, "/") + "/start"
	default:
		u.Path = strings.TrimSuffix(u.Path, "/") + "/fail"
	}
	u.RawPath = ""
	text := []byte(e.Text())
	return u.String(), "text/plain; charset=utf-8", text[:min(len(text), pingLimit)], nil
}

// post sends once. again says that it may go better another time.
func (w *Webhook) post(ctx context.Context, to, kind string, body []byte) (again bool, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, to, bytes.NewReader(body))
	if err != nil {
		return false, errors.New("no request can be made of its URL")
	}
	req.Header.Set("Content-Type", kind)
	req.Header.Set("User-Agent", "firn")
	res, err := w.o.Client.Do(req)
	if err != nil {
		var u *url.Error // it holds the URL
		if errors.As(err, &u) {
			err = u.Err
		}
		return true, err
	}
	defer res.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(res.Body, answerLimit)) // so that the connection can be used again
	if res.StatusCode/100 == 2 {
		return false, nil
	}
	if res.StatusCode/100 == 3 {
		return false, fmt.Errorf("the answer is %d %s, which is not followed: give the URL it leads to", res.StatusCode, http.StatusText(res.StatusCode))
	}
	return res.StatusCode/100 == 5 || res.StatusCode == http.StatusTooManyRequests, fmt.Errorf("the answer is %d %s",
		res.StatusCode, http.StatusText(res.StatusCode))
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

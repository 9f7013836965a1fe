package awsconn

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/smithy-go/middleware"
)

const (
	// noticeAfter is how long nothing may move before somebody is told what is being waited for.
	noticeAfter = 15 * time.Second
	// AnswerTimeout is how long a request that a service answers from what it has at hand may go without an answer, once it is
	// on its way, before the attempt counts as failed. All others, which a service may think about or which may be on their way
	// for hours, have StallTimeout alone, in which something must move.
	AnswerTimeout = 2 * time.Minute
)

// activity is when something last moved on any connection of a client.
type activity struct {
	last atomic.Int64 // ns since began
	told atomic.Bool  // of the silence since then
}

func (a *activity) moved(at time.Duration) {
	a.last.Store(int64(at))
	if a.told.Load() {
		a.told.Store(false)
	}
}

// attentive is a client that says what it is waiting for when nothing moves on its connections, and ends attempts that are not
// answered. It does not time what is under way.
type attentive struct {
	under  aws.HTTPClient
	moves  *activity
	began  time.Time    // what times are counted from: by the monotonic clock
	notice func(string) // not nil
	after  time.Duration
	limit  time.Duration
}

var _ aws.HTTPClient = (*attentive)(nil)

// silenceError says that an answer did not come in time. It is no error of a context, whose end means that nobody wants the answer.
type silenceError struct{ limit time.Duration }

func (e *silenceError) Error() string { return fmt.Sprintf("nothing came for %s", e.limit) }
func (e *silenceError) Timeout() bool { return true }

// Do is one attempt. Its error is a *silenceError where no answer began in time.
func (c *attentive) Do(req *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(req.Context())
	what := middleware.GetOperationName(ctx)
	host := req.URL.Hostname()
	if what == "" {
		what = req.Method
	}
	var l *limit
	if answersSoon(what, req) {
		l = &limit{d: c.limit, late: func() { cancel(&silenceError{c.limit}) }}
		ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{WroteRequest: func(httptrace.WroteRequestInfo) { l.begin() }})
	}
	w := c.watch(fmt.Sprintf("waiting for %s: no answer to %s", host, what))
	req = req.WithContext(ctx)
	if req.Body != nil && req.Body != http.NoBody {
		req.Body = &sentBody{req.Body, w}
	}
	w.start()
	res, err := c.under.Do(req)
	w.end()
	if l != nil && l.end() { // also of an answer at the last moment, whose body is cut off
		if err == nil {
			_ = res.Body.Close()
		}
		cancel(nil)
		return nil, &silenceError{c.limit}
	}
	if err != nil {
		cancel(nil)
		return res, err
	}
	res.Body = &watchedBody{res.Body, c.watch(fmt.Sprintf("waiting for %s: nothing more comes in answer to %s", host, what)), cancel}
	return res, nil
}

// answersSoon says that a service need not search, compute, move or delete anything to answer, so that who is silent is not at work.
// What costs money when it is done twice is not among it. Some servers of S3 read an object for its hash before they say what it is, take
// minutes for a page of a list, or fetch what is on a tape.
func answersSoon(operation string, req *http.Request) bool {
	switch operation {
	case "CreateMultipartUpload", "InitiateMultipartUpload":
		return true
	case "ListObjectsV2": // as a knock at the door
		return req.URL.Query().Get("max-keys") == "1"
	}
	return strings.HasPrefix(operation, "Describe") || strings.HasPrefix(operation, "GetVault") || strings.HasPrefix(operation, "GetBucket")
}

// limit is the time in which an answer must begin.
type limit struct {
	d    time.Duration
	late func()

	mu     sync.Mutex
	timer  *time.Timer
	passed bool
	over   bool
}

// begin begins the time, anew if need be: a request may be sent again on another connection.
func (l *limit) begin() {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.over:
	case l.timer == nil:
		l.timer = time.AfterFunc(l.d, l.pass)
	default:
		l.timer.Reset(l.d)
	}
}

func (l *limit) pass() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.over {
		l.over, l.passed = true, true
		l.late()
	}
}

// end says whether the time has passed. What is sent later does not begin it.
func (l *limit) end() (passed bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.over = true; l.timer != nil {
		l.timer.Stop()
	}
	return l.passed
}

// wait is one waiting for what others do.
type wait struct {
	c    *attentive
	text string

	mu    sync.Mutex
	timer *time.Timer
	since time.Duration // since the client began; below 0: nobody waits
	over  bool
}

func (c *attentive) watch(text string) *wait { return &wait{c: c, text: text, since: -1} }

func (w *wait) start() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.over {
		return
	}
	w.since = time.Since(w.c.began)
	if w.timer == nil {
		w.timer = time.AfterFunc(w.c.after, w.look)
		return
	}
	w.timer.Reset(w.c.after)
}

func (w *wait) stop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.since = -1; w.timer != nil {
		w.timer.Stop()
	}
}

// end stops for good, whoever starts still.
func (w *wait) end() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.over, w.since = true, -1; w.timer != nil {
		w.timer.Stop()
	}
}

// look tells of a silence, once however many wait, or looks again when it would be one.
func (w *wait) look() {
	if silent := w.silent(); silent > 0 && w.c.moves.told.CompareAndSwap(false, true) {
		w.c.notice(fmt.Sprintf("%s for %s", w.text, silent.Round(time.Second)))
	}
}

// silent is how long nothing has moved while somebody waited; 0: not long enough to be told.
func (w *wait) silent() time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.since < 0 {
		return 0
	}
	silent := time.Since(w.c.began) - max(w.since, time.Duration(w.c.moves.last.Load()))
	if silent < w.c.after {
		w.timer.Reset(w.c.after - silent)
		return 0
	}
	return silent
}

// sentBody is what is sent. Where it is slow itself, because of a limit of the rate or of a disk, nobody waits for the server.
type sentBody struct {
	io.ReadCloser
	w *wait
}

func (b *sentBody) Read(p []byte) (int, error) {
	b.w.stop()
	defer b.w.start()
	return b.ReadCloser.Read(p)
}

// watchedBody watches what is read of an answer, not the time in which nobody reads.
type watchedBody struct {
	io.ReadCloser
	w      *wait
	cancel context.CancelCauseFunc
}

func (b *watchedBody) Read(p []byte) (int, error) {
	b.w.start()
	defer b.w.stop()
	return b.ReadCloser.Read(p)
}

func (b *watchedBody) Close() error {
	err := b.ReadCloser.Close()
	b.cancel(nil)
	return err
}

// movingConn tells of what moves.
type movingConn struct {
	net.Conn
	moves *activity
	began time.Time
}

func (c *movingConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if n > 0 {
		c.moves.moved(time.Since(c.began))
	}
	return n, err
}

func (c *movingConn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	if n > 0 {
		c.moves.moved(time.Since(c.began))
	}
	return n, err
}

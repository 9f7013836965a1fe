package awsconn

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/smithy-go/middleware"
)

const (
	// noticeAfter is how long nothing may move before somebody is told what is being waited for.
	noticeAfter = 15 * time.Second
	// AnswerTimeout is how long a request that is small may go without an answer before the attempt counts as failed. Those
	// with large bodies, which may be on their way for hours, and those that a service thinks about have StallTimeout
	// alone, in which something must move.
	AnswerTimeout = 2 * time.Minute
	// smallBody is what the kernel takes off our hands at once, on slow lines too; bytes.
	smallBody = 64 << 10
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
	var limit *time.Timer
	if answersSoon(what, req) {
		limit = time.AfterFunc(c.limit, func() { cancel(&silenceError{c.limit}) })
	}
	w := c.watch(fmt.Sprintf("waiting for %s: no answer to %s", host, what))
	w.start()
	res, err := c.under.Do(req.WithContext(ctx))
	w.stop()
	if limit != nil && !limit.Stop() { // also of an answer at the last moment, whose body is cut off
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

// answersSoon says that a request is on its way at once, and is answered when it is there: not the completion of many parts, nor
// a copy of many bytes.
func answersSoon(operation string, req *http.Request) bool {
	return req.ContentLength >= 0 && req.ContentLength <= smallBody && !strings.HasPrefix(operation, "Complete") && !strings.Contains(operation, "Copy")
}

// wait is one waiting for bytes. It is not for several goroutines at once.
type wait struct {
	c     *attentive
	text  string
	timer *time.Timer
	since atomic.Int64 // ns since the client began; below 0: nobody waits
}

func (c *attentive) watch(text string) *wait {
	w := &wait{c: c, text: text}
	w.since.Store(-1)
	w.timer = time.AfterFunc(c.after, w.look)
	w.timer.Stop()
	return w
}

func (w *wait) start() {
	w.since.Store(int64(time.Since(w.c.began)))
	w.timer.Reset(w.c.after)
}

func (w *wait) stop() {
	w.since.Store(-1)
	w.timer.Stop()
}

// look tells of a silence, once however many wait, or looks again when it would be one.
func (w *wait) look() {
	since := w.since.Load()
	if since < 0 {
		return
	}
	silent := time.Since(w.c.began) - time.Duration(max(since, w.c.moves.last.Load()))
	if silent < w.c.after {
		w.timer.Reset(w.c.after - silent)
		return
	}
	if w.c.moves.told.CompareAndSwap(false, true) {
		w.c.notice(fmt.Sprintf("%s for %s", w.text, silent.Round(time.Second)))
	}
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

// Package s3proxy stands between an S3 client and an S3 server, for tests: it
// counts what is asked for, makes requests fail as told, holds clients to an
// IAM policy, and adds to a server that knows storage classes what it lacks
// of archived objects' rules: restores that take their time, 409, tiers,
// expiry at midnight, RestoreStatus in listings, checksums that are compared.
// It knows nothing of Firn and shares no code with it. Buckets are in paths;
// the Host header stays as it came, so that signatures verify.
package s3proxy

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"
)

// Options of a proxy. The zero value, with an Upstream, only passes on and counts.
type Options struct {
	Upstream string // the server's URL
	Classes  bool   // add what the server lacks of storage classes; see the file restore.go

	// Plan decides what goes wrong; nil: nothing. SetPlan changes it.
	Plan Plan
	// Policy holds for all clients; nil: everything is allowed. SetPolicy changes it.
	Policy *Policy
	// Late is how long an answer takes that is late. 0: 50 milliseconds.
	Late time.Duration

	// Now is the clock of restores and of what objects say of their time; nil: the real one.
	// Advance moves it forward.
	Now func() time.Time
	// Delay is how long a restore takes; nil: ServiceDelay.
	Delay func(class, tier string) time.Duration
	// CompleteOnce has a second CompleteMultipartUpload answer NoSuchUpload, as the service may.
	CompleteOnce bool
	// NoRestoreStatus leaves RestoreStatus out of listings, as most servers do.
	NoRestoreStatus bool
	// Region is that of all buckets: requests signed for another are sent away. Empty: any.
	Region string
}

// Call is one request as the server's API names it.
type Call struct {
	Operation   string
	Bucket, Key string // Key: empty for requests about buckets
	Status      int    // of the answer; 0: there was none
	Fault       Fault
}

// A Proxy is an http.Handler. Its methods may be called at any time from several goroutines.
type Proxy struct {
	o         Options
	transport http.RoundTripper
	writes    sync.Mutex // of what makes objects: conditions hold among clients

	mu      sync.Mutex
	plan    Plan
	policy  *Policy
	moved   time.Duration
	set     bool // the clock was
	hidden  map[string]bool
	calls   []Call
	objects map[string]*object // by bucket/key; only with Classes
	uploads map[string]*upload // by id; only with Classes
}

var _ http.Handler = (*Proxy)(nil)

// New makes a proxy.
func New(o Options) *Proxy {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Late == 0 {
		o.Late = 50 * time.Millisecond
	}
	if o.Delay == nil {
		o.Delay = ServiceDelay
	}
	return &Proxy{
		o: o, plan: o.Plan.locked(), policy: o.Policy, hidden: map[string]bool{}, objects: map[string]*object{}, uploads: map[string]*upload{},
		transport: &http.Transport{DisableCompression: true, MaxIdleConnsPerHost: 64},
	}
}

// SetPlan decides what goes wrong from now on.
func (p *Proxy) SetPlan(plan Plan) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.plan = plan.locked()
}

// SetPolicy holds clients to a policy from now on.
func (p *Proxy) SetPolicy(policy *Policy) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.policy = policy
}

// Now is the proxy's clock.
func (p *Proxy) Now() time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.now()
}

func (p *Proxy) now() time.Time { return p.o.Now().Add(p.moved).UTC() }

// Advance moves the proxy's clock.
func (p *Proxy) Advance(d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.moved += d
}

// SetClock sets the proxy's clock to a time, from which it goes on as Options.Now does; the clock never goes back, but for the first time.
func (p *Proxy) SetClock(at time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.set || p.now().Before(at) {
		p.set, p.moved = true, at.Sub(p.o.Now())
	}
}

// Hide has a bucket not exist, or exist again with all that was in it.
func (p *Proxy) Hide(bucket string, hidden bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.hidden[bucket] = hidden
}

// Calls are all requests since the start, or since Forget.
func (p *Proxy) Calls() []Call {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]Call(nil), p.calls...)
}

// Forget forgets all calls.
func (p *Proxy) Forget() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.calls = nil
}

// Count counts the calls of an operation.
func (p *Proxy) Count(operation string) int {
	n := 0
	for _, c := range p.Calls() {
		if c.Operation == operation {
			n++
		}
	}
	return n
}

// exchange is one request on its way through the proxy.
type exchange struct {
	w     http.ResponseWriter
	r     *http.Request
	call  Call
	fault Fault
	body  []byte // of the request, where it was read
	read  bool
}

func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if command, ok := strings.CutPrefix(r.URL.Path, "/-/"); ok { // no bucket's name begins with a hyphen
		p.control(w, r, command)
		return
	}
	x := &exchange{w: w, r: r}
	x.call.Operation, x.call.Bucket, x.call.Key = operation(r)
	p.mu.Lock()
	plan, policy := p.plan, p.policy
	p.mu.Unlock()
	x.fault = plan(x.call)
	x.call.Fault = x.fault
	defer func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.calls = append(p.calls, x.call)
	}()
	if p.failedBefore(x) || p.refused(x, policy) {
		return
	}
	if err := p.serve(x); err != nil {
		if r.Context().Err() != nil {
			panic(http.ErrAbortHandler) // the client went away
		}
		x.fail(http.StatusBadGateway, "ProxyFailed", err.Error())
	}
}

// failedBefore does what goes wrong before the server is asked.
func (p *Proxy) failedBefore(x *exchange) bool {
	switch f := x.fault; {
	case f == DropBefore:
		panic(http.ErrAbortHandler)
	case f == HalfAsked:
		_, _ = io.CopyN(io.Discard, x.r.Body, x.r.ContentLength/2) // it breaks anyway
		panic(http.ErrAbortHandler)
	case f == Internal200 && x.call.Operation == "CompleteMultipartUpload":
		_, _ = io.Copy(io.Discard, x.r.Body)
		x.fail(http.StatusOK, "InternalError", "We encountered an internal error. Please try again.")
		return true
	case f == Internal || f == Internal200:
		x.fail(http.StatusInternalServerError, "InternalError", "We encountered an internal error. Please try again.")
		return true
	case f == SlowDown:
		x.fail(http.StatusServiceUnavailable, "SlowDown", "Please reduce your request rate.")
		return true
	}
	return false
}

// refused answers what the service refuses whatever is asked: old tokens, the wrong region, what the policy does not allow.
func (p *Proxy) refused(x *exchange, policy *Policy) bool {
	if strings.HasPrefix(x.r.Header.Get("X-Amz-Security-Token"), "EXPIRED") {
		x.fail(http.StatusBadRequest, "ExpiredToken", "The provided token has expired.")
		return true
	}
	if scope := signedFor(x.r); p.o.Region != "" && scope != "" && scope != p.o.Region && x.call.Bucket != "" {
		x.w.Header().Set("X-Amz-Bucket-Region", p.o.Region)
		x.fail(http.StatusMovedPermanently, "PermanentRedirect",
			"The bucket you are attempting to access must be addressed using the specified endpoint. Please send all future requests to this endpoint.",
			"Endpoint", "s3."+p.o.Region+".amazonaws.com", "Bucket", x.call.Bucket)
		return true
	}
	p.mu.Lock()
	hidden := p.hidden[x.call.Bucket]
	p.mu.Unlock()
	if hidden {
		x.fail(http.StatusNotFound, "NoSuchBucket", "The specified bucket does not exist", "BucketName", x.call.Bucket)
		return true
	}
	for _, action := range permissions(x.call.Operation, x.r) {
		resource := "arn:aws:s3:::" + x.call.Bucket
		if x.call.Key != "" && !ofBucket(action) {
			resource += "/" + x.call.Key
		}
		if !policy.allows(action, resource, x.r) {
			x.fail(http.StatusForbidden, "AccessDenied", fmt.Sprintf("User: arn:aws:iam::123456789012:user/test is not authorized to perform: %s "+
				"on resource: %q because no identity-based policy allows the %s action", action, resource, action))
			return true
		}
	}
	return false
}

// signedFor is the region in a request's signature.
func signedFor(r *http.Request) string {
	_, scope, _ := strings.Cut(r.Header.Get("Authorization"), "Credential=")
	if f := strings.Split(scope, "/"); len(f) > 3 {
		return f[2]
	}
	return ""
}

// fail answers with an error as S3 writes it; more are names and values of further elements.
func (x *exchange) fail(status int, code, message string, more ...string) {
	var b bytes.Buffer
	fmt.Fprintf(&b, "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>%s</Code><Message>%s</Message>", code, escape(message))
	for i := 0; i+1 < len(more); i += 2 {
		fmt.Fprintf(&b, "<%s>%s</%[1]s>", more[i], escape(more[i+1]))
	}
	b.WriteString("<RequestId>PROXY</RequestId></Error>")
	if !x.read && x.r.ContentLength < 1<<20 { // the connection can be used again
		_, _ = io.Copy(io.Discard, x.r.Body)
	}
	x.w.Header().Set("Content-Type", "application/xml")
	x.w.WriteHeader(status)
	x.call.Status = status
	if x.r.Method != http.MethodHead {
		_, _ = x.w.Write(b.Bytes()) // the client may be gone
	}
}

// serve passes a request on, with what the proxy adds.
func (p *Proxy) serve(x *exchange) error {
	if p.o.Classes {
		return p.serveClasses(x)
	}
	return p.pass(x, edit{})
}

// edit is what is changed in the server's answer. The zero edit: nothing.
type edit struct {
	header func(status int, h http.Header)
	body   func(status int, body []byte) []byte // nil: it is passed on as it comes
	status int                                  // instead of the server's, where that is a success; 0: the server's
}

// pass asks the server and answers with what it answers.
func (p *Proxy) pass(x *exchange, e edit) error {
	resp, err := p.ask(x)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if e.status != 0 && resp.StatusCode/100 == 2 {
		resp.StatusCode = e.status
	}
	h := x.w.Header()
	for k, v := range resp.Header {
		h[k] = v
	}
	h.Del("Connection")
	h.Del("Transfer-Encoding")
	if e.header != nil {
		e.header(resp.StatusCode, h)
	}
	var body io.Reader = resp.Body
	size := resp.ContentLength
	if e.body != nil {
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			return err
		}
		b = e.body(resp.StatusCode, b)
		body, size = bytes.NewReader(b), int64(len(b))
		h.Set("Content-Length", fmt.Sprint(len(b)))
	}
	switch x.fault {
	case DropAfter:
		_, _ = io.Copy(io.Discard, resp.Body) // the server is to have done it
		panic(http.ErrAbortHandler)
	case InternalDone:
		_, _ = io.Copy(io.Discard, resp.Body)
		clear(h)
		x.fail(http.StatusInternalServerError, "InternalError", "We encountered an internal error. Please try again.")
		return nil
	case Late:
		select {
		case <-time.After(p.o.Late):
		case <-x.r.Context().Done():
		}
	}
	x.call.Status = resp.StatusCode
	x.w.WriteHeader(resp.StatusCode)
	if x.fault == HalfAnswer {
		_, _ = io.CopyN(x.w, body, max(size, 0)/2)  // it breaks anyway
		_ = http.NewResponseController(x.w).Flush() // or nothing would have been answered
		panic(http.ErrAbortHandler)
	}
	if _, err = io.Copy(x.w, body); err != nil {
		panic(http.ErrAbortHandler) // an answer that has begun can be ended only so
	}
	return nil
}

// slurp reads the request's body.
func (x *exchange) slurp() ([]byte, error) {
	if x.read {
		return x.body, nil
	}
	var err error
	x.body, err = io.ReadAll(x.r.Body)
	x.read = true
	return x.body, err
}

// ask sends the request to the server, byte by byte as it came.
func (p *Proxy) ask(x *exchange) (*http.Response, error) {
	u, err := url.Parse(p.o.Upstream)
	if err != nil {
		return nil, err
	}
	out := x.r.Clone(x.r.Context())
	out.URL.Scheme, out.URL.Host, out.RequestURI = u.Scheme, u.Host, ""
	out.Host = x.r.Host
	out.Header.Del("Expect") // was answered here
	out.Header.Del("Connection")
	if _, ok := out.Header["User-Agent"]; !ok {
		out.Header.Set("User-Agent", "")
	}
	if x.read {
		out.Body, out.ContentLength = io.NopCloser(bytes.NewReader(x.body)), int64(len(x.body))
	}
	if out.ContentLength == 0 {
		out.Body = http.NoBody
	}
	return p.transport.RoundTrip(out)
}

// control is for tests in another process: /-/advance?by=4h and /-/clock?at=TIME move the clock, /-/away?bucket=B and
// /-/back?bucket=B hide a bucket and show it again, and /-/calls tells of all calls.
func (p *Proxy) control(w http.ResponseWriter, r *http.Request, command string) {
	switch command {
	case "advance":
		d, err := time.ParseDuration(r.FormValue("by"))
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		p.Advance(d)
	case "clock":
		at, err := time.Parse(time.RFC3339, r.FormValue("at"))
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		p.SetClock(at)
	case "away", "back":
		p.Hide(r.FormValue("bucket"), command == "away")
	case "calls":
		_ = json.NewEncoder(w).Encode(p.Calls()) // the client may be gone
	default:
		http.NotFound(w, r)
	}
}

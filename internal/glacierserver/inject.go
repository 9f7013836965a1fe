package glacierserver

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/firn-backup/firn/internal/failure"
)

// Fault is a failure that is played: for rehearsals and tests.
type Fault struct {
	Operation   string  // one of Operations, or "*"
	What        string  // a status, the name of an exception, "drop" or "lose"
	Probability float64 // of each request, 0 to 1
	Times       int     // at most so often; 0: without end
}

// What drops: before anything is done, or after everything is.
const (
	dropBefore = "drop"
	dropAfter  = "lose"
)

// played are the errors that can be asked for, by status and by name.
func played(what string) *apiError {
	known := []apiError{
		{http.StatusBadRequest, "ThrottlingException", "Rate exceeded"},
		{http.StatusRequestTimeout, "RequestTimeoutException", "Request timed out."},
		{http.StatusTooManyRequests, "ThrottlingException", "Rate exceeded"},
		{http.StatusInternalServerError, "ServiceUnavailableException", "The request failed due to a server error."},
		{http.StatusServiceUnavailable, "ServiceUnavailableException", "Service is not available."},
		{http.StatusForbidden, "ExpiredTokenException", "The security token included in the request is expired"},
		{http.StatusServiceUnavailable, "InsufficientCapacityException", "There is insufficient capacity to process this expedited request."},
		{http.StatusBadRequest, "PolicyEnforcedException", "InitiateJob request denied by current data retrieval policy."},
		{http.StatusBadRequest, "NoLongerSupportedException", "This API is no longer supported for new accounts. Please use Amazon S3 Glacier storage classes instead."},
		{http.StatusBadRequest, "LimitExceededException", "A limit of the account was exceeded"},
		{http.StatusForbidden, "AccessDeniedException", "Access denied"},
	}
	for _, e := range known {
		if what == strconv.Itoa(e.status) || strings.EqualFold(what, e.code) {
			return &e
		}
	}
	return nil
}

// ParseFault reads OPERATION:WHAT:PROBABILITY or OPERATION:WHAT:PROBABILITY:TIMES. WHAT is
// a status (400 throttles; 408, 429, 500, 503, 403), the name of an exception of the API, drop (the connection
// breaks before anything is done) or lose (everything is done, and the answer is lost).
func ParseFault(s string) (Fault, error) {
	bad := func(why string, args ...any) (Fault, error) {
		return Fault{}, failure.Errorf(failure.Usage, "fault %q: %s", s, fmt.Sprintf(why, args...))
	}
	parts := strings.Split(s, ":")
	if len(parts) != 3 && len(parts) != 4 {
		return bad("not OPERATION:STATUS:PROBABILITY")
	}
	f := Fault{Operation: parts[0], What: parts[1]}
	if f.Operation != "*" {
		i := slices.IndexFunc(Operations(), func(name string) bool { return strings.EqualFold(name, f.Operation) })
		if i < 0 {
			return bad("no operation %q", f.Operation)
		}
		f.Operation = Operations()[i]
	}
	if f.What != dropBefore && f.What != dropAfter && played(f.What) == nil {
		return bad("no fault %q (a status such as 500, the name of an exception, drop or lose)", f.What)
	}
	var err error
	if f.Probability, err = strconv.ParseFloat(parts[2], 64); err != nil || !(f.Probability >= 0 && f.Probability <= 1) {
		return bad("the probability %q is not between 0 and 1", parts[2])
	}
	if len(parts) == 4 {
		if f.Times, err = strconv.Atoi(parts[3]); err != nil || f.Times < 1 {
			return bad("%q is no number of times", parts[3])
		}
	}
	return f, nil
}

// faults are those that are being played.
type faults struct {
	mu   sync.Mutex
	list []Fault
	left []int // by fault; -1: without end
}

func newFaults(list []Fault) *faults {
	f := &faults{list: slices.Clone(list)}
	for _, one := range list {
		n := one.Times
		if n == 0 {
			n = -1
		}
		f.left = append(f.left, n)
	}
	return f
}

// strike picks the fault, of those that wanted says, that hits a request.
func (f *faults) strike(op string, wanted func(what string) bool) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i, one := range f.list {
		if one.Operation != "*" && one.Operation != op || !wanted(one.What) || f.left[i] == 0 {
			continue
		}
		if rand.Float64() < one.Probability {
			if f.left[i] > 0 {
				f.left[i]--
			}
			return one.What
		}
	}
	return ""
}

func (f *faults) drops(op string) string {
	return f.strike(op, func(what string) bool { return what == dropBefore })
}

// drop breaks the connection, in the middle of the body if there is one.
func (q *request) drop() error {
	if q.r.ContentLength > 1 {
		q.readWithin(q.o.BodyTimeout)
		n, _ := io.CopyN(io.Discard, q.r.Body, min(q.r.ContentLength/2, maxDrain)) // it is dropped in any case
		q.received += n
	}
	return fmt.Errorf("a fault was injected: %w", http.ErrAbortHandler)
}

// inject plays the faults that an authenticated request can meet.
func (q *request) inject() error {
	switch what := q.faults.strike(q.op.name, func(what string) bool { return what != dropBefore }); what {
	case "":
		return nil
	case dropAfter:
		run := q.op.run
		lost := *q.op
		lost.run = func(q *request) error {
			q.w = unheard{http.Header{}}
			if err := run(q); err != nil {
				return fmt.Errorf("%w; a fault was injected: %w", err, http.ErrAbortHandler)
			}
			return fmt.Errorf("a fault was injected: %w", http.ErrAbortHandler)
		}
		q.op = &lost
		return nil
	default:
		return played(what)
	}
}

// unheard is an answer that nobody gets.
type unheard struct{ h http.Header }

func (u unheard) Header() http.Header         { return u.h }
func (u unheard) Write(p []byte) (int, error) { return len(p), nil }
func (u unheard) WriteHeader(int)             {}

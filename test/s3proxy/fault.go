package s3proxy

import (
	"math/rand/v2"
	"slices"
	"sync"
)

// A Fault is what goes wrong with one request. The zero Fault is none.
type Fault int

const (
	None         Fault = iota
	DropBefore         // the connection breaks, and the server never heard of it
	DropAfter          // the server did it, and the answer is lost
	HalfAsked          // the connection breaks in the middle of the request's body
	HalfAnswer         // the connection breaks in the middle of the answer's body
	Internal           // 500 InternalError, not done
	InternalDone       // 500 InternalError, done all the same
	SlowDown           // 503 SlowDown, not done
	Internal200        // CompleteMultipartUpload: 200, and an error in the body; not done. Others: as Internal
	Late               // the answer comes Options.Late later
)

// Faults are all that can go wrong.
func Faults() []Fault {
	return []Fault{DropBefore, DropAfter, HalfAsked, HalfAnswer, Internal, InternalDone, SlowDown, Internal200, Late}
}

func (f Fault) String() string {
	return []string{"none", "drop before", "drop after", "half asked", "half answer", "internal", "internal, done", "slow down", "internal in 200", "late"}[f]
}

// A Plan decides what goes wrong with a call. It is asked once a call, by one goroutine at a time. Nil: nothing.
type Plan func(Call) Fault

// Random is a plan by which share of all calls (0 to 1), of the operations named or of all, fail in one of the ways given, or
// any. The same seed and the same calls in the same order give the same faults.
func Random(seed uint64, share float64, faults []Fault, operations ...string) Plan {
	r := rand.New(rand.NewPCG(seed, 17))
	if len(faults) == 0 {
		faults = Faults()
	}
	return func(c Call) Fault {
		if len(operations) > 0 && !slices.Contains(operations, c.Operation) || r.Float64() >= share {
			return None
		}
		return faults[r.IntN(len(faults))]
	}
}

// Nth is a plan by which the n-th call (from 0) of an operation fails.
func Nth(operation string, n int, f Fault) Plan {
	return func(c Call) Fault {
		if c.Operation != operation {
			return None
		}
		n--
		if n == -1 {
			return f
		}
		return None
	}
}

// locked is a plan that may be asked by many.
func (p Plan) locked() Plan {
	if p == nil {
		return func(Call) Fault { return None }
	}
	var mu sync.Mutex
	return func(c Call) Fault {
		mu.Lock()
		defer mu.Unlock()
		return p(c)
	}
}

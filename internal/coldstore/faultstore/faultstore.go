// Package faultstore wraps a vault and makes it fail as told: at one call,
// before or after the call has had its effect, or from one call on for ever, as
// if the process had been killed; or in the bytes that it reads. It counts calls and
// bytes, so that tests can run over every call index until a run meets no
// fault any more, and prove what was read and that nothing was sent twice. It is for tests,
// and knows no store.
//
//	for n := 0; ; n++ {
//		f := faultstore.New(faultstore.Fault{Mode: faultstore.LostAfter, Call: n})
//		err := run(f.Wrap(store)) // fails, or not
//		… // run it again without a fault; everything must be right now
//		if !f.Hit() {
//			break
//		}
//	}
package faultstore

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/firn-backup/firn/internal/coldstore"
)

// Mode is a way to fail.
type Mode int

const (
	None       Mode = iota // no fault: only counting
	LostBefore             // the call does not reach the store
	LostAfter              // the call is made, and its answer is lost
	DeadFrom               // this call does not reach the store, nor does any later one
	DeadAfter              // this call is made, its answer is lost, and no later one reaches the store
	ReadBreak              // what this OpenRetrieved returns breaks off after half of the bytes
	ReadFlip               // what this OpenRetrieved returns has one bit flipped, in its middle byte
)

func (m Mode) String() string {
	names := [...]string{"None", "LostBefore", "LostAfter", "DeadFrom", "DeadAfter", "ReadBreak", "ReadFlip"}
	if m < 0 || int(m) >= len(names) {
		return fmt.Sprintf("Mode(%d)", int(m))
	}
	return names[m]
}

// ErrDead is what every call returns after DeadFrom or DeadAfter. It wraps nothing, so
// that nobody retries it.
var ErrDead = errors.New("faultstore: the process is dead")

// ErrLost is what the error of a lost call or answer wraps beside its kind: tests tell by it that they see
// the injected fault.
var ErrLost = errors.New("faultstore: lost")

// Fault says what fails, and how. The zero value is no fault.
type Fault struct {
	Mode Mode
	// Call is the index, from 0, of the call that fails: of all calls that fit Method, in the order
	// in which they begin. For ReadBreak and ReadFlip only OpenRetrieved counts.
	Call int
	// Method, if set, is the only method whose calls count: "PutPart".
	Method string
	// Times is how many such calls in a row fail: 1 when 0; below 0 all from Call on.
	Times int
	// Err is what the error wraps. Nil: coldstore.ErrTemporary, but
	// coldstore.ErrInDoubt for CompleteUpload and Delete with LostAfter. Set ErrLost for one of no kind.
	Err error
	// InDoubt makes a CompleteUpload or Delete that is lost before say ErrInDoubt too, as a real line does,
	// which cannot tell the two.
	InDoubt bool
}

// Sent is one part that reached the store and was taken.
type Sent struct {
	Upload string
	Name   string // that the upload was begun with here; empty for one begun elsewhere
	Offset int64
	Size   int64
}

// Faults is one fault with its counters. It outlives the store that it wraps: wrap
// several one after the other, and it counts on. All methods may be called from several goroutines.
type Faults struct {
	fault Fault

	mu        sync.Mutex
	next      int // index of the next call that fits
	hit       bool
	dead      bool
	calls     map[string]int
	names     map[string]string // of uploads begun here
	sent      []Sent
	completed []string
	read      map[string]int64
	rot       map[string][]int64
}

// New makes a fault.
func New(f Fault) *Faults {
	return &Faults{
		fault: f, calls: map[string]int{}, names: map[string]string{},
		read: map[string]int64{}, rot: map[string][]int64{},
	}
}

// Wrap returns s with the fault. It is a coldstore.Stater if s is one.
func (f *Faults) Wrap(s coldstore.Store) coldstore.Store {
	w := &store{Faults: f, inner: s}
	if st, ok := s.(coldstore.Stater); ok {
		return &statStore{store: w, stater: st}
	}
	return w
}

// Hit says whether the fault has happened.
func (f *Faults) Hit() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.hit
}

// Kill makes every later call fail, as DeadFrom does, and breaks off every open reader.
func (f *Faults) Kill() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.dead = true
}

// Count is how many calls of a method began, failed ones too; of all methods when
// method is empty. Traits is not counted: it cannot fail.
func (f *Faults) Count(method string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	if method != "" {
		return f.calls[method]
	}
	n := 0
	for _, c := range f.calls {
		n += c
	}
	return n
}

// Methods are the methods called so far, sorted.
func (f *Faults) Methods() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Sorted(maps.Keys(f.calls))
}

// Sent are the parts that the store took, in that order, those with a lost answer too.
func (f *Faults) Sent() []Sent {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.sent)
}

// BytesSent is the sum over Sent, of the uploads with that name or id, or of
// all when it is empty.
func (f *Faults) BytesSent(upload string) int64 {
	var n int64
	for _, p := range f.Sent() {
		if upload == "" || p.Upload == upload || p.Name == upload {
			n += p.Size
		}
	}
	return n
}

// Completed are the archives that CompleteUpload made, in that order, those with a lost answer
// too. A repeated completion that answers with its archive again is not another one.
func (f *Faults) Completed() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.completed)
}

// BytesRead is how many bytes of an archive were delivered, or of all when archive is empty.
func (f *Faults) BytesRead(archive string) int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	if archive != "" {
		return f.read[archive]
	}
	var n int64
	for _, c := range f.read {
		n += c
	}
	return n
}

// Rot flips the lowest bit of the byte at off of an archive, each time that it is read.
func (f *Faults) Rot(archive string, off int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.rot[archive] = append(f.rot[archive], off)
}

// begin counts a call and says what happens to it. done is to be called when it was made.
func (f *Faults) begin(method, object string) (verdict, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls[method]++
	if f.dead {
		return pass, fmt.Errorf("%s %s: %w", method, object, ErrDead)
	}
	if !f.fits(method) {
		return pass, nil
	}
	n := f.next - f.fault.Call
	f.next++
	times := max(f.fault.Times, 1)
	if n < 0 || n >= times && f.fault.Times >= 0 {
		return pass, nil
	}
	f.hit = true
	switch f.fault.Mode {
	case LostBefore:
		return pass, f.lost(method, object, f.fault.InDoubt)
	case DeadFrom:
		f.dead = true
		return pass, fmt.Errorf("%s %s: %w", method, object, ErrDead)
	case DeadAfter:
		f.dead = true
		return loseAnswer, nil
	case LostAfter:
		return loseAnswer, nil
	case ReadBreak:
		return breakRead, nil
	default:
		return flipRead, nil
	}
}

func (f *Faults) fits(method string) bool {
	switch f.fault.Mode {
	case None:
		return false
	case ReadBreak, ReadFlip:
		return method == "OpenRetrieved"
	}
	return f.fault.Method == "" || f.fault.Method == method
}

// end is the error of a call that was made.
func (f *Faults) end(v verdict, method, object string, err error) error {
	if v != loseAnswer {
		return err
	}
	if f.fault.Mode == DeadAfter {
		return fmt.Errorf("%s %s: %w", method, object, ErrDead)
	}
	return f.lost(method, object, true)
}

func (f *Faults) lost(method, object string, inDoubt bool) error {
	kind := f.fault.Err
	if kind == nil {
		kind = coldstore.ErrTemporary
		if inDoubt && (method == "CompleteUpload" || method == "Delete") {
			kind = coldstore.ErrInDoubt
		}
	}
	if kind == ErrLost {
		return fmt.Errorf("%s %s: %w", method, object, ErrLost)
	}
	return fmt.Errorf("%s %s: %w: %w", method, object, ErrLost, kind)
}

type verdict int

const (
	pass verdict = iota
	loseAnswer
	breakRead
	flipRead
)

package tree

import (
	"context"
	"sync"
)

// maxAhead is how many entries are read that were not yet handed on.
const maxAhead = 1 << 15

type taskState byte

const (
	waiting taskState = iota
	running
	finished
)

// A task is one piece of reading ahead: a directory's list of names, with what
// statx says of them, or a stretch of a long one's.
type task struct {
	state taskState // guarded by ahead.mu; what run made is read only once it is finished
	run   func(*scratch) (entries int, next []*task)
}

// ahead has workers run tasks before their results are needed: the last that
// were pushed first, since these are what the walk comes to next. Results are
// used in the walk's order, by one goroutine; a task that nobody has begun by
// then it runs itself, so that workers without room never hold it up.
type ahead struct {
	mu      sync.Mutex
	work    sync.Cond // for workers: a task, or room, or the end
	result  sync.Cond // for the user of results
	stack   []*task   // the next on top; some are no longer waiting
	live    int       // how many are
	entries int       // read and not yet released
	stopped bool
	wg      sync.WaitGroup
	unwatch func() bool
}

func newAhead(ctx context.Context, workers int) *ahead {
	a := &ahead{}
	a.work.L, a.result.L = &a.mu, &a.mu
	a.unwatch = context.AfterFunc(ctx, a.halt)
	for range workers {
		a.wg.Go(a.worker)
	}
	return a
}

// stop ends the workers and waits for them.
func (a *ahead) stop() {
	a.unwatch()
	a.halt()
	a.wg.Wait()
}

func (a *ahead) halt() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.stopped = true
	a.work.Broadcast()
	a.result.Broadcast()
}

func (a *ahead) worker() {
	var s scratch
	a.mu.Lock()
	defer a.mu.Unlock()
	for !a.stopped {
		t := a.pop()
		if t == nil {
			a.work.Wait()
			continue
		}
		a.runLocked(t, &s)
		a.result.Signal()
	}
}

// pop takes the next waiting task, if there is room for its result.
func (a *ahead) pop() *task {
	if a.entries >= maxAhead {
		return nil
	}
	for n := len(a.stack); n > 0; n = len(a.stack) {
		t := a.stack[n-1]
		a.stack[n-1] = nil
		a.stack = a.stack[:n-1]
		if t.state == waiting {
			return t
		}
	}
	return nil
}

// runLocked runs t, unlocking meanwhile.
func (a *ahead) runLocked(t *task, s *scratch) {
	t.state = running
	a.live--
	a.mu.Unlock()
	n, next := t.run(s)
	a.mu.Lock()
	t.state, t.run = finished, nil
	a.entries += n
	a.pushLocked(next)
}

// pushLocked puts tasks, which come in the walk's order, before all others.
func (a *ahead) pushLocked(tasks []*task) {
	a.live += len(tasks)
	if len(a.stack)+len(tasks) > 2*a.live+1024 {
		kept := a.stack[:0]
		for _, t := range a.stack {
			if t.state == waiting {
				kept = append(kept, t)
			}
		}
		clear(a.stack[len(kept):])
		a.stack = kept
	}
	for i := len(tasks) - 1; i >= 0; i-- {
		a.stack = append(a.stack, tasks[i])
	}
	switch {
	case len(tasks) == 0 || a.entries >= maxAhead:
	case len(tasks) == 1:
		a.work.Signal()
	default:
		a.work.Broadcast()
	}
}

// need returns once t is finished, or false when the walk has been stopped.
// released is how many entries were handed on since the last call.
func (a *ahead) need(t *task, released int, s *scratch) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if released > 0 {
		full := a.entries >= maxAhead
		a.entries -= released
		if full && a.entries < maxAhead {
			a.work.Broadcast()
		}
	}
	for !a.stopped {
		switch t.state {
		case finished:
			return true
		case waiting:
			a.runLocked(t, s)
		default:
			a.result.Wait()
		}
	}
	return false
}

package retrieval

import (
	"context"
	"errors"
	"time"

	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/internal/failure"
)

// WaveTime is how long the requests of one wave may take to go out. What a vault makes readable it keeps for a
// day at least, and the slowest tier is twelve hours late: the first of a wave is readable when the last is.
const WaveTime = 12 * time.Hour

// queue is what an order has that goes out too slowly to be readable all at one time: it is asked for in
// waves, the next when something of it is read.
type queue struct {
	all   []want        // in the order in which it is going to be read
	at    map[slot]int  // index into all
	now   map[slot]bool // in the wave at hand, which is ready
	bad   map[string]error
	waves int // that were ready in this run
}

type slot struct {
	archive string
	r       coldstore.Range
}

// inWaves decides whether all that is wanted, which with what was found is kept, must go out in waves.
func (d *Desk) inWaves(ctx context.Context, wanted, kept []want) (bool, error) {
	most := d.o.Pace.Within(WaveTime)
	if int64(len(kept)) <= most {
		return false, nil
	}
	if d.o.Once && !d.o.Wait {
		return false, failure.Errorf(failure.Usage, "at %s the first of %d requests is not readable any more when the last is, "+
			"and what was read is not remembered from run to run: wait for it in one run (--wait), or let more out", d.o.Pace, len(kept))
	}
	if len(wanted) > 0 {
		if err := d.approve(ctx, d.bill(wanted)); err != nil {
			return false, err
		}
	}
	q := &queue{all: kept, at: map[slot]int{}, bad: map[string]error{}}
	for i, w := range q.all {
		if _, ok := q.at[slot{w.archive, w.r}]; !ok {
			q.at[slot{w.archive, w.r}] = i
		}
	}
	d.queue = q
	return true, nil
}

// ensure sees to it that what is about to be read is ready: if it is not in the wave at hand it begins the next with it.
func (d *Desk) ensure(ctx context.Context, archive string, r coldstore.Range) error {
	q := d.queue
	if q == nil {
		return nil
	}
	i, ok := q.at[slot{archive, r}]
	if !ok || q.now[slot{archive, r}] {
		return q.bad[archive]
	}
	d.pending, d.all, d.wanted, q.now = map[string]coldstore.Retrieval{}, 0, nil, map[slot]bool{}
	most := d.o.Pace.Within(WaveTime)
	for ; i < len(q.all) && int64(len(q.now)) < most; i++ {
		w := q.all[i]
		have, found, err := d.saved(ctx, w.archive, w.r)
		if err != nil {
			return err
		}
		if d.note(have, found); !found {
			d.wanted = append(d.wanted, w)
		}
		q.now[slot{w.archive, w.r}] = true
	}
	wanted := d.wanted
	d.wanted = nil
	done, err := d.send(ctx, wanted, func(archive string, err error) error { q.bad[archive] = err; return nil }, true)
	for _, w := range wanted[done:] {
		delete(q.now, slot{w.archive, w.r})
	}
	if err == nil {
		err = d.Ready(ctx)
	}
	if err != nil {
		clear(q.now)
		return err
	}
	q.waves++
	return q.bad[archive]
}

// Stuck says that err, of reading something, ends a run that had a whole wave to read and needs the next one before
// it is through with that: without Options.Wait no other run gets any further.
func (d *Desk) Stuck(err error) bool {
	return d.queue != nil && d.queue.waves > 0 && (failure.KindOf(err) == failure.NotReady || errors.Is(err, coldstore.ErrNotReady))
}

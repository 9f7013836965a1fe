package plan

import (
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/firn-backup/firn/internal/snapshot"
)

const day = 24 * time.Hour

// world is a set that lives through a random history.
type world struct {
	r    *rand.Rand
	p    Policy
	h    []Snapshot
	now  time.Time
	n    uint64
	days int // minimum storage duration
	log  []string
}

func (w *world) say(format string, args ...any) {
	w.log = append(w.log, w.now.Format("2006-01-02 15:04 ")+fmt.Sprintf(format, args...))
}

func randomPolicy(r *rand.Rand, schedules []Schedule) Policy {
	some := func(n int) int { return max(0, r.IntN(2*n)-n) }
	p := Policy{
		Schedule: schedules[r.IntN(len(schedules))], CatchUp: r.IntN(2) == 0, Incrementals: r.IntN(6) - 1, ByDate: r.IntN(3) == 0,
		Retention: Retention{Last: some(4), Daily: some(3), Weekly: some(3), Monthly: some(3), Yearly: some(2)},
	}
	if r.IntN(4) > 0 {
		p.Retention.Expire = time.Duration(1+r.IntN(40)) * day
	}
	if r.IntN(4) == 0 {
		p.Retention.Within = time.Duration(1+r.IntN(20)) * day
	}
	if r.IntN(6) == 0 {
		p.MinInterval = time.Duration(1+r.IntN(72)) * time.Hour
	}
	return p
}

// restorable says whether a snapshot and all below it are there and complete.
func (w *world) restorable(id string) bool {
	for steps := 0; steps <= len(w.h); steps++ {
		i := slices.IndexFunc(w.h, func(s Snapshot) bool { return s.ID == id })
		if i < 0 || !w.h[i].Complete {
			return false
		}
		if id = w.h[i].Base; id == "" {
			return true
		}
	}
	return false
}

// newest is the newest restorable snapshot in the policy's order; empty: none is.
func (w *world) newest() string {
	var best Snapshot
	for _, s := range w.h {
		if w.restorable(s.ID) && (best.ID == "" || w.later(s, best)) {
			best = s
		}
	}
	return best.ID
}

func (w *world) later(a, b Snapshot) bool {
	if w.p.ByDate && !a.At.Equal(b.At) {
		return a.At.After(b.At)
	}
	return a.N > b.N
}

// check holds a decision against its promises.
func (w *world) check(d Decision) error {
	seen := map[string]int{}
	byID := map[string]Snapshot{}
	for _, s := range w.h {
		byID[s.ID] = s
	}
	for _, e := range d.Expire {
		if e.Reason == "" || len(e.IDs) == 0 {
			return fmt.Errorf("expiry without a reason: %+v", e)
		}
		place := map[string]int{}
		for i, id := range e.IDs {
			seen[id]++
			place[id] = i + 1
			if s := byID[id]; w.days > 0 && e.NotBefore.Before(s.Stored.Add(time.Duration(w.days)*day)) && s.Stored.Add(time.Duration(w.days)*day).After(w.now) {
				return fmt.Errorf("%s may go before its minimum duration is over", id)
			}
		}
		for _, id := range e.IDs {
			if b := byID[id].Base; b != "" && place[b] != 0 && place[b] < place[id] {
				return fmt.Errorf("%s goes after its base", id)
			}
		}
	}
	for _, k := range d.Keep {
		seen[k.ID]++
		if len(k.Reasons) == 0 || k.Reasons[0] == "" {
			return fmt.Errorf("%s is kept without a reason", k.ID)
		}
	}
	for _, s := range w.h {
		if seen[s.ID] != 1 && s.Complete {
			return fmt.Errorf("%s is told of %d times", s.ID, seen[s.ID])
		}
	}
	if d.Reason == "" || d.KindReason == "" {
		return fmt.Errorf("no reason: %+v", d)
	}
	if (d.Kind == snapshot.Incremental) != (d.Base != "") || d.Base != "" && !w.restorable(d.Base) {
		return fmt.Errorf("%s on %q", d.Kind, d.Base)
	}
	if !d.Next.IsZero() && !d.Next.After(w.now) && !d.Due && d.TooEarlyUntil.IsZero() {
		return fmt.Errorf("not due, and next is %s", d.Next)
	}
	return w.keepsLast(d)
}

// keepsLast sees that the newest so many snapshots stay.
func (w *world) keepsLast(d Decision) error {
	var all []Snapshot
	for _, s := range w.h {
		if s.Complete {
			all = append(all, s)
		}
	}
	slices.SortFunc(all, func(a, b Snapshot) int {
		if w.later(a, b) {
			return -1
		}
		return 1
	})
	room := w.p.Retention.Last
	if d.Due {
		room-- // the one to come counts
	}
	for i, s := range all {
		if i >= room {
			break
		}
		for _, e := range d.Expire {
			if slices.Contains(e.IDs, s.ID) {
				return fmt.Errorf("%s is one of the last %d, and goes", s.ID, w.p.Retention.Last)
			}
		}
	}
	return nil
}

// prune deletes what a decision lets go, each snapshot by itself, and looks after each deletion.
func (w *world) prune(d Decision, stored bool) error {
	newest := w.newest()
	for _, e := range d.Expire {
		if e.AfterNew && !stored || e.Early(w.now) {
			continue
		}
		for _, id := range e.IDs {
			i := slices.IndexFunc(w.h, func(s Snapshot) bool { return s.ID == id })
			if i < 0 {
				continue // another run was faster
			}
			if s := w.h[i]; w.days > 0 && s.Stored.Add(time.Duration(w.days)*day).After(w.now) {
				return fmt.Errorf("%s is deleted before its minimum duration is over", id)
			}
			w.h = slices.Delete(w.h, i, i+1)
			if newest != "" && !w.restorable(newest) {
				return fmt.Errorf("deleting %s costs the newest snapshot %s", id, newest)
			}
			for _, s := range w.h {
				if s.Base == id {
					return fmt.Errorf("%s is left without its base %s", s.ID, id)
				}
			}
		}
		w.say("deleted %v", e.IDs)
	}
	return nil
}

// store stores what a decision wants.
func (w *world) store(d Decision) {
	w.n++
	w.h = append(w.h, Snapshot{
		ID: fmt.Sprint("s", w.n), N: w.n, At: w.now, Stored: w.now, Kind: d.Kind, Base: d.Base, Complete: true, MinDays: w.days, Size: 1,
	})
	w.say("stored s%d on %q", w.n, d.Base)
}

// step is one run, or one thing that goes wrong.
func (w *world) step() error {
	switch w.r.IntN(12) {
	case 0: // the clock goes back
		w.now = w.now.Add(-time.Duration(w.r.IntN(60*24)) * time.Hour)
	case 1: // the machine is off
		w.now = w.now.Add(time.Duration(w.r.IntN(200*24)) * time.Hour)
	case 2: // something is found to be damaged
		if len(w.h) > 0 && w.r.IntN(3) == 0 {
			i := w.r.IntN(len(w.h))
			w.h[i].Complete = false
			w.say("damaged %s", w.h[i].ID)
		}
	default:
		w.now = w.now.Add(time.Duration(w.r.IntN(5*24)) * time.Hour)
	}
	d := Decide(w.now, w.p, w.h, Rules{})
	if err := w.check(d); err != nil {
		return err
	}
	stored := false
	switch {
	case !d.Due && w.r.IntN(4) > 0: // a run that finds nothing to do
	case w.r.IntN(5) == 0: // the upload fails
	case w.r.IntN(12) == 0: // two at once
		other := Decide(w.now, w.p, w.h, Rules{})
		w.store(d)
		w.store(other)
		if err := w.prune(other, other.Due); err != nil {
			return err
		}
		stored = d.Due
	default:
		w.store(d)
		stored = d.Due
	}
	return w.prune(d, stored)
}

// TestHistories: machines that are off, clocks that go back, uploads that fail, damage, two runs at once. A
// chain that can be restored stays one, nothing goes before its time, nothing is left without its base.
func TestHistories(t *testing.T) {
	t.Parallel()
	histories := 20_000 // where others wait for the machine too
	if os.Getenv("FIRN_MUST_RUN") == "1" {
		histories = 100_000
	}
	if os.Getenv("FIRN_SOAK") == "1" {
		histories = 2_000_000
	}
	var schedules []Schedule
	for _, text := range []string{"monthdays 1,7,14,21", "monthdays last at 02:00", "every 24h", "every 5d", "monthdays 31,1", "every 12h"} {
		s, err := ParseSchedule(text)
		if err != nil {
			t.Fatal(err)
		}
		schedules = append(schedules, s)
	}
	var wg sync.WaitGroup
	workers := runtime.GOMAXPROCS(0)
	for k := range workers {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for seed := k; seed < histories && !t.Failed(); seed += workers {
				r := rand.New(rand.NewPCG(uint64(seed), 7))
				w := &world{r: r, p: randomPolicy(r, schedules), now: time.Date(2024, 2, 27, 3, 0, 0, 0, time.UTC).Add(time.Duration(r.IntN(1000)) * day)}
				if r.IntN(2) == 0 {
					w.days = []int{30, 90, 180}[r.IntN(3)]
				}
				for range 4 + r.IntN(16) {
					if err := w.step(); err != nil {
						t.Errorf("history %d: %v\npolicy %+v\n%v", seed, err, w.p, w.log)
						return
					}
				}
			}
		}()
	}
	wg.Wait()
}

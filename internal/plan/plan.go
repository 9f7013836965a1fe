// Package plan decides when a set is backed up, full or incremental and on what,
// and which of its snapshots may go. It is pure: the time it is, what there is and
// what the vault charges are arguments, and every answer comes with its reason.
// It knows neither catalog nor vault, and deletes nothing.
//
// # Chains
//
// A snapshot that names no base is full and is the root of a chain: the tree of
// snapshots that are based on it, directly or not. Usually each is based on the one
// before, but a date may be filed later, on a snapshot that is not the newest. Chains are kept
// and expire whole, so that no snapshot is ever left without its base.
//
// # What expires
//
// The newest complete chain of a set never expires, nor does the one that holds the newest
// snapshot. An older one expires when a newer complete chain exists, its own newest snapshot is older than
// Retention.Expire, and no snapshot of it is kept by the other rules of Retention.
package plan

import (
	"fmt"
	"time"

	"github.com/firn-backup/firn/internal/snapshot"
)

// NoLimit as Policy.Incrementals: a chain goes on for ever.
const NoLimit = -1

// Policy is when a set is backed up and what becomes of old snapshots. The zero value
// is: when asked, always full, nothing expires, times in UTC.
type Policy struct {
	Schedule     Schedule
	CatchUp      bool           // a run that was missed is made up for by the next; see Schedule
	Zone         *time.Location // of schedules, days and months; nil: UTC
	Incrementals int            // so many after a full, then a new full; NoLimit
	MinInterval  time.Duration  // no snapshot sooner than this after the one before; whole days are days of the calendar
	Retention    Retention

	// Vault is where the next snapshot goes. A chain that lies elsewhere is not gone on with. Empty: where the last one went.
	Vault string

	// Before is the date of the last snapshot that another program made of the set, which cannot be built on: as long
	// as there is none of Firn's, schedules count from it. Zero: there is none.
	Before time.Time

	// ByDate orders snapshots by their date, where otherwise the order they were made in
	// counts: a date that is filed later is based on the newest date there is. A set
	// is then begun anew only on a scheduled day once it has any snapshot.
	ByDate bool

	// Runs says that backups make no snapshots but store single archives: reasons then speak of runs.
	Runs bool
}

// makes is what a backup makes, for people.
func (p Policy) makes() string {
	if p.Runs {
		return "run"
	}
	return "snapshot"
}

// Retention says what is kept. The zero value keeps all. Whole days are days of the
// calendar in Policy.Zone. Negative numbers count as 0.
type Retention struct {
	Expire time.Duration // chains whose newest snapshot is older expire; 0: none by its age alone

	// What is kept all the same; where Expire is 0, what these do not keep expires.
	Last   int           // the newest so many snapshots
	Within time.Duration // snapshots no older than this
	// The newest snapshot of each of the last so many days (weeks from Monday, months, years) that have one.
	Daily, Weekly, Monthly, Yearly int
}

// Keeps says whether any of the rules that keep is set.
func (r Retention) Keeps() bool {
	return r.Last > 0 || r.Within > 0 || r.Daily > 0 || r.Weekly > 0 || r.Monthly > 0 || r.Yearly > 0
}

// None says that nothing ever expires.
func (r Retention) None() bool { return r.Expire <= 0 && !r.Keeps() }

// Snapshot is what the plan must know of one.
type Snapshot struct {
	ID   string
	N    uint64    // sequence number in the set
	At   time.Time // the data's date
	Kind snapshot.Kind
	Base string // id of the snapshot it is based on; empty for a full

	// Complete: it was stored, and nothing of it is known to be lost. Of one that is not, a chain that it would go on stays.
	Complete bool

	Vault   string // where it lies
	MinDays int    // that vault's minimum storage duration in days of 24 hours; 0: none
	// LockDays is for how many days of 24 hours it is locked; 0: it is not.
	LockDays int

	Size   int64     // bytes in the vault
	Stored time.Time // when the last of them was; the minimum storage duration counts from here. Zero: not known, At counts
}

// Rules are those of the vaults.
type Rules struct {
	// Fee is what deleting snapshots costs at a time before the minimum duration is over, in
	// micro-dollars. ok is false where the price is not known. Nil: it is not known.
	Fee func(snaps []Snapshot, at time.Time) (microDollars int64, ok bool)
}

// Decision is what a run now would do, and why.
type Decision struct {
	Due    bool
	Reason string    // why it is due, or is not
	Last   time.Time // date of the newest snapshot up to now; zero: there is none
	Slot   time.Time // the scheduled time it is due for; zero where there is none
	Next   time.Time // when it is due after this, or after that run; zero: never by itself

	// Overdue: a scheduled time was missed by more than a day (of "every" by as much again, a day at most), and there has
	// been no snapshot since. It may be so although a missed run is not caught up, and no snapshot due.
	Overdue bool

	// TooEarly is set when nothing but Policy.MinInterval stands in the way. TooEarlyUntil is when that is over,
	// whether a snapshot is due otherwise or not; zero: it is over.
	TooEarly      bool
	TooEarlyUntil time.Time

	// Kind and Base are those of a snapshot made now, whether one is due or not.
	Kind       snapshot.Kind
	Base       string // id; empty for a full
	KindReason string

	// Expire are the chains that go, oldest first, and Keep the snapshots that stay, oldest first.
	Expire []Expiry
	Keep   []Kept

	// Newest is the full snapshot of the newest complete chain, for whose sake others may go. Empty: there is none.
	Newest string

	// Blocked says why nothing may expire now whatever its age. Empty: nothing is in the way.
	Blocked string
}

// EarlyNow says whether Policy.MinInterval forbids a snapshot, whether one is due or not.
func (d *Decision) EarlyNow(now time.Time) bool { return d.TooEarlyUntil.After(now) }

// Expiry is a chain that goes.
type Expiry struct {
	Chain  string   // id of its full snapshot; that of the first one where that is gone
	IDs    []string // all its snapshots, each before what it is based on: the order to delete in
	Reason string

	// AfterNew: only once the snapshot that is due is stored.
	AfterNew bool

	// NotBefore is when the last of its archives has had its minimum storage duration;
	// deleting sooner costs Fee, which is that of now. Zero: it may go at once.
	NotBefore time.Time
	Fee       int64 // micro-dollars
	FeeKnown  bool
	// LockedUntil is when the last of its archives is locked no more: nothing deletes them sooner. Zero: they are not locked.
	LockedUntil time.Time
}

// Locked says whether a lock keeps it now.
func (e Expiry) Locked(now time.Time) bool { return e.LockedUntil.After(now) }

// Early says whether deleting it now costs a fee.
func (e Expiry) Early(now time.Time) bool { return e.NotBefore.After(now) }

// Kept is a snapshot that stays.
type Kept struct {
	ID      string // empty: the snapshot that is due
	Reasons []string
}

// Decide answers for a set whose stored snapshots, in any order, are h. It takes what is due
// for stored when it looks for what expires, and marks what depends on that (Expiry.AfterNew).
func Decide(now time.Time, p Policy, h []Snapshot, r Rules) Decision {
	if p.Zone == nil {
		p.Zone = time.UTC
	}
	now = now.In(p.Zone)
	f := grow(h, p.ByDate)
	var d Decision
	d.kind(p, f)
	d.due(now, p, f)
	d.retain(now, p, f, h, r)
	return d
}

// kind fills what a snapshot made now is based on.
func (d *Decision) kind(p Policy, f *forest) {
	d.Kind = snapshot.Full
	c := f.newestUsable()
	switch {
	case c == nil && len(f.chains) == 0:
		d.KindReason = "the set has no " + p.makes() + " yet"
	case c == nil:
		d.KindReason = "there is no complete chain to go on with"
	case p.Vault != "" && c.tip().Vault != p.Vault:
		d.KindReason = "the set goes to another vault than its last chain"
	case p.Incrementals == 0:
		d.KindReason = "every snapshot of the set is full (incrementals = 0)"
	case p.Incrementals > 0 && c.usable > p.Incrementals:
		d.KindReason = fmt.Sprintf("the chain of %s has its %s", p.when(c.first().At), plural(p.Incrementals, "incremental"))
	default:
		d.Kind, d.Base = snapshot.Incremental, c.tip().ID
		d.KindReason = fmt.Sprintf("on the snapshot of %s, in the chain of %s", p.when(c.tip().At), p.when(c.first().At))
		if p.Incrementals > 0 {
			d.KindReason += fmt.Sprintf(" (%d of %d)", c.usable, p.Incrementals)
		}
	}
}

// due fills whether a snapshot is to be made now.
func (d *Decision) due(now time.Time, p Policy, f *forest) {
	last, any := f.lastBefore(now)
	if !any && !p.Before.IsZero() && !p.Before.After(now) {
		last, any = Snapshot{At: p.Before}, true
	}
	d.Last = last.At
	d.dueBySchedule(now, p, f, last, any)
	if p.MinInterval <= 0 || !any {
		return
	}
	if until := forward(last.At.In(p.Zone), p.MinInterval); until.After(now) {
		d.Overdue = false
		if d.Due {
			d.TooEarly, d.Due, d.Slot = true, false, time.Time{}
		} else if p.Schedule.IsZero() {
			d.TooEarly = true
		}
		d.TooEarlyUntil = until
		if d.TooEarly {
			d.Reason = fmt.Sprintf("the last %s is of %s, and min-interval %s is not over until %s",
				p.makes(), p.when(last.At), span(p.MinInterval), p.when(until))
		}
		if !d.Next.IsZero() && d.Next.Before(until) || d.TooEarly && !p.Schedule.IsZero() {
			d.Next = p.nextFrom(until, last)
		}
	}
}

// nextFrom is when a set is due that may not be before until.
func (p Policy) nextFrom(until time.Time, last Snapshot) time.Time {
	if p.CatchUp || p.Schedule.every > 0 {
		return until // what is missed until then is caught up
	}
	return p.Schedule.next(until.Add(-1), p.Zone, last.At)
}

func (d *Decision) dueBySchedule(now time.Time, p Policy, f *forest, last Snapshot, any bool) {
	s := p.Schedule
	if s.IsZero() {
		d.Reason = "the set has no schedule"
		return
	}
	d.Next = s.next(now, p.Zone, now)
	if foreign := len(f.chains) == 0 && any; !foreign && (len(f.chains) == 0 || !p.ByDate && f.newestUsable() == nil) {
		d.Overdue = true
		d.Due, d.Reason = true, "the set has no "+p.makes()+" yet"
		if len(f.chains) > 0 {
			d.Reason = "the set has no complete chain"
		}
		return
	}
	slot, ok := s.prev(now, p.Zone, last.At, any)
	if s.every == 0 && any {
		// The first that was not served counts, not the last.
		first := s.next(last.At, p.Zone, last.At)
		d.Overdue = !first.IsZero() && !now.Before(first.AddDate(0, 0, 1))
	}
	switch {
	case s.every > 0 && ok:
		d.Due, d.Slot = true, slot
		d.Overdue = any && now.After(slot.Add(min(s.every, 24*time.Hour)))
		d.Reason = "scheduled " + s.String() + ", and no " + p.makes() + " has a date up to now"
		if any {
			d.Reason = fmt.Sprintf("scheduled %s, and the last %s is of %s", s, p.makes(), p.when(last.At))
		}
	case s.every > 0:
		d.Next = slot
		d.Reason = fmt.Sprintf("scheduled %s, and the last %s is of %s", s, p.makes(), p.when(last.At))
	case !ok:
		d.Reason = fmt.Sprintf("not due before %s (%s)", p.when(d.Next), s)
	case any && !last.At.Before(slot):
		d.Reason = fmt.Sprintf("%s was the last time (%s), and there is a %s of %s", p.when(slot), s, p.makes(), p.when(last.At))
	case now.Before(slot.AddDate(0, 0, 1)):
		d.Due, d.Slot = true, slot
		d.Reason = fmt.Sprintf("scheduled for %s (%s)", p.when(slot), s)
	case p.CatchUp:
		d.Due, d.Slot = true, slot
		d.Reason = fmt.Sprintf("the run of %s was missed (%s), and is caught up", p.when(slot), s)
	default:
		d.Reason = fmt.Sprintf("the run of %s was missed, and is not caught up (%s); the next is %s", p.when(slot), s, p.when(d.Next))
	}
}

// when is a time as people read it: a date, and the time of day unless it is midnight.
func (p Policy) when(t time.Time) string {
	t = t.In(p.Zone)
	if h, m, s := t.Clock(); h == 0 && m == 0 && s == 0 {
		return t.Format("2006-01-02")
	}
	return t.Format("2006-01-02 15:04:05")
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

package plan

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/adhocore/gronx"

	"github.com/firn-backup/firn/internal/units"
)

// Schedule is when a set is backed up. The zero value is never, unless asked.
//
// A scheduled time is missed when there is no run within a day after it; before that a run that comes is the scheduled
// one. "every" is never missed: it is due until it is done.
//
// Times are those of the clock on the wall: one that a clock put forward leaves out comes as much later as the clock was put,
// and one that comes twice counts the first time.
type Schedule struct {
	text  string
	days  []int // of the month, sorted; 32: the last
	hour  int
	min   int
	cron  string
	every time.Duration
}

// lastDay in Schedule.days is the last day of any month.
const lastDay = 32

// ErrSchedule is wrapped by what ParseSchedule returns.
var ErrSchedule = errors.New("a schedule is " + ScheduleForms)

// ScheduleForms are examples of what ParseSchedule reads.
const ScheduleForms = `"monthdays 1,7,14,21", "monthdays 1,last at 02:00", "cron 0 2 * * 0" or "every 24h"`

// ParseSchedule reads "monthdays DAY[,DAY…] [at HH:MM]" (days 1 to 31, or last; at midnight unless told), "cron EXPRESSION"
// (five fields, or @hourly, @daily, @weekly, @monthly, @yearly) or "every DURATION" (a minute or more).
func ParseSchedule(text string) (Schedule, error) {
	kind, rest, _ := strings.Cut(strings.Join(strings.Fields(text), " "), " ")
	s := Schedule{text: kind + " " + rest}
	var err error
	switch kind {
	case "monthdays":
		err = s.parseDays(rest)
	case "cron":
		err = s.parseCron(rest)
	case "every":
		s.every, err = units.ParseDuration(rest)
		if err == nil && (s.every < time.Minute || s.every > maxSpan) {
			err = errors.New("must be one minute to 100 years")
		}
	default:
		return Schedule{}, fmt.Errorf("%q: %w", text, ErrSchedule)
	}
	if err != nil {
		return Schedule{}, fmt.Errorf("%q: %w; %w", text, err, ErrSchedule)
	}
	return s, nil
}

// maxSpan bounds durations, so that dates stay in the calendar's years.
const maxSpan = 36525 * 24 * time.Hour

func (s *Schedule) parseDays(rest string) error {
	list, clock, at := strings.Cut(rest, " at ")
	for _, w := range strings.Split(list, ",") {
		w = strings.TrimSpace(w)
		n, err := strconv.Atoi(w)
		switch {
		case w == "last":
			n = lastDay
		case err != nil || n < 1 || n > 31:
			return fmt.Errorf("%q is not a day of the month", w)
		}
		s.days = append(s.days, n)
	}
	slices.Sort(s.days)
	s.days = slices.Compact(s.days)
	if at {
		t, err := time.Parse("15:04", clock)
		if err != nil {
			return fmt.Errorf("%q is not a time of day", clock)
		}
		s.hour, s.min, _ = t.Clock()
	}
	return nil
}

func (s *Schedule) parseCron(rest string) error {
	if n := len(strings.Fields(rest)); n != 5 && (n != 1 || !strings.HasPrefix(rest, "@")) {
		return errors.New("a cron expression has five fields: minute, hour, day of month, month, day of week")
	}
	if !gronx.IsValid(rest) {
		return errors.New("not a cron expression")
	}
	s.cron = rest
	if _, err := gronx.NextTickAfter(rest, time.Date(2001, 1, 1, 0, 0, 0, 0, time.UTC), true); err != nil {
		return errors.New("no time ever fits it")
	}
	return nil
}

// IsZero says that there is no schedule.
func (s Schedule) IsZero() bool { return s.text == "" }

// Equal says whether two schedules are written alike.
func (s Schedule) Equal(other Schedule) bool { return s.text == other.text }

// String is what ParseSchedule reads.
func (s Schedule) String() string { return s.text }

// prev is the last scheduled time up to now; of "every", whether the time since last, if there is one, is
// over, and when it is. ok is false where there is none.
func (s Schedule) prev(now time.Time, loc *time.Location, last time.Time, any bool) (slot time.Time, ok bool) {
	switch {
	case s.every > 0 && !any:
		return now, true
	case s.every > 0:
		slot = forward(last.In(loc), s.every)
		// Timers are early at times, by seconds: a day would be left out.
		return slot, !slot.Add(-s.every / 100).After(now)
	case s.cron != "":
		return s.cronPrev(now, loc)
	}
	y, m, _ := now.In(loc).Date()
	for back := range 13 { // "31" may be two months off, never more
		days := s.inMonth(y, m-time.Month(back), loc)
		for _, t := range slices.Backward(days) {
			if !t.After(now) {
				return t, true
			}
		}
	}
	return time.Time{}, false
}

// next is the first scheduled time after a time; of "every", counted from last.
func (s Schedule) next(after time.Time, loc *time.Location, last time.Time) time.Time {
	switch {
	case s.IsZero():
		return time.Time{}
	case s.every > 0:
		return forward(last.In(loc), s.every)
	case s.cron != "":
		return s.cronNext(after, loc)
	}
	y, m, _ := after.In(loc).Date()
	for ahead := range 13 {
		for _, t := range s.inMonth(y, m+time.Month(ahead), loc) {
			if t.After(after) {
				return t
			}
		}
	}
	return time.Time{}
}

// inMonth are the scheduled times of a month, in order.
func (s Schedule) inMonth(y int, m time.Month, loc *time.Location) []time.Time {
	first := time.Date(y, m, 1, 0, 0, 0, 0, time.UTC)
	y, m, _ = first.Date()
	end := first.AddDate(0, 1, -1).Day()
	var list []time.Time
	for _, d := range s.days {
		if d == lastDay {
			d = end
		}
		if d > end || len(list) > 0 && list[len(list)-1].In(loc).Day() == d {
			continue
		}
		list = append(list, wallTime(y, m, d, s.hour, s.min, loc))
	}
	return list
}

// Cron expressions are matched against the clock on the wall, as if it were UTC, which has no
// times that are missing or come twice; what fits becomes a time of the zone.

func naive(t time.Time, loc *time.Location) time.Time {
	t = t.In(loc)
	return time.Date(t.Year(), t.Month(), t.Day(), t.Hour(), t.Minute(), t.Second(), t.Nanosecond(), time.UTC)
}

// A time of the zone and one of the clock are never in another order by more than a few
// minutes' worth of scheduled times; these bound the search.
const maxSteps = 3000

func (s Schedule) cronPrev(now time.Time, loc *time.Location) (time.Time, bool) {
	// In the second pass of an hour that comes twice the clock shows times that are yet to be passed in no pass.
	from, incl := naive(now, loc), true
	for range maxSteps {
		tick, err := gronx.PrevTickBefore(s.cron, from, incl)
		if err != nil {
			return time.Time{}, false
		}
		tick = tick.Truncate(time.Minute)
		if t := wallOf(tick, loc); !t.After(now) {
			return t, true
		}
		from, incl = tick.Add(-time.Second), true
	}
	return time.Time{}, false
}

func (s Schedule) cronNext(after time.Time, loc *time.Location) time.Time {
	from := naive(after, loc).Truncate(time.Minute).Add(time.Minute)
	for range maxSteps {
		tick, err := gronx.NextTickAfter(s.cron, from, true)
		if err != nil {
			return time.Time{}
		}
		tick = tick.Truncate(time.Minute)
		if t := wallOf(tick, loc); t.After(after) {
			return t
		}
		from = tick.Add(time.Minute)
	}
	return time.Time{}
}

func wallOf(t time.Time, loc *time.Location) time.Time {
	return wallTime(t.Year(), t.Month(), t.Day(), t.Hour(), t.Minute(), loc)
}

// wallTime is the moment at which clocks of a zone show a time: the first, where
// it comes twice, and as much later as the clock is put forward, where it does not come.
func wallTime(y int, m time.Month, d, hour, min int, loc *time.Location) time.Time {
	want := time.Date(y, m, d, hour, min, 0, 0, time.UTC)
	t := time.Date(y, m, d, hour, min, 0, 0, loc)
	// Which of two moments, or which side of a gap, Date answers is not promised. The offset
	// a day before is that before any change: with it the answer is the first, and in a gap the later.
	_, before := t.AddDate(0, 0, -1).Zone()
	if u := want.Add(-time.Duration(before) * time.Second).In(loc); naive(u, loc).Equal(want) || !naive(t, loc).Equal(want) {
		return u
	}
	return t
}

// forward is d after t: whole days are days of t's calendar.
func forward(t time.Time, d time.Duration) time.Time {
	d = min(d, maxSpan)
	const day = 24 * time.Hour
	return t.AddDate(0, 0, int(d/day)).Add(d % day)
}

// backward is d before t, in the same way.
func backward(t time.Time, d time.Duration) time.Time {
	d = min(d, maxSpan)
	const day = 24 * time.Hour
	return t.AddDate(0, 0, -int(d/day)).Add(-(d % day))
}

func span(d time.Duration) string { return units.Duration(d) }

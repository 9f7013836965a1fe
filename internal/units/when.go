package units

import (
	"fmt"
	"strings"
	"time"
)

// When says which snapshot of a set is meant: exactly one field is set.
type When struct {
	Latest bool
	ID     string    // a snapshot's id, in capitals
	At     time.Time // the newest snapshot whose date is not after it
}

// ParseWhen reads what stands after the @ in SET@WHEN: "latest" (or nothing), a
// snapshot's id, or a time as ParseTime reads it, which stands for all of the
// day, minute or second that it names: "2026-11-01" is the end of that day in
// loc, "2026-11-01 14:00" the end of that minute.
func ParseWhen(s string, loc *time.Location) (When, error) {
	t := strings.TrimSpace(s)
	if t == "" || strings.EqualFold(t, "latest") {
		return When{Latest: true}, nil
	}
	if looksLikeID(t) {
		return When{ID: strings.ToUpper(t)}, nil
	}
	_, end, err := ParseTime(t, loc)
	if err != nil {
		return When{}, fmt.Errorf("%q is neither latest, nor a snapshot's id, nor a time (2026-11-01, \"2026-11-01 14:00\", 2026-11-01T14:00:00Z)", s)
	}
	return When{At: end}, nil
}

// looksLikeID says whether s has the form of a ULID: 26 characters of
// Crockford's base 32, of which the first is at most 7.
func looksLikeID(s string) bool {
	if len(s) != 26 || s[0] > '7' {
		return false
	}
	for _, c := range strings.ToUpper(s) {
		if !strings.ContainsRune("0123456789ABCDEFGHJKMNPQRSTVWXYZ", c) {
			return false
		}
	}
	return true
}

// layouts of ParseTime, with the unit that each names last. Those without a
// zone are in the caller's.
func layouts() []struct {
	layout string
	unit   time.Duration
} {
	return []struct {
		layout string
		unit   time.Duration
	}{
		{"2006-01-02", day},
		{"2006-01-02 15:04", time.Minute},
		{"2006-01-02T15:04", time.Minute},
		{"2006-01-02 15:04:05", time.Second},
		{"2006-01-02T15:04:05", time.Second},
		{"2006-01-02T15:04Z07:00", time.Minute},
		{"2006-01-02 15:04:05Z07:00", time.Second},
		{"2006-01-02 15:04:05 Z0700", time.Second},
		{time.RFC3339, time.Second},
	}
}

// ParseTime reads a date, a date and time, or RFC 3339, and returns the first
// and the last nanosecond of what it names. Times without a zone are in loc.
// With a fraction of a second both are that instant. A local time that a clock
// change skips or repeats is read as the time package does; a day is from its
// midnight to the next, be it of 23 or 25 hours.
func ParseTime(s string, loc *time.Location) (start, end time.Time, err error) {
	for _, l := range layouts() {
		t, err := time.ParseInLocation(l.layout, s, loc)
		if err != nil {
			continue
		}
		switch {
		case t.Nanosecond() != 0:
			return t, t, nil
		case l.unit == day:
			y, m, d := t.Date()
			return t, time.Date(y, m, d+1, 0, 0, 0, 0, loc).Add(-1), nil
		}
		return t, t.Add(l.unit - 1), nil
	}
	return time.Time{}, time.Time{}, fmt.Errorf("time %q: not a date (2026-11-01), a date and time (\"2026-11-01 14:00\") or RFC 3339 (2026-11-01T14:00:00Z)", s)
}

// Time prints t for people, in its own zone: "2026-11-01 14:00:05". ParseWhen
// reads it back as that second.
func Time(t time.Time) string { return t.Format("2006-01-02 15:04:05") }

package plan

import (
	"strings"
	"testing"
	"time"

	"github.com/adhocore/gronx"
	"pgregory.net/rapid"
)

func mustZone(t *testing.T, name string) *time.Location {
	t.Helper()
	loc, err := time.LoadLocation(name)
	if err != nil {
		t.Fatal(err)
	}
	return loc
}

func TestParseSchedule(t *testing.T) {
	t.Parallel()
	for _, s := range []string{
		"monthdays 1,7,14,21", "monthdays  31", "monthdays 1, last at 02:30", "cron 0 2 * * 0", "cron @daily", "cron */15 1-5 1,15 * mon-fri",
		"every 24h", "every 7d", "every 1m",
	} {
		got, err := ParseSchedule(s)
		if err != nil {
			t.Errorf("%s: %v", s, err)
			continue
		}
		again, err := ParseSchedule(got.String())
		if err != nil || again.String() != got.String() {
			t.Errorf("%s: as text %q, %v", s, got, err)
		}
	}
	for _, s := range []string{
		"", "monthdays", "monthdays 0", "monthdays 32", "monthdays 1,,2", "monthdays 1 at 25:00", "monthdays 1 at", "cron", "cron 1 2 3", "cron 61 * * * *",
		"cron 0 0 31 2 *", "cron * * * * * *", "every", "every 5s", "every -1h", "daily", "every 40000d",
	} {
		if got, err := ParseSchedule(s); err == nil {
			t.Errorf("%q is taken, as %q", s, got)
		}
	}
}

// TestCronAgainstMinutes holds the search for times against trying every minute.
func TestCronAgainstMinutes(t *testing.T) {
	t.Parallel()
	g := gronx.New()
	for _, expr := range []string{"0 2 * * 0", "30 2 * * *", "*/7 3 1,15 * *", "0 0 1 * *", "59 23 28-31 * 1-5", "15,45 */6 * 2,3,10,11 *"} {
		s, err := ParseSchedule("cron " + expr)
		if err != nil {
			t.Fatal(err)
		}
		start := time.Date(2024, 2, 1, 0, 0, 0, 0, time.UTC)
		last := time.Time{}
		for m := range 60 * 24 * 80 {
			now := start.Add(time.Duration(m) * time.Minute)
			due, err := g.IsDue(expr, now)
			if err != nil {
				t.Fatal(err)
			}
			if due {
				if !last.IsZero() {
					if next := s.next(last, time.UTC, last); !next.Equal(now) {
						t.Fatalf("%s: after %s comes %s, not %s", expr, last, now, next)
					}
				}
				last = now
			}
			if m%97 == 0 && !last.IsZero() {
				if prev, ok := s.prev(now.Add(30*time.Second), time.UTC, now, true); !ok || !prev.Equal(last) {
					t.Fatalf("%s: before %s was %s, not %s", expr, now, last, prev)
				}
			}
		}
	}
}

func TestClockChanges(t *testing.T) {
	t.Parallel()
	berlin := mustZone(t, "Europe/Berlin")
	at := func(s string) time.Time {
		x, err := time.Parse(time.RFC3339, s)
		if err != nil {
			t.Fatal(err)
		}
		return x
	}
	for _, c := range []struct{ schedule, after, next string }{
		{"cron 30 2 * * *", "2026-03-28T12:00:00+01:00", "2026-03-29T03:30:00+02:00"}, // 02:30 does not come
		{"cron 30 2 * * *", "2026-03-29T03:30:00+02:00", "2026-03-30T02:30:00+02:00"},
		{"cron 30 2 * * *", "2026-10-24T12:00:00+02:00", "2026-10-25T02:30:00+02:00"}, // 02:30 comes twice
		{"cron 30 2 * * *", "2026-10-25T02:30:00+02:00", "2026-10-26T02:30:00+01:00"},
		{"cron 30 2 * * *", "2026-10-25T02:10:00+01:00", "2026-10-26T02:30:00+01:00"}, // in the second pass
		{"monthdays 29 at 02:30", "2026-03-28T12:00:00+01:00", "2026-03-29T03:30:00+02:00"},
		{"monthdays 25 at 02:30", "2026-10-24T12:00:00+02:00", "2026-10-25T02:30:00+02:00"},
		{"monthdays 31", "2026-01-31T00:00:00+01:00", "2026-03-31T00:00:00+02:00"},
		{"monthdays last", "2026-01-31T00:00:00+01:00", "2026-02-28T00:00:00+01:00"},
		{"monthdays 28,last", "2026-01-31T12:00:00+01:00", "2026-02-28T00:00:00+01:00"},
	} {
		s, err := ParseSchedule(c.schedule)
		if err != nil {
			t.Fatal(err)
		}
		if got := s.next(at(c.after), berlin, time.Time{}); !got.Equal(at(c.next)) {
			t.Errorf("%s after %s: %s, not %s", c.schedule, c.after, got, c.next)
		}
		if got, ok := s.prev(at(c.next), berlin, time.Time{}, true); !ok || !got.Equal(at(c.next)) {
			t.Errorf("%s up to %s: %s", c.schedule, c.next, got)
		}
	}
	// Where midnight does not come the day begins later.
	beirut := mustZone(t, "Asia/Beirut")
	s, _ := ParseSchedule("monthdays 27")
	if got := s.next(time.Date(2022, 3, 20, 0, 0, 0, 0, beirut), beirut, time.Time{}); got.Format(time.RFC3339) != "2022-03-27T01:00:00+03:00" {
		t.Errorf("day without midnight: %s", got)
	}
}

// TestSchedulesAreConsistent: the next time after any is later, and is the last up to itself; none lies between.
func TestSchedulesAreConsistent(t *testing.T) {
	t.Parallel()
	zones := []*time.Location{time.UTC, mustZone(t, "Europe/Berlin"), mustZone(t, "America/New_York"), mustZone(t, "Australia/Lord_Howe"), mustZone(t, "Pacific/Apia")}
	texts := strings.Split("monthdays 1,7,14,21|monthdays 31|monthdays last at 02:30|cron 30 2 * * *|cron */20 * * * *|cron 0 0 29 2 *|cron 0 5 31 * *|cron @weekly|cron 0 12 13 * 5|cron 5 4 */2 * *", "|")
	rapid.Check(t, func(t *rapid.T) {
		s, err := ParseSchedule(rapid.SampledFrom(texts).Draw(t, "schedule"))
		if err != nil {
			t.Fatal(err)
		}
		loc := rapid.SampledFrom(zones).Draw(t, "zone")
		now := time.Unix(rapid.Int64Range(1_000_000_000, 2_500_000_000).Draw(t, "now"), 0)
		next := s.next(now, loc, now)
		if !next.After(now) {
			t.Fatalf("%s: next after %s is %s", s, now.In(loc), next)
		}
		if got, ok := s.prev(next, loc, now, true); !ok || !got.Equal(next) {
			t.Fatalf("%s: last up to %s is %s", s, next, got)
		}
		if got, ok := s.prev(next.Add(-time.Second), loc, now, true); !ok || got.After(now) {
			t.Fatalf("%s: %s lies between %s and %s", s, got, now.In(loc), next)
		}
	})
}

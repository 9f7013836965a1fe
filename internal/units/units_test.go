package units

import (
	"math"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestParseSize(t *testing.T) {
	t.Parallel()
	good := map[string]int64{
		"0": 0, "1": 1, "512B": 512, "64MiB": 64 << 20, "1 GiB": 1 << 30, "500k": 500 << 10, "500kB": 500000,
		"1.5GiB": 3 << 29, "0.5k": 512, "1e": 1 << 60, " 7 mib ": 7 << 20, "9223372036854775807": math.MaxInt64,
		"1.0009765625k": 1025, "0.1k": 102, "2TB": 2e12, "007": 7,
	}
	for in, want := range good {
		if got, err := ParseSize(in); err != nil || got != want {
			t.Errorf("%q: %d, %v; want %d", in, got, err, want)
		}
	}
	for _, in := range []string{"", " ", "-1", "+1", "1.5", "1.5B", "x", "1x", "1 GiBB", "8e", "9223372036854775808", ".5k", "5.k",
		"1.2.3k", "0x10", "1e3", "1_000", "1 000", "10%", "١k", "k", "1kib2", "infGiB"} {
		if got, err := ParseSize(in); err == nil {
			t.Errorf("%q accepted as %d", in, got)
		}
	}
}

func TestSizesRoundTrip(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.OneOf(rapid.Int64Range(0, math.MaxInt64), rapid.Int64Range(0, 5000),
			rapid.Custom(func(t *rapid.T) int64 {
				return rapid.Int64Range(0, 7).Draw(t, "n") << (10 * rapid.IntRange(0, 6).Draw(t, "power"))
			})).Draw(t, "n")
		if got, err := ParseSize(ExactSize(n)); err != nil || got != n {
			t.Fatalf("%d is printed %q and read as %d, %v", n, ExactSize(n), got, err)
		}
		human := Size(n)
		got, err := ParseSize(human)
		if err != nil {
			t.Fatalf("%q: %v", human, err)
		}
		// Three digits, cut off, and then a whole number of bytes.
		if got > n || float64(n-got) > float64(n)*0.01+1 {
			t.Fatalf("%d is printed %q, which is %d", n, human, got)
		}
	})
}

func TestSize(t *testing.T) {
	t.Parallel()
	for n, want := range map[int64]string{
		0: "0 B", 1023: "1023 B", 1024: "1.00 KiB", 1535: "1.49 KiB", 10240: "10.0 KiB", 1<<20 - 1: "1023 KiB",
		1 << 20: "1.00 MiB", 150 << 20: "150 MiB", math.MaxInt64: "7.99 EiB", math.MinInt64: "-8.00 EiB", -2048: "-2.00 KiB",
	} {
		if got := Size(n); got != want {
			t.Errorf("%d: %q, want %q", n, got, want)
		}
	}
}

func TestParseRate(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]int64{"10MiB/s": 10 << 20, "10m": 10 << 20, "100Mbit/s": 12500000, "1Gbit": 125000000, "800bit/s": 100, "1 MB/S": 1e6} {
		if got, err := ParseRate(in); err != nil || got != want {
			t.Errorf("%q: %d, %v; want %d", in, got, err, want)
		}
	}
	for _, in := range []string{"", "0", "/s", "bit", "1Mibit/s", "7bit/s", "10MiB/h"} {
		if got, err := ParseRate(in); err == nil {
			t.Errorf("%q accepted as %d", in, got)
		}
	}
	if got := Rate(1 << 20); got != "1.00 MiB/s" {
		t.Error(got)
	}
	if got := Rate(math.Inf(1)); got != "?" {
		t.Error(got)
	}
}

func TestParseDuration(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]time.Duration{
		"180d": 180 * day, "2w": 14 * day, "1d12h": 36 * time.Hour, "1h30m": 90 * time.Minute, "90s": 90 * time.Second, "0": 0, "0s": 0,
		"1.5d": 36 * time.Hour, "250ms": 250 * time.Millisecond, " 1d ": day, "1d 2h": 26 * time.Hour, "5µs": 5 * time.Microsecond,
	} {
		if got, err := ParseDuration(in); err != nil || got != want {
			t.Errorf("%q: %v, %v; want %v", in, got, err, want)
		}
	}
	for _, in := range []string{"", "d", "1", "1y", "-1d", "1d-2h", "200000w", "106751d24h", "1dd", "h1"} {
		if got, err := ParseDuration(in); err == nil {
			t.Errorf("%q accepted as %v", in, got)
		}
	}
}

func TestDurationsRoundTrip(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		d := time.Duration(rapid.OneOf(rapid.Int64Range(0, math.MaxInt64), rapid.Int64Range(0, int64(time.Hour))).Draw(t, "d"))
		if got, err := ParseDuration(Duration(d)); err != nil || got != d {
			t.Fatalf("%d is printed %q and read as %d, %v", d, Duration(d), got, err)
		}
	})
	rapid.Check(t, func(t *rapid.T) { // what the standard library prints is read alike
		d := time.Duration(rapid.Int64Range(0, math.MaxInt64).Draw(t, "d"))
		if got, err := ParseDuration(d.String()); err != nil || got != d {
			t.Fatalf("%q is read as %d, %v", d, got, err)
		}
	})
}

func TestClock(t *testing.T) {
	t.Parallel()
	for d, want := range map[time.Duration]string{0: "0:00", 7 * time.Second: "0:07", 754 * time.Second: "12:34", 12345 * time.Second: "3:25:45", -1: "0:00"} {
		if got := Clock(d); got != want {
			t.Errorf("%v: %q, want %q", d, got, want)
		}
	}
}

func berlin(t testing.TB) *time.Location {
	t.Helper()
	loc, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		loc = time.FixedZone("CET", 3600)
	}
	return loc
}

func TestParseWhen(t *testing.T) {
	t.Parallel()
	loc := berlin(t)
	id := "01JD8ZQ4T1ABCDEFGHJKMNPQRS"
	for in, want := range map[string]When{
		"": {Latest: true}, "latest": {Latest: true}, "Latest": {Latest: true},
		id: {ID: id}, strings.ToLower(id): {ID: id},
		"2026-11-01":                {At: time.Date(2026, 11, 1, 23, 59, 59, 999999999, loc)},
		"2026-11-01 14:00":          {At: time.Date(2026, 11, 1, 14, 0, 59, 999999999, loc)},
		"2026-11-01T14:00":          {At: time.Date(2026, 11, 1, 14, 0, 59, 999999999, loc)},
		"2026-11-01 14:00:05":       {At: time.Date(2026, 11, 1, 14, 0, 5, 999999999, loc)},
		"2026-11-01T14:00:05Z":      {At: time.Date(2026, 11, 1, 14, 0, 5, 999999999, time.UTC)},
		"2026-11-01T14:00:05+05:30": {At: time.Date(2026, 11, 1, 8, 30, 5, 999999999, time.UTC)},
		"2026-11-01T14:00:05.25Z":   {At: time.Date(2026, 11, 1, 14, 0, 5, 250000000, time.UTC)},
	} {
		got, err := ParseWhen(in, loc)
		if err != nil || got.Latest != want.Latest || got.ID != want.ID || !got.At.Equal(want.At) {
			t.Errorf("%q: %+v, %v; want %+v", in, got, err, want)
		}
	}
	for _, in := range []string{"yesterday", "2026-02-30", "2026-13-01", "26-11-01", "2026-11-01 25:00", "2026-11-01 14", "01.11.2026", id + "0", "81JD8ZQ4T1ABCDEFGHJKMNPQRS"} {
		if got, err := ParseWhen(in, loc); err == nil {
			t.Errorf("%q accepted as %+v", in, got)
		}
	}
}

// A day is a day, also when the clocks change in it.
func TestDaysOfClockChanges(t *testing.T) {
	t.Parallel()
	loc := berlin(t)
	if loc.String() != "Europe/Berlin" {
		t.Skip("no zone database")
	}
	for in, hours := range map[string]int{"2026-03-29": 23, "2026-10-25": 25, "2026-11-01": 24} {
		start, end, err := ParseTime(in, loc)
		if err != nil || end.Sub(start)+1 != time.Duration(hours)*time.Hour {
			t.Errorf("%s: %v to %v, %v", in, start, end, err)
		}
	}
}

// What is printed is read back as the second it was printed in, in any zone
// without a change in that hour, and no instant of a day is outside of it.
func TestTimesRoundTrip(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		loc := time.FixedZone("x", rapid.IntRange(-14*60, 14*60).Draw(t, "minutes")*60)
		at := time.Unix(rapid.Int64Range(0, 4e9).Draw(t, "sec"), rapid.Int64Range(0, 999999999).Draw(t, "nsec")).In(loc)
		w, err := ParseWhen(Time(at), loc)
		if err != nil || w.At.Before(at) || w.At.Sub(at) >= time.Second {
			t.Fatalf("%v is printed %q and read as %v, %v", at, Time(at), w.At, err)
		}
		w, err = ParseWhen(at.Format(time.RFC3339Nano), loc)
		if err != nil || w.At.Before(at) || w.At.Sub(at) >= time.Second {
			t.Fatalf("RFC 3339: %v is read as %v, %v", at, w.At, err)
		}
		start, end, err := ParseTime(at.Format("2006-01-02"), loc)
		if err != nil || at.Before(start) || at.After(end) || end.Sub(start) != day-1 {
			t.Fatalf("%v is not in its day %v to %v, %v", at, start, end, err)
		}
	})
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"64MiB", "1.5k", "180d", "1d12h", "10Mbit/s", "2026-11-01", "latest", "01JD8ZQ4T1ABCDEFGHJKMNPQRS"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if n, err := ParseSize(s); err == nil && n < 0 {
			t.Errorf("size %d", n)
		}
		if d, err := ParseDuration(s); err == nil && d < 0 {
			t.Errorf("duration %d", d)
		}
		if n, err := ParseRate(s); err == nil && n < 1 {
			t.Errorf("rate %d", n)
		}
		if w, err := ParseWhen(s, time.UTC); err == nil && !w.Latest && w.ID == "" && w.At.IsZero() && !strings.Contains(s, "0001") {
			t.Errorf("%q means nothing", s)
		}
	})
}

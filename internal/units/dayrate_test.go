package units

import (
	"testing"
	"time"
)

func TestDayRates(t *testing.T) {
	t.Parallel()
	at := func(clock string) time.Time {
		x, err := time.Parse("15:04", clock)
		if err != nil {
			t.Fatal(err)
		}
		return x
	}
	for _, c := range []struct {
		list []string
		at   map[string]int64
	}{
		{[]string{"500KiB"}, map[string]int64{"00:00": 500 << 10, "23:59": 500 << 10}},
		{[]string{"08:00-18:00 500KiB/s", "18:00-08:00 0"}, map[string]int64{"07:59": 0, "08:00": 500 << 10, "17:59": 500 << 10, "18:00": 0}},
		{[]string{"22:00-06:00 none", "1MiB"}, map[string]int64{"21:59": 1 << 20, "22:00": 0, "00:00": 0, "05:59": 0, "06:00": 1 << 20}},
		{[]string{"18:00-24:00 8Mbit"}, map[string]int64{"17:59": 0, "18:00": 1e6, "23:59": 1e6, "00:00": 0}},
	} {
		all, err := ParseDayRates(c.list)
		if err != nil {
			t.Errorf("%q: %v", c.list, err)
			continue
		}
		for clock, want := range c.at {
			if got := RateAt(all, at(clock)); got != want {
				t.Errorf("%q at %s: %d, want %d", c.list, clock, got, want)
			}
		}
	}
	for _, list := range [][]string{nil, {"0"}, {"none"}, {"08:00-09:00 0"}} {
		if all, err := ParseDayRates(list); all != nil || err != nil {
			t.Errorf("%q: %v, %v", list, all, err)
		}
	}
	for _, bad := range []string{"", "x", "08:00-18:00", "8-18 1MiB", "08:00-08:00 1MiB", "25:00-26:00 1MiB", "08:00 1MiB", "-1"} {
		if all, err := ParseDayRates([]string{bad}); err == nil {
			t.Errorf("%q: %v", bad, all)
		}
	}
}

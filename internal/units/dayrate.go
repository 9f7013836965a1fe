package units

import (
	"fmt"
	"strings"
	"time"
)

// DayRate is a rate that holds at a time of day.
type DayRate struct {
	From, To int   // minutes after midnight; From = To: always. To before From: over midnight
	Rate     int64 // bytes a second; 0: no limit
}

// minutesOfDay is how many a day of the wall clock has.
const minutesOfDay = 24 * 60

// ParseDayRates reads rates by time of day: "500KiB" (always), "08:00-18:00 500KiB", or several of
// these, of which the first that fits counts. "0" and "none" are no limit, as is any time that none fits. The result is nil
// where there is no limit at all.
func ParseDayRates(list []string) ([]DayRate, error) {
	var all []DayRate
	limits := false
	for _, s := range list {
		var r DayRate
		rate := strings.TrimSpace(s)
		if span, rest, ok := strings.Cut(rate, " "); ok && strings.Contains(span, ":") {
			from, to, _ := strings.Cut(span, "-")
			var err error
			if r.From, err = parseMinute(from); err == nil {
				r.To, err = parseMinute(to)
			}
			if err != nil || r.From == r.To {
				return nil, fmt.Errorf("rate %q: %q is not a time of day such as 08:00-18:00", s, span)
			}
			r.To %= minutesOfDay
			rate = strings.TrimSpace(rest)
		}
		if rate != "0" && !strings.EqualFold(rate, "none") {
			n, err := ParseRate(rate)
			if err != nil {
				return nil, err
			}
			r.Rate, limits = n, true
		}
		all = append(all, r)
	}
	if !limits {
		return nil, nil
	}
	return all, nil
}

// parseMinute reads 00:00 to 24:00.
func parseMinute(s string) (int, error) {
	if s == "24:00" {
		return minutesOfDay, nil
	}
	t, err := time.Parse("15:04", s)
	if err != nil {
		return 0, err
	}
	return t.Hour()*60 + t.Minute(), nil
}

// RateAt is the rate that holds at a time, in its own place; 0: no limit.
func RateAt(all []DayRate, at time.Time) int64 {
	m := at.Hour()*60 + at.Minute()
	for _, r := range all {
		inside := r.From == r.To
		switch {
		case r.From < r.To:
			inside = r.From <= m && m < r.To
		case r.From > r.To:
			inside = m >= r.From || m < r.To
		}
		if inside {
			return r.Rate
		}
	}
	return 0
}

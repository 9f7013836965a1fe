package cost

import (
	"fmt"
	"math"
	"math/bits"
	"strconv"
	"strings"
	"time"
)

// Pace is how fast requests go out: so many in a time. The zero Pace has no limit.
type Pace struct {
	Requests int64
	Per      time.Duration
}

const (
	// quotaPerPiB is the service's quota of retrievals in random order, per PiB
	// stored and day (Amazon Glacier quotas). More are not refused but may be slow. Retrievals in
	// the order in which archives were made do not count.
	quotaPerPiB = 35
	pib         = 1 << 50
)

// Quota is the pace of retrievals in random order that a vault with so many bytes takes
// without slowing down: 35 a day for each PiB, a begun one counting whole.
func Quota(stored int64) Pace {
	units := max(stored, 1)/pib + 1
	if stored > 0 && stored%pib == 0 {
		units = stored / pib
	}
	return Pace{quotaPerPiB * units, day}
}

// Unlimited says that requests need not wait for one another.
func (p Pace) Unlimited() bool { return p.Requests <= 0 || p.Per <= 0 }

// At is when the request with that number, counted from 0, may go out, after the first one did.
func (p Pace) At(number int64) time.Duration {
	if p.Unlimited() || number <= 0 {
		return 0
	}
	return time.Duration(charge(number, Money(p.Per), uint64(p.Requests)))
}

// Over is how long it takes until the last of so many requests is out.
func (p Pace) Over(requests int64) time.Duration { return p.At(requests - 1) }

// Within is how many requests go out in less than d, the first at once: of those in any span of Per there are
// never more than Requests.
func (p Pace) Within(d time.Duration) int64 {
	if p.Unlimited() {
		return math.MaxInt64
	}
	times := int64(max(d, 0)/p.Per) + 1
	if p.Requests > math.MaxInt64/times {
		return math.MaxInt64
	}
	return p.Requests * times
}

// Slower is the slower one of two paces.
func (p Pace) Slower(q Pace) Pace {
	switch {
	case p.Unlimited():
		return q
	case q.Unlimited():
		return p
	}
	qHi, qLo := bits.Mul64(uint64(q.Per), uint64(p.Requests))
	pHi, pLo := bits.Mul64(uint64(p.Per), uint64(q.Requests))
	if qHi > pHi || qHi == pHi && qLo > pLo {
		return q
	}
	return p
}

// ParsePace reads "35/day", "100/s", "10/min", "600/h".
func ParsePace(s string) (Pace, error) {
	count, unit, ok := strings.Cut(strings.TrimSpace(s), "/")
	n, err := strconv.ParseInt(strings.TrimSpace(count), 10, 64)
	var per time.Duration
	switch strings.TrimSpace(unit) {
	case "s", "sec", "second":
		per = time.Second
	case "m", "min", "minute":
		per = time.Minute
	case "h", "hour":
		per = time.Hour
	case "d", "day":
		per = day
	}
	if !ok || err != nil || n < 1 || per == 0 {
		return Pace{}, fmt.Errorf("%q is not a pace, such as 35/day or 10/min", s)
	}
	return Pace{n, per}, nil
}

// String is what ParsePace reads; empty for no limit.
func (p Pace) String() string {
	if p.Unlimited() {
		return ""
	}
	for _, u := range []struct {
		per  time.Duration
		name string
	}{{time.Second, "s"}, {time.Minute, "min"}, {time.Hour, "h"}, {day, "day"}} {
		if p.Per == u.per {
			return fmt.Sprintf("%d/%s", p.Requests, u.name)
		}
	}
	return fmt.Sprintf("%d/%s", p.Requests, p.Per)
}

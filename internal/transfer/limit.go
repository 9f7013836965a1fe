package transfer

import (
	"context"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/firn-backup/firn/internal/units"
)

// Limiter holds all that goes over the line, in both directions and of all uploads and reads that share it,
// to a rate, which may depend on the time of day. A nil *Limiter does not limit. It is safe for concurrent use.
type Limiter struct {
	rates []units.DayRate
	now   func() time.Time
	sleep func(ctx context.Context, d time.Duration) error

	mu     sync.Mutex
	bucket *rate.Limiter
	per    int64 // bytes a second, of bucket
}

const (
	// The bytes that pass at once: small enough for the flow to be even, and large enough for few waits.
	maxBurst = 64 << 10
	minBurst = 1 << 10
	// At a low rate a burst is what flows in a bursts-th of a second.
	bursts = 8
)

// NewLimiter makes a Limiter; nil where rates do not limit. now tells the time of day and sleep waits;
// nil: the real ones. Tests replace both.
func NewLimiter(rates []units.DayRate, now func() time.Time, sleeper func(ctx context.Context, d time.Duration) error) *Limiter {
	if len(rates) == 0 {
		return nil
	}
	if now == nil {
		now = time.Now
	}
	if sleeper == nil {
		sleeper = Sleep
	}
	return &Limiter{rates: rates, now: now, sleep: sleeper}
}

// burst is how many bytes may pass at once.
func burst(per int64) int { return int(min(max(per/bursts, minBurst), maxBurst)) }

// Wait waits until n more bytes may pass.
func (l *Limiter) Wait(ctx context.Context, n int) error {
	for l != nil && n > 0 {
		some, pause := l.reserve(n)
		if pause > 0 {
			if err := l.sleep(ctx, pause); err != nil {
				return err
			}
		}
		n -= some
	}
	return ctx.Err()
}

// reserve takes some of n bytes, and says how long they have to wait.
func (l *Limiter) reserve(n int) (some int, pause time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	per := units.RateAt(l.rates, now)
	if per == 0 {
		return min(n, maxBurst), 0 // and then look at the clock again
	}
	switch {
	case l.bucket == nil || l.per == 0:
		l.bucket = rate.NewLimiter(rate.Limit(per), burst(per))
		l.bucket.ReserveN(now, burst(per)) // it does not begin with a gift
	case per != l.per:
		l.bucket.SetLimitAt(now, rate.Limit(per))
		l.bucket.SetBurstAt(now, burst(per))
	}
	l.per = per
	some = min(n, burst(per))
	return some, l.bucket.ReserveN(now, some).DelayFrom(now)
}

// step is how many bytes to move before the next Wait; 0: as many as there are.
func (l *Limiter) step() int {
	if l == nil {
		return 0
	}
	return maxBurst
}

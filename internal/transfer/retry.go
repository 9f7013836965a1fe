package transfer

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"syscall"
	"time"

	"github.com/firn-backup/firn/internal/coldstore"
)

const (
	firstPause = 500 * time.Millisecond
	maxPause   = 30 * time.Second
)

// Transient says that an attempt may be repeated and may succeed then: the
// store says so, or the connection broke. Everything that package transfer
// does may be repeated when its answer was lost (ErrInDoubt); coldstore says so at each method.
func Transient(err error) bool {
	for _, target := range []error{
		coldstore.ErrThrottled, coldstore.ErrTemporary, coldstore.ErrInDoubt,
		io.ErrUnexpectedEOF, syscall.ECONNRESET, syscall.ECONNABORTED, syscall.EPIPE, syscall.ETIMEDOUT,
	} {
		if errors.Is(err, target) {
			return true
		}
	}
	return false
}

// A retrier counts the attempts at one thing.
type retrier struct {
	o     Options
	tries int // failed so far
}

// again waits and returns nil when another attempt is due after err; otherwise
// it returns err, or why the waiting was ended.
func (r *retrier) again(ctx context.Context, err error) error {
	if ctx.Err() != nil || !Transient(err) || r.tries >= r.o.Retries {
		return err
	}
	pause := min(firstPause<<min(r.tries, 16), maxPause)
	r.tries++
	// Half of it by chance, so that what failed together does not come back together.
	pause = pause/2 + rand.N(pause/2+1)
	if serr := r.o.Sleep(ctx, pause); serr != nil {
		return errors.Join(serr, err)
	}
	return nil
}

// Retry does f until it succeeds, fails for good, or has been tried as often as o says. f must be such that
// it may be repeated when its answer was lost.
func Retry(ctx context.Context, o Options, f func() error) error {
	return retry(ctx, o.withDefaults(), f)
}

// retry does f until it succeeds, fails for good, or has been tried often enough.
func retry(ctx context.Context, o Options, f func() error) error {
	r := retrier{o: o}
	for {
		err := f()
		if err == nil {
			return nil
		}
		if err := r.again(ctx, err); err != nil {
			return err
		}
	}
}

package app

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/firn-backup/firn/internal/catalog"
	"github.com/firn-backup/firn/internal/durable"
	"github.com/firn-backup/firn/internal/failure"
)

// leaseTime is how long a lease holds unless it is renewed, which is done three
// times as often.
const leaseTime = 10 * time.Minute

// LockSet takes the set for this run: a lock file, which dies with the process
// and keeps off other runs on this machine, and a lease in the catalog, which
// keeps off other machines. failure.Locked: another run holds it. The context
// returned ends when the lease is lost. release gives both back; the lock last,
// so that the next run on this machine finds no lease.
func (a *App) LockSet(ctx context.Context, set catalog.Set) (held context.Context, release func(), err error) {
	if err := durable.MkdirAll(a.Paths.Locks, 0o700); err != nil {
		return nil, nil, fmt.Errorf("lock set %s: %w", set.Name, err)
	}
	unlock, err := durable.Lock(filepath.Join(a.Paths.Locks, set.ID+".lock"))
	if locked := (*durable.LockedError)(nil); errors.As(err, &locked) {
		by := ""
		if locked.PID != 0 {
			by = fmt.Sprintf(" (process %d)", locked.PID)
		}
		return nil, nil, failure.Errorf(failure.Locked, "set %s: another run holds it%s", set.Name, by)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("lock set %s: %w", set.Name, err)
	}
	db, err := a.Catalog(ctx, true)
	if err != nil {
		_ = unlock()
		return nil, nil, err
	}
	holder := a.leaseHolder()
	ok, err := db.Lease(ctx, set.ID, holder, leaseTime, wall())
	if err == nil && !ok {
		err = failure.Errorf(failure.Locked, "set %s: a run on another machine holds it", set.Name)
	}
	if err != nil {
		_ = unlock()
		return nil, nil, fmt.Errorf("lock set %s: %w", set.Name, err)
	}
	held, cancel := context.WithCancelCause(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		renew(held, cancel, db, set, holder)
	}()
	return held, func() {
		cancel(nil)
		<-done
		_ = db.Unlease(context.WithoutCancel(ctx), set.ID, holder) // it runs out by itself
		_ = unlock()
	}, nil
}

// renew keeps the lease until ctx ends, and ends it when another has taken the set.
func renew(ctx context.Context, cancel context.CancelCauseFunc, db *catalog.DB, set catalog.Set, holder string) {
	t := time.NewTicker(leaseTime / 3)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			// An error leaves two more tries before the lease runs out.
			if ok, err := db.Lease(ctx, set.ID, holder, leaseTime, wall()); err == nil && !ok {
				cancel(failure.Errorf(failure.Locked, "set %s: another machine has taken it over", set.Name))
				return
			}
		}
	}
}

// leaseHolder names this machine's state, not this process: of several processes here
// the lock file lets one through, and it may take over at once the
// lease of one that was killed.
func (a *App) leaseHolder() string {
	id, err := os.ReadFile("/etc/machine-id")
	if err != nil {
		return a.Host + ":" + a.Paths.State
	}
	return strings.TrimSpace(string(id)) + ":" + a.Host + ":" + a.Paths.State
}

// wall is the time that leases are compared by: other machines', never a rehearsal's.
func wall() time.Time { return time.Now() }

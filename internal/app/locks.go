package app

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
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

// heldKey is the key, in a context, of a lock that its holder has already.
type heldKey string

// LockSet takes the set for this run: a lock file, which dies with the process
// and keeps off other runs on this machine, and a lease in the catalog, which
// keeps off other machines. failure.Locked: another run holds it. The context
// returned ends when the lease is lost. release gives both back; the lock last,
// so that the next run on this machine finds no lease. Within the context that was returned the set can be locked again,
// which does nothing.
func (a *App) LockSet(ctx context.Context, set catalog.Set) (held context.Context, release func(), err error) {
	return a.lock(ctx, set.ID, "set "+set.Name)
}

// LockVault is LockSet for what concerns a vault as a whole, known by its URL: syncing it, emptying it.
func (a *App) LockVault(ctx context.Context, url string) (held context.Context, release func(), err error) {
	return a.lock(ctx, vaultKey(url), "vault "+url)
}

// LockUpload is LockSet for the upload of one file, or of a stream of that name, to a vault.
func (a *App) LockUpload(ctx context.Context, url, what string) (held context.Context, release func(), err error) {
	id := sha256.Sum256([]byte(url + "\x00" + what))
	return a.lock(ctx, "upload-"+hex.EncodeToString(id[:12]), "the upload of "+what)
}

// vaultKey is a name for a vault that may be one of a file.
func vaultKey(url string) string {
	sum := sha256.Sum256([]byte(url))
	return "vault-" + hex.EncodeToString(sum[:16])
}

// lock takes what is called id in files and the catalog, and what in messages.
func (a *App) lock(ctx context.Context, id, what string) (held context.Context, release func(), err error) {
	if ctx.Value(heldKey(id)) != nil {
		return ctx, func() {}, nil
	}
	if err := durable.MkdirAll(a.Paths.Locks, 0o700); err != nil {
		return nil, nil, fmt.Errorf("lock %s: %w", what, err)
	}
	unlock, err := durable.Lock(filepath.Join(a.Paths.Locks, id+".lock"))
	if locked := (*durable.LockedError)(nil); errors.As(err, &locked) {
		by := ""
		if locked.PID != 0 {
			by = fmt.Sprintf(" (process %d)", locked.PID)
		}
		return nil, nil, failure.Errorf(failure.Locked, "%s: another run holds it%s", what, by)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("lock %s: %w", what, err)
	}
	db, err := a.Catalog(ctx, true)
	if err != nil {
		_ = unlock()
		return nil, nil, err
	}
	holder := a.leaseHolder()
	ok, err := db.Lease(ctx, id, holder, leaseTime, wall())
	if err == nil && !ok {
		err = failure.Errorf(failure.Locked, "%s: a run on another machine holds it", what)
	}
	if err != nil {
		_ = unlock()
		return nil, nil, fmt.Errorf("lock %s: %w", what, err)
	}
	held, cancel := context.WithCancelCause(context.WithValue(ctx, heldKey(id), true))
	done := make(chan struct{})
	go func() {
		defer close(done)
		renew(held, cancel, db, id, what, holder)
	}()
	return held, func() {
		cancel(nil)
		<-done
		_ = db.Unlease(context.WithoutCancel(ctx), id, holder) // it runs out by itself
		_ = unlock()
	}, nil
}

// renew keeps the lease until ctx ends, and ends it when another has taken the set.
func renew(ctx context.Context, cancel context.CancelCauseFunc, db *catalog.DB, id, what, holder string) {
	t := time.NewTicker(leaseTime / 3)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			// An error leaves two more tries before the lease runs out.
			if ok, err := db.Lease(ctx, id, holder, leaseTime, wall()); err == nil && !ok {
				cancel(failure.Errorf(failure.Locked, "%s: another machine has taken it over", what))
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

package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/firn-backup/firn/internal/app"
	"github.com/firn-backup/firn/internal/catalog"
	"github.com/firn-backup/firn/internal/failure"
	"github.com/firn-backup/firn/internal/plan"
	"github.com/firn-backup/firn/internal/progress"
	"github.com/firn-backup/firn/internal/units"
)

// tooEarly says whether the set's min-interval forbids a backup now, and tells the user. What was interrupted
// goes on at any time.
func (c *command) tooEarly(ctx context.Context, a *app.App, t app.Target, f backupFlags) (bool, error) {
	if f.force || t.Config.MinInterval <= 0 || t.Config.IsSingle() { // of single archives it is each one's own
		return false, nil
	}
	p, err := a.PlanSet(ctx, t, a.Now())
	if err != nil {
		return false, err
	}
	if _, unfinished := p.Unfinished(); unfinished || !p.Decision.EarlyNow(p.At) {
		return false, nil
	}
	text := fmt.Sprintf("set %s is not backed up: its last snapshot is of %s, and min-interval %s is not over until %s (--force does it all the same)",
		t.Set.Name, c.stamp(p.Decision.Last), units.Duration(p.Policy.MinInterval), c.stamp(p.Decision.TooEarlyUntil))
	c.tell(progress.Event{Kind: progress.Notice, Set: t.Set.Name, Text: text})
	return true, nil
}

// backupThenPrune backs up one set and, once its snapshot is stored, deletes what has expired.
func (c *command) backupThenPrune(ctx context.Context, a *app.App, t app.Target, f backupFlags) error {
	err := c.backupKind(ctx, a, t, f)
	if err != nil && failure.KindOf(err) != failure.Partial || ctx.Err() != nil {
		return err
	}
	return errors.Join(err, c.pruneAfter(ctx, a, t, f.asOf))
}

// pruneAfter deletes what has expired of a set whose backup is stored: what has by now, and by asOf too
// unless that is zero. A date that is filed later must not be older than what goes.
func (c *command) pruneAfter(ctx context.Context, a *app.App, t app.Target, asOf time.Time) error {
	if !t.Config.PrunesAfterBackup() {
		return nil
	}
	policy, err := t.Config.PlanPolicy()
	if err != nil || policy.Retention.None() {
		return err
	}
	if t.Set, err = a.FindSet(ctx, t.Set.Name); err != nil {
		return err
	}
	t.New = false
	if some, err := c.something(ctx, a, t, asOf); err != nil || !some {
		return err // no run that does nothing after every backup
	}
	if err := c.pruneSet(ctx, a, t, pruneFlags{asOf: asOf}, false); err != nil {
		return failure.Wrap(failure.Partial, fmt.Errorf("the newest snapshot is stored, but what has expired could not be deleted: %w", err))
	}
	return nil
}

// something says whether there is anything to delete of a set.
func (c *command) something(ctx context.Context, a *app.App, t app.Target, asOf time.Time) (bool, error) {
	at := a.Now()
	if !asOf.IsZero() && asOf.Before(at) {
		at = asOf
	}
	p, err := a.PlanSet(ctx, t, at)
	if err != nil {
		return false, err
	}
	if slices.ContainsFunc(p.Decision.Expire, func(e plan.Expiry) bool { return !e.AfterNew && !e.Early(at) && !e.Locked(at) }) {
		return true, nil
	}
	db, err := a.Catalog(ctx, false)
	if err != nil {
		return false, err
	}
	left := errors.New("left")
	err = db.Doomed(ctx, t.Set.ID, func(catalog.Doomed) error { return left })
	return errors.Is(err, left), ignore(err, left)
}

// ignore is err, unless it is what.
func ignore(err, what error) error {
	if errors.Is(err, what) {
		return nil
	}
	return err
}

// pruneExpired is pruneAfter for a set that is not due: something may have expired since its last backup.
func (c *command) pruneExpired(ctx context.Context, a *app.App, p *app.Planned) error {
	if p.New {
		return nil
	}
	if err := c.pruneAfter(ctx, a, p.Target, time.Time{}); err != nil {
		return fmt.Errorf("set %s: %w", p.Set.Name, err)
	}
	return nil
}

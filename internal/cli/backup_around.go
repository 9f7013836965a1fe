package cli

import (
	"context"
	"errors"
	"fmt"

	"github.com/firn-backup/firn/internal/app"
	"github.com/firn-backup/firn/internal/failure"
	"github.com/firn-backup/firn/internal/notify"
	"github.com/firn-backup/firn/internal/progress"
)

// backupSet backs up one set of whatever kind, between its hooks, and tells those who want to hear of it.
func (c *command) backupSet(ctx context.Context, a *app.App, t app.Target, f backupFlags) error {
	if f.vault == "" {
		if err := a.KeepVault(ctx, &t); err != nil {
			return err
		}
	}
	if f.local {
		return c.localSnapshot(ctx, a, t, f)
	}
	if f.dryRun != "" {
		return c.backupKind(ctx, a, t, f)
	}
	begun := a.Now()
	c.tellOutside(ctx, a, notify.Event{Kind: notify.Started, Set: t.Set.Name, At: begun})
	c.lastRun = lastRun{}
	err := c.backupHooked(ctx, a, t, f)
	if cause := context.Cause(ctx); cause != nil && failure.KindOf(cause) == failure.Locked {
		ctx = context.WithoutCancel(ctx) // the set was lost to another run, and nobody knows
	}
	if ctx.Err() != nil {
		return err // whoever has interrupted it knows
	}
	if c.lastRun.id == "" && failure.KindOf(err) == failure.Locked {
		return err // nothing was begun, and the run that holds the set tells how it went
	}
	c.recordFailure(ctx, a, t.Set.Name, err)
	e := notify.Event{
		Kind: app.EventOf(err), Set: t.Set.Name, Run: c.lastRun.id, At: a.Now(), Code: codeOf(err),
		Summary: c.lastRun.summary,
	}
	e.Took = e.At.Sub(begun)
	if e.Kind == notify.Failure {
		e.Summary = err.Error()
	}
	c.tellOutside(ctx, a, e)
	return err
}

// lastRun is what is told of a run after its end.
type lastRun struct {
	id, summary string
	code        int
}

// recordFailure writes down what failed around a backup's own run, before or after it: a hook, a vault that is not there. Without it
// firn status and firn log would not know.
func (c *command) recordFailure(ctx context.Context, a *app.App, set string, err error) {
	code := codeOf(err)
	if err == nil || code == c.lastRun.code || failure.KindOf(err) == failure.Usage {
		return
	}
	run, rerr := a.BeginRun(ctx, "backup", set)
	if rerr == nil {
		run.Error("failed", "error", err)
		rerr = run.End(ctx, code, err.Error())
		c.lastRun = lastRun{run.ID, err.Error(), code}
	}
	if without := (*app.CatalogError)(nil); errors.As(rerr, &without) && errors.As(err, &without) {
		return // the error says why already
	}
	if rerr != nil {
		c.warn("set %s: the failure cannot be written down: %v", set, rerr)
	}
}

func (c *command) backupHooked(ctx context.Context, a *app.App, t app.Target, f backupFlags) error {
	hooks := t.Config.Hooks
	if !hooks.HasHooks() {
		return c.backupThenPrune(ctx, a, t, f)
	}
	if t.New { // the lock is the set's
		set, err := a.AddSet(ctx, t.Set)
		if err != nil {
			return err
		}
		t.Set, t.New = set, false
	}
	around := app.Around{Hooks: hooks, Exit: codeOf, Line: func(line string) {
		c.tell(progress.Event{Kind: progress.Notice, Set: t.Set.Name, Text: line})
	}}
	return a.WithHooks(ctx, t.Set, around, func(ctx context.Context) error { return c.backupThenPrune(ctx, a, t, f) })
}

// codeOf is the exit code that an error stands for; 0 for none.
func codeOf(err error) int {
	switch {
	case err == nil:
		return 0
	case errors.Is(err, context.Canceled) && failure.KindOf(err) == failure.Failed:
		return exitCode(failure.Interrupted)
	}
	return exitCode(failure.KindOf(err))
}

// tellOutside tells those whom the config file names.
func (c *command) tellOutside(ctx context.Context, a *app.App, e notify.Event) {
	warn := func(err error) { c.warn("%v", err) }
	a.Notify(ctx, e, warn, func(line string) {
		if c.verbose {
			c.tell(progress.Event{Kind: progress.Notice, Set: e.Set, Text: fmt.Sprintf("%s: %s", e.Kind, line)})
		}
	})
}

package cli

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/firn-backup/firn/internal/app"
	"github.com/firn-backup/firn/internal/config"
	"github.com/firn-backup/firn/internal/failure"
	"github.com/firn-backup/firn/internal/notify"
	"github.com/firn-backup/firn/internal/progress"
	"github.com/firn-backup/firn/internal/snapshot"
)

func newRun(c *command) *cobra.Command {
	var f runFlags
	cmd := &cobra.Command{
		Use:   "run [SET…]",
		Short: "Back up what is due now",
		Long: `Back up, one after another, the sets of the config file that are due by their
schedules, or those of the ones named that are; then delete what has expired.
It is meant to be run often, by a timer (firn schedule install): when nothing is
due it ends at once. One set that fails does not keep the others from being
backed up; the exit code is that of the worst. firn plan shows what it would do.`,
		Example: example("firn run", "firn run documents photos"),
		Args:    cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, names []string) error {
			if f.hopkiw != "" {
				return c.runHopkiw(cmd, f, names)
			}
			if f.dry || f.region != "" {
				return withHint(usage("--dry-run and --region belong to --hopkiw"), "firn plan shows what firn run would do")
			}
			return c.run(cmd, names)
		},
	}
	f.add(cmd)
	return cmd
}

func (c *command) run(cmd *cobra.Command, names []string) error {
	ctx := cmd.Context()
	a, err := c.open(cmd)
	if err != nil {
		return err
	}
	for _, name := range names {
		if a.Config.Sets[name] == nil {
			return usage("%s: there is no [set.%s] in the config file", name, name)
		}
	}
	if len(names) == 0 {
		names = slices.Sorted(maps.Keys(a.Config.Sets))
	}
	var errs []error
	var done []string
	held := map[string]bool{} // by other runs
	for _, name := range names {
		if ctx.Err() != nil {
			break
		}
		ran, err := c.runSet(ctx, a, name)
		err = ofSet(name, err)
		errs = append(errs, err)
		held[name] = failure.KindOf(err) == failure.Locked
		state := "done"
		if err != nil {
			state = fmt.Sprintf("exit code %d", codeOf(err))
		}
		if ran {
			done = append(done, name+": "+state)
		}
	}
	all := planned(ctx, a, names)
	if ctx.Err() == nil {
		errs = append(errs, c.tellOverdue(ctx, a, all, held), c.retireVaults(ctx, a))
	}
	c.tell(progress.Event{Kind: progress.Summary, Text: runSummary(all, done, c), Data: jsonRunAll{Due: len(done), Sets: append([]string{}, done...)}})
	return c.together(errs)
}

// runSet does what is due of a set of the config file, by the time that its turn has come. ran says that a backup was begun, or failed to be.
func (c *command) runSet(ctx context.Context, a *app.App, name string) (ran bool, err error) {
	p, err := planOne(ctx, a, name)
	if ctx.Err() != nil {
		return false, err
	}
	if err != nil { // it may be due, and nobody would ever hear of it
		c.tellOutside(ctx, a, notify.Event{Kind: notify.Failure, Set: name, At: a.Now(), Code: codeOf(err), Summary: err.Error()})
		return true, err
	}
	if p.Decision.Due && p.Config.KindOf() == config.KindStream {
		return false, nil // it is whoever feeds it that knows
	}
	if p.Decision.Due && !p.New {
		// Once more with the set locked: another run may just have backed it up.
		var release func()
		if ctx, release, err = a.LockSet(ctx, p.Set); err != nil {
			return true, err // the one that holds it tells how it went
		}
		defer release()
		if p, err = planOne(ctx, a, name); err != nil {
			return true, err
		}
	}
	if !p.Decision.Due {
		if p.Config.KeepLocal > 0 && !p.New {
			err = c.nightly(ctx, a, p.Target)
		}
		return false, errors.Join(err, c.pruneExpired(ctx, a, p))
	}
	c.talk("%s is due: %s", clean(name), p.Decision.Reason)
	return true, c.backupSet(ctx, a, p.Target, backupFlags{full: p.Decision.Kind == snapshot.Full})
}

// ofSet is an error with the name of the set that it is of.
func ofSet(name string, err error) error {
	if err == nil || strings.HasPrefix(err.Error(), "set "+name+": ") || strings.HasPrefix(err.Error(), "set "+name+" ") {
		return err
	}
	return fmt.Errorf("set %s: %w", name, err)
}

// planOne is what a set of the config file would do now.
func planOne(ctx context.Context, a *app.App, name string) (*app.Planned, error) {
	list, err := a.Plan(ctx, []string{name}, a.Now())
	if err != nil {
		return nil, err
	}
	return &list[0], nil
}

// planned is what sets of the config file would do now, those left out of which that cannot be said.
func planned(ctx context.Context, a *app.App, names []string) []app.Planned {
	var all []app.Planned
	for _, name := range names {
		if p, err := planOne(ctx, a, name); err == nil {
			all = append(all, *p)
		}
	}
	return all
}

// jsonRunAll is the data of the last event of firn run. docs/reference/json.md.
type jsonRunAll struct {
	Due  int      `json:"due"`
	Sets []string `json:"sets"`
}

func runSummary(all []app.Planned, done []string, c *command) string {
	if len(done) > 0 {
		return fmt.Sprintf("%s due: %s", plural(int64(len(done)), "set"), clean(strings.Join(done, ", ")))
	}
	text := "nothing is due"
	var first *app.Planned
	for i := range all {
		if next := all[i].Decision.Next; !next.IsZero() && (first == nil || next.Before(first.Decision.Next)) {
			first = &all[i]
		}
	}
	if first != nil {
		text += fmt.Sprintf("; next is %s, at %s", clean(first.Set.Name), c.stamp(first.Decision.Next))
	}
	return text
}

// tellOverdue tells of sets that are overdue still, each once a day.
func (c *command) tellOverdue(ctx context.Context, a *app.App, all []app.Planned, held map[string]bool) error {
	var errs []error
	for i := range all {
		p := &all[i]
		if p.Decision.Last.IsZero() && held[p.Set.Name] {
			continue // its first backup is being made by another run
		}
		tell, err := a.OverdueToTell(p.Set.Name, p.Decision.Overdue)
		errs = append(errs, err)
		if tell {
			c.tellOutside(ctx, a, notify.Event{Kind: notify.Overdue, Set: p.Set.Name, At: a.Now(), Code: 1, Summary: p.Decision.Reason})
		}
	}
	return errors.Join(errs...)
}

// retireVaults removes the vaults of periods that are over, as far as that can be done now.
func (c *command) retireVaults(ctx context.Context, a *app.App) error {
	list, err := a.RetireVaults(ctx)
	for _, r := range list {
		if r.Gone {
			c.talk("removed the vault %s, in which nothing was left", r.URL)
		} else if c.verbose {
			c.talk("the vault %s is not needed any more and stays for now: %s", r.URL, r.Why)
		}
	}
	return err
}

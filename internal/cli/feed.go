package cli

import (
	"context"
	"fmt"
	"regexp"
	"time"

	"github.com/spf13/cobra"

	"github.com/firn-backup/firn/internal/app"
	"github.com/firn-backup/firn/internal/backup"
	"github.com/firn-backup/firn/internal/config"
	"github.com/firn-backup/firn/internal/snapshot"
)

func newFeed(c *command) *cobra.Command {
	return &cobra.Command{
		Use:   "feed SET DATE",
		Short: "Say what is to be sent for a date, and take it",
		Long: `Speak the protocol of btrsend: print nothing, when no backup of DATE is wanted; c, when
a full stream is; i BASEDATE, when an incremental on the snapshot of BASEDATE is. Then
standard input is read to its end and stored as the snapshot of DATE (YYYY-MM-DD).
A stream that is empty, cut, or not what was asked for is refused.

The set is of kind stream. What is wanted on which day its schedule or policy says;
without either, the policy is btrsend's. Standard output carries the answer only.`,
		Example: example("exec firn feed home \"$1\"      # as ~/.btrsend"),
		Args:    args(2, 2, "a set and a date"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.feed(cmd.Context(), cmd, args[0], args[1])
		},
	}
}

// feedDate reads a date as btrsend gives it, in the zone of the set's policy.
func feedDate(text string, zone *time.Location) (time.Time, error) {
	if !regexp.MustCompile(`^[0-9]{4}-[0-9]{2}-[0-9]{2}$`).MatchString(text) {
		return time.Time{}, usage("%q is not a date such as 2026-11-22", text)
	}
	t, err := time.ParseInLocation(time.DateOnly, text, zone)
	if err != nil {
		return t, usage("%q is not a day of the calendar", text)
	}
	return t, nil
}

func (c *command) feed(ctx context.Context, cmd *cobra.Command, set, date string) error {
	if c.json {
		return usage("feed answers in its protocol, and not in JSON")
	}
	a, err := c.open(cmd)
	if err != nil {
		return err
	}
	t, err := a.StdinTarget(ctx, set)
	if err != nil {
		return err
	}
	f := feeding{c: c, a: a, t: t}
	if f.planned = *t.Config; f.planned.Policy == "" && f.planned.Schedule.IsZero() {
		f.planned.Policy = "btrsend"
	}
	policy, err := f.planned.PlanPolicy()
	if err != nil {
		return usage("set %s: %v", set, err)
	}
	f.zone = policy.Zone
	if f.date, err = feedDate(date, f.zone); err != nil {
		return err
	}
	if due, _, err := f.decide(ctx, t); err != nil || !due {
		if err == nil && !t.New {
			err = c.pruneAfter(ctx, a, t, f.date)
		}
		return err
	}
	return c.backupSet(ctx, a, t, backupFlags{stdin: true, force: true, stream: f.answer, asOf: f.date})
}

// feeding is one call of feed.
type feeding struct {
	c       *command
	a       *app.App
	t       app.Target
	planned config.Set // as t's, with the policy that answers
	zone    *time.Location
	date    time.Time
}

// decide says whether a stream is wanted, and on what: the answer, and the base's id.
func (f *feeding) decide(ctx context.Context, t app.Target) (due bool, answer struct{ text, base string }, err error) {
	t.Config = &f.planned
	p, err := f.a.PlanSet(ctx, t, f.date)
	if err != nil {
		return false, answer, err
	}
	if !p.Decision.Due {
		f.c.talk("%s: nothing is wanted for %s: %s", t.Set.Name, f.date.Format(time.DateOnly), p.Decision.Reason)
		return false, answer, err
	}
	answer.text = "c"
	if p.Decision.Kind == snapshot.Incremental {
		base, ok := p.Snapshot(p.Decision.Base)
		if !ok {
			return false, answer, fmt.Errorf("set %s: snapshot %s is planned to be built on and is not there", t.Set.Name, p.Decision.Base)
		}
		answer.text, answer.base = "i "+base.At.In(f.zone).Format(time.DateOnly), base.ID
		if base.Adopted != "" { // it is called so, whatever zone its date was read in
			answer.text = "i " + base.Header.Point
		}
	}
	return true, answer, nil
}

// answer is called with the set locked: it prints what is wanted, and says what the stream must be.
func (f *feeding) answer(ctx context.Context, t app.Target, o *backup.StreamOptions) (goOn bool, err error) {
	due, answer, err := f.decide(ctx, t) // once more: another run may have had the set
	if err != nil || !due {
		return false, err
	}
	f.c.printf("%s\n", answer.text)
	if err := f.c.failure(); err != nil {
		return false, err
	}
	o.At, o.Base, o.Full, o.Incrementals = f.date, answer.base, answer.base == "", 0
	return true, nil
}

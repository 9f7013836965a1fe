package cli

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/firn-backup/firn/internal/app"
	"github.com/firn-backup/firn/internal/backup"
	"github.com/firn-backup/firn/internal/config"
	"github.com/firn-backup/firn/internal/progress"
	"github.com/firn-backup/firn/internal/units"
)

// backupTargets are the sets that a backup is of.
func (c *command) backupTargets(ctx context.Context, a *app.App, args []string, f backupFlags) ([]app.Target, error) {
	if !f.stdin {
		targets, err := a.Targets(ctx, args, f.name)
		if err == nil && len(args) == 0 {
			targets = c.withoutPipes(targets)
		}
		return targets, err
	}
	if len(args) != 1 || f.name != "" {
		return nil, withHint(usage("--stdin goes into one set, which is named"), "PROGRAM | firn backup SET --stdin")
	}
	if f.dryRun != "" {
		return nil, usage("--dry-run and --stdin do not go together: what comes in would be lost")
	}
	t, err := a.StdinTarget(ctx, args[0])
	return []app.Target{t}, err
}

// withoutPipes leaves out, of all sets, those that wait for somebody to send them something.
func (c *command) withoutPipes(targets []app.Target) []app.Target {
	var rest []app.Target
	for _, t := range targets {
		if t.Config.KindOf() == config.KindStream {
			c.talk("%s is left out: it takes what comes in through a pipe (firn backup %s --stdin)", t.Set.Name, t.Set.Name)
			continue
		}
		rest = append(rest, t)
	}
	return rest
}

// producerText is what a set's producer is called.
func producerText(s *config.Set) string {
	switch s.KindOf() {
	case config.KindZFS:
		return "dataset " + s.Dataset
	case config.KindBtrfs:
		if s.Subvolume == "" {
			return strings.Join(s.SnapshotMatch, ", ")
		}
		return "subvolume " + s.Subvolume
	case config.KindCommand:
		return "what " + s.Command[0] + " writes"
	}
	return "standard input"
}

// backupStream backs up a set that is the stream of a producer.
func (c *command) backupStream(ctx context.Context, a *app.App, t app.Target, f backupFlags) error {
	var in io.Reader
	if f.stdin {
		if isTerminal(c.env.Stdin) {
			return withHint(usage("standard input is a terminal"), "PROGRAM | firn backup %s --stdin", t.Set.Name)
		}
		in = c.env.Stdin
	}
	if c := t.Config; len(c.Exclude)+len(c.ExcludeIfPresent)+len(c.RequireMount) > 0 || c.OneFileSystem || c.Checksum || f.allowEmpty {
		return usage("set %s is a stream, not files: --exclude, --one-file-system, --require-mount, --checksum and --allow-empty say nothing of it", t.Set.Name)
	}
	o, err := a.StreamOptions(t, in, func(s string) { c.warn("%s", s) })
	if err != nil {
		return err
	}
	if f.dryRun != "" {
		return c.backupStreamDry(ctx, a, t, o, f)
	}
	base, key, err := a.BackupOptions(ctx, t, nil)
	if err != nil {
		return err
	}
	return c.store(ctx, a, t, f, base, key, producerText(t.Config), func(ctx context.Context, base backup.Options, w *watcher) (backup.Result, error) {
		w.bytes = true
		o.Options = base
		// Another run may have made the set meanwhile, and its id is in the names of snapshots.
		if o.Source, err = a.OpenStream(app.Target{Set: base.Set, Config: t.Config}, in); err != nil {
			return backup.Result{}, err
		}
		if f.stream != nil {
			if goOn, err := f.stream(ctx, app.Target{Set: base.Set, Config: t.Config}, &o); !goOn {
				return backup.Result{}, err
			}
		} else if err := c.planStream(ctx, a, t, &o); err != nil {
			return backup.Result{}, err
		}
		return backup.RunStream(ctx, o)
	})
}

// localSnapshot makes a snapshot on this machine and nothing else.
func (c *command) localSnapshot(ctx context.Context, a *app.App, t app.Target, f backupFlags) error {
	if f.dryRun != "" || f.stdin || !t.Config.IsStream() {
		return usage("--local makes a snapshot of a set of kind zfs or btrfs, and goes with no other flag")
	}
	var err error
	if t.New { // snapshots bear the set's id
		if t.Set, err = a.AddSet(ctx, t.Set); err != nil {
			return err
		}
	}
	ctx, release, err := a.LockSet(ctx, t.Set)
	if err != nil {
		return err
	}
	defer release()
	p, err := a.MakeLocal(ctx, t, a.Now(), func(s string) { c.warn("%s", s) })
	if err != nil {
		return err
	}
	c.tell(progress.Event{Kind: progress.Summary, Set: t.Set.Name, Text: fmt.Sprintf("%s: made the local snapshot %s", t.Set.Name, p.Name)})
	return nil
}

// nightly makes the local snapshot of a day without a backup, once a day.
func (c *command) nightly(ctx context.Context, a *app.App, t app.Target) error {
	src, err := a.OpenStream(t, nil)
	if err != nil {
		return err
	}
	points, err := src.Points(ctx)
	if err != nil {
		return fmt.Errorf("set %s: %w", t.Set.Name, err)
	}
	now := a.Now()
	for _, p := range points {
		y, m, d := p.At.In(now.Location()).Date()
		if ny, nm, nd := now.Date(); p.Own && !p.BaseOnly && y == ny && m == nm && d == nd {
			return nil
		}
	}
	return c.localSnapshot(ctx, a, t, backupFlags{})
}

// planStream lets a policy that goes by dates say what the stream builds on.
func (c *command) planStream(ctx context.Context, a *app.App, t app.Target, o *backup.StreamOptions) error {
	if t.Config.Policy == "" || o.Full || !o.Source.Traits().Points {
		return nil
	}
	p, err := a.PlanSet(ctx, app.Target{Set: o.Set, Config: t.Config}, a.Now())
	if err != nil {
		return err
	}
	o.Base, o.Incrementals, o.Full = p.Decision.Base, 0, p.Decision.Base == ""
	return nil
}

// backupStreamDry says what would be sent.
func (c *command) backupStreamDry(ctx context.Context, a *app.App, t app.Target, o backup.StreamOptions, f backupFlags) error {
	var err error
	if o.Options, err = c.dryOptions(ctx, a, t, f, nil); err != nil {
		return err
	}
	o.Full = o.Full || f.full
	p, err := backup.DryStream(ctx, o)
	if err != nil {
		return err
	}
	text := fmt.Sprintf("%s: would send %s, as a full snapshot", t.Set.Name, producerText(t.Config))
	switch {
	case p.Nothing:
		text = fmt.Sprintf("%s: nothing to send: the newest snapshot is stored already", t.Set.Name)
	case p.Resumes:
		text = fmt.Sprintf("%s: would go on with an interrupted attempt at sending %s", t.Set.Name, producerText(t.Config))
	case p.Base != "":
		text = fmt.Sprintf("%s: would send %s, as an incremental on snapshot %s", t.Set.Name, producerText(t.Config), p.Base)
	}
	c.tell(progress.Event{Kind: progress.Summary, Set: t.Set.Name, Text: text})
	return nil
}

// streamSummary is the result of a run of a stream in one line.
func streamSummary(set string, r backup.Result) string {
	if r.Snapshot.ID == "" {
		text := set + ": nothing new: the newest snapshot is stored already"
		if len(r.Settled) > 0 {
			text += ", by an interrupted attempt that is completed now"
		}
		return text
	}
	text := fmt.Sprintf("%s: %s snapshot %s, a %s stream of %s; stored %s", set, r.Snapshot.Kind, r.Snapshot.ID, r.Snapshot.Header.Stream,
		units.Size(r.Snapshot.Totals.Raw), units.Size(r.Sent))
	switch {
	case r.Resumed && len(r.Settled) > 0:
		text += fmt.Sprintf(" (after an interrupted attempt, completed as snapshot %s)", r.Settled[len(r.Settled)-1])
	case r.Resumed:
		text += " (an interrupted attempt, completed)"
	}
	return text
}

package cli

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/firn-backup/firn/internal/app"
	"github.com/firn-backup/firn/internal/catalog"
	"github.com/firn-backup/firn/internal/cost"
	"github.com/firn-backup/firn/internal/failure"
	"github.com/firn-backup/firn/internal/plan"
	"github.com/firn-backup/firn/internal/progress"
	"github.com/firn-backup/firn/internal/prune"
	"github.com/firn-backup/firn/internal/units"
)

type pruneFlags struct {
	dryRun, early bool
	asOf          time.Time // what has not expired by then stays too; zero: by now
}

func newPrune(c *command) *cobra.Command {
	var f pruneFlags
	cmd := &cobra.Command{
		Use:   "prune [SET…]",
		Short: "Delete what has expired",
		Long: `Delete the chains of snapshots that have expired by the rules of the config file
(expire, keep-last …), and what abandoned attempts have left in the vault. The
newest complete chain of a set is never deleted. A chain whose minimum storage
duration is not over waits. Interrupted at any point, the same command goes on.`,
		Example: example("firn prune --dry-run", "firn prune documents"),
		Args:    cobra.ArbitraryArgs,
		RunE:    func(cmd *cobra.Command, names []string) error { return c.prune(cmd, names, f) },
	}
	cmd.Flags().BoolVarP(&f.dryRun, "dry-run", "n", false, "say what would be deleted, and delete nothing")
	cmd.Flags().BoolVar(&f.early, "allow-early-delete", false, "also delete what has expired before its minimum storage duration is over, which costs a fee")
	return cmd
}

func (c *command) prune(cmd *cobra.Command, names []string, f pruneFlags) error {
	ctx := cmd.Context()
	a, err := c.open(cmd)
	if err != nil {
		return err
	}
	sets, err := a.Plan(ctx, names, a.Now())
	errs := []error{err}
	for _, p := range sets {
		if p.New {
			continue // nothing of it is stored
		}
		errs = append(errs, c.pruneSet(ctx, a, p.Target, f, true))
		if ctx.Err() != nil {
			break
		}
	}
	return c.together(errs)
}

// pruneSet prunes a set of the catalog. Unless tidy is set it is silent when there is nothing to delete, and looks for no orphans then.
func (c *command) pruneSet(ctx context.Context, a *app.App, t app.Target, f pruneFlags, tidy bool) error {
	ctx, release, err := a.LockSet(ctx, t.Set)
	if err != nil {
		return err
	}
	defer release()
	o, err := a.PruneOptions(ctx, t)
	if err != nil {
		return err
	}
	if !f.asOf.IsZero() && f.asOf.Before(a.Now()) {
		o.Now = func() time.Time { return f.asOf }
	}
	planned, err := a.PlanSet(ctx, t, o.Now()) // for what is told: afterwards the snapshots are gone
	if err != nil {
		return err
	}
	o.DryRun, o.AllowEarly, o.Tidy = f.dryRun, f.early, tidy
	var run *app.Run
	if !f.dryRun {
		if run, err = a.BeginRun(ctx, "prune", t.Set.Name); err != nil {
			return err
		}
	}
	meter := progress.New(nil)
	tell, stop := c.watch(t.Set.Name, meter)
	defer stop()
	o.Observe = &pruneWatcher{meter: meter, tell: tell, log: run, set: t.Set.Name, c: c, p: &planned}
	o.Approve = func(early []plan.Expiry) error {
		for i := range early {
			c.warn("set %s: deleting the chain %s before its minimum storage duration is over at %s costs %s",
				t.Set.Name, early[i].Chain, c.stamp(early[i].NotBefore), feeText(&early[i]))
		}
		return nil
	}
	res, err := prune.Run(ctx, o)
	stop()
	if cause := context.Cause(ctx); err != nil && cause != nil && failure.KindOf(cause) == failure.Locked {
		err = cause
	}
	summary := pruneSummary(t.Set.Name, res, f.dryRun)
	if err == nil {
		c.tellPruned(&planned, res, f, tidy, summary)
	} else {
		summary = err.Error()
	}
	if run == nil {
		return err
	}
	return errors.Join(err, run.End(ctx, c.codeOf(ctx, err), summary))
}

// tellPruned says what was deleted, or would be, and what waits.
func (c *command) tellPruned(p *app.Planned, res prune.Result, f pruneFlags, tidy bool, summary string) {
	if !tidy && len(res.Chains) == 0 && res.Archives == 0 {
		return
	}
	if f.dryRun {
		for i := range res.Chains {
			c.tell(progress.Event{Kind: progress.Notice, Set: p.Set.Name, Text: "would delete " + c.expiryText(p, &res.Chains[i])})
		}
	}
	for i := range res.Waiting {
		c.tell(progress.Event{Kind: progress.Notice, Set: p.Set.Name, Text: "waits: " + c.expiryText(p, &res.Waiting[i])})
	}
	for i := range res.AfterNew {
		c.tell(progress.Event{Kind: progress.Notice, Set: p.Set.Name, Text: "stays until the snapshot that is due is stored: " + c.expiryText(p, &res.AfterNew[i])})
	}
	if res.Left > 0 {
		c.tell(progress.Event{Kind: progress.Notice, Set: p.Set.Name, Text: fmt.Sprintf(
			"%s that nothing needs any more must wait for the vault's minimum storage duration, or a lock, until %s", plural(res.Left, "archive"), c.stamp(res.LeftUntil))})
	}
	c.tell(progress.Event{Kind: progress.Summary, Set: p.Set.Name, Text: summary, Data: pruneJSON(p, res, f.dryRun)})
}

func feeText(e *plan.Expiry) string {
	if !e.FeeKnown {
		return "an unknown fee"
	}
	return cost.Money(e.Fee).String()
}

func pruneSummary(set string, r prune.Result, dry bool) string {
	verb, archives := "deleted", plural(r.Archives, "archive")+", "+units.Size(r.Bytes)
	if dry {
		verb, archives = "would be deleted", ""
		if r.Archives > 0 {
			archives = plural(r.Archives, "archive") + " that an earlier run has left"
		}
	}
	text := fmt.Sprintf("%s: %s of %s %s", set, plural(int64(r.Snapshots), "snapshot"), plural(int64(len(r.Chains)), "chain"), verb)
	if len(r.Chains) == 0 {
		text = set + ": no chain has expired"
		if len(r.Waiting) > 0 {
			text = set + ": no chain can be deleted yet"
		}
	}
	if archives != "" && (r.Archives > 0 || len(r.Chains) > 0) {
		text += ", " + archives
	}
	if r.Orphans > 0 {
		text += fmt.Sprintf(" (%s among them that nothing named)", plural(int64(r.Orphans), "archive"))
	}
	if n := len(r.Waiting); n > 0 {
		text += fmt.Sprintf("; %s must wait", plural(int64(n), "chain"))
	}
	return text
}

// jsonPrune is the data of a pruning's summary. docs/reference/json.md.
type jsonPrune struct {
	DryRun    bool         `json:"dry_run"`
	Chains    []jsonExpiry `json:"chains"`
	Waiting   []jsonExpiry `json:"waiting"`
	AfterNew  []jsonExpiry `json:"after_new"`
	Snapshots int          `json:"snapshots"`
	Archives  int64        `json:"archives"`
	Bytes     int64        `json:"bytes"`
	Orphans   int          `json:"orphans"`
	Left      int64        `json:"left"`
	LeftUntil *string      `json:"left_until,omitempty"`
}

func pruneJSON(p *app.Planned, r prune.Result, dry bool) jsonPrune {
	list := func(es []plan.Expiry) []jsonExpiry {
		out := []jsonExpiry{}
		for i := range es {
			out = append(out, expiryJSON(p, &es[i]))
		}
		return out
	}
	return jsonPrune{DryRun: dry, Chains: list(r.Chains), Waiting: list(r.Waiting), AfterNew: list(r.AfterNew), Snapshots: r.Snapshots,
		Archives: r.Archives, Bytes: r.Bytes, Orphans: r.Orphans, Left: r.Left, LeftUntil: stampJSON(r.LeftUntil)}
}

type pruneWatcher struct {
	meter *progress.Meter
	tell  progress.Watcher
	log   *app.Run // nil in a dry run, which deletes nothing
	set   string
	c     *command
	p     *app.Planned
}

var _ prune.Observer = (*pruneWatcher)(nil)

func (w *pruneWatcher) Forgot(e plan.Expiry) {
	w.log.Info("expired", "chain", e.Chain, "snapshots", len(e.IDs), "reason", e.Reason)
	w.tell.Tell(progress.Event{Kind: progress.Notice, Set: w.set, Text: "deleting " + w.c.expiryText(w.p, &e)})
}

func (w *pruneWatcher) Deleted(x catalog.Doomed) {
	w.meter.AddFiles(1)
	w.log.Info("deleted", "archive", x.Archive, "snapshot", x.Snap, "size", x.Size)
	w.tell.Tell(progress.Event{Kind: progress.Archive, Set: w.set, Archive: x.Archive, Bytes: x.Size, Text: "deleted"})
}

func (w *pruneWatcher) Orphan(x catalog.Doomed) {
	w.log.Warn("orphan", "archive", x.Archive, "snapshot", x.Snap, "size", x.Size)
}

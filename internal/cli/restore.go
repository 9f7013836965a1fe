package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/firn-backup/firn/internal/app"
	"github.com/firn-backup/firn/internal/catalog"
	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/internal/extract"
	"github.com/firn-backup/firn/internal/failure"
	"github.com/firn-backup/firn/internal/progress"
	"github.com/firn-backup/firn/internal/restore"
	"github.com/firn-backup/firn/internal/retrieval"
	"github.com/firn-backup/firn/internal/units"
)

type restoreFlags struct {
	to, strip, overwrite string
	receive              string
	identities           []string
	dryRun, numeric      bool
	limit                limitFlag
	retrieveFlags
}

func newRestore(c *command) *cobra.Command {
	var f restoreFlags
	cmd := &cobra.Command{
		Use:   "restore SET[@WHEN] [PATH…] --to DIR",
		Short: "Get a snapshot, or paths of it, back",
		Long: `Bring back what a set held: as its newest snapshot has it, or the newest that is not
younger than WHEN, a date, a time or a snapshot's id. Files appear below DIR under
their whole names (DIR/home/me/…), unless --strip takes a beginning off. A PATH
may be a pattern (*, ?, [a-z], {a,b}, ** for any number of directories).

A stream (kinds zfs, btrfs, command and stream) is restored as a whole: --to FILE, --to -
or, through the whole chain, --receive TARGET; --to DIR/ makes a file of each stream of the chain.

Every file's SHA-256 is compared before it gets its name. Nothing that exists is
replaced unless --overwrite says so. After an interruption the same command goes on.`,
		Example: example("firn restore Documents --to ./back", "firn restore Documents@2026-11-01 letters/tax.odt --to .",
			"firn restore photos '*.jpg' --to /mnt/new --strip home/me", "firn restore Documents --to ./back --dry-run"),
		Args: args(1, -1, "a set, and paths"),
		RunE: func(cmd *cobra.Command, args []string) error { return c.restore(cmd, args, f) },
	}
	fs := cmd.Flags()
	fs.StringVar(&f.to, "to", "", "the `DIR` to restore below; it is made if it does not exist. Of a stream: a file, a directory (DIR/), or - for standard output")
	fs.StringVar(&f.receive, "receive", "", "of a ZFS or btrfs stream: the dataset or directory `TARGET` that zfs receive or btrfs receive brings the whole chain to")
	fs.StringVar(&f.strip, "strip", "", "leave the `PATH` off the beginning of names")
	fs.StringVar(&f.overwrite, "overwrite", "never", "never, or always: replace what is there and differs")
	fs.StringArrayVarP(&f.identities, "identity", "i", nil, "decrypt with the keys in `FILE` too: age, SSH or OpenPGP; repeatable")
	fs.BoolVarP(&f.dryRun, "dry-run", "n", false, "say what would be read and restored")
	fs.BoolVar(&f.numeric, "numeric-owner", false, "set owners by number, whatever their names are here")
	f.retrieveFlags.add(cmd)
	f.limit.add(cmd)
	return cmd
}

func (c *command) restore(cmd *cobra.Command, args []string, f restoreFlags) error {
	ctx := cmd.Context()
	if err := f.check(); err != nil {
		return err
	}
	a, err := c.open(cmd)
	if err != nil {
		return err
	}
	if set, at, ok, err := a.FindItems(ctx, args[0]); ok || err != nil {
		if err != nil {
			return err
		}
		return c.restoreItems(ctx, a, set, at, args[1:], f)
	}
	o, err := restoreOptions(f)
	if err != nil {
		return err
	}
	set, snap, err := a.FindSnapshot(ctx, args[0])
	if err != nil {
		return err
	}
	if !snap.Header.IsStream() {
		if f.receive != "" || f.to == "-" {
			return usage("set %s holds files: they are restored to a directory, --to DIR", set.Name)
		}
		if o.Paths, err = restorePaths(ctx, a, snap, args[1:]); err != nil {
			return err
		}
	}
	store, err := a.OpenStore(ctx, snap.Vault, false)
	if err != nil {
		return err
	}
	if o.Catalog, err = a.Catalog(ctx, false); err != nil {
		return err
	}
	o.Store, o.Traits, o.Snapshot, o.Now = store, store.Traits(), snap.ID, a.Now
	o.Codecs = a.Codecs(f.identities)
	d, err := c.desk(ctx, f.retrieveFlags, snap.Vault, store)
	if err != nil {
		return err
	}
	o.Tier, o.Days, o.Pace, o.Approve = d.tier, d.days, d.pace, d.approve
	if o.Transfer.Limit, err = c.limiter(a, f.limit); err != nil {
		return err
	}
	if snap.Header.IsStream() {
		return c.restoreStream(ctx, a, set, snap, args[1:], o, f)
	}
	if o.DryRun {
		o.Store = nil // it cannot spend what it does not have
		return c.restoreRun(ctx, nil, set, snap, o, d.budget)
	}
	run, err := a.BeginReading(ctx, "restore", set.Name)
	if err != nil {
		return err
	}
	return c.restoreRun(ctx, run, set, snap, o, d.budget)
}

func restoreOptions(f restoreFlags) (restore.Options, error) {
	o := restore.Options{To: f.to, Strip: f.strip, DryRun: f.dryRun, Wait: f.wait, NumericOwner: f.numeric}
	if f.to == "" && f.receive == "" {
		return o, withHint(usage("restore needs --to DIR"), "firn restore SET --to ./back")
	}
	switch f.overwrite {
	case "never", "":
	case "always":
		o.Overwrite = extract.Always
	default:
		return o, usage("--overwrite %s: must be never or always", f.overwrite)
	}
	return o, nil
}

// parseTier reads a tier in any case; empty is the store's default.
func parseTier(s string) (coldstore.Tier, error) {
	for _, t := range []coldstore.Tier{"", coldstore.Expedited, coldstore.Standard, coldstore.Bulk} {
		if strings.EqualFold(s, string(t)) {
			return t, nil
		}
	}
	return "", usage("--tier %s: must be expedited, standard or bulk", s)
}

// restorePaths turns paths as they are written into stored ones. What is no
// path of the snapshot may be a pattern; one without a slash fits at any depth.
func restorePaths(ctx context.Context, a *app.App, snap catalog.Snapshot, args []string) ([]string, error) {
	var paths []string
	for _, arg := range args {
		p, err := a.EntryPath(ctx, snap, arg)
		switch {
		case err == nil:
			p = "/" + p
		case failure.KindOf(err) == failure.NotFound && strings.ContainsAny(arg, `*?[{`):
			if p = arg; !strings.Contains(arg, "/") {
				p = "**/" + arg
			}
		default:
			return nil, err
		}
		paths = append(paths, p)
	}
	return paths, nil
}

// restoreRun runs it; run is nil in a dry run.
func (c *command) restoreRun(ctx context.Context, run *app.Run, set catalog.Set, snap catalog.Snapshot, o restore.Options, b *budget) error {
	meter := progress.New(nil)
	tell, stop := c.watch(set.Name, meter)
	defer stop()
	w := &restoreWatcher{meter: meter, tell: tell, log: run, c: c, dry: o.DryRun}
	o.Observe = w
	tell.Tell(progress.Event{Kind: progress.Began, Set: set.Name, Snapshot: snap.ID,
		Text: fmt.Sprintf("restoring %s as of %s to %s", set.Name, c.stamp(snap.At), o.To)})
	res, err := restore.Run(ctx, o)
	stop()
	if err == nil && o.DryRun && !o.Traits.Warm {
		err = b.forecast(retrieval.Bill{Tier: o.Tier, Requests: int64(res.Plan.Ranges), Bytes: res.Plan.Read, Days: o.Days})
	}
	summary := restoreSummary(set.Name, res, o)
	kind := failure.KindOf(err)
	if res.Taken > 0 && kind == failure.Partial {
		err = withHint(err, "what exists is kept; --overwrite always replaces it, another --to leaves it alone")
	}
	if err == nil || kind == failure.Partial || kind == failure.Damaged {
		c.tell(progress.Event{Kind: progress.Summary, Set: set.Name, Snapshot: snap.ID, Text: summary, Data: restoreJSON(set, res, o)})
	} else {
		summary = err.Error()
	}
	if run == nil {
		return err
	}
	return errors.Join(err, run.End(ctx, c.codeOf(ctx, err), summary))
}

// codeOf is the exit code that err is going to have.
func (c *command) codeOf(ctx context.Context, err error) int {
	switch {
	case err == nil:
		return 0
	case ctx.Err() != nil && failure.KindOf(err) == failure.Failed:
		return exitCode(failure.Interrupted)
	}
	return exitCode(failure.KindOf(err))
}

func restoreSummary(set string, r restore.Result, o restore.Options) string {
	p := r.Plan
	if o.DryRun {
		text := fmt.Sprintf("%s: would restore %s, %s, reading %s in %s of %s", set, entries(p.Entries), units.Size(p.Bytes),
			units.Size(p.Read), plural(int64(p.Ranges), "range"), plural(int64(p.Archives), "archive"))
		if p.Kept > 0 {
			text += fmt.Sprintf("; %s there already", plural(p.Kept, "file"))
		}
		if p.Taken > 0 {
			text += fmt.Sprintf("; %s that something else has the name of", plural(p.Taken, "file"))
		}
		return text
	}
	text := fmt.Sprintf("%s: restored %s (%s) to %s, reading %s", set, plural(r.Files, "file"), units.Size(r.Bytes), o.To, units.Size(r.Read))
	if r.Kept > 0 {
		text += fmt.Sprintf("; %s there already", plural(r.Kept, "file"))
	}
	if r.Problems > 0 {
		text += "; " + plural(r.Problems, "problem")
	}
	return text
}

// jsonRestore is the data of a restore's summary. docs/reference/json.md.
type jsonRestore struct {
	Set       string `json:"set"`
	Snapshot  string `json:"snapshot"`
	To        string `json:"to"`
	DryRun    bool   `json:"dry_run,omitempty"`
	Entries   int64  `json:"entries"`  // selected
	Selected  int64  `json:"selected"` // bytes of the files among them
	Archives  int    `json:"archives"`
	Ranges    int    `json:"ranges"`
	ToRead    int64  `json:"to_read"` // bytes planned to be read of the vault
	BytesRead int64  `json:"bytes_read"`
	Files     int64  `json:"files"`
	Bytes     int64  `json:"bytes"`
	Dirs      int64  `json:"dirs"`
	Others    int64  `json:"others"`
	Kept      int64  `json:"kept"`
	Taken     int64  `json:"taken"`
	Damaged   int64  `json:"damaged"`
	Problems  int64  `json:"problems"`
}

func restoreJSON(set catalog.Set, r restore.Result, o restore.Options) jsonRestore {
	p := r.Plan
	j := jsonRestore{Set: set.Name, Snapshot: o.Snapshot, To: o.To, DryRun: o.DryRun, Entries: p.Entries, Selected: p.Bytes,
		Archives: p.Archives, Ranges: p.Ranges, ToRead: p.Read, BytesRead: r.Read, Files: r.Files, Bytes: r.Bytes,
		Dirs: r.Dirs, Others: r.Others, Kept: r.Kept, Taken: r.Taken, Damaged: r.Damaged, Problems: r.Problems}
	if o.DryRun {
		j.Kept, j.Taken = p.Kept, p.Taken
	}
	return j
}

// restoreWatcher tells progress of what a restore does.
type restoreWatcher struct {
	meter *progress.Meter
	tell  progress.Watcher
	log   *app.Run // nil: no log
	c     *command
	dry   bool
}

var _ restore.Observer = (*restoreWatcher)(nil)

func (w *restoreWatcher) Planned(p restore.Plan) { w.meter.SetTotals(p.Bytes, p.Files) }

func (w *restoreWatcher) Range(archive string, r coldstore.Range) {
	if w.dry || w.c.verbose {
		text := "read"
		if w.dry {
			text = "would be read"
		}
		if !r.IsWhole() {
			text += fmt.Sprintf(" from %d on", r.Offset)
		}
		w.tell.Tell(progress.Event{Kind: progress.Archive, Archive: archive, Bytes: r.Size, Text: text})
	}
}

func (w *restoreWatcher) Waiting(ready, all int) {
	w.tell.Tell(progress.Event{Kind: progress.Waiting, Text: waitingText(ready, all)})
}

func (w *restoreWatcher) Entry(path string, size int64, kept bool) {
	w.meter.AddFiles(1)
	w.meter.AddBytes(size)
	text := "restored"
	if kept {
		text = "kept"
	}
	w.tell.Tell(progress.Event{Kind: progress.File, Path: path, Bytes: size, Text: text})
}

func (w *restoreWatcher) Read(n int64) { w.meter.AddSent(n) }

func (w *restoreWatcher) Problem(p restore.Problem) {
	if w.log != nil {
		w.log.Warn("problem", "kind", string(p.Kind), "path", p.Path, "archive", p.Archive, "reason", p.Reason)
	}
	text := p.Reason
	if p.Archive != "" && !strings.Contains(text, p.Archive) {
		text += " (archive " + p.Archive + ")"
	}
	w.tell.Tell(progress.Event{Kind: progress.Problem, Path: p.Path, Archive: p.Archive, Text: text})
}

func (w *restoreWatcher) Warning(x extract.Warning) {
	w.tell.Tell(progress.Event{Kind: progress.Notice, Text: x.String()})
}

package cli

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/firn-backup/firn/internal/app"
	"github.com/firn-backup/firn/internal/catalog"
	"github.com/firn-backup/firn/internal/failure"
	"github.com/firn-backup/firn/internal/progress"
	"github.com/firn-backup/firn/internal/reconcile"
	"github.com/firn-backup/firn/internal/units"
)

type syncFlags struct {
	wait, fix bool
	maxAge    string
}

func newVaultSync(c *command) *cobra.Command {
	var f syncFlags
	cmd := &cobra.Command{
		Use:   "sync [VAULT]",
		Short: "Take a listing of a vault into the catalog",
		Long: `Take a listing of a vault into the catalog: archives that were uploaded elsewhere
become known, and those that have disappeared are reported, and forgotten with
--fix only. What was uploaded or deleted here after the listing was made stays
as it is. A vault of Amazon Glacier makes its listing, the inventory, in hours:
the command exits with 75, and run again it goes on.`,
		Example: example("firn vault sync glacier://eu-west-1/photos --wait", "firn vault sync nas --fix"),
		Args:    args(0, 1, "one vault at most"),
		RunE: func(cmd *cobra.Command, args []string) error {
			o := reconcile.Options{Fix: f.fix, Wait: f.wait}
			if f.maxAge != "" {
				var err error
				if o.MaxAge, err = units.ParseDuration(f.maxAge); err != nil {
					return usage("--max-age %s: %v", f.maxAge, err)
				}
				o.MaxAge = max(o.MaxAge, time.Nanosecond) // 0: a new listing
			}
			return c.syncVault(cmd, append(args, "")[0], o)
		},
	}
	fs := cmd.Flags()
	fs.BoolVar(&f.wait, "wait", false, "wait until the vault has made its listing, instead of exiting with 75")
	fs.StringVar(&f.maxAge, "max-age", "", "use a listing that was finished `AGE` ago at most (default 20h)")
	fs.BoolVar(&f.fix, "fix", false, "accept what the listing says: forget what has disappeared")
	return cmd
}

func (c *command) syncVault(cmd *cobra.Command, vault string, o reconcile.Options) error {
	a, url, store, err := c.openVault(cmd, vault)
	if err != nil {
		return err
	}
	o.Store, o.Vault = store, url
	r, err := c.beginVaultRun(cmd.Context(), a, "sync", progress.New(nil), o)
	if err != nil {
		return err
	}
	defer r.release()
	ctx := r.ctx
	if r.options.Asked, err = firstAsked(ctx, r); err != nil {
		return err
	}
	r.tell.Tell(progress.Event{Kind: progress.Began, Text: "syncing " + url})
	res, err := reconcile.Sync(ctx, r.options)
	r.stop()
	summary := c.syncSummary(url, res)
	if kind := failure.KindOf(err); err == nil || kind == failure.Partial || kind == failure.Damaged {
		c.tell(progress.Event{Kind: progress.Summary, Text: summary, Data: syncJSON(url, res)})
	} else {
		summary = err.Error()
	}
	if failure.KindOf(err) == failure.Partial {
		err = withHint(err, "firn verify tells what snapshots have lost; firn vault sync %s --fix forgets those archives", url)
	}
	return errors.Join(err, r.log.End(ctx, c.codeOf(ctx, err), summary))
}

// firstAsked is when the first of those runs began that ended with 75 since a sync of the vault came to an end: when
// whoever repeats the command first asked for a listing. Zero: there is none.
func firstAsked(ctx context.Context, r *vaultRun) (at time.Time, err error) {
	runs, err := r.options.Catalog.Runs(ctx, "", 1000)
	if err != nil {
		return at, err
	}
	for _, x := range runs { // newest first
		if x.Command != "vault sync "+r.options.Vault || x.Ended.IsZero() && x.Exit == 0 { // this one, or killed
			continue
		}
		if x.Exit != exitCode(failure.NotReady) {
			break
		}
		at = x.Started
	}
	return at, nil
}

func (c *command) syncSummary(url string, r reconcile.Result) string {
	if r.Older {
		return fmt.Sprintf("%s: the listing, of %s, is older than the one the catalog has: nothing was changed", url, c.stamp(r.AsOf))
	}
	text := fmt.Sprintf("%s as of %s: %s, %s; %s new", url, c.stamp(r.AsOf), plural(r.Archives, "archive"), units.Size(r.Bytes), count(r.New))
	for _, x := range []struct {
		n    int64
		what string
	}{
		{r.Newer, "newer than the listing"}, {r.Dropped, "deleted"}, {r.Found[reconcile.Gone], "gone"}, {r.Found[reconcile.Different], "different"},
		{r.Found[reconcile.Damaged], "damaged"}, {r.Found[reconcile.Returned], "returned"}, {r.Found[reconcile.Renamed], "renamed"},
		{r.Found[reconcile.Orphan], "needed by no snapshot"},
		{r.Found[reconcile.Settled], "settled"},
	} {
		if x.n > 0 {
			text += ", " + count(x.n) + " " + x.what
		}
	}
	for _, tool := range slices.Sorted(maps.Keys(r.Tools)) {
		text += fmt.Sprintf(", %s by %s", count(r.Tools[tool]), tool)
	}
	return text
}

// jsonSync is the data of a sync's summary. docs/reference/vault-commands.md.
type jsonSync struct {
	Vault    string           `json:"vault"`
	AsOf     *string          `json:"as_of,omitempty"`
	Older    bool             `json:"older,omitempty"`
	Archives int64            `json:"archives"`
	Bytes    int64            `json:"bytes"`
	New      int64            `json:"new"`
	Newer    int64            `json:"newer"`
	Deleted  int64            `json:"deleted"`
	Found    map[string]int64 `json:"found"`
	Tools    map[string]int64 `json:"tools,omitempty"`
}

func syncJSON(url string, r reconcile.Result) jsonSync {
	j := jsonSync{Vault: url, AsOf: stampJSON(r.AsOf), Older: r.Older, Archives: r.Archives, Bytes: r.Bytes, New: r.New, Newer: r.Newer,
		Deleted: r.Dropped, Found: map[string]int64{}}
	for k, n := range r.Found {
		j.Found[string(k)] = n
	}
	for k, n := range r.Tools {
		if j.Tools == nil {
			j.Tools = map[string]int64{}
		}
		j.Tools[string(k)] = n
	}
	return j
}

// vaultRun is a run over a whole vault.
type vaultRun struct {
	ctx     context.Context // ends when the vault is no longer this run's
	options reconcile.Options
	log     *app.Run
	tell    progress.Watcher
	stop    func() // ends the progress that is shown; may be called again
	release func() // stops, and gives the vault back
}

// beginVaultRun takes the vault o.Vault, which is open as o.Store, and fills in the rest of o. what is the command's name.
func (c *command) beginVaultRun(ctx context.Context, a *app.App, what string, m *progress.Meter, o reconcile.Options) (*vaultRun, error) {
	db, err := a.Catalog(ctx, true)
	if err != nil {
		return nil, err
	}
	held, release, err := a.LockVault(ctx, o.Vault)
	if err != nil {
		return nil, err
	}
	run, err := a.BeginRun(held, "vault "+what+" "+o.Vault, "")
	if err != nil {
		release()
		return nil, err
	}
	tell, stop := c.watch(what, m)
	o.Catalog, o.Now, o.LockSet, o.Observe = db, a.Now, a.LockSet, &syncWatcher{tell: tell, log: run}
	return &vaultRun{ctx: held, options: o, log: run, tell: tell, stop: stop, release: func() { stop(); release() }}, nil
}

type syncWatcher struct {
	tell progress.Watcher
	log  *app.Run
}

var _ reconcile.Observer = (*syncWatcher)(nil)

func (w *syncWatcher) Waiting(text string) {
	w.tell.Tell(progress.Event{Kind: progress.Waiting, Text: text})
}

func (w *syncWatcher) Finding(f reconcile.Finding) {
	w.log.Warn("finding", "kind", string(f.Kind), "archive", f.Archive, "snapshot", f.Snapshot, "reason", f.Reason)
	kind := progress.Problem
	if f.Kind == reconcile.Orphan || f.Kind == reconcile.Settled {
		kind = progress.Notice
	}
	text := fmt.Sprintf("%s: %s (%s): %s", f.Kind, f.Archive, units.Size(f.Size), f.Reason)
	if f.Snapshot != "" && f.Kind != reconcile.Orphan && f.Kind != reconcile.Settled {
		text += "; snapshot " + f.Snapshot + " needs it"
	}
	w.tell.Tell(progress.Event{Kind: kind, Archive: f.Archive, Snapshot: f.Snapshot, Text: text})
}

// lastListing is the catalog's last listing of a vault; the zero one also where there is no catalog.
func lastListing(ctx context.Context, a *app.App, url string) (*catalog.DB, catalog.VaultListing, error) {
	db, err := a.Catalog(ctx, false)
	if noCatalog(err) {
		return nil, catalog.VaultListing{}, nil
	}
	if err != nil {
		return nil, catalog.VaultListing{}, err
	}
	l, err := db.LastListing(ctx, url)
	return db, l, err
}

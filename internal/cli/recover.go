package cli

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/firn-backup/firn/internal/app"
	"github.com/firn-backup/firn/internal/catalog"
	"github.com/firn-backup/firn/internal/failure"
	"github.com/firn-backup/firn/internal/items"
	"github.com/firn-backup/firn/internal/keyfile"
	"github.com/firn-backup/firn/internal/progress"
	"github.com/firn-backup/firn/internal/recovery"
	"github.com/firn-backup/firn/internal/units"
)

type recoverFlags struct {
	trustAny   bool
	identities []string
	retrieveFlags
}

func newRecover(c *command) *cobra.Command {
	var f recoverFlags
	cmd := &cobra.Command{
		Use:   "recover VAULT",
		Short: "Rebuild a lost catalog from a vault and the key",
		Long: `List the vault, read its manifests, and record what they tell: afterwards everything
can be restored. Put the key file in its place first (firn key import). Manifests that
an unknown key signed are refused, unless firn key trust was told of it. It may be
repeated: what the catalog has stays, and after an interruption it goes on.`,
		Example: example("firn recover dir:/mnt/nas/firn", "firn recover offsite"),
		Args:    args(0, 1, "one vault"),
		RunE:    func(cmd *cobra.Command, args []string) error { return c.recover(cmd, args, f) },
	}
	fs := cmd.Flags()
	fs.BoolVar(&f.trustAny, "trust-any", false, "believe manifests whoever signed them, and trust their signers from now on")
	fs.StringArrayVarP(&f.identities, "identity", "i", nil, "decrypt with the keys in `FILE` too; repeatable")
	f.retrieveFlags.add(cmd)
	return cmd
}

func (c *command) recover(cmd *cobra.Command, args []string, f recoverFlags) error {
	ctx := cmd.Context()
	if err := f.check(); err != nil {
		return err
	}
	a, err := c.open(cmd)
	if err != nil {
		return err
	}
	vault := ""
	if len(args) == 1 {
		vault = args[0]
	}
	url, err := a.VaultURL(vault)
	if err != nil {
		return err
	}
	store, err := a.OpenStore(ctx, url, false)
	if err != nil {
		return err
	}
	d, err := c.desk(ctx, f.retrieveFlags, url, store)
	if err != nil {
		return err
	}
	db, err := a.Catalog(ctx, true)
	if err != nil {
		return err
	}
	ctx, release, err := a.LockSet(ctx, catalog.Set{ID: "recover", Name: "recover"})
	if err != nil {
		return err
	}
	defer release()
	o := recovery.Options{
		Catalog: db, Lister: store, Store: store, Vault: url, Codecs: a.Codecs(f.identities), Now: a.Now,
		TrustAny: f.trustAny, Tier: d.tier, Days: d.days, Pace: d.pace, Approve: d.approve, Wait: f.wait,
		Configured: func(name string) bool { return a.Config.Sets[name] != nil },
		Kind: func(name string) string {
			if s := a.Config.Sets[name]; s != nil {
				return s.Kind
			}
			return ""
		},
	}
	if o.Signers, err = a.Signers(ctx); err != nil {
		return err
	}
	run, err := a.BeginRun(ctx, app.RecoverCommand(url), "")
	if err != nil {
		return err
	}
	return c.recoverRun(ctx, a, run, o)
}

func (c *command) recoverRun(ctx context.Context, a *app.App, run *app.Run, o recovery.Options) error {
	meter := progress.New(nil)
	tell, stop := c.watch("recover", meter)
	defer stop()
	o.Observe = &recoverWatcher{meter: meter, tell: tell, log: run, c: c}
	tell.Tell(progress.Event{Kind: progress.Began, Text: "recovering from " + o.Vault})
	res, err := recovery.Run(ctx, o)
	kind := failure.KindOf(err)
	var single items.RecoverResult
	if err == nil || kind == failure.Partial || kind == failure.Damaged || kind == failure.NoKey {
		var serr error
		if single, serr = c.recoverItems(ctx, a, run, tell, o); serr != nil && (err == nil || kind == failure.Partial) {
			err = errors.Join(serr, err)
		}
		if kind == failure.NoKey && single.Sets > 0 && serr == nil {
			err = failure.Wrap(failure.Partial, err)
		}
		kind = failure.KindOf(err)
	}
	stop()
	summary := fmt.Sprintf("%s as of %s: %s recovered, %s known already, %s", o.Vault, c.stamp(res.AsOf),
		plural(int64(res.Recovered), "snapshot"), count(int64(res.Kept)), plural(int64(res.Sets), "set"))
	if single.Sets > 0 {
		summary += fmt.Sprintf("; %s of %s of single archives recovered", plural(single.Items, "item"), plural(int64(single.Sets), "set"))
	}
	if res.Problems > 0 {
		summary += "; " + plural(res.Problems, "problem")
	}
	if err == nil || kind == failure.Damaged || kind == failure.Partial {
		c.tell(progress.Event{Kind: progress.Summary, Text: summary, Data: recoverJSON(o, res)})
	} else {
		summary = err.Error()
	}
	switch {
	case kind != failure.NoKey || err == nil:
	case res.Keys == 0:
		err = withHint(err, noKeyHint)
	default:
		err = withHint(err, "the vault holds a key under a passphrase (firn vault show): fetch that archive and give it to firn key import")
	}
	return errors.Join(err, run.End(ctx, c.codeOf(ctx, err), summary))
}

// recoverItems recovers sets of single archives.
func (c *command) recoverItems(ctx context.Context, a *app.App, run *app.Run, tell progress.Watcher, o recovery.Options) (items.RecoverResult, error) {
	store, err := a.OpenStore(ctx, o.Vault, false)
	if err != nil {
		return items.RecoverResult{}, err
	}
	return items.Recover(ctx, items.RecoverOptions{
		Catalog: o.Catalog, Store: store, Vault: o.Vault, Codecs: o.Codecs, Signers: o.Signers, Now: o.Now, Rand: rand.Reader, TrustAny: o.TrustAny,
		Tier: o.Tier, Days: o.Days, Wait: o.Wait, Approve: o.Approve, Pace: o.Pace, Transfer: o.Transfer,
		PathOf: func(name string) string {
			if s := a.Config.Sets[name]; s != nil {
				return s.Path
			}
			return ""
		},
		Problem: func(archive, reason string) {
			run.Warn("problem", "archive", archive, "reason", reason)
			tell.Tell(progress.Event{Kind: progress.Problem, Archive: archive, Text: reason})
		},
		Waiting: func(ready, all int) {
			tell.Tell(progress.Event{Kind: progress.Waiting, Text: waitingText(ready, all)})
		},
	})
}

// jsonRecover is the data of a recovery's summary. docs/reference/json.md.
type jsonRecover struct {
	Vault     string           `json:"vault"`
	AsOf      *string          `json:"as_of,omitempty"`
	Sets      int              `json:"sets"`
	Recovered int              `json:"recovered"`
	Known     int              `json:"known"`
	Strays    int              `json:"strays"`
	BytesRead int64            `json:"bytes_read"`
	Problems  int64            `json:"problems"`
	Found     map[string]int64 `json:"found"`
}

func recoverJSON(o recovery.Options, r recovery.Result) jsonRecover {
	j := jsonRecover{Vault: o.Vault, AsOf: stampJSON(r.AsOf), Sets: r.Sets, Recovered: r.Recovered, Known: r.Kept,
		Strays: r.Strays, BytesRead: r.Read, Problems: r.Problems, Found: map[string]int64{}}
	for k, n := range r.Found {
		j.Found[string(k)] = n
	}
	return j
}

type recoverWatcher struct {
	meter *progress.Meter
	tell  progress.Watcher
	log   *app.Run
	c     *command
}

var _ recovery.Observer = (*recoverWatcher)(nil)

func (w *recoverWatcher) Listed(asOf time.Time, snapshots, missing int) {
	w.meter.SetTotals(0, int64(missing))
	w.tell.Tell(progress.Event{Kind: progress.Notice, Text: fmt.Sprintf("%s in the vault as of %s, %s of them not in the catalog",
		plural(int64(snapshots), "snapshot"), w.c.stamp(asOf), count(int64(missing)))})
}

func (w *recoverWatcher) Waiting(ready, all int) {
	w.tell.Tell(progress.Event{Kind: progress.Waiting, Text: waitingText(ready, all)})
}

func (w *recoverWatcher) Read(n int64) { w.meter.AddBytes(n) }

func (w *recoverWatcher) Recovered(set catalog.Set, s catalog.Snapshot) {
	w.meter.AddFiles(1)
	w.log.Info("recovered", "set", set.Name, "snapshot", s.ID, "n", s.N)
	w.tell.Tell(progress.Event{Kind: progress.Notice, Set: set.Name, Snapshot: s.ID, Text: fmt.Sprintf("recovered %s of %s: %s, %s, %s",
		set.Name, w.c.stamp(s.At), s.Kind, entries(s.Totals.Entries), units.Size(s.Totals.Bytes))})
}

func (w *recoverWatcher) Problem(p recovery.Problem) {
	w.log.Warn("problem", "kind", string(p.Kind), "archive", p.Archive, "snapshot", p.Snapshot, "reason", p.Reason)
	text := string(p.Kind)
	if p.Archive != "" {
		text += ": " + p.Archive
	}
	if p.Reason != "" {
		text += ": " + p.Reason
	}
	if p.Kind == recovery.Untrusted && p.Signer != nil {
		text += "; if it is yours: firn key trust " + keyfile.FormatSigningKey(p.Signer)
	}
	w.tell.Tell(progress.Event{Kind: progress.Problem, Archive: p.Archive, Snapshot: p.Snapshot, Text: text})
}

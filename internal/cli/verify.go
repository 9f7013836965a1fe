package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/firn-backup/firn/internal/app"
	"github.com/firn-backup/firn/internal/catalog"
	"github.com/firn-backup/firn/internal/failure"
	"github.com/firn-backup/firn/internal/progress"
	"github.com/firn-backup/firn/internal/units"
	"github.com/firn-backup/firn/internal/verify"
)

type verifyFlags struct {
	read       bool
	identities []string
	limit      limitFlag
	retrieveFlags
}

func newVerify(c *command) *cobra.Command {
	var f verifyFlags
	cmd := &cobra.Command{
		Use:   "verify [SET…]",
		Short: "Compare the catalog with the vault",
		Long: `See that every archive that snapshots need is in the vault, with its size and tree
hash, and list Firn's archives that no snapshot needs. With --read everything is
read back, decrypted, decompressed, and each file's SHA-256 compared.`,
		Example: example("firn verify", "firn verify Documents --read"),
		Args:    cobra.ArbitraryArgs,
		RunE:    func(cmd *cobra.Command, args []string) error { return c.verify(cmd, args, f) },
	}
	fs := cmd.Flags()
	fs.BoolVar(&f.read, "read", false, "read everything back; on a cold vault that costs retrievals")
	fs.StringArrayVarP(&f.identities, "identity", "i", nil, "decrypt with the keys in `FILE` too; repeatable")
	f.retrieveFlags.add(cmd)
	f.limit.add(cmd)
	return cmd
}

func (c *command) verify(cmd *cobra.Command, args []string, f verifyFlags) error {
	ctx := cmd.Context()
	if err := f.check(); err != nil {
		return err
	}
	a, err := c.open(cmd)
	if err != nil {
		return err
	}
	db, err := a.Catalog(ctx, false)
	if err != nil {
		return err
	}
	vaults, err := c.vaultsToVerify(ctx, a, db, args)
	if err != nil {
		return err
	}
	var errs []error
	for _, v := range vaults {
		o := verify.Options{Catalog: db, Vault: v.url, Sets: v.sets, Now: a.Now, Read: f.read, Wait: f.wait, Codecs: a.Codecs(f.identities)}
		if o.Signers, err = a.Signers(ctx); err != nil {
			return err
		}
		if err = c.verifyVault(ctx, a, o, f); err != nil && len(vaults) > 1 {
			err = fmt.Errorf("vault %s: %w", v.url, err)
		}
		errs = append(errs, err)
		if ctx.Err() != nil {
			break
		}
	}
	return c.together(errs)
}

// vaultSets are sets that have snapshots in one vault.
type vaultSets struct {
	url  string
	sets []string // ids; empty: all
}

// vaultsToVerify finds where the snapshots of the named sets lie; of all sets where none is named.
func (c *command) vaultsToVerify(ctx context.Context, a *app.App, db *catalog.DB, args []string) ([]vaultSets, error) {
	var sets []catalog.Set
	for _, arg := range args {
		s, err := a.FindSet(ctx, arg)
		if err != nil {
			return nil, err
		}
		sets = append(sets, s)
	}
	if len(args) == 0 {
		var err error
		if sets, err = db.Sets(ctx); err != nil {
			return nil, err
		}
	}
	var out []vaultSets
	add := func(vault, set string) {
		i := slices.IndexFunc(out, func(v vaultSets) bool { return v.url == vault })
		if i < 0 {
			i = len(out)
			out = append(out, vaultSets{url: vault})
		}
		if len(args) > 0 && !slices.Contains(out[i].sets, set) {
			out[i].sets = append(out[i].sets, set)
		}
	}
	for _, s := range sets {
		snaps, err := db.Snapshots(ctx, s.ID)
		if err != nil {
			return nil, err
		}
		for _, snap := range snaps {
			if snap.State == catalog.Stored {
				add(snap.Vault, s.ID)
			}
		}
		runs, err := db.ItemRuns(ctx, s.ID)
		if err != nil {
			return nil, err
		}
		for _, r := range runs {
			add(r.Vault, s.ID)
		}
	}
	if len(out) == 0 {
		return nil, failure.Errorf(failure.NotFound, "there is no snapshot yet")
	}
	return out, nil
}

func (c *command) verifyVault(ctx context.Context, a *app.App, o verify.Options, f verifyFlags) error {
	store, err := a.OpenStore(ctx, o.Vault, false)
	if err != nil {
		return err
	}
	o.Lister, o.Store = store, store
	d, err := c.desk(ctx, f.retrieveFlags, o.Vault, store)
	if err != nil {
		return err
	}
	o.Tier, o.Days, o.Pace, o.Approve = d.tier, d.days, d.pace, d.approve
	if o.Transfer.Limit, err = c.limiter(a, f.limit); err != nil {
		return err
	}
	run, err := a.BeginReading(ctx, "verify", "")
	if err != nil {
		return err
	}
	meter := progress.New(nil)
	tell, stop := c.watch("verify", meter)
	defer stop()
	o.Observe = &verifyWatcher{meter: meter, tell: tell, log: run, c: c}
	tell.Tell(progress.Event{Kind: progress.Began, Text: "verifying " + o.Vault})
	res, err := verify.Run(ctx, o)
	stop()
	summary := verifySummary(o, res)
	if kind := failure.KindOf(err); err == nil || kind == failure.Damaged {
		c.tell(progress.Event{Kind: progress.Summary, Text: summary, Data: verifyJSON(o, res)})
	} else {
		summary = err.Error()
	}
	return errors.Join(err, run.End(ctx, c.codeOf(ctx, err), summary))
}

func verifySummary(o verify.Options, r verify.Result) string {
	of := plural(int64(r.Snapshots), "snapshot")
	switch {
	case r.Items > 0 && r.Snapshots == 0:
		of = plural(int64(r.Items), "item")
	case r.Items > 0:
		of += " and " + plural(int64(r.Items), "item")
	}
	text := fmt.Sprintf("%s: %s of %s, %s", o.Vault, plural(int64(r.Archives), "archive"), of, units.Size(r.Bytes))
	if o.Read {
		text += fmt.Sprintf(", %s read back, %s compared", units.Size(r.Read), plural(r.Files, "file"))
	}
	var found []string
	for _, k := range []verify.Kind{verify.Missing, verify.Different, verify.Damaged, verify.Orphan, verify.Unsure} {
		if n := r.Found[k]; n > 0 {
			found = append(found, count(n)+" "+string(k))
		}
	}
	if len(found) == 0 {
		return text + ": all is well"
	}
	return text + ": " + strings.Join(found, ", ")
}

// jsonVerify is the data of a verification's summary. docs/reference/json.md.
type jsonVerify struct {
	Vault       string           `json:"vault"`
	AsOf        *string          `json:"as_of,omitempty"`
	Snapshots   int              `json:"snapshots"`
	Items       int              `json:"items,omitempty"`
	Archives    int              `json:"archives"`
	Bytes       int64            `json:"bytes"`
	BytesRead   int64            `json:"bytes_read"`
	Files       int64            `json:"files"`
	Found       map[string]int64 `json:"found"`
	OrphanBytes int64            `json:"orphan_bytes"`
}

func verifyJSON(o verify.Options, r verify.Result) jsonVerify {
	j := jsonVerify{Vault: o.Vault, AsOf: stampJSON(r.AsOf), Snapshots: r.Snapshots, Items: r.Items, Archives: r.Archives, Bytes: r.Bytes,
		BytesRead: r.Read, Files: r.Files, Found: map[string]int64{}, OrphanBytes: r.OrphanSum}
	for k, n := range r.Found {
		j.Found[string(k)] = n
	}
	return j
}

type verifyWatcher struct {
	meter *progress.Meter
	tell  progress.Watcher
	log   *app.Run
	c     *command
}

var _ verify.Observer = (*verifyWatcher)(nil)

func (w *verifyWatcher) Archive(archive string, size int64, read bool) {
	text := "listed"
	if read {
		text = "verified"
	}
	w.tell.Tell(progress.Event{Kind: progress.Archive, Archive: archive, Bytes: size, Text: text})
}

func (w *verifyWatcher) Read(n int64) { w.meter.AddBytes(n) }

func (w *verifyWatcher) Waiting(ready, all int) {
	w.tell.Tell(progress.Event{Kind: progress.Waiting, Text: waitingText(ready, all)})
}

func (w *verifyWatcher) Finding(f verify.Finding) {
	w.log.Warn("finding", "kind", string(f.Kind), "archive", f.Archive, "snapshot", f.Snapshot, "path", f.Path, "reason", f.Reason)
	text := string(f.Kind) + ": " + f.Archive
	if f.Reason != "" {
		text += ": " + f.Reason
	}
	kind := progress.Problem
	if f.Kind == verify.Orphan || f.Kind == verify.Unsure {
		kind = progress.Notice
		if f.Kind == verify.Orphan {
			text += " (" + units.Size(f.Size) + ")"
		}
	}
	w.tell.Tell(progress.Event{Kind: kind, Archive: f.Archive, Snapshot: f.Snapshot, Path: f.Path, Text: text})
}

package cli

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/firn-backup/firn/internal/app"
	"github.com/firn-backup/firn/internal/catalog"
	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/internal/cost"
	"github.com/firn-backup/firn/internal/failure"
	"github.com/firn-backup/firn/internal/progress"
	"github.com/firn-backup/firn/internal/reconcile"
	"github.com/firn-backup/firn/internal/units"
)

type emptyFlags struct {
	early, deleteVault, yes, force, wait bool
	confirm                              string
}

func newVaultEmpty(c *command) *cobra.Command {
	var f emptyFlags
	cmd := &cobra.Command{
		Use:   "empty VAULT",
		Short: "Delete all archives of a vault, and the vault if wanted",
		Long: `Delete all archives of a vault, whoever stored them. Archives younger than the
vault's minimum duration (90 days in Amazon Glacier, 180 in DEEP_ARCHIVE), which would
cost the rest of it, are left for later, unless --allow-early-delete, which names
the fee first. Archives that are locked are left until they are not. What snapshots of the catalog need is
not deleted, unless --force has the catalog forget those snapshots.

With vaults that list once a day this takes days: the command exits with 75
while there is something to wait for, and run again it goes on, from wherever
it was stopped.`,
		Example: example("firn vault empty glacier://eu-west-1/old --delete-vault", "firn vault empty dir:/mnt/old --confirm old --force"),
		Args:    args(1, 1, "one vault"),
		RunE:    func(cmd *cobra.Command, args []string) error { return c.emptyVault(cmd, args[0], f) },
	}
	fs := cmd.Flags()
	fs.BoolVar(&f.early, "allow-early-delete", false, "also delete archives younger than the vault's minimum duration")
	fs.BoolVar(&f.deleteVault, "delete-vault", false, "delete the vault too, once it is known to be empty")
	fs.BoolVar(&f.force, "force", false, "also delete what snapshots need, and forget the snapshots")
	fs.BoolVar(&f.wait, "wait", false, "wait for the vault's listing, instead of exiting with 75")
	fs.BoolVarP(&f.yes, "yes", "y", false, "do not ask")
	fs.StringVar(&f.confirm, "confirm", "", "the vault's `NAME`, instead of typing it on the terminal")
	return cmd
}

func (c *command) emptyVault(cmd *cobra.Command, vault string, f emptyFlags) error {
	a, url, store, err := c.openVault(cmd, vault)
	if errors.Is(err, app.ErrNoVault) && f.deleteVault {
		return c.vaultGone(cmd.Context(), a, url, err)
	}
	if err != nil {
		return err
	}
	o := reconcile.EmptyOptions{Deleter: store, Force: f.force, DeleteVault: f.deleteVault}
	if f.deleteVault {
		if _, err := ability[coldstore.VaultDeleter](store, "deletion"); err != nil {
			return err
		}
	}
	t := store.Traits()
	o.Lock = time.Duration(t.LockDays) * 24 * time.Hour
	if free := time.Duration(t.MinDays) * 24 * time.Hour; f.early {
		o.FreeAge = free
		o.Early, o.Approve = c.earlyTold(url, store, a.Now)
	} else {
		o.MinAge = free
	}
	if !f.yes {
		what := "All archives in " + url + " will be deleted, whoever stored them. Nothing brings them back."
		if err := c.confirm(cmd.Context(), url, f.confirm, what); err != nil {
			return err
		}
	}
	meter := progress.New(nil)
	r, err := c.beginVaultRun(cmd.Context(), a, "empty", meter, reconcile.Options{Store: store, Vault: url, Wait: f.wait})
	if err != nil {
		return err
	}
	defer r.release()
	ctx := r.ctx
	o.Options = r.options
	o.Deleted = func(x coldstore.Archive) {
		meter.AddFiles(1)
		r.log.Info("deleted", "archive", x.ID, "size", x.Size)
		r.tell.Tell(progress.Event{Kind: progress.Archive, Archive: x.ID, Bytes: x.Size, Text: "deleted"})
	}
	r.tell.Tell(progress.Event{Kind: progress.Began, Text: "emptying " + url})
	res, err := reconcile.Empty(ctx, o)
	r.stop()
	summary := emptySummary(url, res)
	c.tell(progress.Event{Kind: progress.Summary, Text: summary, Data: emptyJSON(url, res)})
	if failure.KindOf(err) == failure.Usage && !f.force && !errors.Is(err, coldstore.ErrUnsupported) {
		err = withHint(err, "--force deletes them all the same; the catalog then forgets those snapshots")
	}
	return errors.Join(err, r.log.End(ctx, c.codeOf(ctx, err), summary))
}

// earlyTold sums up what deleting archives early costs, and then names it.
func (c *command) earlyTold(url string, s coldstore.Lister, now func() time.Time) (early func(coldstore.Archive, time.Time), approve func() error) {
	place, billed := app.Place(url, s)
	prices, err := cost.Prices()
	known := billed && err == nil
	var n, size int64
	var fee cost.Money
	early = func(a coldstore.Archive, stored time.Time) {
		n++
		size += a.Size
		if !known {
			return
		}
		one, err := prices.EarlyDeletion(place, []cost.Stored{{Bytes: a.Size, Created: stored}}, now())
		if err != nil {
			known = false
			return
		}
		fee += one
	}
	approve = func() error {
		text := "an unknown fee"
		if known {
			text = fee.String()
		}
		c.warn("deleting %s, %s, before the minimum storage duration of %d days is over costs %s", plural(n, "archive"), units.Size(size), s.Traits().MinDays, text)
		return nil
	}
	return early, approve
}

// vaultGone ends an emptying whose last run deleted the vault and was stopped before it said so.
func (c *command) vaultGone(ctx context.Context, a *app.App, url string, err error) error {
	db, _, dberr := lastListing(ctx, a, url)
	if dberr != nil {
		return dberr
	}
	if db == nil {
		return err
	}
	known := errors.New("known")
	last, dberr := db.LastListing(ctx, url)
	if dberr == nil && last.AsOf.IsZero() {
		dberr = db.FindArchives(ctx, url, nil, func(catalog.ArchiveRecord) error { return known })
		if dberr == nil {
			return err
		}
	}
	if dberr != nil && !errors.Is(dberr, known) {
		return dberr
	}
	if dberr := db.ForgetVault(ctx, url); dberr != nil {
		return dberr
	}
	c.talk("%s is not there any more", url)
	return nil
}

func emptySummary(url string, r reconcile.EmptyResult) string {
	text := fmt.Sprintf("%s: %s deleted, %s", url, plural(r.Deleted, "archive"), units.Size(r.Bytes))
	if r.Young > 0 {
		text += fmt.Sprintf("; %s too young", count(r.Young))
	}
	if r.Locked > 0 {
		text += fmt.Sprintf("; %s locked", count(r.Locked))
	}
	if r.Dropped > 0 {
		text += fmt.Sprintf("; %s forgotten", plural(int64(r.Dropped), "snapshot"))
	}
	if r.Vault {
		text += "; the vault is deleted"
	}
	return text
}

// jsonEmpty is the data of an emptying's summary. docs/reference/vault-commands.md.
type jsonEmpty struct {
	Vault        string  `json:"vault"`
	Deleted      int64   `json:"deleted"`
	Bytes        int64   `json:"bytes"`
	Young        int64   `json:"young"`
	Locked       int64   `json:"locked"`
	NextAt       *string `json:"next_at,omitempty"`
	Snapshots    int     `json:"snapshots_forgotten"`
	VaultDeleted bool    `json:"vault_deleted"`
}

func emptyJSON(url string, r reconcile.EmptyResult) jsonEmpty {
	return jsonEmpty{Vault: url, Deleted: r.Deleted, Bytes: r.Bytes, Young: r.Young, Locked: r.Locked, NextAt: stampJSON(r.NextAt), Snapshots: r.Dropped, VaultDeleted: r.Vault}
}

func newVaultDelete(c *command) *cobra.Command {
	return &cobra.Command{
		Use:   "delete VAULT",
		Short: "Delete an empty vault",
		Long: `Delete a vault that holds no archives. Amazon Glacier does so only once an
inventory, made about once a day, has shown it empty and nothing was
written to it since. firn vault empty deletes what is in it.`,
		Example: example("firn vault delete glacier://eu-west-1/old"),
		Args:    args(1, 1, "one vault"),
		RunE: func(cmd *cobra.Command, args []string) error {
			a, url, store, err := c.openVault(cmd, args[0])
			if err != nil {
				return err
			}
			d, err := ability[coldstore.VaultDeleter](store, "deletion")
			if err != nil {
				return err
			}
			if err := c.deleteVault(cmd.Context(), a, url, d, store.Traits()); err != nil {
				return err
			}
			if c.json {
				return c.document(jsonVault{Name: args[0], URL: url})
			}
			c.talk("deleted %s", url)
			return nil
		},
	}
}

func (c *command) deleteVault(ctx context.Context, a *app.App, url string, d coldstore.VaultDeleter, t coldstore.Traits) error {
	db, _, err := lastListing(ctx, a, url)
	if err != nil {
		return err
	}
	err = administer(ctx, func() error { return d.DeleteVault(ctx) })
	if errors.Is(err, coldstore.ErrInvalid) {
		hint := "firn vault empty %s --delete-vault deletes what is in it first"
		if t.ListLag > 0 && !knownFull(ctx, d) {
			err = failure.Wrap(failure.NotReady, err)
			hint = "it can be deleted when an inventory has shown it empty, about a day after its last archive was deleted; " + hint
		}
		return withHint(err, hint, url)
	}
	if err != nil || db == nil {
		return err
	}
	return db.ForgetVault(ctx, url)
}

// knownFull says that the vault's own last listing shows archives in it.
func knownFull(ctx context.Context, d coldstore.VaultDeleter) bool {
	v, ok := d.(coldstore.VaultDescriber)
	if !ok {
		return false
	}
	now, err := v.DescribeVault(ctx)
	return err == nil && now.Archives > 0
}

package glaciercli

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/firn-backup/firn/internal/app"
	"github.com/firn-backup/firn/internal/catalog"
	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/internal/failure"
	"github.com/firn-backup/firn/internal/plain"
	"github.com/firn-backup/firn/internal/reconcile"
	"github.com/firn-backup/firn/internal/transfer"
)

// serviceVaults are the names of the service's vaults in a region. Where there are no credentials, or no vaults for this
// account, and the config file has vaults, those are all.
func (s *session) serviceVaults(ctx context.Context, a *app.App, region string) ([]string, error) {
	var names []string
	acc, err := a.OpenAccount(ctx, app.RegionURL(region, ""))
	if err == nil {
		l, ok := acc.(coldstore.VaultLister)
		if !ok {
			return nil, failure.Errorf(failure.Usage, "region %s has no vaults", region)
		}
		err = transfer.Retry(ctx, transfer.Options{Retries: 3}, func() error {
			names = nil
			return l.ListVaults(ctx, func(v coldstore.Vault) error {
				names = append(names, v.Name)
				return nil
			})
		})
	}
	if len(a.Config.Vaults) > 0 && (app.IsNoCredentials(err) || errors.Is(err, coldstore.ErrUnsupported)) {
		return nil, nil
	}
	return names, err
}

// vaultList prints the vaults of the service and those of the config file, by name.
func vaultList(ctx context.Context, s *session) error {
	a, err := s.open()
	if err != nil {
		return err
	}
	names, err := s.serviceVaults(ctx, a, s.region)
	names = append(names, slices.Collect(maps.Keys(a.Config.Vaults))...)
	slices.Sort(names)
	for _, n := range slices.Compact(names) {
		s.line(n)
	}
	return err // of the service: the config file's are told all the same
}

// vaultCreate makes a vault. One that is there already is as good.
func vaultCreate(ctx context.Context, s *session) error {
	a, err := s.open()
	if err != nil {
		return err
	}
	name := s.args.args[0]
	url, configured := app.RegionURL(s.region, name), false
	if v := a.Config.Vaults[name]; v != nil {
		url, configured = v.URL, true
	}
	_, err = a.CreateVault(ctx, url)
	if errors.Is(err, coldstore.ErrExists) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("vault %s: %w", repr(name), err)
	}
	if configured && !app.ListsLate(url) {
		return nil // it tells itself that it is empty
	}
	v, err := s.vault(ctx, name)
	if err != nil {
		return err
	}
	return v.db.VaultMade(ctx, v.url, a.Now())
}

// vaultSync takes the vault's inventory into the catalog.
func vaultSync(ctx context.Context, s *session) error {
	v, err := s.vault(ctx, s.args.args[0])
	if err != nil {
		return err
	}
	hours := int64(24)
	if s.args.has("--max-age") {
		hours = s.args.numbers["--max-age"]
	}
	_, err = v.sync(ctx, syncOptions{wait: s.args.has("--wait"), fix: s.args.has("--fix"), maxAge: ageOf(hours), say: true})
	return err
}

// ageOf is an age in hours, of a century at most.
func ageOf(hours int64) time.Duration {
	const century = 100 * 366 * 24
	return time.Duration(min(max(hours, 0), century)) * time.Hour
}

type syncOptions struct {
	wait, fix bool
	maxAge    time.Duration // of a finished inventory; 0: only one that is being made
	say       bool          // what was found
	// needless, if set, is asked once the vault is locked: another process may have done it.
	needless func() (bool, error)
}

// lockPause is how often is tried what another process holds.
const lockPause = 50 * time.Millisecond

// sync takes a listing in, as reconcile.Sync does. *pending: it is being made.
func (v *vault) sync(ctx context.Context, o syncOptions) (reconcile.Result, error) {
	var none reconcile.Result
	p, err := v.open(ctx)
	if err != nil {
		return none, err
	}
	poll, err := v.s.poll()
	if err != nil {
		return none, err
	}
	ctx, release, err := waitFor(ctx, func() (context.Context, func(), error) { return v.app.LockVault(ctx, v.url) })
	if err != nil {
		return none, err
	}
	defer release()
	if o.needless != nil {
		if done, err := o.needless(); done || err != nil {
			return none, err
		}
	}
	running := false
	if !v.lists {
		if running, err = v.inventoryRuns(ctx, p); err != nil {
			return none, err
		}
	}
	w := &syncTalk{v: v, o: o}
	res, err := reconcile.Sync(ctx, reconcile.Options{
		Catalog: v.db, Store: p.Store, Vault: v.url, Now: v.app.Now, Fix: o.fix, MaxAge: max(o.maxAge, time.Nanosecond),
		Wait: o.wait, Poll: poll, LockSet: v.app.LockSet, Observe: w,
	})
	switch {
	case failure.KindOf(err) == failure.Partial: // told of; the catalog has it all
		err = nil
	case failure.KindOf(err) == failure.NotReady && running:
		err = &pending{fmt.Sprintf("job still pending for inventory on %s", repr(v.name))}
	case failure.KindOf(err) == failure.NotReady:
		now, jerr := v.inventoryRuns(ctx, p)
		if jerr != nil {
			return res, jerr
		}
		err = &pending{fmt.Sprintf("queued inventory job for %s", repr(v.name))}
		if !now {
			err = &pending{fmt.Sprintf("there is no inventory of %s yet; the first one is made about a day after the first upload", repr(v.name))}
		}
	}
	return res, err
}

// waitFor takes a lock, and waits for whoever holds it.
func waitFor(ctx context.Context, lock func() (context.Context, func(), error)) (context.Context, func(), error) {
	for {
		held, release, err := lock()
		if failure.KindOf(err) != failure.Locked {
			return held, release, err
		}
		if err := transfer.Sleep(ctx, lockPause); err != nil {
			return nil, nil, err
		}
	}
}

// inventoryRuns says whether an inventory is being made.
func (v *vault) inventoryRuns(ctx context.Context, p *plain.Vault) (bool, error) {
	jobs, err := p.Jobs(ctx)
	return slices.ContainsFunc(jobs, func(j coldstore.Job) bool {
		return j.Kind == coldstore.JobInventory && j.State == coldstore.JobRunning
	}), err
}

// syncTalk tells of a sync in the words of glacier-cli.
type syncTalk struct {
	v *vault
	o syncOptions
}

var _ reconcile.JudgeObserver = (*syncTalk)(nil)

// Waiting is not told of: glacier-cli waits in silence.
func (w *syncTalk) Waiting(string) {}

func (w *syncTalk) Finding(f reconcile.Finding) {
	if !w.o.say {
		return
	}
	switch f.Kind {
	case reconcile.Damaged, reconcile.Settled:
		w.v.s.warn("archive %s: %s", repr("id:"+f.Archive), f.Reason)
	}
}

// Judged tells what became of an archive.
func (w *syncTalk) Judged(st catalog.ArchiveState, j reconcile.Verdict) {
	if !w.o.say || st.Record == nil || plain.IsOwn(*st.Record) {
		return
	}
	r := *st.Record
	ref := repr(reference(r))
	deleted := !r.DeletedAt.IsZero()
	s := w.v.s
	switch {
	case st.Listed != nil && j.Finding == reconcile.Renamed:
		fixed := ""
		if w.o.fix {
			fixed = " (fixed)"
		}
		s.warn("archive %s appears to have changed name from %s to %s%s", repr(r.ID), repr(plain.Name(r)), repr(plain.NameOf(st.Listed.Description)), fixed)
	case st.Listed != nil && j.Finding == reconcile.Different:
		s.warn("archive %s upstream hash does not match cache hash", reference(r))
	case st.Listed != nil && deleted && j.Finding == reconcile.Returned:
		s.warn("archive %s marked deleted but still present", ref)
	case st.Listed != nil && deleted:
		s.warn("archive %s deletion not yet in inventory", ref)
	case st.Listed != nil:
	case deleted && j.Change != nil && j.Change.Drop:
		s.info("deleted archive %s has left inventory; removed from cache", ref)
	case deleted:
	case j.Finding == reconcile.Gone:
		fixed := ""
		if w.o.fix {
			fixed = " (removed from cache)"
		}
		s.warn("archive disappeared: %s%s", ref, fixed)
	case j.Newer:
		s.warn("new archive not yet in inventory: %s", ref)
	}
}

// reference is how an archive is referred to: by its name, or by its id where it has none.
func reference(r catalog.ArchiveRecord) string {
	name := plain.Name(r)
	if name == "" || unprintable(name) {
		name = r.Description
	}
	switch {
	case name == "":
		return "id:" + r.ID
	case len(name) > 3 && name[:3] == "id:", len(name) > 5 && name[:5] == "name:":
		return "name:" + name
	}
	return name
}

package app

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/firn-backup/firn/internal/catalog"
	"github.com/firn-backup/firn/internal/config"
	"github.com/firn-backup/firn/internal/cost"
	"github.com/firn-backup/firn/internal/failure"
	"github.com/firn-backup/firn/internal/foreign"
	"github.com/firn-backup/firn/internal/plan"
	"github.com/firn-backup/firn/internal/prune"
	"github.com/firn-backup/firn/internal/snapshot"
)

// Planned is a set with what it is to do at a time, and why.
type Planned struct {
	Target
	At        time.Time
	Policy    plan.Policy
	Snapshots []catalog.Snapshot // attempts included, by N
	Decision  plan.Decision

	// Note is one line on what in the config file takes no effect; empty: nothing.
	Note string
}

// Snapshot returns one of the set's snapshots by its id.
func (p *Planned) Snapshot(id string) (catalog.Snapshot, bool) {
	i := slices.IndexFunc(p.Snapshots, func(s catalog.Snapshot) bool { return s.ID == id })
	if i < 0 {
		return catalog.Snapshot{}, false
	}
	return p.Snapshots[i], true
}

// Unfinished is the set's attempt under way, or interrupted, if there is one.
func (p *Planned) Unfinished() (catalog.Snapshot, bool) {
	i := slices.IndexFunc(p.Snapshots, func(s catalog.Snapshot) bool { return s.State == catalog.Running })
	if i < 0 {
		return catalog.Snapshot{}, false
	}
	return p.Snapshots[i], true
}

// Plan says what the sets that are named, or all of the config file and those made by paths on this machine, would do at a time.
// Sets that are not in the config file have no schedule, and nothing of them expires. With an error comes the list of those that it is not of.
func (a *App) Plan(ctx context.Context, names []string, at time.Time) ([]Planned, error) {
	targets, err := a.plannedTargets(ctx, names)
	errs := []error{err}
	var list []Planned
	for _, t := range targets {
		err := a.vaultThen(ctx, &t, at)
		var p Planned
		if err == nil {
			p, err = a.PlanSet(ctx, t, at)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("set %s: %w", t.Set.Name, err))
			continue
		}
		list = append(list, p)
	}
	return list, errors.Join(errs...)
}

// DueSets are the sets of the config file that are due at a time, by name.
func (a *App) DueSets(ctx context.Context, at time.Time) ([]Planned, error) {
	all, err := a.Plan(ctx, slices.Sorted(maps.Keys(a.Config.Sets)), at)
	return slices.DeleteFunc(all, func(p Planned) bool { return !p.Decision.Due }), err
}

// PlanSet is Plan for one set. t may be new.
func (a *App) PlanSet(ctx context.Context, t Target, at time.Time) (Planned, error) {
	p := Planned{Target: t, At: at, Policy: plan.Policy{Incrementals: plan.NoLimit, Zone: time.Local}}
	var err error
	if t.Config != nil {
		if p.Policy, err = t.Config.PlanPolicy(); err != nil {
			return p, failure.Wrap(failure.Usage, err)
		}
	}
	p.Policy.Vault = t.Set.Vault
	db, err := a.Catalog(ctx, false)
	if err != nil && !errors.Is(err, ErrNoCatalog) {
		return p, err
	}
	if err == nil {
		if p.Snapshots, err = db.Snapshots(ctx, t.Set.ID); err != nil {
			return p, err
		}
	}
	h, err := prune.History(ctx, p.Snapshots, p.Policy.Zone, a.keeps(t))
	if err == nil && !HasSnapshots(t) {
		p.Policy.Incrementals, p.Policy.Retention, p.Policy.Runs = plan.NoLimit, plan.Retention{}, true
		p.Policy.MinInterval, p.Policy.Vault = 0, "" // that is each item's own
		if h = nil; db != nil {
			h, err = pastRuns(ctx, db, t.Set.Name)
		}
	}
	if err == nil && db != nil && len(h) == 0 && t.Config != nil && t.Config.Policy == "btrsend" {
		p.Policy.Before, err = lastOfBtrsend(ctx, db, t.Set.Vault, p.Policy.Zone)
	}
	if err != nil {
		return p, err
	}
	p.Decision = plan.Decide(at, p.Policy, h, a.PlanRules(ctx, db))
	p.Note = a.endless(t, p.Policy)
	if !HasSnapshots(t) {
		p.Decision.Keep, p.Decision.Base = nil, "" // runs are no snapshots
		p.Decision.Kind, p.Decision.KindReason = snapshot.Kind(targetKind(t)), "items that are new or have changed"
		if targetKind(t) == config.KindMirror {
			p.Decision.KindReason = "files that are new or have changed, each as an archive"
		}
	}
	return p, nil
}

// endless says of a set whose chain never ends that nothing of it can expire; empty: a chain ends some time.
func (a *App) endless(t Target, p plan.Policy) string {
	r := p.Retention
	if t.Config == nil || p.Incrementals != plan.NoLimit || r.Expire <= 0 && !r.Keeps() {
		return ""
	}
	switch targetKind(t) {
	case config.KindCommand, config.KindStream: // all are full
		return ""
	}
	if v := a.Config.Vaults[t.Config.Vault]; v != nil && v.IsTemplate() {
		return "" // each vault has a chain of its own
	}
	rule := "keep-…"
	if r.Expire > 0 {
		rule = "expire"
	}
	return rule + " deletes nothing of the newest chain, and without incrementals = N that one is gone on with for ever: no other begins but by firn backup --full"
}

// lastOfBtrsend is the date of the newest archive of btrsend that is known to be in a vault; zero: there is none. A set that goes
// on where btrsend stopped is due when that would have been.
func lastOfBtrsend(ctx context.Context, db *catalog.DB, vault string, zone *time.Location) (last time.Time, err error) {
	there := func(r catalog.ArchiveRecord) bool {
		return r.DeletedAt.IsZero() && strings.HasPrefix(r.Description, "btrsend ")
	}
	err = db.FindArchives(ctx, vault, there, func(r catalog.ArchiveRecord) error {
		if f, ok := foreign.Decode(r.Description); ok && f.Tool == foreign.Btrsend {
			y, m, d := f.ModTime.Date()
			if at := time.Date(y, m, d, 0, 0, 0, 0, zone); at.After(last) {
				last = at
			}
		}
		return nil
	})
	return last, err
}

// HasSnapshots says whether backups of a set make snapshots, and not single archives.
func HasSnapshots(t Target) bool {
	kind := targetKind(t)
	return kind != config.KindItems && kind != config.KindMirror
}

func targetKind(t Target) string {
	if t.Config != nil && t.Config.Kind != "" {
		return t.Config.Kind
	}
	return t.Set.Kind
}

// StoresSet says whether runs of a command store what a set is of.
func StoresSet(command string) bool {
	return command == "backup" || command == "feed" || command == "vault reconcile"
}

// pastRuns are the backups of a set of single archives that came to their end, as if each were a snapshot: a
// schedule counts from them.
func pastRuns(ctx context.Context, db *catalog.DB, set string) ([]plan.Snapshot, error) {
	runs, err := db.Runs(ctx, set, keptRuns)
	if err != nil {
		return nil, err
	}
	var h []plan.Snapshot
	for i, r := range runs { // the newest first
		if StoresSet(r.Command) && !r.Ended.IsZero() && (r.Exit == 0 || r.Exit == exitPartial) {
			h = append(h, plan.Snapshot{ID: r.ID, N: uint64(len(runs) - i), At: r.Started, Kind: snapshot.Full, Complete: true})
		}
	}
	return h, nil
}

// exitPartial is the exit code of a run that could not read everything.
const exitPartial = 3

func (a *App) plannedTargets(ctx context.Context, names []string) ([]Target, error) {
	known, err := a.knownSets(ctx)
	if err != nil {
		return nil, err
	}
	all := len(names) == 0
	if all {
		names = slices.Sorted(maps.Keys(a.Config.Sets))
	}
	var list []Target
	var errs []error
	for _, name := range names {
		if s := a.Config.Sets[name]; s != nil {
			t, err := a.configured(known, s)
			if err != nil {
				errs = append(errs, err)
				continue
			}
			list = append(list, t)
			continue
		}
		set, err := a.FindSet(ctx, name)
		if err != nil {
			return nil, err
		}
		list = append(list, a.unconfigured(set))
	}
	for _, set := range known {
		if all && set.Host == a.Host && a.Config.Sets[set.Name] == nil {
			list = append(list, a.unconfigured(set))
		}
	}
	if all && len(list) == 0 && len(errs) == 0 {
		return nil, failure.Errorf(failure.NotFound, "there is no set yet, neither in the config file nor in the catalog")
	}
	return list, errors.Join(errs...)
}

// unconfigured is a set of the catalog. This host's set of a name in the config file is that one.
func (a *App) unconfigured(set catalog.Set) Target {
	t := Target{Set: set, Config: &config.Set{Name: set.Name}}
	if s := a.Config.Sets[set.Name]; s != nil && set.Host == a.Host {
		mine := *s
		t.Config = &mine
	}
	return t
}

// keeps is for how long a vault keeps what a set stores, by its URL and the price table, without opening the vault, which may take
// keys and the network. Deleting goes by what the vault itself says.
func (a *App) keeps(t Target) func(ctx context.Context, url string) (prune.Keeps, error) {
	return func(_ context.Context, url string) (prune.Keeps, error) {
		if k, err := kindOf(url); err == nil && k.keeps != nil {
			keeps := k.keeps(url)
			if r := t.retention(); r != nil {
				keeps.LockDays = r.Days
			}
			return keeps, nil
		}
		place, billed := Place(url, nil)
		if !billed {
			return prune.Keeps{}, nil
		}
		prices, err := cost.Prices()
		if err != nil {
			return prune.Keeps{}, err
		}
		days, _ := prices.MinDays(place.Class)
		return prune.Keeps{MinDays: days}, nil
	}
}

// PlanRules are the rules of vaults for plans: what deleting too early costs. db may be nil.
func (a *App) PlanRules(ctx context.Context, db *catalog.DB) plan.Rules {
	return plan.Rules{Fee: func(snaps []plan.Snapshot, at time.Time) (int64, bool) {
		t, err := cost.Prices()
		if err != nil || db == nil {
			return 0, false
		}
		var sum cost.Money
		for _, s := range snaps {
			place, billed := Place(s.Vault, nil)
			if !billed {
				continue
			}
			if place.Region == "" { // the vault itself may know
				if store, err := a.OpenStore(ctx, s.Vault, false); err == nil {
					place, _ = Place(s.Vault, store)
				}
			}
			stored := []cost.Stored{}
			vols, err := db.Volumes(ctx, s.ID)
			if err != nil {
				return 0, false
			}
			left := s.Size // what is left in the end is the manifest's
			for _, v := range vols {
				stored = append(stored, cost.Stored{Bytes: v.Size, Created: s.Stored})
				left -= v.Size
			}
			stored = append(stored, cost.Stored{Bytes: max(left, 0), Created: s.Stored})
			fee, err := t.EarlyDeletion(place, stored, at)
			if err != nil {
				return 0, false
			}
			sum = sum.Plus(fee)
		}
		return int64(sum), true
	}}
}

// PruneOptions are those of pruning a set, which must be locked.
func (a *App) PruneOptions(ctx context.Context, t Target) (prune.Options, error) {
	p, err := a.PlanSet(ctx, t, a.Now())
	if err != nil {
		return prune.Options{}, err
	}
	db, err := a.Catalog(ctx, false)
	if err != nil {
		return prune.Options{}, err
	}
	return prune.Options{
		Catalog: db, Set: t.Set, Policy: p.Policy, Rules: a.PlanRules(ctx, db), Now: a.Now,
		Open: func(ctx context.Context, vault string) (prune.Store, error) {
			s, err := a.OpenStore(ctx, vault, false)
			if err != nil {
				return nil, err
			}
			if locked, err := t.lock(s); err == nil {
				s = locked
			} // else it lies where there are no locks
			return s, nil
		},
	}, nil
}

// Alive says whether the process that took a set's lock last is still there. It takes no lock itself, which
// would be in the way of one that wants it.
func (a *App) Alive(set catalog.Set) bool {
	text, err := os.ReadFile(filepath.Join(a.Paths.Locks, set.ID+".lock"))
	if err != nil {
		return false
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil || pid <= 0 {
		return false
	}
	err = syscall.Kill(pid, 0)
	return err == nil || errors.Is(err, syscall.EPERM)
}

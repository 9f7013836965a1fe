package app

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"unicode"

	"github.com/firn-backup/firn/internal/catalog"
	"github.com/firn-backup/firn/internal/config"
	"github.com/firn-backup/firn/internal/failure"
	"github.com/firn-backup/firn/internal/snapshot"
	"github.com/firn-backup/firn/internal/units"
)

// Target is a set to back up, made up from config, catalog and command line.
type Target struct {
	Set    catalog.Set
	Config *config.Set // never nil; that of an implicit set has its path and defaults
	New    bool        // not in the catalog yet: PutSet it
}

// ErrNameTaken says that a path would get a name that another set has.
var ErrNameTaken = errors.New("the name is taken")

// ErrAmbiguous says that a name stands for several things.
var ErrAmbiguous = errors.New("ambiguous")

// ErrNoSet says that there is no such set.
var ErrNoSet = errors.New("no such set")

// ErrNeverRun says that a set is in the config file only.
var ErrNeverRun = errors.New("no snapshot of it is in the catalog")

// Targets turns the arguments of a backup into sets: names of configured sets,
// names of implicit ones, and paths, which become implicit sets. Without
// arguments all configured sets are meant. name, if not empty, is what a new
// implicit set is called instead of its path's base name.
//
// What is wrong with names is failure.Usage; nothing of that name, failure.NotFound.
func (a *App) Targets(ctx context.Context, args []string, name string) ([]Target, error) {
	known, err := a.knownSets(ctx)
	if err != nil {
		return nil, err
	}
	if len(args) == 0 {
		args = slices.Sorted(maps.Keys(a.Config.Sets))
		if len(args) == 0 {
			return nil, failure.Errorf(failure.Usage, "what is to be backed up? There is no set in the config file")
		}
	}
	if name != "" && len(args) != 1 {
		return nil, failure.Errorf(failure.Usage, "a name can be given to one path only")
	}
	var targets []Target
	for _, arg := range args {
		t, err := a.target(known, arg, name)
		if err != nil {
			return nil, err
		}
		if slices.ContainsFunc(targets, func(x Target) bool { return x.Set.Name == t.Set.Name }) {
			return nil, failure.Errorf(failure.Usage, "set %s is named twice", t.Set.Name)
		}
		targets = append(targets, t)
	}
	return targets, nil
}

// knownSets are those of the catalog; none where there is no catalog.
func (a *App) knownSets(ctx context.Context) ([]catalog.Set, error) {
	db, err := a.Catalog(ctx, false)
	if errors.Is(err, ErrNoCatalog) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return db.Sets(ctx)
}

func (a *App) target(known []catalog.Set, arg, name string) (Target, error) {
	if arg == "" {
		return Target{}, failure.Errorf(failure.Usage, "an empty name is neither a set nor a path")
	}
	if s := a.Config.Sets[arg]; s != nil && name == "" {
		return a.configured(known, s)
	}
	mine := func(s catalog.Set) bool { return s.Host == a.Host && s.Root != "" }
	path := a.abs(arg)
	_, statErr := os.Lstat(path)
	if !looksLikePath(arg) {
		i := slices.IndexFunc(known, func(s catalog.Set) bool { return mine(s) && s.Name == arg })
		switch {
		case i < 0 && errors.Is(statErr, fs.ErrNotExist):
			return Target{}, failure.Errorf(failure.NotFound, "%s: %w, and no such path", arg, ErrNoSet)
		case i >= 0 && name != "" && (name != arg || known[i].Root != path):
			return Target{}, failure.Errorf(failure.Usage, "set %s has its name already; for the path of that name write ./%[1]s", arg)
		case i >= 0 && statErr == nil && known[i].Root != path:
			return Target{}, failure.Errorf(failure.Usage, "%s is %w: the set of %s, or the path %s", arg, ErrAmbiguous, known[i].Root, path)
		case i >= 0:
			return a.implicit(known[i], false)
		}
	}
	if i := slices.IndexFunc(known, func(s catalog.Set) bool { return mine(s) && s.Root == path && (name == "" || s.Name == name) }); i >= 0 {
		return a.implicit(known[i], false)
	}
	if statErr != nil {
		err := fmt.Errorf("back up %s: %w", path, errors.Unwrap(statErr))
		if errors.Is(err, fs.ErrNotExist) {
			err = failure.Wrap(failure.NotFound, err)
		}
		return Target{}, err
	}
	return a.newImplicit(known, path, name)
}

// looksLikePath says whether an argument cannot be a set's name.
func looksLikePath(arg string) bool {
	return strings.ContainsRune(arg, '/') || arg == "." || arg == ".."
}

func (a *App) configured(known []catalog.Set, s *config.Set) (Target, error) {
	url, err := a.VaultURL(s.Vault)
	if err != nil {
		return Target{}, err
	}
	mine := *s // flags may change it for this run
	t := Target{Config: &mine}
	for _, k := range known {
		if k.Host != a.Host || k.Name != s.Name {
			continue
		}
		if k.Root != "" && !slices.Equal(s.Paths, []string{k.Root}) {
			return Target{}, failure.Errorf(failure.Usage, "%w: set %s of the config file has the name of the set that was made for %s",
				ErrNameTaken, s.Name, k.Root)
		}
		if was := kindOfSet(k); was != s.KindOf() && !(config.IsStreamKind(was) && s.IsStream()) {
			return Target{}, failure.Errorf(failure.Usage, "set %s is of kind %s in the config file, and its snapshots are of kind %s: give it another name", s.Name, s.KindOf(), was)
		}
		t.Set = k
		t.Set.Root, t.Set.Vault, t.Set.Kind = "", url, s.KindOf()
		return t, nil
	}
	return a.fresh(Target{Config: t.Config, Set: catalog.Set{Name: s.Name, Vault: url, Kind: s.KindOf()}})
}

// implicit is the target of a set that was made for a path. It keeps its vault.
func (a *App) implicit(s catalog.Set, fresh bool) (Target, error) {
	if s.Kind == config.KindMirror {
		return mirrorOf(s, fresh), nil
	}
	return Target{Set: s, New: fresh, Config: &config.Set{Name: s.Name, Paths: []string{s.Root}}}, nil
}

func (a *App) newImplicit(known []catalog.Set, path, name string) (Target, error) {
	if name == "" {
		name = nameOf(path)
		// A configured set of just this path is what is meant.
		if s := a.Config.Sets[name]; s != nil && slices.Equal(s.Paths, []string{path}) {
			return a.configured(known, s)
		}
	} else if nameOf(name) != name || strings.ContainsAny(name, "/@") {
		return Target{}, failure.Errorf(failure.Usage, "%q cannot be the name of a set", name)
	}
	if s := a.Config.Sets[name]; s != nil {
		return Target{}, failure.Errorf(failure.Usage, "%s would be set %s, but %w by a set of the config file", path, name, ErrNameTaken)
	}
	for _, k := range known {
		if k.Host == a.Host && k.Name == name {
			what := "a set that was configured"
			if k.Root != "" {
				what = "the set of " + k.Root
			}
			return Target{}, failure.Errorf(failure.Usage, "%s would be set %s, but %w by %s", path, name, ErrNameTaken, what)
		}
	}
	t, err := a.fresh(Target{Set: catalog.Set{Name: name, Root: path, Vault: a.DefaultVaultURL(), Kind: config.KindTree}})
	if err != nil {
		return t, err
	}
	return a.implicit(t.Set, true)
}

// kindOfSet is the kind of a set of the catalog; an old one says nothing of it and is a tree.
func kindOfSet(s catalog.Set) string {
	if s.Kind == "" {
		return config.KindTree
	}
	return s.Kind
}

// fresh gives a new set its id.
func (a *App) fresh(t Target) (Target, error) {
	id, err := snapshot.NewID(a.Now(), rand.Reader)
	if err != nil {
		return t, fmt.Errorf("new set %s: %w", t.Set.Name, err)
	}
	t.New = true
	t.Set.ID, t.Set.Label, t.Set.Host, t.Set.Created = id, t.Set.Name, a.Host, a.Now()
	return t, nil
}

// AddSet records a new set. If another run of the same command was faster, its set is returned.
func (a *App) AddSet(ctx context.Context, set catalog.Set) (catalog.Set, error) {
	db, err := a.Catalog(ctx, true)
	if err != nil {
		return set, err
	}
	err = db.PutSet(ctx, set)
	if failure.KindOf(err) != failure.Usage {
		return set, err
	}
	known, lerr := db.Sets(ctx)
	if lerr != nil {
		return set, lerr
	}
	for _, k := range known {
		if k.Host == set.Host && k.Name == set.Name && k.Root == set.Root {
			k.Vault = set.Vault
			return k, nil
		}
	}
	return set, err
}

// nameOf is the name of the implicit set of a path: its base name, with what
// would be in the way on a command line or a terminal replaced.
func nameOf(path string) string {
	base := filepath.Base(path)
	if base == "/" {
		return "root"
	}
	name := strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || r == unicode.ReplacementChar || r == '@' {
			return '_'
		}
		return r
	}, base)
	if strings.HasPrefix(name, "-") {
		name = "_" + name[1:]
	}
	if len(name) > 100 {
		name = strings.ToValidUTF8(name[:100], "")
	}
	return strings.TrimSpace(name)
}

// FindSet finds the set that a user names for reading: NAME, HOST/NAME, a set's
// id, or the path that an implicit set is bound to. A name alone is this
// host's set of that name if there is one, else that of the only host that has one.
func (a *App) FindSet(ctx context.Context, arg string) (catalog.Set, error) {
	sets, err := a.knownSets(ctx)
	if err != nil {
		return catalog.Set{}, err
	}
	if snapshot.ValidID(strings.ToUpper(arg)) {
		for _, s := range sets {
			if s.ID == strings.ToUpper(arg) {
				return s, nil
			}
		}
	}
	var named []catalog.Set
	for _, s := range sets {
		switch {
		case s.Name == arg && s.Host == a.Host:
			return s, nil
		case s.Name == arg, s.Host+"/"+s.Name == arg:
			named = append(named, s)
		}
	}
	switch len(named) {
	case 1:
		return named[0], nil
	case 0:
	default:
		var list []string
		for _, s := range named {
			list = append(list, s.Host+"/"+s.Name)
		}
		return catalog.Set{}, failure.Errorf(failure.Usage, "set %s is %w: %s", arg, ErrAmbiguous, strings.Join(list, ", "))
	}
	if looksLikePath(arg) {
		for _, s := range sets {
			if s.Host == a.Host && s.Root != "" && s.Root == a.abs(arg) {
				return s, nil
			}
		}
	}
	if len(sets) == 0 {
		if _, err := a.Catalog(ctx, false); err != nil {
			return catalog.Set{}, failure.Errorf(failure.NotFound, "%s: %w: %w", arg, ErrNoSet, err)
		}
	}
	if a.Config.Sets[arg] != nil {
		return catalog.Set{}, failure.Errorf(failure.NotFound, "set %s of the config file: %w", arg, ErrNeverRun)
	}
	return catalog.Set{}, failure.Errorf(failure.NotFound, "%s: %w", arg, ErrNoSet)
}

// FindSnapshot finds what SET@WHEN, SET, or a snapshot's id alone names: a
// stored snapshot and its set. A name that holds an @ itself counts whole first.
func (a *App) FindSnapshot(ctx context.Context, arg string) (catalog.Set, catalog.Snapshot, error) {
	set, when, err := a.FindSetWhen(ctx, arg)
	if err != nil {
		return set, catalog.Snapshot{}, err
	}
	snap, err := a.SnapshotAt(ctx, set, when)
	return set, snap, err
}

// FindSetWhen is FindSnapshot without looking for the snapshot.
func (a *App) FindSetWhen(ctx context.Context, arg string) (catalog.Set, units.When, error) {
	set, err := a.FindSet(ctx, arg)
	if err == nil || failure.KindOf(err) != failure.NotFound {
		return set, units.When{Latest: true}, err
	}
	i := strings.LastIndexByte(arg, '@')
	if i < 0 {
		if id := strings.ToUpper(arg); snapshot.ValidID(id) {
			if set, ok := a.setOfSnapshot(ctx, id); ok {
				return set, units.When{ID: id}, nil
			}
		}
		return set, units.When{}, err
	}
	if arg[i+1:] == "" { // what a script makes of a date that it does not have
		return set, units.When{}, failure.Errorf(failure.Usage, "%s: behind the @ belongs a snapshot's id, a date, a time, or latest", arg)
	}
	when, werr := units.ParseWhen(arg[i+1:], a.Now().Location())
	if werr != nil {
		return set, units.When{}, failure.Wrap(failure.Usage, werr)
	}
	set, err = a.FindSet(ctx, arg[:i])
	return set, when, err
}

func (a *App) setOfSnapshot(ctx context.Context, id string) (catalog.Set, bool) {
	db, err := a.Catalog(ctx, false)
	if err != nil {
		return catalog.Set{}, false
	}
	snap, err := db.Snapshot(ctx, id)
	if err != nil {
		return catalog.Set{}, false
	}
	set, err := db.SetByID(ctx, snap.SetID)
	return set, err == nil
}

// SnapshotAt is the stored snapshot of a set that is meant: the newest, the one
// of that id, or the newest whose date is not after When.At. Newer is what has
// the higher number, never what has the later date.
func (a *App) SnapshotAt(ctx context.Context, set catalog.Set, when units.When) (catalog.Snapshot, error) {
	db, err := a.Catalog(ctx, false)
	if err != nil {
		return catalog.Snapshot{}, err
	}
	all, err := db.Snapshots(ctx, set.ID)
	if err != nil {
		return catalog.Snapshot{}, err
	}
	stored := slices.DeleteFunc(all, func(s catalog.Snapshot) bool { return s.State != catalog.Stored })
	if len(stored) == 0 {
		return catalog.Snapshot{}, failure.Errorf(failure.NotFound, "set %s has no snapshot yet", set.Name)
	}
	for _, s := range slices.Backward(stored) {
		switch {
		case when.Latest, when.ID != "" && s.ID == when.ID, !when.At.IsZero() && !s.At.After(when.At):
			return s, nil
		}
	}
	if when.ID != "" {
		return catalog.Snapshot{}, failure.Errorf(failure.NotFound, "set %s has no snapshot %s", set.Name, when.ID)
	}
	oldest := slices.MinFunc(stored, func(a, b catalog.Snapshot) int { return a.At.Compare(b.At) })
	return catalog.Snapshot{}, failure.Errorf(failure.NotFound, "set %s has no snapshot of %s or before; the oldest is of %s",
		set.Name, units.Time(when.At.In(a.Now().Location())), units.Time(oldest.At.In(a.Now().Location())))
}

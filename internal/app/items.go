package app

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"os/user"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/firn-backup/firn/internal/catalog"
	"github.com/firn-backup/firn/internal/codec/compress"
	"github.com/firn-backup/firn/internal/codec/encrypt"
	"github.com/firn-backup/firn/internal/config"
	"github.com/firn-backup/firn/internal/failure"
	"github.com/firn-backup/firn/internal/itemstore"
	"github.com/firn-backup/firn/internal/keyfile"
	"github.com/firn-backup/firn/internal/snapshot"
	"github.com/firn-backup/firn/internal/source/tree"
)

// ItemOptions put together what a run of a set of single archives needs but its vault: codecs, signer. With dry nothing is made
// that does not exist: the catalog may be nil then. The key is nil where nothing is encrypted to it; one to sign with is made when
// an index is to be signed, which sets that are not encrypted hardly ever need.
func (a *App) ItemOptions(ctx context.Context, t Target, dry bool) (itemstore.Options, *keyfile.Key, error) {
	var o itemstore.Options
	wrap := func(err error) error {
		return failure.Wrap(failure.Usage, fmt.Errorf("set %s: %w", t.Set.Name, err))
	}
	s := *t.Config
	if s.Compress == "" && s.Kind == config.KindMirror {
		s.Compress = compress.None
	}
	comp, err := a.Compressor(&s, t.Set.Vault)
	if err != nil {
		return o, nil, wrap(err)
	}
	index, err := compress.New(compress.Zstd)
	if err != nil {
		return o, nil, wrap(err)
	}
	db, err := a.Catalog(ctx, !dry)
	if err != nil && !(dry && errors.Is(err, ErrNoCatalog)) {
		return o, nil, err
	}
	var key *keyfile.Key
	switch {
	case s.Encrypt == encrypt.None:
		err = nil
	case dry:
		key, err = a.keyLikely()
	default:
		key, err = a.EnsureKey(&s)
	}
	if err != nil {
		return o, nil, err
	}
	enc, err := a.Encryptor(&s, key)
	if err != nil {
		return o, nil, wrap(err)
	}
	return itemstore.Options{
		Catalog: db, Vault: t.Set.Vault, Set: t.Set, Host: a.Host, Path: s.Path, Compress: comp, Encrypt: enc, Index: itemstore.IndexCodec(comp, index),
		Signer: func() (ed25519.PrivateKey, error) {
			key, err := a.EnsureKey(&s)
			if err != nil {
				return nil, err
			}
			return key.Signer(), nil
		}, Now: a.Now, Rand: rand.Reader, Workers: min(runtime.GOMAXPROCS(0), maxWorkers), NoVerify: s.NoVerifyFrames,
	}, key, nil
}

// OwnPath says whether a path is Firn's own, or the vault's in that directory: never backed up.
func (a *App) OwnPath(vaultURL string) func(full string) bool {
	own := a.Own()
	if dir := vaultDir(vaultURL); dir != "" {
		own = append(own, dir)
	}
	var real []string
	for _, p := range own {
		real = append(real, p)
		if r, err := filepath.EvalSymlinks(p); err == nil && r != p {
			real = append(real, r)
		}
	}
	return func(full string) bool {
		for _, p := range real {
			if full == p || strings.HasPrefix(full, strings.TrimSuffix(p, "/")+"/") {
				return true
			}
		}
		return false
	}
}

// VaultDir is the local directory that holds a vault; empty: none.
func VaultDir(url string) string { return vaultDir(url) }

// OwnerNames looks up the names of owners, each once. Safe for concurrent use.
func OwnerNames() func(uid, gid uint32) (string, string) {
	var mu sync.Mutex
	users, groups := map[uint32]string{}, map[uint32]string{}
	return func(uid, gid uint32) (string, string) {
		mu.Lock()
		defer mu.Unlock()
		if _, ok := users[uid]; !ok {
			users[uid] = ""
			if u, err := user.LookupId(strconv.FormatUint(uint64(uid), 10)); err == nil {
				users[uid] = u.Username
			}
		}
		if _, ok := groups[gid]; !ok {
			groups[gid] = ""
			if g, err := user.LookupGroupId(strconv.FormatUint(uint64(gid), 10)); err == nil {
				groups[gid] = g.Name
			}
		}
		return users[uid], groups[gid]
	}
}

// RequireMounts returns an error unless something is mounted at each of the directories.
func RequireMounts(dirs []string) error {
	for _, d := range dirs {
		if err := tree.RequireMount(d); err != nil {
			return err
		}
	}
	return nil
}

// MirrorTarget is the set that firn vault reconcile means: a set of kind mirror by its name, or the one of a directory that goes to a
// vault, which is made where there is none. dir may be empty for a set.
func (a *App) MirrorTarget(ctx context.Context, arg, dir, name string) (Target, error) {
	known, err := a.knownSets(ctx)
	if err != nil {
		return Target{}, err
	}
	if s := a.Config.Sets[arg]; s != nil {
		if s.KindOf() != config.KindMirror {
			return Target{}, failure.Errorf(failure.Usage, "set %s is of kind %s, and not mirror", arg, s.KindOf())
		}
		if dir != "" && dir != s.Path {
			return Target{}, failure.Errorf(failure.Usage, "set %s is of %s, and not of %s", arg, s.Path, dir)
		}
		return a.configured(known, s)
	}
	for _, k := range known {
		if k.Host == a.Host && k.Name == arg && k.Kind == config.KindMirror && k.Root != "" {
			if dir != "" && dir != k.Root {
				return Target{}, failure.Errorf(failure.Usage, "set %s is of %s, and not of %s", arg, k.Root, dir)
			}
			return mirrorOf(k, false), nil
		}
	}
	if dir == "" {
		return Target{}, failure.Errorf(failure.NotFound, "%s: %w of kind mirror; for a vault a directory is needed, too", arg, ErrNoSet)
	}
	url, err := a.VaultURL(arg)
	if err != nil {
		return Target{}, err
	}
	for _, k := range known {
		if k.Host == a.Host && k.Kind == config.KindMirror && k.Root == dir && k.Vault == url && (name == "" || k.Name == name) {
			return mirrorOf(k, false), nil
		}
	}
	for _, s := range a.Config.Sets {
		if u, err := a.VaultURL(s.Vault); s.Kind == config.KindMirror && s.Path == dir && err == nil && u == url {
			return a.configured(known, s)
		}
	}
	if name == "" {
		name = nameOf(dir)
	} else if nameOf(name) != name || strings.ContainsAny(name, "/@") {
		return Target{}, failure.Errorf(failure.Usage, "%q cannot be the name of a set", name)
	}
	if a.Config.Sets[name] != nil {
		return Target{}, failure.Errorf(failure.Usage, "%s would be set %s, but %w by a set of the config file", dir, name, ErrNameTaken)
	}
	for _, k := range known {
		if k.Host == a.Host && k.Name == name {
			if k.Kind == config.KindMirror && k.Root == "" && k.Vault == url { // recovered from a vault that does not tell its path
				k.Root = dir
				return mirrorOf(k, false), nil
			}
			return Target{}, failure.Errorf(failure.Usage, "%s would be set %s, but %w by another set", dir, name, ErrNameTaken)
		}
	}
	t, err := a.fresh(Target{Set: catalog.Set{Name: name, Root: dir, Vault: url, Kind: config.KindMirror}})
	if err != nil {
		return t, err
	}
	return mirrorOf(t.Set, true), nil
}

func mirrorOf(s catalog.Set, fresh bool) Target {
	return Target{Set: s, New: fresh, Config: &config.Set{Name: s.Name, Kind: config.KindMirror, Single: config.Single{Path: s.Root}}}
}

// ItemsDue is when a set of single archives may be stored again, so long after its last run that stored something. One that did not
// come to its end goes on at any time: the zero time.
func (a *App) ItemsDue(ctx context.Context, set catalog.Set, interval time.Duration) (time.Time, error) {
	db, err := a.Catalog(ctx, false)
	if errors.Is(err, ErrNoCatalog) {
		return time.Time{}, nil
	}
	if err != nil {
		return time.Time{}, err
	}
	did, err := db.Runs(ctx, set.Name, keptRuns)
	if err != nil {
		return time.Time{}, err
	}
	if i := slices.IndexFunc(did, func(r catalog.Run) bool { return StoresSet(r.Command) }); i >= 0 { // the newest first
		if r := did[i]; r.Ended.IsZero() || r.Exit != 0 && r.Exit != exitPartial {
			return time.Time{}, nil
		}
	}
	runs, err := db.ItemRuns(ctx, set.ID)
	if err != nil || len(runs) == 0 {
		return time.Time{}, err
	}
	return runs[len(runs)-1].At.Add(interval), nil
}

// FindItems finds a set of single archives that a user names for reading, SET or SET@WHEN, and the run that WHEN stands for; 0: now.
// ok is false where arg names something else, or nothing.
func (a *App) FindItems(ctx context.Context, arg string) (set catalog.Set, at uint64, ok bool, err error) {
	db, err := a.Catalog(ctx, false)
	if errors.Is(err, ErrNoCatalog) {
		return set, 0, false, nil
	}
	if err != nil {
		return set, 0, false, err
	}
	if id := strings.ToUpper(arg); snapshot.ValidID(id) {
		if run, err := db.ItemRunByID(ctx, id); err == nil {
			set, err = db.SetByID(ctx, run.SetID)
			return set, run.N, err == nil, err
		}
	}
	set, when, err := a.FindSetWhen(ctx, arg)
	if err != nil || set.Kind != config.KindItems && set.Kind != config.KindMirror {
		return set, 0, false, nil // whoever looks for it next says what is wrong
	}
	if when.Latest {
		return set, 0, true, nil
	}
	runs, err := db.ItemRuns(ctx, set.ID)
	if err != nil {
		return set, 0, true, err
	}
	for i := len(runs) - 1; i >= 0; i-- {
		if when.ID != "" && runs[i].ID == when.ID || !when.At.IsZero() && !runs[i].At.After(when.At) {
			return set, runs[i].N, true, nil
		}
	}
	if when.ID != "" {
		if _, err := db.Snapshot(ctx, when.ID); err == nil {
			return set, 0, false, nil // an item in Firn's format
		}
	}
	return set, 0, true, failure.Errorf(failure.NotFound, "set %s has no run of %s or before", set.Name, strings.TrimPrefix(arg[strings.LastIndexByte(arg, '@')+1:], "@"))
}

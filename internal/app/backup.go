package app

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"runtime"
	"slices"
	"strings"

	"github.com/firn-backup/firn/internal/backup"
	"github.com/firn-backup/firn/internal/catalog"
	"github.com/firn-backup/firn/internal/codec/compress"
	"github.com/firn-backup/firn/internal/codec/encrypt"
	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/internal/failure"
	"github.com/firn-backup/firn/internal/keyfile"
	"github.com/firn-backup/firn/internal/plan"
	"github.com/firn-backup/firn/internal/source"
)

// maxWorkers bounds the compressing goroutines: each takes some 20 MiB, and a
// backup stays below 200 MiB on any machine.
const maxWorkers = 4

// BackupOptions put together what a run of one set needs but its vault and
// signer: tree, codecs, what must be unchanged for an attempt to go on. warn
// is told of what is left out although nothing excludes it.
func (a *App) BackupOptions(ctx context.Context, t Target, warn func(path, reason string)) (backup.Options, *keyfile.Key, error) {
	// What can be wrong with the set comes before anything is made.
	if _, err := a.Compressor(t.Config, t.Set.Vault); err != nil {
		return backup.Options{}, nil, failure.Wrap(failure.Usage, fmt.Errorf("set %s: %w", t.Set.Name, err))
	}
	db, err := a.Catalog(ctx, true)
	if err != nil {
		return backup.Options{}, nil, err
	}
	key, err := a.EnsureKey(t.Config)
	if err != nil {
		return backup.Options{}, nil, err
	}
	o, err := a.options(t, key, warn)
	o.Catalog = db
	if err == nil && a.otherKeys(ctx, db, t.Set.ID, o.Params) {
		o.Full = true
		a.o.Notice(fmt.Sprintf("set %s is encrypted for other keys than before: a new full snapshot is made, and what was stored before still needs the old keys", t.Set.Name))
	}
	return o, key, err
}

// DryOptions are BackupOptions for a dry run: nothing is made that does not
// exist, neither key nor catalog nor vault, but a vault that must exist does; it comes with them, nil where it is still to be made.
func (a *App) DryOptions(ctx context.Context, t Target, warn func(path, reason string)) (backup.Options, coldstore.Lister, error) {
	store, err := a.DryStore(ctx, t)
	if err != nil {
		return backup.Options{}, nil, err
	}
	db, err := a.Catalog(ctx, false)
	if err != nil && !errors.Is(err, ErrNoCatalog) {
		return backup.Options{}, nil, err
	}
	key, err := a.keyLikely()
	if err != nil {
		return backup.Options{}, nil, err
	}
	o, err := a.options(t, key, warn)
	o.Catalog = db
	if store == nil {
		return o, nil, err
	}
	return o, store, err
}

// keyLikely is the key file's key; where there is none, one that is like the one to be made.
func (a *App) keyLikely() (*keyfile.Key, error) {
	key, err := keyfile.Load(a.Paths.Key, nil)
	if errors.Is(err, fs.ErrNotExist) {
		return keyfile.New(a.Now(), nil)
	}
	return key, err
}

// DryStore is the vault of a set for a dry run: nil where a backup would make it.
func (a *App) DryStore(ctx context.Context, t Target) (coldstore.Store, error) {
	store, err := a.OpenStore(ctx, t.Set.Vault, false)
	if err == nil {
		return t.lock(store)
	}
	if !errors.Is(err, ErrNoVault) || t.Set.Vault != a.DefaultVaultURL() && a.templateOf(t.Set.Vault) == nil {
		return nil, err
	}
	user, uerr := a.userOf(ctx, t.Set.Vault)
	if user != "" {
		return nil, lostFor(err, user)
	}
	return nil, uerr
}

// lostFor says for whom a vault that is not there is a loss.
func lostFor(err error, set string) error {
	return fmt.Errorf("%w; set %s has something stored there", err, set)
}

func (a *App) options(t Target, key *keyfile.Key, warn func(path, reason string)) (backup.Options, error) {
	var o backup.Options
	var tr source.Tree
	if !t.Config.IsStream() {
		var err error
		if tr, err = a.OpenTree(t.Config, vaultDir(t.Set.Vault), warn); err != nil {
			return o, failure.Wrap(failure.KindOf(err), fmt.Errorf("set %s: %w", t.Set.Name, err))
		}
	}
	comp, err := a.Compressor(t.Config, t.Set.Vault)
	if err != nil {
		return o, failure.Wrap(failure.Usage, fmt.Errorf("set %s: %w", t.Set.Name, err))
	}
	enc, err := a.Encryptor(t.Config, key)
	if err != nil {
		return o, failure.Wrap(failure.Usage, fmt.Errorf("set %s: %w", t.Set.Name, err))
	}
	if g := enc.Geometry(); g.Chunk > 0 && !g.Whole {
		comp = compress.Bare(comp)
	}
	params, err := params(t, key)
	if err != nil {
		return o, err
	}
	o = backup.Options{
		Tree: tr, Set: t.Set, Host: a.Host, Paths: t.Config.Paths,
		Compress: comp, Encrypt: enc, Signer: key.Signer(), Params: params,
		Workers: min(runtime.GOMAXPROCS(0), maxWorkers), VolumeSize: t.Config.VolumeSize, NoVerify: t.Config.NoVerifyFrames, Checksum: t.Config.Checksum,
		Now: a.Now, Rand: rand.Reader,
	}
	policy, err := t.Config.PlanPolicy()
	if err != nil {
		return o, failure.Wrap(failure.Usage, fmt.Errorf("set %s: %w", t.Set.Name, err))
	}
	if policy.Incrementals != plan.NoLimit {
		o.Incrementals = policy.Incrementals
		o.Full = o.Incrementals == 0
	}
	return o, nil
}

// attemptParams are kept with each snapshot. Paths are bytes, as JSON keeps them: they need not be UTF-8.
type attemptParams struct {
	Paths, Exclude, IfPresent [][]byte
	OneFS                     bool
	Compress, Encrypt         string
	Recipients, Files         []string
	VolumeSize                int64
	Signer                    []byte
	Source                    []string `json:",omitempty"` // of a stream
}

// paramsOf reads them back; what follows them, which a stream may have, and what is not known is left out.
func paramsOf(text string) (p attemptParams) {
	if json.NewDecoder(strings.NewReader(text)).Decode(&p) != nil {
		return attemptParams{}
	}
	return p
}

// otherKeys says that whoever opens what a set stores now cannot open what it stored last: none
// of the recipients is the same. An incremental would need both keys for ever.
func (a *App) otherKeys(ctx context.Context, db *catalog.DB, set, now string) bool {
	snaps, err := db.Snapshots(ctx, set)
	if err != nil {
		return false // the backup itself will say
	}
	var was attemptParams
	for _, s := range snaps {
		if s.State == catalog.Stored {
			was = paramsOf(s.Params) // recovered: nothing is known
		}
	}
	is := paramsOf(now)
	if len(was.Recipients) == 0 || len(was.Files)+len(is.Files) > 0 {
		return false
	}
	return !slices.ContainsFunc(is.Recipients, func(r string) bool { return slices.Contains(was.Recipients, r) })
}

// params is all that must be unchanged for an interrupted attempt to go on.
func params(t Target, key *keyfile.Key) (string, error) {
	s := *t.Config
	recipients := s.Recipients
	if s.Encrypt == "" || s.Encrypt == encrypt.Age {
		if len(s.Recipients)+len(s.RecipientFiles) == 0 {
			recipients = key.Recipients()
		}
	}
	b, err := json.Marshal(attemptParams{
		raw(s.Paths), raw(s.Exclude), raw(s.ExcludeIfPresent), s.OneFileSystem,
		s.Compress, s.Encrypt, slices.Sorted(slices.Values(recipients)), s.RecipientFiles, s.VolumeSize,
		key.Signer().Public().(ed25519.PublicKey), sourceParams(&s),
	})
	return string(b), err
}

func raw(list []string) [][]byte {
	out := make([][]byte, len(list))
	for i, s := range list {
		out[i] = []byte(s)
	}
	return out
}

// OpenVaultFor opens the vault that a set goes to, the default one being made on
// first use (and never in the place of one that the catalog knows snapshots in: that one
// is lost, or not mounted), and sees to it that a key file under a passphrase has its copy there.
// What the set stores in it is locked, if the set has it so. key is nil where nothing is encrypted to it.
func (a *App) OpenVaultFor(ctx context.Context, t Target, key *keyfile.Key) (coldstore.Store, error) {
	set := t.Set
	user, err := a.userOf(ctx, set.Vault)
	if err != nil {
		return nil, err
	}
	store, err := a.OpenStore(ctx, set.Vault, user == "")
	if v := a.templateOf(set.Vault); errors.Is(err, ErrNoVault) && user == "" && v != nil {
		store, err = a.makeVault(ctx, set.Vault, v)
	}
	if errors.Is(err, ErrNoVault) && user != "" {
		err = lostFor(err, user)
	}
	if err != nil {
		return nil, err
	}
	if key != nil {
		if err := a.StoreKey(ctx, store, set.Vault, key); err != nil {
			return nil, err
		}
	}
	return t.lock(store)
}

// userOf is the name of a set that has something stored in the vault at url; empty: the catalog knows none.
func (a *App) userOf(ctx context.Context, url string) (string, error) {
	sets, err := a.knownSets(ctx)
	if err != nil || len(sets) == 0 {
		return "", err
	}
	db, err := a.Catalog(ctx, false)
	if err != nil {
		return "", err
	}
	for _, set := range sets {
		if some, err := hasStored(ctx, db, set.ID, url); some || err != nil {
			return set.Name, err
		}
	}
	return "", nil
}

// hasStored says whether the catalog knows a snapshot or a single archive of a set that is in the vault at url.
func hasStored(ctx context.Context, db *catalog.DB, set, url string) (bool, error) {
	snaps, err := db.Snapshots(ctx, set)
	if err != nil || slices.ContainsFunc(snaps, func(s catalog.Snapshot) bool { return s.State == catalog.Stored && s.Vault == url }) {
		return err == nil, err
	}
	some := errors.New("some")
	err = db.Items(ctx, set, catalog.ItemQuery{All: true}, func(i catalog.Item) error {
		if i.Vault == url && i.Archive.Archive != "" && i.Deleted.IsZero() {
			return some
		}
		return nil
	})
	if errors.Is(err, some) {
		return true, nil
	}
	return false, err
}

package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/internal/coldstore/glaciervault"
	"github.com/firn-backup/firn/internal/coldstore/localdir"
	"github.com/firn-backup/firn/internal/coldstore/s3glacier"
	"github.com/firn-backup/firn/internal/config"
	"github.com/firn-backup/firn/internal/failure"
	"github.com/firn-backup/firn/internal/prune"
	"github.com/firn-backup/firn/internal/sendstream"
	"github.com/firn-backup/firn/internal/source"
	"github.com/firn-backup/firn/internal/source/btrfs"
	"github.com/firn-backup/firn/internal/source/command"
	"github.com/firn-backup/firn/internal/source/zfs"
	"github.com/firn-backup/firn/internal/transfer"
)

// This file is the one list of adapters: which vaults and sources there are. That of codecs is codec.Kinds.

// vaultHost is what a vault is given by who opens it.
type vaultHost struct {
	now    func() time.Time
	notice func(text string) // what is being waited for
}

func (a *App) vaultHost() vaultHost { return vaultHost{a.Now, a.o.Waiting} }

// vaultKind is a kind of vault that can be opened.
type vaultKind struct {
	scheme string
	// canonical checks a URL and returns the one form in which the vault is known.
	canonical func(url string) (string, error)
	open      func(ctx context.Context, url string, h vaultHost) (coldstore.Store, error)
	create    func(ctx context.Context, url string, h vaultHost) (coldstore.Store, error)
	// keeps tells from a URL alone how long archives stay. Nil: the price table does.
	keeps func(url string) prune.Keeps
	dir   func(url string) string // the local directory that holds it; empty: none
	// account opens what a service has beside vaults, at a URL that may be of no vault. Nil: there is no such thing.
	account func(ctx context.Context, url string, h vaultHost) (any, error)
}

func vaultKinds() []vaultKind {
	dir := func(url string, now func() time.Time) (string, localdir.Options, error) {
		root, o, err := localdir.ParseURL(url)
		o.Now = now
		return root, o, err
	}
	return []vaultKind{{
		scheme: localdir.Scheme,
		canonical: func(url string) (string, error) {
			root, o, err := localdir.ParseURL(url)
			return localdir.FormatURL(root, o), err
		},
		open: func(_ context.Context, url string, h vaultHost) (coldstore.Store, error) {
			root, o, err := dir(url, h.now)
			if err != nil {
				return nil, err
			}
			return localdir.Open(root, o)
		},
		create: func(_ context.Context, url string, h vaultHost) (coldstore.Store, error) {
			root, o, err := dir(url, h.now)
			if err != nil {
				return nil, err
			}
			return localdir.Create(root, o)
		},
		dir: func(url string) string {
			root, _, err := localdir.ParseURL(url)
			if err != nil {
				return ""
			}
			return root
		},
	}, {
		scheme:    glaciervault.Scheme,
		canonical: glaciervault.Canonical,
		open: func(ctx context.Context, url string, h vaultHost) (coldstore.Store, error) {
			s, err := glaciervault.Open(ctx, url, glaciervault.Options{Now: h.now, Notice: h.notice})
			if err != nil { // not a nil *Store in an interface
				return nil, err
			}
			return s, nil
		},
		create: func(ctx context.Context, url string, h vaultHost) (coldstore.Store, error) {
			s, err := glaciervault.Create(ctx, url, glaciervault.Options{Now: h.now, Notice: h.notice})
			if err != nil {
				return nil, err
			}
			return s, nil
		},
		dir: func(string) string { return "" },
		account: func(ctx context.Context, url string, h vaultHost) (any, error) {
			return glaciervault.OpenAccount(ctx, url, glaciervault.Options{Now: h.now, Notice: h.notice})
		},
	}, {
		scheme:    s3glacier.Scheme,
		canonical: s3glacier.Canonical,
		open: func(ctx context.Context, url string, h vaultHost) (coldstore.Store, error) {
			s, err := s3glacier.Open(ctx, url, s3glacier.Options{Now: h.now, Notice: h.notice})
			if err != nil {
				return nil, err
			}
			return s, nil
		},
		create: func(ctx context.Context, url string, h vaultHost) (coldstore.Store, error) {
			s, err := s3glacier.Create(ctx, url, s3glacier.Options{Now: h.now, Notice: h.notice})
			if err != nil {
				return nil, err
			}
			return s, nil
		},
		keeps: func(url string) prune.Keeps {
			minDays, lockDays := s3glacier.Keeps(url)
			return prune.Keeps{MinDays: minDays, LockDays: lockDays}
		},
		dir: func(string) string { return "" },
		account: func(ctx context.Context, url string, h vaultHost) (any, error) {
			return s3glacier.OpenAccount(ctx, url, s3glacier.Options{Now: h.now, Notice: h.notice})
		},
	}}
}

func kindOf(url string) (vaultKind, error) {
	scheme, _, ok := strings.Cut(url, ":")
	if !ok {
		return vaultKind{}, failure.Errorf(failure.Usage, "%q is not a vault's URL; write dir:/path or s3://BUCKET/PREFIX", url)
	}
	for _, k := range vaultKinds() {
		if k.scheme == scheme {
			return k, nil
		}
	}
	return vaultKind{}, failure.Errorf(failure.Usage, "%q: there is no kind of vault %q; write dir:/path, s3://BUCKET/PREFIX or glacier://REGION/VAULT", url, scheme)
}

func canonicalURL(url string) (string, error) {
	k, err := kindOf(url)
	if err != nil {
		return "", err
	}
	return k.canonical(url)
}

func vaultDir(url string) string {
	k, err := kindOf(url)
	if err != nil || k.dir == nil {
		return ""
	}
	return k.dir(url)
}

// DefaultVaultURL is that of the vault that is used where none is named.
func (a *App) DefaultVaultURL() string {
	return localdir.FormatURL(a.Paths.DefaultVault, localdir.Options{})
}

// VaultURL turns what a user writes for a vault, the name of a [vault.NAME] or
// a URL (a relative dir: path among them), into a URL in the one form. Empty is the default vault.
func (a *App) VaultURL(nameOrURL string) (string, error) {
	if nameOrURL == "" {
		return a.DefaultVaultURL(), nil
	}
	if v := a.Config.Vaults[nameOrURL]; v != nil {
		return a.vaultOf(v)
	}
	if !strings.Contains(nameOrURL, ":") {
		return "", failure.Errorf(failure.NotFound, "there is no vault %q in the config file, and it is not a URL (dir:/path, s3://BUCKET/PREFIX, glacier://REGION/VAULT)", nameOrURL)
	}
	url, err := config.AbsVaultURL(nameOrURL, a.Paths.Home, a.o.WorkingDir)
	if err != nil {
		return "", failure.Wrap(failure.Usage, err)
	}
	return canonicalURL(url)
}

// ErrNoBucket says that the bucket of a vault is not there, and must be made with other tools.
var ErrNoBucket = s3glacier.ErrNoBucket

// ErrNoVault says that there is no vault at a URL.
var ErrNoVault = errors.New("there is no vault")

// ErrBroken says that a vault is there, and damaged as such.
var ErrBroken = localdir.ErrBroken

// OpenStore opens the vault at a URL. The default vault is made where it does
// not exist and mayCreate is set; any other that does not exist is ErrNoVault, of
// kind failure.NotFound.
func (a *App) OpenStore(ctx context.Context, url string, mayCreate bool) (coldstore.Store, error) {
	k, err := kindOf(url)
	if err != nil {
		return nil, err
	}
	var s coldstore.Store
	err = transfer.Retry(ctx, opening(), func() (err error) {
		s, err = k.open(ctx, url, a.vaultHost())
		return err
	})
	if !errors.Is(err, coldstore.ErrNotFound) {
		return s, err
	}
	if mayCreate && url == a.DefaultVaultURL() {
		s, cerr := k.create(ctx, url, a.vaultHost())
		if errors.Is(cerr, coldstore.ErrExists) { // another run was faster
			return k.open(ctx, url, a.vaultHost())
		}
		if cerr != nil {
			return nil, cerr
		}
		a.o.Notice("made the default vault " + a.Paths.DefaultVault)
		return s, nil
	}
	return nil, failure.Wrap(failure.NotFound, fmt.Errorf("%w at %s: %w", ErrNoVault, url, err))
}

// CreateVault makes the vault at a URL. failure.Usage where there is one already.
func (a *App) CreateVault(ctx context.Context, url string) (coldstore.Store, error) {
	k, err := kindOf(url)
	if err != nil {
		return nil, err
	}
	var s coldstore.Store
	err = transfer.Retry(ctx, opening(), func() (err error) {
		s, err = k.create(ctx, url, a.vaultHost())
		return err
	})
	switch {
	case errors.Is(err, coldstore.ErrExists) || errors.Is(err, coldstore.ErrInvalid):
		err = failure.Wrap(failure.Usage, err)
	case errors.Is(err, coldstore.ErrNotFound):
		err = failure.Wrap(failure.NotFound, err)
	}
	return s, err
}

// tidyAfter is how long what interrupted work left in a vault is kept: far longer
// than anybody pauses a backup that is to go on.
const tidyAfter = 7 * 24 * time.Hour

// TidyLocal removes from a vault on this machine what nobody needs any more, since such a vault does not
// do so itself. Nothing depends on it.
func (a *App) TidyLocal(ctx context.Context, s coldstore.Store) error {
	if _, ok := s.(*localdir.Store); !ok {
		return nil
	}
	_, err := a.TidyVault(ctx, s, tidyAfter)
	return err
}

// Tidied tells what TidyVault did.
type Tidied struct {
	Uploads int // given up
	Others  int // leftovers of other kinds, removed
}

// TidyVault gives up the uploads of a vault that are older than a time, and removes what else interrupted work has left.
func (a *App) TidyVault(ctx context.Context, s coldstore.Store, olderThan time.Duration) (Tidied, error) {
	var t Tidied
	if dir, ok := s.(*localdir.Store); ok {
		d, err := dir.Tidy(ctx, olderThan)
		return Tidied{Uploads: d.Uploads, Others: d.Completed + d.Retrievals + d.Leftovers}, err
	}
	var old []string
	err := s.ListUploads(ctx, func(u coldstore.Upload) error {
		if a.Now().Sub(u.Created) >= olderThan {
			old = append(old, u.ID)
		}
		return nil
	})
	for _, id := range old {
		if err == nil {
			if err = s.AbortUpload(ctx, id); err == nil {
				t.Uploads++
			}
		}
	}
	return t, err
}

// opening are the attempts at opening a vault: few, so that one that is not there is told of in seconds.
func opening() transfer.Options { return transfer.Options{Retries: 2} }

// OpenAccount opens the account and region that a vault, which need not exist, is in: the name of a [vault.NAME], or
// a URL, which need not name a vault. What it returns has optional interfaces of coldstore: VaultLister,
// RetrievalLimiter, CapacityBuyer. failure.Usage: that kind of vault is in no account.
func (a *App) OpenAccount(ctx context.Context, nameOrURL string) (any, error) {
	url := nameOrURL
	if v := a.Config.Vaults[nameOrURL]; v != nil {
		var err error
		if url, err = a.vaultOf(v); err != nil {
			return nil, err
		}
	}
	if url == "" {
		url = a.DefaultVaultURL()
	}
	k, err := kindOf(url)
	if err != nil {
		return nil, err
	}
	if k.account == nil {
		return nil, failure.Errorf(failure.Usage, "%s: vaults are in no account", k.scheme)
	}
	return k.account(ctx, url, a.vaultHost())
}

// streamSource is a kind of set that is a stream, and its producer.
type streamSource struct {
	kind string
	open func(s *config.Set, set string, stdin io.Reader) (source.Stream, error)
}

func streamSources() []streamSource {
	return []streamSource{{
		config.KindZFS, func(s *config.Set, set string, _ io.Reader) (source.Stream, error) {
			return zfs.New(zfs.Options{Dataset: s.Dataset, Recursive: s.Recursive, Raw: s.Raw, Intermediates: s.Intermediates,
				Existing: s.Existing(), Match: s.SnapshotMatch, Set: set})
		},
	}, {
		config.KindBtrfs, func(s *config.Set, set string, _ io.Reader) (source.Stream, error) {
			return btrfs.New(btrfs.Options{Subvolume: s.Subvolume, Dir: s.SnapshotDir, Existing: s.Existing(), Match: s.SnapshotMatch, Set: set})
		},
	}, {
		config.KindCommand, func(s *config.Set, _ string, _ io.Reader) (source.Stream, error) { return command.New(s.Command...) },
	}, {
		config.KindStream, func(_ *config.Set, _ string, stdin io.Reader) (source.Stream, error) {
			if stdin == nil {
				return nil, errors.New("it is a stream that comes in through a pipe: PROGRAM | firn backup SET --stdin")
			}
			return command.NewPipe("standard input", stdin), nil
		},
	}}
}

// OpenReceiver opens what takes streams of a format back: zfs receive into a dataset, btrfs receive into a
// directory. failure.Usage: there is nothing that does.
func (a *App) OpenReceiver(format sendstream.Format, target string) (source.Receiver, error) {
	var r source.Receiver
	var err error
	switch format {
	case sendstream.ZFS:
		r, err = zfs.NewReceiver(target, "")
	case sendstream.Btrfs:
		r, err = btrfs.NewReceiver(a.abs(target), "")
	default:
		err = errors.New("what a command wrote can be restored to a file, or given to a program: --to FILE, or --to - | PROGRAM")
	}
	return r, failure.Wrap(failure.Usage, err)
}

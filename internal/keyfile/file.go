package keyfile

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/firn-backup/firn/internal/codec"
	"github.com/firn-backup/firn/internal/codec/encrypt"
	"github.com/firn-backup/firn/internal/durable"
	"github.com/firn-backup/firn/internal/failure"
)

// maxFile bounds a key file, in bytes.
const maxFile = 1 << 20

// WriterPath is where the writer file of a wrapped key file lies. It is not
// named .pub, because the signing seed in it is a secret.
func WriterPath(path string) string { return path + ".writer" }

// SaveOptions say how a key file is written. The zero value is right.
type SaveOptions struct {
	// Passphrase wraps the file; nil leaves it in the clear. One of no bytes is an error.
	Passphrase []byte
	// WorkFactor is scrypt's, as a power of two: 18, which takes a second and
	// 256 MiB. Tests lower it.
	WorkFactor int
}

// Save writes the key file, durably, with permissions 0600 into a directory that
// is made with 0700. It never overwrites: a file at path, or at WriterPath when
// one is needed, is an error that is fs.ErrExist. With a passphrase k is Wrapped from
// then on.
func (k *Key) Save(path string, passphrase []byte) error {
	return k.SaveWith(path, SaveOptions{Passphrase: passphrase})
}

// SaveWith is Save with all options.
func (k *Key) SaveWith(path string, o SaveOptions) error {
	s := k.in()
	switch {
	case s.ssh:
		return fmt.Errorf("key file %s: an SSH key stays in its own file", path)
	case len(s.ids) == 0 && s.signer == nil:
		return fmt.Errorf("key file %s: there is no key to save", path)
	case len(s.ids) == 0 && s.wrapped != nil:
		return failure.Errorf(failure.NoKey, "key file %s: the key to save is still under its passphrase", path)
	case o.Passphrase != nil && len(o.Passphrase) == 0:
		return failure.Errorf(failure.Usage, "key file %s: the passphrase is empty", path)
	}
	if err := durable.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("key file %s: %w", path, err)
	}
	if len(s.ids) == 0 {
		return k.SaveWriter(path)
	}
	if o.Passphrase == nil {
		return create(path, s.text())
	}
	if _, err := os.Lstat(WriterPath(path)); err == nil {
		return fmt.Errorf("key file %s: %w", WriterPath(path), fs.ErrExist)
	}
	wrapped, err := encrypt.Wrap([]byte(s.text()), o.Passphrase, o.WorkFactor)
	if err != nil {
		return fmt.Errorf("key file %s: %w", path, err)
	}
	if err := create(path, string(wrapped)); err != nil {
		return err
	}
	if s.signer != nil {
		if err := create(WriterPath(path), s.writerText()); err != nil {
			// Nothing was encrypted to this key yet: take it back, so that it can be tried again.
			return errors.Join(err, durable.Remove(path))
		}
	}
	s.wrapped = wrapped
	return nil
}

// SaveWriter writes a writer file at path, as Save does: for a machine that is
// to back up and not to read, or where WriterPath was lost.
func (k *Key) SaveWriter(path string) error {
	s := k.in()
	if s.signer == nil || len(s.recipients) == 0 {
		return fmt.Errorf("writer file %s: the key has no signing seed or no public key", path)
	}
	if err := durable.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("writer file %s: %w", path, err)
	}
	return create(path, s.writerText())
}

func create(path, text string) error {
	if err := durable.CreateExclusive(path, []byte(text), 0o600); err != nil {
		return fmt.Errorf("key file %s: %w", path, err)
	}
	return nil
}

// Load reads a key file, a writer file, or any identity file that age takes: several
// identities, plugins, SSH keys; those have no signing seed and can only read.
//
// passphrase is asked if the file is under one. If it is nil, or returns an error that
// is ErrLocked, Load makes do with the writer file beside it: the key then has a signer
// and recipients, and no identities. It does so too when there is a writer file
// only.
//
// A missing file is fs.ErrNotExist; a wrong or missing passphrase is failure.NoKey, and
// what cannot be read as a key failure.Damaged.
func Load(path string, passphrase func() ([]byte, error)) (*Key, error) {
	b, warning, err := read(path)
	if errors.Is(err, fs.ErrNotExist) {
		if k, werr := loadWriter(path); !errors.Is(werr, fs.ErrNotExist) {
			return k, werr
		}
	}
	if err != nil {
		return nil, fmt.Errorf("key file: %w", err)
	}
	var ask func(string) ([]byte, error)
	if passphrase != nil {
		ask = func(string) ([]byte, error) { return passphrase() }
	}
	if encrypt.IsWrapped(b) {
		k, err := loadWrapped(path, b, passphrase)
		if err != nil {
			return nil, err
		}
		if k.Warning == "" {
			k.Warning = warning
		}
		return k, nil
	}
	s, err := parse(path, b, ask)
	if err != nil {
		return nil, loadError(err)
	}
	return keyOf(warning, s), nil
}

// ErrLocked is what a passphrase function returns to Load when there is nobody
// to ask and the writer file will do.
var ErrLocked = errors.New("the key file is under a passphrase")

// ErrPassphrase says that a key file is under another passphrase than the one that was given.
var ErrPassphrase = errors.New("wrong passphrase")

func loadWrapped(path string, b []byte, passphrase func() ([]byte, error)) (*Key, error) {
	wrapped, err := encrypt.Armor(b)
	if err != nil {
		return nil, fmt.Errorf("key file %s: %w", path, err)
	}
	err = ErrLocked
	var pass []byte
	if passphrase != nil {
		pass, err = passphrase()
	}
	if errors.Is(err, ErrLocked) {
		k, werr := loadWriter(path)
		if errors.Is(werr, fs.ErrNotExist) {
			return nil, failure.Errorf(failure.NoKey, "key file %s: it needs its passphrase: %w", path, err)
		}
		if werr == nil {
			k.in().wrapped = wrapped
		}
		return k, werr
	}
	if err != nil {
		return nil, failure.Errorf(failure.NoKey, "key file %s: passphrase: %w", path, err)
	}
	plain, err := encrypt.Unwrap(b, pass)
	if errors.Is(err, codec.ErrNoKey) {
		return nil, failure.Errorf(failure.NoKey, "key file %s: %w", path, ErrPassphrase)
	}
	if err != nil {
		return nil, loadError(fmt.Errorf("%s: %w", path, err))
	}
	s, err := parse(path, plain, nil)
	if err != nil {
		return nil, loadError(err)
	}
	s.wrapped = wrapped
	return keyOf("", s), nil
}

func loadWriter(path string) (*Key, error) {
	b, warning, err := read(WriterPath(path))
	if err != nil {
		return nil, fmt.Errorf("key file: %w", err)
	}
	s, err := parse(WriterPath(path), b, nil)
	if err != nil {
		return nil, loadError(err)
	}
	return keyOf(warning, s), nil
}

// loadError gives an error its kind; it names the file already.
func loadError(err error) error {
	kind := failure.Damaged
	if errors.Is(err, codec.ErrNoKey) {
		kind = failure.NoKey
	}
	return failure.Errorf(kind, "key file %w", err)
}

// read returns a file's content, and a warning if others can read it.
func read(path string) ([]byte, string, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, "", err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, "", err
	}
	b, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, "", err
	}
	if len(b) > maxFile {
		return nil, "", failure.Errorf(failure.Damaged, "%s: too long for a key file", path)
	}
	warning := ""
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		warning = fmt.Sprintf("key file %s can be read or changed by other users (mode %04o): chmod 600 it", path, mode)
	}
	return b, warning, nil
}

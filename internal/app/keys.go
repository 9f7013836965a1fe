package app

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/firn-backup/firn/internal/codec"
	"github.com/firn-backup/firn/internal/codec/compress"
	"github.com/firn-backup/firn/internal/codec/encrypt"
	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/internal/config"
	"github.com/firn-backup/firn/internal/durable"
	"github.com/firn-backup/firn/internal/failure"
	"github.com/firn-backup/firn/internal/keyfile"
	"github.com/firn-backup/firn/internal/manifest"
	"github.com/firn-backup/firn/internal/retrieval"
	"github.com/firn-backup/firn/internal/transfer"
)

// ErrNoKeyFile says that there is no key file yet.
var ErrNoKeyFile = errors.New("there is no key file")

// EnsureKey is the key to make backups with: the key file, made on first use.
// It asks for no passphrase: of a file under one the writer file beside it is
// enough. As long as nobody has said that the key is kept, it says so, once, where what s stores cannot be read without it.
func (a *App) EnsureKey(s *config.Set) (*keyfile.Key, error) {
	k, err := keyfile.Load(a.Paths.Key, nil)
	if errors.Is(err, fs.ErrNotExist) {
		k, err = a.makeKey()
	}
	if err != nil {
		return nil, err
	}
	if k.Warning != "" {
		a.o.Warn(k.Warning)
	}
	if k.Signer() == nil {
		return nil, failure.Errorf(failure.NoKey, "key file %s: it has no signing seed, so it can read backups and make none", a.Paths.Key)
	}
	if opens(k, s) && !a.KeyKept(k) && a.remind(k) {
		a.o.Notice(fmt.Sprintf("KEEP THE KEY %s: without it nobody can read these backups, you included. "+
			"firn key show prints it for paper; firn key kept ends this reminder", a.Paths.Key))
	}
	return k, nil
}

// opens says whether a key may be what opens that which a set stores.
func opens(k *keyfile.Key, s *config.Set) bool {
	if s.Encrypt != "" && s.Encrypt != encrypt.Age {
		return false
	}
	return len(s.Recipients) == 0 || len(s.RecipientFiles) > 0 || slices.ContainsFunc(s.Recipients, func(r string) bool { return slices.Contains(k.Recipients(), r) })
}

// remind says whether the reminder of a key is still to be given: once a process, and not for each item that becomes a snapshot.
func (a *App) remind(k *keyfile.Key) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.reminded == k.SigningKey() {
		return false
	}
	a.reminded = k.SigningKey()
	return true
}

// HasKeyFile says whether there is a key file, readable or not.
func (a *App) HasKeyFile() bool {
	_, err := os.Lstat(a.Paths.Key)
	return !errors.Is(err, fs.ErrNotExist)
}

func (a *App) makeKey() (*keyfile.Key, error) {
	k, err := keyfile.New(a.Now(), nil)
	if err != nil {
		return nil, err
	}
	switch err := k.Save(a.Paths.Key, nil); {
	case errors.Is(err, fs.ErrExist): // another run was faster
		return keyfile.Load(a.Paths.Key, nil)
	case err != nil:
		return nil, err
	}
	a.o.Notice("made the key " + a.Paths.Key)
	return k, nil
}

// NewKey saves a key as the key file. It never overwrites one: failure.Usage.
func (a *App) NewKey(k *keyfile.Key, passphrase []byte) error {
	err := k.Save(a.Paths.Key, passphrase)
	if errors.Is(err, fs.ErrExist) {
		return failure.Wrap(failure.Usage, err)
	}
	return err
}

// LoadKey opens the key file, identities included, and asks for its passphrase
// if it is under one. ErrNoKeyFile, of kind failure.NoKey, where there is none.
func (a *App) LoadKey() (*keyfile.Key, error) {
	k, err := keyfile.Load(a.Paths.Key, func() ([]byte, error) {
		return a.passphrase("Passphrase of the key file " + a.Paths.Key)
	})
	if errors.Is(err, fs.ErrNotExist) {
		return nil, failure.Errorf(failure.NoKey, "%s: %w", a.Paths.Key, ErrNoKeyFile)
	}
	return k, err
}

// passphrase comes from the file or the program that the environment names, or
// from whoever is there to be asked; never from the command line, which
// others can see. Nobody there is keyfile.ErrLocked.
func (a *App) passphrase(prompt string) ([]byte, error) {
	if file, _ := a.o.LookupEnv("FIRN_PASSPHRASE_FILE"); file != "" {
		b, err := os.ReadFile(a.abs(file))
		if err != nil { // not wrapped: that this file is missing does not mean that the key file is
			return nil, fmt.Errorf("FIRN_PASSPHRASE_FILE: %v", err)
		}
		return firstLine(b), nil
	}
	if command, _ := a.o.LookupEnv("FIRN_PASSPHRASE_COMMAND"); command != "" {
		return runPassphraseCommand(command)
	}
	if a.o.Ask == nil {
		return nil, keyfile.ErrLocked
	}
	return a.o.Ask(prompt)
}

// NewPassphrase is a passphrase to protect a new key with. Typed in, it is asked for twice.
func (a *App) NewPassphrase() ([]byte, error) {
	first, err := a.passphrase("New passphrase of the key file")
	if errors.Is(err, keyfile.ErrLocked) {
		return nil, failure.Errorf(failure.Usage, "there is no terminal to ask for the passphrase on, and neither FIRN_PASSPHRASE_FILE nor FIRN_PASSPHRASE_COMMAND is set")
	}
	if err != nil {
		return nil, err
	}
	second, err := a.passphrase("The same again")
	switch {
	case err != nil:
		return nil, err
	case !bytes.Equal(first, second):
		return nil, failure.Errorf(failure.Usage, "the two passphrases differ")
	case len(first) == 0:
		return nil, failure.Errorf(failure.Usage, "the passphrase is empty")
	}
	return first, nil
}

func firstLine(b []byte) []byte {
	line, _, _ := bytes.Cut(b, []byte("\n"))
	return bytes.TrimSuffix(line, []byte("\r"))
}

// keptMark is the file that remembers which key was said to be kept.
func (a *App) keptMark() string { return filepath.Join(a.Paths.State, "key-kept") }

// KeyKept says whether this key was said to be kept.
func (a *App) KeyKept(k *keyfile.Key) bool {
	b, err := os.ReadFile(a.keptMark())
	return err == nil && strings.TrimSpace(string(b)) == k.SigningKey()
}

// MarkKept remembers that the key was said to be kept.
func (a *App) MarkKept(k *keyfile.Key) error {
	if err := durable.MkdirAll(a.Paths.State, 0o700); err != nil {
		return err
	}
	return durable.WriteFile(a.keptMark(), []byte(k.SigningKey()+"\n"), 0o600)
}

// Encryptor is the one that a set asks for. k is the key file's, which age
// encrypts to where the set names no recipients.
func (a *App) Encryptor(s *config.Set, k *keyfile.Key) (codec.Encryptor, error) {
	name := s.Encrypt
	if name == "" {
		name = encrypt.Age
	}
	o := encrypt.EncryptOptions{
		Recipients: s.Recipients, RecipientFiles: s.RecipientFiles, Now: a.Now, Say: a.o.Notice,
	}
	if a.o.Ask != nil {
		o.Passphrase = a.o.Ask
	}
	if name == encrypt.Age && len(o.Recipients)+len(o.RecipientFiles) == 0 {
		o.Recipients = k.Recipients()
	}
	return encrypt.NewEncryptor(name, o)
}

// Codecs open what is stored with the key file, the identities of the config file,
// and those of further files. Keys are read, and passphrases asked for, when
// the first thing is to be decrypted.
func (a *App) Codecs(identityFiles []string) retrieval.Codecs {
	keys := sync.OnceValues(func() (encrypt.Keys, error) { return a.readKeys(identityFiles) })
	return retrieval.Codecs{
		Decryptor: func(name string) (codec.Decryptor, codec.Geometry, error) {
			g, err := encrypt.Geometry(name)
			if err != nil {
				return nil, g, err
			}
			var k encrypt.Keys
			if name != encrypt.None {
				if k, err = keys(); err != nil {
					return nil, g, err
				}
			}
			if name == encrypt.Age && len(k.Age) == 0 && a.locked() {
				return nil, g, failure.Errorf(failure.NoKey, "key file %s: it is under a passphrase and nobody is there to be asked; FIRN_PASSPHRASE_FILE or FIRN_PASSPHRASE_COMMAND can give it", a.Paths.Key)
			}
			d, err := encrypt.NewDecryptor(name, k)
			return d, g, err
		},
		Compressor: compress.ByName,
		Decompress: compress.NewReader,
	}
}

// locked says that the key file is under a passphrase.
func (a *App) locked() bool {
	k, err := keyfile.Load(a.Paths.Key, nil)
	return err == nil && k.Wrapped()
}

// readKeys gathers everything there is to decrypt with. That there is no key
// file is no fault here: another key may do.
func (a *App) readKeys(files []string) (encrypt.Keys, error) {
	keys := encrypt.Keys{}
	if a.o.Ask != nil {
		keys.Passphrase = a.o.Ask
	}
	k, err := a.LoadKey()
	switch {
	case errors.Is(err, ErrNoKeyFile):
	case err != nil:
		return keys, err
	default:
		keys.Age = append(keys.Age, k.Identities()...)
	}
	all := append([]string{}, a.Config.Identities...)
	for _, f := range files {
		all = append(all, a.abs(f))
	}
	for _, f := range all {
		pgp, err := isOpenPGP(f)
		if err != nil {
			return keys, failure.Wrap(failure.NoKey, fmt.Errorf("identity file: %w", err))
		}
		if pgp {
			keys.OpenPGPFiles = append(keys.OpenPGPFiles, f)
			continue
		}
		ids, err := encrypt.ParseIdentityFile(f, func(prompt string) ([]byte, error) { return a.passphrase(prompt) })
		if err != nil {
			return keys, failure.Wrap(failure.NoKey, err)
		}
		keys.Age = append(keys.Age, ids...)
	}
	return keys, nil
}

// isOpenPGP says whether a file holds OpenPGP keys: armored, or packets, whose
// first byte always has its highest bit set, as no text's has.
func isOpenPGP(file string) (bool, error) {
	f, err := os.Open(file)
	if err != nil {
		return false, err
	}
	defer f.Close()
	head := make([]byte, 4096)
	n, err := io.ReadFull(f, head)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
		return false, err
	}
	head = head[:n]
	return bytes.Contains(head, []byte("-----BEGIN PGP ")) || (n > 0 && head[0]&0x80 != 0), nil
}

// Signers are the public keys whose manifests are believed: the key file's, the
// config file's, and those that were trusted by command.
func (a *App) Signers(ctx context.Context) ([]ed25519.PublicKey, error) {
	var all []ed25519.PublicKey
	if k, err := keyfile.Load(a.Paths.Key, nil); err == nil && k.Signer() != nil {
		all = append(all, k.Signer().Public().(ed25519.PublicKey))
	} else if failure.KindOf(err) == failure.NoKey { // under a passphrase, and no writer file
		if k, err := a.LoadKey(); err == nil && k.Signer() != nil {
			all = append(all, k.Signer().Public().(ed25519.PublicKey))
		}
	}
	for _, s := range a.Config.Signers {
		k, err := keyfile.ParseSigningKey(s)
		if err != nil {
			return nil, err
		}
		all = append(all, k)
	}
	db, err := a.Catalog(ctx, false)
	if errors.Is(err, ErrNoCatalog) {
		return all, nil
	}
	if err != nil {
		return nil, err
	}
	trusted, err := db.Trusted(ctx)
	return append(all, trusted...), err
}

// StoreKey puts a copy of a key file that is under a passphrase into a vault, once:
// with the passphrase alone the vault can then be read. A key in the clear is
// never stored.
func (a *App) StoreKey(ctx context.Context, store coldstore.Uploader, vaultURL string, k *keyfile.Key) error {
	if !k.Wrapped() {
		return nil
	}
	print := sha256.Sum256([]byte(k.WrappedText()))
	where := sha256.Sum256([]byte(vaultURL))
	id := hex.EncodeToString(print[:8])
	mark := filepath.Join(a.Paths.State, "key-stored-"+id+"-"+hex.EncodeToString(where[:8]))
	if _, err := os.Lstat(mark); err == nil {
		return nil
	}
	up := transfer.NewUpload(ctx, store, coldstore.NewArchive{
		Name:        manifest.KeyName(id),
		Description: manifest.Description{What: manifest.WhatKey, Host: a.Host, At: a.Now(), Codecs: []string{"age"}}.String(),
		Meta:        true,
	}, transfer.Options{})
	_, err := io.WriteString(up, k.WrappedText())
	if err == nil {
		_, err = up.Complete(ctx, nil)
	}
	if err != nil {
		err = errors.Join(err, up.Abort(context.WithoutCancel(ctx)))
	}
	if err != nil && !errors.Is(err, coldstore.ErrExists) {
		return fmt.Errorf("store the key file in %s: %w", vaultURL, err)
	}
	if err := durable.MkdirAll(a.Paths.State, 0o700); err != nil {
		return err
	}
	return durable.WriteFile(mark, nil, 0o600)
}

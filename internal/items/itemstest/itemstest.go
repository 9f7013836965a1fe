// Package itemstest is a machine for tests of items and mirrors: a directory, a catalog and a vault. It knows nothing of
// which items a run stores.
package itemstest

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"filippo.io/age"

	"github.com/firn-backup/firn/internal/catalog"
	"github.com/firn-backup/firn/internal/catalog/sqlite"
	"github.com/firn-backup/firn/internal/codec"
	"github.com/firn-backup/firn/internal/codec/compress"
	"github.com/firn-backup/firn/internal/codec/encrypt"
	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/internal/coldstore/localdir"
	"github.com/firn-backup/firn/internal/items"
	"github.com/firn-backup/firn/internal/itemstore"
	"github.com/firn-backup/firn/internal/retrieval"
	"github.com/firn-backup/firn/internal/snapshot"
	"github.com/firn-backup/firn/internal/transfer"
)

// VaultURL is what the catalog calls the vault.
const VaultURL = "dir:v"

// World is a machine with a directory, a catalog and a vault. Its methods end the test where something fails.
type World struct {
	T       testing.TB
	Base    string // everything is below it
	Dir     string // what is stored
	DB      *catalog.DB
	Vault   *localdir.Store
	Encrypt codec.Encryptor
	Key     ed25519.PrivateKey
	Set     catalog.Set
	Clock   time.Time

	dec codec.Decryptor
}

// Must ends a test that has an error.
func Must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// New makes one, with a set of that kind, in memory: such tests sync thousands of times.
func New(t testing.TB, kind string, encrypted bool) *World {
	t.Helper()
	base, err := os.MkdirTemp("/dev/shm", "firn-test-")
	if err != nil {
		base = t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(base) })
	w := &World{T: t, Base: base, Dir: filepath.Join(base, "dir"), Clock: time.Date(2026, 11, 22, 2, 0, 0, 0, time.UTC)}
	Must(t, os.MkdirAll(w.Dir, 0o755))
	w.OpenCatalog()
	w.Vault, err = localdir.Create(filepath.Join(base, "vault"), localdir.Options{Now: w.Now})
	Must(t, err)
	name, recipients, keys := encrypt.None, []string(nil), encrypt.Keys{}
	if encrypted {
		id, err := age.GenerateX25519Identity()
		Must(t, err)
		name, recipients, keys = encrypt.Age, []string{id.Recipient().String()}, encrypt.Keys{Age: []age.Identity{id}}
	}
	w.Encrypt, err = encrypt.NewEncryptor(name, encrypt.EncryptOptions{Recipients: recipients})
	Must(t, err)
	w.dec, err = encrypt.NewDecryptor(name, keys)
	Must(t, err)
	_, w.Key, err = ed25519.GenerateKey(rand.Reader)
	Must(t, err)
	id, err := snapshot.NewID(w.Clock, rand.Reader)
	Must(t, err)
	w.Set = catalog.Set{ID: id, Name: "m", Label: "m", Host: "here", Kind: kind, Vault: VaultURL, Root: w.Dir, Created: w.Clock}
	Must(t, w.DB.PutSet(context.Background(), w.Set))
	return w
}

// OpenCatalog opens the catalog, or makes one that knows nothing.
func (w *World) OpenCatalog() {
	var err error
	w.DB, err = sqlite.Open(context.Background(), filepath.Join(w.Base, "catalog.db"), sqlite.Options{})
	Must(w.T, err)
	db := w.DB
	w.T.Cleanup(func() { db.Close() })
}

// LoseCatalog loses it, and with it the set's identifier.
func (w *World) LoseCatalog() {
	Must(w.T, w.DB.Close())
	Must(w.T, os.Remove(filepath.Join(w.Base, "catalog.db")))
	w.OpenCatalog()
	var err error
	w.Set.ID, err = snapshot.NewID(w.Clock, rand.Reader)
	Must(w.T, err)
	Must(w.T, w.DB.PutSet(context.Background(), w.Set))
}

// Now is the clock.
func (w *World) Now() time.Time { return w.Clock }

// Later is a clock by which all times of files are long past.
func Later() time.Time { return time.Now().Add(time.Hour) }

// Write writes a file of the directory.
func (w *World) Write(name, content string) {
	w.T.Helper()
	full := filepath.Join(w.Dir, name)
	Must(w.T, os.MkdirAll(filepath.Dir(full), 0o755))
	Must(w.T, os.WriteFile(full, []byte(content), 0o644))
}

// Remove removes what has that name in the directory.
func (w *World) Remove(name string) {
	w.T.Helper()
	Must(w.T, os.RemoveAll(filepath.Join(w.Dir, name)))
}

// Options are those of a run that goes to a store: the vault, or one around it.
func (w *World) Options(store coldstore.Store) itemstore.Options {
	none, err := compress.New("none")
	Must(w.T, err)
	zstd, err := compress.New("zstd:1")
	Must(w.T, err)
	return itemstore.Options{
		Catalog: w.DB, Store: store, Vault: VaultURL, Set: w.Set, Host: "here", Path: w.Dir, Compress: none, Encrypt: w.Encrypt, Index: zstd,
		Signer: func() (ed25519.PrivateKey, error) { return w.Key, nil }, Now: w.Now, Wall: Later, Rand: rand.Reader,
		Transfer: transfer.Options{Sleep: func(context.Context, time.Duration) error { return nil }},
	}
}

// Codecs open what is stored.
func (w *World) Codecs() retrieval.Codecs {
	return retrieval.Codecs{
		Decryptor: func(name string) (codec.Decryptor, codec.Geometry, error) {
			g, err := encrypt.Geometry(name)
			return w.dec, g, err
		},
		Compressor: compress.ByName, Decompress: compress.NewReader,
	}
}

// Check proves that the vault holds every item once, and nothing else, and that every file comes back.
func (w *World) Check() {
	w.T.Helper()
	ctx := context.Background()
	there := map[string]bool{}
	_, err := w.Vault.List(ctx, func(a coldstore.Archive) error { there[a.ID] = true; return nil })
	Must(w.T, err)
	for id := range there {
		by, err := w.DB.NeededBy(ctx, VaultURL, id)
		Must(w.T, err)
		if by == "" {
			w.T.Errorf("orphan: %s", id)
		}
	}
	seen := map[string]bool{}
	Must(w.T, w.DB.Items(ctx, w.Set.ID, catalog.ItemQuery{}, func(i catalog.Item) error {
		if i.Archive.Archive == "" {
			return nil
		}
		if !there[i.Archive.Archive] || seen[i.Archive.Archive] {
			w.T.Errorf("%s: archive %q is missing, or another's", i.Path, i.Archive.Archive)
		}
		seen[i.Archive.Archive] = true
		return nil
	}))
	w.Compare(0)
}

// Compare restores everything as it was after a run, 0 is now, and compares it with the directory.
func (w *World) Compare(at uint64) {
	w.T.Helper()
	to, err := os.MkdirTemp(w.Base, "back")
	Must(w.T, err)
	_, err = items.Restore(context.Background(), items.RestoreOptions{
		Catalog: w.DB, Set: w.Set, To: to, Now: w.Now, At: at, Codecs: w.Codecs(),
		Open: func(context.Context, string) (coldstore.Store, error) { return w.Vault, nil },
	})
	Must(w.T, err)
	was, is := contents(w.T, w.Dir), contents(w.T, to)
	for name, text := range was {
		if got, ok := is[name]; !ok || got != text {
			w.T.Errorf("%s came back as %q (there: %v), and was %q", name, got, ok, text)
		}
	}
	if len(was) != len(is) {
		w.T.Errorf("%d files restored, and there are %d", len(is), len(was))
	}
}

// contents are the files below a directory.
func contents(t testing.TB, dir string) map[string]string {
	all := map[string]string{}
	Must(t, filepath.WalkDir(dir, func(p string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := os.ReadFile(p)
		if err != nil {
			return fmt.Errorf("%s: %w", p, err)
		}
		rel, err := filepath.Rel(dir, p)
		all[rel] = string(text)
		return err
	}))
	return all
}

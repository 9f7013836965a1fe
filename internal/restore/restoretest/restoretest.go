// Package restoretest has a machine for tests of what reads a vault: a tree, a
// catalog, keys and a vault in a directory, and the backups to fill it.
package restoretest

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"fmt"
	"io"
	mrand "math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"filippo.io/age"

	"github.com/firn-backup/firn/internal/backup"
	"github.com/firn-backup/firn/internal/catalog"
	"github.com/firn-backup/firn/internal/catalog/sqlite"
	"github.com/firn-backup/firn/internal/codec"
	"github.com/firn-backup/firn/internal/codec/compress"
	"github.com/firn-backup/firn/internal/codec/encrypt"
	"github.com/firn-backup/firn/internal/coldstore/localdir"
	"github.com/firn-backup/firn/internal/restore"
	"github.com/firn-backup/firn/internal/retrieval"
	"github.com/firn-backup/firn/internal/snapshot"
	"github.com/firn-backup/firn/internal/source/tree"
	"github.com/firn-backup/firn/internal/transfer"
)

// World is a machine.
type World struct {
	T     testing.TB
	Dir   string // all is below it
	Tree  string // what is backed up
	DB    *catalog.DB
	Vault *localdir.Store
	URL   string
	Set   catalog.Set

	Compressor codec.Compressor
	Encryptor  codec.Encryptor
	Identity   *age.X25519Identity
	Signer     ed25519.PrivateKey

	mu    sync.Mutex
	clock time.Time
}

// New makes a machine with an empty tree. compression is a spec ("zstd:1"), cipher "age" or "none".
func New(t testing.TB, compression, cipher string, delay time.Duration) *World {
	t.Helper()
	w := &World{T: t, Dir: t.TempDir(), clock: time.Date(2026, 11, 22, 2, 0, 0, 0, time.UTC)}
	w.Tree = filepath.Join(w.Dir, "tree")
	w.Must(os.Mkdir(w.Tree, 0o755))
	var err error
	root := filepath.Join(w.Dir, "vault")
	o := localdir.Options{Now: w.Now, Delay: delay}
	w.Vault, err = localdir.Create(root, o)
	w.Must(err)
	w.URL = localdir.FormatURL(root, o)
	w.Compressor, err = compress.New(compression)
	w.Must(err)
	w.Identity, err = age.GenerateX25519Identity()
	w.Must(err)
	var to encrypt.EncryptOptions
	if cipher == encrypt.Age {
		to.Recipients = []string{w.Identity.Recipient().String()}
	}
	w.Encryptor, err = encrypt.NewEncryptor(cipher, to)
	w.Must(err)
	_, w.Signer, err = ed25519.GenerateKey(rand.Reader)
	w.Must(err)
	w.NewCatalog()
	w.Set = w.NewSet("tree")
	return w
}

// NewCatalog puts an empty catalog in the place of the one at hand.
func (w *World) NewCatalog() {
	w.T.Helper()
	dir, err := os.MkdirTemp(w.Dir, "catalog-")
	w.Must(err)
	db, err := sqlite.Open(context.Background(), filepath.Join(dir, "catalog.db"), sqlite.Options{})
	w.Must(err)
	w.T.Cleanup(func() { db.Close() })
	w.DB = db
}

// NewSet records another set of the tree.
func (w *World) NewSet(name string) catalog.Set {
	w.T.Helper()
	id, err := snapshot.NewID(w.Now(), rand.Reader)
	w.Must(err)
	s := catalog.Set{ID: id, Name: name, Label: name, Host: "here", Kind: "tree", Vault: w.URL, Root: w.Tree, Created: w.Now()}
	w.Must(w.DB.PutSet(context.Background(), s))
	return s
}

// Must ends the test on an error.
func (w *World) Must(err error) {
	w.T.Helper()
	if err != nil {
		w.T.Fatal(err)
	}
}

// Now is a clock of which every look takes a second.
func (w *World) Now() time.Time { return w.Advance(time.Second) }

// Advance moves the clock.
func (w *World) Advance(d time.Duration) time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.clock = w.clock.Add(d)
	return w.clock
}

// Sleep moves the clock.
func (w *World) Sleep(ctx context.Context, d time.Duration) error {
	w.Advance(d)
	return ctx.Err()
}

// Write writes a file of the tree.
func (w *World) Write(name string, data []byte) {
	w.T.Helper()
	path := filepath.Join(w.Tree, name)
	w.Must(os.MkdirAll(filepath.Dir(path), 0o755))
	w.Must(os.WriteFile(path, data, 0o644))
}

// Noise is n bytes that do not compress.
func Noise(seed byte, n int) []byte {
	b := make([]byte, n)
	mrand.NewChaCha8([32]byte{seed}).Read(b)
	return b
}

// Fill makes a tree: small files, one that spans several volumes, links.
func (w *World) Fill() {
	w.T.Helper()
	for i := range 24 {
		w.Write(fmt.Sprintf("d%d/small%02d", i%3, i), Noise(byte(i), 1000+i*700))
	}
	w.Write("big", Noise(77, 700_000))
	w.Write("empty", nil)
	w.Write("zz-last", []byte("the last one\n"))
	w.Must(os.Link(filepath.Join(w.Tree, "d1/small01"), filepath.Join(w.Tree, "d2/linked")))
	w.Must(os.Symlink("../big", filepath.Join(w.Tree, "d0/to-big")))
	w.Must(os.Mkdir(filepath.Join(w.Tree, "void"), 0o700))
}

// BackupOptions are those of Backup.
func (w *World) BackupOptions(set catalog.Set) backup.Options {
	w.T.Helper()
	tr, err := tree.New(tree.Options{Paths: []string{w.Tree}})
	w.Must(err)
	return backup.Options{
		Catalog: w.DB, Store: w.Vault, Tree: tr, Set: set, Host: "here", Paths: []string{w.Tree},
		Compress: w.Compressor, Encrypt: w.Encryptor, Signer: w.Signer, Params: "v1",
		VolumeSize: 192 << 10, FrameSize: 32 << 10, Workers: 2, Readers: 2,
		Transfer: transfer.Options{PartSize: 1 << 20, Sleep: w.Sleep},
		Now:      w.Now, Rand: rand.Reader,
		Wall: func() time.Time { return time.Now().Add(time.Hour) }, // all changes are old
	}
}

// Backup backs the tree up.
func (w *World) Backup(change ...func(*backup.Options)) catalog.Snapshot {
	w.T.Helper()
	o := w.BackupOptions(w.Set)
	for _, f := range change {
		f(&o)
	}
	res, err := backup.Run(context.Background(), o)
	w.Must(err)
	return res.Snapshot
}

// Codecs open what Backup stores.
func (w *World) Codecs() retrieval.Codecs { return Codecs(w.Identity) }

// Codecs open with the keys given.
func Codecs(ids ...age.Identity) retrieval.Codecs { return CodecsOf(encrypt.Keys{Age: ids}) }

// CodecsOf open with the keys given.
func CodecsOf(keys encrypt.Keys) retrieval.Codecs {
	return retrieval.Codecs{
		Decryptor: func(name string) (codec.Decryptor, codec.Geometry, error) {
			d, err := encrypt.NewDecryptor(name, keys)
			g := codec.Geometry{}
			switch name {
			case encrypt.Age:
				g = codec.Geometry{Chunk: 64 << 10, Tag: 16}
			case encrypt.OpenPGP:
				g = codec.Geometry{Whole: true}
			}
			return d, g, err
		},
		Compressor: compress.ByName,
		Decompress: func(name string, r io.Reader) (io.ReadCloser, error) { return compress.NewReader(name, r) },
	}
}

// RestoreOptions restore a snapshot to a directory, with the tree's own path stripped.
func (w *World) RestoreOptions(snap catalog.Snapshot, to string) restore.Options {
	return restore.Options{
		Catalog: w.DB, Store: w.Vault, Traits: w.Vault.Traits(), Codecs: w.Codecs(), Snapshot: snap.ID,
		To: to, Strip: w.Tree, Now: w.Now, Transfer: transfer.Options{Sleep: w.Sleep, Retries: 2},
	}
}

// Archives are the paths of the vault's archives that have part in their names.
func (w *World) Archives(part string) []string {
	w.T.Helper()
	var all []string
	root := filepath.Join(w.Vault.Root(), "archives")
	w.Must(filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() && strings.Contains(path[len(root):], part) {
			all = append(all, path)
		}
		return err
	}))
	return all
}

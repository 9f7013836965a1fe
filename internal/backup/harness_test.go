package backup_test

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
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
	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/internal/coldstore/localdir"
	"github.com/firn-backup/firn/internal/manifest"
	"github.com/firn-backup/firn/internal/snapshot"
	"github.com/firn-backup/firn/internal/source/tree"
	"github.com/firn-backup/firn/internal/transfer"
	"github.com/firn-backup/firn/internal/volume"
)

// world is a machine with a tree, a catalog and a vault.
type world struct {
	t     *testing.T
	tree  string
	db    *catalog.DB
	vault *localdir.Store
	enc   codec.Encryptor
	dec   codec.Decryptor
	comp  codec.Compressor
	key   ed25519.PrivateKey
	set   catalog.Set
	mu    sync.Mutex
	clock time.Time
}

func newWorld(t *testing.T) *world {
	t.Helper()
	ctx := context.Background()
	dir := memory(t)
	w := &world{t: t, tree: filepath.Join(dir, "tree"), clock: time.Date(2026, 11, 22, 2, 0, 0, 0, time.UTC)}
	must(t, os.Mkdir(w.tree, 0o755))
	var err error
	w.db, err = sqlite.Open(ctx, filepath.Join(dir, "catalog.db"), sqlite.Options{})
	must(t, err)
	t.Cleanup(func() { w.db.Close() })
	w.vault, err = localdir.Create(filepath.Join(dir, "vault"), localdir.Options{Now: w.now})
	must(t, err)
	id, err := age.GenerateX25519Identity()
	must(t, err)
	w.enc, err = encrypt.NewEncryptor("age", encrypt.EncryptOptions{Recipients: []string{id.Recipient().String()}})
	must(t, err)
	w.dec, err = encrypt.NewDecryptor("age", encrypt.Keys{Age: []age.Identity{id}})
	must(t, err)
	w.comp, err = compress.New("zstd:1")
	must(t, err)
	_, w.key, err = ed25519.GenerateKey(rand.Reader)
	must(t, err)
	setID, err := snapshot.NewID(w.clock, rand.Reader)
	must(t, err)
	w.set = catalog.Set{ID: setID, Name: "tree", Label: "tree", Host: "here", Kind: "tree", Vault: "dir:" + w.vault.Root(), Root: w.tree, Created: w.clock}
	must(t, w.db.PutSet(ctx, w.set))
	return w
}

// memory is a directory in memory where there is one: these tests sync
// thousands of times, and what they prove does not depend on a disk.
func memory(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "firn-test-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// now is a clock of which every look takes a second.
func (w *world) now() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.clock = w.clock.Add(time.Second)
	return w.clock
}

// later is the clock that the tree's times are judged by: all changes are old.
func later() time.Time { return time.Now().Add(time.Hour) }

func (w *world) options(store coldstore.Uploader) backup.Options {
	tr, err := tree.New(tree.Options{Paths: []string{w.tree}})
	must(w.t, err)
	return backup.Options{
		Catalog: w.db, Store: store, Tree: tr, Set: w.set, Host: "here", Paths: []string{w.tree},
		Compress: w.comp, Encrypt: w.enc, Signer: w.key, Params: "v1",
		VolumeSize: 192 << 10, FrameSize: 32 << 10, Workers: 2, Readers: 2,
		Transfer: transfer.Options{PartSize: 1 << 20, Sleep: func(ctx context.Context, _ time.Duration) error { return ctx.Err() }},
		Now:      w.now, Wall: later, Rand: rand.Reader,
	}
}

func (w *world) run(change ...func(*backup.Options)) (backup.Result, error) {
	o := w.options(w.vault)
	for _, f := range change {
		f(&o)
	}
	return backup.Run(context.Background(), o)
}

func (w *world) mustRun(change ...func(*backup.Options)) backup.Result {
	w.t.Helper()
	res, err := w.run(change...)
	must(w.t, err)
	return res
}

func (w *world) path(name string) string { return filepath.Join(w.tree, name) }

func (w *world) write(name string, data []byte) {
	w.t.Helper()
	must(w.t, os.MkdirAll(filepath.Dir(w.path(name)), 0o755))
	must(w.t, os.WriteFile(w.path(name), data, 0o644))
}

// noise is n bytes that do not compress.
func noise(seed byte, n int) []byte {
	b := make([]byte, n)
	mrand.NewChaCha8([32]byte{seed}).Read(b)
	return b
}

// fill makes a first tree: small files, one that spans several volumes, links.
func (w *world) fill() {
	w.t.Helper()
	for i := range 24 {
		w.write(fmt.Sprintf("d%d/small%02d", i%3, i), noise(byte(i), 1000+i*700))
	}
	w.write("big", noise(77, 700_000))
	w.write("empty", nil)
	w.write("zz-last", []byte("the last one\n"))
	must(w.t, os.Link(w.path("d1/small01"), w.path("d2/linked")))
	must(w.t, os.Symlink("../big", w.path("d0/to-big")))
	must(w.t, os.Mkdir(w.path("void"), 0o700))
}

// stored is what a vault holds of a snapshot: path → entry and content's hash.
type stored map[string]snapshot.Entry

// check proves that the snapshot is what the tree is now: by the catalog, by the
// manifests in the vault, and by the bytes in the volumes.
func (w *world) check(id string) {
	w.t.Helper()
	ctx := context.Background()
	got := stored{}
	raws := map[uint64]map[int][]byte{}
	must(w.t, w.db.Entries(ctx, id, catalog.Query{Order: catalog.ByContent}, func(e snapshot.Entry) error {
		got[e.Path] = e
		return nil
	}))
	snap, err := w.db.Snapshot(ctx, id)
	must(w.t, err)
	if snap.State != catalog.Stored {
		w.t.Fatalf("snapshot %s is %s", id, snap.State)
	}
	for _, s := range w.chain(snap) {
		raws[s.N] = w.raw(s.ID)
	}
	w.sameAsDisk(got, raws)
	w.sameAsManifests(snap, got)
}

func (w *world) chain(last catalog.Snapshot) []catalog.Snapshot {
	all, err := w.db.Snapshots(context.Background(), w.set.ID)
	must(w.t, err)
	var chain []catalog.Snapshot
	for _, s := range all {
		if s.ChainN == last.ChainN && s.N <= last.N && s.State == catalog.Stored {
			chain = append(chain, s)
		}
	}
	return chain
}

// raw decodes all volumes of a snapshot, and proves that they are a tar stream.
func (w *world) raw(snap string) map[int][]byte {
	w.t.Helper()
	ctx := context.Background()
	vols, err := w.db.Volumes(ctx, snap)
	must(w.t, err)
	out := map[int][]byte{}
	var all bytes.Buffer
	for i, v := range vols {
		if v.N != i+1 {
			w.t.Fatalf("%s: volume %d stands at %d", snap, v.N, i+1)
		}
		v, err := w.db.Volume(ctx, snap, v.N)
		must(w.t, err)
		data := w.archive(v.Archive, v.Size)
		must(w.t, volume.Frames(ctx, &v, bytes.NewReader(data), w.dec, w.comp, w.enc.Geometry(), 0, len(v.Frames),
			func(_ int, _ int64, raw []byte, err error) error {
				out[v.N] = append(out[v.N], raw...)
				return err
			}))
		all.Write(out[v.N])
	}
	if s, err := w.db.Snapshot(ctx, snap); all.Len() > 0 && err == nil && !s.Header.IsStream() {
		rd := tar.NewReader(&all)
		for {
			if _, err := rd.Next(); err == io.EOF {
				break
			} else if err != nil {
				w.t.Fatalf("%s: the volumes together are no tar: %v", snap, err)
			}
		}
	}
	return out
}

func (w *world) archive(id string, size int64) []byte {
	w.t.Helper()
	ctx := context.Background()
	ret, err := w.vault.RequestRetrieval(ctx, id, coldstore.Range{}, coldstore.RetrievalOptions{})
	must(w.t, err)
	rc, err := w.vault.OpenRetrieved(ctx, ret, 0, size)
	must(w.t, err)
	defer rc.Close()
	data, err := io.ReadAll(rc)
	must(w.t, err)
	return data
}

func (w *world) sameAsDisk(got stored, raws map[uint64]map[int][]byte) {
	w.t.Helper()
	seen := 0
	must(w.t, filepath.WalkDir(w.tree, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		seen++
		e, ok := got[strings.TrimPrefix(p, "/")]
		if !ok {
			w.t.Errorf("%s is not in the snapshot", p)
			return nil
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		if e.MTime != snapshot.TimeOf(info.ModTime()) || os.FileMode(e.Mode&0o777) != info.Mode().Perm() {
			w.t.Errorf("%s: metadata differs", p)
		}
		switch {
		case d.Type().IsRegular():
			data, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			if have := content(e.Content, raws); !bytes.Equal(have, data) {
				w.t.Errorf("%s: content differs: %d bytes stored, %d on disk", p, len(have), len(data))
			} else if len(data) > 0 && sha256.Sum256(data) != e.Content.SHA256 {
				w.t.Errorf("%s: SHA-256 differs", p)
			}
		case d.Type()&fs.ModeSymlink != 0:
			if target, _ := os.Readlink(p); target != e.Link {
				w.t.Errorf("%s: link to %q, stored %q", p, target, e.Link)
			}
		}
		return nil
	}))
	if seen != len(got) {
		w.t.Errorf("%d entries stored, %d on disk", len(got), seen)
	}
}

func content(c snapshot.Content, raws map[uint64]map[int][]byte) []byte {
	var out []byte
	vol, off := c.Volume, c.Offset
	for left := c.Stored; left > 0; vol, off = vol+1, 0 {
		raw, ok := raws[c.N][vol]
		if !ok || off > int64(len(raw)) {
			return out
		}
		n := min(left, int64(len(raw))-off)
		out = append(out, raw[off:off+n]...)
		left -= n
	}
	return out
}

// sameAsManifests rebuilds the tree from the manifests in the vault alone.
func (w *world) sameAsManifests(snap catalog.Snapshot, got stored) {
	w.t.Helper()
	have := stored{}
	var base manifest.Hash
	for _, s := range w.chain(snap) {
		h := w.manifest(s, have)
		if s.Kind == snapshot.Incremental && h.BaseHash != base {
			w.t.Errorf("%s: base's manifest hash differs", s.ID)
		}
		base = s.ManifestHash
	}
	if len(have) != len(got) {
		w.t.Errorf("manifests have %d entries, catalog %d", len(have), len(got))
	}
	for p, e := range got {
		e.CTime, e.Dev, e.Ino = snapshot.Time{}, 0, 0
		if m, ok := have[p]; !ok || fmt.Sprintf("%+v", m) != fmt.Sprintf("%+v", e) {
			w.t.Errorf("%s:\nmanifest %+v\ncatalog  %+v", p, m, e)
		}
	}
}

func (w *world) manifest(s catalog.Snapshot, into stored) manifest.Header {
	w.t.Helper()
	plain, err := w.dec.Decrypt(bytes.NewReader(w.archive(s.ManifestPart.Archive, s.ManifestPart.Size)))
	must(w.t, err)
	lines, err := compress.NewReader(w.comp.Name(), plain)
	must(w.t, err)
	defer lines.Close()
	r, err := manifest.NewReader(lines)
	must(w.t, err)
	for {
		rec, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		must(w.t, err)
		switch {
		case rec.Entry != nil:
			into[rec.Entry.Path] = *rec.Entry
		case rec.Deleted != nil:
			if _, ok := into[*rec.Deleted]; !ok {
				w.t.Errorf("%s deletes %q, which its base does not have", s.ID, *rec.Deleted)
			}
			delete(into, *rec.Deleted)
		}
	}
	if !r.Signer().Equal(w.key.Public()) {
		w.t.Errorf("%s: signed by another", s.ID)
	}
	if r.Hash() != s.ManifestHash {
		w.t.Errorf("%s: manifest hash differs", s.ID)
	}
	return r.Header()
}

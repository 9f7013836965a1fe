package mirror_test

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"filippo.io/age"

	"github.com/firn-backup/firn/internal/catalog"
	"github.com/firn-backup/firn/internal/catalog/sqlite"
	"github.com/firn-backup/firn/internal/codec"
	"github.com/firn-backup/firn/internal/codec/compress"
	"github.com/firn-backup/firn/internal/codec/encrypt"
	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/internal/coldstore/faultstore"
	"github.com/firn-backup/firn/internal/coldstore/localdir"
	"github.com/firn-backup/firn/internal/failure"
	"github.com/firn-backup/firn/internal/items"
	"github.com/firn-backup/firn/internal/itemstore"
	"github.com/firn-backup/firn/internal/mirror"
	"github.com/firn-backup/firn/internal/retrieval"
	"github.com/firn-backup/firn/internal/snapshot"
	"github.com/firn-backup/firn/internal/source/tree"
	"github.com/firn-backup/firn/internal/transfer"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// world is a machine with a directory, a catalog and a vault.
type world struct {
	t     *testing.T
	base  string
	dir   string
	db    *catalog.DB
	vault *localdir.Store
	enc   codec.Encryptor
	dec   codec.Decryptor
	key   ed25519.PrivateKey
	set   catalog.Set
	clock time.Time
	read  atomic.Int64 // bytes read to be compared
}

// newWorld makes one in memory: these tests sync thousands of times.
func newWorld(t *testing.T, encrypted bool) *world {
	t.Helper()
	base, err := os.MkdirTemp("/dev/shm", "firn-test-")
	if err != nil {
		base = t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(base) })
	w := &world{t: t, base: base, dir: filepath.Join(base, "dir"), clock: time.Date(2026, 11, 22, 2, 0, 0, 0, time.UTC)}
	must(t, os.MkdirAll(filepath.Join(w.dir, "bands"), 0o755))
	w.openCatalog()
	w.vault, err = localdir.Create(filepath.Join(base, "vault"), localdir.Options{Now: w.now})
	must(t, err)
	w.enc, err = encrypt.NewEncryptor("none", encrypt.EncryptOptions{})
	must(t, err)
	w.dec, err = encrypt.NewDecryptor("none", encrypt.Keys{})
	must(t, err)
	if encrypted {
		id, err := age.GenerateX25519Identity()
		must(t, err)
		w.enc, err = encrypt.NewEncryptor("age", encrypt.EncryptOptions{Recipients: []string{id.Recipient().String()}})
		must(t, err)
		w.dec, err = encrypt.NewDecryptor("age", encrypt.Keys{Age: []age.Identity{id}})
		must(t, err)
	}
	_, w.key, err = ed25519.GenerateKey(rand.Reader)
	must(t, err)
	id, err := snapshot.NewID(w.clock, rand.Reader)
	must(t, err)
	w.set = catalog.Set{ID: id, Name: "m", Label: "m", Host: "here", Kind: "mirror", Vault: "dir:v", Root: w.dir, Created: w.clock}
	must(t, w.db.PutSet(context.Background(), w.set))
	return w
}

func (w *world) openCatalog() {
	var err error
	w.db, err = sqlite.Open(context.Background(), filepath.Join(w.base, "catalog.db"), sqlite.Options{})
	must(w.t, err)
	db := w.db
	w.t.Cleanup(func() { db.Close() })
}

func (w *world) now() time.Time { return w.clock }

// later is a clock by which all times of files are long past.
func later() time.Time { return time.Now().Add(time.Hour) }

func (w *world) write(name, content string) {
	w.t.Helper()
	must(w.t, os.WriteFile(filepath.Join(w.dir, name), []byte(content), 0o644))
}

func (w *world) options(store coldstore.Store) mirror.Options {
	none, err := compress.New("none")
	must(w.t, err)
	zstd, err := compress.New("zstd:1")
	must(w.t, err)
	tr, err := tree.New(tree.Options{Paths: []string{w.dir}})
	must(w.t, err)
	w.t.Cleanup(func() { tr.Close() })
	return mirror.Options{
		Items: itemstore.Options{
			Catalog: w.db, Store: store, Vault: "dir:v", Set: w.set, Host: "here", Path: w.dir, Compress: none, Encrypt: w.enc, Index: zstd,
			Signer: func() (ed25519.PrivateKey, error) { return w.key, nil }, Now: w.now, Wall: later, Rand: rand.Reader,
			Transfer: transfer.Options{Sleep: func(context.Context, time.Duration) error { return nil }},
		},
		Tree: tr, Dir: w.dir, Commit: true, Delete: true, Observe: counter{&w.read},
	}
}

type counter struct{ n *atomic.Int64 }

func (counter) Looking(int64)            {}
func (c counter) Read(n int64)           { c.n.Add(n) }
func (counter) Sending(int64)            {}
func (counter) Stored(mirror.Change)     {}
func (counter) Deleted(mirror.Change)    {}
func (counter) Problem(snapshot.Problem) {}

func (w *world) run(store coldstore.Store, change ...func(*mirror.Options)) (mirror.Result, error) {
	o := w.options(store)
	for _, c := range change {
		c(&o)
	}
	return mirror.Run(context.Background(), o)
}

// check proves that the vault holds every file once, and nothing else, and that all comes back.
func (w *world) check() {
	w.t.Helper()
	ctx := context.Background()
	there := map[string]bool{}
	_, err := w.vault.List(ctx, func(a coldstore.Archive) error { there[a.ID] = true; return nil })
	must(w.t, err)
	for id := range there {
		by, err := w.db.NeededBy(ctx, "dir:v", id)
		must(w.t, err)
		if by == "" {
			w.t.Errorf("orphan: %s", id)
		}
	}
	seen := map[string]bool{}
	must(w.t, w.db.Items(ctx, w.set.ID, catalog.ItemQuery{}, func(i catalog.Item) error {
		if i.Archive.Archive != "" && !there[i.Archive.Archive] || seen[i.Archive.Archive] {
			w.t.Errorf("%s: archive %q is missing, or another's", i.Path, i.Archive.Archive)
		}
		seen[i.Archive.Archive] = true
		return nil
	}))
	w.compare(filepath.Join(w.base, fmt.Sprint("back", len(w.t.Name()), time.Now().UnixNano())))
}

// compare restores everything and compares it.
func (w *world) compare(to string) {
	w.t.Helper()
	res, err := items.Restore(context.Background(), items.RestoreOptions{
		Catalog: w.db, Set: w.set, To: to, Now: w.now,
		Open: func(context.Context, string) (coldstore.Store, error) { return w.vault, nil },
		Codecs: retrieval.Codecs{
			Decryptor: func(name string) (codec.Decryptor, codec.Geometry, error) {
				g, err := encrypt.Geometry(name)
				return w.dec, g, err
			},
			Compressor: compress.ByName, Decompress: compress.NewReader,
		},
	})
	must(w.t, err)
	n := int64(0)
	must(w.t, filepath.WalkDir(w.dir, func(p string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		n++
		rel, _ := filepath.Rel(w.dir, p)
		a, err := os.ReadFile(p)
		must(w.t, err)
		b, err := os.ReadFile(filepath.Join(to, rel))
		must(w.t, err)
		if string(a) != string(b) {
			w.t.Errorf("%s came back other than it was", rel)
		}
		return nil
	}))
	if res.Files != n {
		w.t.Errorf("%d files restored, and there are %d", res.Files, n)
	}
}

// Every call of the vault fails once, before and after it took effect, and so does the process itself; the next run
// leaves every file stored once and nothing else.
func TestFaults(t *testing.T) {
	t.Parallel()
	for _, encrypted := range []bool{false, true} {
		for _, mode := range []faultstore.Mode{faultstore.LostBefore, faultstore.LostAfter, faultstore.DeadFrom, faultstore.DeadAfter} {
			if !encrypted && mode != faultstore.DeadAfter {
				continue // the same calls, without the index
			}
			t.Run(fmt.Sprint(encrypted, mode), func(t *testing.T) {
				t.Parallel()
				for call := 0; ; call++ {
					w := newWorld(t, encrypted)
					for k := range 3 {
						w.write(fmt.Sprint("bands/", k), fmt.Sprint("band ", k))
					}
					w.write("token", "")
					_, err := w.run(w.vault)
					must(t, err)
					w.write("bands/0", "changed")
					w.write("bands/3", "new")
					must(t, os.Remove(filepath.Join(w.dir, "bands/2")))
					f := faultstore.New(faultstore.Fault{Mode: mode, Call: call})
					_, err = w.run(f.Wrap(w.vault), func(o *mirror.Options) { o.Items.Parallel = 1 })
					hit := f.Hit()
					if err != nil && !hit {
						t.Fatal(err)
					}
					_, err = w.run(w.vault)
					must(t, err)
					w.check()
					if !hit {
						break
					}
					if call > 200 {
						t.Fatal("no end")
					}
				}
			})
		}
	}
}

// Nothing is deleted before what takes its place is stored and told of.
func TestUploadsFirst(t *testing.T) {
	t.Parallel()
	w := newWorld(t, true)
	w.write("bands/0", "one")
	_, err := w.run(w.vault)
	must(t, err)
	w.write("bands/0", "other")
	f := faultstore.New(faultstore.Fault{Mode: faultstore.DeadFrom, Method: "CompleteUpload", Call: 1}) // the index
	_, err = w.run(f.Wrap(w.vault))
	if err == nil || f.Count("Delete") != 0 {
		t.Errorf("error %v, %d deletions", err, f.Count("Delete"))
	}
	_, err = w.run(w.vault)
	must(t, err)
	w.check()
}

func TestScale(t *testing.T) {
	t.Parallel()
	n := 2000
	if os.Getenv("FIRN_SOAK") != "" {
		n = 20_000
	}
	w := newWorld(t, false)
	size := 2 << 10
	if n == 20_000 {
		size = 128 << 10
	}
	band := make([]byte, size)
	for k := range n {
		copy(band, fmt.Sprint(k))
		must(t, os.WriteFile(filepath.Join(w.dir, "bands", fmt.Sprintf("%x", k)), band[:size], 0o644))
	}
	f := faultstore.New(faultstore.Fault{})
	res, err := w.run(f.Wrap(w.vault))
	must(t, err)
	if res.Stored != int64(n) || f.Count("CompleteUpload") != n {
		t.Fatalf("%d stored by %d uploads", res.Stored, f.Count("CompleteUpload"))
	}
	// By metadata no band is read.
	w.read.Store(0)
	begun := time.Now()
	res, err = w.run(w.vault)
	must(t, err)
	t.Logf("%d bands without a change: %v", n, time.Since(begun))
	if w.read.Load() != 0 || res.Read != 0 || res.Unchanged != int64(n) || len(res.Upload)+len(res.Delete) != 0 {
		t.Errorf("%d bytes read, %+v", w.read.Load(), res)
	}
	// A hundred changed bands are a hundred uploads.
	for k := range 100 {
		w.write(fmt.Sprintf("bands/%x", k*7), "changed")
	}
	f = faultstore.New(faultstore.Fault{})
	res, err = w.run(f.Wrap(w.vault))
	must(t, err)
	if res.Stored != 100 || f.Count("CreateUpload") != 100 || f.Count("CompleteUpload") != 100 || res.Deleted != 100 {
		t.Errorf("%d stored, %d begun, %d completed, %d deleted", res.Stored, f.Count("CreateUpload"), f.Count("CompleteUpload"), res.Deleted)
	}
	// All are read with checksum, and nothing is sent.
	w.read.Store(0)
	f = faultstore.New(faultstore.Fault{})
	res, err = w.run(f.Wrap(w.vault), func(o *mirror.Options) { o.Checksum = true })
	must(t, err)
	if res.Read != int64(n) || f.Count("CreateUpload") != 0 {
		t.Errorf("%d read, %d uploads", res.Read, f.Count("CreateUpload"))
	}
}

// A lost catalog costs nothing without encryption: what the vault tells is enough.
func TestLostCatalog(t *testing.T) {
	t.Parallel()
	w := newWorld(t, false)
	for k := range 5 {
		w.write(fmt.Sprint("bands/", k), fmt.Sprint("band ", k))
	}
	_, err := w.run(w.vault)
	must(t, err)
	must(t, w.db.Close())
	must(t, os.Remove(filepath.Join(w.base, "catalog.db")))
	w.openCatalog()
	old := w.set.ID
	w.set.ID, err = snapshot.NewID(w.clock, rand.Reader)
	must(t, err)
	must(t, w.db.PutSet(context.Background(), w.set))
	f := faultstore.New(faultstore.Fault{})
	res, err := w.run(f.Wrap(w.vault))
	must(t, err)
	if res.Known != 5 || f.Count("CreateUpload")+f.Count("Delete") != 0 || old == w.set.ID {
		t.Errorf("%+v", res)
	}
	w.check()
	// Another set does not take what is this one's.
	other := newWorld(t, false)
	other.set.Name = "n"
	must(t, other.db.PutSet(context.Background(), other.set))
	other.write("bands/0", "band 0")
	other.vault = w.vault
	res, err = other.run(w.vault)
	must(t, err)
	if res.Known != 0 || res.Stored != 1 {
		t.Errorf("%+v", res)
	}
}

// What is not believed to be gone.
func TestWithheld(t *testing.T) {
	t.Parallel()
	make := func(t *testing.T) *world {
		w := newWorld(t, false)
		must(t, os.Mkdir(filepath.Join(w.dir, "sub"), 0o755))
		for k := range 12 {
			w.write(fmt.Sprint("bands/", k), fmt.Sprint("band ", k))
		}
		for k := range 20 {
			w.write(fmt.Sprint("sub/", k), fmt.Sprint("sub ", k))
		}
		_, err := w.run(w.vault)
		must(t, err)
		return w
	}
	remove := func(w *world, names ...string) {
		for _, n := range names {
			must(w.t, os.RemoveAll(filepath.Join(w.dir, n)))
		}
	}
	t.Run("directory", func(t *testing.T) {
		w := make(t)
		remove(w, "bands", "sub/1")
		res, err := w.run(w.vault)
		if failure.KindOf(err) != failure.Partial || len(res.Withheld) != 1 || res.Withheld[0].Dir != "bands" || res.Deleted != 1 {
			t.Errorf("%v, %+v", err, res)
		}
		res, err = w.run(w.vault, func(o *mirror.Options) { o.AllowShrunk = true })
		if err != nil || res.Deleted != 12 {
			t.Errorf("%v, %+v", err, res)
		}
	})
	t.Run("everything", func(t *testing.T) {
		w := make(t)
		remove(w, "bands", "sub")
		if _, err := w.run(w.vault); !errors.Is(err, mirror.ErrEmptied) {
			t.Error(err)
		}
		remove(w, "")
		if _, err := w.run(w.vault); err == nil {
			t.Error("the directory is not there")
		}
	})
	t.Run("few", func(t *testing.T) {
		w := make(t)
		remove(w, "sub/1", "sub/2", "bands/3")
		res, err := w.run(w.vault)
		if err != nil || res.Deleted != 3 {
			t.Errorf("%v, %+v", err, res)
		}
		w.check()
	})
	t.Run("unreadable", func(t *testing.T) {
		if os.Geteuid() == 0 {
			t.Skip("root reads everything")
		}
		w := make(t)
		must(t, os.Chmod(filepath.Join(w.dir, "sub"), 0))
		defer os.Chmod(filepath.Join(w.dir, "sub"), 0o755)
		res, err := w.run(w.vault)
		if failure.KindOf(err) != failure.Partial || res.Deleted != 0 {
			t.Errorf("%v, %+v", err, res)
		}
	})
}

// Archives that are too young are kept until they are old enough.
func TestMinimumAge(t *testing.T) {
	t.Parallel()
	w := newWorld(t, false)
	w.write("bands/0", "one")
	w.write("bands/1", "one more")
	old := young{w.vault}
	_, err := w.run(old)
	must(t, err)
	w.write("bands/0", "other")
	res, err := w.run(old)
	must(t, err)
	if res.Stored != 1 || res.Deleted != 0 || len(res.Delete) != 1 || res.Delete[0].Due.IsZero() {
		t.Errorf("%+v", res)
	}
	w.clock = w.clock.AddDate(0, 0, 89)
	if res, err = w.run(old); err != nil || res.Deleted != 0 {
		t.Errorf("%v, %+v", err, res)
	}
	w.clock = w.clock.AddDate(0, 0, 1)
	if res, err = w.run(old); err != nil || res.Deleted != 1 {
		t.Errorf("%v, %+v", err, res)
	}
	w.check()
}

// young is a vault with a minimum storage duration.
type young struct{ coldstore.Store }

func (y young) Traits() coldstore.Traits {
	t := y.Store.Traits()
	t.MinDays = 90
	return t
}

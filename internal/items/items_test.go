package items_test

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/firn-backup/firn/internal/catalog"
	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/internal/coldstore/faultstore"
	"github.com/firn-backup/firn/internal/failure"
	"github.com/firn-backup/firn/internal/items"
	"github.com/firn-backup/firn/internal/items/itemstest"
	"github.com/firn-backup/firn/internal/itemstore"
	"github.com/firn-backup/firn/internal/source/tree"
)

func run(w *itemstest.World, store coldstore.Store, change ...func(*items.Options)) (items.Result, error) {
	o := items.Options{Items: w.Options(store), Path: w.Dir, Files: true, Dirs: true, Replace: true, Skip: func(string) bool { return false },
		Tree: func(full string) (items.Tree, error) { return tree.New(tree.Options{Paths: []string{full}}) }}
	for _, c := range change {
		c(&o)
	}
	return items.Run(context.Background(), o)
}

// Every call of the vault fails once, before and after it took effect, and so does the process itself; the next run
// leaves every item stored once and nothing else.
func TestFaults(t *testing.T) {
	t.Parallel()
	for _, encrypted := range []bool{false, true} {
		for _, mode := range []faultstore.Mode{faultstore.LostBefore, faultstore.LostAfter, faultstore.DeadFrom, faultstore.DeadAfter} {
			t.Run(fmt.Sprint(encrypted, mode), func(t *testing.T) {
				t.Parallel()
				for call := 0; ; call++ {
					w := itemstest.New(t, "items", encrypted)
					w.Write("file", "one")
					w.Write("dir/a", "a")
					w.Write("dir/b/c", "c")
					w.Write("same/x", "x")
					w.Write("empty", "")
					_, err := run(w, w.Vault)
					itemstest.Must(t, err)
					w.Write("file", "other")
					w.Write("dir/b/c", "changed")
					w.Write("new", "new")
					f := faultstore.New(faultstore.Fault{Mode: mode, Call: call})
					_, err = run(w, f.Wrap(w.Vault), func(o *items.Options) { o.Items.Parallel = 1 })
					hit := f.Hit()
					if err != nil && !hit {
						t.Fatal(err)
					}
					_, err = run(w, w.Vault)
					itemstest.Must(t, err)
					w.Check()
					if !hit {
						break
					}
					if call > 300 {
						t.Fatal("no end")
					}
				}
			})
		}
	}
}

// A dry run says what would be done and changes nothing, neither in the vault nor in the catalog; nor does it need either.
func TestDryRun(t *testing.T) {
	t.Parallel()
	for _, encrypted := range []bool{false, true} {
		w := itemstest.New(t, "items", encrypted)
		for k := range 3 {
			w.Write(fmt.Sprint(k), fmt.Sprint("file ", k))
		}
		w.Write("dir/a", "a")
		dry := func(o *items.Options) { o.DryRun = true }
		res, err := run(w, nil, dry, func(o *items.Options) { o.Items.Catalog, o.Items.Store = nil, nil })
		if err != nil || len(res.Upload) != 4 {
			t.Fatalf("%v, %+v", err, res)
		}
		_, err = run(w, w.Vault)
		itemstest.Must(t, err)
		w.Write("0", "other")
		past := time.Now().Add(-time.Hour)
		itemstest.Must(t, os.Chtimes(filepath.Join(w.Dir, "1"), past, past))
		itemstest.Must(t, os.Chtimes(filepath.Join(w.Dir, "dir/a"), past, past))
		was := rows(t, w)
		f := faultstore.New(faultstore.Fault{})
		res, err = run(w, f.Wrap(w.Vault), dry)
		if err != nil || len(res.Upload) != 1 || res.Unchanged != 3 || f.Count("CreateUpload")+f.Count("Delete") != 0 {
			t.Errorf("%v, %+v", err, res)
		}
		if is := rows(t, w); !slices.Equal(was, is) {
			t.Errorf("the catalog was\n%s\nand is\n%s", strings.Join(was, "\n"), strings.Join(is, "\n"))
		}
		if encrypted {
			continue
		}
		// What the vault tells of a lost catalog's items counts in a dry run, too. Of a directory nothing but its tar is known then.
		w.LoseCatalog()
		if res, err = run(w, w.Vault, dry); err != nil || res.Known != 4 || len(res.Upload) != 2 || len(rows(t, w)) != 0 {
			t.Errorf("%v, %+v", err, res)
		}
		if res, err = run(w, w.Vault); err != nil || res.Known != 4 || res.Stored != 2 || res.Deleted != 2 {
			t.Errorf("%v, %+v", err, res)
		}
		w.Check()
	}
}

// rows is all that the catalog knows of the items.
func rows(t *testing.T, w *itemstest.World) (list []string) {
	itemstest.Must(t, w.DB.Items(context.Background(), w.Set.ID, catalog.ItemQuery{All: true}, func(i catalog.Item) error {
		list = append(list, fmt.Sprintf("%+v", i))
		return nil
	}))
	return list
}

// Each run's state comes back, as long as nothing is deleted.
func TestAsItWas(t *testing.T) {
	t.Parallel()
	w := itemstest.New(t, "items", true)
	w.Write("a", "1")
	w.Write("d/x", "1")
	keep := func(o *items.Options) { o.Replace = false }
	_, err := run(w, w.Vault, keep)
	itemstest.Must(t, err)
	w.Clock = w.Clock.Add(time.Hour)
	w.Write("a", "22")
	w.Write("d/y", "2")
	_, err = run(w, w.Vault, keep)
	itemstest.Must(t, err)
	w.Compare(2)
	w.Write("a", "1")
	w.Remove("d/y")
	w.Compare(1)
}

// The clock may go back between runs: nothing is lost, and nothing is stored twice.
func TestClockGoesBack(t *testing.T) {
	t.Parallel()
	w := itemstest.New(t, "items", true)
	w.Write("a", "1")
	_, err := run(w, w.Vault)
	itemstest.Must(t, err)
	w.Clock = w.Clock.AddDate(-1, 0, 0)
	res, err := run(w, w.Vault)
	if err != nil || res.Stored != 0 {
		t.Fatalf("%v, %+v", err, res)
	}
	w.Write("a", "other")
	interval := func(o *items.Options) { o.MinInterval = 24 * time.Hour }
	if res, err = run(w, w.Vault, interval); err != nil || res.TooEarly != 1 || res.Stored != 0 {
		t.Fatalf("%v, %+v", err, res)
	}
	if res, err = run(w, w.Vault); err != nil || res.Stored != 1 {
		t.Fatalf("%v, %+v", err, res)
	}
	w.Clock = w.Clock.AddDate(2, 0, 0)
	if _, err = run(w, w.Vault); err != nil {
		t.Fatal(err)
	}
	w.Check()
}

// Names that are hard to write are stored and come back. What is no file and no directory is told of and left out.
func TestHostileNames(t *testing.T) {
	t.Parallel()
	for _, encrypted := range []bool{false, true} {
		w := itemstest.New(t, "items", encrypted)
		for _, name := range []string{" ", "-rf", "a\nb", "\xff\xfe", "..a", "$(x)", strings.Repeat("n", 255), "é", "é", "%2f", "a\\b", "~", "*"} {
			w.Write(name, "content of "+name)
			w.Write("d"+name[:min(len(name), 200)]+"/"+name, "in "+name)
		}
		_, err := run(w, w.Vault)
		itemstest.Must(t, err)
		w.Check()
		if res, err := run(w, w.Vault); err != nil || res.Stored != 0 {
			t.Errorf("%v, %+v", err, res)
		}
	}
}

// A path that is not there is an error, and nothing is deleted for it.
func TestMissing(t *testing.T) {
	t.Parallel()
	w := itemstest.New(t, "items", false)
	w.Write("a", "1")
	_, err := run(w, w.Vault)
	itemstest.Must(t, err)
	itemstest.Must(t, os.Rename(w.Dir, w.Dir+"2"))
	if _, err := run(w, w.Vault); err == nil || failure.KindOf(err) == failure.Partial {
		t.Error(err)
	}
	itemstest.Must(t, os.Mkdir(w.Dir, 0o755))
	if res, err := run(w, w.Vault); err != nil || res.Deleted != 0 {
		t.Errorf("%v, %+v", err, res)
	}
	itemstest.Must(t, os.Remove(w.Dir))
	itemstest.Must(t, os.Rename(w.Dir+"2", w.Dir))
	w.Check()
}

// terse is a vault whose listings tell no descriptions.
type terse struct{ coldstore.Store }

func (s terse) Traits() coldstore.Traits {
	t := s.Store.Traits()
	t.Terse = true
	return t
}

func (s terse) List(ctx context.Context, fn func(coldstore.Archive) error) (time.Time, error) {
	return s.Store.List(ctx, func(a coldstore.Archive) error {
		return fn(coldstore.Archive{ID: a.ID, Size: a.Size, Created: a.Created})
	})
}

// Where listings tell no descriptions an index tells of everything, of what was stored without one too; the lost catalog comes back from it.
func TestTerse(t *testing.T) {
	t.Parallel()
	for _, encrypted := range []bool{false, true} {
		w := itemstest.New(t, "items", encrypted)
		w.Write("a", "1")
		w.Write("dir/b", "2")
		_, err := run(w, w.Vault)
		itemstest.Must(t, err)
		for k := range 3 { // nothing changes, one thing does, nothing does
			if k == 1 {
				w.Write("c", "3")
			}
			_, err = run(w, terse{w.Vault})
			itemstest.Must(t, err)
			w.Check()
		}
		old := w.Set
		w.LoseCatalog()
		res, err := items.Recover(context.Background(), items.RecoverOptions{Catalog: w.DB, Store: terse{w.Vault}, Vault: itemstest.VaultURL, Codecs: w.Codecs(),
			Signers: []ed25519.PublicKey{w.Key.Public().(ed25519.PublicKey)}, Now: w.Now, Rand: rand.Reader})
		if err != nil || res.Sets != 1 || res.Items != 3 {
			t.Fatalf("%v, %+v", err, res)
		}
		w.Set = old
		w.Check()
		if res, err := run(w, terse{w.Vault}); err != nil || res.Stored != 0 {
			t.Errorf("%v, %+v", err, res)
		}
	}
}

// An archive, or an index, that is known to be gone is stored again.
func TestLost(t *testing.T) {
	t.Parallel()
	for _, encrypted := range []bool{false, true} {
		w := itemstest.New(t, "items", encrypted)
		w.Write("a", "1")
		w.Write("dir/b", "2")
		once := func(o *items.Options) { o.Once = true }
		_, err := run(w, w.Vault, once)
		itemstest.Must(t, err)
		ctx := context.Background()
		var all []string
		_, err = w.Vault.List(ctx, func(a coldstore.Archive) error { all = append(all, a.ID); return nil })
		itemstest.Must(t, err)
		for _, id := range all {
			itemstest.Must(t, w.Vault.Delete(ctx, id))
		}
		if _, err := run(w, w.Vault, once); !errors.Is(err, itemstore.ErrLost) || failure.KindOf(err) != failure.Damaged {
			t.Errorf("%v", err)
		}
		itemstest.Must(t, w.DB.ArchivesDeleted(ctx, itemstest.VaultURL, all, w.Clock))
		if res, err := run(w, w.Vault, once); err != nil || res.Stored != 2 || res.Upload[0].Why != "lost" {
			t.Errorf("%v, %+v", err, res)
		}
		w.Check()
	}
}

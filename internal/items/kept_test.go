package items_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/internal/failure"
	"github.com/firn-backup/firn/internal/items"
	"github.com/firn-backup/firn/internal/items/itemstest"
	"github.com/firn-backup/firn/internal/source/tree"
)

// What replaces an archive may be less than it was: of a disk that fails, or is not mounted. Then the only archive that has it all stays.
func TestFullerArchiveStays(t *testing.T) {
	t.Parallel()
	lock := func(o *items.Options) {
		o.Tree = func(full string) (items.Tree, error) {
			t, err := tree.New(tree.Options{Paths: []string{full}})
			return locked{t}, err
		}
	}
	plain := func(*items.Options) {}
	allow := func(o *items.Options) { o.AllowShrunk = true }
	for _, c := range []struct {
		name         string
		lose, giveIn func(w *itemstest.World)
		how          func(*items.Options)
		bad          bool // it is a problem, too
		meant        int  // archives that are left where it is said to be meant
	}{
		{"unreadable", func(w *itemstest.World) { w.Write("dir/00", "changed") }, func(w *itemstest.World) {}, lock, true, 2},
		{"emptied", func(w *itemstest.World) { empty(w, 0) }, func(w *itemstest.World) { fill(w) }, plain, false, 1},
		{"most is gone", func(w *itemstest.World) { empty(w, 5) }, func(w *itemstest.World) { fill(w) }, plain, false, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			for _, meant := range []bool{false, true} {
				w := itemstest.New(t, "items", false)
				fill(w)
				_, err := run(w, w.Vault)
				itemstest.Must(t, err)
				c.lose(w)
				for k := range 2 { // told of by each run
					res, err := run(w, w.Vault, c.how)
					if c.bad != (failure.KindOf(err) == failure.Partial) || !c.bad && err != nil || res.Worse != 1 || res.Deleted != 0 || res.Stored != int64(1-k) {
						t.Fatalf("%d: %v, %+v", k, err, res)
					}
				}
				want := 1
				if meant {
					res, _ := run(w, w.Vault, c.how, allow)
					if want = c.meant; int(res.Deleted) != 2-want {
						t.Fatalf("%+v", res)
					}
				} else {
					c.giveIn(w)
					res, err := run(w, w.Vault)
					if err != nil || res.Stored != 1 || res.Deleted != 2 || res.Worse != 0 {
						t.Fatalf("%v, %+v", err, res)
					}
				}
				if n := archives(w); n != want {
					t.Fatalf("%d archives, want %d", n, want)
				}
			}
		})
	}
}

func fill(w *itemstest.World) {
	for k := range 12 {
		w.Write(fmt.Sprintf("dir/%02d", k), fmt.Sprint(k))
	}
	w.Write("dir/secret", "s")
}

// empty leaves n files.
func empty(w *itemstest.World, n int) {
	w.T.Helper()
	list, err := os.ReadDir(filepath.Join(w.Dir, "dir"))
	itemstest.Must(w.T, err)
	for _, e := range list[n:] {
		w.Remove("dir/" + e.Name())
	}
}

// archives counts those in the vault.
func archives(w *itemstest.World) (n int) {
	_, err := w.Vault.List(context.Background(), func(coldstore.Archive) error {
		n++
		return nil
	})
	itemstest.Must(w.T, err)
	return n
}

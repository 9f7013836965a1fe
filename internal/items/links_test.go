package items_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/internal/items"
	"github.com/firn-backup/firn/internal/items/itemstest"
)

// A path of a directory that is a hard link to what is not asked for comes back with its contents, and several of them as links to each other.
func TestPathThatIsAHardLink(t *testing.T) {
	t.Parallel()
	w := itemstest.New(t, "items", true)
	w.Write("dir/a/first", "contents")
	w.Write("dir/b/other", "other")
	for _, name := range []string{"dir/b/second", "dir/c/third"} {
		itemstest.Must(t, os.MkdirAll(filepath.Dir(filepath.Join(w.Dir, name)), 0o755))
		itemstest.Must(t, os.Link(filepath.Join(w.Dir, "dir/a/first"), filepath.Join(w.Dir, name)))
	}
	old := time.Unix(1e9, 0)
	itemstest.Must(t, os.Chtimes(filepath.Join(w.Dir, "dir/b"), old, old))
	_, err := run(w, w.Vault)
	itemstest.Must(t, err)
	for _, paths := range [][]string{{"dir/b"}, {"dir/c/third", "dir/b/second"}, {"dir/a", "dir/c"}, {"dir"}} {
		to := t.TempDir()
		res, err := items.Restore(context.Background(), items.RestoreOptions{
			Catalog: w.DB, Set: w.Set, To: to, Paths: paths, Now: w.Now, Codecs: w.Codecs(),
			Open: func(context.Context, string) (coldstore.Store, error) { return w.Vault, nil },
		})
		if err != nil || res.Bad > 0 {
			t.Errorf("%q: %v, %+v", paths, err, res)
			continue
		}
		var same os.FileInfo
		for _, path := range paths {
			itemstest.Must(t, filepath.WalkDir(filepath.Join(to, path), func(p string, d os.DirEntry, err error) error {
				if err != nil || d.IsDir() || d.Name() == "other" {
					return err
				}
				text, err := os.ReadFile(p)
				if err != nil || string(text) != "contents" {
					t.Errorf("%q: %s: %q, %v", paths, p, text, err)
				}
				is, err := os.Stat(p)
				itemstest.Must(t, err)
				if same != nil && !os.SameFile(same, is) {
					t.Errorf("%q: %s is a file of its own", paths, p)
				}
				same = is
				return nil
			}))
		}
		if same == nil {
			t.Errorf("%q: nothing came back", paths)
		}
		if at, err := os.Stat(filepath.Join(to, "dir/b")); err == nil && !at.ModTime().Equal(old) {
			t.Errorf("%q: dir/b is of %s", paths, at.ModTime())
		}
	}
}

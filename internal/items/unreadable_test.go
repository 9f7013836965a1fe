package items_test

import (
	"io/fs"
	"path/filepath"
	"strings"
	"testing"

	"github.com/firn-backup/firn/internal/items"
	"github.com/firn-backup/firn/internal/items/itemstest"
	"github.com/firn-backup/firn/internal/snapshot"
	"github.com/firn-backup/firn/internal/source"
	"github.com/firn-backup/firn/internal/source/tree"
)

// locked is a tree in which files called secret cannot be opened, which root always can.
type locked struct{ items.Tree }

func (l locked) Open(e *snapshot.Entry) (source.File, error) {
	if filepath.Base(e.Path) == "secret" {
		return nil, &fs.PathError{Op: "open", Path: "/" + e.Path, Err: fs.ErrPermission}
	}
	return l.Tree.Open(e)
}

// A directory in which something stays unreadable is stored once and told of by every run; it is stored again when what is
// readable changes, and when the rest can be read.
func TestUnreadableStays(t *testing.T) {
	t.Parallel()
	w := itemstest.New(t, "items", false)
	w.Write("dir/a", "a")
	w.Write("dir/secret", "s")
	w.Write("dir/z", "z")
	lock := func(o *items.Options) {
		o.Tree = func(full string) (items.Tree, error) {
			t, err := tree.New(tree.Options{Paths: []string{full}})
			return locked{t}, err
		}
	}
	once := func(o *items.Options) { lock(o); o.Once = true }
	for _, step := range []struct {
		what   string
		do     func()
		change func(*items.Options)
		stored int
		bad    int
	}{
		{"first", func() {}, lock, 1, 1},
		{"the same", func() {}, lock, 0, 1},
		{"the same, stored once", func() {}, once, 0, 1},
		{"readable changed", func() { w.Write("dir/z", "zz") }, lock, 1, 1},
		{"the same again", func() {}, lock, 0, 1},
		{"unreadable grew", func() { w.Write("dir/secret", "longer") }, lock, 1, 1},
		{"readable now", func() {}, func(*items.Options) {}, 1, 0},
		{"whole", func() {}, func(*items.Options) {}, 0, 0},
	} {
		step.do()
		res, err := run(w, w.Vault, step.change)
		if int(res.Stored) != step.stored || int(res.Bad) != step.bad || (err == nil) != (step.bad == 0) {
			t.Errorf("%s: %d stored, %d bad, %v; want %d and %d", step.what, res.Stored, res.Bad, err, step.stored, step.bad)
		}
		if err != nil && !strings.Contains(err.Error(), "could not be read") {
			t.Errorf("%s: %v", step.what, err)
		}
	}
	w.Check()
}

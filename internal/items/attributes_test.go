package items_test

import (
	"bytes"
	"errors"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/firn-backup/firn/internal/catalog"
	"github.com/firn-backup/firn/internal/items/itemstest"
	"github.com/firn-backup/firn/internal/itemstore"
	"github.com/firn-backup/firn/internal/source/tree"
)

// Extended attributes are inside, too: one that changes, and nothing else, is a change, of files and of directories.
func TestAttributesAreAChange(t *testing.T) {
	t.Parallel()
	w := itemstest.New(t, "items", false)
	w.Write("d/sub/file", "as ever")
	w.Write("other/file", "as ever")
	stored := func(want int64) {
		t.Helper()
		for _, n := range []int64{want, 0} {
			r, err := run(w, w.Vault)
			itemstest.Must(t, err)
			if r.Stored != n {
				t.Fatalf("%d stored, not %d", r.Stored, n)
			}
		}
	}
	stored(2)
	for _, name := range []string{"d/sub/file", "d/sub", "d"} {
		for _, value := range []string{"1", "2"} {
			err := syscall.Setxattr(filepath.Join(w.Dir, name), "user.firn", []byte(value), 0)
			if errors.Is(err, syscall.ENOTSUP) {
				t.Skip("this file system has no extended attributes")
			}
			itemstest.Must(t, err)
			stored(1)
		}
	}
	itemstest.Must(t, syscall.Removexattr(filepath.Join(w.Dir, "d"), "user.firn"))
	stored(1)
}

// What was stored when attributes were not compared is not stored again for having some, and a change since then is one.
func TestAttributesThatWereNotCompared(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		later time.Duration // how long after the last change it was stored
		want  int64
	}{{30 * 24 * time.Hour, 0}, {-time.Hour, 1}} {
		w := itemstest.New(t, "items", false)
		w.Write("d/sub/file", "as ever")
		for _, name := range []string{"d/sub/file", "d/sub"} {
			err := syscall.Setxattr(filepath.Join(w.Dir, name), "user.firn", []byte("1"), 0)
			if errors.Is(err, syscall.ENOTSUP) {
				t.Skip("this file system has no extended attributes")
			}
			itemstest.Must(t, err)
		}
		_, err := run(w, w.Vault)
		itemstest.Must(t, err)
		old, err := w.DB.CurrentItem(t.Context(), w.Set.ID, "d")
		itemstest.Must(t, err)
		full := filepath.Join(w.Dir, "d")
		measure := func() itemstore.Measure {
			t.Helper()
			tr, err := tree.New(tree.Options{Paths: []string{full}})
			itemstest.Must(t, err)
			defer tr.Close()
			m, err := itemstore.MeasureDir(t.Context(), tr, full, true, func() time.Time { return time.Now().Add(30 * time.Second) })
			itemstest.Must(t, err)
			return m
		}
		m := measure()
		old.State, old.Content, old.Stored = m.OldState, m.OldContent[:], m.DirChange.Add(c.later)
		itemstest.Must(t, w.DB.PutItems(t.Context(), []catalog.Item{old}))
		for _, n := range []int64{c.want, 0} {
			r, err := run(w, w.Vault)
			itemstest.Must(t, err)
			if r.Stored != n {
				t.Fatalf("%v: %d stored, not %d", c.later, r.Stored, n)
			}
		}
		if now, err := w.DB.CurrentItem(t.Context(), w.Set.ID, "d"); err != nil || !bytes.Equal(now.Content, m.Content[:]) {
			t.Fatalf("%v: what it is like now is not written down: %v", c.later, err)
		}
		itemstest.Must(t, syscall.Setxattr(filepath.Join(full, "sub"), "user.firn", []byte("2"), 0))
		r, err := run(w, w.Vault)
		itemstest.Must(t, err)
		if r.Stored != 1 {
			t.Fatalf("%v: a change was not seen", c.later)
		}
	}
}

package items_test

import (
	"errors"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/firn-backup/firn/internal/items/itemstest"
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

package mirror_test

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/firn-backup/firn/internal/failure"
	"github.com/firn-backup/firn/internal/mustrun"
)

// A directory of the same file system that was mounted below the set's and is not any more: its files are not gone, however few they are.
func TestBindMountThatIsGone(t *testing.T) {
	t.Parallel()
	w := newWorld(t, false)
	other := filepath.Join(w.Base, "other")
	mnt := filepath.Join(w.Dir, "mnt")
	must(t, os.MkdirAll(other, 0o755))
	must(t, os.MkdirAll(mnt, 0o755))
	must(t, os.WriteFile(filepath.Join(other, "a"), []byte("a"), 0o644))
	for _, n := range []string{"1", "2", "3", "4"} {
		w.Write(n, n)
	}
	if err := syscall.Mount(other, mnt, "", syscall.MS_BIND, ""); err != nil {
		mustrun.Skip(t, "cannot mount: "+err.Error())
	}
	mounted := true
	unmount := func() {
		if mounted {
			must(t, syscall.Unmount(mnt, 0))
		}
		mounted = false
	}
	t.Cleanup(unmount)
	res, err := w.run(w.Vault)
	must(t, err)
	if res.Stored != 5 {
		t.Fatalf("%+v", res)
	}
	unmount()
	res, err = w.run(w.Vault)
	if failure.KindOf(err) != failure.Partial || len(res.Withheld) != 1 || res.Deleted != 0 {
		t.Fatalf("%v, %+v", err, res)
	}
}

package mirror_test

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/firn-backup/firn/internal/failure"
	"github.com/firn-backup/firn/internal/mirror"
	"github.com/firn-backup/firn/internal/mustrun"
)

// mounter mounts directories, and unmounts at the end what is mounted still.
func mounter(t *testing.T) (mount func(what, where string), unmount func()) {
	t.Helper()
	var mounts []string
	unmount = func() {
		t.Helper()
		n := len(mounts) - 1
		must(t, syscall.Unmount(mounts[n], 0))
		mounts = mounts[:n]
	}
	t.Cleanup(func() {
		for len(mounts) > 0 {
			unmount()
		}
	})
	return func(what, where string) {
		t.Helper()
		must(t, os.MkdirAll(what, 0o755))
		must(t, os.MkdirAll(where, 0o755))
		if err := syscall.Mount(what, where, "", syscall.MS_BIND, ""); err != nil {
			mustrun.Skip(t, "cannot mount: "+err.Error())
		}
		mounts = append(mounts, where)
	}, unmount
}

// withheld runs, and wants one directory of which nothing is deleted.
func (w *world) withheld(dir string, stored int64) {
	w.T.Helper()
	res, err := w.run(w.Vault)
	if failure.KindOf(err) != failure.Partial || len(res.Withheld) != 1 || res.Withheld[0].Dir != dir || res.Deleted != 0 || res.Stored != stored || len(res.Delete) != 0 {
		w.T.Fatalf("%v, %+v", err, res)
	}
}

// Files that something is mounted over are not gone, however few they are; nor when there are others in what is mounted.
func TestMountedOver(t *testing.T) {
	t.Parallel()
	w := newWorld(t, false)
	mount, unmount := mounter(t)
	for _, n := range []string{"1", "2", "3", "4", "5", "6", "7", "8", "d/a", "d/b/c"} {
		w.Write(n, n)
	}
	_, err := w.run(w.Vault)
	must(t, err)
	mount(filepath.Join(w.Base, "other"), filepath.Join(w.Dir, "d"))
	w.withheld("d", 0)
	w.Write("d/new", "new")
	w.withheld("d", 1)
	w.withheld("d", 0)
	// What was met in what is mounted there is gone when it is gone.
	w.Write("d/second", "second")
	w.withheld("d", 1)
	w.Remove("d/new")
	if res, err := w.run(w.Vault); failure.KindOf(err) != failure.Partial || res.Deleted != 1 {
		t.Fatalf("%v, %+v", err, res)
	}
	// Something else is mounted there.
	mount(filepath.Join(w.Base, "third"), filepath.Join(w.Dir, "d"))
	w.withheld("d", 0)
	unmount()
	unmount()
	w.withheld("d", 0)
	if res, err := w.run(w.Vault, func(o *mirror.Options) { o.AllowShrunk = true }); err != nil || res.Deleted != 1 {
		t.Fatalf("%v, %+v", err, res)
	}
	if res, err := w.run(w.Vault); err != nil || res.Unchanged != 10 {
		t.Fatalf("%v, %+v", err, res)
	}
}

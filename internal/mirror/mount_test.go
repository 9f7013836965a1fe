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

// A mount within a mount: the inner one that is gone lies on no directory of the set's own.
func TestMountWithinAMountThatIsGone(t *testing.T) {
	t.Parallel()
	w := newWorld(t, false)
	outer, inner := filepath.Join(w.Base, "outer"), filepath.Join(w.Base, "inner")
	must(t, os.MkdirAll(filepath.Join(outer, "nest"), 0o755))
	must(t, os.MkdirAll(inner, 0o755))
	must(t, os.MkdirAll(filepath.Join(w.Dir, "mnt"), 0o755))
	must(t, os.WriteFile(filepath.Join(outer, "o"), []byte("o"), 0o644))
	must(t, os.WriteFile(filepath.Join(outer, "o2"), []byte("o"), 0o644))
	must(t, os.WriteFile(filepath.Join(inner, "i"), []byte("i"), 0o644))
	for _, n := range []string{"1", "2", "3", "4"} {
		w.Write(n, n)
	}
	var mounts []string
	mount := func(what, where string) {
		t.Helper()
		if err := syscall.Mount(what, where, "", syscall.MS_BIND, ""); err != nil {
			mustrun.Skip(t, "cannot mount: "+err.Error())
		}
		mounts = append(mounts, where)
	}
	unmount := func() {
		if n := len(mounts); n > 0 {
			must(t, syscall.Unmount(mounts[n-1], 0))
			mounts = mounts[:n-1]
		}
	}
	t.Cleanup(func() {
		for len(mounts) > 0 {
			unmount()
		}
	})
	mount(outer, filepath.Join(w.Dir, "mnt"))
	mount(inner, filepath.Join(w.Dir, "mnt/nest"))
	res, err := w.run(w.Vault)
	must(t, err)
	if res.Stored != 7 {
		t.Fatalf("%+v", res)
	}
	for range 2 { // the inner one, then both
		unmount()
		res, err = w.run(w.Vault)
		if failure.KindOf(err) != failure.Partial || len(res.Withheld) == 0 || res.Deleted != 0 {
			t.Fatalf("%v, %+v", err, res)
		}
	}
	// What is deleted of a mount that is there is gone.
	mount(outer, filepath.Join(w.Dir, "mnt"))
	mount(inner, filepath.Join(w.Dir, "mnt/nest"))
	must(t, os.Remove(filepath.Join(outer, "o2")))
	if res, err = w.run(w.Vault); err != nil || res.Deleted != 1 || res.Stored != 0 {
		t.Fatalf("%v, %+v", err, res)
	}
}

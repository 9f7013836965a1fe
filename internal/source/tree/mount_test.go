package tree

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/firn-backup/firn/internal/mustrun"
	"github.com/firn-backup/firn/internal/source/sourcetest"
)

// mount mounts something for the time of the test.
func mount(t *testing.T, source, target, fstype string, flags uintptr) {
	t.Helper()
	mustrun.Root(t)
	if err := unix.Mount(source, target, fstype, flags, ""); err != nil {
		mustrun.Skip(t, "cannot mount: "+err.Error())
	}
	t.Cleanup(func() {
		if err := unix.Unmount(target, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
}

func TestOneFileSystem(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	makeTree(t, dir, "a/x", "bind/", "bound/in", "hidden", "mnt/covered", "mnt2/", "z")
	mount(t, "none", dir+"/mnt", "tmpfs", 0)
	mount(t, dir+"/bound", dir+"/bind", "", unix.MS_BIND)
	mount(t, dir+"/a/x", dir+"/hidden", "", unix.MS_BIND)
	makeTree(t, dir, "mnt/d/e", "mnt/f")
	all := []string{"a", "a/x", "bind", "bind/in", "bound", "bound/in", "hidden", "mnt", "mnt/d", "mnt/d/e", "mnt/f", "mnt2", "z"}
	wantPaths(t, walked(t, dir, Options{Paths: []string{dir}}), all...)

	o := Options{Paths: []string{dir}, OneFileSystem: true}
	one := []string{"a", "a/x", "bind", "bound", "bound/in", "hidden", "mnt", "mnt2", "z"}
	wantPaths(t, walked(t, dir, o), one...)
	// A root of its own on the other file system is walked.
	o.Paths = append(o.Paths, dir+"/mnt/d")
	wantPaths(t, walked(t, dir, o), "a", "a/x", "bind", "bound", "bound/in", "hidden", "mnt", "mnt/d", "mnt/d/e", "mnt2", "z")
	o.Paths = append(o.Paths, dir+"/mnt")
	wantPaths(t, walked(t, dir, o), slices.DeleteFunc(slices.Clone(all), func(p string) bool { return p == "bind/in" })...)

	// A file of another file system over one of this.
	mount(t, dir+"/mnt/f", dir+"/z", "", unix.MS_BIND)
	var warned []string
	o = Options{Paths: []string{dir}, OneFileSystem: true, Warn: func(path, reason string) { warned = append(warned, filepath.Base(path)+": "+reason) }}
	wantPaths(t, walked(t, dir, o), one[:len(one)-1]...)
	if !slices.Equal(warned, []string{"z: it is on another file system"}) {
		t.Errorf("warned of %q", warned)
	}
}

func TestKernelsOwn(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	makeTree(t, dir, "a", "proc/", "z")
	mount(t, "none", dir+"/proc", "proc", 0)
	var warned []string
	o := Options{Paths: []string{dir}, Warn: func(path, reason string) { warned = append(warned, filepath.Base(path)+": "+reason) }}
	wantPaths(t, walked(t, dir, o), "a", "proc", "z")
	if !slices.Equal(warned, []string{"proc: one of the kernel's own file systems is mounted there"}) {
		t.Errorf("warned of %q", warned)
	}
	// Whoever names it gets it.
	items := sourcetest.Walk(t, open(t, Options{Paths: []string{dir + "/proc/sys/vm"}}))
	if len(items) < 10 {
		t.Errorf("%d items", len(items))
	}
}

func TestRequireMount(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	makeTree(t, dir, "mnt/", "plain/", "bind/", "file")
	walk := func(mount string) error {
		return open(t, Options{Paths: []string{dir}, RequireMount: []string{mount}}).Walk(context.Background(), ignore)
	}
	for _, p := range []string{"mnt", "plain", "missing", "file"} {
		if err := walk(filepath.Join(dir, p)); err == nil || !strings.Contains(err.Error(), p) {
			t.Errorf("%s passes for a mount point: %v", p, err)
		}
	}
	mount(t, "none", dir+"/mnt", "tmpfs", 0)
	mount(t, dir+"/plain", dir+"/bind", "", unix.MS_BIND)
	for _, p := range []string{"mnt", "bind"} {
		if err := walk(filepath.Join(dir, p)); err != nil {
			t.Error(err)
		}
	}
	if err := walk("/"); err != nil {
		t.Error(err)
	}
	if err := os.Symlink("mnt", dir+"/link"); err != nil {
		t.Fatal(err)
	}
	if err := walk(dir + "/link"); err != nil {
		t.Error(err)
	}
}

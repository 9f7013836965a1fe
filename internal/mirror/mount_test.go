package mirror_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/firn-backup/firn/internal/catalog"
	"github.com/firn-backup/firn/internal/failure"
	"github.com/firn-backup/firn/internal/mirror"
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

// looking is told how far a run has come.
type looking struct {
	counter
	at func(files int64)
}

func (l looking) Looking(files int64) { l.at(files) }

// Many unchanged files that lie on a mount now: what is noted of them is written down while the run goes on.
func TestManyFilesOnAMountThatIsNew(t *testing.T) {
	t.Parallel()
	const files = 2500
	w := newWorld(t, false)
	for n := range files {
		w.Write(fmt.Sprintf("bands/%04d", n), "")
	}
	_, err := w.run(w.Vault)
	must(t, err)
	bands := filepath.Join(w.Dir, "bands")
	if err := syscall.Mount(bands, bands, "", syscall.MS_BIND, ""); err != nil {
		mustrun.Skip(t, "cannot mount: "+err.Error())
	}
	t.Cleanup(func() { must(t, syscall.Unmount(bands, 0)) })
	noted := func() (n int64) {
		must(t, w.DB.Items(context.Background(), w.Set.ID, catalog.ItemQuery{}, func(i catalog.Item) error {
			if i.Mount == "bands" {
				n++
			}
			return nil
		}))
		return n
	}
	most := int64(0)
	res, err := w.run(w.Vault, func(o *mirror.Options) {
		o.Observe = looking{counter{&w.read}, func(met int64) { most = max(most, met-noted()) }}
	})
	must(t, err)
	if res.Unchanged != files || noted() != files || w.read.Load() != 0 {
		t.Fatalf("%+v, %d noted, %d bytes read", res, noted(), w.read.Load())
	}
	if most > 1000 {
		t.Fatalf("%d files were noted in memory", most)
	}
}

// After a lost catalog nobody knows what lay on a mount: where none of a directory's files is there, nothing is deleted.
func TestUnmountedAfterALostCatalog(t *testing.T) {
	t.Parallel()
	w := newWorld(t, false)
	for _, n := range []string{"1", "2", "3", "4", "mnt/a", "mnt/b"} {
		w.Write(n, n)
	}
	_, err := w.run(w.Vault)
	must(t, err)
	w.LoseCatalog()
	w.Remove("mnt/a")
	w.Remove("mnt/b")
	for range 2 {
		res, err := w.run(w.Vault)
		if failure.KindOf(err) != failure.Partial || len(res.Withheld) != 1 || res.Withheld[0].Dir != "mnt" || res.Deleted != 0 {
			t.Fatalf("%v, %+v", err, res)
		}
	}
	// What was met since is gone when it is gone.
	w.Write("mnt/a", "mnt/a")
	w.Write("mnt/b", "mnt/b")
	if res, err := w.run(w.Vault); err != nil || res.Stored != 0 {
		t.Fatalf("%v, %+v", err, res)
	}
	w.Remove("mnt/a")
	w.Remove("mnt/b")
	if res, err := w.run(w.Vault); err != nil || res.Deleted != 2 {
		t.Fatalf("%v, %+v", err, res)
	}
}

// The system does not tell where a directory of a path this long is mounted: it is where the directory around it is.
func TestPathTooLongToAskFor(t *testing.T) {
	t.Parallel()
	w := newWorld(t, false)
	for _, n := range []string{"1", "2", "3", "4"} {
		w.Write(n, n)
	}
	root, err := os.OpenRoot(w.Dir)
	must(t, err)
	defer root.Close()
	deep := strings.Repeat(strings.Repeat("d", 200)+"/", 21)
	must(t, root.MkdirAll(deep, 0o755))
	must(t, root.WriteFile(deep+"file", []byte("deep"), 0o644))
	if res, err := w.run(w.Vault); err != nil || res.Stored != 5 {
		t.Fatalf("%v, %+v", err, res)
	}
	must(t, root.RemoveAll(deep[:200]))
	if res, err := w.run(w.Vault); err != nil || res.Deleted != 1 {
		t.Fatalf("%v, %+v", err, res)
	}
}

// What lies below a mount that is gone is not a newer version of what was on it.
func TestFilesBelowAMount(t *testing.T) {
	t.Parallel()
	w := newWorld(t, false)
	for _, n := range []string{"1", "2", "3", "4", "mnt/a", "mnt/b"} {
		w.Write(n, "of the set's file system: "+n)
	}
	other := filepath.Join(w.Base, "other")
	must(t, os.MkdirAll(filepath.Join(other, "nest"), 0o755))
	must(t, os.WriteFile(filepath.Join(other, "a"), []byte("mounted"), 0o644))
	must(t, os.WriteFile(filepath.Join(other, "b"), []byte("of the set's file system: mnt/B"), 0o644)) // as large
	must(t, os.WriteFile(filepath.Join(other, "nest/n"), []byte("below the inner one"), 0o644))
	inner := filepath.Join(w.Base, "inner")
	must(t, os.MkdirAll(inner, 0o755))
	must(t, os.WriteFile(filepath.Join(inner, "n"), []byte("inner"), 0o644))
	mnt := filepath.Join(w.Dir, "mnt")
	mount := func() {
		if err := syscall.Mount(other, mnt, "", syscall.MS_BIND, ""); err != nil {
			mustrun.Skip(t, "cannot mount: "+err.Error())
		}
		must(t, syscall.Mount(inner, filepath.Join(mnt, "nest"), "", syscall.MS_BIND, ""))
	}
	t.Cleanup(func() {
		for syscall.Unmount(filepath.Join(mnt, "nest"), 0) == nil || syscall.Unmount(mnt, 0) == nil {
		}
	})
	mount()
	res, err := w.run(w.Vault)
	must(t, err)
	if res.Stored != 7 {
		t.Fatalf("%+v", res)
	}
	for _, step := range []struct {
		dir    string
		hidden int64
	}{{"mnt/nest", 1}, {"mnt", 3}} {
		must(t, syscall.Unmount(filepath.Join(w.Dir, step.dir), 0))
		res, err = w.run(w.Vault)
		var files int64
		for _, h := range res.Withheld {
			files += h.Files
		}
		if failure.KindOf(err) != failure.Partial || res.Stored+res.Deleted != 0 || files != step.hidden {
			t.Fatalf("%v, %+v", err, res)
		}
	}
	mount()
	if res, err = w.run(w.Vault); err != nil || res.Stored+res.Deleted != 0 {
		t.Fatalf("%v, %+v", err, res)
	}
	// It is meant so.
	must(t, syscall.Unmount(filepath.Join(mnt, "nest"), 0))
	must(t, syscall.Unmount(mnt, 0))
	if res, err = w.run(w.Vault, func(o *mirror.Options) { o.AllowShrunk = true }); err != nil || res.Stored != 2 || res.Deleted != 3 {
		t.Fatalf("%v, %+v", err, res)
	}
}

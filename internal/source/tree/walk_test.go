package tree

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"github.com/firn-backup/firn/internal/exclude"
	"github.com/firn-backup/firn/internal/failure"
	"github.com/firn-backup/firn/internal/snapshot"
	"github.com/firn-backup/firn/internal/source"
	"github.com/firn-backup/firn/internal/source/sourcetest"
)

// make makes files, and directories where a name ends in a slash.
func makeTree(t testing.TB, dir string, names ...string) {
	t.Helper()
	for _, name := range names {
		path := filepath.Join(dir, name)
		var err error
		if strings.HasSuffix(name, "/") {
			err = os.MkdirAll(path, 0o755)
		} else {
			err = errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(name), 0o644))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// walked is the paths of a walk, relative to dir, without dir itself.
func walked(t testing.TB, dir string, o Options) []string {
	t.Helper()
	var paths []string
	for _, it := range sourcetest.Walk(t, open(t, o)) {
		if it.Err != nil {
			t.Error(it.Err)
		}
		if rel, _ := filepath.Rel(dir, "/"+it.Entry.Path); rel != "." {
			paths = append(paths, rel)
		}
	}
	return paths
}

func wantPaths(t testing.TB, got []string, want ...string) {
	t.Helper()
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("want -, got +\n%s", d)
	}
}

// TestAgainstWalkDir has the standard library walk the same random trees.
func TestAgainstWalkDir(t *testing.T) {
	t.Parallel()
	names := []string{"a", "b", "a-b", "a b", "a.b", "ab", "\xff", "\n", "-", "A", "é", "!", "0"}
	patterns := []string{"a", "b/", "/a", "!a/b", "a*", "*b", "!ab", "**/a/b", "/*/\xff", "é", "!/a"}
	rapid.Check(t, func(rt *rapid.T) {
		dir, err := os.MkdirTemp(t.TempDir(), "")
		if err != nil {
			rt.Fatal(err)
		}
		for range rapid.IntRange(0, 40).Draw(rt, "entries") {
			elements := rapid.SliceOfN(rapid.SampledFrom(names), 1, 4).Draw(rt, "path")
			path := filepath.Join(dir, filepath.Join(elements...))
			// These fail where a file is in the way: then there is one name less.
			if rapid.Bool().Draw(rt, "directory") {
				_ = os.MkdirAll(path, 0o755)
			} else if os.MkdirAll(filepath.Dir(path), 0o755) == nil {
				_ = os.WriteFile(path, nil, 0o644)
			}
		}
		o := Options{Paths: []string{dir}, Exclude: rapid.SliceOfN(rapid.SampledFrom(patterns), 0, 4).Draw(rt, "exclude"), Workers: rapid.IntRange(0, 4).Draw(rt, "workers")}
		m, err := exclude.Parse(o.Exclude, dir[1:])
		if err != nil {
			rt.Fatal(err)
		}
		var want []string
		err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err == nil && !m.Match(path[1:], d.IsDir()) {
				want = append(want, path[1:])
			}
			return err
		})
		if err != nil {
			rt.Fatal(err)
		}
		slices.SortFunc(want, snapshot.ComparePaths)
		var got []string
		for _, it := range sourcetest.Walk(t, open(t, o)) {
			got = append(got, it.Entry.Path)
		}
		if d := cmp.Diff(want, got); d != "" {
			rt.Fatalf("exclude %q, want -, got +\n%s", o.Exclude, d)
		}
	})
}

// TestLargeDirectories crosses the limits of blocks, batches and reading ahead.
func TestLargeDirectories(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var want []string
	for i := range 3 * blockNames {
		name := fmt.Sprintf("%05d", i)
		if i%7 == 0 {
			makeTree(t, dir, name+"/below", name+"/empty/")
			want = append(want, name, name+"/below", name+"/empty")
		} else {
			makeTree(t, dir, name)
			want = append(want, name)
		}
	}
	wantPaths(t, walked(t, dir, Options{Paths: []string{dir}}), want...)
	wantPaths(t, walked(t, dir, Options{Paths: []string{dir}, Workers: 1}), want...)
}

func TestExcludeIfPresent(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	makeTree(t, dir, "a/NOBACKUP", "a/x", "a/sub/y", "b/x", "c/CACHEDIR.TAG", "c/x", "d/x", "e/NOBACKUP/", "e/x", "keep/a")
	if err := os.WriteFile(filepath.Join(dir, "d/CACHEDIR.TAG"), []byte(cacheSignature+"\n# comment"), 0o644); err != nil {
		t.Fatal(err)
	}
	o := Options{Paths: []string{dir}, ExcludeIfPresent: []string{"NOBACKUP", "CACHEDIR.TAG"}}
	wantPaths(t, walked(t, dir, o), "a", "a/NOBACKUP", "b", "b/x", "c", "c/CACHEDIR.TAG", "c/x", "d", "d/CACHEDIR.TAG", "e", "e/NOBACKUP", "keep", "keep/a")
	o.Paths = append(o.Paths, dir+"/a/sub", dir+"/d/x")
	wantPaths(t, walked(t, dir, o), "a", "a/NOBACKUP", "a/sub", "a/sub/y", "b", "b/x", "c", "c/CACHEDIR.TAG", "c/x", "d", "d/CACHEDIR.TAG", "d/x", "e", "e/NOBACKUP", "keep", "keep/a")
	for _, bad := range []string{"", "a/b", ".."} {
		if _, err := New(Options{Paths: []string{dir}, ExcludeIfPresent: []string{bad}}); failure.KindOf(err) != failure.Usage {
			t.Errorf("tag %q: %v", bad, err)
		}
	}
}

// TestRootsInRoots: a root inside another is there even if the other leaves out its place,
// and has patterns of its own.
func TestRootsInRoots(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	makeTree(t, dir, "a/x", "cache/keep/in/x", "cache/keep/in/tmp", "cache/keep/other", "cache/one", "cache/two", "z/tmp", "z/in/tmp")
	wantPaths(t, walked(t, dir, Options{
		Paths:   []string{dir, dir + "/cache/keep/in", dir + "/cache/two", dir + "/z/in", dir + "/z/in/tmp"},
		Exclude: []string{"/cache", "/tmp", "/z/tmp"},
	}), "a", "a/x", "cache/keep/in", "cache/keep/in/x", "cache/two", "z", "z/in", "z/in/tmp")
}

func TestSkip(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	makeTree(t, dir, "home/me/data", "home/me/.local/vault/archive", "home/me/.local/catalog.db", "home/me/.local/other", "mine/x")
	if err := os.Symlink("home", filepath.Join(dir, "h")); err != nil {
		t.Fatal(err)
	}
	want := []string{"home", "home/me", "home/me/.local", "home/me/.local/other", "home/me/data"}
	// By its name, by one through a link, and with a root through a link.
	for _, vault := range []string{"home/me/.local/vault", "h/me/.local/vault"} {
		skip := []string{filepath.Join(dir, vault), filepath.Join(dir, filepath.Dir(vault), "catalog.db"), filepath.Join(dir, "mine"), filepath.Join(dir, "not/there/../yet")}
		wantPaths(t, walked(t, dir, Options{Paths: []string{dir + "/home"}, Skip: skip}), want...)
		wantPaths(t, walked(t, dir, Options{Paths: []string{dir + "/h"}, Skip: skip}), "h", "h/me", "h/me/.local", "h/me/.local/other", "h/me/data")
		for _, root := range []string{"home/me/.local/vault", "h/me/.local/vault/archive", "mine"} {
			tree := open(t, Options{Paths: []string{filepath.Join(dir, root)}, Skip: skip})
			if err := tree.Walk(context.Background(), nil); failure.KindOf(err) != failure.Usage {
				t.Errorf("the program's own %s was backed up: %v", root, err)
			}
		}
	}
}

// TestLinkedRoots: a root is what its path leads to, under the name it was
// given.
func TestLinkedRoots(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	makeTree(t, dir, "real/dir/x", "real/file", "outer/y")
	for _, l := range [][2]string{{"real/dir", "link"}, {"real/file", "filelink"}, {"real", "parent"}, {"../real", "outer/in"}} {
		if err := os.Symlink(l[0], filepath.Join(dir, l[1])); err != nil {
			t.Fatal(err)
		}
	}
	tree := open(t, Options{Paths: []string{dir + "/link", dir + "/filelink", dir + "/parent/dir", dir + "/outer"}})
	items := sourcetest.Walk(t, tree)
	wantPaths(t, sourcetest.Paths(items, dir), "filelink", "link", "link/x", "outer", "outer/in", "outer/y", "parent/dir", "parent/dir/x")
	for _, it := range items {
		if err := tree.Load(&it.Entry); err != nil {
			t.Error(err)
		}
		if it.Entry.Type != snapshot.File {
			continue
		}
		f, err := tree.Open(&it.Entry)
		if err != nil {
			t.Fatal(err)
		}
		f.Close()
	}
	if items[0].Entry.Type != snapshot.File || items[1].Entry.Type != snapshot.Dir || items[4].Entry.Type != snapshot.Symlink {
		t.Errorf("types %c %c %c", items[0].Entry.Type, items[1].Entry.Type, items[4].Entry.Type)
	}
	// Two roots that would put a link and a directory into one place.
	tree = open(t, Options{Paths: []string{dir + "/outer", dir + "/outer/in/dir"}})
	if err := tree.Walk(context.Background(), nil); failure.KindOf(err) != failure.Usage {
		t.Errorf("a root through another's link: %v", err)
	}
	// ".." behind a link goes up from where it leads.
	wantPaths(t, walked(t, dir, Options{Paths: []string{dir + "/link/../dir"}}), "real/dir", "real/dir/x")
}

func TestBadRoots(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := unix.Mkfifo(filepath.Join(dir, "fifo"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := open(t, Options{Paths: []string{dir + "/fifo"}}).Walk(context.Background(), nil); err == nil {
		t.Error("a fifo is a root")
	}
	for _, paths := range [][]string{nil, {""}, {"a\x00b"}} {
		if _, err := New(Options{Paths: paths}); failure.KindOf(err) != failure.Usage {
			t.Errorf("paths %q: %v", paths, err)
		}
	}
	if _, err := New(Options{Paths: []string{"."}, Exclude: []string{"\x00"}}); failure.KindOf(err) != failure.Usage {
		t.Errorf("a bad pattern: %v", err)
	}
}

func TestRelativeRoot(t *testing.T) {
	wd := t.TempDir()
	makeTree(t, wd, "d/x")
	t.Chdir(wd)
	for _, p := range []string{"d", "./d/", "d/../d"} {
		wantPaths(t, walked(t, wd, Options{Paths: []string{p}}), "d", "d/x")
	}
}

// TestSlash walks from / as far as patterns let it.
func TestSlash(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	makeTree(t, dir, "b/b", "c")
	var patterns []string
	for p := ""; p != dir; {
		elements := strings.SplitN(dir[len(p)+1:], "/", 2)
		patterns = append(patterns, p+"/*", "!"+p+"/"+elements[0])
		p += "/" + elements[0]
	}
	tree := open(t, Options{Paths: []string{"/"}, Exclude: patterns})
	items := sourcetest.Walk(t, tree)
	want := []string{".", "b", "b/b", "c"}
	for p := filepath.Dir(dir); p != "/"; p = filepath.Dir(p) {
		rel, _ := filepath.Rel(dir, p)
		want = append([]string{rel}, want...)
	}
	wantPaths(t, sourcetest.Paths(items, dir), want...)
	for _, it := range items {
		if err := tree.Load(&it.Entry); err != nil {
			t.Error(err)
		}
	}
	// And with another root where patterns do not let it.
	items = sourcetest.Walk(t, open(t, Options{Paths: []string{"/", dir + "/b"}, Exclude: []string{"/*", "!/b"}}))
	wantPaths(t, sourcetest.Paths(items, dir), "b", "b/b")
}

func TestSockets(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	makeTree(t, dir, "a", "z")
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: filepath.Join(dir, "s")}); err != nil {
		t.Fatal(err)
	}
	var warned []string
	wantPaths(t, walked(t, dir, Options{Paths: []string{dir}, Warn: func(path, reason string) { warned = append(warned, path+": "+reason) }}), "a", "z")
	if want := []string{dir[1:] + "/s: it is a socket"}; !slices.Equal(warned, want) {
		t.Errorf("warned of %q", warned)
	}
}

// at makes a walk that has not begun, and a node of it that was seen as a
// directory.
func at(t *testing.T, dir, name string) (*walk, *node) {
	tree := open(t, Options{Paths: []string{dir}})
	set, err := tree.rootsOpen()
	if err != nil {
		t.Fatal(err)
	}
	w := &walk{t: tree, set: set, dirs: make(map[*openDir]bool)}
	return w, w.newNode(dir[1:]+"/"+name, set.roots[0], info{typ: snapshot.Dir, dev: 1}, 1)
}

// TestRaces: what changes between being named, looked at and opened.
func TestRaces(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	makeTree(t, dir, "file", "real/x")
	if err := os.Symlink("real", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	var s scratch
	w, gone := at(t, dir, "gone")
	w.readDir(gone, &s)
	if !gone.gone || gone.err == nil {
		t.Errorf("a directory that vanished: %v", gone.err)
	}
	for _, name := range []string{"file", "link"} {
		_, n := at(t, dir, name)
		w.readDir(n, &s)
		if n.gone || n.err == nil || n.blocks != nil {
			t.Errorf("a directory that became a %s was read: %v", name, n.err)
		}
	}
	_, n := at(t, dir, "real")
	w.readDir(n, &s)
	if n.err != nil || n.fresh == nil || len(n.blocks[0].found) != 1 {
		t.Errorf("a directory that was replaced by another: %v, %v", n.err, n.fresh)
	}
	fd := int(w.set.roots[0].dir.Fd())
	found, _ := w.look(n, fd, []name{{"gone", unix.DT_REG}, {"real", unix.DT_REG}, {"file", unix.DT_DIR}}, 1)
	if len(found) != 3 || !found[0].gone || !errors.Is(found[0].err, fs.ErrNotExist) || found[1].child == nil || found[2].child != nil {
		t.Errorf("found %+v", found)
	}
	if len(w.dirs) != 0 {
		t.Errorf("%d directories are still open", len(w.dirs))
	}
	runtime.KeepAlive(w.set)
}

// TestLeaksNothing runs apart from all other tests.
func TestLeaksNothing(t *testing.T) {
	dir := t.TempDir()
	for i := range 1200 {
		makeTree(t, dir, fmt.Sprintf("%d/", i), fmt.Sprintf("0/%d", i))
	}
	open := func() int {
		all, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(all)
	}
	files, routines := open(), runtime.NumGoroutine()
	tree, err := New(Options{Paths: []string{dir}, Workers: 4})
	if err != nil {
		t.Fatal(err)
	}
	stop := errors.New("stop")
	for i := range 30 {
		n := 0
		err := tree.Walk(context.Background(), func(items []source.Item) error {
			for _, it := range items {
				_ = tree.Load(&it.Entry)
			}
			if n++; n > i/2 {
				return stop
			}
			return nil
		})
		if err != nil && err != stop {
			t.Fatal(err)
		}
	}
	if err := tree.Close(); err != nil {
		t.Fatal(err)
	}
	// What earlier walks left is closed when the collector finds it.
	for range 200 {
		if runtime.GC(); open() <= files && runtime.NumGoroutine() <= routines {
			return
		}
		runtime.Gosched()
	}
	t.Errorf("%d files open, before %d; %d goroutines, before %d", open(), files, runtime.NumGoroutine(), routines)
}

// TestDirCache: handles outlive their place in the cache.
func TestDirCache(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for i := range 3 * maxDirs {
		makeTree(t, dir, fmt.Sprintf("%d/x", i))
	}
	tree := open(t, Options{Paths: []string{dir}})
	items := sourcetest.Walk(t, tree)
	var wg sync.WaitGroup
	for k := range 4 {
		wg.Go(func() {
			for i := range items {
				e := items[(i*(k+1)*7)%len(items)].Entry
				if err := tree.Load(&e); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	set, err := tree.rootsOpen()
	if err != nil {
		t.Fatal(err)
	}
	if n := len(set.dirs.recent); n != maxDirs || len(set.dirs.byPath) != n {
		t.Errorf("%d directories are open", n)
	}
}

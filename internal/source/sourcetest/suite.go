package sourcetest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/firn-backup/firn/internal/snapshot"
	"github.com/firn-backup/firn/internal/source"
	"github.com/firn-backup/firn/internal/tarstream"
)

// Open makes the source under test over paths, with nothing excluded.
type Open func(t testing.TB, paths ...string) source.Tree

// Suite tests every promise of source.Tree.
func Suite(t *testing.T, open Open) {
	for name, test := range map[string]func(*testing.T, Open){
		"Hostile":   testHostile,
		"Content":   testContent,
		"Roots":     testRoots,
		"NoRoot":    testNoRoot,
		"Batches":   testBatches,
		"Stops":     testStops,
		"Vanished":  testVanished,
		"Changing":  testChanging,
		"NewTypes":  testNewTypes,
		"Again":     testAgain,
		"Metadata":  testMetadata,
		"NoEntries": testNoEntries,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, open)
		})
	}
}

// Walk collects all items of a walk.
func Walk(t testing.TB, tree source.Tree) []source.Item {
	t.Helper()
	var all []source.Item
	err := tree.Walk(context.Background(), func(items []source.Item) error {
		if len(items) == 0 {
			t.Error("an empty batch")
		}
		all = append(all, items...)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for i := 1; i < len(all); i++ {
		if a, b := all[i-1].Entry.Path, all[i].Entry.Path; snapshot.ComparePaths(a, b) >= 0 {
			t.Errorf("%q comes before %q", a, b)
		}
	}
	return all
}

// entryPath is the path of entries for the absolute path.
func entryPath(path string) string { return strings.TrimPrefix(path, "/") }

// testHostile: the walk tells, with Load, what the plain reader does.
func testHostile(t *testing.T, open Open) {
	dir := t.TempDir()
	Hostile(t, dir)
	tree := open(t, dir)
	want := Read(t, dir)
	got := Walk(t, tree)
	groups := make(map[string]string)
	for i := range got {
		it := &got[i]
		if it.Err != nil {
			t.Fatal(it.Err)
		}
		if err := tree.Load(&it.Entry); err != nil {
			t.Fatal(err)
		}
	}
	slices.SortFunc(want, func(a, b File) int {
		return snapshot.ComparePaths(entryPath(filepath.Join(dir, a.Entry.Path)), entryPath(filepath.Join(dir, b.Entry.Path)))
	})
	if len(got) != len(want) {
		t.Fatalf("%d entries, want %d", len(got), len(want))
	}
	for i := range want {
		w, g := want[i].Entry, got[i].Entry
		w.Path = entryPath(filepath.Join(dir, w.Path))
		if (w.LinkGroup == "") != (g.LinkGroup == "") || w.LinkGroup != "" && groups[w.LinkGroup] != "" && groups[w.LinkGroup] != g.LinkGroup {
			t.Errorf("%q: link group %q", g.Path, g.LinkGroup)
		}
		groups[w.LinkGroup] = g.LinkGroup
		if g.UID == 0 && g.User != "root" || g.UID == 54321 && g.User != "" || g.GID == 0 && g.Group != "root" {
			t.Errorf("%q: user %q of %d, group %q of %d", g.Path, g.User, g.UID, g.Group, g.GID)
		}
		w.User, w.Group, w.LinkGroup = g.User, g.Group, g.LinkGroup
		if d := cmp.Diff(w, g); d != "" {
			t.Errorf("want -, got +\n%s", d)
		}
	}
}

// testContent: Read's bytes are the file's, sparse or not, and Check is content.
func testContent(t *testing.T, open Open) {
	dir := t.TempDir()
	Hostile(t, dir)
	tree := open(t, dir)
	want := make(map[string]File)
	for _, f := range Read(t, dir) {
		want[entryPath(filepath.Join(dir, f.Entry.Path))] = f
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	files := make(chan snapshot.Entry)
	defer close(files)
	for range 3 {
		wg.Go(func() {
			for e := range files {
				readOne(t, tree, e, want[e.Path].SHA256)
			}
		})
	}
	for _, it := range Walk(t, tree) {
		if it.Entry.Type == snapshot.File {
			files <- it.Entry
		}
	}
}

func readOne(t *testing.T, tree source.Tree, e snapshot.Entry, want [32]byte) {
	loaded := e
	f, err := tree.Open(&e)
	if err != nil {
		t.Error(err)
		return
	}
	defer f.Close()
	if err := tree.Load(&loaded); err != nil {
		t.Error(err)
		return
	}
	if d := cmp.Diff(loaded, e); d != "" {
		t.Errorf("opening %q made another entry of it than loading it:\n%s", e.Path, d)
	}
	stored, err := io.ReadAll(f)
	if err != nil || int64(len(stored)) != f.Stored() {
		t.Errorf("%q: %d bytes of %d, %v", e.Path, len(stored), f.Stored(), err)
		return
	}
	if n, err := f.Read(make([]byte, 1)); n != 0 || err != io.EOF {
		t.Errorf("%q: at its end %d, %v", e.Path, n, err)
	}
	if err := f.Check(); err != nil {
		t.Errorf("%q: %v", e.Path, err)
	}
	if !f.Sparse() && f.Stored() != e.Size {
		t.Errorf("%q: %d bytes stored of %d", e.Path, f.Stored(), e.Size)
	}
	content, err := Expand(stored, e.Size, f.Sparse())
	if err != nil {
		t.Errorf("%q: %v", e.Path, err)
	} else if sha256.Sum256(content) != want {
		t.Errorf("%q: its content is not what it should be", e.Path)
	}
}

// Expand turns a file's stored form into its content.
func Expand(stored []byte, size int64, sparse bool) ([]byte, error) {
	if !sparse {
		return stored, nil
	}
	extents, n, err := tarstream.ParseSparseMap(stored, size)
	if err != nil {
		return nil, err
	}
	content, rest := make([]byte, size), stored[n:]
	for _, x := range extents {
		if int64(len(rest)) < x.Size {
			return nil, io.ErrUnexpectedEOF
		}
		copy(content[x.Offset:], rest[:x.Size])
		rest = rest[x.Size:]
	}
	if len(rest) > 0 {
		return nil, errors.New("data behind the last extent")
	}
	return content, nil
}

func write(t testing.TB, path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

// Paths is the paths of items, relative to dir.
func Paths(items []source.Item, dir string) []string {
	var paths []string
	for _, it := range items {
		rel, _ := filepath.Rel(dir, "/"+it.Entry.Path)
		paths = append(paths, rel)
	}
	return paths
}

// testRoots: several, one in another, twice the same, a single file.
func testRoots(t *testing.T, open Open) {
	dir := t.TempDir()
	for _, p := range []string{"b/x", "b/sub/y", "a/z", "c/only", "c/other", "a-b/w"} {
		write(t, filepath.Join(dir, p), p)
	}
	tree := open(t, filepath.Join(dir, "c/only"), dir+"/b/sub", dir+"/b/", dir+"//a-b", dir+"/a", dir+"/b/../b/x")
	want := []string{"a", "a/z", "a-b", "a-b/w", "b", "b/sub", "b/sub/y", "b/x", "c/only"}
	items := Walk(t, tree)
	if d := cmp.Diff(want, Paths(items, dir)); d != "" {
		t.Error(d)
	}
	for _, it := range items {
		if err := tree.Load(&it.Entry); err != nil {
			t.Error(err)
		}
		if it.Entry.Type == snapshot.File {
			readOne(t, tree, it.Entry, sha256.Sum256([]byte(Paths([]source.Item{it}, dir)[0])))
		}
	}
}

// testNoRoot: without one of its roots there is no walk at all.
func testNoRoot(t *testing.T, open Open) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "there/file"), "x")
	if err := os.Symlink("nowhere", filepath.Join(dir, "dangling")); err != nil {
		t.Fatal(err)
	}
	for _, missing := range []string{"missing", "there/file/below", "dangling"} {
		tree := open(t, filepath.Join(dir, "there"), filepath.Join(dir, missing))
		err := tree.Walk(context.Background(), func([]source.Item) error {
			t.Error("called")
			return nil
		})
		if err == nil || !strings.Contains(err.Error(), missing) {
			t.Errorf("%s: error %v", missing, err)
		}
	}
}

// testBatches: what was handed on stays as it was.
func testBatches(t *testing.T, open Open) {
	dir := t.TempDir()
	b := &builder{t: t, dir: dir}
	for i := range 40 {
		name := string(rune('a'+i%26)) + strings.Repeat("x", i)
		b.mkdir(name)
		for j := range 60 {
			b.must(os.WriteFile(b.path(name+"/"+strings.Repeat("f", j+1)), nil, 0o644))
		}
	}
	var batches, copies [][]source.Item
	err := open(t, dir).Walk(context.Background(), func(items []source.Item) error {
		batches = append(batches, items)
		c := slices.Clone(items)
		for i := range c {
			c[i].Entry.Path = strings.Clone(c[i].Entry.Path)
		}
		copies = append(copies, c)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for i := range batches {
		if !cmp.Equal(batches[i], copies[i]) {
			t.Error("a batch changed after it was handed on")
		}
		n += len(batches[i])
	}
	if want := 1 + 40 + 40*60; n != want {
		t.Errorf("%d entries, want %d", n, want)
	}
}

// testStops: the walk ends with fn's error, and with its context.
func testStops(t *testing.T, open Open) {
	dir := t.TempDir()
	Hostile(t, dir)
	tree := open(t, dir)
	stop := errors.New("stop")
	calls := 0
	if err := tree.Walk(context.Background(), func([]source.Item) error { calls++; return stop }); err != stop || calls != 1 {
		t.Errorf("%v after %d calls", err, calls)
	}
	ctx, cancel := context.WithCancel(context.Background())
	if err := tree.Walk(ctx, func([]source.Item) error { cancel(); return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	if err := tree.Walk(ctx, func([]source.Item) error { t.Error("called"); return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled before: %v", err)
	}
}

// testVanished: what has gone since the walk is told apart from other failures.
func testVanished(t *testing.T, open Open) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "d/file"), "x")
	tree := open(t, dir)
	items := Walk(t, tree)
	if err := os.RemoveAll(filepath.Join(dir, "d")); err != nil {
		t.Fatal(err)
	}
	e := items[2].Entry
	if err := tree.Load(&e); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Load: %v", err)
	}
	if _, err := tree.Open(&e); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Open: %v", err)
	}
}

// testChanging: a file that changes under the reader comes with its declared
// length and a complaint.
func testChanging(t *testing.T, open Open) {
	const size = 300_000
	for name, change := range map[string]func(f *os.File) error{
		"grows":     func(f *os.File) error { _, err := f.WriteAt([]byte("more"), size); return err },
		"truncated": func(f *os.File) error { return f.Truncate(1000) },
		"emptied":   func(f *os.File) error { return f.Truncate(0) },
		"written":   func(f *os.File) error { _, err := f.WriteAt([]byte("other"), size-10); return err },
		"replaced": func(f *os.File) error {
			return errors.Join(os.Remove(f.Name()), os.WriteFile(f.Name(), []byte("new"), 0o644))
		},
	} {
		dir := t.TempDir()
		path := filepath.Join(dir, "file")
		content := bytes.Repeat([]byte("0123456789"), size/10)
		write(t, path, string(content))
		tree := open(t, dir)
		e := Walk(t, tree)[1].Entry
		f, err := tree.Open(&e)
		if err != nil {
			t.Fatal(err)
		}
		head := make([]byte, 2000)
		if _, err := io.ReadFull(f, head); err != nil {
			t.Fatal(err)
		}
		w, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		if err := change(w); err != nil {
			t.Fatal(err)
		}
		w.Close()
		rest, err := io.ReadAll(f)
		if err != nil || len(head)+len(rest) != size || !bytes.Equal(head, content[:2000]) {
			t.Errorf("%s: %d bytes, %v", name, len(head)+len(rest), err)
		}
		if err := f.Check(); err == nil {
			t.Errorf("%s: Check saw nothing", name)
		}
		if name == "truncated" && !bytes.Equal(rest, make([]byte, len(rest))) {
			t.Errorf("%s: the rest is not zeros", name)
		}
		f.Close()
	}
}

// testNewTypes: what is no longer the file that was walked is not opened, nor
// waited for, nor followed.
func testNewTypes(t *testing.T, open Open) {
	dir := t.TempDir()
	b := &builder{t: t, dir: dir}
	for _, name := range []string{"fifo", "link", "dir", "sub/file"} {
		write(t, b.path(name), name)
	}
	tree := open(t, dir)
	items := Walk(t, tree)
	for _, name := range []string{"fifo", "link", "dir"} {
		b.must(os.Remove(b.path(name)))
	}
	b.fifo("fifo")
	b.symlink("sub/file", "link")
	b.mkdir("dir")
	// A directory on the way becomes a link to where the same name is.
	b.must(os.Rename(b.path("sub"), b.path("real")))
	b.symlink("real", "sub")
	for _, it := range items {
		if it.Entry.Type != snapshot.File {
			continue
		}
		if f, err := tree.Open(&it.Entry); err == nil {
			f.Close()
			t.Errorf("%q was opened", it.Entry.Path)
		}
	}
}

// testAgain: a second walk sees what changed since the first.
func testAgain(t *testing.T, open Open) {
	dir := t.TempDir()
	Hostile(t, dir)
	tree := open(t, dir)
	if len(Walk(t, tree)) != len(Read(t, dir)) {
		t.Error("the first walk is not complete")
	}
	Mutate(t, dir)
	items := Walk(t, tree)
	if len(items) != len(Read(t, dir)) {
		t.Error("the second walk is not complete")
	}
	for _, it := range items {
		if err := tree.Load(&it.Entry); err != nil {
			t.Error(err)
		}
	}
}

// testMetadata: Open brings the entry up to the file it opened.
func testMetadata(t *testing.T, open Open) {
	dir := t.TempDir()
	b := &builder{t: t, dir: dir}
	b.file("file", []byte("old"))
	tree := open(t, dir)
	e := Walk(t, tree)[1].Entry
	b.must(tree.Load(&e))
	b.must(os.Remove(b.path("file")))
	b.file("file", []byte("new and longer"))
	b.must(os.Chmod(b.path("file"), 0o600))
	b.xattr("file", "user.new", "x")
	b.link("file", "other name")
	f, err := tree.Open(&e)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	want := Read(t, dir)[1].Entry
	want.Path, want.LinkGroup, want.User, want.Group = e.Path, e.LinkGroup, e.User, e.Group
	if d := cmp.Diff(want, e); d != "" || e.LinkGroup == "" || f.Stored() != want.Size {
		t.Errorf("link group %q, stored %d\n%s", e.LinkGroup, f.Stored(), d)
	}
}

// testNoEntries: an empty root is fine, and an entry from elsewhere is not.
func testNoEntries(t *testing.T, open Open) {
	dir := t.TempDir()
	tree := open(t, dir)
	if items := Walk(t, tree); len(items) != 1 || items[0].Entry.Type != snapshot.Dir || items[0].Err != nil {
		t.Errorf("an empty root is %v", items)
	}
	for _, p := range []string{"etc/passwd", entryPath(filepath.Dir(dir)), entryPath(dir) + "x"} {
		if err := tree.Load(&snapshot.Entry{Path: p, Type: snapshot.File}); err == nil {
			t.Errorf("%q was loaded from outside", p)
		}
	}
}

package extract

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/firn-backup/firn/internal/snapshot"
)

// variants are all the ways in which a kernel or file system may make Root work.
func variants(t *testing.T, fn func(t *testing.T, o Options)) {
	for _, v := range []struct {
		name string
		o    Options
	}{
		{"openat2", Options{}},
		{"openat", Options{plain: true}},
		{"temporary names", Options{noTmpfile: true}},
		{"one by one", Options{plain: true, noTmpfile: true, maxDirs: 4}},
	} {
		t.Run(v.name, func(t *testing.T) { t.Parallel(); fn(t, v.o) })
	}
}

func open(t *testing.T, dir string, o Options) *Root {
	t.Helper()
	r, err := Open(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

// mine is an entry owned by who runs the test.
func mine(path string, typ snapshot.Type, mode uint32) *snapshot.Entry {
	return &snapshot.Entry{
		Path: path, Type: typ, Mode: mode, UID: uint32(os.Geteuid()), GID: uint32(os.Getegid()),
		MTime: snapshot.Time{Sec: -1234567, Nsec: 123456789},
	}
}

func file(path, content string) *snapshot.Entry {
	e := mine(path, snapshot.File, 0o640)
	setContent(e, content)
	return e
}

func setContent(e *snapshot.Entry, content string) {
	e.Size = int64(len(content))
	if content != "" {
		e.Content = snapshot.Content{N: 1, Volume: 1, Stored: e.Size, SHA256: sha256.Sum256([]byte(content))}
	}
}

// put writes a file in small pieces and commits it.
func put(r *Root, e *snapshot.Entry, stored string) error {
	f, err := r.File(e)
	if err != nil {
		return err
	}
	defer f.Close()
	for b := []byte(stored); len(b) > 0; {
		n := min(len(b), 700)
		if _, err := f.Write(b[:n]); err != nil {
			return err
		}
		b = b[n:]
	}
	return f.Commit()
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantIs(t *testing.T, err, target error) {
	t.Helper()
	if !errors.Is(err, target) {
		t.Fatalf("got error %v, want %v", err, target)
	}
}

func stat(t *testing.T, path string) unix.Stat_t {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		t.Fatalf("lstat %s: %v", path, err)
	}
	return st
}

func wantContent(t *testing.T, path, want string) {
	t.Helper()
	got, err := os.ReadFile(path)
	must(t, err)
	if string(got) != want {
		t.Fatalf("%s holds %d bytes, other than the %d wanted", path, len(got), len(want))
	}
}

// wantNothingElse checks that dir holds exactly these names: no temporary ones.
func wantNothingElse(t *testing.T, dir string, names ...string) {
	t.Helper()
	ents, err := os.ReadDir(dir)
	must(t, err)
	var got []string
	for _, e := range ents {
		got = append(got, e.Name())
	}
	if strings.Join(got, "\n") != strings.Join(names, "\n") {
		t.Fatalf("%s holds %q, want %q", dir, got, names)
	}
}

func TestTreeComesBack(t *testing.T) {
	variants(t, func(t *testing.T, o Options) {
		dir := filepath.Join(t.TempDir(), "new", "root")
		r := open(t, dir, o)
		if !r.Fresh() {
			t.Error("a new directory is not fresh")
		}
		d := mine("a", snapshot.Dir, 0o2750)
		must(t, r.Mkdir(d))
		if st := stat(t, dir+"/a"); !isUnfinished(st.Mode) {
			t.Errorf("unfinished directory has mode %o", st.Mode)
		}
		f := file("a/file", "hello")
		f.Mode = 0o6751
		must(t, put(r, f, "hello"))
		must(t, put(r, file("a/empty", ""), ""))
		link := mine("a/link", snapshot.Symlink, 0o777)
		link.Link = "../\xff no such/thing"
		must(t, r.Symlink(link))
		must(t, r.Fifo(mine("a/fifo", snapshot.Fifo, 0o622)))
		must(t, r.HardLink("a/file", file("a/other", "hello")))
		must(t, r.HardLink("a/link", link2(link, "b/implied/link")))
		must(t, r.FinishDir(d))
		must(t, r.FinishDir(mine("", snapshot.Dir, 0o711)))
		must(t, r.Sync())

		wantContent(t, dir+"/a/file", "hello")
		for path, mode := range map[string]uint32{
			"": unix.S_IFDIR | 0o711, "a": unix.S_IFDIR | 0o2750, "a/file": unix.S_IFREG | 0o6751, "a/empty": unix.S_IFREG | 0o640,
			"a/link": unix.S_IFLNK | 0o777, "a/fifo": unix.S_IFIFO | 0o622,
		} {
			st := stat(t, filepath.Join(dir, path))
			if st.Mode != mode {
				t.Errorf("%q has mode %o, want %o", path, st.Mode, mode)
			}
			if st.Mtim.Sec != -1234567 || st.Mtim.Nsec != 123456789 {
				t.Errorf("%q has time %v", path, st.Mtim)
			}
		}
		if a, b := stat(t, dir+"/a/file"), stat(t, dir+"/a/other"); a.Ino != b.Ino {
			t.Error("hard link is another file")
		}
		if got, _ := os.Readlink(dir + "/b/implied/link"); got != link.Link {
			t.Errorf("link says %q", got)
		}
		wantNothingElse(t, dir+"/a", "empty", "fifo", "file", "link", "other")
		if w := r.Warnings(); len(w) > 0 {
			t.Errorf("warnings: %v", w)
		}

		// All of it again, as after an interruption.
		again := open(t, dir, o)
		if again.Fresh() {
			t.Error("a used directory is fresh")
		}
		must(t, again.Mkdir(d))
		for _, e := range []*snapshot.Entry{f, link, file("a/empty", ""), mine("a/fifo", snapshot.Fifo, 0o622)} {
			if s, err := again.Existing(e); s != Same || err != nil {
				t.Errorf("%s is %v, %v", e.Path, s, err)
			}
			must(t, again.Again(e))
		}
		must(t, again.HardLink("a/file", file("a/other", "hello")))
		must(t, put(again, f, "hello")) // meets an equal file
		must(t, again.Symlink(link))
		must(t, again.FinishDir(d))
		wantNothingElse(t, dir+"/a", "empty", "fifo", "file", "link", "other")
	})
}

func link2(e *snapshot.Entry, path string) *snapshot.Entry {
	c := *e
	c.Path = path
	return &c
}

func TestHostileNames(t *testing.T) {
	variants(t, func(t *testing.T, o Options) {
		tmp := t.TempDir()
		r := open(t, tmp+"/root", o)
		for _, p := range []string{"/etc/x", "..", "../x", "a/../../x", "a/..", ".", "./x", "a//x", "a/", "/", "a\x00b"} {
			for _, err := range all(r, p) {
				wantIs(t, err, ErrName)
			}
		}
		wantIs(t, put(r, file("", "x"), "x"), ErrName)
		long := strings.Repeat("n", 256)
		for _, err := range all(r, "d/"+long) {
			wantIs(t, err, unix.ENAMETOOLONG)
			if Fatal(err) {
				t.Error("a long name ends the whole restore")
			}
		}
		must(t, put(r, file("-rf", "x"), "x"))
		must(t, put(r, file("new\nline \xff", "x"), "x"))
		deep := strings.Repeat(strings.Repeat("d", 200)+"/", 60) + "file" // beyond PATH_MAX
		must(t, put(r, file(deep, "deep"), "deep"))
		if s, err := r.Existing(file(deep, "deep")); s != Same || err != nil {
			t.Errorf("deep file is %v, %v", s, err)
		}
		wantNothingElse(t, tmp, "root")
	})
}

// all tries to make everything at path.
func all(r *Root, path string) []error {
	link := mine(path, snapshot.Symlink, 0o777)
	link.Link = "/"
	_, ex := r.Existing(file(path, "x"))
	if ex == nil {
		ex = put(r, file(path, "x"), "x")
	}
	put(r, file("x", "x"), "x")
	return []error{
		r.Mkdir(mine(path, snapshot.Dir, 0o755)), put(r, file(path, "x"), "x"), r.Symlink(link),
		r.Fifo(mine(path, snapshot.Fifo, 0o600)), r.HardLink("x", mine(path, snapshot.File, 0o600)),
		r.Device(mine(path, snapshot.CharDev, 0o600)), ex,
	}
}

func TestSymlinkParents(t *testing.T) {
	variants(t, func(t *testing.T, o Options) {
		for _, made := range []string{"before", "by the archive"} {
			for _, over := range []Overwrite{Never, Always} {
				tmp := t.TempDir()
				outside, root := tmp+"/outside", tmp+"/root"
				must(t, os.MkdirAll(outside+"/sub", 0o755))
				must(t, os.Mkdir(root, 0o755))
				must(t, os.WriteFile(root+"/plain", []byte("file"), 0o644))
				before := stat(t, outside)
				o.Overwrite = over
				r := open(t, root, o)
				for name, target := range map[string]string{"abs": outside, "rel": "../outside", "self": ".", "proc": "/proc/self/cwd"} {
					if made == "before" {
						must(t, os.Symlink(target, root+"/"+name))
						continue
					}
					e := mine(name, snapshot.Symlink, 0o777)
					e.Link = target
					must(t, r.Symlink(e))
				}
				for _, p := range []string{"abs/x", "rel/x", "self/x", "proc/x", "abs/sub/x", "rel/sub/y/x", "plain/x"} {
					for _, err := range all(r, p) {
						if errors.Is(err, ErrBlocked) || over == Always && errors.Is(err, unix.ENOENT) {
							continue
						}
						t.Fatalf("%s: %v", p, err)
					}
				}
				wantIs(t, r.HardLink("abs/sub", mine("y", snapshot.File, 0o600)), ErrBlocked)
				wantIs(t, r.FinishDir(mine("abs", snapshot.Dir, 0o700)), ErrBlocked)
				wantIs(t, r.Again(file("abs/x", "x")), ErrBlocked)
				wantNothingElse(t, outside, "sub")
				wantNothingElse(t, outside+"/sub")
				wantNothingElse(t, tmp, "outside", "root")
				if after := stat(t, outside); after.Mode != before.Mode || after.Mtim != before.Mtim {
					t.Error("the directory outside was changed")
				}
			}
		}
	})
}

// TestSwap restores while another process keeps putting a symbolic link in the place of a directory.
func TestSwap(t *testing.T) {
	variants(t, func(t *testing.T, o Options) {
		tmp := t.TempDir()
		outside, root := tmp+"/outside", tmp+"/root"
		must(t, os.Mkdir(outside, 0o755))
		must(t, os.MkdirAll(root+"/a/b", 0o755))
		must(t, os.Symlink("../outside", root+"/evil"))
		o.maxDirs = 4
		r := open(t, root, o)
		stop, done := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(done)
			for {
				select {
				case <-stop:
					return
				default:
					unix.Renameat2(unix.AT_FDCWD, root+"/a", unix.AT_FDCWD, root+"/evil", unix.RENAME_EXCHANGE)
				}
			}
		}()
		good := 0
		for i := range 1500 {
			r.dirs.clear() // as if many other directories had been written meanwhile
			if put(r, file(fmt.Sprintf("a/f%d", i), "x"), "x") == nil {
				good++
			}
			e := mine(fmt.Sprintf("a/l%d", i), snapshot.Symlink, 0o777)
			e.Link = "x"
			r.Symlink(e)
			r.Mkdir(mine(fmt.Sprintf("a/d%d", i), snapshot.Dir, 0o700))
			r.FinishDir(mine("a", snapshot.Dir, 0o755))
			if i%64 == 0 {
				runtime.Gosched()
			}
		}
		close(stop)
		<-done
		wantNothingElse(t, outside)
		if st := stat(t, outside); st.Mtim.Sec == -1234567 {
			t.Error("the directory outside got an entry's time")
		}
		if good == 0 {
			t.Log("no file was written: the race was always lost")
		}
	})
}

func TestNeverReplaces(t *testing.T) {
	variants(t, func(t *testing.T, o Options) {
		root := t.TempDir()
		for _, p := range []string{"file", "link", "fifo", "dir", "hard"} {
			must(t, os.WriteFile(root+"/"+p, []byte("mine"), 0o600))
		}
		must(t, os.Mkdir(root+"/d", 0o700))
		r := open(t, root, o)
		wantIs(t, put(r, file("file", "your"), "your"), ErrExists)
		wantIs(t, put(r, file("file", "longer"), "longer"), ErrExists)
		wantIs(t, put(r, file("d", "x"), "x"), ErrExists)
		link := mine("link", snapshot.Symlink, 0o777)
		link.Link = "file"
		wantIs(t, r.Symlink(link), ErrExists)
		wantIs(t, r.Fifo(mine("fifo", snapshot.Fifo, 0o600)), ErrExists)
		wantIs(t, r.Mkdir(mine("dir", snapshot.Dir, 0o700)), ErrExists)
		wantIs(t, r.HardLink("file", mine("hard", snapshot.File, 0o600)), ErrExists)
		for _, p := range []string{"file", "link", "fifo", "dir", "hard"} {
			wantContent(t, root+"/"+p, "mine")
			if st := stat(t, root+"/"+p); st.Mode&0o7777 != 0o600 || st.Mtim.Sec == -1234567 {
				t.Errorf("%s was changed", p)
			}
		}
		wantNothingElse(t, root, "d", "dir", "fifo", "file", "hard", "link")
		for path, want := range map[string]State{"file": Differs, "none": Absent, "no/ne": Absent} {
			if s, err := r.Existing(file(path, "your")); s != want || err != nil {
				t.Errorf("%s: %v, %v", path, s, err)
			}
		}
		if s, err := r.Existing(file("file/x", "your")); s != Differs || !errors.Is(err, ErrBlocked) {
			t.Errorf("below a file: %v, %v", s, err)
		}
		// The directory given is the user's own and stays as it is.
		must(t, r.Mkdir(mine("", snapshot.Dir, 0o711)))
		must(t, r.FinishDir(mine("", snapshot.Dir, 0o711)))
		if st := stat(t, root); st.Mtim.Sec == -1234567 {
			t.Error("the target's own time was set")
		}
		// Parents that were there stay as they are, too.
		must(t, r.Parent(mine("d", snapshot.Dir, 0o755)))
		must(t, r.FinishParent(mine("d", snapshot.Dir, 0o755)))
		if st := stat(t, root+"/d"); st.Mode&0o7777 != 0o700 {
			t.Error("a parent's mode was set")
		}
		must(t, r.Parent(mine("n", snapshot.Dir, 0o751)))
		must(t, put(r, file("n/x", "x"), "x"))
		must(t, r.FinishParent(mine("n", snapshot.Dir, 0o751)))
		if st := stat(t, root+"/n"); st.Mode&0o7777 != 0o751 || st.Mtim.Sec != -1234567 {
			t.Error("a parent made here was not finished")
		}
	})
}

func TestAlwaysReplaces(t *testing.T) {
	variants(t, func(t *testing.T, o Options) {
		root := t.TempDir()
		for _, p := range []string{"file", "link", "fifo", "dir", "hard", "full/x"} {
			must(t, os.MkdirAll(filepath.Dir(root+"/"+p), 0o755))
			must(t, os.WriteFile(root+"/"+p, []byte("mine"), 0o600))
		}
		must(t, os.Mkdir(root+"/emptydir", 0o700))
		must(t, os.Symlink("/etc", root+"/tolink"))
		o.Overwrite = Always
		r := open(t, root, o)
		must(t, put(r, file("file", "your"), "your"))
		must(t, put(r, file("tolink", "x"), "x"))
		must(t, put(r, file("emptydir", "x"), "x"))
		wantIs(t, put(r, file("full", "x"), "x"), ErrExists)
		link := mine("link", snapshot.Symlink, 0o777)
		link.Link = "file"
		must(t, r.Symlink(link))
		must(t, r.Fifo(mine("fifo", snapshot.Fifo, 0o600)))
		must(t, r.Mkdir(mine("dir", snapshot.Dir, 0o700)))
		must(t, r.FinishDir(mine("dir", snapshot.Dir, 0o700)))
		must(t, r.HardLink("file", mine("hard", snapshot.File, 0o600)))
		must(t, r.HardLink("file", mine("hard", snapshot.File, 0o600)))
		wantContent(t, root+"/file", "your")
		wantContent(t, root+"/tolink", "x")
		wantContent(t, root+"/emptydir", "x")
		wantContent(t, root+"/hard", "your")
		wantContent(t, root+"/full/x", "mine")
		if a, b := stat(t, root+"/file"), stat(t, root+"/hard"); a.Ino != b.Ino {
			t.Error("hard link is another file")
		}
		wantNothingElse(t, root, "dir", "emptydir", "fifo", "file", "full", "hard", "link", "tolink")
	})
}

func TestIncompleteFileLeavesNothing(t *testing.T) {
	variants(t, func(t *testing.T, o Options) {
		root := t.TempDir()
		r := open(t, root, o)
		f, err := r.File(file("a", "hello"))
		must(t, err)
		f.Write([]byte("hel"))
		if err := f.Commit(); err == nil {
			t.Error("a cut file was committed")
		}
		f.Close()
		if err := put(r, file("a", "hello"), "hello!"); err == nil {
			t.Error("a file too long was committed")
		}
		wantNothingElse(t, root)
		// What a killed run left does not stand in the way.
		must(t, os.WriteFile(root+"/"+tempName("a"), []byte("rest"), 0o600))
		must(t, put(r, file("a", "hello"), "hello"))
		if o.noTmpfile {
			wantNothingElse(t, root, "a")
		}
	})
}

// asNobody runs fn in a thread that is nobody, which ends with it.
func TestOpenFaults(t *testing.T) {
	tmp := t.TempDir()
	must(t, os.WriteFile(tmp+"/file", nil, 0o600))
	if _, err := Open(tmp+"/file", Options{}); err == nil {
		t.Error("a file was opened as a directory")
	}
	if _, err := Open(tmp+"/file/x", Options{}); err == nil {
		t.Error("a directory was made below a file")
	}
	must(t, os.Mkdir(tmp+"/real", 0o755))
	must(t, os.Symlink("real", tmp+"/alias"))
	r := open(t, tmp+"/alias", Options{})
	must(t, put(r, file("x", "x"), "x"))
	wantContent(t, tmp+"/real/x", "x")
}

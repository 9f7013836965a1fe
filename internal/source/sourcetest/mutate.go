package sourcetest

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// forMutate makes what Mutate changes the types of, renames and deletes.
func (b *builder) forMutate() {
	b.mkdir("change")
	for _, name := range []string{
		"same size", "same size and time", "grows", "shrinks", "to nothing", "mode", "time", "xattr", "owner", "touched", "to dir", "to link", "to fifo", "rename me", "delete me", "replaced",
		"torn off 1", "joins", "swap a", "swap b", "case",
	} {
		b.file("change/"+name, []byte("first version of "+name))
	}
	b.xattr("change/xattr", "user.keep", "1")
	b.xattr("change/xattr", "user.change", "1")
	b.xattr("change/xattr", "user.drop", "1")
	b.link("change/torn off 1", "change/torn off 2")
	b.link("change/torn off 1", "change/torn off 3")
	b.file("change/linked later", b.noise(100_000))
	b.file("change/pair 1a", []byte("pair 1"))
	b.link("change/pair 1a", "change/pair 1b")
	b.file("change/pair 2a", []byte("pair 2"))
	b.link("change/pair 2a", "change/pair 2b")
	b.symlink("one", "change/link")
	b.symlink("one", "change/link to file")
	b.symlink("one", "change/link to dir")
	b.fifo("change/fifo to file")
	for _, d := range []string{"change/dir to file", "change/dir to link", "change/rename dir", "change/rename dir/sub", "change/delete dir", "change/delete empty", "change/dir mode", "change/dir gains"} {
		b.mkdir(d)
	}
	for _, f := range []string{"change/dir to file/below", "change/dir to link/below", "change/rename dir/sub/file", "change/delete dir/file"} {
		b.file(f, []byte(f))
	}
	b.holes("change/hole filled", 1<<20, 0)
	b.holes("change/hole made", 1<<20, 0, 65536, 131072)
	b.holes("change/hole grows", 1<<20, 4096)
	b.file("change/becomes sparse", make([]byte, 1<<20))
}

// Mutate makes the second version out of Hostile's tree: every kind of change
// there is. As that, it always makes the same.
func Mutate(t testing.TB, dir string) {
	t.Helper()
	b := &builder{t: t, dir: filepath.Join(dir, "change"), root: os.Geteuid() == 0}
	b.mutateFiles()
	b.mutateTypes()
	b.mutateNames()
	b.mutateLinks()
	b.mutateHoles()

	// What is new, at the edges of the order.
	b.file("!new", []byte("sorts first"))
	b.mkdir("new dir")
	b.file("new dir/new", []byte("new"))
	b.file("dir gains/new", []byte("new"))
	b.file("\xff new", []byte("sorts last"))
	b.settle()
	for _, d := range []string{"dir gains", "dir mode", "to dir", "renamed dir", "."} {
		b.time(d, 1_700_000_000, 17)
	}
	top := &builder{t: t, dir: dir}
	top.must(os.Remove(top.path("names/new\nline")))
	top.file("names/order/a/b/0", []byte("between"))
	top.must(os.RemoveAll(top.path("names/order/a b")))
	for _, d := range []string{"names/order/a/b", "names/order", "names", "."} {
		top.time(d, 1_700_000_001, 18)
	}
}

func (b *builder) write(rel, content string) {
	b.t.Helper()
	b.must(os.WriteFile(b.path(rel), []byte(content), 0o644))
	b.time(rel, 1_700_000_100, int64(len(content)))
}

func (b *builder) mutateFiles() {
	b.write("same size", "other version of same size")
	var st unix.Stat_t
	b.must(unix.Lstat(b.path("same size and time"), &st))
	b.must(os.WriteFile(b.path("same size and time"), []byte("other version of same size and time"), 0o644))
	b.time("same size and time", st.Mtim.Sec, st.Mtim.Nsec)
	b.write("grows", "second version of grows, which has grown")
	b.write("shrinks", "small")
	b.write("to nothing", "")
	b.must(unix.Chmod(b.path("mode"), 0o4710))
	b.time("time", -5, 5)
	b.xattr("xattr", "user.change", "2")
	b.xattr("xattr", "user.new", "")
	b.must(unix.Lremovexattr(b.path("xattr"), "user.drop"))
	now := time.Unix(1_700_000_200, 0)
	b.must(os.Chtimes(b.path("touched"), now, now))
	if b.root {
		b.must(os.Lchown(b.path("owner"), 4321, 1234))
	}
	// Another inode with the same content, mode and time: only its inode tells.
	b.must(unix.Lstat(b.path("replaced"), &st))
	content, err := os.ReadFile(b.path("replaced"))
	b.must(err)
	b.must(os.WriteFile(b.path("replaced.new"), content, 0o644))
	b.time("replaced.new", st.Mtim.Sec, st.Mtim.Nsec)
	b.must(os.Rename(b.path("replaced.new"), b.path("replaced")))
	b.must(unix.Chmod(b.path("dir mode"), 0o2700))
}

func (b *builder) mutateTypes() {
	for _, name := range []string{"to dir", "to link", "to fifo", "link", "link to file", "link to dir", "fifo to file"} {
		b.must(os.Remove(b.path(name)))
	}
	for _, name := range []string{"dir to file", "dir to link"} {
		b.must(os.RemoveAll(b.path(name)))
	}
	b.mkdir("to dir")
	b.file("to dir/below", []byte("below what was a file"))
	b.symlink("same size", "to link")
	b.fifo("to fifo")
	b.symlink("two", "link")
	b.file("link to file", []byte("was a link"))
	b.mkdir("link to dir")
	b.file("link to dir/below", []byte("below what was a link"))
	b.file("fifo to file", []byte("was a fifo"))
	b.file("dir to file", []byte("was a directory"))
	b.symlink("to dir", "dir to link")
}

func (b *builder) mutateNames() {
	b.must(os.Rename(b.path("rename me"), b.path("renamed")))
	b.must(os.Rename(b.path("rename dir"), b.path("renamed dir")))
	b.must(os.Rename(b.path("case"), b.path("CASE")))
	b.must(os.Rename(b.path("swap a"), b.path("swap")))
	b.must(os.Rename(b.path("swap b"), b.path("swap a")))
	b.must(os.Rename(b.path("swap"), b.path("swap b")))
	b.must(os.Remove(b.path("delete me")))
	b.must(os.RemoveAll(b.path("delete dir")))
	b.must(os.Remove(b.path("delete empty")))
}

func (b *builder) mutateLinks() {
	// One of three names gets an inode of its own, with the same content.
	content, err := os.ReadFile(b.path("torn off 2"))
	b.must(err)
	b.must(os.Remove(b.path("torn off 2")))
	b.file("torn off 2", content)
	// A file joins a group, and is no longer what it was.
	b.must(os.Remove(b.path("joins")))
	b.link("torn off 1", "joins")
	// A file that was alone gets two more names, one before it in the order.
	b.link("linked later", "a link to linked later")
	b.link("linked later", "new dir link")
	// Two pairs swap partners.
	b.must(os.Remove(b.path("pair 1b")))
	b.must(os.Remove(b.path("pair 2b")))
	b.link("pair 1a", "pair 2b")
	b.link("pair 2a", "pair 1b")
}

func (b *builder) mutateHoles() {
	punch := func(rel string, size int64, data map[int64]string) {
		f, err := os.OpenFile(b.path(rel), os.O_WRONLY, 0)
		b.must(err)
		b.must(f.Truncate(size))
		for off, s := range data {
			_, err := f.WriteAt([]byte(s), off)
			b.must(err)
		}
		b.must(f.Close())
		b.time(rel, 1_700_000_300, 3)
	}
	b.must(os.WriteFile(b.path("hole filled"), make([]byte, 1<<20), 0o644))
	punch("hole filled", 1<<20, map[int64]string{500_000: "data in what was a hole"})
	f, err := os.OpenFile(b.path("hole made"), os.O_WRONLY, 0)
	b.must(err)
	// Not every file system can punch holes; zeros are as good for a reader.
	if err := unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 65536, 4096); err != nil {
		_, err := f.WriteAt(make([]byte, 4096), 65536)
		b.must(err)
	}
	b.must(f.Close())
	punch("hole made", 1<<20, nil)
	punch("hole grows", 4<<20, map[int64]string{3 << 20: "more"})
	b.must(os.Truncate(b.path("becomes sparse"), 0))
	punch("becomes sparse", 1<<20, map[int64]string{1 << 19: "x"})
}

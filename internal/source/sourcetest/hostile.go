// Package sourcetest has what tests of sources, and of whatever stores and
// restores trees, need: suites for source.Tree and source.Stream, a fixture of everything that
// is hard about file systems, a second version of it with every kind of change, and a comparison of
// two trees. It is imported by tests only.
package sourcetest

import (
	"bytes"
	"encoding/binary"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// Part is a part of the fixture that a test may have to do without.
type Part string

// Deep is the directory "deep", whose paths are longer than PATH_MAX: most
// programs (rsync, GNU tar) cannot handle them.
const Deep Part = "deep"

// FrameSize is the raw size of a frame, of which some files' sizes are multiples.
const FrameSize = 4 << 20

// Hostile fills the directory dir, which it makes if need be, with the fixture. It
// always makes the same, apart from change times and inode numbers, so that two of them do not Diff. Not as
// root it leaves out what only root can make, or read.
func Hostile(t testing.TB, dir string, without ...Part) {
	t.Helper()
	b := &builder{t: t, dir: dir, root: os.Geteuid() == 0, random: rand.New(rand.NewChaCha8([32]byte{1}))}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	Removable(t, dir)
	b.names()
	b.links()
	b.sparse()
	b.sizes()
	b.attributes()
	b.times()
	b.forMutate()
	if b.root {
		b.onlyRoot()
	}
	deep := true
	for _, p := range without {
		deep = deep && p != Deep
	}
	if deep {
		b.deep()
	}
	b.settle()
}

// Removable has the directories below dir made writable at the end of the test, so that
// not only root can remove them.
func Removable(t testing.TB, dir string) {
	if os.Geteuid() == 0 {
		return
	}
	t.Cleanup(func() {
		// What this does not reach, it leaves to whoever removes it to complain about.
		_ = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				_ = os.Chmod(path, 0o700)
			}
			return nil
		})
	})
}

// builder makes files. It fails the test where it cannot.
type builder struct {
	t      testing.TB
	dir    string
	root   bool
	random *rand.Rand
	dirs   []string // made, in this order
}

func (b *builder) path(rel string) string { return filepath.Join(b.dir, rel) }

func (b *builder) must(err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
}

func (b *builder) mkdir(rel string) {
	b.t.Helper()
	b.must(os.Mkdir(b.path(rel), 0o755))
	b.dirs = append(b.dirs, rel)
}

// file makes a file with a time that depends on its name alone.
func (b *builder) file(rel string, content []byte) {
	b.t.Helper()
	b.must(os.WriteFile(b.path(rel), content, 0o644))
	b.time(rel, 1_600_000_000+int64(len(rel))*1000+int64(len(content)), int64(len(rel))*7_654_321%1_000_000_000)
}

func (b *builder) symlink(target, rel string) {
	b.t.Helper()
	b.must(os.Symlink(target, b.path(rel)))
	b.time(rel, 1_500_000_000+int64(len(target)), 42)
}

func (b *builder) link(old, rel string) {
	b.t.Helper()
	b.must(unix.Linkat(unix.AT_FDCWD, b.path(old), unix.AT_FDCWD, b.path(rel), 0))
}

func (b *builder) fifo(rel string) {
	b.t.Helper()
	b.must(unix.Mkfifo(b.path(rel), 0o640))
	b.time(rel, 1_400_000_000, 1)
}

func (b *builder) time(rel string, sec, nsec int64) {
	b.t.Helper()
	ts := []unix.Timespec{{Sec: sec, Nsec: nsec}, {Sec: sec, Nsec: nsec}}
	b.must(unix.UtimesNanoAt(unix.AT_FDCWD, b.path(rel), ts, unix.AT_SYMLINK_NOFOLLOW))
}

func (b *builder) xattr(rel, name, value string) {
	b.t.Helper()
	if err := unix.Lsetxattr(b.path(rel), name, []byte(value), 0); err != nil {
		b.t.Fatalf("set xattr %s of %s: %v", name, rel, err)
	}
}

func (b *builder) noise(n int) []byte {
	p := make([]byte, n)
	for i := 0; i+8 <= n; i += 8 {
		binary.LittleEndian.PutUint64(p[i:], b.random.Uint64())
	}
	return p
}

// settle gives directories times of their own, the last made first.
func (b *builder) settle() {
	for i := len(b.dirs) - 1; i >= 0; i-- {
		b.time(b.dirs[i], 1_300_000_000+int64(i), int64(i)*1001)
	}
	b.time(".", 1_300_000_000, 999_999_999)
}

func (b *builder) names() {
	b.mkdir("names")
	for _, name := range []string{
		"new\nline", "-rf", "--help", "-", " ", " leading", "trailing ", "tab\t", "cr\r", "quote'\"", "back\\slash", "$HOME `x` ;", "*?[a]{b}",
		"\x01\x7f", "invalid \xff\xfe utf8", "\xc3", "\xed\xa0\x80", "caf\u00e9", "cafe\u0301", "\u212b", "\u00c5", "A\u030a", "\U0001f9ca",
		strings.Repeat("n", 255), strings.Repeat("\u00e9", 127), "x=y%3D%", "#hash", "!bang", "~", ".hidden", "..x", "...", "con", "a:b", "UPPER", "upper",
	} {
		b.file("names/"+name, []byte(name))
	}
	// Order: '/' sorts before every other byte.
	b.mkdir("names/order")
	for _, name := range []string{"a", "a/b", "a/b/c", "b", "a-b", "a.b", "a b"} {
		b.mkdir("names/order/" + name)
	}
	for _, name := range []string{"a/a", "a/b-c", "a/b.c", "a/b/c-d", "a-b/z", "a b/z", "a!", "a0", "a\x01", "b/a", "aa"} {
		b.file("names/order/"+name, []byte(name))
	}
	b.mkdir("names/empty")
	b.mkdir("names/" + strings.Repeat("d", 255))
	b.file("names/"+strings.Repeat("d", 255)+"/"+strings.Repeat("f", 255), []byte("long"))
	b.mkdir("names/\xff dir")
	b.file("names/\xff dir/\xfe", []byte("bytes"))
}

func (b *builder) links() {
	b.mkdir("links")
	for _, d := range []string{"links/one", "links/two", "links/three"} {
		b.mkdir(d)
	}
	b.symlink("nowhere", "links/dangling")
	b.symlink("/etc/passwd", "links/absolute")
	b.symlink("../names", "links/dir")
	b.symlink("links", "links/self")
	b.symlink("../../../../../../../../..", "links/up")
	b.symlink("new\nline \xff", "links/bytes")
	b.symlink(strings.Repeat("l/", 2000)+"end", "links/long")
	b.symlink(".", "links/dot")
	b.symlink("trailing/", "links/slash")

	b.file("links/one/shared", []byte("three names, one inode"))
	b.link("links/one/shared", "links/two/shared")
	b.link("links/one/shared", "links/three/another name")
	b.file("links/one/empty", nil)
	b.link("links/one/empty", "links/two/empty")
	b.symlink("shared", "links/one/symlink")
	b.link("links/one/symlink", "links/two/symlink")
	b.fifo("links/one/fifo")
	b.link("links/one/fifo", "links/three/fifo")
	b.file("links/one/big", b.noise(300_000))
	b.link("links/one/big", "links/one/big too")
	b.link("links/one/big", "links/three/\xff big")
	// The same content, but not the same inode.
	b.file("links/two/not shared", []byte("three names, one inode"))
}

func (b *builder) holes(rel string, size int64, at ...int64) {
	b.t.Helper()
	f, err := os.OpenFile(b.path(rel), os.O_CREATE|os.O_WRONLY|os.O_EXCL, 0o644)
	b.must(err)
	b.must(f.Truncate(size))
	for _, off := range at {
		_, err := f.WriteAt(b.noise(4096), off)
		b.must(err)
	}
	b.must(f.Truncate(size))
	b.must(f.Close())
	b.time(rel, 1_450_000_000+size&0xffff, 5)
}

func (b *builder) sparse() {
	b.mkdir("sparse")
	b.holes("sparse/all hole", 8<<20)
	b.holes("sparse/at start", 1<<20, 1<<20-4096)
	b.holes("sparse/at end", 1<<20+1, 0)
	b.holes("sparse/in the middle", 3<<20, 0, 3<<20-4096)
	b.holes("sparse/odd end", 1<<20+777, 1<<20-4096)
	b.holes("sparse/small", 40<<10)
	var many []int64
	for i := range int64(1500) {
		many = append(many, i*16384)
	}
	b.holes("sparse/many extents", 1500*16384, many...)
	b.holes("sparse/\xff linked", 2<<20, 1<<20)
	b.link("sparse/\xff linked", "links/sparse")
}

func (b *builder) sizes() {
	b.mkdir("sizes")
	b.file("sizes/0", nil)
	for _, n := range []int{1, 511, 512, 513, 4095, 4096, 65536, 1 << 20} {
		b.file("sizes/"+strconv.Itoa(n), b.noise(n))
	}
	b.file("sizes/frame", b.noise(FrameSize))
	b.file("sizes/frame-1", b.noise(FrameSize-1))
	b.file("sizes/frame+1", append(b.noise(FrameSize), 'x'))
	b.file("sizes/two frames", b.noise(2*FrameSize))
	b.file("sizes/zeros", make([]byte, 1<<20))
	b.file("sizes/text", bytes.Repeat([]byte("The quick brown fox jumps over the lazy dog.\n"), 20000))
	b.mkdir("sizes/many")
	for i := range 300 {
		b.file("sizes/many/"+strconv.Itoa(i), []byte(strconv.Itoa(i*i)))
	}
}

package reader_test

import (
	"bytes"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/firn-backup/firn/internal/snapshot"
	"github.com/firn-backup/firn/internal/tarstream"
)

// noise is data that does not compress.
func noise(seed uint64, size int) []byte {
	b := make([]byte, size)
	r := rand.NewChaCha8([32]byte{byte(seed)})
	_, _ = r.Read(b)
	return b
}

func entry(path string, typ snapshot.Type, mode uint32) node {
	e := snapshot.Entry{Path: path, Type: typ, Mode: mode, UID: uint32(os.Getuid()), GID: uint32(os.Getgid()), MTime: snapshot.Time{Sec: 1_700_000_000, Nsec: int32(len(path)) * 1001}}
	return node{e: e}
}

func file(path string, data []byte) change {
	n := entry(path, snapshot.File, 0o644)
	n.data = data
	return change{node: n}
}

func dir(path string) change { return change{node: entry(path, snapshot.Dir, 0o755)} }

func deleted(path string) change { return change{node: entry(path, 0, 0), deleted: true} }

func (c change) with(f func(e *snapshot.Entry)) change {
	f(&c.e)
	return c
}

func group(name string) func(*snapshot.Entry) {
	return func(e *snapshot.Entry) { e.LinkGroup = name }
}

func day(d int) time.Time { return time.Date(2026, 11, d, 12, 0, 0, 500_000_000, time.UTC) }

// story makes a full and two incrementals, in which about everything happens
// that can, and returns the tree as it is after each.
func (v *vault) story(t *testing.T) []tree {
	t.Helper()
	root := os.Geteuid() == 0
	first := []change{
		dir("home/me"), dir("home/me/empty").with(func(e *snapshot.Entry) { e.Mode = 0o1700 }),
		file("home/me/a file", []byte("first\n")), file("home/me/-rf", nil), file("home/me/\xff\xfe", []byte("not UTF-8")),
		file("home/me/new\nline \"\\\u2028\x01", []byte("odd")), file("home/me/unchanged", noise(1, 20_000)),
		file("home/me/chmod me", []byte("meta")).with(func(e *snapshot.Entry) { e.Mode = 0o600 }),
		file("home/me/large", noise(2, 350_000)), // over volumes 1 to 4
		file("home/me/before 1970", []byte("old")).with(func(e *snapshot.Entry) { e.MTime = snapshot.Time{Sec: -2, Nsec: 5} }),
		file("home/me/hard1", []byte("hard")).with(group("1")),
		{node: entry("home/me/hard2", snapshot.File, 0o644), linkTo: "home/me/hard1"},
		dir("home/me/dir to file"), file("home/me/dir to file/x", []byte("x")), file("home/me/file to dir", []byte("y")),
		dir("home/me/gone"), dir("home/me/gone/below"), file("home/me/gone/below/z", []byte("z")), file("home/me/gone-", []byte("not below")),
		{node: entry("home/me/pipe", snapshot.Fifo, 0o600)},
		change{node: entry("home/me/link", snapshot.Symlink, 0o777)}.with(func(e *snapshot.Entry) { e.Link = "/nowhere/\xff" }),
		file("home/me/rewritten", noise(3, 70_000)),
	}
	first[slices.IndexFunc(first, func(c change) bool { return c.linkTo != "" })].e.LinkGroup = "1"
	sparse := file("home/me/sparse", noise(4, 5000))
	sparse.e.Size, sparse.extents = 10<<20, []tarstream.Extent{{Offset: 4096, Size: 4096}, {Offset: 5 << 20, Size: 904}}
	hole := file("home/me/hole", nil)
	hole.e.Size, hole.extents = 1<<20, []tarstream.Extent{}
	first = append(first, sparse, hole)
	if root {
		first = append(first,
			change{node: entry("home/me/null", snapshot.CharDev, 0o666)}.with(func(e *snapshot.Entry) { e.Major, e.Minor = 1, 3 }),
			file("home/me/owned", []byte("o")).with(func(e *snapshot.Entry) {
				e.UID, e.GID, e.Mode = 4_000_000_000, 12345, 0o4755
				e.Xattrs = []snapshot.Xattr{{Name: "trusted.firn", Value: "\x00\xff"}, {Name: "user.empty"}}
			}))
	}
	full := v.snapshot(t, day(1), first...)

	second := []change{
		dir("home/me"), file("home/me/a file", []byte("second, and longer\n")), file("home/me/new", noise(5, 150_000)),
		change{node: full["home/me/chmod me"], meta: true}.with(func(e *snapshot.Entry) { e.Mode, e.MTime.Sec = 0o755, e.MTime.Sec+1 }),
		change{node: full["home/me/sparse"], meta: true}.with(func(e *snapshot.Entry) { e.MTime.Sec++ }),
		deleted("home/me/dir to file/x"), file("home/me/dir to file", []byte("now a file")),
		dir("home/me/file to dir"), file("home/me/file to dir/w", []byte("w")),
		deleted("home/me/gone"), deleted("home/me/gone/below"), deleted("home/me/gone/below/z"),
		// A third name comes to the inode, so all of them have changed.
		change{node: full["home/me/hard1"], meta: true}.with(group("7")), change{node: full["home/me/hard2"], meta: true}.with(group("7")),
		{node: entry("home/me/hard3", snapshot.File, 0o644), linkTo: "home/me/hard1"},
		file("home/me/rewritten", noise(6, 70_000)),
	}
	second[len(second)-2].e.LinkGroup, second[len(second)-2].e.MTime = "7", full["home/me/hard1"].e.MTime
	incremental := v.snapshot(t, day(2), second...)

	// One name goes; the others are told again, for their inode has changed. Nothing is in the stream.
	last := v.snapshot(t, day(3), deleted("home/me/hard1"),
		change{node: incremental["home/me/hard2"], meta: true}, change{node: incremental["home/me/hard3"], meta: true},
		change{node: incremental["home/me/new"], meta: true}.with(func(e *snapshot.Entry) { e.Mode = 0o400 }))
	return []tree{full, incremental, last}
}

// compare fails unless dir holds exactly the tree.
func (want tree) compare(t *testing.T, root string) {
	t.Helper()
	want.walk(t, root, func(e *snapshot.Entry, st *unix.Stat_t, full string) {
		got := snapshot.Entry{
			Path: e.Path, Type: typeOf(st.Mode), Mode: st.Mode & 0o7777, UID: st.Uid, GID: st.Gid, User: e.User, Group: e.Group,
			MTime: snapshot.Time{Sec: st.Mtim.Sec, Nsec: int32(st.Mtim.Nsec)}, LinkGroup: e.LinkGroup, Link: e.Link, Content: e.Content,
		}
		if got.Type == snapshot.File {
			got.Size = st.Size
		}
		if got.Type == snapshot.CharDev {
			got.Major, got.Minor = unix.Major(st.Rdev), unix.Minor(st.Rdev)
		}
		for _, x := range e.Xattrs {
			value := make([]byte, 100)
			n, err := unix.Lgetxattr(full, x.Name, value)
			if err != nil {
				t.Errorf("%q: %s: %v", e.Path, x.Name, err)
				continue
			}
			got.Xattrs = append(got.Xattrs, snapshot.Xattr{Name: x.Name, Value: string(value[:n])})
		}
		if diff := cmp.Diff(*e, got); diff != "" {
			t.Errorf("%q: %s", e.Path, diff)
		}
	})
}

// compareContent fails unless dir holds the tree's names, with the right contents.
func (want tree) compareContent(t *testing.T, root string) {
	t.Helper()
	want.walk(t, root, func(*snapshot.Entry, *unix.Stat_t, string) {})
}

func (want tree) walk(t *testing.T, root string, fn func(e *snapshot.Entry, st *unix.Stat_t, full string)) {
	t.Helper()
	seen := 0
	inodes := map[string]uint64{}
	err := filepath.WalkDir(root, func(full string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		p := strings.TrimPrefix(strings.TrimPrefix(full, root), "/")
		if p == "" || p == "home" { // no entry
			return nil
		}
		n, ok := want[p]
		if !ok {
			t.Errorf("%q is too many", p)
			return nil
		}
		seen++
		var st unix.Stat_t
		if err := unix.Lstat(full, &st); err != nil {
			return err
		}
		if typeOf(st.Mode) != n.e.Type {
			t.Errorf("%q is of type %c, not %c", p, typeOf(st.Mode), n.e.Type)
			return nil
		}
		switch n.e.Type {
		case snapshot.File:
			n.compareFile(t, full, &st)
		case snapshot.Symlink:
			if target, err := os.Readlink(full); err != nil || target != n.e.Link {
				t.Errorf("%q leads to %q, %v", p, target, err)
			}
		}
		if g := n.e.LinkGroup; g != "" {
			if ino, ok := inodes[g]; ok && ino != st.Ino {
				t.Errorf("%q is not linked to the others of %q", p, g)
			}
			inodes[g] = st.Ino
		} else if st.Nlink != 1 && n.e.Type != snapshot.Dir {
			t.Errorf("%q has %d names", p, st.Nlink)
		}
		fn(&n.e, &st, full)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if seen != len(want) {
		t.Errorf("%d entries instead of %d", seen, len(want))
	}
}

func (n *node) compareFile(t *testing.T, full string, st *unix.Stat_t) {
	t.Helper()
	got, err := os.ReadFile(full)
	if err != nil {
		t.Error(err)
		return
	}
	data := n.data
	if n.extents != nil {
		whole, from := make([]byte, n.e.Size), data
		for _, x := range n.extents {
			copy(whole[x.Offset:], from[:x.Size])
			from = from[x.Size:]
		}
		data = whole
		if st.Blocks*512 > 64<<10 {
			t.Errorf("%q takes %d bytes on disk", n.e.Path, st.Blocks*512)
		}
	}
	if !bytes.Equal(got, data) {
		t.Errorf("%q: the content differs", n.e.Path)
	}
}

func typeOf(mode uint32) snapshot.Type {
	return map[uint32]snapshot.Type{
		unix.S_IFREG: snapshot.File, unix.S_IFDIR: snapshot.Dir, unix.S_IFLNK: snapshot.Symlink,
		unix.S_IFIFO: snapshot.Fifo, unix.S_IFCHR: snapshot.CharDev, unix.S_IFBLK: snapshot.BlkDev,
	}[mode&unix.S_IFMT]
}

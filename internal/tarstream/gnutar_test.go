package tarstream

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/firn-backup/firn/internal/mustrun"
	"github.com/firn-backup/firn/internal/snapshot"
)

// member is one member of a tar stream that GNU tar is to extract.
type member struct {
	e       snapshot.Entry
	content []byte
	extents []Extent // of a sparse file, with content their bytes
	sparse  bool
	linkTo  string
}

// acl is a POSIX ACL in the kernel's form, from tag, permissions, id triples.
func acl(entries ...uint32) string {
	b := []byte{2, 0, 0, 0}
	for i := 0; i < len(entries); i += 3 {
		id := entries[i+2]
		b = append(b, byte(entries[i]), 0, byte(entries[i+1]), 0, byte(id), byte(id>>8), byte(id>>16), byte(id>>24))
	}
	return string(b)
}

const noID = 0xffffffff

// hostile is everything an ext4 or a tmpfs with extended attributes can hold.
func hostile() []member {
	access := acl(1, 6, noID, 2, 7, 54321, 4, 4, noID, 8, 1, 4000000000, 16, 7, noID, 32, 0, noID)
	def := acl(1, 7, noID, 2, 5, 1234, 4, 5, noID, 16, 5, noID, 32, 5, noID)
	capability := "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00" // cap_net_raw+ep
	long := strings.Repeat("n", 255)
	file := func(path string) snapshot.Entry {
		return snapshot.Entry{Path: path, Type: snapshot.File, Mode: 0o644, MTime: snapshot.Time{Sec: 1700000000, Nsec: 1}}
	}
	with := func(e snapshot.Entry, change func(*snapshot.Entry)) snapshot.Entry { change(&e); return e }
	dir := func(path string) member {
		return member{e: snapshot.Entry{Path: path, Type: snapshot.Dir, Mode: 0o755, MTime: snapshot.Time{Sec: -77, Nsec: 999999999}}}
	}
	m := []member{
		dir("d"), dir("d/" + long), dir("d/" + long + "/" + long),
		{e: file("d/plain"), content: []byte("plain")},
		{e: file("-rf"), content: []byte("dash")},
		{e: file("d/new\nline"), content: bytes.Repeat([]byte("x"), 512)},
		{e: file("d/\xff\xfe\x80"), content: bytes.Repeat([]byte("y"), 513)},
		{e: file("d/e\u0301 \u00e9")},
		{e: file("d/" + long + "/" + long + "/" + long), content: []byte("deep")},
		{e: with(file("d/old"), func(e *snapshot.Entry) { e.MTime = snapshot.Time{Sec: -1, Nsec: 500000000} })},
		{e: with(file("d/older"), func(e *snapshot.Entry) { e.MTime = snapshot.Time{Sec: -2000000000, Nsec: 0} })},
		{e: with(file("d/future"), func(e *snapshot.Entry) { e.MTime = snapshot.Time{Sec: 1<<33 + 5, Nsec: 123456789} })},
		{e: with(file("d/owned"), func(e *snapshot.Entry) { e.UID, e.GID, e.User, e.Group = 4000000000, 2097153, "who", "\xfcn" })},
		{e: with(file("d/setuid"), func(e *snapshot.Entry) { e.Mode = 0o7751 })},
		{e: with(file("d/none"), func(e *snapshot.Entry) { e.Mode = 0 })},
		{e: with(file("d/xattrs"), func(e *snapshot.Entry) {
			e.Xattrs = []snapshot.Xattr{
				{Name: "security.capability", Value: capability}, {Name: "trusted.t", Value: "t"}, {Name: "user.a=b%c", Value: "="},
				{Name: "user.big", Value: strings.Repeat("v", 2000)}, {Name: "user.binary", Value: "\x00\xff\n=\x00"}, {Name: "user.empty", Value: ""},
			}
		})},
		{e: with(file("d/acl"), func(e *snapshot.Entry) {
			e.Mode, e.Xattrs = 0o670, []snapshot.Xattr{{Name: "system.posix_acl_access", Value: access}}
		})},
		{e: with(dir("d/default").e, func(e *snapshot.Entry) {
			e.Mode, e.Xattrs = 0o670, []snapshot.Xattr{{Name: "system.posix_acl_access", Value: access}, {Name: "system.posix_acl_default", Value: def}}
		})},
		{e: with(file("d/link"), func(e *snapshot.Entry) { e.Type, e.Mode, e.Link = snapshot.Symlink, 0o777, "/nowhere/\xff\n" })},
		{e: with(file("d/longlink"), func(e *snapshot.Entry) {
			e.Type, e.Mode, e.Link = snapshot.Symlink, 0o777, strings.Repeat("../", 1000)
		})},
		{e: with(file("d/fifo"), func(e *snapshot.Entry) { e.Type = snapshot.Fifo })},
		{e: with(file("d/null"), func(e *snapshot.Entry) { e.Type, e.Major, e.Minor = snapshot.CharDev, 1, 3 })},
		{e: with(file("d/blk"), func(e *snapshot.Entry) { e.Type, e.Major, e.Minor = snapshot.BlkDev, 4095, 1<<20-1 })},
		{e: file("d/z hard"), linkTo: "d/plain"},
		{e: file("d/z hard\xff"), linkTo: "d/" + long + "/" + long + "/" + long},
		{e: file("d/z fifo"), linkTo: "d/fifo"},
		{e: file("d/z link"), linkTo: "d/link"},
	}
	m[len(m)-2].e.Type, m[len(m)-1].e.Type, m[len(m)-1].e.Link = snapshot.Fifo, snapshot.Symlink, "/nowhere/\xff\n"
	for i := range m {
		if m[i].e.Type == snapshot.File {
			m[i].e.Size = int64(len(m[i].content))
		}
	}
	sparse := func(path string, size int64, extents ...Extent) {
		x := member{e: file(path), extents: extents, sparse: true}
		x.e.Size = size
		for i, e := range extents {
			x.content = append(x.content, bytes.Repeat([]byte{byte(i + 1)}, int(e.Size))...)
		}
		m = append(m, x)
	}
	var many []Extent
	for i := range 2000 {
		many = append(many, Extent{int64(i) * 8192, 4096})
	}
	sparse("d/all hole", 5<<30)
	sparse("d/start", 5<<30+100, Extent{5 << 30, 100})
	sparse("d/end", 5<<30, Extent{0, 10})
	sparse("d/middle", 5<<30+4096, Extent{0, 4096}, Extent{5 << 30, 4096})
	sparse("d/"+long+"/"+long+"/sparse "+long[:200], 1<<20, Extent{8192, 4096})
	sparse("d/\xfe sparse\n", 1<<33, Extent{1 << 32, 4097})
	sparse("d/many", 2000*8192, many...)
	slices.SortFunc(m, func(a, b member) int { return snapshot.ComparePaths(a.e.Path, b.e.Path) })
	return m
}

// TestGNUTar has Debian's tar restore all of it, and compares what the file
// system then says.
func TestGNUTar(t *testing.T) {
	t.Parallel()
	mustrun.Root(t)
	mustrun.Tool(t, "tar")
	members := hostile()
	var b []byte
	for i := range members {
		m := &members[i]
		content := m.content
		if m.sparse {
			content = append(AppendSparseMap(nil, m.extents, m.e.Size), content...)
		}
		var err error
		if b, err = AppendHeader(b, &m.e, int64(len(content)), m.sparse, m.linkTo); err != nil {
			t.Fatal(err)
		}
		b = append(b, content...)
		b = append(b, Trailer[:Padding(int64(len(content)))]...)
	}
	b = append(b, Trailer[:]...)

	dir := t.TempDir()
	cmd := exec.Command("tar", "-x", "-p", "-f", "-", "--xattrs", "--xattrs-include=*", "--acls", "--numeric-owner", "--warning=no-timestamp", "-C", dir)
	cmd.Stdin = bytes.NewReader(b)
	if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
		t.Fatalf("tar: %v\n%s", err, out)
	}
	byPath := make(map[string]*member)
	for i := range members {
		byPath[members[i].e.Path] = &members[i]
	}
	for i := range members {
		m := &members[i]
		want, content, extents := m.e, m.content, m.extents
		if m.linkTo != "" {
			first := byPath[m.linkTo]
			if !sameInode(t, filepath.Join(dir, m.e.Path), filepath.Join(dir, m.linkTo)) {
				t.Errorf("%q is not linked to %q", m.e.Path, m.linkTo)
			}
			want, content, extents = first.e, first.content, first.extents
			want.Path = m.e.Path
		}
		want.User, want.Group = "", ""
		got := lstat(t, dir, m.e.Path)
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("want -, got +\n%s", d)
		}
		if want.Type == snapshot.File {
			sameContent(t, filepath.Join(dir, m.e.Path), want.Size, content, extents)
		}
	}
}

func sameInode(t *testing.T, a, b string) bool {
	var x, y unix.Stat_t
	if err := errors.Join(unix.Lstat(a, &x), unix.Lstat(b, &y)); err != nil {
		t.Error(err)
	}
	return x.Dev == y.Dev && x.Ino == y.Ino
}

func lstat(t *testing.T, dir, path string) snapshot.Entry {
	full := filepath.Join(dir, path)
	var st unix.Stat_t
	if err := unix.Lstat(full, &st); err != nil {
		t.Errorf("lstat %q: %v", path, err)
	}
	e := snapshot.Entry{Path: path, Mode: st.Mode & 0o7777, UID: st.Uid, GID: st.Gid, MTime: snapshot.Time{Sec: st.Mtim.Sec, Nsec: int32(st.Mtim.Nsec)}}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		e.Type, e.Size = snapshot.File, st.Size
	case unix.S_IFDIR:
		e.Type = snapshot.Dir
	case unix.S_IFLNK:
		e.Type = snapshot.Symlink
		e.Link, _ = os.Readlink(full)
	case unix.S_IFIFO:
		e.Type = snapshot.Fifo
	case unix.S_IFCHR, unix.S_IFBLK:
		e.Type = snapshot.CharDev
		if st.Mode&unix.S_IFMT == unix.S_IFBLK {
			e.Type = snapshot.BlkDev
		}
		e.Major, e.Minor = unix.Major(st.Rdev), unix.Minor(st.Rdev)
	}
	list, value := make([]byte, 65536), make([]byte, 65536)
	n, err := unix.Llistxattr(full, list)
	if err != nil {
		t.Errorf("list xattrs of %q: %v", path, err)
	}
	for _, name := range strings.FieldsFunc(string(list[:n]), func(r rune) bool { return r == 0 }) {
		n, err := unix.Lgetxattr(full, name, value)
		if err != nil {
			t.Errorf("xattr %s of %q: %v", name, path, err)
		}
		e.Xattrs = append(e.Xattrs, snapshot.Xattr{Name: name, Value: string(value[:n])})
	}
	slices.SortFunc(e.Xattrs, func(a, b snapshot.Xattr) int { return strings.Compare(a.Name, b.Name) })
	return e
}

// sameContent compares the extents' bytes, and that little more than these
// takes room on disk: what is left is holes.
func sameContent(t *testing.T, path string, size int64, content []byte, extents []Extent) {
	f, err := os.Open(path)
	if err != nil {
		t.Error(err)
		return
	}
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		t.Error(err)
	}
	if room := int64(len(content) + 8192*(len(extents)+2)); st.Blocks*512 > room && extents != nil {
		t.Errorf("%q takes %d bytes on disk, for %d of data", path, st.Blocks*512, len(content))
	}
	if extents == nil && int64(len(content)) == size {
		extents = []Extent{{0, size}}
	}
	for _, x := range extents {
		got := make([]byte, x.Size)
		if _, err := f.ReadAt(got, x.Offset); err != nil {
			t.Error(err)
		}
		if !bytes.Equal(got, content[:x.Size]) {
			t.Errorf("%q differs in %v", path, x)
		}
		content = content[x.Size:]
	}
}

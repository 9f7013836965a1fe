package sourcetest

import (
	"encoding/binary"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// ACL makes a POSIX ACL in the kernel's form out of tag, permissions and id
// triples. Tags: 1 owner, 2 user, 4 group, 8 named group, 16 mask, 32 others.
func ACL(entries ...uint32) string {
	b := binary.LittleEndian.AppendUint32(nil, 2)
	for i := 0; i+2 < len(entries); i += 3 {
		b = binary.LittleEndian.AppendUint16(b, uint16(entries[i]))
		b = binary.LittleEndian.AppendUint16(b, uint16(entries[i+1]))
		b = binary.LittleEndian.AppendUint32(b, entries[i+2])
	}
	return string(b)
}

// NoID stands for the id of an ACL's entry that has none.
const NoID = ^uint32(0)

func (b *builder) attributes() {
	b.mkdir("attributes")
	b.file("attributes/xattrs", []byte("with attributes"))
	b.xattr("attributes/xattrs", "user.empty", "")
	b.xattr("attributes/xattrs", "user.binary", "\x00\xff\n=\x00")
	b.xattr("attributes/xattrs", "user.big", strings.Repeat("big ", 500))
	b.xattr("attributes/xattrs", "user.\u00e9 =%", "name")
	b.mkdir("attributes/dir")
	b.xattr("attributes/dir", "user.dir", "of a directory")

	access := ACL(1, 6, NoID, 2, 7, 54321, 4, 4, NoID, 8, 1, 4_000_000, 16, 7, NoID, 32, 0, NoID)
	b.file("attributes/acl", []byte("acl"))
	b.xattr("attributes/acl", "system.posix_acl_access", access)
	b.mkdir("attributes/acl dir")
	b.xattr("attributes/acl dir", "system.posix_acl_access", ACL(1, 7, NoID, 2, 5, 54321, 4, 0, NoID, 16, 5, NoID, 32, 1, NoID))
	b.xattr("attributes/acl dir", "system.posix_acl_default", ACL(1, 7, NoID, 2, 5, 1234, 4, 5, NoID, 16, 5, NoID, 32, 5, NoID))
	b.mkdir("attributes/default only")
	b.xattr("attributes/default only", "system.posix_acl_default", ACL(1, 7, NoID, 4, 0, NoID, 32, 0, NoID))
	b.mkdir("attributes/default only/below") // inherits
	b.file("attributes/default only/file", []byte("inherits"))

	for mode, name := range map[uint32]string{
		0o4755: "setuid", 0o2755: "setgid", 0o1644: "sticky", 0o7777: "all", 0o444: "read only", 0o400: "owner only", 0o755: "executable",
	} {
		b.file("attributes/"+name, []byte(name))
		b.must(unix.Chmod(b.path("attributes/"+name), mode))
	}
	b.mkdir("attributes/sticky dir")
	b.must(unix.Chmod(b.path("attributes/sticky dir"), 0o1777))
	b.mkdir("attributes/setgid dir")
	b.must(unix.Chmod(b.path("attributes/setgid dir"), 0o2750))
	b.mkdir("attributes/read-only dir")
	b.file("attributes/read-only dir/file", []byte("in a directory that cannot be written to"))
	b.must(unix.Chmod(b.path("attributes/read-only dir"), 0o555))
	b.fifo("attributes/fifo")
}

func (b *builder) times() {
	b.mkdir("times")
	for name, ts := range map[string]unix.Timespec{
		"epoch": {}, "one ns": {Nsec: 1}, "before 1970": {Sec: -1, Nsec: 500_000_000}, "1902": {Sec: -2_145_000_000, Nsec: 999_999_999},
		"2038": {Sec: 1<<31 + 1, Nsec: 3}, "2242": {Sec: 1<<33 + 12345, Nsec: 123_456_789}, "ns": {Sec: 1_234_567_890, Nsec: 987_654_321},
	} {
		b.file("times/"+name, []byte(name))
		b.time("times/"+name, ts.Sec, ts.Nsec)
		b.symlink(name, "times/link to "+name)
		b.time("times/link to "+name, ts.Sec, ts.Nsec)
	}
}

func (b *builder) onlyRoot() {
	b.mkdir("root")
	b.must(unix.Mknod(b.path("root/null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))))
	b.must(unix.Mknod(b.path("root/block"), unix.S_IFBLK|0o600, int(unix.Mkdev(4095, 1<<20-1))))
	b.must(unix.Mknod(b.path("root/char"), unix.S_IFCHR|0o600, int(unix.Mkdev(300, 70000))))
	for _, name := range []string{"null", "block", "char"} {
		b.time("root/"+name, 1_200_000_000, 7)
	}
	b.link("root/char", "root/char too")
	for name, id := range map[string]int{"daemon": 1, "nobody": 65534, "no name": 54321, "large": 1<<21 + 3, "huge": 4_000_000_000} {
		b.file("root/"+name, []byte(name))
		b.must(os.Lchown(b.path("root/"+name), id, id))
		b.symlink(name, "root/link of "+name)
		b.must(os.Lchown(b.path("root/link of "+name), id, id))
	}
	b.mkdir("root/owned dir")
	b.must(os.Lchown(b.path("root/owned dir"), 54321, 12345))
	b.file("root/mode 000", []byte("nobody but root reads this"))
	b.must(unix.Chmod(b.path("root/mode 000"), 0))
	b.mkdir("root/mode 000 dir")
	b.file("root/mode 000 dir/file", []byte("nor this"))
	b.must(unix.Chmod(b.path("root/mode 000 dir"), 0))
	b.file("root/setuid of daemon", []byte("chown comes before chmod"))
	b.must(os.Lchown(b.path("root/setuid of daemon"), 1, 1))
	b.must(unix.Chmod(b.path("root/setuid of daemon"), 0o6755))
	b.file("root/capability", []byte("#!/bin/true\n"))
	b.must(os.Lchown(b.path("root/capability"), 1, 1))
	b.xattr("root/capability", "security.capability", "\x01\x00\x00\x02\x00\x20\x00\x00"+strings.Repeat("\x00", 12)) // cap_net_raw+ep
	b.xattr("root/capability", "trusted.firn", "only root sees this")
	b.symlink("capability", "root/link with attribute")
	b.xattr("root/link with attribute", "trusted.link", "a link's own")
	b.fifo("root/fifo with attribute")
	b.xattr("root/fifo with attribute", "trusted.fifo", "\x00")
}

// deep makes paths of more than PATH_MAX bytes, which can be made and reached
// step by step only.
func (b *builder) deep() {
	b.mkdir("deep")
	fd, err := unix.Open(b.path("deep"), unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	b.must(err)
	const levels = 22 // of 201 bytes
	open := []int{fd}
	for i := range levels {
		name := string(rune('a'+i)) + strings.Repeat("x", 199)
		b.must(unix.Mkdirat(fd, name, 0o755))
		if i%5 == 0 {
			b.fileAt(fd, name+"-file", name)
		}
		fd, err = unix.Openat(fd, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		b.must(err)
		open = append(open, fd)
	}
	b.fileAt(fd, "bottom", "at the very bottom")
	b.fileAt(fd, "\xff\n", "bytes")
	b.must(unix.Symlinkat("bottom", fd, "link"))
	b.must(unix.Linkat(fd, "bottom", fd, "hard link", 0))
	b.must(unix.Mkdirat(fd, "empty", 0o700))
	b.must(unix.Mkfifoat(fd, "fifo", 0o600))
	for _, name := range []string{"link", "empty", "fifo"} {
		b.timeAt(fd, name)
	}
	if b.root {
		b.must(unix.Fchownat(fd, "fifo", 54321, 54321, 0))
	}
	for i := len(open) - 1; i >= 0; i-- {
		ts := []unix.Timeval{{Sec: 1_250_000_000 + int64(i)}, {Sec: 1_250_000_000 + int64(i)}}
		b.must(unix.Futimes(open[i], ts))
		b.must(unix.Close(open[i]))
	}
}

func (b *builder) fileAt(dir int, name, content string) {
	fd, err := unix.Openat(dir, name, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_CLOEXEC, 0o644)
	b.must(err)
	_, err = unix.Write(fd, []byte(content))
	b.must(err)
	b.must(unix.Fsetxattr(fd, "user.deep", []byte(content), 0))
	b.must(unix.Close(fd))
	b.timeAt(dir, name)
}

func (b *builder) timeAt(dir int, name string) {
	ts := []unix.Timespec{{Sec: 1_260_000_000, Nsec: 11}, {Sec: 1_260_000_000, Nsec: 11}}
	b.must(unix.UtimesNanoAt(dir, name, ts, unix.AT_SYMLINK_NOFOLLOW))
}

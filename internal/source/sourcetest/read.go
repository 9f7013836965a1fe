package sourcetest

import (
	"crypto/sha256"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/firn-backup/firn/internal/snapshot"
)

// File is one name of a tree as Read finds it.
type File struct {
	Entry  snapshot.Entry // Path is relative to the tree's top, "." for that; no User and Group
	SHA256 [32]byte       // of a regular file's content, holes as zeros
}

// Read reads a tree the slow and simple way, depths beyond PATH_MAX included, in the
// order of snapshot.ComparePaths. It is what walkers are compared with.
func Read(t testing.TB, dir string) []File {
	t.Helper()
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	top := os.NewFile(uintptr(fd), dir)
	defer top.Close()
	r := reader{t: t}
	r.read(top, ".", ".")
	r.dir(top, "")
	slices.SortFunc(r.files, func(a, b File) int { return snapshot.ComparePaths(a.Entry.Path, b.Entry.Path) })
	return r.files
}

type reader struct {
	t     testing.TB
	files []File
}

func (r *reader) dir(d *os.File, prefix string) {
	names, err := d.Readdirnames(-1)
	if err != nil {
		r.t.Fatal(err)
	}
	for _, name := range names {
		if e := r.read(d, name, prefix+name); e.Type == snapshot.Dir {
			fd, err := unix.Openat(int(d.Fd()), name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
			if err != nil {
				r.t.Fatalf("open %q: %v", prefix+name, err)
			}
			sub := os.NewFile(uintptr(fd), name)
			r.dir(sub, prefix+name+"/")
			sub.Close()
		}
	}
}

func (r *reader) read(d *os.File, name, path string) snapshot.Entry {
	var st unix.Stat_t
	if err := unix.Fstatat(int(d.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		r.t.Fatalf("stat %q: %v", path, err)
	}
	f := File{Entry: snapshot.Entry{
		Path: path, Mode: st.Mode & 0o7777, UID: st.Uid, GID: st.Gid,
		MTime: snapshot.Time{Sec: st.Mtim.Sec, Nsec: int32(st.Mtim.Nsec)}, CTime: snapshot.Time{Sec: st.Ctim.Sec, Nsec: int32(st.Ctim.Nsec)},
		Dev: st.Dev, Ino: st.Ino,
	}}
	e := &f.Entry
	full := "/proc/self/fd/" + strconv.Itoa(int(d.Fd())) + "/" + name
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		e.Type, e.Size = snapshot.File, st.Size
		h := sha256.New()
		in, err := os.Open(full)
		if err == nil {
			_, err = io.Copy(h, in)
			in.Close()
		}
		if err != nil {
			r.t.Fatalf("read %q: %v", path, err)
		}
		h.Sum(f.SHA256[:0])
	case unix.S_IFDIR:
		e.Type = snapshot.Dir
	case unix.S_IFLNK:
		e.Type = snapshot.Symlink
		link, err := os.Readlink(full)
		if err != nil {
			r.t.Fatalf("read link %q: %v", path, err)
		}
		e.Link = link
	case unix.S_IFIFO:
		e.Type = snapshot.Fifo
	case unix.S_IFCHR:
		e.Type, e.Major, e.Minor = snapshot.CharDev, unix.Major(st.Rdev), unix.Minor(st.Rdev)
	case unix.S_IFBLK:
		e.Type, e.Major, e.Minor = snapshot.BlkDev, unix.Major(st.Rdev), unix.Minor(st.Rdev)
	default:
		return *e // a socket
	}
	if st.Nlink > 1 && e.Type != snapshot.Dir {
		e.LinkGroup = strconv.FormatUint(st.Dev, 10) + "/" + strconv.FormatUint(st.Ino, 10)
	}
	r.xattrs(full, e)
	r.files = append(r.files, f)
	return *e
}

func (r *reader) xattrs(full string, e *snapshot.Entry) {
	list, value := make([]byte, 65536), make([]byte, 65536)
	n, err := unix.Llistxattr(full, list)
	if err == unix.ENOTSUP || n == 0 {
		return
	}
	if err != nil {
		r.t.Fatalf("list xattrs of %q: %v", e.Path, err)
	}
	names := strings.Split(strings.TrimSuffix(string(list[:n]), "\x00"), "\x00")
	slices.Sort(names)
	for _, name := range names {
		n, err := unix.Lgetxattr(full, name, value)
		if err != nil {
			r.t.Fatalf("xattr %s of %q: %v", name, e.Path, err)
		}
		e.Xattrs = append(e.Xattrs, snapshot.Xattr{Name: name, Value: string(value[:n])})
	}
}

// portable leaves out what differs between copies, and names link groups by
// the first path in them.
func portable(files []File) []File {
	files = slices.Clone(files)
	first := make(map[string]string)
	for i := range files {
		e := &files[i].Entry
		e.CTime, e.Dev, e.Ino = snapshot.Time{}, 0, 0
		if g := e.LinkGroup; g != "" {
			if first[g] == "" {
				first[g] = e.Path
			}
			e.LinkGroup = first[g]
		}
	}
	return files
}

package tree

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io/fs"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/firn-backup/firn/internal/snapshot"
)

// blockNames is how many names of a directory are looked at in one go.
const blockNames = 1024

// scratch is one worker's buffers.
type scratch struct {
	dirents []byte
	blob    []byte
	names   []name
	ends    []int
}

type name struct {
	s   string
	typ byte // DT_…
}

// found is what is known of one name in a directory.
type found struct {
	name   string
	st     info
	err    error
	gone   bool
	child  *node   // of a directory
	others []*root // instead of all that: the roots at or below an excluded name
}

// info is what statx told, without what does not matter here.
type info struct {
	typ          snapshot.Type
	mode         uint16
	uid, gid     uint32
	major, minor uint32
	linked       bool // the inode has other names
	size         int64
	mtime, ctime snapshot.Time
	dev, ino     uint64
}

// node is a directory on the walk.
type node struct {
	path   string
	root   *root
	st     info
	above  uint64 // the device of the directory it is in
	toward bool   // another root lies below
	skips  bool   // something in it is never to be backed up
	list   *task

	// What list made.
	err    error // it cannot be read
	gone   bool
	closed bool    // its contents are left out: another file system
	tagged bool    // but for tag files
	fresh  *info   // it is no longer what its parent's listing said
	blocks []block // of its names, in order
}

// block is a stretch of a directory's names.
type block struct {
	task  *task // nil: done with the list itself
	found []found
}

func (w *walk) newNode(path string, r *root, st info, above uint64) *node {
	n := &node{path: path, root: r, st: st, above: above, toward: w.set.toward[path], skips: w.set.skipIn[path]}
	n.list = &task{run: func(s *scratch) (int, []*task) { return w.readDir(n, s) }}
	return n
}

// readDir lists a directory and looks at its names, or makes tasks for that if
// they are many.
func (w *walk) readDir(n *node, s *scratch) (int, []*task) {
	fd, err := w.set.opener.open(int(n.root.dir.Fd()), relative(n.path, n.root.path), unix.O_RDONLY|unix.O_DIRECTORY)
	runtime.KeepAlive(n.root.dir)
	if err != nil {
		return n.failed("open", err)
	}
	d := w.openDir(fd)
	defer w.done(d)
	var st unix.Statx_t
	if err := stat(fd, "", unix.AT_EMPTY_PATH, &st); err != nil {
		return n.failed("stat", err)
	}
	if device(&st) != n.st.dev || st.Ino != n.st.ino {
		fresh := infoOf(&st)
		n.fresh = &fresh
	}
	if n.path != n.root.path {
		if why := w.otherFS(n, fd, &st); why != "" {
			if !w.t.o.OneFileSystem {
				w.t.warn(n.path, why)
			}
			n.closed = true
			return 0, nil
		}
	}
	if err := s.readNames(fd); err != nil {
		return n.failed("list", err)
	}
	n.tagged = w.hasTag(fd, s.names)
	if n.toward {
		s.addNames(w.set, n.path)
	}
	slices.SortFunc(s.names, func(a, b name) int { return strings.Compare(a.s, b.s) })
	if len(s.names) <= blockNames {
		found, children := w.look(n, fd, s.names, device(&st))
		n.blocks = []block{{found: found}}
		return len(found), children
	}
	names := s.names
	s.names = nil // these are kept
	n.blocks = make([]block, (len(names)+blockNames-1)/blockNames)
	tasks := make([]*task, len(n.blocks))
	d.users.Add(int32(len(tasks)))
	for i := range tasks {
		tasks[i] = &task{run: func(*scratch) (int, []*task) {
			defer w.done(d)
			found, children := w.look(n, fd, names[i*blockNames:min((i+1)*blockNames, len(names))], device(&st))
			n.blocks[i].found = found
			return len(found), children
		}}
		n.blocks[i].task = tasks[i]
	}
	return 0, tasks
}

func (n *node) failed(op string, err error) (int, []*task) {
	n.err = &fs.PathError{Op: op, Path: "/" + n.path, Err: err}
	n.gone = err == unix.ENOENT
	return 0, nil
}

// readNames reads the names in the directory fd into s.names. The text of those
// that came in one answer of the kernel is one string.
func (s *scratch) readNames(fd int) error {
	if s.dirents == nil {
		s.dirents = make([]byte, 64<<10)
	}
	s.names = s.names[:0]
	for {
		n, err := unix.ReadDirent(fd, s.dirents)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return err
		}
		if n <= 0 {
			return nil
		}
		s.blob, s.ends = s.blob[:0], s.ends[:0]
		first := len(s.names)
		// struct linux_dirent64: inode, offset, length of the record, type, name.
		for b := s.dirents[:n]; len(b) > 19; {
			size := int(binary.NativeEndian.Uint16(b[16:]))
			if size <= 19 || size > len(b) {
				return errors.New("the kernel's answer cannot be read")
			}
			text := b[19:size]
			if i := bytes.IndexByte(text, 0); i >= 0 {
				text = text[:i]
			}
			if string(text) != "." && string(text) != ".." {
				s.blob = append(s.blob, text...)
				s.ends = append(s.ends, len(s.blob))
				s.names = append(s.names, name{typ: b[18]})
			}
			b = b[size:]
		}
		all, begin := string(s.blob), 0
		for i, end := range s.ends {
			s.names[first+i].s = all[begin:end]
			begin = end
		}
	}
}

// addNames makes sure that the ways to other roots are among the names.
func (s *scratch) addNames(set *rootSet, dir string) {
	for _, r := range set.roots {
		if r.path == dir || !snapshot.Below(r.path, dir) {
			continue
		}
		rest := relative(r.path, dir)
		if i := strings.IndexByte(rest, '/'); i >= 0 {
			rest = rest[:i]
		}
		if !slices.ContainsFunc(s.names, func(n name) bool { return n.s == rest }) {
			s.names = append(s.names, name{s: rest})
		}
	}
}

// look asks for everything about names in the directory n, open as fd and on
// the device dev, and makes the tasks of those that are directories.
func (w *walk) look(n *node, fd int, names []name, dev uint64) (all []found, children []*task) {
	all = make([]found, 0, len(names))
	var st unix.Statx_t
	for _, nm := range names {
		toward := false
		if n.toward {
			path := join(n.path, nm.s)
			if r := w.set.byPath[path]; r != nil {
				all = append(all, found{others: []*root{r}})
				continue
			}
			toward = w.set.toward[path]
		}
		f, ok := w.lookAt(n, fd, nm, dev, &st)
		if toward && (!ok || f.err != nil) {
			f.others = w.set.below(join(n.path, nm.s))
		}
		if !ok && f.others == nil {
			continue
		}
		if ok && f.err == nil && f.st.typ == snapshot.Dir {
			f.child = w.newNode(join(n.path, nm.s), n.root, f.st, dev)
			children = append(children, f.child.list)
		}
		all = append(all, f)
	}
	return all, children
}

// lookAt asks for everything about one name; not ok: it is left out.
func (w *walk) lookAt(n *node, fd int, nm name, dev uint64, st *unix.Statx_t) (f found, ok bool) {
	if n.tagged && !w.isTag(nm.s) {
		return f, false
	}
	known := nm.typ != unix.DT_UNKNOWN
	if known && w.excluded(n, nm.s, nm.typ == unix.DT_DIR) {
		return f, false
	}
	if err := stat(fd, nm.s, 0, st); err != nil {
		return found{name: nm.s, gone: err == unix.ENOENT, err: &fs.PathError{Op: "stat", Path: "/" + join(n.path, nm.s), Err: err}}, true
	}
	f = found{name: nm.s, st: infoOf(st)}
	isDir := f.st.typ == snapshot.Dir
	if (!known || isDir != (nm.typ == unix.DT_DIR)) && w.excluded(n, nm.s, isDir) {
		return found{}, false
	}
	why := ""
	switch {
	case len(w.set.skipID) > 0 && w.set.skipID[fileID{f.st.dev, f.st.ino}]:
		return found{}, false
	case f.st.typ == 0:
		why = "it is a socket"
	case w.t.o.OneFileSystem && !isDir && f.st.dev != device(&n.root.st):
		why = "it is on another file system"
	default:
		return f, true
	}
	w.t.warn(join(n.path, nm.s), why)
	return found{}, false
}

func infoOf(st *unix.Statx_t) info {
	i := info{
		mode: st.Mode & 0o7777, uid: st.Uid, gid: st.Gid,
		mtime: snapshot.Time{Sec: st.Mtime.Sec, Nsec: int32(st.Mtime.Nsec)},
		ctime: snapshot.Time{Sec: st.Ctime.Sec, Nsec: int32(st.Ctime.Nsec)},
		dev:   device(st), ino: st.Ino,
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		i.typ, i.size = snapshot.File, int64(st.Size)
	case unix.S_IFDIR:
		i.typ = snapshot.Dir
	case unix.S_IFLNK:
		i.typ = snapshot.Symlink
	case unix.S_IFIFO:
		i.typ = snapshot.Fifo
	case unix.S_IFCHR:
		i.typ, i.major, i.minor = snapshot.CharDev, st.Rdev_major, st.Rdev_minor
	case unix.S_IFBLK:
		i.typ, i.major, i.minor = snapshot.BlkDev, st.Rdev_major, st.Rdev_minor
	}
	i.linked = i.typ != snapshot.Dir && st.Nlink > 1
	return i
}

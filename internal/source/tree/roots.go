package tree

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/firn-backup/firn/internal/exclude"
	"github.com/firn-backup/firn/internal/failure"
	"github.com/firn-backup/firn/internal/snapshot"
)

// root is a root as a walk found it.
type root struct {
	rootPath
	dir   *os.File // itself, or of a file what it lies in
	name  string   // of a file: its name in dir; else empty
	st    unix.Statx_t
	match *exclude.Matcher
	outer *root // the innermost other root it lies in
}

// rootSet is all roots, opened. It is immutable but for dirs, which has its own lock.
type rootSet struct {
	roots  []*root          // in path order
	byPath map[string]*root // by path
	toward map[string]bool  // the directories below a root that lead to another
	skip   map[string]bool  // paths never to be backed up
	skipIn map[string]bool  // the directories these are in
	skipID map[fileID]bool  // the same by what they are
	opener opener
	dirs   *dirCache
}

type fileID struct{ dev, ino uint64 }

func (t *Tree) matcher(r rootPath) (*exclude.Matcher, error) {
	base := r.path
	if t.o.ExcludeBase != "" {
		base = strings.TrimPrefix(filepath.Clean(t.o.ExcludeBase), "/")
	}
	return exclude.Parse(t.o.Exclude, base)
}

// openRoots finds and opens the roots and checks that they are as they must be.
func (t *Tree) openRoots() (*rootSet, error) {
	for _, p := range t.o.RequireMount {
		if err := isMount(p); err != nil {
			return nil, err
		}
	}
	set := &rootSet{
		byPath: make(map[string]*root), toward: make(map[string]bool),
		skip: make(map[string]bool), skipIn: make(map[string]bool), skipID: make(map[fileID]bool), opener: t.opener, dirs: newDirCache(),
	}
	// A tree that is dropped without Close gives back its directories all the same.
	runtime.AddCleanup(set, (*dirCache).close, set.dirs)
	shared := make(map[string]*os.File) // directories of roots that are files
	for _, p := range t.roots {
		r, err := t.openRoot(p, shared)
		if err != nil {
			set.close()
			return nil, err
		}
		for i := len(set.roots) - 1; i >= 0 && r.outer == nil; i-- {
			if o := set.roots[i]; o.name == "" && snapshot.Below(r.path, o.path) {
				r.outer = o
			}
		}
		set.roots = append(set.roots, r)
		set.byPath[r.path] = r
	}
	if err := errors.Join(set.findWays(), set.findSkips(t.o.Skip)); err != nil {
		set.close()
		return nil, err
	}
	return set, nil
}

func (t *Tree) openRoot(p rootPath, shared map[string]*os.File) (*root, error) {
	match, err := t.matcher(p)
	if err != nil {
		return nil, err
	}
	r := &root{rootPath: p, match: match}
	fail := func(err error) (*root, error) {
		return nil, fmt.Errorf("back up %s: %w", p.full, err)
	}
	// Following symbolic links, and mounting what is mounted on demand.
	fd, err := unix.Open(p.full, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return fail(err)
	}
	err = stat(fd, "", unix.AT_EMPTY_PATH, &r.st)
	unix.Close(fd)
	if err != nil {
		return fail(err)
	}
	switch r.st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		if fd, err = unix.Open(p.full, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0); err != nil {
			return fail(err)
		}
		r.dir = os.NewFile(uintptr(fd), p.full)
		// It can be listed; can its contents be looked at too?
		if err := errors.Join(stat(fd, "", unix.AT_EMPTY_PATH, &r.st), stat(fd, ".", 0, new(unix.Statx_t))); err != nil {
			r.dir.Close()
			return fail(err)
		}
	case unix.S_IFREG:
		real, err := filepath.EvalSymlinks(p.full)
		if err != nil {
			return fail(err)
		}
		dir, name := filepath.Split(real)
		if r.dir = shared[dir]; r.dir == nil {
			fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
			if err != nil {
				return fail(err)
			}
			r.dir = os.NewFile(uintptr(fd), dir)
			shared[dir] = r.dir
		}
		r.name = name
		fd, err := unix.Openat(int(r.dir.Fd()), name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		if err != nil {
			return fail(err)
		}
		unix.Close(fd)
	default:
		return fail(errors.New("it is neither a directory nor a regular file"))
	}
	return r, nil
}

// findWays fills toward. A root that another one leads to through a symbolic
// link cannot be stored: the other holds the link at that place.
func (set *rootSet) findWays() error {
	for _, r := range set.roots {
		if r.outer == nil {
			continue
		}
		for p := r.path; len(p) > len(r.outer.path); p = p[:max(strings.LastIndexByte(p, '/'), 0)] {
			if p != r.path {
				var st unix.Statx_t
				if err := stat(unix.AT_FDCWD, "/"+p, 0, &st); err == nil && st.Mode&unix.S_IFMT == unix.S_IFLNK {
					return failure.Errorf(failure.Usage, "back up %s: it lies below %s through the symbolic link /%s: give its real path",
						r.full, r.outer.full, p)
				}
			}
			set.toward[p] = true
		}
		set.toward[r.outer.path] = true
	}
	return nil
}

// findSkips finds what must never be backed up, under all names that the walk
// can meet it by.
func (set *rootSet) findSkips(skip []string) error {
	for _, p := range skip {
		full, err := absolute(p)
		if err != nil {
			if errors.Is(err, os.ErrNotExist) {
				continue
			}
			return fmt.Errorf("leave out %q: %w", p, err)
		}
		names := []string{full, realPath(full)}
		var st unix.Statx_t
		if err := unix.Statx(unix.AT_FDCWD, full, 0, unix.STATX_BASIC_STATS, &st); err == nil {
			set.skipID[fileID{device(&st), st.Ino}] = true
		}
		for _, r := range set.roots {
			for _, name := range names {
				if snapshot.Below(r.full, name) || snapshot.Below(realPath(r.full), name) || set.skipID[fileID{device(&r.st), r.st.Ino}] {
					return failure.Errorf(failure.Usage, "back up %s: it belongs to the program itself (%s)", r.full, full)
				}
				set.addSkip(strings.TrimPrefix(name, "/"))
				if rest, ok := strings.CutPrefix(name, strings.TrimSuffix(realPath(r.full), "/")+"/"); ok {
					set.addSkip(join(r.path, rest))
				}
			}
		}
	}
	return nil
}

func (set *rootSet) addSkip(path string) {
	set.skip[path] = true
	set.skipIn[path[:max(strings.LastIndexByte(path, '/'), 0)]] = true
}

// realPath is full without symbolic links, as far as it exists.
func realPath(full string) string {
	for dir, rest := full, ""; ; dir, rest = filepath.Dir(dir), "/"+filepath.Base(dir)+rest {
		if real, err := filepath.EvalSymlinks(dir); err == nil {
			return filepath.Clean(real + rest)
		}
		if dir == "/" {
			return full
		}
	}
}

// below is the roots below path, or at it, but for those that lie in one of
// these themselves.
func (set *rootSet) below(path string) (roots []*root) {
	for _, r := range set.roots {
		if !snapshot.Below(r.path, path) {
			continue
		}
		if n := len(roots); n > 0 && roots[n-1].name == "" && snapshot.Below(r.path, roots[n-1].path) {
			continue
		}
		roots = append(roots, r)
	}
	return roots
}

func (set *rootSet) close() {
	for _, r := range set.roots {
		r.dir.Close()
	}
	set.dirs.close()
}

// RequireMount returns an error unless something is mounted at path: what Options.RequireMount asks for, by itself.
func RequireMount(path string) error { return isMount(path) }

// isMount says whether something is mounted at path.
func isMount(path string) error {
	full, err := absolute(path)
	if err != nil {
		return fmt.Errorf("required mount %q: %w", path, err)
	}
	// Opening it mounts what is mounted on demand.
	fd, err := unix.Open(full, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("required mount %s: %w", full, err)
	}
	defer unix.Close(fd)
	var here, above unix.Statx_t
	if err := stat(fd, "", unix.AT_EMPTY_PATH, &here); err != nil {
		return fmt.Errorf("required mount %s: %w", full, err)
	}
	if here.Attributes_mask&unix.STATX_ATTR_MOUNT_ROOT != 0 {
		if here.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0 {
			return nil
		}
		return fmt.Errorf("required mount %s: nothing is mounted there", full)
	}
	// Before Linux 5.8 a bind mount of the same file system cannot be told.
	if err := stat(fd, "..", 0, &above); err != nil {
		return fmt.Errorf("required mount %s: %w", full, err)
	}
	if device(&here) == device(&above) && here.Ino != above.Ino {
		return fmt.Errorf("required mount %s: nothing is mounted there", full)
	}
	return nil
}

// locate finds where the entry of a path is: a directory that lies in a root
// and the entry's name in it. The directory must be given back.
func (set *rootSet) locate(path string) (d *dirHandle, name string, err error) {
	if r := set.byPath[path]; r != nil {
		if r.name != "" {
			return &dirHandle{fd: int(r.dir.Fd()), root: r}, r.name, nil
		}
		return &dirHandle{fd: int(r.dir.Fd()), root: r}, ".", nil
	}
	parent, name := "", path
	if i := strings.LastIndexByte(path, '/'); i >= 0 {
		parent, name = path[:i], path[i+1:]
	}
	if d = set.dirs.get(parent); d != nil {
		return d, name, nil
	}
	for p := parent; ; p = p[:max(strings.LastIndexByte(p, '/'), 0)] {
		if r := set.byPath[p]; r != nil && r.name == "" {
			fd, err := set.opener.open(int(r.dir.Fd()), relative(parent, r.path), unix.O_PATH|unix.O_DIRECTORY)
			runtime.KeepAlive(r.dir)
			if err != nil {
				return nil, "", err
			}
			return set.dirs.put(parent, fd), name, nil
		}
		if p == "" {
			return nil, "", errors.New("it lies in none of the roots")
		}
	}
}

// relative is path, which lies in dir, without dir.
func relative(path, dir string) string {
	switch {
	case dir == "":
		return path
	case path == dir:
		return ""
	}
	return path[len(dir)+1:]
}

func join(dir, name string) string {
	if dir == "" {
		return name
	}
	return dir + "/" + name
}

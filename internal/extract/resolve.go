package extract

import (
	"container/list"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// dirCache keeps the directories used last open. The two used last are always
// open, which is as many as one operation needs.
type dirCache struct {
	max   int
	lru   *list.List // of *openDir, the latest first
	paths map[string]*list.Element
}

type openDir struct {
	path string
	fd   int // O_PATH
}

func newDirCache(max int) *dirCache {
	return &dirCache{max, list.New(), map[string]*list.Element{}}
}

func (c *dirCache) get(path string) (int, bool) {
	el := c.paths[path]
	if el == nil {
		return -1, false
	}
	c.lru.MoveToFront(el)
	return el.Value.(*openDir).fd, true
}

func (c *dirCache) put(path string, fd int) {
	c.drop(path)
	c.paths[path] = c.lru.PushFront(&openDir{path, fd})
	for c.lru.Len() > c.max {
		c.remove(c.lru.Back())
	}
}

// drop forgets path; what is cached below it is of a directory that is no longer there.
func (c *dirCache) drop(path string) {
	if el := c.paths[path]; el != nil {
		c.remove(el)
	}
}

func (c *dirCache) remove(el *list.Element) {
	d := c.lru.Remove(el).(*openDir)
	delete(c.paths, d.path)
	unix.Close(d.fd)
}

func (c *dirCache) clear() {
	for c.lru.Len() > 0 {
		c.remove(c.lru.Back())
	}
}

const openDirFlags = unix.O_PATH | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC

func (r *Root) open2(at int, path string) (int, error) {
	how := &unix.OpenHow{
		Flags:   openDirFlags,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS,
	}
	for range 100 { // EAGAIN: something was renamed meanwhile, and the kernel is not sure
		fd, err := retryInt(func() (int, error) { return unix.Openat2(at, path, how) })
		if err != unix.EAGAIN {
			return fd, err
		}
	}
	return -1, unix.EAGAIN
}

// dir opens the directory path, and with create makes what is missing of it.
// The descriptor is the cache's; it stays open through the next call of dir.
func (r *Root) dir(path string, create bool) (int, error) {
	if path == "" {
		return r.fd, nil
	}
	if fd, ok := r.dirs.get(path); ok {
		return fd, nil
	}
	// Begin at the nearest ancestor that is open.
	at, rest := r.fd, path
	for cut := len(path); ; {
		i := strings.LastIndexByte(path[:cut], '/')
		if i < 0 {
			break
		}
		if fd, ok := r.dirs.get(path[:i]); ok {
			at, rest = fd, path[i+1:]
			break
		}
		cut = i
	}
	if r.openat2 && len(rest) < unix.PathMax {
		fd, err := r.open2(at, rest)
		if err == nil {
			return fd, r.keep(path, fd)
		}
		if err != unix.ENOENT || !create {
			return -1, blocked(path, err)
		}
	}
	fd, err := r.walk(at, rest, create)
	if err != nil {
		return -1, blocked(path, err)
	}
	return fd, r.keep(path, fd)
}

// walk opens, and makes, rest component by component.
func (r *Root) walk(at int, rest string, create bool) (int, error) {
	cur := -1
	for name := range strings.SplitSeq(rest, "/") {
		from := at
		if cur >= 0 {
			from = cur
		}
		fd, err := openDirAt(from, name)
		if err == unix.ENOENT && create {
			// A parent that no entry speaks of is made as any program makes one.
			err = retry(func() error { return unix.Mkdirat(from, name, 0o777) })
			if err == nil || err == unix.EEXIST {
				fd, err = openDirAt(from, name)
			}
		}
		if cur >= 0 {
			unix.Close(cur)
		}
		if err != nil {
			return -1, err
		}
		cur = fd
	}
	return cur, nil
}

func openDirAt(at int, name string) (int, error) {
	return retryInt(func() (int, error) { return unix.Openat(at, name, openDirFlags, 0) })
}

func (r *Root) keep(path string, fd int) error {
	if err := r.noteDevice(fd); err != nil {
		unix.Close(fd)
		return fmt.Errorf("open directory %s: %w", path, err)
	}
	r.dirs.put(path, fd)
	return nil
}

// noteDevice remembers the file system that dir is on, for Sync.
func (r *Root) noteDevice(dir int) error {
	var st unix.Stat_t
	if err := unix.Fstat(dir, &st); err != nil {
		return err
	}
	if _, ok := r.devs[st.Dev]; ok {
		return nil
	}
	fd, err := retryInt(func() (int, error) {
		return unix.Openat(dir, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	})
	if err != nil {
		if dir == r.fd {
			return err
		}
		return nil // cannot be listed by us: another directory of its file system will do
	}
	r.devs[st.Dev] = syncing{fd}
	return nil
}

// blocked gives the errors of a refused resolution their one name.
func blocked(path string, err error) error {
	switch err {
	case unix.ELOOP, unix.ENOTDIR, unix.EXDEV:
		return fmt.Errorf("open directory %s: %w", path, ErrBlocked)
	}
	return fmt.Errorf("open directory %s: %w", path, err)
}

// parent opens the directory of an entry's path and returns its name in it.
func (r *Root) parent(path string, create bool) (dir int, name string, err error) {
	d, name, err := split(path)
	if err != nil {
		return -1, "", err
	}
	dir, err = r.dir(d, create)
	return dir, name, err
}

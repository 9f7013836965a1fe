package tree

import (
	"sync"

	"golang.org/x/sys/unix"
)

// dirCache keeps the directories that entries were last looked up in open, as
// entries come in the order of their directories.
type dirCache struct {
	mu     sync.Mutex
	byPath map[string]*dirHandle
	recent []*dirHandle // in the order of use, last used last
	closed bool
}

// maxDirs is how many directories are kept open.
const maxDirs = 32

// dirHandle is an open directory. Who has it from locate must give it back with
// done.
type dirHandle struct {
	cache *dirCache // nil: not ours to close,
	root  *root     // but this root's
	path  string
	fd    int
	users int
	stale bool // no longer in the cache
}

func newDirCache() *dirCache { return &dirCache{byPath: make(map[string]*dirHandle)} }

func (c *dirCache) get(path string) *dirHandle {
	c.mu.Lock()
	defer c.mu.Unlock()
	d := c.byPath[path]
	if d == nil {
		return nil
	}
	d.users++
	if n := len(c.recent); c.recent[n-1] != d {
		c.drop(d)
		c.recent = append(c.recent, d)
	}
	return d
}

// put takes over fd.
func (c *dirCache) put(path string, fd int) *dirHandle {
	c.mu.Lock()
	defer c.mu.Unlock()
	d := &dirHandle{cache: c, path: path, fd: fd, users: 1}
	if c.closed || c.byPath[path] != nil { // another was faster
		d.stale = true
		return d
	}
	if len(c.recent) == maxDirs {
		c.evict(c.recent[0])
	}
	c.byPath[path] = d
	c.recent = append(c.recent, d)
	return d
}

func (c *dirCache) drop(d *dirHandle) {
	for i, r := range c.recent {
		if r == d {
			c.recent = append(c.recent[:i], c.recent[i+1:]...)
			return
		}
	}
}

func (c *dirCache) evict(d *dirHandle) {
	delete(c.byPath, d.path)
	c.drop(d)
	d.stale = true
	if d.users == 0 {
		unix.Close(d.fd)
	}
}

func (c *dirCache) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	for len(c.recent) > 0 {
		c.evict(c.recent[0])
	}
}

func (d *dirHandle) done() {
	if d.cache == nil {
		return
	}
	d.cache.mu.Lock()
	defer d.cache.mu.Unlock()
	d.users--
	if d.stale && d.users == 0 {
		unix.Close(d.fd)
	}
}

// Package tree is the adapter for trees of files on this machine: it walks
// directories in the order of snapshot.ComparePaths, tells what changes need to
// be told, and opens files in their stored form. It follows no symbolic link
// but those in the names of its roots. It knows nothing of catalogs, archives
// or what was backed up before.
package tree

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/firn-backup/firn/internal/failure"
	"github.com/firn-backup/firn/internal/snapshot"
	"github.com/firn-backup/firn/internal/source"
)

// Options say what belongs to a tree. Only Paths must be given.
type Options struct {
	// Paths are the roots: directories or regular files, absolute or relative to the
	// working directory. A root is what its path leads to: symbolic links in
	// it, also at its end, are followed, and what is found there has the path as
	// it was given, made absolute. Roots may lie in each other: every path
	// comes once, and the innermost root it lies in says what is
	// excluded; a root itself never is.
	Paths []string

	// Exclude are gitignore patterns, relative to each root, or to ExcludeBase.
	Exclude []string

	// ExcludeBase, where it is given, is the absolute directory that patterns are relative to: one that roots lie in.
	ExcludeBase string

	// ExcludeIfPresent are names of files: of a directory that has one of them only
	// the directory and the tag file itself stay. A CACHEDIR.TAG must begin
	// with its signature (bford.info/cachedir).
	ExcludeIfPresent []string

	// OneFileSystem keeps out what lies on other file systems than the root:
	// mount points stay, as empty directories.
	OneFileSystem bool

	// RequireMount are directories that must be mount points when a walk begins.
	RequireMount []string

	// Skip are paths that are never backed up, as if they were not there: the
	// program's own vaults, catalog and caches. They need not exist.
	Skip []string

	// Workers read directories ahead; 0 means one for each processor, at least
	// 2 and at most 4.
	Workers int

	// Warn, when not nil, is told of what is left out although nothing excludes
	// it (sockets, the kernel's own file systems), with the path as an Entry has it. It is called by one
	// goroutine at a time.
	Warn func(path, reason string)
}

// A Tree is a source.Tree over the file system.
//
// Memory: 32,768 entries read ahead, some 200 bytes each; the names of the
// directories between a root and where the walk is; of directories of more
// than 1,024 names the names alone.
type Tree struct {
	o      Options
	roots  []rootPath
	opener opener
	owners owners
	warnMu sync.Mutex

	mu   sync.Mutex
	open atomic.Pointer[rootSet] // of the last walk
}

var _ source.Tree = (*Tree)(nil)

// rootPath is a root by its names.
type rootPath struct {
	path string // as in Entry; empty for /
	full string // absolute
}

// New makes a tree. It looks at the file system only where a path has ".."
// behind a name that might be a symbolic link; roots are looked for by Walk.
func New(o Options) (*Tree, error) {
	if len(o.Paths) == 0 {
		return nil, failure.Errorf(failure.Usage, "no path to back up was given")
	}
	t := &Tree{o: o, opener: newOpener()}
	for _, p := range o.Paths {
		full, err := absolute(p)
		if err != nil {
			return nil, failure.Wrap(failure.Usage, fmt.Errorf("path to back up %q: %w", p, err))
		}
		t.roots = append(t.roots, rootPath{path: strings.TrimPrefix(full, "/"), full: full})
	}
	slices.SortFunc(t.roots, func(a, b rootPath) int { return snapshot.ComparePaths(a.path, b.path) })
	t.roots = slices.Compact(t.roots)
	for _, name := range o.ExcludeIfPresent {
		if name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/\x00") {
			return nil, failure.Errorf(failure.Usage, "exclude-if-present %q: it must be the name of a file", name)
		}
	}
	if _, err := t.matcher(rootPath{}); err != nil {
		return nil, failure.Wrap(failure.Usage, err)
	}
	return t, nil
}

// absolute makes a path absolute and clean. "x/.." is not nothing where x is a
// symbolic link: what comes before the last ".." is then looked up.
func absolute(p string) (string, error) {
	switch {
	case p == "":
		return "", fmt.Errorf("it is empty")
	case strings.IndexByte(p, 0) >= 0:
		return "", fmt.Errorf("it holds a NUL byte")
	}
	abs := p
	if !filepath.IsAbs(p) {
		wd, err := filepath.Abs(".")
		if err != nil {
			return "", err
		}
		abs = wd + "/" + p
	}
	elements := strings.Split(abs, "/")
	for i := len(elements) - 1; i >= 0; i-- {
		if elements[i] != ".." {
			continue
		}
		before, err := filepath.EvalSymlinks(strings.Join(elements[:i], "/") + "/")
		if err != nil {
			return "", err
		}
		return filepath.Clean(filepath.Dir(before) + "/" + strings.Join(elements[i+1:], "/")), nil
	}
	return filepath.Clean(abs), nil
}

// Close gives back what the tree keeps open between calls. It may be used again
// after that.
func (t *Tree) Close() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if set := t.open.Swap(nil); set != nil {
		set.close()
	}
	return nil
}

func (t *Tree) warn(path, reason string) {
	if t.o.Warn == nil {
		return
	}
	t.warnMu.Lock()
	defer t.warnMu.Unlock()
	t.o.Warn(path, reason)
}

// rootsOpen is the roots as the last walk opened them, or opens them.
func (t *Tree) rootsOpen() (*rootSet, error) {
	if set := t.open.Load(); set != nil {
		return set, nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if set := t.open.Load(); set != nil {
		return set, nil
	}
	set, err := t.openRoots()
	if err != nil {
		return nil, err
	}
	t.open.Store(set)
	return set, nil
}

// stat is what statx is asked for, everywhere alike.
func stat(dir int, name string, flags int, st *unix.Statx_t) error {
	for {
		err := unix.Statx(dir, name, flags|unix.AT_SYMLINK_NOFOLLOW|unix.AT_NO_AUTOMOUNT, unix.STATX_BASIC_STATS, st)
		if err != unix.EINTR {
			return err
		}
	}
}

func device(st *unix.Statx_t) uint64 { return unix.Mkdev(st.Dev_major, st.Dev_minor) }

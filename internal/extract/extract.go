// Package extract writes a snapshot's entries to disk beneath one directory,
// and never outside it, however hostile the entries are and whatever others do
// in that directory meanwhile. It owns names, owners, modes, times, attributes
// and holes, and knows nothing of where the bytes come from or whether they are the right ones.
//
// What it holds to:
//
//   - No component of a path is ever followed when it is a symbolic link: paths
//     are resolved by openat2 (RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS,
//     RESOLVE_NO_MAGICLINKS), or component by component with O_NOFOLLOW on
//     kernels without it.
//   - A file appears under its name whole, with its metadata, or not at all.
//   - What exists is not replaced, nor are its contents changed, unless Options.Overwrite says so.
//   - A directory is private (mode unfinished) until FinishDir gives it what the
//     entry says, so an interrupted restore can be told from a finished one.
package extract

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/firn-backup/firn/internal/snapshot"
)

var (
	// ErrExists: the name is taken, and Options.Overwrite does not allow to, or
	// nothing may, replace what is there (a directory that is not empty).
	ErrExists = errors.New("exists already")
	// ErrName: the path is not one that an entry may have.
	ErrName = errors.New("not an allowed path")
	// ErrBlocked: a parent is a symbolic link or no directory.
	ErrBlocked = errors.New("a parent is a symbolic link or not a directory")
	// ErrMetadata: the entry is there, but some of its metadata is not.
	ErrMetadata = errors.New("metadata is incomplete")
	// ErrUnsupported: nothing was made, because this user or file system cannot
	// make such things. It was reported as a Warning too.
	ErrUnsupported = errors.New("cannot be made here")
)

// Overwrite says what happens to what exists already.
type Overwrite int

const (
	// Never replaces anything. Directories are used as they are found, and
	// they, as files whose contents are equal, get the metadata of their entries.
	Never Overwrite = iota
	// Always replaces everything but directories that are not empty.
	Always
)

// Options say how to write. The zero value is a good choice.
type Options struct {
	Overwrite Overwrite
	// NumericOwner sets owners by number only. Otherwise a name that this
	// machine knows goes before the number.
	NumericOwner bool
	// Warn is called the first time that something of a kind cannot be set or made
	// here. May be nil: Warnings has them all.
	Warn func(Warning)

	plain     bool // tests: resolve without openat2
	noTmpfile bool // tests: temporary names instead of O_TMPFILE
	maxDirs   int  // open directories kept: 64
}

// A Warning is something that this user or this file system cannot do, said once for all entries.
type Warning struct {
	Kind  string // "owners", "devices", "user attributes" …
	Path  string // the first one
	Err   error
	Count int64
}

func (w Warning) String() string {
	if w.Count > 1 {
		return fmt.Sprintf("%s cannot be set here (%d, the first is %s: %v)", w.Kind, w.Count, w.Path, w.Err)
	}
	return fmt.Sprintf("%s cannot be set here (the first is %s: %v)", w.Kind, w.Path, w.Err)
}

// unfinished is the mode of a directory that this package made and has not
// finished yet. The sticky bit means nothing on a directory into which only its
// owner can write, so nobody else has directories like it.
const unfinished = unix.S_ISVTX | 0o700

// Root is a directory beneath which entries are written. Paths of entries are
// relative to it; the empty path is the directory itself, for Mkdir and FinishDir
// only. It is for one goroutine.
type Root struct {
	name    string // as given, for messages
	fd      int    // O_PATH
	o       Options
	openat2 bool
	tmpfile bool
	umask   uint32
	uid     int  // effective
	own     bool // the root's own metadata may be set: it was made here, or was empty
	fresh   bool // nothing was in it when it was opened
	dirs    *dirCache
	owners  *owners
	warned  map[string]*Warning
	order   []string           // of warned
	devs    map[uint64]syncing // file systems written to
	buf     []byte
}

// syncing is a descriptor on a file system to be synced.
type syncing struct{ fd int }

// Open opens dir for writing entries beneath it, and makes it, with its
// parents, when it is not there. dir itself may be reached through symbolic links: it is the caller's choice.
func Open(dir string, o Options) (*Root, error) {
	made := false
	err := os.MkdirAll(filepath.Dir(filepath.Clean(dir)), 0o777)
	if err == nil {
		err = unix.Mkdir(dir, 0o777)
		made = err == nil
		if err == unix.EEXIST {
			err = nil
		}
	}
	if err != nil {
		return nil, fmt.Errorf("create directory %s: %w", dir, err)
	}
	fd, err := retryInt(func() (int, error) {
		return unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	})
	if err != nil {
		return nil, fmt.Errorf("open directory %s: %w", dir, err)
	}
	if o.maxDirs < 4 {
		o.maxDirs = 64
	}
	r := &Root{
		name: dir, fd: fd, o: o,
		uid:    os.Geteuid(),
		umask:  umask(),
		warned: map[string]*Warning{},
		devs:   map[uint64]syncing{},
		owners: newOwners(o.NumericOwner),
	}
	r.dirs = newDirCache(o.maxDirs)
	if err := r.probe(made); err != nil {
		r.Close()
		return nil, err
	}
	return r, nil
}

// probe finds out what the kernel and the file system can do.
func (r *Root) probe(made bool) error {
	if err := unix.Faccessat2(r.fd, ".", unix.W_OK|unix.X_OK, unix.AT_EACCESS); err != nil && err != unix.ENOSYS && err != unix.EPERM {
		return fmt.Errorf("write in directory %s: %w", r.name, err)
	}
	if err := r.noteDevice(r.fd); err != nil {
		return fmt.Errorf("open directory %s: %w", r.name, err)
	}
	if !r.o.plain {
		fd, err := r.open2(r.fd, ".")
		if err == nil {
			unix.Close(fd)
			r.openat2 = true
		}
	}
	if !r.o.noTmpfile {
		if _, err := os.Lstat("/proc/self/fd"); err == nil {
			r.tmpfile = true // a file system without it is found out at the first file
		}
	}
	var st unix.Stat_t
	if err := unix.Fstat(r.fd, &st); err != nil {
		return fmt.Errorf("stat directory %s: %w", r.name, err)
	}
	empty := made
	if !made {
		if f, err := os.Open(r.name); err == nil {
			names, _ := f.Readdirnames(1)
			empty = len(names) == 0
			f.Close()
		}
	}
	r.fresh = empty
	r.own = empty || isUnfinished(st.Mode)
	return nil
}

// Fresh says that nothing was in the directory when it was opened, so that
// nothing needs to be compared with what is there.
func (r *Root) Fresh() bool { return r.fresh }

// Close releases the descriptors. It does not sync.
func (r *Root) Close() error {
	r.dirs.clear()
	for _, s := range r.devs {
		unix.Close(s.fd)
	}
	r.devs = nil
	if r.fd >= 0 {
		unix.Close(r.fd)
		r.fd = -1
	}
	return nil
}

// Sync returns when everything written is on stable storage.
func (r *Root) Sync() error {
	for _, s := range r.devs {
		if err := unix.Syncfs(s.fd); err != nil {
			return fmt.Errorf("sync file system of %s: %w", r.name, err)
		}
	}
	return nil
}

// Warnings are what could not be done, one for each kind, in the order they came up.
func (r *Root) Warnings() []Warning {
	var all []Warning
	for _, k := range r.order {
		all = append(all, *r.warned[k])
	}
	return all
}

func (r *Root) warn(kind, path string, err error) {
	if w := r.warned[kind]; w != nil {
		w.Count++
		return
	}
	w := &Warning{Kind: kind, Path: path, Err: err, Count: 1}
	r.warned[kind] = w
	r.order = append(r.order, kind)
	if r.o.Warn != nil {
		r.o.Warn(*w)
	}
}

// Fatal says that err means that nothing more can be written here, so that going
// on with other entries makes no sense: the disk is full, read-only, gone.
func Fatal(err error) bool {
	if errors.Is(err, ErrMetadata) {
		return false
	}
	for _, e := range []error{unix.ENOSPC, unix.EDQUOT, unix.EROFS, unix.EIO, unix.EMFILE, unix.ENFILE, unix.ENOMEM, unix.ESTALE, unix.ENODEV, unix.ENOTCONN} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

func isUnfinished(mode uint32) bool {
	return mode&unix.S_IFMT == unix.S_IFDIR && mode&0o7777&^unix.S_ISGID == unfinished
}

// umask is the process's, read without changing it; 0 where that cannot be told.
func umask() uint32 {
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(b)) {
		var m uint32
		if _, err := fmt.Sscanf(line, "Umask: %o", &m); err == nil {
			return m
		}
	}
	return 0
}

// split checks an entry's path and cuts it into directory and name.
func split(path string) (dir, name string, err error) {
	if path == "" || path[0] == '/' || strings.IndexByte(path, 0) >= 0 {
		return "", "", fmt.Errorf("%q: %w", path, ErrName)
	}
	for c := range strings.SplitSeq(path, "/") {
		if c == "" || c == "." || c == ".." {
			return "", "", fmt.Errorf("%q: %w", path, ErrName)
		}
	}
	if i := strings.LastIndexByte(path, '/'); i >= 0 {
		return path[:i], path[i+1:], nil
	}
	return "", path, nil
}

func fail(op string, e *snapshot.Entry, err error) error {
	return fmt.Errorf("%s %s: %w", op, e.Path, err)
}

func retry(fn func() error) error {
	for {
		if err := fn(); err != unix.EINTR {
			return err
		}
	}
}

func retryInt(fn func() (int, error)) (int, error) {
	for {
		if n, err := fn(); err != unix.EINTR {
			return n, err
		}
	}
}

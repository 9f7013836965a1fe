package extract

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/firn-backup/firn/internal/snapshot"
)

// Symlink makes the symbolic link e.
func (r *Root) Symlink(e *snapshot.Entry) error {
	return r.special(e, "symbolic links", func(dir int, name string) error {
		return unix.Symlinkat(e.Link, dir, name)
	})
}

// Fifo makes the named pipe e.
func (r *Root) Fifo(e *snapshot.Entry) error {
	return r.special(e, "named pipes", func(dir int, name string) error {
		return unix.Mknodat(dir, name, unix.S_IFIFO|0o600, 0)
	})
}

// Device makes the character or block device e.
func (r *Root) Device(e *snapshot.Entry) error {
	kind := uint32(unix.S_IFCHR)
	if e.Type == snapshot.BlkDev {
		kind = unix.S_IFBLK
	}
	return r.special(e, "devices", func(dir int, name string) error {
		return unix.Mknodat(dir, name, kind|0o600, int(unix.Mkdev(e.Major, e.Minor)))
	})
}

// special makes what create makes. One that is there and is the same counts as
// made, and gets its metadata again.
func (r *Root) special(e *snapshot.Entry, kind string, create func(dir int, name string) error) error {
	dir, name, err := r.parent(e.Path, true)
	if err != nil {
		return err
	}
	err = retry(func() error { return create(dir, name) })
	if err == unix.EEXIST {
		var st unix.Stat_t
		if err := unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return fail("stat", e, err)
		}
		if !sameSpecial(dir, name, &st, e) {
			if r.o.Overwrite != Always {
				return fail("create", e, ErrExists)
			}
			if err := r.replace(dir, name, e, create); err != nil {
				return err
			}
		}
	} else if unable(err) {
		r.warn(kind, e.Path, err)
		return fail("create", e, fmt.Errorf("%w: %w", ErrUnsupported, err))
	} else if err != nil {
		return fail("create", e, err)
	}
	return r.apply(target{fd: -1, dir: dir, name: name}, e)
}

func sameSpecial(dir int, name string, st *unix.Stat_t, e *snapshot.Entry) bool {
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFLNK:
		if e.Type != snapshot.Symlink {
			return false
		}
		buf := make([]byte, len(e.Link)+1)
		n, err := unix.Readlinkat(dir, name, buf)
		return err == nil && string(buf[:n]) == e.Link
	case unix.S_IFIFO:
		return e.Type == snapshot.Fifo
	case unix.S_IFCHR, unix.S_IFBLK:
		return (e.Type == snapshot.CharDev) == (st.Mode&unix.S_IFMT == unix.S_IFCHR) && (e.Type == snapshot.CharDev || e.Type == snapshot.BlkDev) &&
			unix.Major(st.Rdev) == e.Major && unix.Minor(st.Rdev) == e.Minor
	}
	return false
}

// replace puts what create makes in the place of what is there, so that the
// name is never missing.
func (r *Root) replace(dir int, name string, e *snapshot.Entry, create func(dir int, name string) error) error {
	tmp := tempName(e.Path)
	unix.Unlinkat(dir, tmp, 0) // left over by an interrupted run
	if err := retry(func() error { return create(dir, tmp) }); err != nil {
		return fail("create", e, err)
	}
	if err := r.renameOver(dir, tmp, name, e); err != nil {
		unix.Unlinkat(dir, tmp, 0)
		return err
	}
	return nil
}

// renameOver renames tmp to name over whatever is there but a directory that is not empty.
func (r *Root) renameOver(dir int, tmp, name string, e *snapshot.Entry) error {
	err := retry(func() error { return unix.Renameat(dir, tmp, dir, name) })
	if err == unix.EISDIR {
		err = unix.Unlinkat(dir, name, unix.AT_REMOVEDIR)
		if err == unix.ENOTEMPTY || err == unix.EEXIST || err == unix.EBUSY {
			return fail("replace", e, fmt.Errorf("a directory that is not empty %w", ErrExists))
		}
		if err == nil {
			r.dirs.drop(e.Path)
			err = retry(func() error { return unix.Renameat(dir, tmp, dir, name) })
		}
	}
	if err != nil {
		return fail("replace", e, err)
	}
	return nil
}

// ErrTooManyLinks: the file system allows no further hard link to that file.
var ErrTooManyLinks = errors.New("too many hard links")

// HardLink makes e another name of what is at path, which was restored before.
// Metadata is that of the first name.
func (r *Root) HardLink(path string, e *snapshot.Entry) error {
	toDir, toName, err := r.parent(e.Path, true)
	if err != nil {
		return err
	}
	fromDir, fromName, err := r.parent(path, false)
	if err != nil {
		return err
	}
	link := func(dir int, name string) error {
		return unix.Linkat(fromDir, fromName, dir, name, 0)
	}
	err = retry(func() error { return link(toDir, toName) })
	switch {
	case err == nil:
		return nil
	case err == unix.EMLINK:
		return fail("link", e, ErrTooManyLinks)
	case err != unix.EEXIST:
		return fail("link "+path+" to", e, err)
	}
	var from, to unix.Stat_t
	if err := unix.Fstatat(fromDir, fromName, &from, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return fail("stat", e, err)
	}
	if err := unix.Fstatat(toDir, toName, &to, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return fail("stat", e, err)
	}
	if from.Dev == to.Dev && from.Ino == to.Ino {
		return nil
	}
	if r.o.Overwrite != Always {
		return fail("link "+path+" to", e, ErrExists)
	}
	return r.replace(toDir, toName, e, link)
}

package extract

import (
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/firn-backup/firn/internal/snapshot"
)

// Mkdir makes the directory e, private until FinishDir, or uses the one that is
// there. Its parents are made when they are missing.
func (r *Root) Mkdir(e *snapshot.Entry) error { return r.mkdir(e, true) }

// Parent makes the directory e, which itself was not asked for but lies above
// something that was. One that is there stays as it is.
func (r *Root) Parent(e *snapshot.Entry) error { return r.mkdir(e, false) }

func (r *Root) mkdir(e *snapshot.Entry, asked bool) error {
	if e.Path == "" {
		if asked && r.own {
			// From now on it can be told that this restore is to finish it.
			return r.chmodRoot(unfinished)
		}
		return nil
	}
	dir, name, err := r.parent(e.Path, true)
	if err != nil {
		return err
	}
	err = retry(func() error { return unix.Mkdirat(dir, name, unfinished) })
	if err == unix.EEXIST {
		return r.existingDir(dir, name, e, asked)
	}
	if err != nil {
		return fail("create directory", e, err)
	}
	if r.umask&0o700 != 0 {
		if err := chmodAt(dir, name, unfinished); err != nil {
			return fail("create directory", e, err)
		}
	}
	return nil
}

func (r *Root) existingDir(dir int, name string, e *snapshot.Entry, asked bool) error {
	var st unix.Stat_t
	if err := unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return fail("stat", e, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		if r.o.Overwrite != Always || !asked {
			return fail("create directory", e, ErrExists)
		}
		if err := unix.Unlinkat(dir, name, 0); err != nil {
			return fail("replace", e, err)
		}
		if err := unix.Mkdirat(dir, name, unfinished); err != nil {
			return fail("create directory", e, err)
		}
		return nil
	}
	// A directory of ours that we may not write in, restored earlier to be like that.
	if asked && r.uid != 0 && int(st.Uid) == r.uid && st.Mode&0o700 != 0o700 {
		if err := chmodAt(dir, name, unfinished); err != nil {
			return fail("open directory", e, err)
		}
	}
	return nil
}

func (r *Root) chmodRoot(mode uint32) error {
	fd, err := r.openReal(r.fd)
	if err != nil {
		return fmt.Errorf("open directory %s: %w", r.name, err)
	}
	defer unix.Close(fd)
	if err := unix.Fchmod(fd, mode); err != nil {
		return fmt.Errorf("set the mode of %s: %w", r.name, err)
	}
	return nil
}

// openReal opens the directory dir, an O_PATH descriptor, for changing its metadata.
func (r *Root) openReal(dir int) (int, error) {
	return retryInt(func() (int, error) {
		return unix.Openat(dir, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	})
}

// FinishDir gives the directory e its owner, attributes, times and mode. It
// must come after everything below it. The directory that Open was given gets them if it was
// empty then, or not there, or if Overwrite is Always; else it stays as it is.
func (r *Root) FinishDir(e *snapshot.Entry) error {
	if e.Path == "" && !r.own && r.o.Overwrite != Always {
		return nil
	}
	return r.finish(e, true)
}

// FinishParent is FinishDir for what Parent made. One that was there before stays as it is.
func (r *Root) FinishParent(e *snapshot.Entry) error {
	if e.Path == "" {
		return nil
	}
	return r.finish(e, false)
}

func (r *Root) finish(e *snapshot.Entry, asked bool) error {
	dir, err := r.dir(e.Path, false)
	if err != nil {
		return err
	}
	if !asked {
		var st unix.Stat_t
		if err := unix.Fstat(dir, &st); err != nil {
			return fail("stat", e, err)
		}
		if !isUnfinished(st.Mode) {
			return nil
		}
	}
	fd, err := r.openReal(dir)
	if err != nil {
		return fail("open directory", e, err)
	}
	defer unix.Close(fd)
	return r.apply(target{fd: fd}, e)
}

package glaciercli

import (
	"cmp"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/firn-backup/firn/internal/failure"
)

// This file knows where what is retrieved goes.

// writable opens a file that is no regular one, to be written to as it is: a pipe, a terminal, and whatever a program has open already
// (/dev/stdout, /dev/fd/3). nil: it is a regular file, or not there.
func (s *session) writable(file string) (io.Writer, error) {
	info, err := os.Stat(file)
	switch {
	case file == "":
		return nil, failure.Errorf(failure.Usage, "no file is named to write to")
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case err != nil:
		return nil, err
	case info.IsDir():
		return nil, failure.Errorf(failure.Usage, "%s is a directory", repr(file))
	}
	open, err := isOpenFile(file)
	if err != nil {
		return nil, err
	}
	if open {
		// Nothing can take its place: who has it open goes on with what it has.
		if f, ok := s.env.Stdout.(*os.File); ok {
			if own, err := f.Stat(); err == nil && os.SameFile(own, info) {
				return f, nil // at the place where it is
			}
		}
	}
	if info.Mode().IsRegular() && !open {
		return nil, nil
	}
	f, err := os.OpenFile(file, os.O_WRONLY, 0)
	if err != nil {
		return nil, err
	}
	return &openFile{f, !info.Mode().IsRegular()}, nil
}

// openFile is emptied before something is written to it: not while what is asked for is not there yet.
type openFile struct {
	f     *os.File
	empty bool
}

func (o *openFile) Write(p []byte) (int, error) {
	if !o.empty {
		if err := o.f.Truncate(0); err != nil {
			return 0, err
		}
		o.empty = true
	}
	return o.f.Write(p)
}

func (o *openFile) Close() error { return o.f.Close() }

// isOpenFile says whether a name leads to the symbolic link of an open file (proc_pid_fd(5)), whose text is for people: the file may have
// another name by now, or none.
func isOpenFile(name string) (bool, error) {
	open := false
	_, err := followLinks(name, func(dir string) bool {
		var st syscall.Statfs_t
		open = syscall.Statfs(dir, &st) == nil && int64(st.Type) == procMagic && strings.HasSuffix(filepath.Clean(dir), "/fd")
		return !open
	})
	return open, err
}

const (
	// maxLinks is how many symbolic links one name leads through at most, as for the kernel (path_resolution(7)).
	maxLinks = 40
	// procMagic is the type of /proc (statfs(2)).
	procMagic = 0x9fa0
)

// throughLinks is the file that a name stands for, which need not be there: what is renamed to the name itself would take the
// place of a symbolic link, and not of what it leads to.
func throughLinks(name string) (string, error) {
	return followLinks(name, func(string) bool { return true })
}

// followLinks follows a link, and what that leads to, as long as on says so, which is told the directory that a link lies in.
func followLinks(name string, on func(dir string) bool) (string, error) {
	at := name
	for range maxLinks {
		target, err := os.Readlink(at)
		if err != nil { // no link, or not there, or not to be read: whoever writes to it finds out
			return at, nil
		}
		// The directory as it is: links and .. in it mean what the kernel makes of them, not what the text looks like.
		dir, _ := filepath.Split(at)
		if dir, err = filepath.EvalSymlinks(cmp.Or(dir, ".")); err != nil {
			return "", err
		}
		if !on(dir) {
			return at, nil
		}
		if !filepath.IsAbs(target) {
			target = dir + string(filepath.Separator) + target
		}
		at = target
	}
	return "", &fs.PathError{Op: "open", Path: name, Err: syscall.ELOOP}
}

// oneName is one name of a file, whatever it is called.
func oneName(file string) string {
	dir, name := filepath.Split(file)
	dir, err := filepath.EvalSymlinks(cmp.Or(dir, "."))
	if err == nil {
		dir, err = filepath.Abs(dir)
	}
	if err != nil {
		return file // it cannot be written to
	}
	return filepath.Join(dir, name)
}

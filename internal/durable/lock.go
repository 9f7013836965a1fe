package durable

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// LockedError says that another process, or another part of this one, holds a lock.
type LockedError struct {
	Path string
	PID  int // of the holder, as it wrote itself; 0 when it could not be read
}

func (e *LockedError) Error() string {
	if e.PID == 0 {
		return fmt.Sprintf("%s is locked by another process", e.Path)
	}
	return fmt.Sprintf("%s is locked by process %d", e.Path, e.PID)
}

// Lock takes the lock at path, without waiting, and makes the file where it is
// missing; its directory must exist. The lock is the kernel's (flock): it is gone
// when release is called or the process ends, however it ends, and is not
// inherited by programs it starts. A *LockedError says that somebody holds
// it. The file stays behind, so that a lock released and one taken never lie on different
// files of one name; in it is the holder's process id, for messages only: a stale one means nothing.
//
// On network file systems the lock is worth what their server makes of flock.
func Lock(path string) (release func() error, err error) {
	for {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			return nil, err
		}
		if err := flock(f, syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
			defer f.Close()
			if errors.Is(err, syscall.EWOULDBLOCK) {
				return nil, &LockedError{Path: path, PID: readPID(f)}
			}
			return nil, err
		}
		same, err := stillAt(f, path)
		if err != nil {
			f.Close()
			return nil, err
		}
		if !same { // somebody removed it in between: this lock would hold nobody off
			f.Close()
			continue
		}
		writePID(f)
		return func() error {
			// Closing alone would leave it to a program that is just being started: between fork and exec that has the file open too.
			return errors.Join(flock(f, syscall.LOCK_UN), f.Close())
		}, nil
	}
}

func stillAt(f *os.File, path string) (bool, error) {
	mine, err := f.Stat()
	if err != nil {
		return false, err
	}
	there, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return os.SameFile(mine, there), nil
}

// writePID says who holds the lock. It is for messages only: where the disk is full, the lock is taken without.
func writePID(f *os.File) {
	_ = f.Truncate(0)
	_, _ = f.WriteAt(strconv.AppendInt(nil, int64(os.Getpid()), 10), 0)
}

func readPID(f *os.File) int {
	b := make([]byte, 20)
	n, _ := f.ReadAt(b, 0) // at the end io.EOF; of any other error nothing is worth telling
	pid, err := strconv.Atoi(strings.TrimSpace(string(b[:n])))
	if err != nil || pid < 0 {
		return 0
	}
	return pid
}

// Sharing is how a file is locked.
type Sharing int

const (
	Exclusive Sharing = syscall.LOCK_EX // nobody else has it
	Shared    Sharing = syscall.LOCK_SH // others may have it Shared
)

// LockFile locks an open file, waiting while others hold it or until ctx ends. Closing the file
// (or the end of the process) releases it. It is for short sections
// between processes: it asks again every few milliseconds, and is not fair. A file system
// that knows no locks at all grants it.
func LockFile(ctx context.Context, f *os.File, how Sharing) error {
	const longest = 20 * time.Millisecond
	for wait := time.Millisecond; ; wait = min(2*wait, longest) {
		err := flock(f, int(how)|syscall.LOCK_NB)
		if errors.Is(err, syscall.ENOSYS) || errors.Is(err, syscall.ENOTSUP) || errors.Is(err, syscall.ENOLCK) {
			return nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return err
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return &fs.PathError{Op: "lock", Path: f.Name(), Err: ctx.Err()}
		case <-timer.C:
		}
	}
}

func flock(f *os.File, how int) error {
	for {
		err := syscall.Flock(int(f.Fd()), how)
		if err == syscall.EINTR {
			continue
		}
		if err != nil {
			return &fs.PathError{Op: "flock", Path: f.Name(), Err: err}
		}
		return nil
	}
}

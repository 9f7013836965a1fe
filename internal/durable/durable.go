// Package durable writes files so that they outlive a crash of the program
// or of the machine, and holds locks that die with their process. It owns the
// order of system calls and knows nothing of what is written. Linux only,
// standard library only.
//
// What remains possible, and cannot be closed from here:
//   - A disk, or a hypervisor's, that acknowledges a flush and has not done it.
//   - A file system that lies the same way: network file systems promise what their server does.
//   - A directory that another process made and has not yet synced when it was killed: MkdirAll takes
//     what exists for durable. File systems with an ordered journal (ext4, xfs,
//     btrfs) write it with the next thing synced in it.
//   - After a failed fsync the kernel may have dropped the pages and call the next fsync a success. So nothing here
//     calls fsync twice on the same data: the file is given up with the error.
package durable

import (
	"crypto/rand"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// TempMark begins the last element of the name of every temporary file made
// here. A file with such a name that no running process is writing is a leftover.
const TempMark = ".tmp~"

// WriteFile puts data at path, whole or not at all: into a temporary file in
// the same directory, which is synced and renamed; then the directory is
// synced. What was at path before is replaced, its permissions too: the new file has
// perm, less the umask. After an error, path holds what it held before,
// except that when syncing the directory failed it may hold either.
func WriteFile(path string, data []byte, perm fs.FileMode) error {
	temp, err := writeTemp(path, data, perm)
	if err != nil {
		return err
	}
	if err := os.Rename(temp, path); err != nil {
		os.Remove(temp)
		return err
	}
	return SyncDir(filepath.Dir(path))
}

// CreateExclusive is WriteFile for a path at which nothing may be: it fails with an
// error that is fs.ErrExist where something is, and of several processes
// that try at once one succeeds.
//
// On a file system without hard links (FAT, some network ones) path is first
// reserved as an empty file: there a crash can leave it empty.
func CreateExclusive(path string, data []byte, perm fs.FileMode) error {
	temp, err := writeTemp(path, data, perm)
	if err != nil {
		return err
	}
	defer os.Remove(temp)
	err = os.Link(temp, path)
	if noHardLinks(err) {
		err = reserve(temp, path, perm)
	}
	if err != nil {
		return err
	}
	return SyncDir(filepath.Dir(path))
}

func noHardLinks(err error) bool {
	return errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.ENOTSUP) ||
		errors.Is(err, syscall.ENOSYS) || errors.Is(err, syscall.EMLINK)
}

func reserve(temp, path string, perm fs.FileMode) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, perm)
	if err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return os.Rename(temp, path)
}

// writeTemp writes and syncs a temporary file beside path. After an error
// nothing is left of it.
func writeTemp(path string, data []byte, perm fs.FileMode) (temp string, err error) {
	temp = filepath.Join(filepath.Dir(path), TempMark+rand.Text())
	f, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, perm)
	if err != nil {
		return "", err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		os.Remove(temp)
		return "", err
	}
	return temp, nil
}

// Rename renames a file or an empty directory, both paths on one file system,
// replacing a file at to, and syncs the directory of to. Of a crash it leaves
// the name from, or to, or (where the file system has no journal) both. It does not
// sync the file's content: that must have been done.
func Rename(from, to string) error {
	if err := os.Rename(from, to); err != nil {
		return err
	}
	return SyncDir(filepath.Dir(to))
}

// Remove removes a file or an empty directory and syncs the directory it was in.
func Remove(path string) error {
	if err := os.Remove(path); err != nil {
		return err
	}
	return SyncDir(filepath.Dir(path))
}

// MkdirAll makes path and the parents it lacks, and syncs the directory that
// holds each one made. What exists already costs nothing.
func MkdirAll(path string, perm fs.FileMode) error {
	path = filepath.Clean(path)
	info, err := os.Stat(path)
	if err == nil {
		if !info.IsDir() {
			return &fs.PathError{Op: "mkdir", Path: path, Err: syscall.ENOTDIR}
		}
		return nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if parent := filepath.Dir(path); parent != path {
		if err := MkdirAll(parent, perm); err != nil {
			return err
		}
	}
	err = os.Mkdir(path, perm)
	if errors.Is(err, fs.ErrExist) {
		return MkdirAll(path, perm) // another was faster; it must be a directory
	}
	if err != nil {
		return err
	}
	return SyncDir(filepath.Dir(path))
}

// SyncDir makes the names in a directory durable. A file system that cannot
// sync directories (some network ones answer EINVAL) keeps them as it likes: that is no error.
func SyncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	err = f.Sync()
	if errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.ENOTSUP) {
		err = nil
	}
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	return err
}

// SyncData makes a file's content and size durable (fdatasync), its times
// and permissions not.
func SyncData(f *os.File) error {
	for {
		err := syscall.Fdatasync(int(f.Fd()))
		if err == syscall.EINTR {
			continue
		}
		if err != nil {
			return &fs.PathError{Op: "fdatasync", Path: f.Name(), Err: err}
		}
		return nil
	}
}

// BeginSync has the system begin to write n bytes of f at off, and does not wait: a SyncData
// later has less to wait for. It is a hint only, so that its failure is nobody's concern.
func BeginSync(f *os.File, off, n int64) { beginSync(int(f.Fd()), off, n) }

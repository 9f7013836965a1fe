package extract

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"

	"golang.org/x/sys/unix"

	"github.com/firn-backup/firn/internal/snapshot"
	"github.com/firn-backup/firn/internal/tarstream"
)

// State says how what is at an entry's path compares with the entry.
type State int

const (
	Absent  State = iota // nothing is there
	Same                 // the same content is there
	Differs              // something else is there
	Unknown              // only the content can tell: Commit compares
)

// Existing compares what is at e's path with e: type, and content by its
// SHA-256. Metadata is not compared. It makes nothing. The error says what stands in the way
// of a path that Differs because of its parents.
//
// A sparse file is hashed in its stored form, which says where the holes are. When the
// hash is another one the bytes may still be the same, with other holes: Unknown.
func (r *Root) Existing(e *snapshot.Entry) (State, error) {
	dir, name, err := r.parent(e.Path, false)
	if err != nil {
		switch {
		case errors.Is(err, unix.ENOENT):
			return Absent, nil
		case r.o.Overwrite == Always:
			return Unknown, nil // what blocks may be replaced before
		}
		return Differs, err
	}
	var st unix.Stat_t
	if err := unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		if err == unix.ENOENT {
			return Absent, nil
		}
		return Differs, fail("stat", e, err)
	}
	if e.Type == snapshot.Dir && st.Mode&unix.S_IFMT == unix.S_IFDIR {
		return Same, nil
	}
	if e.Type != snapshot.File {
		if sameSpecial(dir, name, &st, e) {
			return Same, nil
		}
		return Differs, nil
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG || st.Size != e.Size {
		return Differs, nil
	}
	if e.Content.IsZero() {
		return Same, nil
	}
	fd, undo, err := r.openExisting(dir, name)
	if err != nil {
		return Unknown, nil
	}
	defer unix.Close(fd)
	sum, err := r.hashStored(fd, e)
	switch {
	case err == nil && sum == e.Content.SHA256:
		return Same, nil
	case err == nil && !e.Content.Sparse:
		undo()
		return Differs, nil
	}
	undo()
	return Unknown, nil
}

// Again gives what is there and is the same as e the metadata of e.
func (r *Root) Again(e *snapshot.Entry) error {
	dir, name, err := r.parent(e.Path, false)
	if err != nil {
		return err
	}
	if e.Type != snapshot.File {
		return r.apply(target{fd: -1, dir: dir, name: name}, e)
	}
	_, err = r.withExisting(dir, name, e, func(int) (bool, error) { return true, nil })
	return err
}

// Linked says whether both paths are names of one file.
func (r *Root) Linked(a, b string) bool {
	var st [2]unix.Stat_t
	for i, p := range []string{a, b} {
		dir, name, err := r.parent(p, false)
		if err != nil || unix.Fstatat(dir, name, &st[i], unix.AT_SYMLINK_NOFOLLOW) != nil {
			return false
		}
	}
	return st[0].Dev == st[1].Dev && st[0].Ino == st[1].Ino
}

// withExisting opens the regular file that is there; when same says yes, it gets e's metadata.
func (r *Root) withExisting(dir int, name string, e *snapshot.Entry, same func(fd int) (bool, error)) (bool, error) {
	fd, undo, err := r.openExisting(dir, name)
	if errors.Is(err, errNotRegular) || err == unix.ELOOP {
		return false, nil
	}
	if err != nil {
		return false, fail("open", e, err)
	}
	defer unix.Close(fd)
	ok, err := same(fd)
	if err != nil || !ok {
		undo()
		if err != nil {
			err = fail("compare", e, err)
		}
		return false, err
	}
	return true, r.apply(target{fd: fd}, e)
}

var errNotRegular = errors.New("not a regular file")

// openExisting opens a regular file for reading. One of our own that we may not read
// is made readable for that; undo takes this back.
func (r *Root) openExisting(dir int, name string) (fd int, undo func(), err error) {
	open := func() (int, error) {
		return unix.Openat(dir, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	}
	undo = func() {}
	var st unix.Stat_t
	// Not even opened unless it is a regular file: opening a device can do things.
	if err := unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return -1, undo, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return -1, undo, errNotRegular
	}
	fd, err = retryInt(open)
	if err == unix.EACCES && int(st.Uid) == r.uid {
		mode := st.Mode & 0o7777
		if err := chmodAt(dir, name, mode|0o400); err != nil {
			return -1, undo, err
		}
		fd, err = retryInt(open)
		if err == nil {
			undo = func() { unix.Fchmod(fd, mode) }
		}
	}
	if err != nil {
		return -1, undo, err
	}
	if err := unix.Fstat(fd, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
		unix.Close(fd)
		return -1, undo, errNotRegular
	}
	return fd, undo, nil
}

// hashStored is the SHA-256 of the stored form of an open file of e.Size bytes.
func (r *Root) hashStored(fd int, e *snapshot.Entry) ([32]byte, error) {
	h := sha256.New()
	extents := []tarstream.Extent{{Size: e.Size}}
	if e.Content.Sparse {
		extents = nil
		if err := dataExtents(fd, e.Size, func(x tarstream.Extent) error {
			extents = append(extents, x)
			if len(extents) > maxSparseMap/16 {
				return errors.New("too many holes")
			}
			return nil
		}); err != nil {
			return [32]byte{}, err
		}
		h.Write(tarstream.AppendSparseMap(nil, extents, e.Size))
	}
	buf := r.buffer()
	for _, x := range extents {
		for x.Size > 0 {
			n, err := pread(fd, buf[:min(int64(len(buf)), x.Size)], x.Offset)
			if err != nil {
				return [32]byte{}, err
			}
			h.Write(buf[:n])
			x.Offset, x.Size = x.Offset+int64(n), x.Size-int64(n)
		}
	}
	return [32]byte(h.Sum(nil)), nil
}

// equal compares two open files, the first of which has size bytes.
func (r *Root) equal(a, b int, size int64) (bool, error) {
	var st unix.Stat_t
	if err := unix.Fstat(b, &st); err != nil {
		return false, err
	}
	if st.Size != size {
		return false, nil
	}
	half := len(r.buffer()) / 2
	one, two := r.buf[:half], r.buf[half:]
	for off := int64(0); off < size; {
		n, err := pread(a, one[:min(int64(half), size-off)], off)
		if err != nil {
			return false, err
		}
		for got := 0; got < n; {
			m, err := pread(b, two[got:n], off+int64(got))
			if err == io.ErrUnexpectedEOF {
				return false, nil
			}
			if err != nil {
				return false, err
			}
			got += m
		}
		if !bytes.Equal(one[:n], two[:n]) {
			return false, nil
		}
		off += int64(n)
	}
	return true, nil
}

// dataExtents calls fn for each stretch of data in a file of size bytes. On a file system that
// does not tell, the whole file is data.
func dataExtents(fd int, size int64, fn func(tarstream.Extent) error) error {
	for off := int64(0); off < size; {
		data, err := unix.Seek(fd, off, unix.SEEK_DATA)
		if err == unix.ENXIO {
			return nil // a hole up to the end
		}
		if err == unix.EINVAL || err == unix.EOPNOTSUPP {
			return fn(tarstream.Extent{Offset: off, Size: size - off})
		}
		if err != nil {
			return fmt.Errorf("seek data: %w", err)
		}
		hole, err := unix.Seek(fd, data, unix.SEEK_HOLE)
		if err != nil {
			return fmt.Errorf("seek hole: %w", err)
		}
		hole = min(hole, size)
		if data >= hole {
			return nil
		}
		if err := fn(tarstream.Extent{Offset: data, Size: hole - data}); err != nil {
			return err
		}
		off = hole
	}
	return nil
}

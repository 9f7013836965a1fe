package tree

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"runtime"

	"golang.org/x/sys/unix"

	"github.com/firn-backup/firn/internal/snapshot"
	"github.com/firn-backup/firn/internal/source"
	"github.com/firn-backup/firn/internal/tarstream"
)

// file is an open regular file in its stored form.
type file struct {
	fd      int
	opened  info // what it was when it was opened
	sparse  bool
	head    []byte             // what is left of a sparse file's map
	extents []tarstream.Extent // what is left of the data, the current one first
	stored  int64
	pread   func(fd int, p []byte, off int64) (int, error) // unix.Pread
	faults  int
	err     error // the first that reading met
}

var _ source.File = (*file)(nil)

// Open is that of source.Tree. The file is opened without following links,
// without waiting for whatever a fifo that took its place would wait for, and,
// where the kernel allows it, without a trace in its access time.
func (t *Tree) Open(e *snapshot.Entry) (source.File, error) {
	set, err := t.rootsOpen()
	if err != nil {
		return nil, err
	}
	d, name, err := set.locate(e.Path)
	if err != nil {
		return nil, &fs.PathError{Op: "look up", Path: "/" + e.Path, Err: err}
	}
	defer d.done()
	defer runtime.KeepAlive(set)
	fd, err := openFile(d.fd, name)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: "/" + e.Path, Err: err}
	}
	f := &file{fd: fd, pread: unix.Pread}
	if err := f.begin(t, e); err != nil {
		unix.Close(fd)
		return nil, &fs.PathError{Op: "open", Path: "/" + e.Path, Err: err}
	}
	return f, nil
}

func openFile(dir int, name string) (fd int, err error) {
	flags := unix.O_RDONLY | unix.O_NOFOLLOW | unix.O_NONBLOCK | unix.O_NOCTTY | unix.O_CLOEXEC
	for {
		fd, err = unix.Openat(dir, name, flags|unix.O_NOATIME, 0)
		if err == unix.EPERM { // only for the owner and root
			fd, err = unix.Openat(dir, name, flags, 0)
		}
		if err != unix.EINTR {
			return fd, err
		}
	}
}

// errType is that of a file that is none any more.
var errType = errors.New("it is no longer a regular file")

// begin looks at the open file and brings e up to it.
func (f *file) begin(t *Tree, e *snapshot.Entry) error {
	var st unix.Statx_t
	if err := stat(f.fd, "", unix.AT_EMPTY_PATH, &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return errType
	}
	f.opened = infoOf(&st)
	f.opened.fill(e)
	var err error
	if e.Xattrs, err = openXattrs(f.fd); err != nil {
		return fmt.Errorf("read extended attributes: %w", err)
	}
	e.User, e.Group = t.owners.user(e.UID), t.owners.group(e.GID)
	size := f.opened.size
	f.extents = []tarstream.Extent{{Offset: 0, Size: size}}
	f.stored = size
	if size-int64(st.Blocks)*512 >= minHoles {
		if err := f.findHoles(size); err != nil {
			return err
		}
	}
	if f.stored > 128<<10 { // the kernel's usual read-ahead
		_ = unix.Fadvise(f.fd, 0, 0, unix.FADV_SEQUENTIAL) // only advice
	}
	return nil
}

func (f *file) Stored() int64 { return f.stored }
func (f *file) Sparse() bool  { return f.sparse }

// Read is that of source.File.
func (f *file) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if len(f.head) > 0 {
		n := copy(p, f.head)
		f.head = f.head[n:]
		return n, nil
	}
	for len(f.extents) > 0 && f.extents[0].Size == 0 {
		f.extents = f.extents[1:]
	}
	if len(f.extents) == 0 {
		return 0, io.EOF
	}
	x := &f.extents[0]
	n := f.readAt(p[:min(int64(len(p)), x.Size)], x.Offset)
	x.Offset += int64(n)
	x.Size -= int64(n)
	return n, nil
}

// maxFaults is after how many places that cannot be read the rest of a file is
// given up: each may take a failing disk minutes.
const maxFaults = 64

// readAt reads some of p, or fills some of it with zeros.
func (f *file) readAt(p []byte, off int64) int {
	if f.faults >= maxFaults {
		clear(p)
		return len(p)
	}
	for {
		n, err := f.pread(f.fd, p, off)
		switch {
		case err == unix.EINTR:
			continue
		case n > 0:
			return n
		case err == nil: // its end: nothing can be there any more
			f.fault(io.ErrUnexpectedEOF)
			f.faults = maxFaults
		case err == unix.EIO: // go on behind this page
			f.fault(err)
			p = p[:min(int64(len(p)), 4096-off&4095)]
		default:
			f.fault(err)
			f.faults = maxFaults
		}
		clear(p)
		return len(p)
	}
}

func (f *file) fault(err error) {
	f.faults++
	if f.err == nil {
		f.err = err
	}
}

// Check is that of source.File.
func (f *file) Check() error {
	if f.err != nil && f.err != io.ErrUnexpectedEOF {
		return fmt.Errorf("read error: %w", f.err)
	}
	var st unix.Statx_t
	if err := stat(f.fd, "", unix.AT_EMPTY_PATH, &st); err != nil {
		return fmt.Errorf("stat after reading: %w", err)
	}
	now := infoOf(&st)
	switch {
	case now.size < f.opened.size || f.err != nil:
		return errors.New("it was truncated while it was read")
	case now.size > f.opened.size:
		return errors.New("it grew while it was read")
	case now.mtime != f.opened.mtime || now.ctime != f.opened.ctime:
		return errors.New("it changed while it was read")
	}
	return nil
}

func (f *file) Close() error {
	if f.fd < 0 {
		return fs.ErrClosed
	}
	err := unix.Close(f.fd)
	f.fd = -1
	return err
}

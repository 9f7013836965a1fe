package extract

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"

	"golang.org/x/sys/unix"

	"github.com/firn-backup/firn/internal/snapshot"
	"github.com/firn-backup/firn/internal/tarstream"
)

// maxSparseMap bounds the memory that a sparse file's map may take, in bytes.
const maxSparseMap = 64 << 20

// File is a regular file being written: nobody sees it before Commit. Write
// takes the stored form of its content.
type File struct {
	r   *Root
	e   snapshot.Entry
	fd  int
	tmp string // temporary name in the directory; empty for O_TMPFILE

	committed bool
	got       int64 // stored bytes written
	off       int64 // where the next byte of a file without holes goes

	// Of a sparse file:
	mapped  bool
	head    []byte // of the stored form, until the map is whole
	tryAt   int    // length of head at which parsing is tried next
	extents []tarstream.Extent
	filled  int64 // bytes of extents[0] written
}

// tempName is the temporary name for path in its directory: always the same, so
// that a run finds and removes what an interrupted one left.
func tempName(path string) string {
	h := sha256.Sum256([]byte(path))
	return ".firn-" + hex.EncodeToString(h[:8]) + ".tmp"
}

// File begins to write the regular file e. Close must be called.
func (r *Root) File(e *snapshot.Entry) (*File, error) {
	dir, _, err := r.parent(e.Path, true)
	if err != nil {
		return nil, err
	}
	f := &File{r: r, e: *e, fd: -1, tryAt: 512}
	if r.tmpfile {
		f.fd, err = retryInt(func() (int, error) {
			return unix.Openat(dir, ".", unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
		})
		switch err {
		case nil:
			return f, nil
		case unix.EOPNOTSUPP, unix.EISDIR, unix.EINVAL, unix.ENOENT:
			r.tmpfile = false // this file system, or kernel, does not have it
		default:
			return nil, fail("create", e, err)
		}
	}
	f.tmp = tempName(e.Path)
	create := func() (int, error) {
		return unix.Openat(dir, f.tmp, unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	}
	f.fd, err = retryInt(create)
	if err == unix.EEXIST {
		if err := unix.Unlinkat(dir, f.tmp, 0); err != nil {
			return nil, fail("remove the temporary file of", e, err)
		}
		f.fd, err = retryInt(create)
	}
	if err != nil {
		return nil, fail("create", e, err)
	}
	return f, nil
}

// Write takes the next stored bytes.
func (f *File) Write(p []byte) (int, error) {
	f.got += int64(len(p))
	if !f.e.Content.Sparse {
		if f.off+int64(len(p)) > f.e.Size {
			return 0, fail("write", &f.e, errors.New("more content than the entry says"))
		}
		if err := pwrite(f.fd, p, f.off); err != nil {
			return 0, fail("write", &f.e, err)
		}
		f.off += int64(len(p))
		return len(p), nil
	}
	if f.mapped {
		return len(p), f.fill(p)
	}
	f.head = append(f.head, p...)
	if len(f.head) < f.tryAt {
		return len(p), nil
	}
	return len(p), f.parse()
}

// parse tries to read the map from head. Trying again only when head has
// doubled keeps the work linear.
func (f *File) parse() error {
	extents, n, err := tarstream.ParseSparseMap(f.head, f.e.Size)
	if errors.Is(err, io.ErrUnexpectedEOF) {
		if len(f.head) > maxSparseMap {
			return fail("write", &f.e, errors.New("its sparse map is too large"))
		}
		f.tryAt = 2 * len(f.head)
		return nil
	}
	if err != nil {
		return fail("write", &f.e, err)
	}
	f.mapped, f.extents = true, extents
	rest := f.head[n:]
	f.head = nil
	return f.fill(rest)
}

// fill writes data into the extents.
func (f *File) fill(p []byte) error {
	for len(p) > 0 {
		for len(f.extents) > 0 && f.filled == f.extents[0].Size {
			f.extents, f.filled = f.extents[1:], 0
		}
		if len(f.extents) == 0 {
			return fail("write", &f.e, errors.New("more content than its sparse map says"))
		}
		x := f.extents[0]
		n := min(int64(len(p)), x.Size-f.filled)
		if err := pwrite(f.fd, p[:n], x.Offset+f.filled); err != nil {
			return fail("write", &f.e, err)
		}
		f.filled += n
		p = p[n:]
	}
	return nil
}

// whole checks that all of the content came.
func (f *File) whole() error {
	if f.e.Content.Sparse {
		if !f.mapped {
			if err := f.parse(); err != nil {
				return err
			}
		}
		var missing int64
		for _, x := range f.extents {
			missing += x.Size
		}
		if !f.mapped || missing != f.filled {
			return fail("write", &f.e, io.ErrUnexpectedEOF)
		}
		if err := retry(func() error { return unix.Ftruncate(f.fd, f.e.Size) }); err != nil {
			return fail("write", &f.e, err)
		}
		return nil
	}
	if f.off != f.e.Size {
		return fail("write", &f.e, io.ErrUnexpectedEOF)
	}
	return nil
}

// Commit gives the file its metadata and its name. The caller has compared the
// SHA-256 of what it wrote. ErrExists: the name is taken by something else; a file
// with the same bytes is kept and gets the metadata. After ErrMetadata the file is there all the same.
func (f *File) Commit() error {
	if err := f.whole(); err != nil {
		return err
	}
	faults := f.r.apply(target{fd: f.fd}, &f.e)
	if faults != nil && !errors.Is(faults, ErrMetadata) {
		return faults
	}
	dir, name, err := f.r.parent(f.e.Path, true)
	if err != nil {
		return err
	}
	if f.tmp != "" {
		err = f.rename(dir, name)
	} else {
		err = f.link(dir, name)
	}
	if err == unix.EEXIST {
		return f.meet(dir, name)
	}
	if err != nil {
		if errors.Is(err, ErrExists) || Fatal(err) {
			return err
		}
		return fail("create", &f.e, err)
	}
	f.tmp, f.committed = "", true
	return faults
}

// CommitSize is Commit of a file whose size was not known before: size is how many bytes were written.
func (f *File) CommitSize(size int64) error {
	f.e.Size = size
	return f.Commit()
}

// link gives an O_TMPFILE its name.
func (f *File) link(dir int, name string) error {
	from := fmt.Sprintf("/proc/self/fd/%d", f.fd)
	place := func(name string) error {
		return retry(func() error { return unix.Linkat(unix.AT_FDCWD, from, dir, name, unix.AT_SYMLINK_FOLLOW) })
	}
	err := place(name)
	if err != unix.EEXIST || f.r.o.Overwrite != Always {
		return err
	}
	tmp := tempName(f.e.Path)
	unix.Unlinkat(dir, tmp, 0)
	if err := place(tmp); err != nil {
		return err
	}
	if err := f.r.renameOver(dir, tmp, name, &f.e); err != nil {
		unix.Unlinkat(dir, tmp, 0)
		return err
	}
	return nil
}

// rename gives a file with a temporary name its own.
func (f *File) rename(dir int, name string) error {
	if f.r.o.Overwrite == Always {
		return f.r.renameOver(dir, f.tmp, name, &f.e)
	}
	err := retry(func() error { return unix.Renameat2(dir, f.tmp, dir, name, unix.RENAME_NOREPLACE) })
	if err != unix.ENOSYS && err != unix.EINVAL {
		return err
	}
	// A file system that cannot do that in one step.
	if err := retry(func() error { return unix.Linkat(dir, f.tmp, dir, name, 0) }); err != nil {
		return err
	}
	return unix.Unlinkat(dir, f.tmp, 0)
}

// meet is what happens when Commit finds the name taken: the same bytes are as good.
func (f *File) meet(dir int, name string) error {
	same, err := f.r.withExisting(dir, name, &f.e, func(fd int) (bool, error) { return f.r.equal(f.fd, fd, f.e.Size) })
	if err != nil && !errors.Is(err, ErrMetadata) {
		return err
	}
	if !same {
		return fail("create", &f.e, ErrExists)
	}
	return err
}

// Close releases the file, and throws it away unless it was committed.
func (f *File) Close() error {
	if f.fd < 0 {
		return nil
	}
	if f.tmp != "" {
		if dir, _, err := f.r.parent(f.e.Path, false); err == nil {
			unix.Unlinkat(dir, f.tmp, 0)
		}
	}
	fd := f.fd
	f.fd = -1
	return unix.Close(fd)
}

// Copy makes the regular file e of the same content as f, which was written
// whole and not closed yet.
func (r *Root) Copy(f *File, e *snapshot.Entry) error {
	g, err := r.File(e)
	if err != nil {
		return err
	}
	defer g.Close()
	buf := r.buffer()
	err = dataExtents(f.fd, f.e.Size, func(x tarstream.Extent) error {
		for x.Size > 0 {
			n, err := pread(f.fd, buf[:min(int64(len(buf)), x.Size)], x.Offset)
			if err != nil {
				return err
			}
			if err := pwrite(g.fd, buf[:n], x.Offset); err != nil {
				return err
			}
			x.Offset, x.Size = x.Offset+int64(n), x.Size-int64(n)
		}
		return nil
	})
	if err == nil {
		err = retry(func() error { return unix.Ftruncate(g.fd, f.e.Size) })
	}
	if err != nil {
		return fail("copy "+f.e.Path+" to", e, err)
	}
	g.off, g.mapped, g.extents = g.e.Size, true, nil
	return g.Commit()
}

// pwrite writes all of p.
func pwrite(fd int, p []byte, off int64) error {
	for len(p) > 0 {
		n, err := retryInt(func() (int, error) { return unix.Pwrite(fd, p, off) })
		if err != nil {
			return err
		}
		p, off = p[n:], off+int64(n)
	}
	return nil
}

// pread reads at least a byte; the file is not expected to end.
func pread(fd int, p []byte, off int64) (int, error) {
	n, err := retryInt(func() (int, error) { return unix.Pread(fd, p, off) })
	if err == nil && n == 0 {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

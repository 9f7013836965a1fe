package durable

import (
	"errors"
	"os"
)

// directAlign is what offset and length of direct I/O are multiples of: no block device in use asks for more.
// Memory should lie so too: the runtime begins what is larger than 32 KiB at a page of 8 KiB.
const directAlign = 4096

// Direct writes to a file past the system's cache (O_DIRECT): large data that nobody reads soon then costs no
// copy, drives nothing out of the cache, and leaves a later SyncData nothing to wait for but the disk's own cache and
// the file's metadata. It does not make anything durable by itself.
//
// It is safe for concurrent use on stretches that do not overlap.
type Direct struct{ f *os.File }

// OpenDirect opens an existing file for writing past the cache. Where the file system or the system does not do
// that, the error wraps errors.ErrUnsupported.
func OpenDirect(name string) (*Direct, error) {
	if directFlag == 0 {
		return nil, errors.ErrUnsupported
	}
	f, err := os.OpenFile(name, os.O_WRONLY|directFlag, 0)
	if err != nil {
		return nil, unsupported(err)
	}
	return &Direct{f}, nil
}

// WriteAt writes as much of the beginning of p as can be written so, which may be nothing: n is a multiple
// of the block size, and what is left, less than a block unless off does not begin one, is for a
// write through the cache. An error that wraps errors.ErrUnsupported (p lies badly in memory, or the file system
// does not do this after all) says that all of it is.
func (d *Direct) WriteAt(p []byte, off int64) (n int, err error) {
	if len(p) < directAlign || off%directAlign != 0 {
		return 0, nil
	}
	n, err = d.f.WriteAt(p[:len(p)&^(directAlign-1)], off)
	if err != nil {
		return 0, unsupported(err)
	}
	return n, nil
}

// Close closes the file. It does not sync it.
func (d *Direct) Close() error { return d.f.Close() }

func unsupported(err error) error {
	var pe *os.PathError
	if errors.As(err, &pe) && refused(pe.Err) {
		return errors.Join(errors.ErrUnsupported, err)
	}
	return err
}

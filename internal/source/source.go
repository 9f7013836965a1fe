// Package source is the contract of what can be backed up: trees of files, and
// streams that a producer makes. The adapters live below it, one folder each; sourcetest
// holds the suites that they pass. It knows nothing of volumes, vaults or the
// catalog: what of a tree has changed since last time is decided by its caller.
package source

import (
	"context"
	"io"

	"github.com/firn-backup/firn/internal/snapshot"
)

// Item is one thing met on a walk.
type Item struct {
	// Entry has what lstat tells: Path, Type, Mode, UID, GID, Size, MTime, CTime,
	// Dev, Ino, Major, Minor, LinkGroup. Tree.Load fills in the rest.
	Entry snapshot.Entry

	// Err is what went wrong here, nil mostly. With Err set, Known says whether
	// Entry is good all the same (a directory that cannot be listed), Gone that the
	// name vanished during the walk; otherwise nothing is known of Path nor of
	// anything below it, and what an earlier snapshot says of them stays true.
	Err   error
	Known bool
	Gone  bool
}

// A Tree is a set of paths on this machine, with its excludes.
type Tree interface {
	// Walk calls fn with every entry that is not excluded, in the order of
	// snapshot.ComparePaths, in batches (of any size above 0, the slice is fn's to keep). A root that is missing,
	// not mounted where that is required, or unreadable is an error before fn
	// is called at all. It stops at fn's first error.
	Walk(ctx context.Context, fn func([]Item) error) error

	// Load fills in what lstat does not tell: User, Group, Link, Xattrs. Safe for concurrent use.
	Load(e *snapshot.Entry) error

	// Open opens a regular file for reading its stored form, brings e's metadata (Size, MTime …) up to what
	// the open file says, and fills in what Load does. Safe for concurrent use.
	Open(e *snapshot.Entry) (File, error)
}

// A File is an open regular file in its stored form: its bytes, or for a sparse
// one a GNU sparse 1.0 map followed by the data.
type File interface {
	// Read yields exactly Stored bytes, then io.EOF, and never fails otherwise: bytes
	// that cannot be read, or are no longer there, come as zeros, and Check tells.
	io.Reader
	Stored() int64
	Sparse() bool
	// Check tells, once all is read, what is wrong with what was read: it changed
	// meanwhile, it was cut, a read failed. Nil: it is a true copy.
	Check() error
	io.Closer
}

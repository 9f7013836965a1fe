// Package snapshot is the vocabulary of what a backup holds: entries, their
// times and content addresses, kinds, and the one order of paths. It knows
// nothing of where any of it is stored or how it is written down.
package snapshot

import (
	"strings"
	"time"
)

// Kind is full or incremental.
type Kind string

const (
	Full        Kind = "full"
	Incremental Kind = "incremental"
)

// Type is what an entry is. The letters are those of the manifest.
type Type byte

const (
	File    Type = 'f'
	Dir     Type = 'd'
	Symlink Type = 'l'
	Fifo    Type = 'p'
	CharDev Type = 'c'
	BlkDev  Type = 'b'
)

// Time is a point in time as file systems keep it: seconds since the epoch,
// which may be negative, and 0 to 999,999,999 nanoseconds.
type Time struct {
	Sec  int64
	Nsec int32
}

// TimeOf turns t into a Time.
func TimeOf(t time.Time) Time { return Time{t.Unix(), int32(t.Nanosecond())} }

// Time turns t into a time.Time in UTC.
func (t Time) Time() time.Time { return time.Unix(t.Sec, int64(t.Nsec)).UTC() }

// Xattr is one extended attribute. Value is bytes and may be empty; Name
// carries its namespace ("user.x", "security.capability",
// "system.posix_acl_access").
type Xattr struct {
	Name  string
	Value string
}

// Content says where the stored bytes of a regular file lie. The zero value
// (N == 0) says that there are none: the file is empty, or the entry is not a
// regular file.
//
// The address is (N, Volume, Offset): a snapshot of the same chain, one of its
// volumes, and an offset in bytes in that volume's decoded (raw) stream. The
// Stored bytes may go on at offset 0 of the volumes that follow.
type Content struct {
	N      uint64   // sequence number, in its set, of the snapshot that stored the bytes; from 1
	Volume int      // volume number in that snapshot; from 1
	Offset int64    // bytes into the decoded volume
	Stored int64    // bytes in the stream: the file's size, or less when Sparse
	Sparse bool     // the stored bytes are a GNU sparse 1.0 map followed by the data
	SHA256 [32]byte // of the Stored bytes
}

// IsZero says that there is no content.
func (c Content) IsZero() bool { return c.N == 0 }

// Entry is one name in a snapshot.
//
// Path is bytes, not necessarily UTF-8: absolute without the leading slash, no
// trailing slash, never empty, no "." or ".." elements, no NUL.
type Entry struct {
	Path  string
	Type  Type
	Mode  uint32 // permission bits with setuid, setgid and sticky: 0 to 07777
	UID   uint32
	GID   uint32
	User  string // owner's name; empty when it has none
	Group string
	MTime Time
	Size  int64  // logical size in bytes of a regular file; 0 for all else
	Link  string // target of a symbolic link, bytes
	Major uint32 // of a device
	Minor uint32

	// LinkGroup is the same non-empty string for all names of one inode that
	// has several; empty otherwise. It means something only within one snapshot.
	LinkGroup string

	Xattrs  []Xattr // sorted by name
	Content Content

	// Torn says that the file changed while it was read, or could not be read in places: the stored bytes are
	// some mixture of versions, or zeros there.
	Torn bool

	// What follows is for finding changes on the machine that made the
	// snapshot. It is kept in the catalog and never in the manifest.
	CTime Time
	Dev   uint64
	Ino   uint64
}

// Problem is something that could not be backed up as it should have been.
type Problem struct {
	Path   string // as in Entry
	Reason string // one line for people: "permission denied", "changed while it was read"
}

// ComparePaths compares two paths in the one order that catalog, manifest and
// walk share: bytewise, with '/' sorting before every other byte, so that a
// directory's contents follow it directly. It returns -1, 0 or 1.
func ComparePaths(a, b string) int {
	n := min(len(a), len(b))
	for i := range n {
		if a[i] == b[i] {
			continue
		}
		switch {
		case a[i] == '/':
			return -1
		case b[i] == '/':
			return 1
		case a[i] < b[i]:
			return -1
		default:
			return 1
		}
	}
	switch {
	case len(a) < len(b):
		return -1
	case len(a) > len(b):
		return 1
	}
	return 0
}

// Below says whether path is dir itself or lies below it. The empty dir is the
// root: everything lies below it.
func Below(path, dir string) bool {
	if dir == "" {
		return true
	}
	return strings.HasPrefix(path, dir) && (len(path) == len(dir) || path[len(dir)] == '/')
}

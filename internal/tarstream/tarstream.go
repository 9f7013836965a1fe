// Package tarstream writes the members of the tar stream a tree is stored as:
// PAX headers from entries, GNU sparse 1.0 maps, padding. It is pure: it opens
// nothing and knows nothing of volumes.
package tarstream

import "github.com/firn-backup/firn/internal/snapshot"

// Extent is a stretch of data in a sparse file, in bytes.
type Extent struct{ Offset, Size int64 }

// AppendHeader appends to dst the header blocks of e's member: a PAX extended
// header where one is needed, and the ustar header. stored is the number of bytes of content that
// follow (0 for all but regular files); sparse says that these begin with a
// GNU sparse 1.0 map (AppendSparseMap), e.Size then being the logical size.
// linkTo, when not empty, makes it a hard link to that path, without content.
func AppendHeader(dst []byte, e *snapshot.Entry, stored int64, sparse bool, linkTo string) ([]byte, error) {
	panic("not yet")
}

// Padding is how many zero bytes follow stored bytes of content.
func Padding(stored int64) int { return int(-stored & 511) }

// Trailer ends a tar stream: two blocks of zeros.
var Trailer [1024]byte

// AppendSparseMap appends the map of a sparse file of that logical size, padded to a
// multiple of 512 bytes.
func AppendSparseMap(dst []byte, extents []Extent, size int64) []byte { panic("not yet") }

// ParseSparseMap reads a map from the beginning of b, and tells how many bytes
// of b it took, padding included. Extents are checked: in order, not
// overlapping, within size. io.ErrUnexpectedEOF: b is too short yet.
func ParseSparseMap(b []byte, size int64) (extents []Extent, n int, err error) { panic("not yet") }

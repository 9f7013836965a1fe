// Package tarstream writes the members of the tar stream a tree is stored as:
// PAX headers from entries, GNU sparse 1.0 maps, padding. It is pure: it opens
// nothing and knows nothing of volumes.
//
// The bytes it makes depend on its arguments alone, so that an interrupted
// snapshot is resumed with the bytes it began with.
package tarstream

import (
	"errors"
	"fmt"
	"strings"

	"github.com/firn-backup/firn/internal/snapshot"
)

// Extent is a stretch of data in a sparse file, in bytes.
type Extent struct{ Offset, Size int64 }

const blockSize = 512

// Padding is how many zero bytes follow stored bytes of content.
func Padding(stored int64) int { return int(-stored & (blockSize - 1)) }

// Trailer ends a tar stream: two blocks of zeros.
var Trailer [1024]byte

// errName is why a string cannot stand in a PAX record or in a header.
var errName = errors.New("it holds a NUL byte")

// AppendHeader appends to dst the header blocks of e's member: a PAX extended
// header where one is needed, and the ustar header. stored is the number of bytes of content that
// follow (0 for all but regular files); sparse says that these begin with a
// GNU sparse 1.0 map (AppendSparseMap), e.Size then being the logical size.
// linkTo, when not empty, makes it a hard link to that path, without content.
//
// Names and values are written as the bytes they are, whatever their encoding,
// as GNU tar does. A POSIX ACL goes in twice: as the extended attribute it is,
// and as the SCHILY.acl text with numeric ids that GNU tar restores it from.
// The extended attributes of a hard link are those of the file it links to and
// are not repeated.
//
// An error means that e cannot stand in a tar stream at all (an empty path, a
// NUL byte in a name, a type that is none of snapshot's); dst is then
// returned as it was.
func AppendHeader(dst []byte, e *snapshot.Entry, stored int64, sparse bool, linkTo string) ([]byte, error) {
	h, err := newHeader(e, stored, sparse, linkTo)
	if err != nil {
		return dst, fmt.Errorf("write the tar header of %q: %w", e.Path, err)
	}
	start := len(dst)
	dst = h.appendPAX(dst)
	if h.err != nil {
		return dst[:start], fmt.Errorf("write the tar header of %q: %w", e.Path, h.err)
	}
	return h.appendBlock(dst), nil
}

// header is one member's header on its way to bytes.
type header struct {
	e      *snapshot.Entry
	flag   byte   // type flag
	name   string // what the member is called; a directory's without its slash
	slash  bool   // name is followed by a slash
	link   string
	size   int64
	sparse bool
	err    error
}

// sparseDir stands between the directory and the base name of a sparse file's
// member, as GNU tar has it with the number of its process: who does not know
// sparse files extracts map and data to there and not over the file.
const sparseDir = "GNUSparseFile.0"

func newHeader(e *snapshot.Entry, stored int64, sparse bool, linkTo string) (header, error) {
	h := header{e: e, name: e.Path, size: stored}
	switch {
	case e.Path == "":
		return h, errors.New("the path is empty")
	case strings.IndexByte(e.Path, 0) >= 0:
		return h, errName
	case strings.IndexByte(linkTo, 0) >= 0 || strings.IndexByte(e.Link, 0) >= 0:
		return h, fmt.Errorf("the link's target: %w", errName)
	case stored < 0 || e.Size < 0:
		return h, errors.New("its size is negative")
	}
	if linkTo != "" {
		h.flag, h.link, h.size = '1', linkTo, 0
		return h, nil
	}
	switch e.Type {
	case snapshot.File:
		h.flag = '0'
		if sparse {
			h.sparse = true
			dir, base := split(e.Path)
			h.name = dir + sparseDir + "/" + base
		}
		return h, nil
	case snapshot.Dir:
		h.flag, h.slash = '5', true
	case snapshot.Symlink:
		h.flag, h.link = '2', e.Link
	case snapshot.Fifo:
		h.flag = '6'
	case snapshot.CharDev:
		h.flag = '3'
	case snapshot.BlkDev:
		h.flag = '4'
	default:
		return h, fmt.Errorf("unknown type %q", e.Type)
	}
	if stored != 0 || sparse {
		return h, errors.New("only a regular file has content")
	}
	return h, nil
}

// split cuts path after its last slash.
func split(path string) (dir, base string) {
	i := strings.LastIndexByte(path, '/')
	return path[:i+1], path[i+1:]
}

package tarstream

import (
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
)

// MaxExtents is the most extents a sparse file's map may have; a file with
// more of them is stored with some of its holes filled. It bounds what a
// reader needs of memory: a map is at most MaxSparseMap bytes long.
const (
	MaxExtents   = 1 << 17
	MaxSparseMap = 40*(MaxExtents+1) + 512 // two numbers of 19 digits and their newlines an extent
)

// errMap is what ParseSparseMap's errors about content wrap.
var errMap = errors.New("bad sparse map")

// AppendSparseMap appends the map of a sparse file of that logical size, padded to a
// multiple of 512 bytes. A file that ends in a hole gets a last extent of no
// bytes at its end, as GNU tar wants it.
func AppendSparseMap(dst []byte, extents []Extent, size int64) []byte {
	start := len(dst)
	var end int64
	if n := len(extents); n > 0 {
		end = extents[n-1].Offset + extents[n-1].Size
	}
	count := len(extents)
	if end < size || count == 0 {
		count++
	}
	dst = append(strconv.AppendInt(dst, int64(count), 10), '\n')
	for _, x := range extents {
		dst = append(strconv.AppendInt(dst, x.Offset, 10), '\n')
		dst = append(strconv.AppendInt(dst, x.Size, 10), '\n')
	}
	if count > len(extents) {
		dst = append(strconv.AppendInt(dst, size, 10), '\n')
		dst = append(dst, "0\n"...)
	}
	return append(dst, Trailer[:Padding(int64(len(dst)-start))]...)
}

// ParseSparseMap reads a map from the beginning of b, and tells how many bytes
// of b it took, padding included. Extents are checked: in order, not
// overlapping, within size. io.ErrUnexpectedEOF: b is too short yet, which it
// never is with MaxSparseMap bytes. Extents of no bytes are left out.
//
// b may be hostile: no memory is taken for what b does not hold.
func ParseSparseMap(b []byte, size int64) (extents []Extent, n int, err error) {
	count, n, err := number(b, 0)
	if err != nil {
		return nil, 0, err
	}
	if count > MaxExtents+1 {
		return nil, 0, fmt.Errorf("%w: %d extents are too many", errMap, count)
	}
	// The shortest extent takes four bytes.
	extents = make([]Extent, 0, min(count, int64(len(b)/4)))
	var end int64
	for range count {
		var x Extent
		if x.Offset, n, err = number(b, n); err != nil {
			return nil, 0, err
		}
		if x.Size, n, err = number(b, n); err != nil {
			return nil, 0, err
		}
		if x.Offset < end || x.Offset > size || x.Size > size-x.Offset {
			return nil, 0, fmt.Errorf("%w: extent %d+%d after %d in %d bytes", errMap, x.Offset, x.Size, end, size)
		}
		end = x.Offset + x.Size
		if x.Size > 0 {
			extents = append(extents, x)
		}
	}
	pad := Padding(int64(n))
	for i := n; i < min(n+pad, len(b)); i++ {
		if b[i] != 0 {
			return nil, 0, fmt.Errorf("%w: its padding is not zeros", errMap)
		}
	}
	if len(b) < n+pad {
		return nil, 0, io.ErrUnexpectedEOF
	}
	return extents, n + pad, nil
}

// number reads a decimal number and its newline at b[i:], and tells where it
// ends.
func number(b []byte, i int) (v int64, next int, err error) {
	start := i
	for ; i < len(b); i++ {
		c := b[i]
		if c == '\n' && i > start {
			return v, i + 1, nil
		}
		if c < '0' || c > '9' {
			return 0, 0, fmt.Errorf("%w: byte %#x where a digit should be", errMap, c)
		}
		if i > start && v == 0 {
			return 0, 0, fmt.Errorf("%w: a number begins with 0", errMap)
		}
		d := int64(c - '0')
		if v > (math.MaxInt64-d)/10 {
			return 0, 0, fmt.Errorf("%w: a number is too large", errMap)
		}
		v = v*10 + d
	}
	return 0, 0, io.ErrUnexpectedEOF
}

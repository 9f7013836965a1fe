package tree

import (
	"golang.org/x/sys/unix"

	"github.com/firn-backup/firn/internal/tarstream"
)

const (
	// minHoles is how many bytes the sparse form must save.
	minHoles = 64 << 10
	// maxExtents is how many stretches of data a file's map has at most; near
	// neighbours are joined until they are that few.
	maxExtents = 100_000
)

// findHoles asks the file system where the file has data, and chooses the
// sparse form if it saves enough.
func (f *file) findHoles(size int64) error {
	list := extentList{most: maxExtents}
	for off := int64(0); off < size; {
		begin, err := unix.Seek(f.fd, off, unix.SEEK_DATA)
		if err == unix.ENXIO || err == nil && begin >= size { // only a hole is left
			break
		}
		if err == unix.EINVAL || err == unix.ENOTSUP {
			return nil // it cannot tell
		}
		if err != nil {
			return err
		}
		end, err := unix.Seek(f.fd, begin, unix.SEEK_HOLE)
		if err == unix.ENXIO { // it was cut meanwhile
			break
		}
		if err != nil {
			return err
		}
		if end = min(end, size); end > begin {
			list.add(tarstream.Extent{Offset: begin, Size: end - begin})
		}
		off = max(end, begin+1) // it may change under us: always onward
	}
	list.shrink(list.most)
	head := tarstream.AppendSparseMap(nil, list.extents, size)
	stored := int64(len(head))
	for _, x := range list.extents {
		stored += x.Size
	}
	if size-stored < minHoles {
		return nil
	}
	f.sparse, f.head, f.extents, f.stored = true, head, list.extents, stored
	return nil
}

// extentList collects extents, in order, in bounded memory: when there are
// twice too many, the smallest holes between them are filled.
type extentList struct {
	extents []tarstream.Extent
	most    int
	hole    int64 // holes smaller than this are filled
}

func (l *extentList) add(x tarstream.Extent) {
	if n := len(l.extents); n > 0 {
		last := &l.extents[n-1]
		if end := last.Offset + last.Size; x.Offset-end < max(l.hole, 1) {
			last.Size = x.Offset + x.Size - last.Offset
			return
		}
	}
	l.extents = append(l.extents, x)
	if len(l.extents) >= 2*l.most {
		l.shrink(l.most)
	}
}

// shrink fills ever larger holes until at most n extents are left.
func (l *extentList) shrink(n int) {
	for len(l.extents) > n {
		l.hole = max(2*l.hole, 4096)
		all := l.extents
		l.extents = l.extents[:0]
		most := l.most
		l.most = len(all) + 1 // add must not come back here
		for _, x := range all {
			l.add(x)
		}
		l.most = most
	}
}

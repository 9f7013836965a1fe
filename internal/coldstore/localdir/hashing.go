package localdir

import (
	"context"
	"fmt"
	"io"

	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/treehash"
)

// PutPartHashing is coldstore.PartHasher's: the caller and this store share the
// memory that data lies in, so one of them hashing it is enough.
func (s *Store) PutPartHashing(ctx context.Context, uploadID string, off int64, data []byte) ([]treehash.Hash, error) {
	leaves := treehash.Leaves(data)
	if err := s.putPart(ctx, uploadID, off, data, treehash.Combine(leaves), true); err != nil {
		return nil, fmt.Errorf("put part at %d of upload %s: %w", off, uploadID, err)
	}
	return leaves, nil
}

var (
	_ coldstore.PartHasher      = (*Store)(nil)
	_ coldstore.SectionUploader = (*Store)(nil)
)

// PutPartSection is coldstore.SectionUploader's.
func (s *Store) PutPartSection(ctx context.Context, uploadID string, off int64, r *io.SectionReader, hash treehash.Hash, _ [32]byte, wait func(n int) error) error {
	var src io.Reader = io.NewSectionReader(r, 0, r.Size())
	if wait != nil {
		src = &pacedReader{src, wait}
	}
	return s.PutPartFrom(ctx, uploadID, off, src, r.Size(), hash)
}

// pacedReader asks before it passes on what was read.
type pacedReader struct {
	r    io.Reader
	wait func(n int) error
}

func (p *pacedReader) Read(b []byte) (int, error) {
	n, err := p.r.Read(b)
	if n > 0 {
		if werr := p.wait(n); werr != nil {
			return 0, werr
		}
	}
	return n, err
}

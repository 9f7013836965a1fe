package localdir

import (
	"context"
	"fmt"

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

var _ coldstore.PartHasher = (*Store)(nil)

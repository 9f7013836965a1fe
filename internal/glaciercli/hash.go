package glaciercli

import (
	"context"
	"errors"
	"io"
	"os"

	"github.com/firn-backup/firn/treehash"
)

// fileHash is the tree hash of one file, computed once.
type fileHash struct {
	done bool
	sum  treehash.Hash
}

func (h *fileHash) of(ctx context.Context, path string) (treehash.Hash, error) {
	if h.done {
		return h.sum, nil
	}
	f, err := os.Open(path)
	if err != nil {
		return h.sum, err
	}
	defer f.Close() // it was only read
	t := treehash.New()
	for piece := make([]byte, 1<<20); ; {
		n, err := f.Read(piece)
		t.Write(piece[:n])
		switch {
		case errors.Is(err, io.EOF):
			h.sum, h.done = t.Sum(), true
			return h.sum, nil
		case err != nil:
			return h.sum, err
		case ctx.Err() != nil:
			return h.sum, ctx.Err()
		}
	}
}

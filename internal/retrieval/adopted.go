package retrieval

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/firn-backup/firn/internal/codec"
	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/internal/manifest"
	"github.com/firn-backup/firn/internal/sendstream"
)

// Checked is the stream of a snapshot that another program stored as one archive, of which no manifest tells frames or hashes: what can be
// compared is the archive's tree hash, where a listing told it, what the codecs compare, and the stream's own marks. It is for one goroutine.
type Checked struct {
	archive string
	in      io.ReadCloser
	check   *sendstream.Checker
	held    []byte // read, and not given out before it is known that there is more, or that all is well
	spare   []byte
	ended   bool
}

// checkedBlock is how much is held back, in bytes.
const checkedBlock = 256 << 10

// OpenAdopted opens the only volume of a snapshot that another program stored, through a retrieval of all of it, which must be ready
// (coldstore.ErrNotReady). h names the codecs, and what it is a stream of. Damage comes with Next, too.
func (d *Desk) OpenAdopted(ctx context.Context, v *manifest.Volume, h *manifest.Header) (*Checked, error) {
	rt, err := d.Ask(ctx, v.Archive, coldstore.Range{})
	if err == nil && !rt.Ready {
		err = coldstore.ErrNotReady
	}
	if err != nil {
		return nil, fmt.Errorf("archive %s: %w", v.Archive, err)
	}
	rc, err := d.OpenWhole(ctx, rt, v.Size, v.TreeHash, h.Compress, h.Encrypt)
	if err != nil {
		return nil, fmt.Errorf("archive %s: %w", v.Archive, err)
	}
	return &Checked{archive: v.Archive, in: rc, check: sendstream.NewChecker(sendstream.Format(h.Stream)),
		held: make([]byte, 0, checkedBlock), spare: make([]byte, 0, checkedBlock)}, nil
}

// Close ends the reading.
func (c *Checked) Close() error { return c.in.Close() }

// Next returns the next bytes, valid until it is called again. After the last of them, which come only when everything was compared, it
// returns io.EOF. Any other error is the archive's, and what came before it is worth nothing.
func (c *Checked) Next() ([]byte, error) {
	if c.ended {
		return nil, io.EOF
	}
	for {
		block, err := c.read(c.spare[:0])
		if err != nil && err != io.EOF {
			return nil, fmt.Errorf("archive %s: %w", c.archive, err)
		}
		c.ended = err == io.EOF
		_, err = c.check.Write(block)
		if err == nil && c.ended {
			err = c.check.End()
		}
		if err != nil {
			return nil, fmt.Errorf("archive %s: %w: %w", c.archive, codec.ErrDamaged, err)
		}
		out := c.held
		if c.ended {
			out = append(out, block...)
		}
		c.held, c.spare = block, out
		switch {
		case len(out) > 0:
			return out, nil
		case c.ended:
			return nil, io.EOF
		}
	}
}

// read fills a block. io.EOF comes with the last one.
func (c *Checked) read(block []byte) ([]byte, error) {
	for len(block) < checkedBlock {
		n, err := c.in.Read(block[len(block):checkedBlock])
		block = block[:len(block)+n]
		if err != nil {
			if errors.Is(err, io.ErrUnexpectedEOF) {
				err = fmt.Errorf("%w: %w", codec.ErrDamaged, err)
			}
			return block, err
		}
	}
	return block, nil
}

package retrieval

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"iter"
	"sort"

	"github.com/firn-backup/firn/internal/codec"
	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/internal/manifest"
	"github.com/firn-backup/firn/internal/restoreplan"
	"github.com/firn-backup/firn/internal/snapshot"
	"github.com/firn-backup/firn/internal/transfer"
	"github.com/firn-backup/firn/internal/volume"
)

// Opener is what opens the volumes of one snapshot: the codecs that its
// manifest's header names.
type Opener struct {
	Decryptor  codec.Decryptor
	Geometry   codec.Geometry
	Compressor codec.Compressor
}

// Opener finds the codecs for a snapshot. Names that are not known here are
// an error: written by a newer Firn, or damaged.
func (c Codecs) Opener(h *manifest.Header) (Opener, error) {
	var o Opener
	var err error
	if o.Decryptor, o.Geometry, err = c.Decryptor(h.Encrypt); err != nil {
		return o, err
	}
	o.Compressor, err = c.Compressor(h.Compress)
	return o, err
}

// CanOpen tries the keys at hand on a volume without reading anything of it,
// from the header that its manifest kept. known is false for
// ciphers where only reading can tell.
func (o Opener) CanOpen(v *manifest.Volume) (known bool, err error) {
	t, ok := o.Decryptor.(codec.HeaderTrier)
	if !ok || len(v.Header) == 0 {
		return o.Geometry == codec.Geometry{}, nil
	}
	err = t.TryHeader(v.Header)
	if errors.Is(err, codec.ErrNoKey) {
		return true, fmt.Errorf("archive %s: %w", v.Archive, err)
	}
	return err == nil, nil
}

// Volume reads the raw stream of one volume, frame by frame and forward best. It is for one goroutine.
type Volume struct {
	v      *manifest.Volume
	starts []int64 // of frames, in the raw stream
	reads  []restoreplan.Read
	run    func(yield func(frame, error) bool, from int)

	next func() (frame, error, bool)
	stop func()
	cur  frame
	err  error // of cur
	has  bool

	sum    hash.Hash // of the frames so far; nil: there is nothing to compare it with
	hashed int       // frames in sum
}

type frame struct {
	i   int
	off int64
	raw []byte
}

// Open opens a volume for reading what reads has of it, which must be ready.
// coldstore.ErrNotReady when something is not. Damage comes with At.
func (d *Desk) Open(ctx context.Context, v *manifest.Volume, reads []restoreplan.Read, o Opener) (*Volume, error) {
	rs := make([]coldstore.Retrieval, 0, len(reads))
	for _, r := range reads {
		rt, err := d.Ask(ctx, v.Archive, Whole(r.Range, v.Size))
		if err != nil {
			return nil, err
		}
		if !rt.Ready {
			return nil, fmt.Errorf("archive %s: %w", v.Archive, coldstore.ErrNotReady)
		}
		rs = append(rs, rt)
	}
	x := &Volume{v: v, reads: reads, starts: make([]int64, len(v.Frames)+1)}
	if v.RawSHA256 != nil {
		x.sum = sha256.New()
	}
	for i, f := range v.Frames {
		x.starts[i+1] = x.starts[i] + f.Raw
	}
	x.run = func(yield func(frame, error) bool, from int) {
		src := transfer.NewReaderAt(ctx, d.o.Store, v, rs, d.o.Transfer, d.o.Damaged)
		defer src.Close()
		errStopped := errors.New("stopped")
		for _, r := range reads {
			if r.Last <= from {
				continue
			}
			err := volume.Frames(ctx, v, src, o.Decryptor, o.Compressor, o.Geometry, max(r.First, from), r.Last,
				func(i int, off int64, raw []byte, err error) error {
					if !yield(frame{i, off, raw}, err) {
						return errStopped
					}
					return nil
				})
			if err == nil && r.Last == len(v.Frames) {
				err = readEnd(src, v, r.Range, o.Geometry)
			}
			if err != nil {
				if err != errStopped {
					yield(frame{i: len(v.Frames)}, err)
				}
				return
			}
		}
	}
	return x, nil
}

// readEnd reads what follows the last frame, as far as it was retrieved, so that
// damage to it is seen by its leaf hashes.
func readEnd(src io.ReaderAt, v *manifest.Volume, r coldstore.Range, g codec.Geometry) error {
	end := v.Size
	if !r.IsWhole() {
		end = min(end, r.Offset+r.Size)
	}
	off := end - 1
	if !g.Whole { // else it was read in order to authenticate it
		off, _ = g.CipherRange(int64(len(v.Header)), v.Packed(), 0)
	}
	if off < 0 || off >= end {
		return nil
	}
	_, err := io.CopyBuffer(io.Discard, struct{ io.Reader }{io.NewSectionReader(src, off, end-off)}, make([]byte, 64<<10))
	return err
}

// All are the reads of a whole volume.
func All(v *manifest.Volume) []restoreplan.Read {
	return []restoreplan.Read{{Range: coldstore.Range{Size: v.Size}, Last: len(v.Frames)}}
}

// Whole makes a range that is all of an archive the zero Range, which more retrievals cover.
func Whole(r coldstore.Range, size int64) coldstore.Range {
	if r.Offset == 0 && r.Size >= size {
		return coldstore.Range{}
	}
	return r
}

// At returns the bytes of the raw stream from off to the end of the frame that
// off lies in, valid until the next call. An error that IsDamage is that frame's; others may be had.
func (x *Volume) At(off int64) ([]byte, error) {
	if off < 0 || off >= x.v.Raw {
		return nil, fmt.Errorf("archive %s: %w: no byte %d in a stream of %d", x.v.Archive, codec.ErrDamaged, off, x.v.Raw)
	}
	i := sort.Search(len(x.v.Frames), func(i int) bool { return x.starts[i+1] > off })
	if !x.has || x.cur.i > i {
		x.Close()
		x.next, x.stop = iter.Pull2(func(yield func(frame, error) bool) { x.run(yield, i) })
		x.advance()
	}
	for x.has && x.cur.i < i {
		x.advance()
	}
	switch {
	case !x.has:
		return nil, fmt.Errorf("archive %s: frame %d was not retrieved", x.v.Archive, i)
	case x.cur.i > i && x.err == nil:
		return nil, fmt.Errorf("archive %s: frame %d was not retrieved", x.v.Archive, i)
	case x.err != nil:
		return nil, x.named(x.err)
	}
	return x.cur.raw[off-x.cur.off:], nil
}

// named says which archive an error concerns, where it does not itself.
func (x *Volume) named(err error) error {
	if unread := (*transfer.ReadError)(nil); errors.As(err, &unread) {
		return err
	}
	return fmt.Errorf("archive %s: %w", x.v.Archive, err)
}

func (x *Volume) advance() {
	x.cur, x.err, x.has = x.next()
	if x.sum != nil && x.has && x.err == nil && x.cur.i == x.hashed {
		x.sum.Write(x.cur.raw)
		x.hashed++
	}
}

// Finish reads on to the end of what was retrieved, so that everything was looked at.
// The error is that of the first frame from here on that cannot be had.
func (x *Volume) Finish() error {
	if x.next == nil {
		if len(x.reads) == 0 {
			return nil
		}
		x.next, x.stop = iter.Pull2(func(yield func(frame, error) bool) { x.run(yield, 0) })
		x.advance()
	}
	var first error
	for x.has {
		if x.err != nil && first == nil {
			first = x.named(x.err)
		}
		x.advance()
	}
	x.Close()
	if first == nil && x.sum != nil && x.hashed == len(x.v.Frames) && [32]byte(x.sum.Sum(nil)) != *x.v.RawSHA256 {
		first = fmt.Errorf("archive %s: %w: its stream does not have the SHA-256 of the manifest", x.v.Archive, codec.ErrDamaged)
	}
	return first
}

// ErrHash is what ReadContent returns for a content that is there, but is another one.
var ErrHash = fmt.Errorf("%w: the content does not have the SHA-256 of the manifest", codec.ErrDamaged)

// ReadContent calls fn with the bytes of a content, in order, and compares their
// SHA-256 at the end. open gives the volumes, by number, and the sizes of their streams.
func ReadContent(ctx context.Context, c *snapshot.Content, open func(vol int) (x *Volume, raw int64, err error), fn func([]byte) error) error {
	h := sha256.New()
	vol, off, left := c.Volume, c.Offset, c.Stored
	for left > 0 {
		x, raw, err := open(vol)
		if err != nil {
			return err
		}
		for left > 0 && off < raw {
			if err := ctx.Err(); err != nil {
				return err
			}
			b, err := x.At(off)
			if err != nil {
				return err
			}
			b = b[:min(int64(len(b)), left)]
			h.Write(b)
			if err := fn(b); err != nil {
				return err
			}
			off, left = off+int64(len(b)), left-int64(len(b))
		}
		vol, off = vol+1, off-raw
		if off > 0 {
			return fmt.Errorf("%w: its address is outside of volume %d", codec.ErrDamaged, vol-1)
		}
	}
	if [32]byte(h.Sum(nil)) != c.SHA256 {
		return ErrHash
	}
	return nil
}

// Close ends the reading.
func (x *Volume) Close() {
	if x.stop != nil {
		x.stop()
	}
	x.next, x.stop, x.has, x.cur, x.err = nil, nil, false, frame{}, nil
}

package volume

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/firn-backup/firn/internal/codec"
	"github.com/firn-backup/firn/internal/manifest"
)

// abortTimeout bounds how long a sink may take to give up.
const abortTimeout = 30 * time.Second

// smallArchive is how many bytes of frames an archive has at least for its tail to be kept
// and, for zstd, for padding that makes the tail short. A smaller one is less than
// a MiB, and every read of it is of the whole.
const smallArchive = 512 << 10

// An outlet is one volume on its way out: it encrypts frames into the sink and
// collects what the manifest says of the volume.
type outlet struct {
	o      Options
	g      codec.Geometry
	v      *manifest.Volume
	sink   Sink
	dst    *capture
	plain  io.WriteCloser
	packed int64
}

// name is what errors call volume n.
func (o *Options) name(n int) string {
	if o.Name != "" {
		return o.Name
	}
	return fmt.Sprintf("volume %d", n)
}

func openOutlet(ctx context.Context, o Options, n int) (*outlet, error) {
	sink, err := o.Open(ctx, n)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", o.name(n), err)
	}
	out := &outlet{
		o:    o,
		g:    o.Encrypt.Geometry(),
		v:    &manifest.Volume{N: n},
		sink: sink,
		dst:  &capture{w: sink, keep: true},
	}
	out.plain, err = o.Encrypt.Encrypt(out.dst)
	if err != nil {
		out.abort(ctx)
		if out.dst.err != nil { // and not what the cipher was doing then
			return nil, fmt.Errorf("write %s: %w", o.name(n), out.dst.err)
		}
		return nil, fmt.Errorf("encrypt %s: %w", o.name(n), err)
	}
	out.v.Header = out.dst.take()
	return out, nil
}

// frame adds one packed frame.
func (out *outlet) frame(j *job) error {
	if _, err := out.plain.Write(j.packed); err != nil {
		return fmt.Errorf("write %s: %w", out.o.name(out.v.N), err)
	}
	f := codec.Frame{Raw: int64(len(j.raw)), Packed: int64(len(j.packed))}
	out.v.Frames = append(out.v.Frames, f)
	out.v.Raw += f.Raw
	out.packed += f.Packed
	return nil
}

// finish ends the ciphertext and has the sink store it. The sink is aborted
// when that fails before its Finish.
func (out *outlet) finish(ctx, parent context.Context) error {
	if err := out.seal(); err != nil {
		out.abort(parent)
		return fmt.Errorf("write %s: %w", out.o.name(out.v.N), err)
	}
	if err := out.sink.Finish(ctx, out.v); err != nil {
		return fmt.Errorf("store %s: %w", out.o.name(out.v.N), err)
	}
	return nil
}

// seal writes the trailer and closes the cipher.
func (out *outlet) seal() error {
	chunked := !out.g.Whole && out.g.Chunk > 0
	// A small archive is read whole anyway: padding would only make it larger, and its tail is not kept.
	large := chunked && out.packed >= out.o.small
	trailer, err := out.o.Compress.Trailer(out.v.Frames, large)
	if err != nil {
		return err
	}
	plain := out.packed + int64(len(trailer))
	header := int64(len(out.v.Header))
	if large {
		// The cipher cannot have written the last chunk yet: it does not know that it is the last.
		start := header + (plain-1)/out.g.Chunk*(out.g.Chunk+out.g.Tag)
		if out.dst.n > start {
			return out.badShape()
		}
		out.dst.keepFrom(start)
	}
	if len(trailer) > 0 {
		if _, err := out.plain.Write(trailer); err != nil {
			return err
		}
	}
	enc := out.plain
	out.plain = nil
	if err := enc.Close(); err != nil {
		return err
	}
	out.v.Size = out.dst.n
	switch {
	case out.g.Whole:
		out.v.Header = nil
	case chunked:
		if large {
			out.v.Tail = out.dst.take()
		}
		chunks := (plain + out.g.Chunk - 1) / out.g.Chunk
		if out.v.Size != header+plain+chunks*out.g.Tag {
			return out.badShape()
		}
	case out.v.Size != header+plain:
		return out.badShape()
	}
	return nil
}

// badShape tells of a cipher that does not do what it says: its volumes could
// not be entered in the middle, so they must not be stored.
func (out *outlet) badShape() error {
	return fmt.Errorf("the %s ciphertext does not have the shape that its geometry says", out.o.Encrypt.Name())
}

// abort gives the volume up. parent's cancellation does not stop that.
func (out *outlet) abort(parent context.Context) {
	out.dst.w = nil
	if out.plain != nil {
		_ = out.plain.Close()
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(parent), abortTimeout)
	defer cancel()
	_ = out.sink.Abort(ctx) // the error that led here is the one that is told
}

var errGivenUp = errors.New("volume was given up")

// A capture counts what goes to w and keeps a copy of a stretch of it.
type capture struct {
	w    io.Writer // nil: given up
	n    int64
	keep bool
	from int64
	kept []byte
	err  error // of w
}

// keepFrom keeps what follows from offset start on, which is still to come.
func (c *capture) keepFrom(start int64) {
	c.keep, c.from = true, start
}

// take returns what was kept and keeps no more.
func (c *capture) take() []byte {
	kept := c.kept
	c.keep, c.kept = false, nil
	return kept
}

func (c *capture) Write(p []byte) (int, error) {
	if c.w == nil {
		return 0, errGivenUp
	}
	if c.keep {
		if skip := max(c.from-c.n, 0); skip < int64(len(p)) {
			c.kept = append(c.kept, p[skip:]...)
		}
	}
	n, err := c.w.Write(p)
	c.n += int64(n)
	if err == nil && n < len(p) {
		err = io.ErrShortWrite
	}
	c.err = err
	return n, err
}

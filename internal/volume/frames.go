package volume

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"sync"

	"github.com/firn-backup/firn/internal/codec"
	"github.com/firn-backup/firn/internal/manifest"
)

// framesAhead is how many frames are in memory at a time when reading.
const framesAhead = 4

// Frames decodes frames [first, last) of a volume in order, several at a
// time, and calls fn with each. A frame that cannot be had is given as err (codec.ErrDamaged, codec.ErrNoKey or
// what src returned) with nil raw, and the next one follows; fn's own error ends it. raw is valid during the call.
//
// src reads the volume's ciphertext. When the cipher cannot be entered in the middle
// src is read from its start in order, and frames before first are skipped; after a fault in the
// ciphertext no later frame can be had. When the last frame of such a volume is
// among those asked for, the rest is read too, and Frames itself returns
// codec.ErrDamaged if the whole does not authenticate: frames given before may be forged then.
//
// An archive whose tail v does not have (a small one) is read in order too when
// it cannot be opened: what is before a damaged end comes back.
//
// Frames also returns an error, and gives no frame, when the index contradicts
// itself (codec.ErrDamaged) or does not have the frames asked for; and when ctx
// is done. src is read by one goroutine, in order; fn is called in the
// caller's. Memory is bounded by four frames, raw and compressed.
func Frames(ctx context.Context, v *manifest.Volume, src io.ReaderAt, d codec.Decryptor, c codec.Compressor,
	g codec.Geometry, first, last int, fn func(i int, rawOffset int64, raw []byte, err error) error) error {
	if err := checkIndex(v, g); err != nil {
		return fmt.Errorf("read volume %d: %w", v.N, err)
	}
	if first < 0 || first > last || last > len(v.Frames) {
		return fmt.Errorf("read volume %d: it has no frames %d to %d", v.N, first, last-1)
	}
	if first == last {
		return nil
	}
	ctx, cancel := context.WithCancel(ctx)
	r := &frameReader{ctx: ctx, v: v, src: src, d: d, c: c, whole: g.Whole, first: first, last: last}
	defer func() {
		cancel()
		r.wg.Wait()
	}()
	return r.run(fn)
}

// checkIndex holds the index against itself, so that no size in it can make
// a reader allocate or skip without bounds.
func checkIndex(v *manifest.Volume, g codec.Geometry) error {
	var raw, packed int64
	for i, f := range v.Frames {
		// No compressor here adds more than a few percent and a header.
		if f.Raw <= 0 || f.Raw > MaxFrameSize || f.Packed <= 0 || f.Packed > 2*f.Raw+64<<10 {
			return fmt.Errorf("%w: frame %d of %d bytes in %d", codec.ErrDamaged, i, f.Raw, f.Packed)
		}
		raw += f.Raw
		packed += f.Packed
	}
	if raw != v.Raw {
		return fmt.Errorf("%w: its frames have %d bytes and not %d", codec.ErrDamaged, raw, v.Raw)
	}
	if g.Whole {
		return nil // the arithmetic of its packets is not ours
	}
	least := int64(len(v.Header)) + packed
	if g.Chunk > 0 {
		least += (packed + g.Chunk - 1) / g.Chunk * g.Tag
	}
	if least > v.Size {
		return fmt.Errorf("%w: frames of %d bytes in an archive of %d", codec.ErrDamaged, packed, v.Size)
	}
	return nil
}

// A readJob is one frame on its way back.
type readJob struct {
	i      int
	packed []byte
	raw    []byte
	err    error
	done   chan struct{} // gets one value when raw or err is there; room for one
}

type frameReader struct {
	ctx         context.Context
	v           *manifest.Volume
	src         io.ReaderAt
	d           codec.Decryptor
	c           codec.Compressor
	whole       bool
	salvage     bool // read in order although the cipher has chunks, its end being damaged
	first, last int

	wg    sync.WaitGroup
	free  chan *readJob
	work  chan *readJob
	order chan *readJob
	end   error // of the reading goroutine; set before order is closed
}

func (r *frameReader) run(fn func(i int, rawOffset int64, raw []byte, err error) error) error {
	n := min(framesAhead, r.last-r.first)
	r.free = make(chan *readJob, n)
	r.work = make(chan *readJob, n)
	r.order = make(chan *readJob, n)
	for range n {
		r.free <- &readJob{done: make(chan struct{}, 1)}
	}
	r.wg.Go(r.read)
	for range min(n, runtime.GOMAXPROCS(0)) {
		r.wg.Go(r.decode)
	}
	var offset int64
	for _, f := range r.v.Frames[:r.first] {
		offset += f.Raw
	}
	for j := range r.order {
		select {
		case <-j.done:
		case <-r.ctx.Done():
			return r.ctx.Err()
		}
		if err := r.ctx.Err(); err != nil {
			return err // not a fault of the frame
		}
		raw := j.raw
		if j.err != nil {
			j.err = fmt.Errorf("volume %d, frame %d: %w", r.v.N, j.i, j.err)
			raw = nil
		}
		if err := fn(j.i, offset, raw, j.err); err != nil {
			return err
		}
		offset += r.v.Frames[j.i].Raw
		r.free <- j // never blocks: there is room for every job
	}
	if err := r.ctx.Err(); err != nil {
		return err
	}
	return r.end
}

// read reads the frames' plaintext in order.
func (r *frameReader) read() {
	defer close(r.order)
	defer close(r.work)
	plain, openErr := r.open()
	var offset int64
	for _, f := range r.v.Frames[:r.first] {
		offset += f.Packed
	}
	for i := r.first; i < r.last; i++ {
		var j *readJob
		select {
		case j = <-r.free:
		case <-r.ctx.Done():
			return
		}
		size := r.v.Frames[i].Packed
		j.i, j.err, j.raw = i, openErr, j.raw[:0]
		if j.err == nil {
			j.packed = grow(j.packed, size)
			j.err = plain.read(j.packed, offset)
		}
		offset += size
		if j.err != nil {
			j.done <- struct{}{}
		} else {
			r.work <- j // never blocks: there is room for every job
		}
		r.order <- j
	}
	if openErr == nil && !r.salvage && r.last == len(r.v.Frames) {
		if err := plain.rest(); err != nil && r.ctx.Err() == nil {
			r.end = fmt.Errorf("volume %d: %w", r.v.N, err)
		}
	}
}

// decode decompresses frames.
func (r *frameReader) decode() {
	var dec codec.FrameDecoder
	defer func() {
		if dec != nil {
			_ = dec.Close()
		}
	}()
	for j := range r.work {
		if r.ctx.Err() != nil {
			return
		}
		var err error
		if dec == nil {
			dec, err = r.c.NewDecoder()
		}
		size := r.v.Frames[j.i].Raw
		if err == nil {
			j.raw, err = dec.DecodeFrame(grow(j.raw, size)[:0], j.packed, size)
		}
		if err == nil && int64(len(j.raw)) != size {
			err = fmt.Errorf("%w: %d bytes and not %d", codec.ErrDamaged, len(j.raw), size)
		}
		j.err = err
		j.done <- struct{}{}
	}
}

// grow returns a buffer of size bytes, b's if it can.
func grow(b []byte, size int64) []byte {
	if int64(cap(b)) < size {
		return make([]byte, size)
	}
	return b[:size]
}

// A plaintext is a volume's decrypted bytes.
type plaintext interface {
	// read fills p from off; calls come in order of off.
	read(p []byte, off int64) error
	// rest reads what follows as far as that authenticates anything.
	rest() error
}

// open decrypts the volume: at any place where the cipher allows it.
func (r *frameReader) open() (plaintext, error) {
	if !r.whole {
		at, size, err := r.d.DecryptAt(r.src, r.v.Size)
		switch {
		case err == nil && size < r.v.Packed():
			return nil, fmt.Errorf("%w: plaintext of %d bytes for frames of %d", codec.ErrDamaged, size, r.v.Packed())
		case err == nil:
			return seekable{at}, nil
		case errors.Is(err, codec.ErrDamaged) && len(r.v.Tail) == 0:
			// Perhaps only the last chunk, which is read on opening: what is before it is whole.
			r.salvage = true
		case !errors.Is(err, codec.ErrNotSeekable):
			return nil, err
		}
	}
	// Ciphers read in pieces as small as a few KiB.
	stream, err := r.d.Decrypt(bufio.NewReaderSize(io.NewSectionReader(r.src, 0, r.v.Size), 256<<10))
	if err != nil {
		return nil, err
	}
	return &sequential{r: stream}, nil
}

// seekable is the plaintext of a cipher that can be entered in the middle.
// Each chunk authenticates on its own, so there is no rest to read.
type seekable struct{ r io.ReaderAt }

func (s seekable) read(p []byte, off int64) error {
	n, err := s.r.ReadAt(p, off)
	switch {
	case n == len(p):
		return nil
	case err == nil || errors.Is(err, io.EOF):
		return fmt.Errorf("%w: plaintext ends early", codec.ErrDamaged)
	}
	return err
}

func (s seekable) rest() error { return nil }

// sequential is the plaintext of a cipher that cannot.
type sequential struct {
	r   io.Reader
	pos int64
	err error
}

func (s *sequential) read(p []byte, off int64) error {
	if s.err != nil {
		return s.err
	}
	n, err := io.CopyN(io.Discard, s.r, off-s.pos)
	s.pos += n
	if err == nil {
		n, e := io.ReadFull(s.r, p)
		s.pos, err = s.pos+int64(n), e
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = fmt.Errorf("%w: plaintext ends early", codec.ErrDamaged)
	}
	s.err = err
	return err
}

func (s *sequential) rest() error {
	if s.err != nil {
		return nil // was given with the frames
	}
	_, s.err = io.Copy(io.Discard, s.r)
	return s.err
}

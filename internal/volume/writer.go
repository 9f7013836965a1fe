package volume

import (
	"context"
	"errors"
	"slices"
)

var (
	errClosed  = errors.New("volume writer is closed")
	errAborted = errors.New("volume writer was aborted")
)

// Writer is the writing end. One goroutine writes; memory is bounded by
// (Workers + 3) × (raw + compressed frame), Workers × raw frame more for
// verifying, and the coders' windows.
type Writer struct {
	o    Options
	cut  cutter
	job  *job // the frame being filled; nil between frames
	pipe *pipeline
	done error // what Write returns after Close and Abort
}

// NewWriter returns a Writer. Nothing is started before the first byte; from
// then on Close or Abort must be called. When ctx is done, all stops.
func NewWriter(ctx context.Context, o Options) *Writer {
	o = o.withDefaults()
	return &Writer{o: o, cut: newCutter(o), pipe: newPipeline(ctx, o)}
}

// Write adds bytes to the stream. It returns the first error of any stage.
func (w *Writer) Write(p []byte) (int, error) {
	if err := w.err(); err != nil {
		return 0, err
	}
	written := 0
	for written < len(p) {
		room, err := w.Room(len(p) - written)
		if err != nil {
			return written, err
		}
		n := copy(room, p[written:])
		written += n
		if err := w.Filled(n); err != nil {
			return written, err
		}
	}
	return written, nil
}

// Room is where the next bytes of the stream lie, 1 to limit of them: who reads into it and says by Filled how many
// bytes those were saves the copy that Write makes. It is the caller's until the next call of any method. It returns the first
// error of any stage.
func (w *Writer) Room(limit int) ([]byte, error) {
	if err := w.err(); err != nil {
		return nil, err
	}
	if w.cut.full() {
		w.cut.endVolume()
		if err := w.endVolume(); err != nil {
			return nil, err
		}
	}
	if w.job == nil {
		var err error
		if w.job, err = w.pipe.take(); err != nil {
			return nil, err
		}
	}
	have := len(w.job.raw)
	n := int(min(w.cut.room(), int64(limit)))
	w.job.raw = slices.Grow(w.job.raw, n)
	return w.job.raw[have : have+n], nil
}

// Filled adds the first n bytes of what Room returned to the stream.
func (w *Writer) Filled(n int) error {
	if n == 0 {
		return nil
	}
	w.job.raw = w.job.raw[:len(w.job.raw)+n]
	if w.cut.add(int64(n)) {
		return w.endFrame()
	}
	return nil
}

func (w *Writer) err() error {
	if w.done != nil {
		return w.done
	}
	return w.pipe.err()
}

// Boundary says that a file begins here that will take next bytes of the
// stream: a good place to cut a frame or a volume.
func (w *Writer) Boundary(next int64) error {
	if err := w.err(); err != nil {
		return err
	}
	endFrame, endVolume := w.cut.boundary(next)
	if endFrame {
		if err := w.endFrame(); err != nil {
			return err
		}
	}
	if endVolume {
		return w.endVolume()
	}
	return nil
}

// Pos is where the next byte will lie: a volume number and an offset in its raw
// stream. At the very end of a volume that is offset 0 of the following one.
func (w *Writer) Pos() (vol int, off int64) { return w.cut.pos() }

// Offset is the number of bytes of the stream so far, over all volumes.
func (w *Writer) Offset() int64 { return w.cut.total }

// endFrame sends the frame being filled on its way, if there is one.
func (w *Writer) endFrame() error {
	if w.job == nil {
		return nil
	}
	j := w.job
	w.job = nil
	return w.pipe.submit(j)
}

// endVolume is called when the cutter has moved on to the next volume and
// the last frame is on its way.
func (w *Writer) endVolume() error {
	if w.o.OnCut != nil {
		w.o.OnCut(w.cut.vol - 1)
	}
	return w.pipe.endVolume()
}

// Close ends the stream and returns when the last volume is stored. A stream
// without bytes has no volumes. When a stage has failed, Close returns its error
// after the sink in flight has been aborted and all goroutines have ended.
func (w *Writer) Close() error {
	if w.done != nil {
		return w.done
	}
	w.done = errClosed
	err := w.endFrame()
	if err == nil && w.cut.raw > 0 {
		err = w.pipe.endVolume()
	}
	return w.pipe.wait(err)
}

// Abort ends it without a last volume; the sink of a volume in flight is
// aborted. It returns when all goroutines have ended. Close or Abort must be
// called once; Abort after either does nothing.
func (w *Writer) Abort() {
	if w.done != nil {
		return
	}
	w.done = errAborted
	_ = w.pipe.wait(errAborted)
}

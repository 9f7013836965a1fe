// Package volume cuts a stream into volumes and frames, runs the frames through
// the codecs on several processors, and reads them back. It knows where bytes
// lie and nothing of what they mean or of where they are stored.
package volume

import (
	"context"
	"io"

	"github.com/firn-backup/firn/internal/codec"
	"github.com/firn-backup/firn/internal/manifest"
)

const (
	DefaultSize      = 1 << 30 // raw bytes a volume
	DefaultFrameSize = 4 << 20 // raw bytes a frame
)

// Sink takes the ciphertext of one volume.
type Sink interface {
	io.Writer
	// Finish is called once after the last byte, with v.N, Raw, RawSHA256, Frames, Header and
	// Tail set; it stores the volume and returns when it is stored.
	Finish(ctx context.Context, v *manifest.Volume) error
	// Abort is called instead when something failed.
	Abort(ctx context.Context) error
}

// Options say how to cut. The zero value of each field but Compress, Encrypt
// and Open is a good choice.
type Options struct {
	Size      int64 // raw bytes a volume: DefaultSize; negative: never cut
	FrameSize int   // raw bytes a frame: DefaultFrameSize
	First     int   // number of the first volume: 1
	Workers   int   // compressing goroutines: GOMAXPROCS
	NoVerify  bool  // do not decode and compare frames before they are sent
	HashRaw   bool  // compute RawSHA256
	Compress  codec.Compressor
	Encrypt   codec.Encryptor

	// Open opens the sink of a volume when its first bytes come.
	Open func(ctx context.Context, n int) (Sink, error)
	// OnCut, if set, is called by Write or Boundary, in the caller's
	// goroutine, when volume n has got its last raw byte and another volume
	// begins; it is not called for the last volume.
	OnCut func(n int)
}

// Writer is the writing end. One goroutine writes; memory is bounded by
// (Workers + 3) × (raw + compressed frame) and the coders' windows.
type Writer struct{}

func NewWriter(ctx context.Context, o Options) *Writer { panic("not yet") }

// Write adds bytes to the stream. It returns the first error of any stage.
func (w *Writer) Write(p []byte) (int, error) { panic("not yet") }

// Boundary says that a file begins here that will take next bytes of the
// stream: a good place to cut a frame or a volume.
func (w *Writer) Boundary(next int64) error { panic("not yet") }

// Pos is where the next byte will lie: a volume number and an offset in its raw
// stream. At the very end of a volume that is offset 0 of the following one.
func (w *Writer) Pos() (vol int, off int64) { panic("not yet") }

// Close ends the stream and returns when the last volume is stored. A stream
// without bytes has no volumes.
func (w *Writer) Close() error { panic("not yet") }

// Abort ends it without a last volume; the sink of a volume in flight is aborted. Close or Abort must be called once.
func (w *Writer) Abort() { panic("not yet") }

// Frames decodes frames [first, last) of a volume in order, several at a
// time, and calls fn with each. A frame that cannot be had is given as err (codec.ErrDamaged, codec.ErrNoKey or
// what src returned) with nil raw, and the next one follows; fn's own error ends it. raw is valid during the call.
//
// src reads the volume's ciphertext. When the cipher cannot be entered in the middle
// src is read from its start in order, and frames before first are skipped.
func Frames(ctx context.Context, v *manifest.Volume, src io.ReaderAt, d codec.Decryptor, c codec.Compressor,
	g codec.Geometry, first, last int, fn func(i int, rawOffset int64, raw []byte, err error) error) error {
	panic("not yet")
}

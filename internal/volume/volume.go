// Package volume cuts a stream into volumes and frames, runs the frames through
// the codecs on several processors, and reads them back. It knows where bytes
// lie and nothing of what they mean or of where they are stored.
package volume

import (
	"context"
	"io"
	"runtime"

	"github.com/firn-backup/firn/internal/codec"
	"github.com/firn-backup/firn/internal/manifest"
)

const (
	DefaultSize      = 1 << 30 // raw bytes a volume
	DefaultFrameSize = 4 << 20 // raw bytes a frame
	MaxFrameSize     = 64 << 20
)

// Sink takes the ciphertext of one volume.
type Sink interface {
	// Write must return, with an error, when the context given to Options.Open is done.
	io.Writer
	// Finish is called once after the last byte, with v.N, Size, Raw, RawSHA256, Frames, Header and
	// Tail set; it stores the volume and returns when it is stored. The sink is done with
	// afterwards, also when Finish fails: Abort is not called then.
	Finish(ctx context.Context, v *manifest.Volume) error
	// Abort is called instead when something failed before. Its context is not
	// cancelled with the Writer's, so that an upload can still be given up.
	Abort(ctx context.Context) error
}

// Options say how to cut. The zero value of each field but Compress, Encrypt
// and Open is a good choice.
type Options struct {
	Size      int64  // raw bytes a volume: DefaultSize; negative: never cut
	FrameSize int    // raw bytes a frame, at most MaxFrameSize: DefaultFrameSize
	First     int    // number of the first volume: 1
	Workers   int    // compressing goroutines: GOMAXPROCS
	NoVerify  bool   // do not decode and compare frames before they are sent
	HashRaw   bool   // compute RawSHA256
	Name      string // what errors call a volume that is the only one: "volume N"
	Compress  codec.Compressor
	Encrypt   codec.Encryptor

	// Open opens the sink of a volume when its first bytes come, and after
	// Finish of the volume before has returned. ctx is done as soon as
	// anything fails.
	Open func(ctx context.Context, n int) (Sink, error)
	// OnCut, if set, is called by Write or Boundary, in the caller's
	// goroutine, when volume n has got its last raw byte and another volume
	// begins; it is not called for the last volume. That is:
	//   - in Boundary(next) with next > 0, when volume n is full or is ended there;
	//   - in Write, before the first byte that volume n has no room for.
	// During the call Pos is (n+1, 0) and Offset is the number of bytes before the cut. It returns before
	// Finish of volume n is called.
	OnCut func(n int)

	small int64 // smallArchive; tests set it lower
}

func (o Options) withDefaults() Options {
	if o.Size == 0 {
		o.Size = DefaultSize
	}
	if o.FrameSize <= 0 {
		o.FrameSize = DefaultFrameSize
	}
	o.FrameSize = min(o.FrameSize, MaxFrameSize)
	if o.Size > 0 && int64(o.FrameSize) > o.Size {
		o.FrameSize = int(o.Size)
	}
	if o.First == 0 {
		o.First = 1
	}
	if o.small == 0 {
		o.small = smallArchive
	}
	if o.Workers <= 0 {
		o.Workers = runtime.GOMAXPROCS(0)
	}
	return o
}

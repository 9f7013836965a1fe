package compress

import (
	"fmt"
	"io"
	"slices"

	"github.com/klauspost/compress/zstd"

	"github.com/firn-backup/firn/internal/codec"
)

// zstdCodec makes one zstd frame of each frame, with the checksum of its content unless bare.
type zstdCodec struct {
	level int
	bare  bool
}

var _ codec.Compressor = (*zstdCodec)(nil)

func (c *zstdCodec) Name() string { return Zstd }
func (c *zstdCodec) Ext() string  { return ".zst" }

const (
	// zstdWindow bounds the encoder's history. Frames of up to this size are
	// searched whole; the library would take 8 MiB and, at higher levels, 16 and 32. That is more
	// memory to go through for nothing: the default level is a tenth slower with 8.
	zstdWindow = 4 << 20
	// zstdReadWindow bounds what a foreign stream may make NewReader hold: the
	// window of zstd --ultra -22, which is the greatest the zstd program takes
	// without being told.
	zstdReadWindow = 128 << 20
)

// NewEncoder returns an encoder that holds about 6 (levels 1-2), 6 (3-5), 9
// (6-9) or 43 MiB (10-19) besides the frame.
func (c *zstdCodec) NewEncoder() (codec.FrameEncoder, error) {
	level := zstd.EncoderLevelFromZstd(c.level)
	w, err := zstd.NewWriter(nil,
		zstd.WithEncoderLevel(level),
		zstd.WithWindowSize(zstdWindow),
		zstd.WithEncoderConcurrency(1),
		zstd.WithLowerEncoderMem(true),
		zstd.WithEncoderCRC(!c.bare),
		zstd.WithZeroFrames(true))
	if err != nil {
		return nil, fmt.Errorf("zstd level %d: %w", c.level, err)
	}
	return &zstdEncoder{w}, nil
}

func (c *zstdCodec) NewDecoder() (codec.FrameDecoder, error) {
	r, err := zstd.NewReader(nil,
		zstd.WithDecoderConcurrency(1),
		zstd.WithDecoderLowmem(true),
		zstd.WithDecodeAllCapLimit(true))
	if err != nil {
		return nil, fmt.Errorf("zstd decoder: %w", err)
	}
	return &zstdDecoder{r}, nil
}

type zstdEncoder struct{ w *zstd.Encoder }

func (e *zstdEncoder) EncodeFrame(dst, raw []byte) ([]byte, error) {
	return e.w.EncodeAll(raw, dst), nil
}

func (e *zstdEncoder) Close() error { return e.w.Close() }

type zstdDecoder struct{ r *zstd.Decoder }

func (d *zstdDecoder) Close() error {
	d.r.Close()
	return nil
}

// zstdOverAlloc is what the library writes past the end for speed when it may.
const zstdOverAlloc = 16

func (d *zstdDecoder) DecodeFrame(dst, frame []byte, rawSize int64) ([]byte, error) {
	if rawSize < 0 {
		return dst, errNegativeSize
	}
	if err := checkZstdFrame(frame, rawSize); err != nil {
		return dst, err
	}
	// The library decodes into what capacity there is, and no further.
	start := len(dst)
	dst = slices.Grow(dst, int(rawSize)+zstdOverAlloc)
	limit := start + int(rawSize) + zstdOverAlloc
	out, err := d.r.DecodeAll(frame, dst[:start:limit])
	if err != nil {
		return dst[:start], damaged(Zstd, err)
	}
	if got := int64(len(out) - start); got != rawSize {
		return dst[:start], damagedf(Zstd, "holds %d bytes instead of %d", got, rawSize)
	}
	if full := dst[:len(out)]; len(out) > 0 && &full[0] == &out[0] {
		return full, nil // with its whole capacity, so that it can be used again
	}
	return out, nil
}

// checkZstdFrame walks the frame's blocks without decoding them: it must be
// one data frame that ends where the slice ends and that can hold rawSize bytes.
// So nothing is allocated for a frame that lies about its size.
func checkZstdFrame(frame []byte, rawSize int64) error {
	var h zstd.Header
	if err := h.Decode(frame); err != nil {
		return damaged(Zstd, err)
	}
	if h.Skippable {
		return damagedf(Zstd, "is a skippable frame")
	}
	if h.HasFCS && h.FrameContentSize != uint64(rawSize) {
		return damagedf(Zstd, "says it holds %d bytes instead of %d", h.FrameContentSize, rawSize)
	}
	const maxBlock = 128 << 10
	var most int64
	rest := frame[h.HeaderSize:]
	for last := false; !last; {
		if len(rest) < 3 {
			return damaged(Zstd, io.ErrUnexpectedEOF)
		}
		head := int(rest[0]) | int(rest[1])<<8 | int(rest[2])<<16
		last = head&1 != 0
		size, stored := head>>3, head>>3
		switch head >> 1 & 3 {
		case 0: // raw
		case 1: // one byte, repeated
			stored = 1
		case 2: // compressed
			size = maxBlock
		default:
			return damagedf(Zstd, "has a block of unknown kind")
		}
		if stored > len(rest)-3 {
			return damaged(Zstd, io.ErrUnexpectedEOF)
		}
		rest = rest[3+stored:]
		most += int64(size)
	}
	if h.HasCheckSum {
		if len(rest) < 4 {
			return damaged(Zstd, io.ErrUnexpectedEOF)
		}
		rest = rest[4:]
	}
	if len(rest) > 0 {
		return damagedf(Zstd, "%d bytes follow it", len(rest))
	}
	if rawSize > most {
		return damagedf(Zstd, "holds at most %d bytes instead of %d", most, rawSize)
	}
	return nil
}

func newZstdReader(src *source) (io.ReadCloser, error) {
	r, err := zstd.NewReader(src,
		zstd.WithDecoderConcurrency(1),
		zstd.WithDecoderLowmem(true),
		zstd.WithDecoderMaxWindow(zstdReadWindow))
	if err != nil {
		return nil, (&stream{name: Zstd, src: src}).wrap(err)
	}
	return &stream{name: Zstd, src: src, r: r, close: r.Close}, nil
}

package compress

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"

	"github.com/klauspost/compress/gzip"

	"github.com/firn-backup/firn/internal/codec"
)

// gzipCodec makes one gzip member of each frame.
type gzipCodec struct{ level int }

var _ codec.Compressor = (*gzipCodec)(nil)

func (c *gzipCodec) Name() string                                { return Gzip }
func (c *gzipCodec) Ext() string                                 { return ".gz" }
func (c *gzipCodec) Trailer([]codec.Frame, bool) ([]byte, error) { return nil, nil }

func (c *gzipCodec) NewEncoder() (codec.FrameEncoder, error) {
	w, err := gzip.NewWriterLevel(io.Discard, c.level)
	if err != nil {
		return nil, fmt.Errorf("gzip level %d: %w", c.level, err)
	}
	return &gzipEncoder{w}, nil
}

func (c *gzipCodec) NewDecoder() (codec.FrameDecoder, error) { return &gzipDecoder{}, nil }

type gzipEncoder struct{ w *gzip.Writer }

func (e *gzipEncoder) EncodeFrame(dst, raw []byte) ([]byte, error) {
	out := appender{dst}
	e.w.Reset(&out)
	if _, err := e.w.Write(raw); err != nil {
		return dst, fmt.Errorf("gzip frame: %w", err)
	}
	if err := e.w.Close(); err != nil {
		return dst, fmt.Errorf("gzip frame: %w", err)
	}
	return out.b, nil
}

func (e *gzipEncoder) Close() error { return nil }

type gzipDecoder struct{ r gzip.Reader }

const (
	gzipMinMember = 18   // bytes of header and trailer
	gzipMaxRatio  = 1032 // deflate's greatest expansion: 258 bytes from two bits
)

func (d *gzipDecoder) DecodeFrame(dst, frame []byte, rawSize int64) ([]byte, error) {
	if rawSize < 0 {
		return dst, errNegativeSize
	}
	if len(frame) < gzipMinMember {
		return dst, damaged(Gzip, io.ErrUnexpectedEOF)
	}
	// The member's last four bytes are its raw size modulo 2³².
	if isize := binary.LittleEndian.Uint32(frame[len(frame)-4:]); isize != uint32(rawSize) ||
		rawSize > int64(len(frame))*gzipMaxRatio {
		return dst, damagedf(Gzip, "does not hold %d bytes", rawSize)
	}
	src := bytes.NewReader(frame)
	if err := d.r.Reset(src); err != nil {
		return dst, damaged(Gzip, err)
	}
	d.r.Multistream(false)
	start := len(dst)
	dst, err := decodeInto(Gzip, dst, &d.r, rawSize)
	if err != nil {
		return dst, err
	}
	if src.Len() > 0 {
		return dst[:start], damagedf(Gzip, "%d bytes follow it", src.Len())
	}
	return dst, nil
}

func (d *gzipDecoder) Close() error { return nil }

func newGzipReader(src *source) (io.ReadCloser, error) {
	s := &stream{name: Gzip, src: src}
	r, err := gzip.NewReader(src)
	if err != nil {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return nil, s.wrap(err)
	}
	s.r = r
	return s, nil
}

package compress

import (
	"github.com/firn-backup/firn/internal/codec"
)

// noneCodec passes bytes through: a frame is its raw bytes.
type noneCodec struct{}

var _ codec.Compressor = noneCodec{}

func (noneCodec) Name() string                                { return None }
func (noneCodec) Ext() string                                 { return "" }
func (noneCodec) NewEncoder() (codec.FrameEncoder, error)     { return noneCoder{}, nil }
func (noneCodec) NewDecoder() (codec.FrameDecoder, error)     { return noneCoder{}, nil }
func (noneCodec) Trailer([]codec.Frame, bool) ([]byte, error) { return nil, nil }

type noneCoder struct{}

func (noneCoder) EncodeFrame(dst, raw []byte) ([]byte, error) { return append(dst, raw...), nil }
func (noneCoder) Close() error                                { return nil }

// DecodeFrame can see a wrong length only; without compression there is no
// checksum either.
func (noneCoder) DecodeFrame(dst, frame []byte, rawSize int64) ([]byte, error) {
	if int64(len(frame)) != rawSize {
		return dst, damagedf(None, "%d bytes instead of %d", len(frame), rawSize)
	}
	return append(dst, frame...), nil
}

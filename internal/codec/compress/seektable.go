package compress

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/firn-backup/firn/internal/codec"
)

// A zstd volume ends with two skippable frames, which every decoder skips:
//
//	padding     magic 0x184D2A50, size, zeros           (only when pad is set)
//	seek table  magic 0x184D2A5E, size, entries, footer
//
// The seek table is that of the zstd seekable format, version 0.1.0
// (facebook/zstd, contrib/seekable_format), without checksums of its own: each
// frame carries one. An entry is the packed and the raw size of one frame,
// four bytes each, little endian. The padding has an entry too, with raw size 0, as
// the format wants it: the packed sizes add up to where the table begins.
// The footer is the number of entries (4 bytes), the descriptor (1 byte, 0)
// and the magic 0x8F92EAB1.
//
// The padding brings the plaintext's end one byte past a multiple of 64 KiB.
// So age's last chunk, which any access to an encrypted volume must read, is 17
// bytes long and small enough to be kept in the manifest.
const (
	paddingMagic   = 0x184D2A50
	seekTableMagic = 0x184D2A5E
	seekableMagic  = 0x8F92EAB1

	skippableHead = 8 // bytes: magic and size
	seekEntry     = 8
	seekFooter    = 9
	seekMaxFrames = 0x8000000

	padUnit      = 64 << 10
	padRemainder = 1
)

// Trailer is the padding, if asked for, and the seek table. A frame of 4 GiB
// and more is an error, and so are more frames than the format can list.
func (c *zstdCodec) Trailer(frames []codec.Frame, pad bool) ([]byte, error) {
	entries := len(frames)
	if pad {
		entries++
	}
	if entries > seekMaxFrames {
		return nil, fmt.Errorf("zstd seek table: %d frames, and at most %d fit", entries, seekMaxFrames)
	}
	var packed int64
	for i, f := range frames {
		if f.Packed < 0 || f.Packed > math.MaxUint32 || f.Raw < 0 || f.Raw > math.MaxUint32 {
			return nil, fmt.Errorf("zstd seek table: frame %d of %d bytes, %d packed, does not fit", i, f.Raw, f.Packed)
		}
		packed += f.Packed
	}
	table := entries*seekEntry + seekFooter
	size := skippableHead + table
	fill := 0
	if pad {
		size += skippableHead
		over := (packed + int64(size) - padRemainder) % padUnit
		if over < 0 {
			over += padUnit
		}
		if over > 0 {
			fill = padUnit - int(over)
		}
		size += fill
	}

	le := binary.LittleEndian
	b := make([]byte, 0, size)
	if pad {
		b = le.AppendUint32(b, paddingMagic)
		b = le.AppendUint32(b, uint32(fill))
		b = append(b, make([]byte, fill)...)
	}
	b = le.AppendUint32(b, seekTableMagic)
	b = le.AppendUint32(b, uint32(table))
	for _, f := range frames {
		b = le.AppendUint32(b, uint32(f.Packed))
		b = le.AppendUint32(b, uint32(f.Raw))
	}
	if pad {
		b = le.AppendUint32(b, uint32(skippableHead+fill))
		b = le.AppendUint32(b, 0)
	}
	b = le.AppendUint32(b, uint32(entries))
	b = append(b, 0)
	b = le.AppendUint32(b, seekableMagic)
	return b, nil
}

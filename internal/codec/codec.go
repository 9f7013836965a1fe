// Package codec is the contract of what happens to a volume's bytes between
// stream and vault, compression in independent frames and encryption of the
// whole, and the list of the codecs there are. The implementations live in
// codec/compress and codec/encrypt. It knows nothing of volumes' contents or of
// vaults.
package codec

import (
	"errors"
	"io"
)

var (
	// ErrNoKey is returned when none of the identities at hand opens a volume.
	ErrNoKey = errors.New("no key at hand decrypts it")
	// ErrNotSeekable is returned where a cipher cannot be entered in the middle.
	ErrNotSeekable = errors.New("cannot be read in part")
	// ErrDamaged is returned when bytes do not decode or authenticate.
	ErrDamaged = errors.New("damaged data")
)

// Frame is one independently compressed piece of a volume.
type Frame struct {
	Raw    int64 // bytes decoded
	Packed int64 // bytes compressed
}

// A Compressor compresses frames that can be decoded on their own and whose
// concatenation is what the usual program of that name decodes.
// It is safe for concurrent use; the coders it makes are not.
type Compressor interface {
	Name() string // "zstd", "gzip", "bzip2", "none"
	Ext() string  // ".zst", ".gz", ".bz2", ""
	NewEncoder() (FrameEncoder, error)
	NewDecoder() (FrameDecoder, error)

	// Trailer is what a volume ends with after its frames, given that so many
	// bytes of frames went before: a seek table, padded so that the volume's
	// plaintext ends one byte past a multiple of 64 KiB when pad is set. Decoders skip it. May be empty.
	Trailer(frames []Frame, pad bool) ([]byte, error)
}

// A FrameEncoder turns raw bytes into one frame. Close releases its resources.
type FrameEncoder interface {
	// EncodeFrame appends the frame of raw to dst.
	EncodeFrame(dst, raw []byte) ([]byte, error)
	Close() error
}

// A FrameDecoder turns one frame back. Close releases its resources.
type FrameDecoder interface {
	// DecodeFrame appends the raw bytes of exactly one frame to dst; rawSize is what
	// the index says, and anything else is ErrDamaged. Memory is bounded by rawSize.
	DecodeFrame(dst, frame []byte, rawSize int64) ([]byte, error)
	Close() error
}

// An Encryptor encrypts volumes to recipients. Safe for concurrent use.
type Encryptor interface {
	Name() string // "age", "openpgp", "none"
	Ext() string  // ".age", ".gpg", ""
	// Encrypt returns a writer of plaintext; Close ends the ciphertext and must
	// be called. It does not close dst.
	Encrypt(dst io.Writer) (io.WriteCloser, error)
	// Geometry tells how plaintext maps to ciphertext.
	Geometry() Geometry
}

// A Decryptor opens volumes with the identities it was made of. Safe for concurrent use.
type Decryptor interface {
	// Decrypt reads a whole ciphertext as a stream. ErrNoKey, ErrDamaged (also
	// from Read). The last bytes may be unauthenticated until io.EOF.
	Decrypt(src io.Reader) (io.Reader, error)
	// DecryptAt opens a ciphertext of size bytes for random access to its plaintext and
	// tells the plaintext's size. It reads only the header, the last chunk
	// and what is asked for. ErrNotSeekable for ciphers without that, ErrNoKey, ErrDamaged.
	DecryptAt(src io.ReaderAt, size int64) (r io.ReaderAt, plainSize int64, err error)
}

// A HeaderTrier is a Decryptor that can tell from a volume's first bytes whether its identities open it.
type HeaderTrier interface {
	// TryHeader is given what the cipher wrote before any plaintext. nil: an identity opens it. ErrNoKey, ErrDamaged.
	TryHeader(header []byte) error
}

// Geometry is the arithmetic of a cipher. The zero value is that of no
// encryption.
type Geometry struct {
	Whole bool // cannot be entered in the middle
	// Seekable ciphers: header bytes differ from volume to volume (recipients), then chunks.
	Chunk int64 // plaintext bytes a chunk; 0: no chunks, plaintext = ciphertext
	Tag   int64 // further ciphertext bytes a chunk
}

// CipherRange is the ciphertext range that must be read to get plaintext
// [off, off+size), given the header's size in bytes. The end is not clipped to the
// ciphertext's end. It must not be called when g.Whole.
func (g Geometry) CipherRange(header, off, size int64) (start, length int64) {
	if g.Chunk == 0 {
		return header + off, size
	}
	first := off / g.Chunk
	last := (off + size + g.Chunk - 1) / g.Chunk
	return header + first*(g.Chunk+g.Tag), (last - first) * (g.Chunk + g.Tag)
}

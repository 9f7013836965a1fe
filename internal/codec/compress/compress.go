// Package compress holds the compressors of volumes: zstd, gzip, bzip2 and
// none. Each makes frames that can be decoded on their own and whose
// concatenation the usual program of that name decodes. It knows nothing of
// where frames lie, of encryption or of vaults.
package compress

import (
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/firn-backup/firn/internal/codec"
	"github.com/firn-backup/firn/internal/failure"
)

// Names of the compressors.
const (
	Zstd  = codec.Zstd
	Gzip  = codec.Gzip
	Bzip2 = codec.Bzip2
	None  = codec.None
)

// New returns the compressor that spec asks for: NAME or NAME:LEVEL.
//
//	zstd, zstd:1 … zstd:19   default 3
//	gzip, gzip:1 … gzip:9    default 6
//	bzip2, bzip2:1 … bzip2:9 default 9; written by the lbzip2 or else the bzip2 program
//	none
//
// The zstd library has four levels; 1-2 mean its fastest, 3-5 its default, 6-9
// its better and 10-19 its best. Its best level has had bugs that corrupt data,
// so whoever uses it must decode and compare each frame before trusting it
// (the volume writer does).
//
// An unknown spec is failure.Usage. New("bzip2") fails when neither program is
// installed; reading needs neither, see ByName.
func New(spec string) (codec.Compressor, error) {
	name, level, ok := codec.ParseCompression(spec)
	if !ok {
		return nil, badSpec(spec)
	}
	switch name {
	case Zstd:
		return &zstdCodec{level: level}, nil
	case Gzip:
		return &gzipCodec{level: level}, nil
	case Bzip2:
		program, err := findBzip2()
		if err != nil {
			return nil, err
		}
		return &bzip2Codec{level: level, program: program}, nil
	case None:
		return noneCodec{}, nil
	}
	return nil, badSpec(spec)
}

// Bare is c without what its frames hold against damage, for a cipher that lets no damaged byte
// through: age authenticates each 64 KiB, and a second check costs a twentieth of a backup. A
// compressor that cannot do without is returned as it is.
func Bare(c codec.Compressor) codec.Compressor {
	if z, ok := c.(*zstdCodec); ok {
		return &zstdCodec{level: z.level, bare: true}
	}
	return c
}

func badSpec(spec string) error {
	return failure.Errorf(failure.Usage, "unknown compression %q: want zstd[:1-19], gzip[:1-9], bzip2[:1-9] or none", spec)
}

// ByName returns the compressor of a name without level, for reading what is
// stored. Its encoders have the default level.
func ByName(name string) (codec.Compressor, error) {
	switch name {
	case Zstd, Gzip, None:
		return New(name)
	case Bzip2:
		return &bzip2Codec{level: 9}, nil
	}
	return nil, fmt.Errorf("unknown compression %q", name)
}

// NewReader decodes a whole concatenation of frames, trailer included, as a
// stream; it serves where there is no list of frames, and where a foreign
// program wrote the data. Memory is bounded whatever the data claim. Bytes that
// do not decode are codec.ErrDamaged; src's own errors come through as they are.
func NewReader(name string, src io.Reader) (io.ReadCloser, error) {
	s := &source{r: src}
	switch name {
	case Zstd:
		return newZstdReader(s)
	case Gzip:
		return newGzipReader(s)
	case Bzip2:
		return newBzip2Reader(s), nil
	case None:
		return io.NopCloser(src), nil
	}
	return nil, fmt.Errorf("unknown compression %q", name)
}

// source remembers the error that ended src, so that a broken line is never
// taken for broken data.
type source struct {
	r   io.Reader
	err error
}

func (s *source) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	if err != nil && err != io.EOF {
		s.err = err
	}
	return n, err
}

// stream gives a library's decoder our errors.
type stream struct {
	name  string
	src   *source
	r     io.Reader
	close func()
}

func (s *stream) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	if err != nil && err != io.EOF {
		err = s.wrap(err)
	}
	return n, err
}

func (s *stream) wrap(err error) error {
	if s.src.err != nil {
		return s.src.err
	}
	return damaged(s.name, err)
}

func (s *stream) Close() error {
	if s.close != nil {
		s.close()
		s.close = nil
	}
	return nil
}

func damaged(name string, err error) error {
	return fmt.Errorf("%s frame: %w: %w", name, codec.ErrDamaged, err)
}

func damagedf(name, format string, args ...any) error {
	return damaged(name, fmt.Errorf(format, args...))
}

var errNegativeSize = errors.New("compress: negative raw size")

// decodeInto appends exactly rawSize bytes of r to dst. It allocates as the
// bytes come, because rawSize is only a claim until they have.
func decodeInto(name string, dst []byte, r io.Reader, rawSize int64) ([]byte, error) {
	start := len(dst)
	for left := rawSize; left > 0; {
		if len(dst) == cap(dst) {
			dst = slices.Grow(dst, int(min(left, max(int64(len(dst)-start), 1<<20))))
		}
		room := dst[len(dst):min(int64(cap(dst)), int64(len(dst))+left)]
		n, err := io.ReadFull(r, room)
		dst = dst[:len(dst)+n]
		left -= int64(n)
		if err != nil {
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return dst[:start], damagedf(name, "%d of %d bytes: %w", rawSize-left, rawSize, err)
		}
	}
	var one [1]byte
	switch n, err := io.ReadFull(r, one[:]); {
	case n > 0:
		return dst[:start], damagedf(name, "holds more than %d bytes", rawSize)
	case err != io.EOF:
		return dst[:start], damaged(name, err)
	}
	return dst, nil
}

// appender is a writer that appends to a slice.
type appender struct{ b []byte }

func (a *appender) Write(p []byte) (int, error) {
	a.b = append(a.b, p...)
	return len(p), nil
}

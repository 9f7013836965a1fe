package encrypt

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"filippo.io/age"
	"filippo.io/age/plugin"

	"github.com/firn-backup/firn/internal/codec"
	"github.com/firn-backup/firn/internal/failure"
)

const (
	ageChunk = 64 << 10 // plaintext bytes a chunk
	ageTag   = 16       // further ciphertext bytes a chunk
)

type ageEncryptor struct{ recipients []age.Recipient }

var _ codec.Encryptor = (*ageEncryptor)(nil)

func newAgeEncryptor(o EncryptOptions) (*ageEncryptor, error) {
	recipients, err := ageRecipients(o)
	if err != nil {
		return nil, err
	}
	if len(recipients) == 0 {
		return nil, failure.Errorf(failure.Usage, "age: no recipients")
	}
	e := &ageEncryptor{recipients}
	for _, r := range recipients {
		if _, ok := r.(*plugin.Recipient); ok {
			return e, nil // it may ask somebody; once is enough, when it counts
		}
	}
	// Recipients that cannot be mixed are known only when they are used.
	if _, err := e.Encrypt(io.Discard); err != nil {
		return nil, failure.Wrap(failure.Usage, err)
	}
	return e, nil
}

func (e *ageEncryptor) Name() string { return Age }
func (e *ageEncryptor) Ext() string  { return ".age" }

func (e *ageEncryptor) Geometry() codec.Geometry {
	return codec.Geometry{Chunk: ageChunk, Tag: ageTag}
}

func (e *ageEncryptor) HeaderSize(prefix []byte) (int, error) { return ageHeaderSize(prefix) }

func (e *ageEncryptor) Encrypt(dst io.Writer) (io.WriteCloser, error) {
	w, err := age.Encrypt(dst, e.recipients...)
	if err != nil {
		return nil, fmt.Errorf("age: %w", err)
	}
	return w, nil
}

type ageDecryptor struct{ ids []age.Identity }

var (
	_ codec.Decryptor   = (*ageDecryptor)(nil)
	_ codec.HeaderTrier = (*ageDecryptor)(nil)
)

func newAgeDecryptor(ids []age.Identity) *ageDecryptor {
	wrapped := make([]age.Identity, len(ids))
	for i, id := range ids {
		wrapped[i] = asIdentity(id)
	}
	// Those that ask nobody and run nothing come first.
	slices.SortStableFunc(wrapped, func(a, b age.Identity) int {
		return a.(*Identity).cost() - b.(*Identity).cost()
	})
	return &ageDecryptor{wrapped}
}

func (d *ageDecryptor) HeaderSize(prefix []byte) (int, error) { return ageHeaderSize(prefix) }

var errNoIdentity = errors.New("no identity is given")

func (d *ageDecryptor) Decrypt(src io.Reader) (io.Reader, error) {
	if len(d.ids) == 0 {
		return nil, noKey(Age, errNoIdentity)
	}
	s := &source{r: src}
	r, err := age.Decrypt(s, d.ids...)
	if err != nil {
		return nil, ageError(err, s.err)
	}
	return &ageReader{r, s}, nil
}

type ageReader struct {
	r   io.Reader
	src *source
}

func (r *ageReader) Read(p []byte) (int, error) {
	n, err := r.r.Read(p)
	if err != nil && err != io.EOF {
		err = ageError(err, r.src.err)
	}
	return n, err
}

// TryHeader asks the identities for the file key, which the header's own code authenticates.
func (d *ageDecryptor) TryHeader(header []byte) error {
	if len(d.ids) == 0 {
		return noKey(Age, errNoIdentity)
	}
	if _, err := age.DecryptHeader(header, d.ids...); err != nil {
		return ageError(err, nil)
	}
	return nil
}

// DecryptAt reads the header in steps of some 60 bytes, so as not to read past
// it: src had better hold it in memory.
func (d *ageDecryptor) DecryptAt(src io.ReaderAt, size int64) (io.ReaderAt, int64, error) {
	if len(d.ids) == 0 {
		return nil, 0, noKey(Age, errNoIdentity)
	}
	header, err := readHeader(src, size)
	if err != nil {
		return nil, 0, ageError(err, nil)
	}
	r, plain, err := age.DecryptReaderAt(&splitReaderAt{header, src}, size, d.ids...)
	if err != nil {
		return nil, 0, ageError(err, nil)
	}
	return &ageReaderAt{r, plain}, plain, nil
}

// splitReaderAt serves the header from memory and all else from src. The
// library reads the header through a buffer that wants more than there is.
type splitReaderAt struct {
	header []byte
	src    io.ReaderAt
}

func (s *splitReaderAt) ReadAt(p []byte, off int64) (int, error) {
	if off < int64(len(s.header)) {
		return copy(p, s.header[off:]), nil // short, and read further by those who want more
	}
	n, err := s.src.ReadAt(p, off)
	if err != nil && err != io.EOF {
		err = &srcError{err}
	}
	return n, err
}

type ageReaderAt struct {
	r    io.ReaderAt
	size int64
}

func (r *ageReaderAt) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, fmt.Errorf("age: offset %d", off)
	}
	if off >= r.size {
		if len(p) == 0 {
			return 0, nil
		}
		return 0, io.EOF
	}
	n, err := r.r.ReadAt(p, off)
	if err == io.EOF && n == len(p) {
		err = nil
	}
	if err != nil && err != io.EOF {
		err = ageError(err, nil)
	}
	return n, err
}

// srcError marks what the caller's source returned, through the library's wrapping.
type srcError struct{ err error }

func (e *srcError) Error() string { return e.err.Error() }
func (e *srcError) Unwrap() error { return e.err }

// ageError tells the library's errors apart; src is what the source returned,
// if it did.
func ageError(err, src error) error {
	var (
		fromSource *srcError
		noMatch    *age.NoIdentityMatchError
		identity   *identityError
	)
	switch {
	case src != nil:
		return fmt.Errorf("age: read: %w", src)
	case errors.As(err, &fromSource):
		return fmt.Errorf("age: read: %w", fromSource.err)
	case errors.Is(err, codec.ErrDamaged):
		return err
	case errors.As(err, &noMatch):
		return fmt.Errorf("age: %w (it is encrypted to: %s)", codec.ErrNoKey, strings.Join(noMatch.StanzaTypes, ", "))
	case errors.As(err, &identity):
		return noKey(Age, err)
	}
	return damaged(Age, err)
}

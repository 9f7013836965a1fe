// Package encrypt holds the ciphers of volumes: age, OpenPGP and none. It knows
// nothing of what the plaintext is, or of where the ciphertext goes.
//
// age is the native one: its ciphertext can be entered in the middle. OpenPGP is
// for interoperability, and every version of GnuPG from 2.2 reads it.
package encrypt

import (
	"errors"
	"fmt"
	"io"
	"time"

	"filippo.io/age"

	"github.com/firn-backup/firn/internal/codec"
	"github.com/firn-backup/firn/internal/failure"
)

// Names of the ciphers.
const (
	Age     = codec.Age
	OpenPGP = codec.OpenPGP
	None    = codec.None
)

// EncryptOptions say to whom to encrypt. The zero value has nobody, which only
// "none" accepts.
type EncryptOptions struct {
	// Recipients are, for age, public keys: age1…, age1pq1… (which cannot be mixed with
	// others), age1PLUGIN1…, ssh-ed25519 … and ssh-rsa …; for openpgp, keys in gpg's keyring, by
	// fingerprint, key id or e-mail address.
	Recipients []string
	// RecipientFiles are, for age, files with a recipient a line and # comments;
	// for openpgp, files with public keys, armored or binary.
	RecipientFiles []string

	GPG     string           // the gpg program: "gpg"
	GPGHome string           // its home directory: its own default
	Now     func() time.Time // decides which OpenPGP keys have expired: time.Now

	// Passphrase answers what an age plugin asks, and Say shows what it says. Without
	// them the plugin is told that nobody is there.
	Passphrase func(prompt string) ([]byte, error)
	Say        func(message string)
}

// NewEncryptor returns the encryptor of a name. All recipients are read and
// checked here, so that a backup does not fail over them later. What they are
// at fault for is failure.Usage, and so is an unknown name.
//
// When Encrypt of the age encryptor returns, exactly the header has been
// written: the bytes before the first chunk. The encryptors have a method
// HeaderSize like the function of that name.
func NewEncryptor(name string, o EncryptOptions) (codec.Encryptor, error) {
	switch name {
	case Age:
		return newAgeEncryptor(o)
	case OpenPGP:
		return newPGPEncryptor(o)
	case None:
		if len(o.Recipients)+len(o.RecipientFiles) > 0 {
			return nil, failure.Errorf(failure.Usage, "recipients are given, but encryption is %q", None)
		}
		return noneCipher{}, nil
	}
	return nil, unknownCipher(name)
}

// Keys are what volumes are opened with.
type Keys struct {
	Age          []age.Identity // see ParseIdentityFile
	OpenPGPFiles []string       // files with private keys, armored or binary; without any, gpg and its agent are used

	// Passphrase is asked for the passphrase of an OpenPGP key file; nil: those
	// with a passphrase cannot be used.
	Passphrase func(prompt string) ([]byte, error)

	GPG     string // the gpg program: "gpg"
	GPGHome string // its home directory: its own default
}

// NewDecryptor returns the decryptor of a name. Without any key, age's is made
// all the same and says codec.ErrNoKey when it is used.
func NewDecryptor(name string, k Keys) (codec.Decryptor, error) {
	switch name {
	case Age:
		return newAgeDecryptor(k.Age), nil
	case OpenPGP:
		return newPGPDecryptor(k)
	case None:
		return noneCipher{}, nil
	}
	return nil, unknownCipher(name)
}

func unknownCipher(name string) error {
	return failure.Errorf(failure.Usage, "unknown encryption %q: want age, openpgp or none", name)
}

// HeaderSize tells how many bytes of a ciphertext lie before its first chunk,
// given a beginning of it: for age the header with the nonce, 0 for the
// others. io.ErrUnexpectedEOF: prefix is too short to tell; codec.ErrDamaged: it
// is no such ciphertext.
func HeaderSize(name string, prefix []byte) (int, error) {
	switch name {
	case Age:
		return ageHeaderSize(prefix)
	case OpenPGP, None:
		return 0, nil
	}
	return 0, unknownCipher(name)
}

// noneCipher passes bytes through.
type noneCipher struct{}

var (
	_ codec.Encryptor = noneCipher{}
	_ codec.Decryptor = noneCipher{}
)

func (noneCipher) Name() string                   { return None }
func (noneCipher) Ext() string                    { return "" }
func (noneCipher) Geometry() codec.Geometry       { return codec.Geometry{} }
func (noneCipher) HeaderSize([]byte) (int, error) { return 0, nil }

func (noneCipher) Encrypt(dst io.Writer) (io.WriteCloser, error) { return &noneWriter{dst}, nil }
func (noneCipher) Decrypt(src io.Reader) (io.Reader, error)      { return src, nil }

func (noneCipher) DecryptAt(src io.ReaderAt, size int64) (io.ReaderAt, int64, error) {
	return io.NewSectionReader(src, 0, size), size, nil
}

type noneWriter struct{ dst io.Writer }

func (w *noneWriter) Write(p []byte) (int, error) {
	if w.dst == nil {
		return 0, errClosed
	}
	return w.dst.Write(p)
}

func (w *noneWriter) Close() error {
	w.dst = nil
	return nil
}

var errClosed = errors.New("write after close")

// source remembers the error that ended a stream, so that a broken line is
// never taken for broken data: libraries hide it.
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

func damaged(name string, err error) error {
	return fmt.Errorf("%s: %w: %w", name, codec.ErrDamaged, err)
}

func noKey(name string, err error) error {
	return fmt.Errorf("%s: %w: %w", name, codec.ErrNoKey, err)
}

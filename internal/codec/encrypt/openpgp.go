package encrypt

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	pgperrors "github.com/ProtonMail/go-crypto/openpgp/errors"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
	openpgp "github.com/ProtonMail/go-crypto/openpgp/v2"

	"github.com/firn-backup/firn/internal/codec"
)

type pgpEncryptor struct {
	keys   []*packet.PublicKey
	config *packet.Config
}

var _ codec.Encryptor = (*pgpEncryptor)(nil)

func newPGPEncryptor(o EncryptOptions) (*pgpEncryptor, error) {
	now := o.Now
	if now == nil {
		now = time.Now
	}
	config := pgpConfig(now)
	keys, err := pgpRecipients(o, config)
	if err != nil {
		return nil, err
	}
	return &pgpEncryptor{keys, config}, nil
}

func (e *pgpEncryptor) Name() string                   { return OpenPGP }
func (e *pgpEncryptor) Ext() string                    { return ".gpg" }
func (e *pgpEncryptor) Geometry() codec.Geometry       { return codec.Geometry{Whole: true} }
func (e *pgpEncryptor) HeaderSize([]byte) (int, error) { return 0, nil }

// Encrypt writes the packets itself: session keys, then a version 1 integrity
// protected packet (AES-256, MDC) with a literal inside. The library's own
// Encrypt would choose version 2 for keys that advertise it, which GnuPG 2.2
// does not read.
func (e *pgpEncryptor) Encrypt(dst io.Writer) (io.WriteCloser, error) {
	const cipher = packet.CipherAES256
	session := make([]byte, cipher.KeySize())
	rand.Read(session)
	defer clear(session)
	for _, k := range e.keys {
		if err := packet.SerializeEncryptedKeyAEADwithHiddenOption(dst, k, cipher, false, session, false, e.config); err != nil {
			return nil, fmt.Errorf("openpgp: encrypt to key %s: %w", k.KeyIdString(), err)
		}
	}
	payload, err := packet.SerializeSymmetricallyEncrypted(dst, cipher, false, packet.CipherSuite{}, session, e.config)
	if err != nil {
		return nil, fmt.Errorf("openpgp: %w", err)
	}
	literal, err := packet.SerializeLiteral(payload, true, "", 0)
	if err != nil {
		return nil, fmt.Errorf("openpgp: %w", err)
	}
	return &pgpWriter{w: literal}, nil
}

// pgpWriter hands on pieces of a fixed size: the packet writer buffers whatever
// it is given at once, twice.
type pgpWriter struct {
	w   io.WriteCloser
	err error
}

const pgpPiece = 64 << 10 // bytes; a power of two makes whole partial packets

func (w *pgpWriter) Write(p []byte) (int, error) {
	total := 0
	for len(p) > 0 {
		if w.err != nil {
			return total, w.err
		}
		n, err := w.w.Write(p[:min(len(p), pgpPiece)])
		total += n
		p = p[n:]
		if err != nil {
			w.err = fmt.Errorf("openpgp: %w", err)
		}
	}
	return total, w.err
}

func (w *pgpWriter) Close() error {
	if w.err != nil {
		if w.err == errClosed {
			return nil
		}
		return w.err
	}
	w.err = errClosed
	if err := w.w.Close(); err != nil {
		return fmt.Errorf("openpgp: %w", err)
	}
	return nil
}

// newPGPDecryptor uses the key files if there are any, and gpg otherwise.
func newPGPDecryptor(k Keys) (codec.Decryptor, error) {
	if len(k.OpenPGPFiles) == 0 {
		return newGPGDecryptor(k)
	}
	d := &pgpDecryptor{ask: k.Passphrase, config: pgpConfig(time.Now)}
	for _, path := range k.OpenPGPFiles {
		ring, err := readKeyRing(path)
		if err != nil {
			return nil, err
		}
		private := false
		for _, e := range ring {
			private = private || hasPrivate(e)
		}
		if !private {
			return nil, noKey("key file "+path, errors.New("it holds no private key"))
		}
		d.ring = append(d.ring, ring...)
	}
	return d, nil
}

func hasPrivate(e *openpgp.Entity) bool {
	if e.PrivateKey != nil && !e.PrivateKey.Dummy() {
		return true
	}
	for _, s := range e.Subkeys {
		if s.PrivateKey != nil && !s.PrivateKey.Dummy() {
			return true
		}
	}
	return false
}

type pgpDecryptor struct {
	ring   openpgp.EntityList
	ask    func(prompt string) ([]byte, error)
	config *packet.Config
	mu     sync.Mutex // over ring, whose keys are decrypted in place
}

var _ codec.Decryptor = (*pgpDecryptor)(nil)

func (d *pgpDecryptor) HeaderSize([]byte) (int, error) { return 0, nil }

func (d *pgpDecryptor) DecryptAt(io.ReaderAt, int64) (io.ReaderAt, int64, error) {
	return nil, 0, fmt.Errorf("openpgp: %w", codec.ErrNotSeekable)
}

// Decrypt returns a reader whose bytes are unauthenticated until io.EOF: OpenPGP has
// one checksum, over everything and at the end.
func (d *pgpDecryptor) Decrypt(src io.Reader) (io.Reader, error) {
	s := &source{r: src}
	ring := &watchedRing{ring: d.ring}
	d.mu.Lock()
	md, err := openpgp.ReadMessage(s, ring, d.prompt, d.config)
	d.mu.Unlock()
	var unlock *identityError
	switch {
	case err == nil && !md.IsEncrypted:
		return nil, damaged(OpenPGP, errors.New("the message is not encrypted"))
	case err == nil:
		return &pgpReader{md.UnverifiedBody, s}, nil
	case s.err != nil:
		return nil, fmt.Errorf("openpgp: read: %w", s.err)
	case errors.As(err, &unlock):
		return nil, noKey(OpenPGP, err)
	case errors.Is(err, pgperrors.ErrKeyIncorrect) && ring.found:
		return nil, damaged(OpenPGP, errors.New("the session key does not decrypt"))
	case errors.Is(err, pgperrors.ErrKeyIncorrect):
		return nil, fmt.Errorf("openpgp: %w", codec.ErrNoKey)
	}
	return nil, damaged(OpenPGP, unexpected(err))
}

// unexpected: the end of the input is an end too early.
func unexpected(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// prompt decrypts the private keys that could open a message.
func (d *pgpDecryptor) prompt(keys []openpgp.Key, _ bool) ([]byte, error) {
	if len(keys) == 0 {
		return nil, &identityError{errors.New("it is encrypted by a passphrase")}
	}
	if d.ask == nil {
		return nil, &identityError{errNeedsPassphrase}
	}
	for _, k := range keys {
		pass, err := d.ask(fmt.Sprintf("Passphrase of OpenPGP key %X", k.Entity.PrimaryKey.Fingerprint))
		if err != nil {
			return nil, &identityError{err}
		}
		if err := k.PrivateKey.Decrypt(pass); err != nil {
			return nil, &identityError{errors.New("wrong passphrase")}
		}
	}
	return nil, nil
}

// watchedRing notes whether a message is for one of the keys, so that a damaged
// session key is not taken for a foreign one.
type watchedRing struct {
	ring  openpgp.EntityList
	found bool
}

func (r *watchedRing) KeysById(id uint64) []openpgp.Key { return r.ring.KeysById(id) }

func (r *watchedRing) EntitiesById(id uint64) []*openpgp.Entity {
	es := r.ring.EntitiesById(id)
	for _, e := range es {
		r.found = r.found || id != 0 && hasPrivate(e)
	}
	return es
}

type pgpReader struct {
	r   io.Reader
	src *source
}

func (r *pgpReader) Read(p []byte) (int, error) {
	n, err := r.r.Read(p)
	if err != nil && err != io.EOF {
		if r.src.err != nil {
			return n, fmt.Errorf("openpgp: read: %w", r.src.err)
		}
		return n, damaged(OpenPGP, err)
	}
	return n, err
}

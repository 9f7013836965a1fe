// Package keyfile owns Firn's key file: one text with the age identity that
// opens backups and the Ed25519 seed that signs manifests. It is an identity file
// that plain age takes (age -d -i key.txt); what is Firn's own stands in its
// comments. The package knows nothing of volumes, manifests or vaults, and asks
// and prints nothing by itself.
//
// A key file under a passphrase has a second file beside it, the writer file, with
// recipient and signing seed in the clear: enough to make backups unattended,
// and not to read them. A machine that only backs up needs no more.
package keyfile

import (
	"crypto/ed25519"
	cryptorand "crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"time"

	"filippo.io/age"

	"github.com/firn-backup/firn/internal/codec/encrypt"
	"github.com/firn-backup/firn/internal/failure"
)

const (
	identityPrefix   = "AGE-SECRET-KEY-"
	seedPrefix       = "FIRN-SIGNING-SEED-"
	signingKeyPrefix = "ed25519:"
)

// Key is what a key file holds. It does not print its secrets, whatever the
// verb. The zero value holds nothing. It is safe for concurrent reading.
type Key struct {
	// Warning says that other users can read the file, or is empty.
	Warning string

	// Behind a function: of a Key in an unexported field fmt prints what it
	// finds by reflection, without calling Format, and follows pointers.
	open func() *secrets
}

func keyOf(warning string, s *secrets) *Key { return &Key{warning, func() *secrets { return s }} }

type secrets struct {
	created    time.Time
	lines      []string       // the identities' own lines; none for an SSH key
	ids        []age.Identity // *encrypt.Identity
	recipients []string
	signer     ed25519.PrivateKey
	ssh        bool   // the identity is an SSH key, which cannot be written here
	wrapped    []byte // the armored file, if it is under a passphrase
}

func (k *Key) in() *secrets {
	if k == nil || k.open == nil {
		return &secrets{}
	}
	return k.open()
}

// New makes a key: an X25519 identity and a signing seed, from 64 bytes of
// rand. rand nil is the system's source.
func New(now time.Time, rand io.Reader) (*Key, error) {
	if rand == nil {
		rand = cryptorand.Reader
	}
	var b [64]byte
	defer clear(b[:])
	if _, err := io.ReadFull(rand, b[:]); err != nil {
		return nil, fmt.Errorf("new key: %w", err)
	}
	s := &secrets{
		created: now.UTC().Truncate(time.Second),
		signer:  ed25519.NewKeyFromSeed(b[32:]),
	}
	if err := s.addIdentity(bech32Encode(identityPrefix, b[:32]), nil); err != nil {
		return nil, fmt.Errorf("new key: %w", err)
	}
	return keyOf("", s), nil
}

// WithNewSigner returns a key with the same identities and another signing
// seed, for when the old seed is lost or known to others.
func (k *Key) WithNewSigner(rand io.Reader) (*Key, error) {
	if rand == nil {
		rand = cryptorand.Reader
	}
	seed := make([]byte, ed25519.SeedSize)
	defer clear(seed)
	if _, err := io.ReadFull(rand, seed); err != nil {
		return nil, fmt.Errorf("new signing seed: %w", err)
	}
	s := *k.in()
	s.signer, s.wrapped = ed25519.NewKeyFromSeed(seed), nil
	return keyOf(k.Warning, &s), nil
}

// addIdentity adds the identity of a line of a file.
func (s *secrets) addIdentity(line string, ask func(string) ([]byte, error)) error {
	id, err := encrypt.ParseIdentity(line, encrypt.IdentityOptions{Passphrase: ask})
	if err != nil {
		return err
	}
	s.lines, s.ids = append(s.lines, line), append(s.ids, id)
	s.addRecipients()
	return nil
}

func (s *secrets) addRecipients() {
	for _, id := range s.ids {
		if r := recipientOf(id); r != "" && !slices.Contains(s.recipients, r) {
			s.recipients = append(s.recipients, r)
		}
	}
}

func recipientOf(id age.Identity) string {
	if r, ok := id.(interface{ Recipient() string }); ok {
		return r.Recipient()
	}
	return ""
}

// Created is when it was made, to the second; zero where the file does not say.
func (k *Key) Created() time.Time { return k.in().created }

// Recipient is the public key to encrypt to (age1…), "" if none is known.
func (k *Key) Recipient() string {
	if r := k.in().recipients; len(r) > 0 {
		return r[0]
	}
	return ""
}

// Recipients are all public keys, one for each identity that tells its own.
func (k *Key) Recipients() []string { return slices.Clone(k.in().recipients) }

// Identities open backups. There are none in a writer file, and none while a file is
// locked by its passphrase.
func (k *Key) Identities() []age.Identity { return slices.Clone(k.in().ids) }

// Signer signs manifests; nil if the file has no signing seed.
func (k *Key) Signer() ed25519.PrivateKey { return slices.Clone(k.in().signer) }

// SigningKey is the public key of Signer as text (ed25519:…), "" without one.
func (k *Key) SigningKey() string {
	if s := k.in().signer; s != nil {
		return FormatSigningKey(s.Public().(ed25519.PublicKey))
	}
	return ""
}

// FormatSigningKey writes a public signing key as config and messages have it:
// "ed25519:" and 43 characters of unpadded base64url.
func FormatSigningKey(key ed25519.PublicKey) string {
	return signingKeyPrefix + base64.RawURLEncoding.EncodeToString(key)
}

// ParseSigningKey reads what FormatSigningKey wrote. A fault is failure.Usage.
func ParseSigningKey(text string) (ed25519.PublicKey, error) {
	digits, ok := strings.CutPrefix(text, signingKeyPrefix)
	b, err := base64.RawURLEncoding.Strict().DecodeString(digits)
	if !ok || err != nil || len(b) != ed25519.PublicKeySize || FormatSigningKey(b) != text {
		return nil, failure.Errorf(failure.Usage, "signing key %q: want %s and 43 characters", text, signingKeyPrefix)
	}
	return b, nil
}

// Wrapped tells whether the file is under a passphrase.
func (k *Key) Wrapped() bool { return len(k.in().wrapped) > 0 }

// WrappedText is the armored key file under its passphrase, of which a copy may
// lie in the vault; "" if the key is not wrapped.
func (k *Key) WrappedText() string { return string(k.in().wrapped) }

// String names the key by what is public in it.
func (k Key) String() string {
	switch r, s := k.Recipient(), k.SigningKey(); {
	case r != "" && s != "":
		return "key " + r + " " + s
	case r != "" || s != "":
		return "key " + r + s
	}
	return "key"
}

// Format prints String, whatever the verb.
func (k Key) Format(f fmt.State, _ rune) { io.WriteString(f, k.String()) }

// LogValue logs String.
func (k Key) LogValue() slog.Value { return slog.StringValue(k.String()) }

// MarshalText is String, for encoders that would look inside.
func (k Key) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

var (
	_ fmt.Formatter  = Key{}
	_ slog.LogValuer = Key{}
)

var errNothing = errors.New("it holds neither an identity nor a signing seed")

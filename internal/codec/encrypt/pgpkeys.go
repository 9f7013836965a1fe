package encrypt

import (
	"bytes"
	"errors"
	"fmt"
	"sort"
	"strings"
	"time"

	pgperrors "github.com/ProtonMail/go-crypto/openpgp/errors"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
	openpgp "github.com/ProtonMail/go-crypto/openpgp/v2"

	"github.com/firn-backup/firn/internal/failure"
)

// pgpConfig is how we use the library: as GnuPG does where they differ.
func pgpConfig(now func() time.Time) *packet.Config {
	return &packet.Config{
		DefaultCipher:                       packet.CipherAES256,
		DefaultCompressionAlgo:              packet.CompressionNone,
		Time:                                now,
		InsecureAllowAllKeyFlagsWhenMissing: true, // old keys have none, and GnuPG uses them
	}
}

// pgpRecipients finds and checks the keys to encrypt to.
func pgpRecipients(o EncryptOptions, config *packet.Config) ([]*packet.PublicKey, error) {
	var keys []*packet.PublicKey
	seen := map[string]bool{}
	add := func(k *packet.PublicKey) {
		if !seen[string(k.Fingerprint)] {
			seen[string(k.Fingerprint)] = true
			keys = append(keys, k)
		}
	}
	for _, path := range o.RecipientFiles {
		ring, err := readKeyRing(path)
		if err != nil {
			return nil, err
		}
		for _, e := range ring {
			k, err := encryptionKey(e, config)
			if err != nil {
				return nil, failure.Errorf(failure.Usage, "key file %s: %w", path, err)
			}
			add(k)
		}
	}
	for _, name := range o.Recipients {
		k, err := gpgRecipient(o, name, config)
		if err != nil {
			return nil, err
		}
		add(k)
	}
	if len(keys) == 0 {
		return nil, failure.Errorf(failure.Usage, "openpgp: no recipients")
	}
	return keys, nil
}

// gpgRecipient takes a key out of gpg's keyring. An address may fit several
// keys, of which old ones have often expired; exactly one must be usable.
func gpgRecipient(o EncryptOptions, name string, config *packet.Config) (*packet.PublicKey, error) {
	b, err := gpgExport(o.GPG, o.GPGHome, name)
	if err != nil {
		return nil, err
	}
	if len(b) == 0 {
		return nil, failure.Errorf(failure.Usage, "gpg's keyring has no key %q", name)
	}
	ring, err := openpgp.ReadKeyRing(bytes.NewReader(b))
	if err != nil {
		return nil, fmt.Errorf("gpg key %q: %w", name, err)
	}
	var usable *packet.PublicKey
	var unusable error
	var prints []string
	for _, e := range ring {
		k, err := encryptionKey(e, config)
		if err != nil {
			unusable = err
			continue
		}
		usable = k
		prints = append(prints, fingerprint(e))
	}
	switch len(prints) {
	case 0:
		return nil, failure.Errorf(failure.Usage, "gpg key %q: %w", name, unusable)
	case 1:
		return usable, nil
	}
	sort.Strings(prints)
	return nil, failure.Errorf(failure.Usage, "gpg key %q means %d keys; give the fingerprint of one: %s", name, len(prints), strings.Join(prints, ", "))
}

// encryptionKey chooses the key of e that messages are encrypted to now, or
// says why there is none.
func encryptionKey(e *openpgp.Entity, config *packet.Config) (*packet.PublicKey, error) {
	if e.PrimaryKey.Version != 4 {
		return nil, fmt.Errorf("%s: version %d keys cannot be read by GnuPG 2.2", describe(e, config), e.PrimaryKey.Version)
	}
	k, err := e.EncryptionKeyWithError(config.Now(), config)
	if err == nil {
		return k.PublicKey, nil
	}
	cause := err
	var byValue pgperrors.ErrEncryptionKeySelection
	var byPointer *pgperrors.ErrEncryptionKeySelection
	if errors.As(err, &byPointer) {
		byValue = *byPointer
	} else if !errors.As(err, &byValue) {
		return nil, fmt.Errorf("%s: %w", describe(e, config), err)
	}
	if byValue.PrimaryKeyErr != nil {
		cause = byValue.PrimaryKeyErr
	} else if byValue.EncSelectionErr != nil {
		cause = byValue.EncSelectionErr
	}
	why := "cannot be encrypted to: " + cause.Error()
	switch {
	case errors.Is(cause, pgperrors.ErrKeyExpired), errors.Is(cause, pgperrors.ErrSignatureExpired):
		why = "has expired"
	case errors.Is(cause, pgperrors.ErrKeyRevoked):
		why = "is revoked"
	}
	return nil, fmt.Errorf("%s %s", describe(e, config), why)
}

func fingerprint(e *openpgp.Entity) string { return fmt.Sprintf("%X", e.PrimaryKey.Fingerprint) }

func describe(e *openpgp.Entity, config *packet.Config) string {
	names := make([]string, 0, len(e.Identities))
	for name := range e.Identities {
		names = append(names, name)
	}
	if len(names) == 0 {
		return "key " + fingerprint(e)
	}
	sort.Strings(names)
	return fmt.Sprintf("key %s (%s)", fingerprint(e), names[0])
}

// readKeyRing reads a file of public or private keys, armored or binary.
func readKeyRing(path string) (openpgp.EntityList, error) {
	b, err := readKeyFile(path)
	if err != nil {
		return nil, fmt.Errorf("key file: %w", err)
	}
	read := openpgp.ReadKeyRing
	if bytes.Contains(b, []byte("-----BEGIN PGP ")) {
		read = openpgp.ReadArmoredKeyRing
	}
	ring, err := read(bytes.NewReader(b))
	if err != nil {
		return nil, damaged("key file "+path, err)
	}
	if len(ring) == 0 {
		return nil, damaged("key file "+path, errors.New("it holds no OpenPGP key"))
	}
	return ring, nil
}

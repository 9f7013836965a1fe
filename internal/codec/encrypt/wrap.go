package encrypt

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"filippo.io/age"
	"filippo.io/age/armor"

	"github.com/firn-backup/firn/internal/codec"
)

// maxWorkFactor bounds what an encrypted identity file may cost to open: scrypt
// takes 2^(10+factor) bytes, here 1 GiB. age writes 18.
const maxWorkFactor = 20

// IsWrapped tells whether text is an age file, armored or binary, as an identity
// file under a passphrase is.
func IsWrapped(text []byte) bool { return isBinaryAge(text) || isArmored(text) }

func isBinaryAge(text []byte) bool { return bytes.HasPrefix(text, []byte("age-encryption.org/")) }
func isArmored(text []byte) bool {
	return bytes.HasPrefix(bytes.TrimLeft(text, " \t\r\n"), []byte(armor.Header))
}

// Wrap encrypts the text of an identity file by a passphrase, armored, as age
// -d -i takes it. workFactor is scrypt's, as a power of two; 0: age's default.
func Wrap(text, passphrase []byte, workFactor int) ([]byte, error) {
	r, err := age.NewScryptRecipient(string(passphrase))
	if err != nil {
		return nil, err
	}
	if workFactor > 0 {
		r.SetWorkFactor(workFactor)
	}
	var out bytes.Buffer
	a := armor.NewWriter(&out)
	w, err := age.Encrypt(a, r)
	if err != nil {
		return nil, err
	}
	if _, err := w.Write(text); err != nil {
		return nil, err
	}
	if err := errors.Join(w.Close(), a.Close()); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

// Armor returns wrapped text in its armored form, whichever it has.
func Armor(wrapped []byte) ([]byte, error) {
	if !isBinaryAge(wrapped) {
		return wrapped, nil
	}
	var out bytes.Buffer
	a := armor.NewWriter(&out)
	if _, err := a.Write(wrapped); err != nil {
		return nil, err
	}
	if err := a.Close(); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

// Unwrap opens what Wrap or age -p made. A wrong passphrase is codec.ErrNoKey,
// all else codec.ErrDamaged.
func Unwrap(text, passphrase []byte) ([]byte, error) {
	id, err := age.NewScryptIdentity(string(passphrase))
	if err != nil {
		return nil, noKey(Age, err)
	}
	id.SetMaxWorkFactor(maxWorkFactor)
	var src io.Reader = bytes.NewReader(text)
	if isArmored(text) {
		src = armor.NewReader(src)
	}
	r, err := age.Decrypt(src, id)
	var noMatch *age.NoIdentityMatchError
	if errors.As(err, &noMatch) {
		if len(noMatch.StanzaTypes) != 1 || noMatch.StanzaTypes[0] != "scrypt" {
			return nil, noKey(Age, errors.New("it is not encrypted by a passphrase"))
		}
		return nil, fmt.Errorf("wrong passphrase: %w", codec.ErrNoKey)
	}
	if err != nil {
		return nil, damaged(Age, err)
	}
	plain, err := io.ReadAll(io.LimitReader(r, maxKeyFile+1))
	if err != nil {
		return nil, damaged(Age, err)
	}
	if len(plain) > maxKeyFile {
		return nil, damaged(Age, errors.New("too long for an identity file"))
	}
	return plain, nil
}

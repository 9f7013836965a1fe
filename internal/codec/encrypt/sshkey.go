package encrypt

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rsa"
	"errors"
	"fmt"
	"strings"

	"filippo.io/age"
	"filippo.io/age/agessh"
	"golang.org/x/crypto/ssh"
)

func parseSSHIdentity(text []byte, o IdentityOptions) ([]age.Identity, error) {
	raw, err := ssh.ParseRawPrivateKey(text)
	var missing *ssh.PassphraseMissingError
	if errors.As(err, &missing) {
		if o.Passphrase == nil {
			return nil, noKey(o.Name, errNeedsPassphrase)
		}
		ask := func() ([]byte, error) { return o.Passphrase("Passphrase of " + o.Name) }
		if missing.PublicKey != nil {
			id, err := agessh.NewEncryptedSSHIdentity(missing.PublicKey, text, ask)
			if err != nil {
				return nil, damaged(o.Name, err)
			}
			return []age.Identity{&Identity{inner: id, recipient: sshText(missing.PublicKey)}}, nil
		}
		// The old PEM form does not say whose it is before it is decrypted.
		pass, err := ask()
		if err != nil {
			return nil, noKey(o.Name, err)
		}
		if raw, err = ssh.ParseRawPrivateKeyWithPassphrase(text, pass); err != nil {
			return nil, noKey(o.Name, errors.New("wrong passphrase"))
		}
	} else if err != nil {
		return nil, damaged(o.Name, errors.New("this is no SSH private key"))
	}
	id, public, err := sshIdentity(raw)
	if err != nil {
		return nil, damaged(o.Name, err)
	}
	return []age.Identity{&Identity{inner: id, recipient: sshText(public)}}, nil
}

func sshText(k ssh.PublicKey) string { return strings.TrimSpace(string(ssh.MarshalAuthorizedKey(k))) }

func sshIdentity(raw any) (age.Identity, ssh.PublicKey, error) {
	private, ok := raw.(crypto.Signer)
	if !ok {
		return nil, nil, fmt.Errorf("unsupported SSH key %T", raw)
	}
	signer, err := ssh.NewSignerFromSigner(private)
	if err != nil {
		return nil, nil, err
	}
	id, err := agesshIdentity(raw)
	if err != nil {
		return nil, nil, err
	}
	return id, signer.PublicKey(), nil
}

// agesshIdentity makes an identity of a parsed private key; the ssh library
// returns Ed25519 keys both by value and by pointer.
func agesshIdentity(raw any) (age.Identity, error) {
	switch k := raw.(type) {
	case *ed25519.PrivateKey:
		return agessh.NewEd25519Identity(*k)
	case ed25519.PrivateKey:
		return agessh.NewEd25519Identity(k)
	case *rsa.PrivateKey:
		return agessh.NewRSAIdentity(k)
	}
	return nil, fmt.Errorf("unsupported SSH key %T: want ssh-ed25519 or ssh-rsa", raw)
}

package encrypt

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"

	"filippo.io/age"
	"filippo.io/age/agessh"
	"filippo.io/age/plugin"

	"github.com/firn-backup/firn/internal/codec"
)

// Identity is a private key that does not print itself and that may be used by
// several goroutines at once.
type Identity struct {
	inner     age.Identity
	recipient string
	mu        sync.Mutex // the inner ones that ask are not safe for concurrent use
}

var (
	_ age.Identity   = (*Identity)(nil)
	_ fmt.Formatter  = (*Identity)(nil)
	_ slog.LogValuer = (*Identity)(nil)
)

func asIdentity(id age.Identity) *Identity {
	if w, ok := id.(*Identity); ok {
		return w
	}
	w := &Identity{inner: id}
	switch id := id.(type) {
	case *age.X25519Identity:
		w.recipient = id.Recipient().String()
	case *age.HybridIdentity:
		w.recipient = id.Recipient().String()
	}
	return w
}

// Recipient is the text of the public key that belongs to it, or "" where it is
// not known: plugins do not tell.
func (i *Identity) Recipient() string { return i.recipient }

// Unwrap implements age.Identity.
func (i *Identity) Unwrap(stanzas []*age.Stanza) ([]byte, error) {
	if i.cost() == 0 {
		return i.inner.Unwrap(stanzas)
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	key, err := i.inner.Unwrap(stanzas)
	if err != nil && !errors.Is(err, age.ErrIncorrectIdentity) {
		return nil, &identityError{err}
	}
	return key, err
}

// cost orders identities: 0 decrypts by itself, 1 may ask somebody, 2 runs a program.
func (i *Identity) cost() int {
	switch i.inner.(type) {
	case *agessh.EncryptedSSHIdentity:
		return 1
	case *plugin.Identity:
		return 2
	}
	return 0
}

func (i *Identity) String() string {
	if i.recipient == "" {
		return "age identity"
	}
	return "age identity of " + i.recipient
}

// Format prints no secret, whatever the verb.
func (i *Identity) Format(f fmt.State, _ rune) { io.WriteString(f, i.String()) }

// LogValue logs no secret.
func (i *Identity) LogValue() slog.Value { return slog.StringValue(i.String()) }

// identityError marks the failure of an identity that fits: a plugin that is missing, a
// wrong passphrase.
type identityError struct{ err error }

func (e *identityError) Error() string { return e.err.Error() }
func (e *identityError) Unwrap() error { return e.err }

// IdentityOptions help in reading identities.
type IdentityOptions struct {
	Name       string                              // what the identities come from, for prompts and errors
	Passphrase func(prompt string) ([]byte, error) // nil: those with a passphrase cannot be used
	Say        func(message string)                // shows what a plugin says
}

// ParseIdentityFile reads the identities of a file as age takes it: lines of
// AGE-SECRET-KEY-… and AGE-PLUGIN-…, an SSH private key, or a file of such lines
// that is itself encrypted by a passphrase. The passphrase of an SSH key is asked for
// when it is needed first. A wrong passphrase wraps codec.ErrNoKey, a file that cannot be
// read as identities codec.ErrDamaged, and a missing one fs.ErrNotExist.
func ParseIdentityFile(path string, passphrase func(prompt string) ([]byte, error)) ([]age.Identity, error) {
	b, err := readKeyFile(path)
	if err != nil {
		return nil, fmt.Errorf("identity file: %w", err)
	}
	return ParseIdentities(b, IdentityOptions{Name: path, Passphrase: passphrase})
}

// ParseIdentities is ParseIdentityFile for a text that has been read. What it
// returns are *Identity.
func ParseIdentities(text []byte, o IdentityOptions) ([]age.Identity, error) {
	if o.Name == "" {
		o.Name = "identity"
	}
	switch {
	case IsWrapped(text):
		if o.Passphrase == nil {
			return nil, noKey(o.Name, errNeedsPassphrase)
		}
		pass, err := o.Passphrase("Passphrase of " + o.Name)
		if err != nil {
			return nil, noKey(o.Name, err)
		}
		plain, err := Unwrap(text, pass)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", o.Name, err)
		}
		return parseIdentityLines(plain, o)
	case bytes.HasPrefix(bytes.TrimSpace(text), []byte("-----BEGIN")):
		return parseSSHIdentity(text, o)
	}
	return parseIdentityLines(text, o)
}

var errNeedsPassphrase = errors.New("it needs a passphrase, and there is nobody to ask")

func parseIdentityLines(text []byte, o IdentityOptions) ([]age.Identity, error) {
	var ids []age.Identity
	for n, line := range numberedLines(text) {
		id, err := ParseIdentity(line, o)
		if err != nil {
			return nil, fmt.Errorf("%s: line %d: %w", o.Name, n, err)
		}
		ids = append(ids, id)
	}
	if len(ids) == 0 {
		return nil, damaged(o.Name, errors.New("it holds no identity"))
	}
	return ids, nil
}

// ParseIdentity reads one line of an identity file. Its errors are
// codec.ErrDamaged and do not repeat the line.
func ParseIdentity(line string, o IdentityOptions) (*Identity, error) {
	id, err := parseIdentity(line, o)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", codec.ErrDamaged, err)
	}
	return asIdentity(id), nil
}

func parseIdentity(line string, o IdentityOptions) (age.Identity, error) {
	var id age.Identity
	var err error
	switch {
	case strings.HasPrefix(line, "AGE-SECRET-KEY-PQ-1"):
		id, err = age.ParseHybridIdentity(line)
	case strings.HasPrefix(line, "AGE-SECRET-KEY-1"):
		id, err = age.ParseX25519Identity(line)
	case strings.HasPrefix(line, "AGE-PLUGIN-"):
		id, err = plugin.NewIdentity(line, pluginUI(o.Passphrase, o.Say))
	case strings.HasPrefix(line, "age1"):
		return nil, errors.New("this is a public key, and must be a private one")
	default:
		return nil, errors.New("this is no age identity")
	}
	if err != nil {
		return nil, errors.New("this identity is mistyped or cut")
	}
	return id, nil
}

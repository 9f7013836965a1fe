package keyfile

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/firn-backup/firn/internal/codec/encrypt"
)

// The comments of a key file. The first line tells which of them must be there,
// so that a file that was cut is not taken for one that never had them.
const (
	markMain   = "firn-key-file"
	markWriter = "firn-writer-file"
	version    = "1"

	fieldCreated    = "created"
	fieldRecipient  = "public key" // as age-keygen writes it
	fieldSigningKey = "firn-signing-key"
	fieldSeed       = "firn-signing-seed"
)

// text is the key file's content.
func (s *secrets) text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "# %s: %s\n", markMain, version)
	b.WriteString("# Whoever has this file can read the backups and make new ones in your name.\n")
	b.WriteString("# Without it nobody can read them: keep a copy on paper (firn key show).\n")
	s.public(&b)
	for _, line := range s.lines {
		b.WriteString(line + "\n")
	}
	return b.String()
}

// writerText is the content of the file beside a wrapped one.
func (s *secrets) writerText() string {
	var b strings.Builder
	fmt.Fprintf(&b, "# %s: %s\n", markWriter, version)
	b.WriteString("# Whoever has this file can make backups in your name, but not read them.\n")
	s.public(&b)
	return b.String()
}

// public writes the fields that both files have.
func (s *secrets) public(b *strings.Builder) {
	if !s.created.IsZero() {
		fmt.Fprintf(b, "# %s: %s\n", fieldCreated, s.created.Format(time.RFC3339))
	}
	for _, r := range s.recipients {
		fmt.Fprintf(b, "# %s: %s\n", fieldRecipient, r)
	}
	if s.signer != nil {
		fmt.Fprintf(b, "# %s: %s\n", fieldSigningKey, FormatSigningKey(s.signer.Public().(ed25519.PublicKey)))
		fmt.Fprintf(b, "# %s: %s\n", fieldSeed, bech32Encode(seedPrefix, s.signer.Seed()))
	}
}

// fields are the comments that mean something, as they were found.
type fields struct {
	mark       string
	recipients []string
	signingKey string
	seed       string
}

// parse reads a key file's content that is not under a passphrase. Errors do not
// repeat secrets.
func parse(name string, text []byte, ask func(string) ([]byte, error)) (*secrets, error) {
	s := &secrets{}
	if bytes.HasPrefix(bytes.TrimSpace(text), []byte("-----BEGIN")) {
		ids, err := encrypt.ParseIdentities(text, encrypt.IdentityOptions{Name: name, Passphrase: ask})
		if err != nil {
			return nil, err
		}
		s.ids, s.ssh = ids, true
		s.addRecipients()
		return s, nil
	}
	var f fields
	for i, line := range strings.Split(string(text), "\n") {
		line = strings.TrimSpace(line)
		comment, isComment := strings.CutPrefix(line, "#")
		switch {
		case line == "":
		case !isComment:
			if err := s.addIdentity(line, ask); err != nil {
				return nil, fmt.Errorf("%s: line %d: %w", name, i+1, err)
			}
		default:
			if err := s.field(&f, comment); err != nil {
				return nil, fmt.Errorf("%s: line %d: %w", name, i+1, err)
			}
		}
	}
	if err := s.check(&f); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return s, nil
}

// field takes a comment, if it is one of ours or of age-keygen.
func (s *secrets) field(f *fields, comment string) error {
	key, value, ok := strings.Cut(comment, ":")
	value = strings.TrimSpace(value)
	if !ok || value == "" {
		return nil
	}
	once := func(to *string) error {
		if *to != "" && *to != value {
			return fmt.Errorf("there is a second %s", strings.TrimSpace(key))
		}
		*to = value
		return nil
	}
	switch key = strings.ToLower(strings.TrimSpace(key)); key {
	case markMain, markWriter:
		if value != version {
			return errors.New("its format is not known to this version of firn")
		}
		f.mark = key
	case fieldCreated:
		if t, err := time.Parse(time.RFC3339, value); err == nil {
			s.created = t.UTC()
		}
	case fieldRecipient, "recipient", "recipients":
		f.recipients = append(f.recipients, value)
	case fieldSigningKey:
		return once(&f.signingKey)
	case fieldSeed:
		return once(&f.seed)
	}
	return nil
}

// check compares what the comments say with the identities.
func (s *secrets) check(f *fields) error {
	if f.seed != "" {
		seed, err := bech32Decode(seedPrefix, f.seed)
		if err != nil || len(seed) != ed25519.SeedSize {
			return errors.New("the signing seed is mistyped or cut")
		}
		s.signer = ed25519.NewKeyFromSeed(seed)
		if f.signingKey != "" && f.signingKey != FormatSigningKey(s.signer.Public().(ed25519.PublicKey)) {
			return errors.New("the signing key does not belong to the signing seed")
		}
	}
	known := true // every identity has told its recipient
	for _, id := range s.ids {
		known = known && recipientOf(id) != ""
	}
	if len(s.ids) == 0 || !known {
		for _, r := range f.recipients {
			if !slices.Contains(s.recipients, r) {
				s.recipients = append(s.recipients, r)
			}
		}
	} else if f.mark != "" {
		for _, r := range f.recipients {
			if !slices.Contains(s.recipients, r) {
				return errors.New("its public key does not belong to its identity")
			}
		}
	}
	switch {
	case f.mark == markMain && len(s.ids) == 0:
		return errors.New("it has lost its identity: the file is cut or changed")
	case f.mark != "" && s.signer == nil:
		return errors.New("it has lost its signing seed: the file is cut or changed")
	case f.mark != "" && len(s.recipients) == 0:
		return errors.New("it has lost its public key: the file is cut or changed")
	case len(s.ids) == 0 && s.signer == nil:
		return errNothing
	}
	return nil
}

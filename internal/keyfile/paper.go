package keyfile

import (
	"errors"
	"fmt"
	"hash/crc32"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/firn-backup/firn/internal/failure"
)

const (
	paperGroup = 4 // characters between spaces
	paperLine  = 8 // groups a line

	paperIdentity = "identity"
	paperSigning  = "signing"
)

// Paper is the key for printing: both secrets in short lines, each with its
// own check characters, and how to use them with and without Firn. ParsePaper
// reads it back, typed in. It is secret. Identities that are SSH keys are not in
// it.
func (k *Key) Paper() string {
	s := k.in()
	var b strings.Builder
	b.WriteString("FIRN KEY. Keep this page where nobody else comes by it, and not in the house that is backed up.\n\n")
	if !s.created.IsZero() {
		fmt.Fprintf(&b, "created: %s\n", s.created.Format(time.RFC3339))
	}
	for _, r := range s.recipients {
		fmt.Fprintf(&b, "public key: %s\n", r)
	}
	if key := k.SigningKey(); key != "" {
		fmt.Fprintf(&b, "signing key: %s\n", key)
	}
	for i, line := range s.lines {
		if i == 0 {
			b.WriteString("\nThe identity opens the backups:\n\n")
		} else {
			b.WriteString("\nand:\n\n")
		}
		paperSecret(&b, paperIdentity, line)
	}
	if s.signer != nil {
		b.WriteString("\nThe signing seed makes backups that are known as yours:\n\n")
		paperSecret(&b, paperSigning, bech32Encode(seedPrefix, s.signer.Seed()))
	}
	b.WriteString(`
To use it again: firn key import, and type in the lines above. After # stand
check characters; capitals, spaces and the words before do not matter.
`)
	if len(s.lines) > 0 {
		b.WriteString(`
Without Firn: type the identity into a file key.txt, in capitals, without spaces,
numbers and check characters, all on one line. Then any volume of a backup opens with
  age -d -i key.txt VOLUME | zstd -d | tar tv
`)
	}
	return b.String()
}

// paperSecret writes a secret in lines of "NAME N  GROUPS  # CHECK"; the prefix
// is a group of its own.
func paperSecret(b *strings.Builder, name, secret string) {
	head := secret[:strings.LastIndex(secret, "1")+1]
	rest := secret[len(head):]
	for n := 1; head != "" || rest != ""; n++ {
		room := paperLine
		if head != "" {
			room = max(1, room-len(head)/paperGroup)
		}
		part := rest[:min(len(rest), paperGroup*room)]
		fmt.Fprintf(b, "  %s %d  %s", name, n, head)
		for i := 0; i < len(part); i += paperGroup {
			b.WriteString(" " + part[i:min(i+paperGroup, len(part))])
		}
		fmt.Fprintf(b, "  # %s\n", paperCheck(name, n, head+part))
		head, rest = "", rest[len(part):]
	}
}

// paperCheck are two characters that change when the line is mistyped or in the
// wrong place. The whole secret has bech32's checksum besides; these tell which line
// it is.
func paperCheck(name string, n int, part string) string {
	sum := crc32.ChecksumIEEE(fmt.Appendf(nil, "%s %d %s", name, n, part))
	return strings.ToUpper(string([]byte{bech32Charset[sum>>5&31], bech32Charset[sum&31]}))
}

// ParsePaper reads a key from what was printed by Paper and typed in, or from
// the bare secrets (AGE-SECRET-KEY-…, FIRN-SIGNING-SEED-…), one a line. It forgives
// small letters, spaces, missing numbers and check characters, and letters that are easily confused.
// The identity alone is enough: such a key has no signer, see WithNewSigner. A fault is
// failure.Usage and names the line.
func ParsePaper(text string) (*Key, error) {
	p := paperParser{re: regexp.MustCompile(`^(IDENTITY|SIGNING)\s*([0-9]+)?\s*[.:]?\s+([^#]*?)\s*(?:#\s*(\S+))?$`)}
	for i, line := range strings.Split(text, "\n") {
		if err := p.line(i+1, strings.ToUpper(strings.TrimSpace(line))); err != nil {
			return nil, err
		}
	}
	s := &secrets{created: p.created}
	for _, secret := range p.secrets {
		at := fmt.Sprintf("the key that begins in line %d", secret.line)
		if strings.HasPrefix(secret.text, seedPrefix) {
			if s.signer != nil {
				return nil, failure.Errorf(failure.Usage, "there is more than one signing seed")
			}
			f := fields{seed: secret.text}
			if err := s.check(&f); err != nil {
				return nil, failure.Errorf(failure.Usage, "%s: %w", at, err)
			}
			continue
		}
		if err := s.addIdentity(secret.text, nil); err != nil {
			return nil, failure.Errorf(failure.Usage, "%s: %w", at, err)
		}
	}
	if len(s.lines) == 0 {
		return nil, failure.Errorf(failure.Usage, "the text holds no identity (AGE-SECRET-KEY-1…)")
	}
	return keyOf("", s), nil
}

// Import is ParsePaper for a text that may also be a key file's content.
func Import(text string) (*Key, error) {
	s, err := parse("key", []byte(text), nil)
	if err == nil && len(s.ids) > 0 {
		return keyOf("", s), nil
	}
	if err != nil && strings.Contains(text, markMain+":") {
		return nil, loadError(err) // a damaged key file, and not a paper
	}
	return ParsePaper(text)
}

type paperSecretText struct {
	line int
	text string
}

type paperParser struct {
	re      *regexp.Regexp
	open    bool // the line before belonged to a secret
	secrets []paperSecretText
	created time.Time
}

func (p *paperParser) line(n int, line string) error {
	if created, ok := strings.CutPrefix(strings.TrimLeft(line, "# "), "CREATED:"); ok {
		if t, err := time.Parse(time.RFC3339, strings.TrimSpace(created)); err == nil {
			p.created = t.UTC()
		}
		return nil
	}
	name, number, body, check := "", "", line, ""
	if m := p.re.FindStringSubmatch(line); m != nil {
		name, number, body, check = strings.ToLower(m[1]), m[2], m[3], m[4]
	} else {
		body, check, _ = strings.Cut(body, "#")
	}
	body = strings.Join(strings.Fields(body), "")
	switch {
	case strings.HasPrefix(body, identityPrefix), strings.HasPrefix(body, "AGE-PLUGIN-"), strings.HasPrefix(body, seedPrefix):
		p.secrets = append(p.secrets, paperSecretText{n, ""})
	case name == "" && p.open && strings.Trim(body, strings.ToUpper(bech32Charset)) == "" && body != "":
		// The next line of a secret, without its name.
	case name == "", len(p.secrets) == 0, strings.ContainsAny(body, ":,(."), strings.HasPrefix(body, "KEY"):
		p.open = p.open && line == ""
		return nil // an instruction, or something of no concern
	}
	p.open = true
	for _, prefix := range []string{identityPrefix, identityPrefix + "PQ-", seedPrefix} {
		if rest, ok := strings.CutPrefix(body, prefix); ok && rest != "" && strings.ContainsAny(rest[:1], "LI") {
			body = prefix + "1" + rest[1:]
		}
	}
	last := &p.secrets[len(p.secrets)-1]
	part := unconfuse(last.text, body)
	last.text += part
	if check = strings.TrimSpace(check); check == "" || number == "" {
		return nil
	}
	count, err := strconv.Atoi(number)
	if err != nil {
		return failure.Wrap(failure.Usage, errors.New("line "+strconv.Itoa(n)+" has no number"))
	}
	if want := paperCheck(name, count, part); unconfuse("-1", check) != want {
		return failure.Errorf(failure.Usage, "line %d (%s %d) is mistyped: its check characters do not fit", n, name, count)
	}
	return nil
}

// unconfuse mends, in what follows a secret's prefix, characters that do not
// occur there: B, I, O and 1. The prefix ends with the "1" behind the last "-".
func unconfuse(before, part string) string {
	prefix := ""
	if i := strings.LastIndex(part, "-"); i >= 0 {
		if !strings.HasPrefix(part[i:], "-1") {
			return part
		}
		prefix, part = part[:i+2], part[i+2:]
	} else if i := strings.LastIndex(before, "-"); i < 0 || !strings.HasPrefix(before[i:], "-1") {
		return part
	}
	return prefix + strings.NewReplacer("B", "8", "I", "L", "O", "0", "1", "L").Replace(part)
}

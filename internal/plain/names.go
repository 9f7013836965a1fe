package plain

import (
	"cmp"
	"fmt"
	"strings"

	"github.com/firn-backup/firn/internal/catalog"
	"github.com/firn-backup/firn/internal/failure"
	"github.com/firn-backup/firn/internal/foreign"
	"github.com/firn-backup/firn/internal/manifest"
)

// A description has printable ASCII only, and vaults lose the spaces at its ends. The rule by which a name becomes
// one (docs/reference/archive-commands.md):
//
//   - A name of printable ASCII without spaces at its ends is its own description, unless it reads like
//     an escaped one.
//   - Of any other name, each byte that is not printable ASCII, each % and the spaces at both ends are escaped,
//     as % and two hexadecimal digits in capitals. That is an escaped description.
//
// So no two names have one description, and every description stands for one name: if it is what the second
// rule makes of some name, for that; else for itself.

// Describe is the description of an archive of that name. It may be longer than a vault takes: CheckDescription.
func Describe(name string) string {
	if mustEscape(name) {
		return escapeName(name)
	}
	return name
}

// NameOf is the name that a description stands for.
func NameOf(description string) string {
	if name, ok := unescapeName(description); ok && escapeName(name) == description && mustEscape(name) {
		return name
	}
	return description
}

// mustEscape ends: a name is longer than what it is the escaped form of.
func mustEscape(name string) bool {
	for i := range len(name) {
		if inescapable(name, i) {
			return true
		}
	}
	return NameOf(name) != name
}

// inescapable says that the byte at i cannot stand in a description as it is.
func inescapable(name string, i int) bool {
	c := name[i]
	return c < 0x20 || c > 0x7e || c == ' ' && (strings.TrimLeft(name[:i], " ") == "" || strings.TrimLeft(name[i:], " ") == "")
}

func escapeName(name string) string {
	var b strings.Builder
	for i := range len(name) {
		if name[i] == '%' || inescapable(name, i) {
			fmt.Fprintf(&b, "%%%02X", name[i])
		} else {
			b.WriteByte(name[i])
		}
	}
	return b.String()
}

// unescapeName reads an escaped description; ok is false where it is none.
func unescapeName(s string) (name string, ok bool) {
	if !strings.Contains(s, "%") {
		return "", false
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '%' {
			b.WriteByte(s[i])
			continue
		}
		if i+2 >= len(s) {
			return "", false
		}
		const digits = "0123456789ABCDEF"
		high, low := strings.IndexByte(digits, s[i+1]), strings.IndexByte(digits, s[i+2])
		if high < 0 || low < 0 {
			return "", false
		}
		b.WriteByte(byte(high<<4 | low))
		i += 2
	}
	return b.String(), true
}

// CheckDescription says what is wrong with a description. failure.Usage.
func CheckDescription(s string) error {
	for i := range len(s) {
		if s[i] < 0x20 || s[i] > 0x7e {
			return failure.Errorf(failure.Usage, "a description has printable ASCII only, and there is byte %#02x at %d", s[i], i)
		}
	}
	if len(s) > maxDescription {
		return failure.Errorf(failure.Usage, "a description has at most %d characters, and not %d", maxDescription, len(s))
	}
	return nil
}

// Name is what an archive is called: what it was called here, else what its description stands for; it may be empty.
func Name(r catalog.ArchiveRecord) string { return cmp.Or(r.Name, NameOf(r.Description)) }

// Title is what an archive is called: its name, else what the tool that stored it wrote into its description, else what that
// stands for, else its id.
func Title(r catalog.ArchiveRecord) string {
	if _, ok := foreign.Decode(r.Description); ok && r.Name == "" {
		return cmp.Or(strings.TrimSpace(foreign.Name(r.Description)), r.ID)
	}
	return cmp.Or(strings.TrimSpace(Name(r)), r.ID)
}

// titled says which archive an error concerns. A vault's errors have its id already.
func titled(r catalog.ArchiveRecord, err error) error {
	if title := Title(r); title != r.ID {
		return fmt.Errorf("archive %s: %w", title, err)
	}
	return err
}

// IsOwn says that an archive is part of one of Firn's own snapshots.
func IsOwn(r catalog.ArchiveRecord) bool {
	_, ok := manifest.ParseDescription(r.Description)
	return ok
}

package glaciercli

import (
	"fmt"
	"io"
	"strings"
	"unicode"
	"unicode/utf8"
)

// The rules of the output, all of which passes through this file:
//
//   - stdout is data in the forms of glacier-cli: scripts read them. Nothing else ever goes there, git-annex
//     passes it on to its own.
//   - stderr is talk: each line begins with "glacier: ", notes with "glacier: info: ", warnings with
//     "glacier: warning: ". Names in it are as Python writes them.
//   - No control character of a name reaches a terminal.
type output struct {
	stdout, stderr io.Writer
	failed         error // the first of stdout
}

// line writes a line of data.
func (o *output) line(s string) {
	if o.failed != nil {
		return
	}
	if _, err := io.WriteString(o.stdout, s+"\n"); err != nil {
		o.failed = fmt.Errorf("write output: %w", err)
	}
}

// talk writes text to stderr, each line of it with the prefix.
func (o *output) talk(prefix, text string) {
	var b strings.Builder
	for line := range strings.SplitSeq(strings.TrimRight(text, "\n"), "\n") {
		b.WriteString(prefix + clean(line) + "\n")
	}
	_, _ = io.WriteString(o.stderr, b.String()) // there is no one left to tell
}

func (o *output) say(format string, args ...any) { o.talk("glacier: ", fmt.Sprintf(format, args...)) }
func (o *output) info(format string, args ...any) {
	o.talk("glacier: info: ", fmt.Sprintf(format, args...))
}
func (o *output) warn(format string, args ...any) {
	o.talk("glacier: warning: ", fmt.Sprintf(format, args...))
}

func hostile(r rune) bool {
	return unicode.IsControl(r) || r == utf8.RuneError || unicode.In(r, unicode.Bidi_Control, unicode.Zl, unicode.Zp)
}

func clean(s string) string {
	if !strings.ContainsFunc(s, hostile) {
		return s
	}
	return escape(s, 0)
}

// repr is a text as Python's repr writes it: in quotes, single ones unless only those are in it.
func repr(s string) string {
	quote := byte('\'')
	if strings.Contains(s, "'") && !strings.Contains(s, `"`) {
		quote = '"'
	}
	return string(quote) + escape(s, quote) + string(quote)
}

// escape writes what is not printable as Python does, and before a quote a backslash; 0: there are no quotes.
func escape(s string, quote byte) string {
	var b strings.Builder
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		switch {
		case quote != 0 && (r == '\\' || r == rune(quote)):
			b.WriteString(`\` + string(r))
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\r':
			b.WriteString(`\r`)
		case r == '\t':
			b.WriteString(`\t`)
		case r == utf8.RuneError && n == 1, r < 0x80 && hostile(r):
			fmt.Fprintf(&b, `\x%02x`, s[i])
		case hostile(r) && r <= 0xff:
			fmt.Fprintf(&b, `\x%02x`, r)
		case hostile(r) && r != utf8.RuneError:
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			b.WriteRune(r)
		}
		i += n
	}
	return b.String()
}

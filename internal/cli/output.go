package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"reflect"
	"strings"
	"sync"
	"unicode"
	"unicode/utf8"

	"golang.org/x/term"

	"github.com/firn-backup/firn/internal/failure"
)

// The rules of Firn's output, all of which passes through this file:
//
//   - stdout is data: what was asked for, and nothing else. With --json it is one
//     document for lists and one JSON object a line for long runs.
//   - stderr is talk: progress, notices, "firn: warning: …", "firn: error: …" and
//     "firn: hint: …". --quiet leaves warnings, errors and hints.
//   - A bar is drawn on stderr, only where that is a terminal, and is out of the
//     way before anything else is written.
//   - Nothing that comes from a file name, a vault or a manifest reaches a
//     terminal with control characters in it.
type output struct {
	mu      sync.Mutex
	stdout  io.Writer
	stderr  io.Writer
	json    bool
	csv     bool // what would be JSON is CSV
	quiet   bool
	verbose bool
	bar     *bar // drawn at present; nil: none
	failed  error
}

// printf writes data to stdout. The first error of writing is kept and is the
// command's failure: a full disk behind a pipe must not look like success.
func (o *output) printf(format string, args ...any) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.write(fmt.Sprintf(format, args...))
}

func (o *output) write(s string) {
	if o.failed != nil {
		return
	}
	if _, err := io.WriteString(o.stdout, s); err != nil {
		o.failed = fmt.Errorf("write output: %w", err)
	}
}

// document writes v as one indented JSON document.
func (o *output) document(v any) error {
	if o.csv {
		return o.csvDocument(v)
	}
	return o.encode(v, "  ")
}

// line writes v as one line of JSON.
func (o *output) line(v any) error {
	return o.encode(v, "")
}

func (o *output) encode(v any, indent string) error {
	text, err := marshal(v, indent)
	if err != nil {
		return err
	}
	o.printf("%s\n", text)
	return nil
}

// marshal is json.Marshal without the escapes that are meant for web pages.
func marshal(v any, indent string) (string, error) {
	var b strings.Builder
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", indent)
	err := enc.Encode(v)
	return strings.TrimSuffix(b.String(), "\n"), err
}

// array writes the elements of one JSON array as they come, so that a list of
// millions needs no memory. close ends it. All elements are structs of one type.
type array struct {
	o *output
	n int
}

// array begins one whose elements are like sample.
func (o *output) array(sample any) *array {
	if o.csv {
		_ = o.csvHeader(reflect.TypeOf(sample)) // a failed write is kept
	}
	return &array{o: o}
}

func (a *array) add(v any) error {
	if a.o.csv {
		return a.o.csvRow(reflect.ValueOf(v))
	}
	text, err := marshal(v, "")
	if err != nil {
		return err
	}
	sep := ",\n"
	if a.n == 0 {
		sep = "[\n"
	}
	a.n++
	a.o.printf("%s%s", sep, text)
	return a.o.failure()
}

func (a *array) close() {
	if a.o.csv {
		return
	}
	if a.n == 0 {
		a.o.printf("[]\n")
		return
	}
	a.o.printf("\n]\n")
}

// failure is the first error of writing to stdout.
func (o *output) failure() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.failed
}

// jsonPath is a path in JSON: path, or path64 (base64) when it is not UTF-8.
type jsonPath struct {
	Path   string `json:"path,omitempty"`
	Path64 []byte `json:"path64,omitempty"`
}

func pathJSON(p string) jsonPath {
	if utf8.ValidString(p) {
		return jsonPath{Path: p}
	}
	return jsonPath{Path64: []byte(p)}
}

// talk writes one line to stderr, unless --quiet.
func (o *output) talk(format string, args ...any) {
	if !o.quiet {
		o.err("", fmt.Sprintf(format, args...))
	}
}

func (o *output) warn(format string, args ...any) {
	o.err("firn: warning: ", fmt.Sprintf(format, args...))
}
func (o *output) hint(format string, args ...any) {
	o.err("firn: hint: ", fmt.Sprintf(format, args...))
}

// err writes text to stderr, each line of it with the prefix.
func (o *output) err(prefix, text string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	var b strings.Builder
	for line := range strings.SplitSeq(strings.TrimRight(text, "\n"), "\n") {
		b.WriteString(prefix + clean(line) + "\n")
	}
	if o.bar != nil {
		o.bar.above(b.String())
		return
	}
	_, _ = io.WriteString(o.stderr, b.String()) // there is no one left to tell
}

// clean makes s harmless on a terminal: control characters, and bytes that are
// not UTF-8, are written as \n, \t or \xNN, and a backslash as two.
func clean(s string) string {
	if !strings.ContainsFunc(s, hostile) && utf8.ValidString(s) {
		return s
	}
	return escape(s, false)
}

// shown is a path as lists show it. Unlike clean it can be read back: a
// backslash is doubled, always.
func shown(path string) string { return escape(path, true) }

func hostile(r rune) bool {
	return unicode.IsControl(r) || r == utf8.RuneError || unicode.In(r, unicode.Bidi_Control, unicode.Zl, unicode.Zp)
}

func escape(s string, backslash bool) string {
	var b strings.Builder
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\t':
			b.WriteString(`\t`)
		case r == '\\' && backslash:
			b.WriteString(`\\`)
		case r == utf8.RuneError && n == 3: // a real U+FFFD
			b.WriteRune(r)
		case hostile(r):
			for _, c := range []byte(s[i : i+n]) {
				fmt.Fprintf(&b, `\x%02x`, c)
			}
		default:
			b.WriteRune(r)
		}
		i += n
	}
	return b.String()
}

// exitCode is the code of a failure of that kind. docs/reference/exit-codes.md
// is held to this table by a test.
func exitCode(k failure.Kind) int {
	switch k {
	case failure.Partial:
		return 3
	case failure.NotFound:
		return 10
	case failure.Locked:
		return 11
	case failure.NoKey:
		return 12
	case failure.Damaged:
		return 13
	case failure.Usage:
		return 64
	case failure.NotReady:
		return 75
	case failure.Interrupted:
		return 130
	}
	return 1
}

// severity orders the codes of several sets, worst first. What is not in it is
// worse than all of it: an interruption, wrong usage.
func severity() []int { return []int{12, 13, 10, 1, 11, 3, 75, 0} }

// worst is the code that counts of two.
func worst(a, b int) int {
	rank := func(c int) int {
		for i, s := range severity() {
			if s == c {
				return i
			}
		}
		return -1
	}
	if rank(b) < rank(a) {
		return b
	}
	return a
}

// usage is an error of wrong usage.
func usage(format string, args ...any) error { return failure.Errorf(failure.Usage, format, args...) }

// report tells of err and its hints on stderr and returns the exit code.
func (o *output) report(err error) int {
	if err == nil {
		return 0
	}
	code := exitCode(failure.KindOf(err))
	switch failure.KindOf(err) {
	case failure.Interrupted:
		o.err("firn: ", "interrupted")
	case failure.Partial, failure.NotReady: // the work is done, or under way
		o.err("firn: ", err.Error())
	default:
		o.err("firn: error: ", err.Error())
	}
	if h := hintFor(err); h != "" {
		o.hint("%s", h)
	}
	return code
}

// together is what several sets' errors amount to: the worst of them, the
// others being told of here.
func (o *output) together(errs []error) error {
	var out error
	for _, err := range errs {
		switch {
		case err == nil:
		case out == nil:
			out = err
		case worst(exitCode(failure.KindOf(out)), exitCode(failure.KindOf(err))) != exitCode(failure.KindOf(out)):
			o.report(out)
			out = err
		default:
			o.report(err)
		}
	}
	return out
}

// isTerminal says whether w is one.
func isTerminal(w any) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

package manifest

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"unicode/utf16"
	"unicode/utf8"
)

// maxDepth is how deep values of unknown keys may be nested.
const maxDepth = 64

// scanner reads one line of JSON. It is stricter than encoding/json, which
// matches keys whatever their case, lets the last of equal keys win and mends
// what is not UTF-8: two readers must not see two things in one manifest.
//
// The first error sticks; what the methods return after it is empty.
type scanner struct {
	b   []byte
	i   int
	err error
}

var errJSON = errors.New("not valid JSON")

func (s *scanner) fail(format string, args ...any) {
	if s.err == nil {
		s.err = fmt.Errorf("column %d: "+format, append([]any{s.i + 1}, args...)...)
	}
}

// peek skips white space and returns the next byte, 0 at the end.
func (s *scanner) peek() byte {
	for s.i < len(s.b) {
		c := s.b[s.i]
		if c != ' ' && c != '\t' && c != '\r' && c != '\n' {
			return c
		}
		s.i++
	}
	return 0
}

func (s *scanner) expect(c byte) bool {
	if s.err != nil {
		return false
	}
	if s.peek() != c || s.i >= len(s.b) {
		s.fail("%w: %q is missing", errJSON, c)
		return false
	}
	s.i++
	return true
}

// first opens an object and returns its first key; nil when it has none.
func (s *scanner) first() []byte {
	if !s.expect('{') {
		return nil
	}
	if s.peek() == '}' {
		s.i++
		return nil
	}
	return s.key()
}

// next returns the following key; nil at the object's end.
func (s *scanner) next() []byte {
	if s.err != nil {
		return nil
	}
	if s.peek() == '}' {
		s.i++
		return nil
	}
	if !s.expect(',') {
		return nil
	}
	return s.key()
}

func (s *scanner) key() []byte {
	k := s.str()
	if !s.expect(':') {
		return nil
	}
	return k
}

// elem opens an array, or goes on in it, and says whether an element follows.
func (s *scanner) elem(first bool) bool {
	if s.err != nil {
		return false
	}
	if first {
		if !s.expect('[') {
			return false
		}
		if s.peek() == ']' {
			s.i++
			return false
		}
		return true
	}
	if s.peek() == ']' {
		s.i++
		return false
	}
	return s.expect(',')
}

// end fails unless nothing follows.
func (s *scanner) end() {
	if s.err == nil && (s.peek() != 0 || s.i < len(s.b)) {
		s.fail("%w: something follows the object", errJSON)
	}
}

// str reads a string. What it returns is never nil but after an error, and may
// share the line's memory.
func (s *scanner) str() []byte {
	if !s.expect('"') {
		return nil
	}
	start := s.i
	high := byte(0)
	for s.i < len(s.b) {
		c := s.b[s.i]
		switch {
		case c == '"':
			v := s.b[start:s.i:s.i]
			if high >= 0x80 && !utf8.Valid(v) {
				s.fail("%w: a string is not UTF-8", errJSON)
				return nil
			}
			s.i++
			return v
		case c == '\\':
			return s.escaped(start)
		case c < 0x20:
			s.fail("%w: a control character in a string", errJSON)
			return nil
		}
		high |= c
		s.i++
	}
	s.fail("%w: a string does not end", errJSON)
	return nil
}

// escaped reads the rest of a string in which a backslash was met.
func (s *scanner) escaped(start int) []byte {
	v := bytes.Clone(s.b[start:s.i])
	for s.i < len(s.b) {
		c := s.b[s.i]
		s.i++
		switch {
		case c == '"':
			if !utf8.Valid(v) {
				s.fail("%w: a string is not UTF-8", errJSON)
				return nil
			}
			return v
		case c < 0x20:
			s.fail("%w: a control character in a string", errJSON)
			return nil
		case c != '\\':
			v = append(v, c)
		default:
			r, ok := s.escape()
			if !ok {
				s.fail("%w: a bad escape in a string", errJSON)
				return nil
			}
			v = utf8.AppendRune(v, r)
		}
	}
	s.fail("%w: a string does not end", errJSON)
	return nil
}

func (s *scanner) escape() (rune, bool) {
	if s.i >= len(s.b) {
		return 0, false
	}
	c := s.b[s.i]
	s.i++
	switch c {
	case '"', '\\', '/':
		return rune(c), true
	case 'b':
		return '\b', true
	case 'f':
		return '\f', true
	case 'n':
		return '\n', true
	case 'r':
		return '\r', true
	case 't':
		return '\t', true
	case 'u':
	default:
		return 0, false
	}
	r, ok := s.hex4()
	if !ok || !utf16.IsSurrogate(r) {
		return r, ok
	}
	if !bytes.HasPrefix(s.b[s.i:], []byte(`\u`)) {
		return 0, false
	}
	s.i += 2
	low, ok := s.hex4()
	r = utf16.DecodeRune(r, low)
	return r, ok && r != utf8.RuneError
}

func (s *scanner) hex4() (rune, bool) {
	if len(s.b)-s.i < 4 {
		return 0, false
	}
	var two [2]byte
	if _, err := hex.Decode(two[:], s.b[s.i:s.i+4]); err != nil {
		return 0, false
	}
	s.i += 4
	return rune(two[0])<<8 | rune(two[1]), true
}

// digits reads the digits of an integer, without fraction or exponent.
func (s *scanner) digits() uint64 {
	start := s.i
	var n uint64
	for s.i < len(s.b) && s.b[s.i] >= '0' && s.b[s.i] <= '9' {
		d := uint64(s.b[s.i] - '0')
		if n > (math.MaxUint64-d)/10 {
			s.fail("a number is out of range")
			return 0
		}
		n = n*10 + d
		s.i++
	}
	if s.i == start || s.i > start+1 && s.b[start] == '0' {
		s.fail("%w: not an integer", errJSON)
	}
	if s.i < len(s.b) && (s.b[s.i] == '.' || s.b[s.i] == 'e' || s.b[s.i] == 'E') {
		s.fail("a number is not an integer")
	}
	return n
}

func (s *scanner) uint(lo, hi uint64) uint64 {
	if s.err != nil {
		return 0
	}
	s.peek()
	n := s.digits()
	if s.err == nil && (n < lo || n > hi) {
		s.fail("a number is out of range")
		return 0
	}
	return n
}

func (s *scanner) int(lo, hi int64) int64 {
	if s.err != nil {
		return 0
	}
	neg := s.peek() == '-'
	if neg {
		s.i++
	}
	u := s.digits()
	n := int64(u)
	if neg {
		n = -n
	}
	if s.err == nil && (u > math.MaxInt64 && (!neg || u != 1<<63) || n < lo || n > hi) {
		s.fail("a number is out of range")
		return 0
	}
	return n
}

func (s *scanner) pair(lo0, hi0, lo1, hi1 int64) (a, b int64) {
	if s.expect('[') {
		a = s.int(lo0, hi0)
	}
	if s.expect(',') {
		b = s.int(lo1, hi1)
	}
	s.expect(']')
	return a, b
}

func (s *scanner) bool() bool {
	if s.err != nil {
		return false
	}
	s.peek()
	for _, w := range []string{"true", "false"} {
		if bytes.HasPrefix(s.b[s.i:], []byte(w)) {
			s.i += len(w)
			return w == "true"
		}
	}
	s.fail("neither true nor false")
	return false
}

// base64 reads a string of standard base64 with padding, without line breaks.
func (s *scanner) base64() []byte {
	return s.decode64(s.str())
}

func (s *scanner) decode64(v []byte) []byte {
	if s.err != nil {
		return nil
	}
	out := make([]byte, base64.StdEncoding.DecodedLen(len(v)))
	n, err := base64.StdEncoding.Strict().Decode(out, v)
	if err != nil || base64.StdEncoding.EncodedLen(n) != len(v) {
		s.fail("not valid base64")
		return nil
	}
	return out[:n]
}

// hash reads 64 lower-case hexadecimal digits.
func (s *scanner) hash() (h [32]byte) {
	v := s.str()
	if s.err != nil {
		return h
	}
	if _, err := hex.Decode(h[:], v[:min(len(v), 64)]); err != nil || len(v) != 64 || bytes.ContainsAny(v, "ABCDEF") {
		s.fail("not a SHA-256 of 64 lower-case hexadecimal digits")
		return [32]byte{}
	}
	return h
}

// skip reads any value and forgets it.
func (s *scanner) skip() { s.skipDepth(0) }

func (s *scanner) skipDepth(depth int) {
	if s.err != nil {
		return
	}
	if depth > maxDepth {
		s.fail("nested too deep")
		return
	}
	switch c := s.peek(); {
	case c == '{':
		for k := s.first(); k != nil; k = s.next() {
			s.skipDepth(depth + 1)
		}
	case c == '[':
		for ok := s.elem(true); ok; ok = s.elem(false) {
			s.skipDepth(depth + 1)
		}
	case c == '"':
		s.str()
	case c == '-' || c >= '0' && c <= '9':
		s.skipNumber()
	default:
		for _, w := range []string{"true", "false", "null"} {
			if bytes.HasPrefix(s.b[s.i:], []byte(w)) {
				s.i += len(w)
				return
			}
		}
		s.fail("%w: a value is missing", errJSON)
	}
}

func (s *scanner) skipNumber() {
	run := func() int {
		n := s.i
		for s.i < len(s.b) && s.b[s.i] >= '0' && s.b[s.i] <= '9' {
			s.i++
		}
		return s.i - n
	}
	if s.b[s.i] == '-' {
		s.i++
	}
	start := s.i
	ok := run() > 0 && (s.b[start] != '0' || s.i == start+1)
	if ok && s.i < len(s.b) && s.b[s.i] == '.' {
		s.i++
		ok = run() > 0
	}
	if ok && s.i < len(s.b) && (s.b[s.i] == 'e' || s.b[s.i] == 'E') {
		s.i++
		if s.i < len(s.b) && (s.b[s.i] == '+' || s.b[s.i] == '-') {
			s.i++
		}
		ok = run() > 0
	}
	if !ok {
		s.fail("%w: a bad number", errJSON)
	}
}

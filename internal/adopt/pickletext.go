package adopt

import (
	"encoding/binary"
	"math"
	"strconv"
	"strings"
	"unicode/utf8"
)

func (u *unpickler) numeric(op byte) error {
	var v any
	switch op {
	case 'K', 'M':
		n, err := u.number(map[byte]int{'K': 1, 'M': 2}[op])
		if err != nil {
			return err
		}
		v = int64(n)
	case 'J':
		b, err := u.take(4)
		if err != nil {
			return err
		}
		v = int64(int32(binary.LittleEndian.Uint32(b)))
	case 0x8a: // LONG1
		n, err := u.number(1)
		if err != nil {
			return err
		}
		b, err := u.take(n)
		if err != nil {
			return err
		}
		if n > 8 {
			return u.bad("a number of %d bytes", n)
		}
		var sum int64
		for i, c := range b {
			sum |= int64(c) << (8 * i)
		}
		if n > 0 && n < 8 && b[n-1]&0x80 != 0 {
			sum -= 1 << (8 * n)
		}
		v = sum
	case 'G':
		b, err := u.take(8)
		if err != nil {
			return err
		}
		v = math.Float64frombits(binary.BigEndian.Uint64(b))
	default:
		text, err := u.line()
		if err != nil {
			return err
		}
		switch {
		case op == 'F':
			v, err = strconv.ParseFloat(text, 64)
		case op == 'I' && (text == "00" || text == "01"):
			v = text == "01"
		default:
			v, err = strconv.ParseInt(strings.TrimSuffix(text, "L"), 10, 64)
		}
		if err != nil {
			return u.bad("%q is not a number", text)
		}
	}
	u.push(v)
	return nil
}

func (u *unpickler) text(op byte) error {
	switch op {
	case 'V', 'S':
		line, err := u.line()
		if err != nil {
			return err
		}
		s, ok := unescapePython(line, op)
		if !ok {
			return u.bad("%q is not a text", line)
		}
		u.push(s)
		return nil
	}
	n, err := u.number(map[byte]int{'X': 4, 'T': 4, 'B': 4, 0x8c: 1, 'U': 1, 'C': 1, 0x8d: 8, 0x8e: 8}[op])
	if err != nil {
		return err
	}
	b, err := u.take(n)
	if err != nil {
		return err
	}
	switch op {
	case 'C', 'B', 0x8e:
		u.push(b)
	default:
		u.push(string(b))
	}
	return nil
}

// unescapePython reads a text of protocol 0: 'S' has quotes and Python's escapes, 'V' only \uXXXX.
func unescapePython(s string, op byte) (string, bool) {
	if op == 'S' {
		s = strings.TrimRight(s, "\r")
		if len(s) < 2 || s[0] != s[len(s)-1] || s[0] != '\'' && s[0] != '"' {
			return "", false
		}
		s = s[1 : len(s)-1]
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '\\' {
			if op == 'V' && s[i] >= 0x80 { // raw-unicode-escape: Latin-1
				b.WriteRune(rune(s[i]))
			} else {
				b.WriteByte(s[i])
			}
			continue
		}
		if i++; i >= len(s) {
			if op == 'V' {
				b.WriteByte('\\')
				return b.String(), true
			}
			return "", false
		}
		size := map[byte]int{'u': 4, 'U': 8, 'x': 2}[s[i]]
		simple := strings.IndexByte(`\'"nrt`, s[i])
		switch {
		case size > 0 && (op == 'V') == (s[i] != 'x'):
			if i+size >= len(s) {
				return "", false
			}
			v, err := strconv.ParseUint(s[i+1:i+1+size], 16, 32)
			if err != nil {
				return "", false
			}
			i += size
			if op == 'S' {
				b.WriteByte(byte(v))
			} else if !utf8.ValidRune(rune(v)) {
				return "", false
			} else {
				b.WriteRune(rune(v))
			}
		case op == 'S' && simple >= 0:
			b.WriteByte("\\'\"\n\r\t"[simple])
		default:
			b.WriteByte('\\')
			b.WriteByte(s[i])
		}
	}
	return b.String(), true
}

package manifest

import (
	"encoding/base64"
	"encoding/hex"
	"strconv"
	"unicode/utf8"
)

// The lines are put together by hand: encoding/json would replace bytes that
// are not UTF-8, and takes several times as long.

const hexDigits = "0123456789abcdef"

// appendString appends s, which is valid UTF-8, as a JSON string. Only what
// JSON demands and DEL is escaped.
func appendString(dst []byte, s string) []byte {
	dst = append(dst, '"')
	start := 0
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c >= 0x20 && c != '"' && c != '\\' && c != 0x7f {
			continue
		}
		dst = append(dst, s[start:i]...)
		start = i + 1
		if c == '"' || c == '\\' {
			dst = append(dst, '\\', c)
		} else {
			dst = append(dst, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
		}
	}
	dst = append(dst, s[start:]...)
	return append(dst, '"')
}

func appendBase64(dst, b []byte) []byte {
	dst = append(dst, '"')
	dst = base64.StdEncoding.AppendEncode(dst, b)
	return append(dst, '"')
}

func appendHex(dst, b []byte) []byte {
	dst = append(dst, '"')
	dst = hex.AppendEncode(dst, b)
	return append(dst, '"')
}

// appendKey appends a comma, unless it is the object's first member, the key
// and a colon. Keys are constants that need no escapes.
func appendKey(dst []byte, key string) []byte {
	if dst[len(dst)-1] != '{' {
		dst = append(dst, ',')
	}
	dst = append(dst, '"')
	dst = append(dst, key...)
	return append(dst, '"', ':')
}

// appendText appends the member key: s, or key64: base64 of s when s is not UTF-8.
func appendText(dst []byte, key, s string) []byte {
	if utf8.ValidString(s) {
		return appendString(appendKey(dst, key), s)
	}
	if dst[len(dst)-1] != '{' {
		dst = append(dst, ',')
	}
	dst = append(dst, '"')
	dst = append(dst, key...)
	dst = append(dst, `64":`...)
	return appendBase64(dst, []byte(s))
}

// appendOptText is appendText, and nothing for the empty string.
func appendOptText(dst []byte, key, s string) []byte {
	if s == "" {
		return dst
	}
	return appendText(dst, key, s)
}

func appendInt(dst []byte, key string, n int64) []byte {
	return strconv.AppendInt(appendKey(dst, key), n, 10)
}

// appendOptInt is appendInt, and nothing for 0.
func appendOptInt(dst []byte, key string, n int64) []byte {
	if n == 0 {
		return dst
	}
	return appendInt(dst, key, n)
}

func appendPair(dst []byte, key string, a, b int64) []byte {
	dst = append(appendKey(dst, key), '[')
	dst = strconv.AppendInt(dst, a, 10)
	dst = append(dst, ',')
	dst = strconv.AppendInt(dst, b, 10)
	return append(dst, ']')
}

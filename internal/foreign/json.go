package foreign

import (
	"encoding/base64"
	"encoding/json"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// decodeJSON reads what CloudBerry (now MSP360) and QNAP's Glacier application write. The JSON may have been encoded twice.
func decodeJSON(s string) (Archive, bool) {
	if !strings.HasPrefix(s, "{") {
		return Archive{}, false
	}
	var m map[string]any
	if json.Unmarshal([]byte(s), &m) != nil {
		var inner string
		if json.Unmarshal([]byte(`"`+s+`"`), &inner) != nil || json.Unmarshal([]byte(inner), &m) != nil {
			return Archive{}, false
		}
	}
	name, upper := m["Path"].(string)
	if !upper {
		name, _ = m["path"].(string)
	}
	if name == "" {
		return Archive{}, false
	}
	a := Archive{Tool: QNAP, Form: "json", Name: name, Size: -1}
	when, hasTime := m["UTCDateModified"].(string)
	flags, hasFlags := m["Flags"].(float64)
	if upper || hasTime || hasFlags {
		a.Tool = CloudBerry
		a.ModTime, _ = compactTime(when)
		if flags >= 0 && flags < 1<<31 {
			a.Compressed, a.Encrypted = int(flags)&1 != 0, int(flags)&2 != 0
		}
		if plain, ok := utf7(name); ok && plain != "" {
			a.Name = plain
		}
	}
	kind, _ := m["type"].(string)
	a.Directory = kind == "folder" || kind == "directory" || strings.HasSuffix(a.Name, "/") || strings.HasSuffix(a.Name, `\`)
	return a, true
}

// utf7 decodes UTF-7 (RFC 2152); ok is false for what is not. Characters that RFC 2152 would have encoded stand for themselves.
func utf7(s string) (string, bool) {
	var b strings.Builder
	for {
		text, rest, found := strings.Cut(s, "+")
		b.WriteString(text)
		if !found {
			return b.String(), true
		}
		n := 0
		for n < len(rest) && isBase64(rest[n]) {
			n++
		}
		code := rest[:n]
		s = rest[n:]
		closed := strings.HasPrefix(s, "-")
		s = strings.TrimPrefix(s, "-")
		if code == "" {
			if !closed {
				return "", false
			}
			b.WriteByte('+')
			continue
		}
		raw, err := base64.RawStdEncoding.Strict().DecodeString(code)
		if err != nil || len(raw) < 2 || len(raw)%2 != 0 {
			return "", false
		}
		units := make([]uint16, len(raw)/2)
		for i := range units {
			units[i] = uint16(raw[2*i])<<8 | uint16(raw[2*i+1])
		}
		decoded := string(utf16.Decode(units))
		if strings.ContainsRune(decoded, utf8.RuneError) {
			return "", false
		}
		b.WriteString(decoded)
	}
}

func isBase64(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '+' || c == '/'
}

package foreign

import (
	"encoding/base64"
	"encoding/json"
	"strings"
	"time"
	"unicode/utf8"
)

const mtLayout = "20060102T150405Z"

// A vault keeps so many characters of a description.
const mtLongest = 1024

// EncodeMT2 is the description that mt-aws-glacier gives to an archive of the file name, a path relative to the
// root of what is backed up, that was changed at mtime; the time is cut to whole seconds. ok is false for what
// mt-aws-glacier would not read back: the description would be longer than 1,024 characters, the name is not UTF-8, is
// empty or absolute, has control characters or empty, "." or ".." elements, or the year is not within 1000…9999.
func EncodeMT2(name string, mtime time.Time) (description string, ok bool) {
	if !mtName(name) {
		return "", false
	}
	t := mtime.UTC().Truncate(time.Second)
	if t.After(mtime) { // before the epoch of time.Time
		t = t.Add(-time.Second)
	}
	if t.Year() < 1000 || t.Year() > 9999 {
		return "", false
	}
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(struct {
		Filename string `json:"filename"`
		Mtime    string `json:"mtime"`
	}{name, t.Format(mtLayout)}); err != nil {
		return "", false
	}
	description = "mt2 " + base64.RawURLEncoding.EncodeToString([]byte(strings.TrimSuffix(b.String(), "\n")))
	return description, len(description) <= mtLongest
}

func mtName(name string) bool {
	if name == "" || !utf8.ValidString(name) {
		return false
	}
	for i := range len(name) {
		if name[i] < 0x20 || name[i] == 0x7f {
			return false
		}
	}
	for part := range strings.SplitSeq(name, "/") {
		if part == "" || part == "." || part == ".." {
			return false
		}
	}
	return true
}

// decodeMT reads the two forms of mt-aws-glacier. In mt1 the JSON was encoded as UTF-8 twice.
func decodeMT(s string) (Archive, bool) {
	fields := strings.Fields(s)
	if len(fields) < 2 || fields[0] != "mt1" && fields[0] != "mt2" {
		return Archive{}, false
	}
	text, ok := base64Text(fields[1])
	if !ok {
		return Archive{}, false
	}
	if fields[0] == "mt1" {
		if text, ok = latin1(text); !ok {
			return Archive{}, false
		}
	}
	if !utf8.ValidString(text) {
		return Archive{}, false
	}
	var m map[string]any
	if json.Unmarshal([]byte(text), &m) != nil {
		return Archive{}, false
	}
	name, _ := m["filename"].(string)
	when, _ := m["mtime"].(string)
	t, ok := compactTime(when)
	if name == "" || !ok || !strings.HasSuffix(when, "Z") {
		return Archive{}, false
	}
	a := Archive{Tool: MTAWS, Form: fields[0], Name: name, ModTime: t, Size: -1}
	if _, marked := m["setid"].(string); marked {
		a.Tool = Firn
	}
	return a, true
}

// base64Text decodes both alphabets, with padding or without, and with blanks in between.
func base64Text(s string) (string, bool) {
	s = strings.Map(func(r rune) rune {
		switch r {
		case '-':
			return '+'
		case '_':
			return '/'
		case ' ', '\t', '\r', '\n':
			return -1
		}
		return r
	}, s)
	b, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(s, "="))
	return string(b), err == nil && len(b) > 0
}

// latin1 turns every character into one byte; ok is false for characters that have none.
func latin1(s string) (string, bool) {
	if !utf8.ValidString(s) {
		return "", false
	}
	b := make([]byte, 0, len(s))
	for _, r := range s {
		if r > 0xff {
			return "", false
		}
		b = append(b, byte(r))
	}
	return string(b), true
}

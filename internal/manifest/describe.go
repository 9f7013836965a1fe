package manifest

import (
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/firn-backup/firn/internal/snapshot"
)

// What an archive of Firn's is.
const (
	WhatVolume   = "volume"
	WhatManifest = "manifest"
	WhatKey      = "key"
)

// MaxDescription is how many characters a description has at most: what a
// vault of Amazon Glacier takes.
const MaxDescription = 1024

// How long the encoded values may be, so that all together stay below MaxDescription.
const (
	maxLabelText = 320 // set and host
	maxShortText = 32  // identifiers and kinds
	maxCodecs    = 96  // all codecs with their commas
)

// Description is what an archive of Firn's bears. It is not signed: it helps
// to find things and proves nothing.
type Description struct {
	Set    string
	SetID  string
	Host   string
	Snap   string
	N      uint64
	At     time.Time
	Kind   snapshot.Kind
	Base   string
	Part   int    // volume number; 0 for the manifest and the key
	What   string // "volume", "manifest", "key"
	Codecs []string
}

// Describe is the description of a snapshot's volume (part from 1 on), or of
// its manifest (part 0).
func Describe(h *Header, part int) Description {
	d := Description{
		Set: h.Set, SetID: h.SetID, Host: h.Host, Snap: h.Snap, N: h.N, At: h.At, Kind: h.Kind, Base: h.Base,
		Part: part, What: WhatVolume, Codecs: []string{h.Compress, h.Encrypt},
	}
	if part == 0 {
		d.What = WhatManifest
	}
	return d
}

// String is "firn/1 set=… …", at most 1,024 printable ASCII characters: the
// labels are cut where they must be. Empty fields are left out.
func (d Description) String() string {
	var b strings.Builder
	b.WriteString("firn/1")
	put := func(key, value string) {
		if value != "" {
			b.WriteString(" " + key + "=" + value)
		}
	}
	put("set", escape(d.Set, maxLabelText))
	put("setid", escape(d.SetID, maxShortText))
	put("host", escape(d.Host, maxLabelText))
	put("snap", escape(d.Snap, maxShortText))
	if d.N != 0 {
		put("n", strconv.FormatUint(d.N, 10))
	}
	if at := d.At.UTC(); !d.At.IsZero() && yearOK(at.Year()) {
		put("at", at.Format(time.RFC3339Nano))
	}
	put("kind", escape(string(d.Kind), maxShortText))
	put("base", escape(d.Base, maxShortText))
	if d.What == WhatVolume {
		put("part", strconv.Itoa(d.Part))
	} else {
		put("part", escape(d.What, maxShortText))
	}
	var codecs []string
	room := maxCodecs
	for _, c := range d.Codecs {
		if v := escape(c, room); v != "" {
			codecs = append(codecs, v)
			room -= len(v) + 1
		}
	}
	put("codec", strings.Join(codecs, ","))
	return b.String()
}

// safe says which bytes stand for themselves in a description's values.
func safe(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("-._~:@+/", c) >= 0
}

// escape percent-encodes s in at most limit characters. It cuts before the
// character that does not fit any more, never inside one.
func escape(s string, limit int) string {
	var b []byte
	for i := 0; i < len(s); {
		_, n := utf8.DecodeRuneInString(s[i:])
		mark := len(b)
		for _, c := range []byte(s[i : i+n]) {
			if safe(c) {
				b = append(b, c)
			} else {
				b = append(b, '%', "0123456789ABCDEF"[c>>4], "0123456789ABCDEF"[c&15])
			}
		}
		if len(b) > limit {
			return string(b[:mark])
		}
		i += n
	}
	return string(b)
}

func unescape(s string) (string, bool) {
	if strings.IndexByte(s, '%') < 0 {
		return s, true
	}
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] != '%' {
			b = append(b, s[i])
			continue
		}
		if i+2 >= len(s) {
			return "", false
		}
		v, err := strconv.ParseUint(s[i+1:i+3], 16, 8)
		if err != nil {
			return "", false
		}
		b = append(b, byte(v))
		i += 2
	}
	return string(b), true
}

// ParseDescription reads what String writes; ok is false for what is not
// Firn's. Keys that it does not know are passed over, and so is a kind of
// archive that it does not know: What is then what part= says.
func ParseDescription(s string) (d Description, ok bool) {
	rest, ok := strings.CutPrefix(s, "firn/1 ")
	if !ok || len(s) > MaxDescription {
		return Description{}, false
	}
	seen := map[string]bool{}
	for _, field := range strings.Split(rest, " ") {
		key, value, ok := strings.Cut(field, "=")
		if !ok || seen[key] || !printable(value) {
			return Description{}, false
		}
		seen[key] = true
		if !d.set(key, value) {
			return Description{}, false
		}
	}
	if d.What == "" {
		return Description{}, false
	}
	if d.What != WhatKey && (!canonicalID(d.SetID) || !canonicalID(d.Snap)) {
		return Description{}, false
	}
	return d, true
}

func printable(s string) bool {
	for i := range len(s) {
		if s[i] <= 0x20 || s[i] >= 0x7f {
			return false
		}
	}
	return true
}

// set takes one field; false when its value is not what String would have written.
func (d *Description) set(key, value string) bool {
	if key == "codec" {
		for _, c := range strings.Split(value, ",") {
			v, ok := unescape(c)
			if !ok || v == "" {
				return false
			}
			d.Codecs = append(d.Codecs, v)
		}
		return true
	}
	v, ok := unescape(value)
	var err error
	switch key {
	case "set":
		d.Set = v
	case "setid":
		d.SetID = v
	case "host":
		d.Host = v
	case "snap":
		d.Snap = v
	case "n":
		d.N, err = strconv.ParseUint(v, 10, 64)
	case "at":
		d.At, err = time.Parse(time.RFC3339Nano, v)
		d.At = d.At.UTC()
		ok = ok && strings.HasSuffix(v, "Z")
	case "kind":
		d.Kind = snapshot.Kind(v)
	case "base":
		d.Base = v
	case "part":
		return ok && d.setPart(v)
	default:
		return true
	}
	return ok && err == nil
}

func (d *Description) setPart(v string) bool {
	if v == "" {
		return false
	}
	if v[0] < '0' || v[0] > '9' {
		d.What = v
		return v != WhatVolume && strings.Trim(v, "abcdefghijklmnopqrstuvwxyz") == ""
	}
	n, err := strconv.ParseInt(v, 10, 32)
	if err != nil || n < 1 {
		return false
	}
	d.What, d.Part = WhatVolume, int(n)
	return true
}

package manifest

import (
	"fmt"
	"strconv"
	"strings"
)

// Names are made of [A-Za-z0-9._-] and slashes and are far below 900 bytes,
// as coldstore.NewArchive demands. They begin with a directory for the set:
// its label at creation, for people, and its identifier, which is what counts.

const maxLabel = 64 // bytes of a label in a name

// VolumeName is the archive name of a volume: LABEL-SETID/SNAP/000003-ATTEMPT.tar.zst.age.
// exts are those of the codecs (".zst", ".age"); the stream's own comes before them.
func VolumeName(h *Header, n int, attempt string, exts ...string) string {
	return fmt.Sprintf("%s/%06d-%s.%s%s", SnapshotDir(h), n, word(attempt), clean(h.Stream, "stream"), joinExts(exts))
}

// ManifestName is LABEL-SETID/SNAP/manifest.jsonl.zst.age; attempt tells repeated
// tries at storing the same manifest apart and is empty for the first.
// exts are those of the codecs (".zst", ".age").
func ManifestName(h *Header, attempt string, exts ...string) string {
	name := SnapshotDir(h) + "/manifest"
	if attempt != "" {
		name += "-" + word(attempt)
	}
	return name + ".jsonl" + joinExts(exts)
}

// KeyName is the name of the passphrase-wrapped identity file of the key with that fingerprint:
// keys/FINGERPRINT.txt.age. It belongs to no set.
func KeyName(recipientFingerprint string) string {
	return "keys/" + clean(recipientFingerprint, "key") + ".txt.age"
}

// SnapshotDir is what the names of a snapshot's archives begin with:
// LABEL-SETID/SNAP, without a slash at the end.
func SnapshotDir(h *Header) string {
	return clean(h.Label, "set") + "-" + clean(h.SetID, "0") + "/" + clean(h.Snap, "0")
}

// clean makes a piece of a name: each run of other characters becomes one
// underscore, dots and hyphens at the ends and what is too long fall away; what
// has no letter or digit at all is replaced by none.
func clean(s, none string) string {
	b := make([]byte, 0, min(len(s), maxLabel))
	alnum := false
	for i := 0; i < len(s) && len(b) < maxLabel; i++ {
		switch c := s[i]; {
		case c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9':
			alnum = true
			b = append(b, c)
		case c == '.' || c == '-':
			b = append(b, c)
		case len(b) == 0 || b[len(b)-1] != '_':
			b = append(b, '_')
		}
	}
	if !alnum {
		return none
	}
	return strings.Trim(string(b), ".-")
}

// word is clean without dots, so that what follows the first dot is the extensions.
func word(s string) string { return clean(strings.ReplaceAll(s, ".", "_"), "0") }

func joinExts(exts []string) string {
	var b strings.Builder
	for _, e := range exts {
		if e = strings.Trim(e, "."); e != "" {
			b.WriteString("." + e)
		}
	}
	return b.String()
}

// ParseName reads the names that VolumeName, ManifestName and KeyName make, for
// vaults whose listings show names but no descriptions. What names do not tell
// stays empty; Set is the label. Elements before the set's directory are passed
// over. ok is false for other names.
func ParseName(name string) (d Description, ok bool) {
	parts := strings.Split(name, "/")
	file := parts[len(parts)-1]
	if len(parts) >= 2 && parts[len(parts)-2] == "keys" && strings.HasSuffix(file, ".txt.age") {
		return Description{What: WhatKey}, true
	}
	if len(parts) < 3 {
		return Description{}, false
	}
	dir, snap := parts[len(parts)-3], parts[len(parts)-2]
	cut := len(dir) - 27
	if cut < 1 || dir[cut] != '-' || !canonicalID(dir[cut+1:]) || !canonicalID(snap) {
		return Description{}, false
	}
	d = Description{Set: dir[:cut], SetID: dir[cut+1:], Snap: snap}
	stem, _, ok := strings.Cut(file, ".")
	if !ok {
		return Description{}, false
	}
	if stem == "manifest" || strings.HasPrefix(stem, "manifest-") {
		d.What = WhatManifest
		return d, strings.HasPrefix(file[len(stem):], ".jsonl")
	}
	number, _, ok := strings.Cut(stem, "-")
	n, err := strconv.ParseUint(number, 10, 31)
	if !ok || err != nil || n < 1 || len(number) < 6 {
		return Description{}, false
	}
	d.What, d.Part = WhatVolume, int(n)
	return d, true
}

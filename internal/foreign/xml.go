package foreign

import (
	"strconv"
	"strings"
)

// decodeXML reads the forms of FastGlacier's, of which many are not XML: a scanner that looks for the few
// elements takes what the programs that write it have made of them.
// http://fastglacier.com/fastglacier-metadata-format.aspx
func decodeXML(s string) (Archive, bool) {
	if !strings.HasPrefix(s, "<") {
		return Archive{}, false
	}
	a := Archive{Tool: FastGlacier, Size: -1}
	path := ""
	if body, ok := element(s, "m"); ok {
		version, _ := element(body, "v")
		if path, ok = element(body, "p"); !ok {
			return Archive{}, false
		}
		a.Form = "v" + version
		if _, err := strconv.ParseUint(version, 10, 8); err != nil {
			a.Form = "v?"
		}
		when, _ := element(body, "lm")
		a.ModTime, _ = compactTime(when)
		if ce, ok := element(body, "ce"); ok {
			a.content(ce)
		}
	} else if body, ok := element(s, "ArchiveMetadata"); ok {
		if path, ok = element(body, "Path"); !ok {
			return Archive{}, false
		}
		a.Form = "v1"
		for _, name := range []string{"LastModified", "lm"} { // what v1 calls it nobody has written down
			if when, ok := element(body, name); ok {
				a.ModTime, _ = compactTime(when)
			}
		}
	} else {
		return Archive{}, false
	}
	name, ok := base64Text(path)
	if !ok {
		return Archive{}, false
	}
	a.Name = name
	a.Directory = strings.HasSuffix(name, "/") || strings.HasSuffix(name, `\`)
	return a, true
}

// element is the text of the first element of that name. A missing end tag is forgiven.
func element(s, name string) (string, bool) {
	_, rest, ok := strings.Cut(s, "<"+name+">")
	if !ok {
		return "", false
	}
	text, _, _ := strings.Cut(rest, "</"+name+">")
	return strings.TrimSpace(text), true
}

// content reads "compressed:encrypted:md5:size", of which older versions have three fields.
func (a *Archive) content(ce string) {
	f := strings.Split(ce, ":")
	a.Compressed = f[0] == "1"
	if len(f) > 1 {
		a.Encrypted = f[1] == "1"
	}
	if len(f) > 2 && len(f[2]) == 32 && strings.Trim(strings.ToLower(f[2]), "0123456789abcdef") == "" {
		a.MD5 = strings.ToLower(f[2])
	}
	if len(f) > 3 {
		if n, err := strconv.ParseInt(f[3], 10, 64); err == nil && n >= 0 {
			a.Size = n
		}
	}
}

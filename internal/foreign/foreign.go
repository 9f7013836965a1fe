// Package foreign reads, and for mt-aws-glacier writes, what other tools put into the descriptions of
// archives: names, times, sizes, and what lies in the archive instead of the file itself. It is pure
// and knows nothing of vaults. What it returns was written by strangers: a Name may be absolute, hold "..",
// control characters or backslashes; SafeName makes a path of it that stays below a directory.
package foreign

import (
	"strings"
	"time"
)

// Tool is who wrote a description.
type Tool string

// The tools whose descriptions are known.
const (
	MTAWS        Tool = "mt-aws-glacier"
	FastGlacier  Tool = "fastglacier" // CrushFTP, QNAP Hybrid Backup Sync, Synology and others write the same
	CloudBerry   Tool = "cloudberry"  // now MSP360
	QNAP         Tool = "qnap"
	GlacierBkpPy Tool = "glacier-backup.py"
	Btrsend      Tool = "btrsend"
	GlacierRsync Tool = "glacier-rsync"
	Iceshelf     Tool = "iceshelf"
	Bakthat      Tool = "bakthat"
	GitAnnex     Tool = "git-annex"
	// Firn is not foreign: its sets of single archives use mt-aws-glacier's form, with a mark of their own.
	Firn Tool = "firn"
	// GlacierCmd is only told by its text for archives that nobody described.
	GlacierCmd Tool = "glacier-cmd"
)

// MaxDescription is how many bytes of a description are looked at: four times what a vault of Amazon
// Glacier keeps. Longer ones are nobody's.
const MaxDescription = 4096

// Archive is what a description tells. Fields that it does not tell are zero.
type Archive struct {
	Tool Tool
	Form string // which of the tool's forms: "mt2", "v4" …
	// Name is what the tool calls the archive; never empty, except for a glacier-cmd archive without a description.
	Name string
	// ModTime is the file's time of change, in UTC; of Btrsend the snapshot's date, of GlacierBkpPy the start of the backup.
	ModTime time.Time
	// Naive says that ModTime is the clock of the machine that wrote it, in a zone that is not known.
	Naive bool
	// Size of the original file in bytes; -1: not told.
	Size int64

	// What the archive holds instead of the file as it was.
	Compressed bool
	Encrypted  bool
	Directory  bool   // a directory, the archive is one byte that stands for it
	MD5        string // of the original file, hexadecimal

	// Of Btrsend: the date of the snapshot that this one builds on, "2006-01-02"; empty: it is complete.
	Parent string
	// Of Iceshelf, what belongs together: "20230101-123456-00000".
	Group string
}

// Decode reads a description. ok is false for what no known tool has written: such a description is a name itself.
func Decode(description string) (a Archive, ok bool) {
	if len(description) > MaxDescription {
		return Archive{}, false
	}
	s := trim(description)
	for _, try := range []func(string) (Archive, bool){
		decodeMT, decodeXML, decodeJSON, decodeRsync, decodeBtrsend, decodeDirectory, decodeNames,
	} {
		if a, ok := try(s); ok {
			return a, true
		}
	}
	return Archive{}, false
}

// Name is what a description calls its archive: the decoded name, else the description itself.
func Name(description string) string {
	if a, ok := Decode(description); ok && a.Name != "" {
		return a.Name
	}
	return description
}

// trim takes blanks and one pair of quotes away, which some tools put around the whole.
func trim(s string) string {
	s = strings.Trim(s, " \t\r\n")
	if len(s) >= 2 && s[0] == s[len(s)-1] && (s[0] == '"' || s[0] == '\'') {
		if inner := strings.Trim(s[1:len(s)-1], " \t\r\n"); strings.HasPrefix(inner, "<") || strings.HasPrefix(inner, "{") || strings.HasPrefix(inner, "mt") {
			return inner
		}
	}
	return s
}

// SafeName makes a relative path of a name, with slashes, that stays below the directory it is used in:
// drive letters, leading slashes, "." and ".." are left out, and control characters are replaced by "_". Empty: nothing
// is left of it.
func SafeName(name string) string {
	name = strings.Map(func(r rune) rune {
		if r < 0x20 || r == 0x7f {
			return '_'
		}
		return r
	}, name)
	if isWindows(name) {
		name = strings.ReplaceAll(name, `\`, "/")
	}
	var keep []string
	for part := range strings.SplitSeq(name, "/") {
		if part == "" || part == "." || part == ".." || isDrive(part) {
			continue
		}
		keep = append(keep, part)
	}
	return strings.Join(keep, "/")
}

func isDrive(part string) bool {
	return len(part) == 2 && part[1] == ':' && (part[0]|0x20 >= 'a' && part[0]|0x20 <= 'z')
}

// isWindows says that a backslash in the name separates: it begins with a drive, or has no slash.
func isWindows(name string) bool {
	if len(name) >= 3 && isDrive(name[:2]) && name[2] == '\\' || strings.HasPrefix(name, `\\`) {
		return true
	}
	return !strings.Contains(name, "/")
}

// compactTime reads "20120821T170824Z"; the Z may be missing.
func compactTime(s string) (time.Time, bool) {
	s = strings.TrimSuffix(strings.TrimSpace(s), "Z")
	if len(s) != len("20060102T150405") {
		return time.Time{}, false
	}
	t, err := time.Parse("20060102T150405", s)
	return t, err == nil && t.Year() >= 1000
}

package foreign

import (
	"math"
	"strconv"
	"strings"
	"time"
)

// decodeRsync reads glacier-rsync's "grsync|PATH|SIZE|MTIME|TEXT".
func decodeRsync(s string) (Archive, bool) {
	f := strings.SplitN(s, "|", 5)
	if len(f) < 5 || f[0] != "grsync" || f[1] == "" {
		return Archive{}, false
	}
	size, err := strconv.ParseInt(f[2], 10, 64)
	if err != nil || size < 0 {
		return Archive{}, false
	}
	a := Archive{Tool: GlacierRsync, Form: "grsync", Name: f[1], Size: size}
	if sec, err := strconv.ParseFloat(f[3], 64); err == nil && math.Abs(sec) < 1<<37 {
		whole, part := math.Modf(sec)
		a.ModTime = time.Unix(int64(whole), int64(part*1e9)).UTC()
	}
	return a, true
}

// decodeBtrsend reads "btrsend backup for DATE (complete)" and "… (parent = DATE)".
func decodeBtrsend(s string) (Archive, bool) {
	rest, ok := strings.CutPrefix(s, "btrsend backup for ")
	if !ok {
		return Archive{}, false
	}
	date, kind, ok := strings.Cut(rest, " ")
	at, err := time.Parse(time.DateOnly, date)
	if !ok || err != nil {
		return Archive{}, false
	}
	a := Archive{Tool: Btrsend, Form: "complete", Name: "btrsend-" + date, ModTime: at, Size: -1}
	if kind == "(complete)" {
		return a, true
	}
	parent, ok := strings.CutPrefix(kind, "(parent = ")
	parent, closed := strings.CutSuffix(parent, ")")
	if _, err := time.Parse(time.DateOnly, parent); !ok || !closed || err != nil {
		return Archive{}, false
	}
	a.Form, a.Parent = "incremental", parent
	return a, true
}

// decodeDirectory reads glacier-backup.py's "directory:PATH date:TIME". A path may have " date:" in it, a time has not.
func decodeDirectory(s string) (Archive, bool) {
	rest, ok := strings.CutPrefix(s, "directory:")
	i := strings.LastIndex(rest, " date:")
	if !ok || i <= 0 {
		return Archive{}, false
	}
	for _, layout := range []string{"2006-01-02T15:04:05.999999", "2006-01-02T15:04:05", "2006-01-02 15:04:05.999999"} {
		if t, err := time.Parse(layout, rest[i+len(" date:"):]); err == nil {
			return Archive{Tool: GlacierBkpPy, Form: "directory", Name: rest[:i], ModTime: t, Naive: true, Size: -1}, true
		}
	}
	return Archive{}, false
}

// decodeNames knows names that tell who made them.
func decodeNames(s string) (Archive, bool) {
	base := s[strings.LastIndexByte(s, '/')+1:]
	a, ok := annexKey(base)
	if !ok {
		a, ok = prefixedKey(base)
	}
	if ok {
		a.Name = s
		return a, true
	}
	if group, t, ok := iceshelf(base); ok {
		return Archive{Tool: Iceshelf, Form: "name", Name: s, ModTime: t, Naive: true, Size: -1, Group: group,
			Encrypted: strings.Contains(base, ".gpg")}, true
	}
	if a, ok := bakthat(base); ok {
		a.Name = s
		return a, true
	}
	if s == "No description." {
		return Archive{Tool: GlacierCmd, Form: "none", Size: -1}, true
	}
	return Archive{}, false
}

// annexKey reads a key of git-annex: BACKEND[-sSIZE][-mMTIME][-SCHUNK-CNUMBER]--NAME.
// https://git-annex.branchable.com/internals/key_format/
func annexKey(s string) (Archive, bool) {
	head, name, ok := strings.Cut(s, "--")
	if !ok || name == "" {
		return Archive{}, false
	}
	fields := strings.Split(head, "-")
	backend := fields[0]
	if len(backend) < 3 || strings.Trim(backend, "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_") != "" || backend[0] < 'A' || backend[0] > 'Z' {
		return Archive{}, false
	}
	a := Archive{Tool: GitAnnex, Form: backend, Size: -1}
	a.Encrypted = strings.HasPrefix(backend, "GPGHMAC")
	known := a.Encrypted
	for _, b := range []string{"SHA", "BLAKE", "SKEIN", "MD5", "WORM", "URL", "VURL", "GIT", "XDIGEST"} {
		known = known || strings.HasPrefix(backend, b)
	}
	for _, f := range fields[1:] {
		if f == "" {
			return Archive{}, false
		}
		n, err := strconv.ParseInt(f[1:], 10, 64)
		if err != nil || n < 0 || strings.IndexByte("smSC", f[0]) < 0 {
			return Archive{}, false
		}
		switch f[0] {
		case 's':
			a.Size, known = n, true
		case 'm':
			if n < 1<<37 {
				a.ModTime = time.Unix(n, 0).UTC()
			}
		}
	}
	return a, known
}

// prefixedKey finds a key behind the fileprefix of a remote, which may be anything: one with a hash, since other keys could be a part of any name.
func prefixedKey(s string) (Archive, bool) {
	for i := 1; i < len(s); i++ {
		if c := s[i-1]; c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || s[i] < 'A' || s[i] > 'Z' {
			continue
		}
		if _, name, ok := strings.Cut(s[i:], "--"); !ok || len(name) < 32 || strings.Trim(name[:32], "0123456789abcdef") != "" {
			continue
		}
		if a, ok := annexKey(s[i:]); ok && a.Form != "WORM" && a.Form != "URL" {
			return a, true
		}
	}
	return Archive{}, false
}

// iceshelf reads the beginning of a name: "20230101-123456-00000.".
func iceshelf(s string) (group string, t time.Time, ok bool) {
	const n = len("20060102-150405-00000")
	if len(s) <= n || s[n] != '.' || s[15] != '-' || strings.Trim(s[16:n], "0123456789") != "" {
		return "", time.Time{}, false
	}
	t, err := time.Parse("20060102-150405", s[:15])
	return s[:n], t, err == nil
}

// bakthat reads NAME.YYYYMMDDHHMMSS.tgz, with .enc at the end where it is encrypted.
func bakthat(s string) (Archive, bool) {
	rest, encrypted := strings.CutSuffix(s, ".enc")
	rest, ok := strings.CutSuffix(rest, ".tgz")
	i := strings.LastIndexByte(rest, '.')
	if !ok || i <= 0 || len(rest)-i-1 != 14 {
		return Archive{}, false
	}
	t, err := time.Parse("20060102150405", rest[i+1:])
	if err != nil {
		return Archive{}, false
	}
	return Archive{Tool: Bakthat, Form: "name", ModTime: t, Naive: true, Size: -1, Compressed: true, Encrypted: encrypted}, true
}

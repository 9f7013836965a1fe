package config

import (
	"errors"
	"fmt"
	"maps"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/firn-backup/firn/internal/codec"
	"github.com/firn-backup/firn/internal/keyfile"
	"github.com/firn-backup/firn/internal/snapshot"
)

// Limits of volume-size, in bytes.
const (
	minVolume = 64 << 10
	maxVolume = 1 << 40
)

// CheckVolumeSize says what is wrong with a volume size; 0 is the default.
func CheckVolumeSize(n int64) error {
	if n != 0 && (n < minVolume || n > maxVolume) {
		return errors.New("must be 64 KiB to 1 TiB")
	}
	return nil
}

// check holds the values against each other and makes paths absolute.
func (p *parser) check(c *Config) {
	if c.Log != nil && *c.Log != "" {
		*c.Log = p.absFile("log", *c.Log)
	}
	if c.Catalog != "" {
		c.Catalog = p.absFile("catalog", c.Catalog)
	}
	if c.Host != "" {
		if why := badName(c.Host); why != "" {
			p.fault("host", "the name %s", why)
		}
	}
	if c.LogLevel != "" && !slices.Contains(LogLevels(), c.LogLevel) {
		p.fault("log-level", "must be one of %s, not %q", strings.Join(LogLevels(), ", "), c.LogLevel)
	}
	for i := range c.Identities {
		c.Identities[i] = p.absFile(index("identities", i), c.Identities[i])
	}
	for i, s := range c.Signers {
		if _, err := keyfile.ParseSigningKey(s); err != nil {
			p.fault(index("signers", i), "%v", err)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(c.Vaults)) {
		p.checkVault(c.Vaults[name])
	}
	for _, name := range slices.Sorted(maps.Keys(c.Sets)) {
		p.checkSet(c, c.Sets[name])
	}
	for _, name := range slices.Sorted(maps.Keys(c.Notifications)) {
		p.checkNotify(c, c.Notifications[name])
	}
}

func index(key string, i int) string { return fmt.Sprintf("%s[%d]", key, i) }

// LogLevels are the levels of the log, most talkative first.
func LogLevels() []string { return []string{"debug", "info", "warn", "error"} }

func (p *parser) checkVault(v *Vault) {
	key := "vault." + v.Name + ".url"
	if v.URL == "" {
		if p.good(key) {
			p.fault("vault."+v.Name, "has no url")
		}
		return
	}
	u, err := AbsVaultURL(v.URL, p.Home, "")
	if v.IsTemplate() {
		// Any date does to see that its vaults can be; the one form is theirs, not the template's.
		if v.URL = u; err == nil {
			err = v.checkTemplate()
		}
		if err == nil && p.CheckVault != nil {
			_, err = p.CheckVault(v.URLAt(time.Date(2026, 1, 2, 0, 0, 0, 0, time.UTC)))
		}
	} else if err == nil && p.CheckVault != nil {
		u, err = p.CheckVault(u)
	}
	if err != nil {
		p.fault(key, "%v", err)
		return
	}
	v.URL = u
}

// good says that key has no fault yet: one fault must not bring a second in its wake.
func (p *parser) good(key string) bool {
	return !slices.ContainsFunc(p.faults, func(f Fault) bool { return f.Key == key })
}

func (p *parser) checkSet(c *Config, s *Set) {
	at := func(key string) string { return "set." + s.Name + "." + key }
	if !p.checkKind(s, at) {
		return
	}
	if s.Vault != "" && c.Vaults[s.Vault] == nil {
		p.fault(at("vault"), "there is no [vault.%s]", s.Vault)
	}
	p.checkHooks(s, at)
	if _, _, ok := codec.ParseCompression(s.Compress); s.Compress != "" && !ok {
		p.fault(at("compress"), "%q: must be zstd or zstd:1 to zstd:19, the same with gzip or bzip2 and 1 to 9, or none", s.Compress)
	}
	if s.Encrypt != "" && !codec.IsEncryption(s.Encrypt) {
		p.fault(at("encrypt"), "%q: must be age, openpgp or none", s.Encrypt)
	}
	p.checkRecipients(s, at)
	p.checkPolicy(s, at)
	p.checkLock(c, s, at)
	if key := at("volume-size"); p.good(key) {
		if err := CheckVolumeSize(s.VolumeSize); err != nil {
			p.fault(key, "%v", err)
		}
	}
}

// checkLock checks that what is to be locked goes to where there are locks.
func (p *parser) checkLock(c *Config, s *Set, at func(string) string) {
	length, mode := at("object-lock"), at("object-lock-mode")
	_, there := p.lines[length]
	v := c.Vaults[s.Vault]
	switch {
	case there && p.good(length) && (s.ObjectLock <= 0 || s.ObjectLock > maxAge):
		p.fault(length, "must be above 0 and no more than 100 years (36525d)")
	case there && p.good(length) && (s.Vault == "" || v != nil && !strings.HasPrefix(v.URL, "s3:")):
		p.fault(length, "only vaults in S3 (s3://…) lock what they keep")
	}
	switch {
	case s.ObjectLockMode == "":
	case s.ObjectLockMode != LockGovernance && s.ObjectLockMode != LockCompliance:
		p.fault(mode, "%q: must be governance or compliance", s.ObjectLockMode)
	case !there:
		p.fault(mode, "goes with object-lock")
	}
}

func (p *parser) checkRecipients(s *Set, at func(string) string) {
	for i, r := range s.Recipients {
		key := index(at("recipients"), i)
		switch {
		case strings.Contains(r, "AGE-SECRET-KEY-") || strings.Contains(r, "AGE-PLUGIN-") || strings.Contains(r, "PRIVATE KEY"):
			p.fault(key, "is a secret key; recipients are public keys")
		case strings.TrimSpace(r) == "":
			p.fault(key, "is empty")
		}
	}
	for i := range s.RecipientFiles {
		s.RecipientFiles[i] = p.absFile(index(at("recipient-files"), i), s.RecipientFiles[i])
	}
	n := len(s.Recipients) + len(s.RecipientFiles)
	switch {
	case s.Encrypt == codec.None && n > 0:
		p.fault(at("encrypt"), "none, but there are recipients")
	case s.Encrypt == codec.OpenPGP && n == 0 && p.good(at("recipients")) && p.good(at("recipient-files")):
		p.fault(at("encrypt"), "openpgp needs recipients or recipient-files")
	}
}

// checkTree checks what belongs to a set of kind tree.
func (p *parser) checkTree(s *Set, at func(string) string) {
	p.checkPaths(s, at("paths"))
	p.checkTreeKeys(s, at)
}

func (p *parser) checkPaths(s *Set, key string) {
	if len(s.Paths) == 0 {
		if p.good(key) {
			p.fault("set."+s.Name, "has no paths")
		}
		return
	}
	for i := range s.Paths {
		k := index(key, i)
		s.Paths[i] = p.absPath(k, s.Paths[i])
		if !p.good(k) {
			continue
		}
		for j := range i {
			if why := overlap(s.Paths[j], s.Paths[i]); why != "" {
				p.fault(k, "%s", why)
				break
			}
		}
	}
}

// overlap says how two roots of a set get in each other's way; empty: they do not.
func overlap(a, b string) string {
	x, y := strings.TrimPrefix(a, "/"), strings.TrimPrefix(b, "/")
	switch {
	case x == y:
		return b + " stands there twice"
	case snapshot.Below(y, x):
		return b + " lies below " + a + ", which is in the set already"
	case snapshot.Below(x, y):
		return b + " holds " + a + ", which is in the set already"
	}
	return ""
}

// absPath is for what is backed up: it must be absolute, or begin with "~/".
func (p *parser) absPath(key, s string) string {
	path, err := expand(s, p.Home)
	switch {
	case err != nil:
		p.fault(key, "%v", err)
	case !filepath.IsAbs(path):
		p.fault(key, "%q must be absolute, or begin with ~/", s)
	default:
		return filepath.Clean(path)
	}
	return s
}

// absFile is for files that Firn itself reads or writes: relative names are
// relative to the config file's directory.
func (p *parser) absFile(key, s string) string {
	path, err := expand(s, p.Home)
	if err != nil {
		p.fault(key, "%v", err)
		return s
	}
	if !filepath.IsAbs(path) {
		path = filepath.Join(filepath.Dir(p.file), path)
	}
	return filepath.Clean(path)
}

func expand(s, home string) (string, error) {
	switch {
	case s == "":
		return "", fmt.Errorf("is empty")
	case strings.ContainsRune(s, 0):
		return "", fmt.Errorf("%q has a NUL in it", s)
	case s == "~" || strings.HasPrefix(s, "~/"):
		if home == "" {
			return "", fmt.Errorf("%q: there is no home directory (HOME is not set)", s)
		}
		return home + s[1:], nil
	case strings.HasPrefix(s, "~"):
		return "", fmt.Errorf("%q: only ~ and ~/ are understood, not other users' homes", s)
	}
	return s, nil
}

// badName says what is wrong with the name of a set, a vault or a host; empty: nothing.
func badName(s string) string {
	switch {
	case s == "":
		return "is empty"
	case len(s) > 100:
		return "is longer than 100 bytes"
	case !utf8.ValidString(s):
		return "is not UTF-8"
	case strings.ContainsAny(s, "/@"):
		return "must not contain / or @"
	case strings.HasPrefix(s, "-") || s == "." || s == "..":
		return "must not be . or .., nor begin with -"
	case s != strings.TrimSpace(s) || strings.ContainsFunc(s, unicode.IsControl):
		return "must not begin or end with a space, nor contain control characters"
	}
	return ""
}

// AbsVaultURL makes the path of a dir: URL absolute: "dir:~/x" is below home,
// "dir:x" below base (an error where base is empty). Other URLs are returned as they are.
func AbsVaultURL(s, home, base string) (string, error) {
	rest, ok := strings.CutPrefix(s, "dir:")
	if !ok || strings.HasPrefix(rest, "/") {
		return s, nil
	}
	path, query, has := strings.Cut(rest, "?")
	switch {
	case path == "~" || strings.HasPrefix(path, "~/"):
		if home == "" {
			return "", fmt.Errorf("%q: there is no home directory (HOME is not set)", s)
		}
		path = escapedPath(home) + path[1:]
	case base == "" || path == "" || strings.HasPrefix(path, "~"):
		return "", fmt.Errorf("%q: the directory must be absolute (dir:/path) or begin with dir:~/", s)
	default:
		path = escapedPath(base) + "/" + path
	}
	if has {
		path += "?" + query
	}
	return "dir:" + path, nil
}

func escapedPath(p string) string { return (&url.URL{Path: p}).EscapedPath() }

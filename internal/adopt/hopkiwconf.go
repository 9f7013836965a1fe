package adopt

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/firn-backup/firn/internal/failure"
)

// HopkiwConfig is a configuration of hopkiw's glacier-backup, as its documentation means it.
type HopkiwConfig struct {
	File    string
	Vault   string // "default" where it says nothing
	Account string // empty: that of the credentials
	LogFile string // empty: none
	Paths   []HopkiwPath
}

// HopkiwPath is one of its sections.
type HopkiwPath struct {
	Path    string   // absolute and clean
	Exclude []string // beginnings of names in that directory that are left out
	// Self says that the path is one archive; Files and Dirs, that its direct files and directories are one each.
	Self, Files, Dirs bool
	IfChanged         bool // again when changed; else once
}

// ReadHopkiwConfig reads such a file. What is documented counts where the program differs: "exclude" is the key of the prefix,
// "exclude_prefix" is taken too; quotes around a value are not a part of it; and [main] is no path. failure.Usage, failure.NotFound.
func ReadHopkiwConfig(file string) (*HopkiwConfig, error) {
	data, err := readSmall(file, maxConfig)
	if err != nil {
		return nil, err
	}
	wrap := func(err error) error {
		if err == nil {
			return nil
		}
		return fmt.Errorf("read %s: %w", file, err)
	}
	in, err := parseINI(string(data))
	if err != nil {
		return nil, wrap(err)
	}
	c := &HopkiwConfig{File: file, Vault: hopkiwDefaultVault}
	for key, to := range map[string]*string{"vault_name": &c.Vault, "account_id": &c.Account, "logfile": &c.LogFile} {
		v, ok, err := in.value(hopkiwMain, key)
		if err != nil {
			return nil, wrap(err)
		}
		if v = unquote(v); ok && v != "" {
			*to = v
		}
	}
	if c.Account == "-" {
		c.Account = ""
	}
	for _, section := range in.sections {
		if section == hopkiwMain {
			continue
		}
		p, err := hopkiwPath(in, section)
		if err != nil {
			return nil, wrap(err)
		}
		c.Paths = append(c.Paths, p)
	}
	if len(c.Paths) == 0 && !in.has(hopkiwMain) {
		return nil, wrap(failure.Errorf(failure.Usage, "there are neither [main] nor paths: this is not a configuration of hopkiw's glacier-backup"))
	}
	return c, nil
}

func hopkiwPath(in *ini, section string) (HopkiwPath, error) {
	p := HopkiwPath{Path: filepath.Clean(unquote(section))}
	if !filepath.IsAbs(p.Path) {
		return p, failure.Errorf(failure.Usage, "[%s] is not an absolute path", section)
	}
	if !utf8.ValidString(p.Path) {
		return p, failure.Errorf(failure.Usage, "[%s] is not UTF-8: no set can have that path", oneLine(section))
	}
	for key, to := range map[string]*bool{"upload_single_dir": &p.Self, "upload_files": &p.Files, "upload_dirs": &p.Dirs, "upload_if_changed": &p.IfChanged} {
		if raw, ok := in.get(section, key); ok { // the sample has quotes around some values
			in.set(section, key, unquote(raw))
		}
		v, err := in.flag(section, key)
		if err != nil {
			return p, err
		}
		*to = v
	}
	for _, key := range []string{"exclude", "exclude_prefix"} {
		v, _, err := in.value(section, key)
		if err != nil {
			return p, err
		}
		if v = unquote(v); strings.ContainsRune(v, '\n') {
			return p, failure.Errorf(failure.Usage, "[%s] %s: it has several lines, and is one prefix of names", section, key)
		}
		if !utf8.ValidString(v) {
			return p, failure.Errorf(failure.Usage, "[%s] %s is not UTF-8", oneLine(section), key)
		}
		if v != "" && !slices.Contains(p.Exclude, v) {
			p.Exclude = append(p.Exclude, v)
		}
	}
	if p.Self {
		p.Files, p.Dirs = false, false
	}
	// A section of a file is the file, whatever it says.
	if info, err := os.Stat(p.Path); err == nil && info.Mode().IsRegular() {
		p.Self, p.Files, p.Dirs = true, false, false
	}
	return p, nil
}

// glob is the pattern of names that begin with a prefix.
func glob(prefix string) string {
	var b strings.Builder
	for _, r := range prefix {
		if strings.ContainsRune(`*?[]\!# `, r) {
			b.WriteByte('\\')
		}
		b.WriteRune(r)
	}
	return b.String() + "*"
}

// What of a path is stored, as the config file says it.
const (
	whatSelf  = "self"
	whatFiles = "files"
	whatDirs  = "directories"
	whatBoth  = "both"
)

// what is empty for a section that asks for nothing.
func (p *HopkiwPath) what() string {
	switch {
	case p.Self:
		return whatSelf
	case p.Files && p.Dirs:
		return whatBoth
	case p.Files:
		return whatFiles
	case p.Dirs:
		return whatDirs
	}
	return ""
}

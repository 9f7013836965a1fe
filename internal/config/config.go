// Package config reads the config file. It owns what the keys are, what their
// values may be, and telling every fault at once with its line. It opens
// nothing but that file and knows nothing of vaults or sets beyond their text;
// docs/reference/config.md is its description for users.
package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/firn-backup/firn/internal/failure"
	"github.com/firn-backup/firn/internal/units"
)

// Config is what the file says. The zero value is that of no file. All paths
// are absolute.
type Config struct {
	File string `toml:"-"` // where it was read from; empty: there is none

	Log        *string  `toml:"log"`        // log file; nil: the default; empty: none
	LogLevel   string   `toml:"log-level"`  // "debug", "info", "warn", "error"; empty: the default
	Catalog    string   `toml:"catalog"`    // catalog file; empty: the default
	Host       string   `toml:"host"`       // this machine's name in snapshots; empty: the system's
	Identities []string `toml:"identities"` // files of further keys to decrypt with
	Signers    []string `toml:"signers"`    // further public keys whose manifests are believed

	LimitRate DayRates `toml:"limit-rate"` // of all that goes over the line; nil: no limit

	Vaults map[string]*Vault `toml:"vault"`
	Sets   map[string]*Set   `toml:"set"`

	Notifications map[string]*Notify `toml:"notify"`
}

// DayRates are rates by time of day, as units.ParseDayRates reads them: a text or a list of texts.
type DayRates []units.DayRate

// Vault is a [vault.NAME] section.
type Vault struct {
	Name string `toml:"-"`
	Line int    `toml:"-"`
	URL  string `toml:"url"` // absolute, as Options.CheckVault returns it; or a template (see IsTemplate)
}

// Set is a [set.NAME] section.
type Set struct {
	Name string `toml:"-"`
	Line int    `toml:"-"`

	Kind             string   `toml:"kind"`               // "tree", or empty for that
	Paths            []string `toml:"paths"`              // absolute and clean, none below another
	Vault            string   `toml:"vault"`              // the name of a [vault.NAME]; empty: the default vault
	Exclude          []string `toml:"exclude"`            // gitignore patterns
	ExcludeIfPresent []string `toml:"exclude-if-present"` // names of tag files
	OneFileSystem    bool     `toml:"one-file-system"`
	RequireMount     []string `toml:"require-mount"` // directories that must be mount points
	Compress         string   `toml:"compress"`      // "zstd[:1-19]", "gzip[:1-9]", "bzip2[:1-9]", "none"; empty: zstd
	Encrypt          string   `toml:"encrypt"`       // "age", "openpgp", "none"; empty: age
	Recipients       []string `toml:"recipients"`
	RecipientFiles   []string `toml:"recipient-files"`
	VolumeSize       int64    `toml:"volume-size"`  // bytes; 0: the default
	Incrementals     *int     `toml:"incrementals"` // after a full, before the next; nil: no limit
	Checksum         bool     `toml:"checksum"`
	NoVerifyFrames   bool     `toml:"no-verify-frames"`

	ObjectLock     time.Duration `toml:"object-lock"`      // for how long what is stored is locked; 0: as the vault's URL says
	ObjectLockMode string        `toml:"object-lock-mode"` // LockGovernance, or empty for that; LockCompliance

	Single
	Timing
	Retention
	Hooks
	Producer
}

// The words of object-lock-mode.
const (
	LockGovernance = "governance"
	LockCompliance = "compliance"
)

// later are keys that the design has and this version has not. They are faults
// of their own: a set that silently is not expired or scheduled is worse than none.
func later(section string) []string {
	switch section {
	case "set":
		return []string{"tier"}
	case "":
		return []string{"daemon", "web"}
	}
	return nil
}

// Fault is one thing wrong with the file.
type Fault struct {
	Line int    // 0: of the file as a whole
	Key  string // dotted; may be empty
	Text string
}

// Faults is everything that is wrong with a file, in the order of its lines.
type Faults struct {
	File string
	List []Fault
}

// Error is one line a fault: FILE:LINE: KEY: what is wrong.
func (f *Faults) Error() string {
	var b strings.Builder
	for i, x := range f.List {
		if i > 0 {
			b.WriteByte('\n')
		}
		b.WriteString(f.File)
		if x.Line > 0 {
			fmt.Fprintf(&b, ":%d", x.Line)
		}
		b.WriteString(": ")
		if x.Key != "" {
			b.WriteString(x.Key + ": ")
		}
		b.WriteString(x.Text)
	}
	return b.String()
}

// Options say what the text is to be understood with.
type Options struct {
	Home string // what "~" stands for; empty: there is none
	Must bool   // the file must exist

	// CheckVault checks a vault's absolute URL and returns it in the one form in
	// which it is known. Nil: any will do.
	CheckVault func(url string) (string, error)
}

// Load reads the file at path. Where it does not exist the zero Config is the
// answer, unless Must is set. All that is wrong with the file is one *Faults
// of kind failure.Usage.
func Load(path string, o Options) (*Config, error) {
	data, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist) && !o.Must:
		return &Config{}, nil
	case err != nil:
		return nil, failure.Wrap(failure.Usage, fmt.Errorf("read config: %w", err))
	}
	return Parse(path, data, o)
}

// Parse is Load without the reading. file is the name to report, and its
// directory is what relative names of files are relative to.
func Parse(file string, data []byte, o Options) (*Config, error) {
	c := &Config{File: file}
	p := &parser{Options: o, file: file, lines: map[string]int{}}
	if tree, ok := p.read(data); ok {
		p.bindTop(c, tree)
		p.check(c)
	}
	if len(p.faults) > 0 {
		slices.SortStableFunc(p.faults, func(a, b Fault) int { return a.Line - b.Line })
		return nil, failure.Wrap(failure.Usage, &Faults{File: file, List: p.faults})
	}
	return c, nil
}

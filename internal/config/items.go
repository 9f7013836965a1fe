package config

import (
	"slices"
	"strings"

	"github.com/firn-backup/firn/internal/exclude"
)

// Kinds of sets whose items are archives of their own.
const (
	KindItems  = "items"
	KindMirror = "mirror"
)

// Values of the keys of such sets.
const (
	WhatFiles  = "files"
	WhatDirs   = "directories"
	WhatBoth   = "both"
	WhatSelf   = "self"
	FormPlain  = "plain"
	FormFirn   = "firn"
	StoreOnce  = "once"
	StoreAgain = "changed"
)

// Single are the keys of sets of kind items and mirror.
type Single struct {
	Path    string `toml:"path"`    // absolute and clean
	What    string `toml:"what"`    // WhatFiles … WhatSelf; empty: WhatBoth
	Format  string `toml:"format"`  // FormPlain, FormFirn; empty: FormPlain
	Store   string `toml:"store"`   // StoreOnce, StoreAgain; empty: StoreAgain
	Replace bool   `toml:"replace"` // delete archives of which a newer version is stored, and of a mirror those of files that are gone
}

// singleKinds are the kinds of sets whose items are archives of their own.
func singleKinds() []setKind {
	both := []string{"path", "replace", "exclude", "one-file-system", "require-mount", "checksum"}
	return []setKind{
		{KindItems, append([]string{"what", "format", "store", "exclude-if-present"}, both...), (*parser).checkItems},
		{KindMirror, append([]string{"exclude-if-present"}, both...), (*parser).checkSingle},
	}
}

// IsSingle says whether the set's items are archives of their own.
func (s *Set) IsSingle() bool { return s.Kind == KindItems || s.Kind == KindMirror }

func (p *parser) checkItems(s *Set, at func(string) string) {
	p.checkSingle(s, at)
	for _, k := range []struct {
		key, value string
		words      []string
	}{
		{"what", s.What, []string{WhatFiles, WhatDirs, WhatBoth, WhatSelf}},
		{"format", s.Format, []string{FormPlain, FormFirn}},
		{"store", s.Store, []string{StoreOnce, StoreAgain}},
	} {
		if k.value != "" && !slices.Contains(k.words, k.value) {
			p.fault(at(k.key), "%q: must be %s or %s", k.value, strings.Join(k.words[:len(k.words)-1], ", "), k.words[len(k.words)-1])
		}
	}
	if s.Replace && s.Format == FormFirn {
		p.fault(at("replace"), "items in Firn's format are not replaced; format = \"plain\" has it")
	}
}

// checkSingle checks what both kinds have.
func (p *parser) checkSingle(s *Set, at func(string) string) {
	if key := at("path"); s.Path != "" {
		s.Path = p.absPath(key, s.Path)
	} else if p.good(key) {
		p.fault("set."+s.Name, "has no path")
	}
	p.checkTreeKeys(s, at)
	for _, key := range []string{"volume-size", "incrementals", "policy", "expire", "keep-last", "keep-within", "keep-daily", "keep-weekly", "keep-monthly", "keep-yearly"} {
		if _, there := p.lines[at(key)]; there && p.good(at(key)) && (key != "volume-size" || s.Format != FormFirn) {
			p.fault(at(key), "does not belong to a set of kind %s", s.KindOf())
		}
	}
}

// checkTreeKeys checks the keys that say what of a directory is meant.
func (p *parser) checkTreeKeys(s *Set, at func(string) string) {
	for i, pattern := range s.Exclude {
		if _, err := exclude.Parse([]string{pattern}, ""); err != nil || strings.ContainsRune(pattern, '\n') {
			p.fault(index(at("exclude"), i), "%q is not a pattern", pattern)
		}
	}
	for i, name := range s.ExcludeIfPresent {
		if name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/\x00") {
			p.fault(index(at("exclude-if-present"), i), "%q is not the name of a file", name)
		}
	}
	for i := range s.RequireMount {
		s.RequireMount[i] = p.absPath(index(at("require-mount"), i), s.RequireMount[i])
	}
}

package config

import "slices"

// setKind is a kind of set. Adding one is adding its constant and its line in
// setKinds here, and its case in the command line's one list of kinds.
type setKind struct {
	name string
	// keys are those that belong to this kind, beside those that all sets have. A key may belong to several kinds.
	keys []string
	// check holds the kind's own keys against each other. at makes a key of the set a dotted one.
	check func(p *parser, s *Set, at func(key string) string)
}

// Kinds of sets.
const (
	KindTree = "tree"
)

// setKinds is the one list of kinds.
func setKinds() []setKind {
	kinds := []setKind{
		{KindTree, []string{"paths", "exclude", "exclude-if-present", "one-file-system", "require-mount", "checksum"}, (*parser).checkTree},
	}
	return append(append(kinds, streamKinds()...), singleKinds()...)
}

// KindOf is the kind of a set: what its key says, tree where that says nothing.
func (s *Set) KindOf() string {
	if s.Kind == "" {
		return KindTree
	}
	return s.Kind
}

// checkKind checks the kind, and what belongs to it. It is false where nothing can be said of the other keys.
func (p *parser) checkKind(s *Set, at func(string) string) bool {
	kinds := setKinds()
	i := slices.IndexFunc(kinds, func(k setKind) bool { return k.name == s.KindOf() })
	switch {
	case i < 0:
		p.fault(at("kind"), "unknown kind %q (this version has %s)", s.Kind, kindNames(kinds))
		return true
	}
	var told []string
	for _, k := range kinds {
		for _, key := range k.keys {
			if slices.Contains(told, key) {
				continue
			}
			told = append(told, key)
			if _, there := p.lines[at(key)]; there && p.good(at(key)) && !slices.Contains(kinds[i].keys, key) {
				p.fault(at(key), "does not belong to a set of kind %s", s.KindOf())
			}
		}
	}
	kinds[i].check(p, s, at)
	return true
}

func kindNames(kinds []setKind) string {
	text := ""
	for i, k := range kinds {
		switch {
		case i > 0 && i == len(kinds)-1:
			text += " and "
		case i > 0:
			text += ", "
		}
		text += k.name
	}
	return text
}

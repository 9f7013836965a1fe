// Package exclude decides which paths a list of gitignore patterns leaves out.
// It means by every pattern what git means by it. It is pure: it knows nothing
// of file systems, and paths are bytes of any encoding.
package exclude

import (
	"fmt"
	"strings"
)

// A Matcher is a parsed list of patterns. It is immutable, safe for concurrent
// use, and its nil value excludes nothing.
type Matcher struct {
	base     string
	patterns []pattern // the last that matches decides
	anchored bool      // some pattern wants the whole path
}

type kind byte

const (
	wild    kind = iota // a glob
	literal             // no special characters at all
	suffix              // a star and then no special characters
)

type pattern struct {
	glob    string
	kind    kind
	include bool   // it began with "!"
	dirOnly bool   // it ended with "/"
	anchor  bool   // it is matched against the whole path, else against its last element
	prefix  string // of an anchored glob: what comes before its first special character, not part of glob
}

// Parse reads patterns, each as a line of a .gitignore file that lies in the
// directory base (a path as Match gets them, "" for the top): blank lines and
// those that begin with "#" say nothing, blanks at the end do not count unless
// escaped, "!" includes again, a "/" at the end matches directories only, a "/"
// before that binds the pattern to base, "**" crosses directories.
//
// Only a pattern with a NUL byte is an error. One that can never match, as
// "[a" for want of its bracket, is none in git and none here.
func Parse(patterns []string, base string) (*Matcher, error) {
	m := &Matcher{base: base}
	for _, line := range patterns {
		if strings.IndexByte(line, 0) >= 0 {
			return nil, fmt.Errorf("exclude pattern %q: it holds a NUL byte", line)
		}
		p, ok := parse(line)
		if !ok {
			continue
		}
		m.anchored = m.anchored || p.anchor
		m.patterns = append(m.patterns, p)
	}
	return m, nil
}

func parse(line string) (p pattern, ok bool) {
	line = trimBlanks(line)
	if line == "" || line[0] == '#' {
		return p, false
	}
	if line[0] == '!' {
		p.include, line = true, line[1:]
	}
	line, p.dirOnly = strings.CutSuffix(line, "/")
	special := strings.IndexAny(line, `*?[\`)
	if !strings.Contains(line, "/") {
		p.glob = line
		switch {
		case special < 0:
			p.kind = literal
		case line[0] == '*' && !strings.ContainsAny(line[1:], `*?[\`):
			p.kind, p.glob = suffix, line[1:]
		}
		return p, true
	}
	p.anchor = true
	if line[0] == '/' {
		line = line[1:]
		special--
	}
	if special < 0 {
		p.kind, p.glob = literal, line
	} else {
		p.prefix, p.glob = line[:special], line[special:]
	}
	return p, true
}

// trimBlanks cuts the blanks at the end of line, but for one that a backslash
// escapes.
func trimBlanks(line string) string {
	end := 0 // behind the last byte that counts
	for i := 0; i < len(line); i++ {
		switch line[i] {
		case ' ':
			continue
		case '\\':
			i++
			if i == len(line) {
				return line // git leaves such a line as it is
			}
		}
		end = i + 1
	}
	return line[:end]
}

// Match says whether the path is left out. relPath is relative to the top that
// base is relative to; it has neither a leading nor a trailing slash. What lies
// below a directory that is left out is left out with it, whatever other
// patterns say. base itself, and what is not below it, never is.
func (m *Matcher) Match(relPath string, isDir bool) bool {
	if m == nil || len(m.patterns) == 0 {
		return false
	}
	rel, ok := m.below(relPath)
	if !ok {
		return false
	}
	for i := range len(rel) {
		if rel[i] == '/' && m.decide(rel[:i], true) {
			return true
		}
	}
	return m.decide(rel, isDir)
}

// MatchIn says whether name in the directory dir, which itself is known not to
// be left out, is: what Match(dir+"/"+name, isDir) says, for a walker that
// does not descend into what is left out, and faster.
func (m *Matcher) MatchIn(dir, name string, isDir bool) bool {
	if m == nil || len(m.patterns) == 0 {
		return false
	}
	if !m.anchored && (m.base == "" || dir == m.base || strings.HasPrefix(dir, m.base) && dir[len(m.base)] == '/') {
		return m.decide(name, isDir)
	}
	path := name
	if dir != "" {
		path = dir + "/" + name
	}
	rel, ok := m.below(path)
	return ok && m.decide(rel, isDir)
}

// Empty says that nothing is ever left out.
func (m *Matcher) Empty() bool { return m == nil || len(m.patterns) == 0 }

// below makes path relative to base.
func (m *Matcher) below(path string) (rel string, ok bool) {
	if m.base == "" {
		return path, path != ""
	}
	if len(path) <= len(m.base)+1 || path[len(m.base)] != '/' || path[:len(m.base)] != m.base {
		return "", false
	}
	return path[len(m.base)+1:], true
}

// decide asks the patterns about one path, the last first.
func (m *Matcher) decide(rel string, isDir bool) bool {
	name := rel[strings.LastIndexByte(rel, '/')+1:]
	for i := len(m.patterns) - 1; i >= 0; i-- {
		p := &m.patterns[i]
		if p.dirOnly && !isDir {
			continue
		}
		text := name
		if p.anchor {
			text = rel
		}
		if p.match(text) {
			return !p.include
		}
	}
	return false
}

func (p *pattern) match(text string) bool {
	switch p.kind {
	case literal:
		return text == p.glob
	case suffix:
		return strings.HasSuffix(text, p.glob)
	}
	text, ok := strings.CutPrefix(text, p.prefix)
	return ok && glob(p.glob, text)
}

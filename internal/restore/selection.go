package restore

import (
	"errors"
	"path"
	"slices"
	"sort"
	"strings"

	"github.com/bmatcuk/doublestar/v4"

	"github.com/firn-backup/firn/internal/failure"
	"github.com/firn-backup/firn/internal/snapshot"
)

// selection says which entries are wanted, and what they are called on disk.
type selection struct {
	everything bool
	literals   []string // in path order, none below another
	globs      []glob
	strip      string
}

type glob struct {
	given   string
	pattern string // without leading slash
	base    string // the part before the first wildcard: matches lie at or below it
	hit     bool
}

// selectPaths makes a selection of what the user gave. exists says whether
// there is anything at or below a path: a path with wildcard characters in it that exists is
// meant as it is.
func selectPaths(paths []string, strip string, exists func(path string) (bool, error)) (*selection, error) {
	s := &selection{strip: clean(strip), everything: len(paths) == 0}
	for _, given := range paths {
		p := clean(given)
		if p == "" {
			s.everything = true
			continue
		}
		there, err := exists(p)
		if err != nil {
			return nil, err
		}
		switch {
		case there:
			s.literals = append(s.literals, p)
		case !strings.ContainsAny(p, `*?[{\`):
			return nil, notThere(given)
		case !doublestar.ValidatePattern(p):
			return nil, failure.Errorf(failure.Usage, "bad pattern %q", given)
		default:
			base, _ := doublestar.SplitPattern(p)
			if base == "." {
				base = ""
			}
			s.globs = append(s.globs, glob{given: given, pattern: p, base: base})
		}
	}
	if s.everything {
		s.literals, s.globs = nil, nil
	}
	s.literals = reduce(s.literals)
	return s, nil
}

// ErrNotThere: a snapshot has no such path.
var ErrNotThere = errors.New("not in the snapshot")

func notThere(given string) error {
	return failure.Errorf(failure.NotFound, "%s: %w", given, ErrNotThere)
}

// clean makes a path given by the user one as entries have it.
func clean(p string) string {
	if p == "" {
		return ""
	}
	return strings.TrimPrefix(path.Clean("/"+p), "/")
}

// reduce sorts paths and leaves out those below others.
func reduce(paths []string) []string {
	slices.SortFunc(paths, snapshot.ComparePaths)
	var out []string
	for _, p := range paths {
		if len(out) == 0 || !snapshot.Below(p, out[len(out)-1]) {
			out = append(out, p)
		}
	}
	return out
}

// under are the paths at or below which all that is selected lies; empty: everywhere.
func (s *selection) under() []string {
	all := slices.Clone(s.literals)
	for _, g := range s.globs {
		if g.base == "" {
			return nil
		}
		all = append(all, g.base)
	}
	return reduce(all)
}

// has says whether the entry at path is selected.
func (s *selection) has(path string) bool {
	if s.everything {
		return true
	}
	i := sort.Search(len(s.literals), func(i int) bool { return snapshot.ComparePaths(s.literals[i], path) > 0 })
	if i > 0 && snapshot.Below(path, s.literals[i-1]) {
		return true
	}
	found := false
	for i := range s.globs {
		g := &s.globs[i]
		if found && g.hit || !snapshot.Below(path, g.base) {
			continue
		}
		if doublestar.MatchUnvalidated(g.pattern, path) || doublestar.MatchUnvalidated(g.pattern+"/**", path) {
			g.hit, found = true, true
		}
	}
	return found
}

// unmet returns an error that names the first pattern that nothing matched.
func (s *selection) unmet() error {
	for _, g := range s.globs {
		if !g.hit {
			return notThere(g.given)
		}
	}
	return nil
}

// target is an entry's path below the target directory. ok is false for the
// directories above Strip, which are left off. What lies elsewhere is an error.
func (s *selection) target(e *snapshot.Entry) (path string, ok bool, err error) {
	switch {
	case s.strip == "":
		return e.Path, true, nil
	case e.Path == s.strip:
		if e.Type != snapshot.Dir {
			return "", false, failure.Errorf(failure.Usage, "%s: nothing is left of its name when %s is stripped", e.Path, s.strip)
		}
		return "", true, nil
	case snapshot.Below(e.Path, s.strip):
		return e.Path[len(s.strip)+1:], true, nil
	case e.Type == snapshot.Dir && snapshot.Below(s.strip, e.Path):
		return "", false, nil
	}
	return "", false, failure.Errorf(failure.Usage, "%s is not below %s, which is to be stripped", e.Path, s.strip)
}

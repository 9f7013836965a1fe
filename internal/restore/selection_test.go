package restore

import (
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/firn-backup/firn/internal/extract"
	"github.com/firn-backup/firn/internal/snapshot"
)

func yes(string) (bool, error) { return true, nil }
func no(string) (bool, error)  { return false, nil }

// paths of few elements over a small alphabet meet often.
func somePath() *rapid.Generator[string] {
	return rapid.Custom(func(t *rapid.T) string {
		return strings.Join(rapid.SliceOfN(rapid.SampledFrom([]string{"a", "b", "a.", "ab", "\xff", "*"}), 1, 4).Draw(t, "elements"), "/")
	})
}

func TestLiteralSelection(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		given := rapid.SliceOfN(somePath(), 1, 6).Draw(t, "given")
		path := somePath().Draw(t, "path")
		s, err := selectPaths(given, "", yes)
		if err != nil {
			t.Fatal(err)
		}
		want := slices.ContainsFunc(given, func(g string) bool { return snapshot.Below(path, g) })
		if got := s.has(path); got != want {
			t.Fatalf("%q in %q: %v", path, given, got)
		}
		if want && !slices.ContainsFunc(s.under(), func(u string) bool { return snapshot.Below(path, u) }) {
			t.Fatalf("%q is not under %q", path, s.under())
		}
	})
}

func TestGlobSelection(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ pattern, yes, no string }{
		{"*.jpg", "x.jpg x.jpg/below \xff.jpg", "a/x.jpg x.jpgs"},
		{"**/*.jpg", "x.jpg a/x.jpg a/b/x.jpg a/x.jpg/below", "a/x.png"},
		{"a/**", "a a/b a/b/c", "ab b/a"},
		{"a/**/z", "a/z a/b/z a/b/c/z/below", "a/zz z"},
		{"home/m?/{x,y}/*", "home/me/x/1 home/mo/y/2/3", "home/me/x home/me/z/1"},
		{"[a-c]", "a b/x", "d ab"},
		{`\*`, "* */x", "a"},
	} {
		s, err := selectPaths([]string{"/" + c.pattern}, "", no)
		if err != nil {
			t.Fatal(err)
		}
		if s.unmet() == nil {
			t.Errorf("%s: met before anything was looked at", c.pattern)
		}
		for _, p := range strings.Fields(c.yes) {
			if !s.has(p) {
				t.Errorf("%s does not take %q", c.pattern, p)
			}
			if u := s.under(); len(u) > 0 && !slices.ContainsFunc(u, func(u string) bool { return snapshot.Below(p, u) }) {
				t.Errorf("%s: %q is not under %q", c.pattern, p, u)
			}
		}
		for _, p := range strings.Fields(c.no) {
			if s.has(p) {
				t.Errorf("%s takes %q", c.pattern, p)
			}
		}
		if s.unmet() != nil {
			t.Errorf("%s: %v", c.pattern, s.unmet())
		}
	}
}

func TestTarget(t *testing.T) {
	t.Parallel()
	s, err := selectPaths(nil, "/home/me/", no)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		path string
		typ  snapshot.Type
		want string
		ok   bool
		fail bool
	}{
		{"home/me/x/y", 'f', "x/y", true, false},
		{"home/me", 'd', "", true, false},
		{"home/me", 'f', "", false, true},
		{"home", 'd', "", false, false},
		{"home", 'l', "", false, true},
		{"home/mean", 'f', "", false, true},
		{"etc/x", 'f', "", false, true},
	} {
		got, ok, err := s.target(&snapshot.Entry{Path: c.path, Type: c.typ})
		if got != c.want || ok != c.ok || (err != nil) != c.fail {
			t.Errorf("%s (%c): %q %v %v", c.path, c.typ, got, ok, err)
		}
	}
}

func TestStates(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		want := rapid.SliceOf(rapid.SampledFrom([]extract.State{extract.Absent, extract.Same, extract.Differs, extract.Unknown})).Draw(t, "states")
		var s states
		for _, v := range want {
			s.add(v)
		}
		for i, v := range want {
			if s.get(i) != v {
				t.Fatalf("%d is %v, not %v", i, s.get(i), v)
			}
		}
		if s.get(len(want)) != extract.Absent {
			t.Fatal("what was not put is there")
		}
	})
}

func FuzzSelection(f *testing.F) {
	f.Add("a/**/[b-c]*", "a/x/bc")
	f.Add("{a,b", "a")
	f.Add("\\", "\xff")
	f.Add("../..", "..")
	f.Fuzz(func(t *testing.T, pattern, path string) {
		if len(pattern) > 40 || strings.Count(pattern, "{")+strings.Count(pattern, "**") > 4 {
			return // what takes long is the user's own doing
		}
		s, err := selectPaths([]string{pattern}, "", no)
		if err != nil {
			return
		}
		if s.has(path) {
			if u := s.under(); len(u) > 0 && !slices.ContainsFunc(u, func(u string) bool { return snapshot.Below(path, u) }) {
				t.Errorf("%q takes %q, which is not under %q", pattern, path, u)
			}
		}
	})
}

package exclude

import (
	"strings"
	"testing"
	"time"
)

func TestMatch(t *testing.T) {
	for _, c := range []struct {
		patterns string // a blank between them
		base     string
		path     string // a directory's ends in a slash
		want     bool
	}{
		{"*.tmp", "", "a/b.tmp", true},
		{"*.tmp", "", "a.tmp/b", true},
		{"node_modules/", "", "x/node_modules/y", true},
		{"node_modules/", "", "x/node_modules", false},
		{"/build", "", "build/", true},
		{"/build", "", "x/build/", false},
		{"/build", "home/me", "home/me/build/", true},
		{"/build", "home/me", "build/", false},
		{"me", "home/me", "home/me/", false},
		{"home", "home/me", "home/me/x", false},
		{"x", "home/me", "home/mex/x", false},
		{"a/*/c", "", "a/b/c", true},
		{"a/*/c", "", "a/b/b/c", false},
		{"a/**/c", "", "a/b/b/c", true},
		{"a/**/c", "", "a/c", true},
		{"*.log !keep.log", "", "keep.log", false},
		{"logs/ !logs/keep.log", "", "logs/keep.log", true},
		{"logs/* !logs/keep.log", "", "logs/keep.log", false},
		{"# a", "", "a", true},
		{"[a", "", "[a", false},
	} {
		m, err := Parse(strings.Split(c.patterns, " "), c.base)
		if err != nil {
			t.Fatal(err)
		}
		path, isDir := strings.CutSuffix(c.path, "/")
		if got := m.Match(path, isDir); got != c.want {
			t.Errorf("%s in %q: %q excluded: %v", c.patterns, c.base, c.path, got)
		}
	}
}

func TestNothing(t *testing.T) {
	var none *Matcher
	empty, err := Parse([]string{"", "   ", "#x"}, "")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range []*Matcher{none, empty} {
		if !m.Empty() || m.Match("a", true) || m.MatchIn("", "a", true) {
			t.Error("no patterns, and yet something is excluded")
		}
	}
	if _, err := Parse([]string{"a\x00"}, ""); err == nil {
		t.Error("a pattern with a NUL byte was taken")
	}
}

// TestNoBlowUp has a pattern on which simple backtracking takes for ever.
func TestNoBlowUp(t *testing.T) {
	begin := time.Now()
	for _, p := range []string{strings.Repeat("*a", 40) + "b", strings.Repeat("**/a/", 12) + "b", "/" + strings.Repeat("*a", 40) + "b"} {
		m, err := Parse([]string{p}, "")
		if err != nil {
			t.Fatal(err)
		}
		if m.Match(strings.Repeat("a", 255), false) || m.Match(strings.Repeat("a/", 60)+"a", false) {
			t.Errorf("%s matched", p)
		}
	}
	if d := time.Since(begin); d > 5*time.Second {
		t.Errorf("took %v", d)
	}
}

func FuzzMatch(f *testing.F) {
	f.Add("a/**/[!b]*\\", "x/y/z")
	f.Add("[[:alpha:]-\\", "a")
	f.Fuzz(func(t *testing.T, pattern, path string) {
		if len(pattern) > 40 || len(path) > 100 {
			return
		}
		m, err := Parse([]string{pattern}, "")
		if err != nil {
			return
		}
		m.Match(path, false)
		m.Match(path, true)
	})
}

func BenchmarkMatchIn(b *testing.B) {
	m, err := Parse([]string{"*.tmp", "node_modules/", ".cache", "/home/me/Downloads", "**/target/debug", "*~"}, "")
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		m.MatchIn("home/me/src/project", "main.go", false)
	}
}

package sourcetest

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestHostile: two fixtures are the same, and so are two second versions of it.
func TestHostile(t *testing.T) {
	t.Parallel()
	a, b, first := t.TempDir(), t.TempDir(), t.TempDir()
	for _, dir := range []string{a, b, first} {
		Hostile(t, dir)
	}
	Diff(t, a, b)
	Mutate(t, a)
	if Differences(t, a, b) == "" {
		t.Error("Mutate did nothing that is seen")
	}
	Mutate(t, b)
	Diff(t, a, b)
	d := Differences(t, a, first)
	for _, name := range []string{"same size and time", "same size", "torn off 2", "joins", "pair 1b", "xattr", "mode", "time", "renamed", "hole filled"} {
		if !strings.Contains(d, "change/"+name+"\n") && !strings.Contains(d, "change/"+name+" => ") {
			t.Errorf("a change of %q is not seen:\n%s", name, d)
		}
	}
}

// TestDifferences: each thing alone is seen, at the bottom of deep too.
func TestDifferences(t *testing.T) {
	t.Parallel()
	small := func(dir string) {
		b := &builder{t: t, dir: dir, root: os.Geteuid() == 0}
		b.file("f", []byte("content"))
		b.file("g", []byte("content"))
		b.link("g", "h")
		b.xattr("f", "user.x", "1")
		b.deep()
		b.settle()
	}
	for name, change := range map[string]func(b *builder){
		"ns":      func(b *builder) { b.time("f", 1_600_000_000, 1) },
		"content": func(b *builder) { b.file("f", []byte("CONTENT")) },
		"xattr":   func(b *builder) { b.xattr("f", "user.x", "2") },
		"links":   func(b *builder) { b.must(os.Remove(b.path("h"))); b.file("h", []byte("content")) },
		"extra":   func(b *builder) { b.file("new", nil) },
		"deep": func(b *builder) {
			b.must(unix.Lsetxattr(b.path("deep/"+"a"+strings.Repeat("x", 199)+"/"+"b"+strings.Repeat("x", 199)), "user.x", nil, 0))
		},
		"no deep": func(b *builder) { b.must(os.RemoveAll(b.path("deep"))) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			a, c := filepath.Join(dir, "a"), filepath.Join(dir, "c")
			for _, d := range []string{a, c} {
				if err := os.Mkdir(d, 0o755); err != nil {
					t.Fatal(err)
				}
				small(d)
			}
			Diff(t, a, c)
			b := &builder{t: t, dir: c}
			change(b)
			b.time(".", 1_300_000_000, 999_999_999)
			if Differences(t, a, c) == "" {
				t.Error("not seen")
			}
		})
	}
}

package glaciercli

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// A name leads where the kernel leads it: what is written to the result is read by the name.
func TestThroughLinks(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, d := range []string{"a/b", "c/d"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o777); err != nil {
			t.Fatal(err)
		}
	}
	for name, target := range map[string]string{
		"a/there": "b/file", "a/dangling": "b/new", "twice": "a/there", "absolute": filepath.Join(dir, "c/d/abs"),
		"a/b/up": "../x", "jump": "a/b", "c/over": "../jump/../y", "loop1": "loop2", "loop2": "loop1",
	} {
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "a/b/file"), []byte("old"), 0o666); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"plain", "a/b/file", "a/there", "a/dangling", "twice", "absolute", "a/b/up", "jump/up", "c/over"} {
		name = filepath.Join(dir, name)
		to, err := throughLinks(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(to+".part", []byte(name), 0o666); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(to+".part", to); err != nil {
			t.Fatal(err)
		}
		was, _ := os.Lstat(name)
		if got, err := os.ReadFile(name); err != nil || string(got) != name || was.Mode().IsRegular() != (to == name) {
			t.Errorf("%s leads to %s: %q, %v", name, to, got, err)
		}
	}
	if _, err := os.Lstat(filepath.Join(dir, "a/y")); err != nil {
		t.Errorf("the .. after a link is that of its target: %v", err)
	}
	if to, err := throughLinks(filepath.Join(dir, "loop1")); !errors.Is(err, syscall.ELOOP) {
		t.Errorf("%s, %v", to, err)
	}
}

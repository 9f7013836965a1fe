package extract

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/firn-backup/firn/internal/snapshot"
)

// TestNeverOutside makes any entries in any order, as a hostile archive would,
// and looks whether anything outside of the root changed.
func TestNeverOutside(t *testing.T) {
	t.Parallel()
	base := t.TempDir()
	n := 0
	rapid.Check(t, func(t *rapid.T) {
		n++
		dir := filepath.Join(base, fmt.Sprint(n))
		root, outside := dir+"/root", dir+"/outside"
		for _, d := range []string{root, outside + "/sub"} {
			if err := os.MkdirAll(d, 0o755); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.WriteFile(outside+"/file", []byte("keep"), 0o644); err != nil {
			t.Fatal(err)
		}
		before := picture(t, outside)
		r, err := Open(root, Options{
			Overwrite: Overwrite(rapid.IntRange(0, 1).Draw(t, "overwrite")),
			plain:     rapid.Bool().Draw(t, "openat"), noTmpfile: rapid.Bool().Draw(t, "names"), maxDirs: 4,
		})
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		element := rapid.SampledFrom([]string{"a", "a", "b", "c", "..", ".", "", "file", "sub", "outside", "x\x00"})
		link := rapid.SampledFrom([]string{"..", "../outside", outside, "/", "a", ".", "../outside/sub", outside + "/file", "b"})
		path := func() string { return strings.Join(rapid.SliceOfN(element, 1, 4).Draw(t, "path"), "/") }
		for range rapid.IntRange(1, 25).Draw(t, "steps") {
			e := mine(path(), snapshot.Dir, 0o755)
			switch rapid.IntRange(0, 9).Draw(t, "step") {
			case 0, 1:
				r.Mkdir(e)
			case 2, 3, 4:
				e.Type, e.Link = snapshot.Symlink, link.Draw(t, "link")
				r.Symlink(e)
			case 5, 6:
				f := file(e.Path, "evil")
				if s, _ := r.Existing(f); s == Same {
					r.Again(f)
				}
				put(r, f, "evil")
			case 7:
				r.HardLink(path(), e)
			case 8:
				r.FinishDir(e)
			case 9:
				r.Fifo(e)
			}
		}
		if after := picture(t, outside); after != before {
			t.Fatalf("outside was\n%s and is\n%s", before, after)
		}
		names, err := filepath.Glob(dir + "/*")
		if err != nil || len(names) != 2 {
			t.Fatalf("beside the root: %q, %v", names, err)
		}
	})
}

// picture is all that can be seen of a tree but access times.
func picture(t *rapid.T, dir string) string {
	var b strings.Builder
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		i, err := d.Info()
		if err != nil {
			return err
		}
		fmt.Fprintln(&b, path, i.Mode(), i.ModTime(), i.Size())
		if i.Mode().IsRegular() {
			data, err := os.ReadFile(path)
			fmt.Fprintf(&b, "%q %v\n", data, err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

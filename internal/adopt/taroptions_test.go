package adopt

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/firn-backup/firn/internal/exclude"
	"github.com/firn-backup/firn/internal/mustrun"
)

func TestTarOptions(t *testing.T) {
	o := parseTarOptions(strings.Fields("-p --ignore-failed-read --exclude-tag=NOBACKUP --exclude-caches --exclude *.o --exclude=/home/me/docs/tmp -Szv " +
		"--one-file-system --dereference -X list --exclude-tag-all=NO --warning=none"))
	want := tarOptions{tags: []string{"NOBACKUP", "CACHEDIR.TAG"}, excludes: []string{"*.o", "/home/me/docs/tmp"}, compress: "gzip", oneFS: true,
		lost: []string{"--dereference", "-X", "list", "--exclude-tag-all=NO"}}
	if d := cmp.Diff(want, o, cmp.AllowUnexported(tarOptions{})); d != "" {
		t.Error(d)
	}
	if o = parseTarOptions([]string{"--anchored", "--exclude=a", "--exclude"}); !slices.Equal(o.lost, []string{"--anchored"}) {
		t.Errorf("%+v", o)
	}
	if taken, lost := o.patterns("/d"); taken != nil || !slices.Equal(lost, []string{"a", ""}) {
		t.Errorf("%q, %q", taken, lost)
	}
}

// TestTarPatterns compares what the patterns leave out with what tar does: never more, and where nothing is said of a difference, the same.
func TestTarPatterns(t *testing.T) {
	mustrun.Tool(t, "tar")
	dir := filepath.Join(t.TempDir(), "docs")
	for _, f := range []string{"a/b/f", "x/a/b/f", "sub/dir/f", "t.o", "sub/t.o", "#x#", "foo", "sub/foobar", "!bang", "docs/a/g", "größe/ü b.o", "sub/[x]", "x~"} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, f)), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, f), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct {
		pattern string
		less    bool
	}{
		{"a/b", false}, {"dir", false}, {"*.o", false}, {"docs/a", false}, {"a/*", false}, {"foo*", false}, {"/foo", false}, {dir + "/foo", false},
		{dir + "/sub/*", false}, {dir + "/sub", false}, {"/elsewhere/foo", false}, {"!bang", false}, {"#*#", false}, {"[xq]*", false}, {"größe", false}, {"f?o", false},
		{"x*b", true}, {"/*/foo", true}, {"dir/", true}, {`sub/\[x\]`, true}, {"b/f", false}, {"s*/t.o", false},
	} {
		cmd := exec.Command("tar", "c", "--exclude="+tt.pattern, "-f", "-", dir)
		list := exec.Command("tar", "t", "--quoting-style=literal")
		pipe, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		list.Stdin = pipe
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		out, err := list.Output()
		if werr := cmd.Wait(); err != nil || werr != nil {
			t.Fatal(err, werr)
		}
		var want []string
		for line := range strings.Lines(string(out)) {
			rest, ok := strings.CutPrefix("/"+strings.TrimSuffix(strings.TrimSpace(line), "/"), dir+"/")
			if ok {
				want = append(want, rest)
			}
		}
		taken, _ := parseTarOptions([]string{"--exclude=" + tt.pattern}).patterns(dir)
		got := keptBy(t, dir, taken)
		slices.Sort(want)
		if same := slices.Equal(got, want); !same && !tt.less {
			t.Errorf("%s (%q): kept %q, tar %q", tt.pattern, taken, got, want)
		}
		for _, w := range want {
			if !slices.Contains(got, w) {
				t.Errorf("%s (%q): leaves out %s, and tar does not", tt.pattern, taken, w)
			}
		}
	}
}

// keptBy are the files below dir that patterns do not leave out, in order.
func keptBy(t *testing.T, dir string, patterns []string) []string {
	t.Helper()
	m, err := exclude.Parse(patterns, "")
	if err != nil {
		t.Fatal(err)
	}
	var kept []string
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		rel := strings.TrimPrefix(strings.TrimPrefix(path, dir), "/")
		switch {
		case err != nil || rel == "":
			return err
		case m.Match(rel, d.IsDir()) && d.IsDir():
			return fs.SkipDir
		case !m.Match(rel, d.IsDir()):
			kept = append(kept, rel)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(kept)
	return kept
}

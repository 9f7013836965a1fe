package exclude

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/firn-backup/firn/internal/mustrun"
)

// pieces are what random patterns are made of.
var pieces = []string{
	"a", "b", "ab", "foo", "x.txt", "a b", " ", "\\ ", "*", "*", "**", "/", "/", "/", "?", "[ab]", "[!a]", "[^a]", "[a-f]", "[]a]", "[[]", "[a", "[]",
	"[a-]", "[-a]", "[[:alpha:]]", "[[:digit:]x]", "[[:nope:]]", "[[:a]", "[\\]]", "[a\\-z]", "\\*", "\\a", "\\", "\\[", "!", "#", "\\!", "\\#", ".", "**/", "/**", "/**/",
	"*.txt", "\xff", "[\x80-\xff]", "***", "*a*b*", "o", "oo", "^", "]", "-", "[[:upper:][:punct:]]", "[!/]", "[a/b]", "\\/",
}

func randomPattern(r *rand.Rand) string {
	var b strings.Builder
	if r.IntN(4) == 0 {
		b.WriteByte('!')
	}
	if r.IntN(4) == 0 {
		b.WriteByte('/')
	}
	for range 1 + r.IntN(4) {
		b.WriteString(pieces[r.IntN(len(pieces))])
	}
	if r.IntN(4) == 0 {
		b.WriteByte('/')
	}
	return b.String()
}

// plainPattern is one as people write them, so that many match.
func plainPattern(r *rand.Rand) string {
	elements := []string{"a", "b", "ab", "foo", "*", "**", "?", "[ab]*", "*.txt", "x.*", "*o", "a*", "**", "fo?", "a b", "*b"}
	var b strings.Builder
	if r.IntN(3) == 0 {
		b.WriteByte('!')
	}
	if r.IntN(3) == 0 {
		b.WriteByte('/')
	}
	for i := range 1 + r.IntN(3) {
		if i > 0 {
			b.WriteByte('/')
		}
		b.WriteString(elements[r.IntN(len(elements))])
	}
	if r.IntN(3) == 0 {
		b.WriteByte('/')
	}
	return b.String()
}

// tree makes directories and files to ask git about, and returns their paths;
// a directory's ends in a slash.
func tree(t testing.TB, root string) (paths []string) {
	dirs := []string{"a", "b", "ab", "foo", "a b", "\xff"}
	files := []string{"x.txt", "b.txt", "aab", "bar", "a ", "#", "!x", "*", "[", "]", "-", "\\", "^", "\xfe", "f", "7", "A", ".h", "a]"}
	var fill func(rel string, depth int)
	fill = func(rel string, depth int) {
		for _, f := range files {
			paths = append(paths, rel+f)
			if err := os.WriteFile(filepath.Join(root, rel+f), nil, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if depth == 0 {
			return
		}
		for _, d := range dirs {
			paths = append(paths, rel+d+"/")
			if err := os.Mkdir(filepath.Join(root, rel+d), 0o755); err != nil {
				t.Fatal(err)
			}
			fill(rel+d+"/", depth-1)
		}
	}
	fill("", 2)
	return paths
}

// TestGit asks git check-ignore about tens of thousands of paths.
func TestGit(t *testing.T) {
	t.Parallel()
	mustrun.Tool(t, "git")
	root := t.TempDir()
	git(t, root, nil, "init", "-q")
	paths := tree(t, root)
	var stdin bytes.Buffer
	for _, p := range paths {
		stdin.WriteString(strings.TrimSuffix(p, "/") + "\x00")
	}
	seed := uint64(1)
	lists := 150
	if os.Getenv("FIRN_SOAK") == "1" {
		lists, seed = 20000, rand.Uint64()
	}
	r := rand.New(rand.NewPCG(seed, 2))
	excluded, cases := 0, 0
	for i := range lists {
		var patterns []string
		for range 1 + r.IntN(5) {
			if r.IntN(2) == 0 {
				patterns = append(patterns, randomPattern(r))
			} else {
				patterns = append(patterns, plainPattern(r))
			}
		}
		base := []string{"", "", "a", "foo/a b"}[i%4]
		ignore := filepath.Join(root, base, ".gitignore")
		if err := os.WriteFile(ignore, []byte(strings.Join(patterns, "\n")+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		want := make(map[string]bool)
		for _, p := range strings.Split(git(t, root, stdin.Bytes(), "check-ignore", "--no-index", "--stdin", "-z"), "\x00") {
			want[p] = true
		}
		if err := os.Remove(ignore); err != nil {
			t.Fatal(err)
		}
		m, err := Parse(patterns, base)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range paths {
			path, isDir := strings.CutSuffix(p, "/")
			got := m.Match(path, isDir)
			if got != want[path] {
				t.Errorf("seed %d: patterns %q in %q, path %q: excluded %v, git says %v", seed, patterns, base, p, got, want[path])
			}
			dir, name := "", path
			if i := strings.LastIndexByte(path, '/'); i >= 0 {
				dir, name = path[:i], path[i+1:]
			}
			if !m.Match(dir, true) && m.MatchIn(dir, name, isDir) != got {
				t.Errorf("patterns %q in %q: MatchIn(%q, %q) is not Match", patterns, base, dir, name)
			}
			cases++
			if got {
				excluded++
			}
		}
	}
	t.Logf("%d cases, %d excluded", cases, excluded)
	if excluded < cases/20 || excluded > cases*19/20 {
		t.Error("the generator makes too one-sided cases")
	}
}

func git(t testing.TB, dir string, stdin []byte, args ...string) string {
	t.Helper()
	cmd := exec.Command("git", append([]string{"-c", "core.excludesFile=/dev/null", "-c", "core.ignoreCase=false"}, args...)...)
	cmd.Dir, cmd.Stdin = dir, bytes.NewReader(stdin)
	cmd.Env = append(os.Environ(), "GIT_CONFIG_NOSYSTEM=1", "HOME="+dir, "GIT_CEILING_DIRECTORIES="+filepath.Dir(dir))
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil && fmt.Sprint(err) != "exit status 1" { // 1: none is ignored
		t.Fatalf("git %v: %v\n%s", args, err, &stderr)
	}
	return string(out)
}

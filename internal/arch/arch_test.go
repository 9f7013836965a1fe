package arch

import (
	"bufio"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/firn-backup/firn"

// tests is the word in outside.txt for test files and ...test packages.
const tests = "tests"

type pkg struct {
	ImportPath, Dir, Doc               string
	Imports, TestImports, XTestImports []string
	GoFiles                            []string
}

func (p pkg) folder() string { return strings.TrimPrefix(p.ImportPath, module+"/") }

// testOnly says whether a package exists for tests alone.
func testOnly(folder string) bool {
	return strings.HasSuffix(folder, "test") || folder == "internal/mustrun" || folder == "internal/coldstore/faultstore" || strings.HasPrefix(folder, "test/")
}

type floor struct {
	number int
	owns   string
}

func readLines(t *testing.T, name string) [][]string {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var lines [][]string
	for sc := bufio.NewScanner(f); sc.Scan(); {
		if fields := strings.Fields(sc.Text()); len(fields) > 0 && !strings.HasPrefix(fields[0], "#") {
			lines = append(lines, fields)
		}
	}
	return lines
}

func readFloors(t *testing.T) map[string]floor {
	t.Helper()
	floors := map[string]floor{}
	for _, f := range readLines(t, "floors.txt") {
		n, err := strconv.Atoi(f[0])
		if err != nil || len(f) < 3 {
			t.Fatalf("floors.txt: %q: not a number, a folder and a few words", strings.Join(f, " "))
		}
		if _, twice := floors[f[1]]; twice {
			t.Errorf("floors.txt: %s stands there twice", f[1])
		}
		floors[f[1]] = floor{n, strings.Join(f[2:], " ")}
	}
	return floors
}

// listed is `go list -json` of the whole project.
func listed(t *testing.T) []pkg {
	t.Helper()
	touchSources(t)
	cmd := exec.Command("go", "list", "-e", "-json=ImportPath,Dir,Doc,Imports,TestImports,XTestImports,GoFiles", "./...")
	cmd.Dir = filepath.Join("..", "..")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var pkgs []pkg
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p pkg
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		pkgs = append(pkgs, p)
	}
	if len(pkgs) < 10 {
		t.Fatalf("go list found only %d packages", len(pkgs))
	}
	return pkgs
}

// touchSources looks at every source file, so that go test's cache knows what
// this test depends on although a child process reads it.
func touchSources(t *testing.T) {
	t.Helper()
	err := filepath.WalkDir(filepath.Join("..", ".."), func(p string, d fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(p, ".go") {
			return nil // others may be working in the tree
		}
		_, _ = os.Stat(p)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestFloors: every package is listed, exists and says what it owns, and its
// code imports lower floors only.
func TestFloors(t *testing.T) {
	t.Parallel()
	floors := readFloors(t)
	seen := map[string]bool{}
	for _, p := range listed(t) {
		seen[p.folder()] = true
		mine, ok := floors[p.folder()]
		if !ok {
			t.Errorf("%s has no line in floors.txt", p.folder())
			continue
		}
		if p.Doc == "" && len(p.GoFiles) > 0 {
			t.Errorf("%s has no package comment", p.folder())
		}
		for _, imp := range p.Imports {
			sub, ok := strings.CutPrefix(imp, module+"/")
			if !ok {
				continue
			}
			switch his, ok := floors[sub]; {
			case !ok: // said above
			case his.number >= mine.number:
				t.Errorf("%s (floor %d) imports %s (floor %d)", p.folder(), mine.number, sub, his.number)
			case testOnly(sub) && !testOnly(p.folder()):
				t.Errorf("%s imports %s, which is for tests", p.folder(), sub)
			}
		}
	}
	for folder := range floors {
		if !seen[folder] {
			t.Errorf("floors.txt lists %s, which does not exist", folder)
		}
	}
}

// TestOutside: what is imported from outside, and the restricted part of the
// standard library, is imported only where outside.txt says.
func TestOutside(t *testing.T) {
	t.Parallel()
	rules := map[string][]string{}
	for _, f := range readLines(t, "outside.txt") {
		if len(f) < 2 {
			t.Fatalf("outside.txt: %q says nothing of who", f[0])
		}
		rules[f[0]] = f[1:]
	}
	used := map[string]bool{}
	check := func(folder, imp string, inTest bool) {
		if imp == "C" || imp == module || strings.HasPrefix(imp, module+"/") {
			return
		}
		std := !strings.Contains(strings.SplitN(imp, "/", 2)[0], ".")
		rule := ruleFor(rules, imp, std)
		if rule == "" {
			if !std {
				t.Errorf("%s imports %s, which has no line in outside.txt", folder, imp)
			}
			return
		}
		used[rule] = true
		if !allowed(rules[rule], folder, inTest || testOnly(folder)) {
			t.Errorf("%s must not import %s (outside.txt: %s)", folder, imp, strings.Join(rules[rule], " "))
		}
	}
	for _, p := range listed(t) {
		for _, imp := range p.Imports {
			check(p.folder(), imp, false)
		}
		for _, imp := range slices.Concat(p.TestImports, p.XTestImports) {
			if std := !strings.Contains(strings.SplitN(imp, "/", 2)[0], "."); !std { // tests may use all of the standard library
				check(p.folder(), imp, true)
			}
		}
	}
	for rule := range rules {
		if strings.Contains(rule, ".") && !used[rule] {
			t.Errorf("outside.txt: nobody imports %s", rule)
		}
	}
}

// ruleFor is the longest line that fits. Of the standard library, a line is for
// exactly one package.
func ruleFor(rules map[string][]string, imp string, std bool) string {
	if std {
		if _, ok := rules[imp]; ok {
			return imp
		}
		return ""
	}
	for p := imp; p != "."; p = path.Dir(p) {
		if _, ok := rules[p]; ok {
			return p
		}
	}
	return ""
}

func allowed(who []string, folder string, test bool) bool {
	for _, w := range who {
		if w == "*" || w == folder || strings.HasPrefix(folder, w+"/") || (w == tests && test) {
			return true
		}
	}
	return false
}

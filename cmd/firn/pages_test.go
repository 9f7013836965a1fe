package main

import (
	"errors"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/firn-backup/firn/internal/glacierserver"
	"github.com/firn-backup/firn/internal/mustrun"
	"github.com/firn-backup/firn/test/s3server"
)

// TestComingFrom runs the pages of docs/coming-from: of every table with a column "Firn" the commands in it, from
// top to bottom, after what the page's comment "setup" has. A command that is followed by "(exit N)" must exit
// with that; all others with 0. In a column "Without Firn" are all the commands that there are, and there is no firn for them. A comment
// "clock TIME" sets the service's clock, for what comes after it. Pages whose first line names programs in a comment "needs" need these; moto is a server of SNS.
func TestComingFrom(t *testing.T) {
	t.Parallel()
	pages, err := filepath.Glob("../../docs/coming-from/*.md")
	if err != nil || len(pages) < 6 {
		t.Fatalf("%d pages, %v", len(pages), err)
	}
	for _, page := range pages {
		t.Run(strings.TrimSuffix(filepath.Base(page), ".md"), func(t *testing.T) {
			t.Parallel()
			text, err := os.ReadFile(page)
			if err != nil {
				t.Fatal(err)
			}
			runPage(t, string(text))
		})
	}
}

// TestGlacierGet: archives whose names are one path, or of which one would be another's directory, or that no file system takes, are all got.
func TestGlacierGet(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("L", 900)
	runPage(t, `<!-- needs python3 -->
<!-- setup
mkdir -p .config/firn
printf '[vault.v]\nurl = "glacier://us-east-1/v"\n' >.config/firn/config.toml
firn vault create v
for n in a a/b a/b/c x/y x /x/y ../x/y x .. / dup dup `+long+"1 "+long+`2; do echo "$n" | firn archive upload v - --name "$n"; done
-->
<!-- clock 2026-11-03T00:00:00Z -->
| what | Without Firn |
|---|---|
| all of them | `+"`python3 $DOCS/howto/glacier-get.py us-east-1 v got >printed; test $(find got -type f \\| wc -l) = 14; test $(wc -l <printed) = 14`"+` |
| again, nothing is asked for | `+"`python3 $DOCS/howto/glacier-get.py us-east-1 v got \\| sort >again; sort printed \\| cmp - again`"+` |
| what they hold | `+"`for n in a a/b a/b/c x/y x /x/y ../x/y x .. / dup dup "+long+"1 "+long+"2; do echo \"$n\"; done \\| sort >want; find got -type f -exec cat {} + \\| sort \\| cmp - want`"+` |
`)
}

func runPage(t *testing.T, text string) {
	sns := "AWS_ENDPOINT_URL_SNS=http://127.0.0.1:9" // nobody
	if m := regexp.MustCompile(`(?m)^<!-- needs (.*) -->$`).FindStringSubmatch(text); m != nil {
		for _, p := range strings.Fields(m[1]) {
			if p != "moto" {
				mustrun.Tool(t, p)
				continue
			}
			server, err := moto()
			if errors.Is(err, s3server.ErrMissing) {
				mustrun.Skip(t, err.Error())
			}
			if err != nil {
				t.Fatal(err)
			}
			sns = "AWS_ENDPOINT_URL_SNS=" + server.URL
		}
	}
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	docs, err := filepath.Abs("../../docs")
	if err != nil {
		t.Fatal(err)
	}
	env := append(os.Environ(), sns, "DOCS="+docs, "HOME="+dir, "PATH="+filepath.Join(dir, "bin")+":"+os.Getenv("PATH"), "TZ=UTC", "LC_ALL=C.UTF-8", "XDG_CONFIG_HOME=", "XDG_STATE_HOME=", "XDG_DATA_HOME=", "XDG_CACHE_HOME=",
		"AWS_ENDPOINT_URL_GLACIER="+pageServer(t, dir), "AWS_ACCESS_KEY_ID=AKIDEXAMPLE", "AWS_SECRET_ACCESS_KEY=secret",
		"AWS_EC2_METADATA_DISABLED=true", "AWS_CONFIG_FILE=/dev/null", "AWS_SHARED_CREDENTIALS_FILE=/dev/null")
	sh := func(script string, want int, more ...string) {
		t.Helper()
		cmd := exec.Command("sh", "-euc", script)
		cmd.Dir, cmd.Env = dir, append(env, more...)
		out, err := cmd.CombinedOutput()
		got := 0
		if e := (*exec.ExitError)(nil); errors.As(err, &e) {
			got = e.ExitCode()
		} else if err != nil {
			t.Fatal(err)
		}
		if got != want {
			t.Fatalf("$ %s\n%sexit code %d, want %d", script, out, got, want)
		}
	}
	if _, rest, ok := strings.Cut(text, "<!-- setup\n"); ok {
		setup, _, _ := strings.Cut(rest, "-->")
		sh(setup, 0)
	}
	n := 0
	for _, c := range pageCommands(text) {
		if c.without {
			sh("! command -v firn; "+c.text, c.exit, "PATH="+withoutFirn())
		} else {
			sh(c.text, c.exit)
		}
		n++
	}
	if n < 3 {
		t.Errorf("only %d commands were found in the page", n)
	}
}

func pageServer(t *testing.T, dir string) string {
	clock := filepath.Join(dir, ".clock")
	if err := os.WriteFile(clock, []byte("2026-11-01T00:00:00Z\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := glacierserver.New(glacierserver.Options{
		Root: filepath.Join(dir, ".service"), Clock: &glacierserver.Clock{File: clock}, MaxVaults: glacierserver.DefaultMaxVaults,
		Account: glacierserver.DefaultAccount, Region: glacierserver.DefaultRegion, BodyTimeout: glacierserver.DefaultBodyTimeout,
	})
	if err != nil {
		t.Fatal(err)
	}
	h := httptest.NewServer(s)
	t.Cleanup(func() {
		h.Close()
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return h.URL
}

// withoutFirn is PATH without the directories that have a firn.
func withoutFirn() string {
	var list []string
	for _, dir := range filepath.SplitList(os.Getenv("PATH")) {
		if _, err := os.Stat(filepath.Join(dir, "firn")); err != nil {
			list = append(list, dir)
		}
	}
	return strings.Join(list, string(filepath.ListSeparator))
}

type pageCommand struct {
	text    string
	exit    int
	without bool // of a firn
}

// pageCommands are the commands in the column "Firn" of a page's tables.
func pageCommands(text string) []pageCommand {
	code := regexp.MustCompile("`([^`]+)`(?: \\(exit ([0-9]+)\\))?")
	var list []pageCommand
	column, without := -1, false
	clock := regexp.MustCompile(`^<!-- clock (\S+) -->$`)
	for line := range strings.SplitSeq(text, "\n") {
		cells := tableCells(line)
		if cells == nil {
			if m := clock.FindStringSubmatch(line); m != nil {
				list = append(list, pageCommand{text: "echo " + m[1] + " >.clock"})
			}
			column = -1
			continue
		}
		if column < 0 {
			column = len(cells) // not a table of commands
			for i, c := range cells {
				if c == "Firn" || c == "Without Firn" {
					column, without = i, c != "Firn"
				}
			}
			continue
		}
		if column >= len(cells) || strings.Trim(cells[column], "-:") == "" {
			continue
		}
		for _, m := range code.FindAllStringSubmatch(cells[column], -1) {
			if !without && !strings.Contains(m[1], "firn ") && !strings.Contains(m[1], "glacier ") {
				continue // a word, and not a command
			}
			exit, _ := strconv.Atoi(m[2]) // none is 0
			list = append(list, pageCommand{m[1], exit, without})
		}
	}
	return list
}

// tableCells are the cells of a line of a Markdown table; nil: it is none. A bar in a cell is written "\|".
func tableCells(line string) []string {
	line = strings.TrimSpace(line)
	if !strings.HasPrefix(line, "|") || !strings.HasSuffix(line, "|") || len(line) < 2 {
		return nil
	}
	line = strings.ReplaceAll(line[1:len(line)-1], `\|`, "\x00")
	cells := strings.Split(line, "|")
	for i := range cells {
		cells[i] = strings.ReplaceAll(strings.TrimSpace(cells[i]), "\x00", "|")
	}
	return cells
}

// TestOlderTools holds docs/reference/older-tools.md: no cell of its tables is empty, and every test that it names exists, and so does
// every command and every flag of Firn's.
// What is not done says so and why.
func TestOlderTools(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../docs/reference/older-tools.md")
	if err != nil {
		t.Fatal(err)
	}
	tests, manual := testNames(t), manualPages(t)
	name := regexp.MustCompile("`([^`]+)`")
	rows := 0
	for n, line := range strings.Split(string(text), "\n") {
		cells := tableCells(line)
		if cells == nil {
			continue
		}
		if len(cells) != 3 {
			t.Errorf("line %d: %d cells", n+1, len(cells))
			continue
		}
		for i, c := range cells {
			if c == "" {
				t.Errorf("line %d: cell %d is empty", n+1, i+1)
			}
		}
		if cells[2] == "shown by" || strings.Trim(cells[2], "-") == "" {
			continue
		}
		rows++
		if !strings.Contains(cells[1], "glacier ") && !strings.Contains(cells[0], "tar_options") { // not of other programs
			for _, m := range regexp.MustCompile(`--[a-z][a-z-]+|firn [a-z]+( [a-z]+)?`).FindAllString(cells[1], -1) {
				w := strings.Fields(m)
				if strings.Contains(manual, m) || len(w) == 3 && strings.Contains(manual, strings.Join(w[:2], " ")) { // the third may be an argument
					continue
				}
				t.Errorf("line %d: Firn has no %s", n+1, m)
			}
		}
		found := name.FindAllStringSubmatch(cells[2], -1)
		if reason, no := strings.CutPrefix(cells[1], "Not done:"); no {
			if len(strings.TrimSpace(reason)) < 10 {
				t.Errorf("line %d: no reason is given", n+1)
			}
		} else if len(found) == 0 {
			t.Errorf("line %d: it names no test: %s", n+1, cells[2])
		}
		for _, m := range found {
			if !tests[m[1]] {
				t.Errorf("line %d: there is no test %s", n+1, m[1])
			}
		}
	}
	if rows < 150 {
		t.Errorf("only %d rows", rows)
	}
}

// manualPages are the texts of all manual pages.
func manualPages(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if out, err := exec.Command("firn", "man", dir).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	pages, err := filepath.Glob(filepath.Join(dir, "*.1"))
	if err != nil || len(pages) < 50 {
		t.Fatalf("%d pages, %v", len(pages), err)
	}
	var all strings.Builder
	for _, p := range pages {
		text, err := os.ReadFile(p)
		if err != nil {
			t.Fatal(err)
		}
		all.Write(text)
	}
	return strings.ReplaceAll(all.String(), `\`, "")
}

// testNames are the scripts, pages and test functions of the project; a function has its package's name before it.
func testNames(t *testing.T) map[string]bool {
	names := map[string]bool{}
	err := filepath.WalkDir("../..", func(path string, d os.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && d.Name() != ".." && strings.HasPrefix(d.Name(), ".") && d.Name() != ".":
			return filepath.SkipDir
		case d.IsDir():
		case strings.HasSuffix(path, ".txtar"):
			names[strings.TrimSuffix(filepath.Base(path), ".txtar")] = true
		case strings.Contains(path, "docs/coming-from/") && strings.HasSuffix(path, ".md"):
			names["coming-from/"+strings.TrimSuffix(filepath.Base(path), ".md")] = true
		case strings.HasSuffix(path, "_test.go"), strings.HasSuffix(filepath.Dir(path), "test"):
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			for _, m := range regexp.MustCompile(`(?m)^func ((?:Test|Fuzz)\w*)\(`).FindAllStringSubmatch(string(data), -1) {
				names[filepath.Base(filepath.Dir(path))+"."+m[1]] = true
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

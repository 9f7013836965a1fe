package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestLinks holds the links between pages: what they lead to is there, README leads to every page, and the list of decisions has all of
// them, with their titles.
func TestLinks(t *testing.T) {
	t.Parallel()
	root := filepath.Join("..", "..")
	pages := map[string]string{}
	for _, top := range []string{"README.md", "CONTRIBUTING.md", "docs"} {
		err := filepath.WalkDir(filepath.Join(root, top), func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || filepath.Ext(path) != ".md" {
				return err
			}
			text, err := os.ReadFile(path)
			pages[path] = string(text)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	links := map[string]map[string]bool{} // page: what it leads to
	link := regexp.MustCompile(`\]\(([^)#\s]*)(#[^)\s]*)?\)`)
	for page, text := range pages {
		links[page] = map[string]bool{}
		for _, m := range link.FindAllStringSubmatch(text, -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			to := page
			if m[1] != "" {
				to = filepath.Join(filepath.Dir(page), m[1])
			}
			links[page][to] = true
			if _, err := os.Stat(to); err != nil {
				t.Errorf("%s: %s: %v", page, m[0], err)
			} else if m[2] != "" && !headings(pages[to])[m[2][1:]] {
				t.Errorf("%s: %s: there is no such heading", page, m[0])
			}
		}
	}
	readme, decisions := filepath.Join(root, "README.md"), filepath.Join(root, "docs", "adr", "README.md")
	for page, text := range pages {
		title, _, _ := strings.Cut(strings.TrimPrefix(text, "# "), "\n")
		number, title, ok := strings.Cut(title, ": ")
		switch {
		case page == readme || links[readme][page]:
		case filepath.Dir(page) != filepath.Dir(decisions):
			t.Errorf("%s: README does not lead there", page)
		case !ok || !strings.Contains(pages[decisions], "- "+number+": ["+title+"]("+filepath.Base(page)+")\n"):
			t.Errorf("%s: it is not in the list of decisions by its title", page)
		}
	}
}

// headings are the names that a page's headings are led to by.
func headings(text string) map[string]bool {
	found := map[string]bool{}
	no := regexp.MustCompile(`[^\w\- ]`)
	for line := range strings.Lines(text) {
		if name := strings.TrimLeft(line, "#"); name != line {
			found[strings.ReplaceAll(no.ReplaceAllString(strings.ToLower(strings.TrimSpace(name)), ""), " ", "-")] = true
		}
	}
	return found
}

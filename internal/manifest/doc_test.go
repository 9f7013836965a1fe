package manifest_test

import (
	"bytes"
	"encoding/json"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/firn-backup/firn/internal/manifest"
)

// TestFormatPage holds the tables of keys in docs/design/format.md against the
// frozen sample, which has them all, and against what the reader knows.
func TestFormatPage(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../../docs/design/format.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, ok := strings.Cut(string(page), "\n## 6. The manifest\n")
	section, _, ok2 := strings.Cut(section, "\n## 7.")
	if !ok || !ok2 {
		t.Fatal("no section 6")
	}
	documented := map[string]bool{}
	key := regexp.MustCompile("`([a-z0-9-]+)`")
	for _, line := range strings.Split(section, "\n") {
		if !strings.HasPrefix(line, "| `") {
			continue
		}
		first, _, _ := strings.Cut(line[2:], "|")
		for _, m := range key.FindAllStringSubmatch(first, -1) {
			documented[m[1]] = true
			if !manifest.KnownMust(m[1]) {
				t.Errorf("%s is in the page, but the reader does not know it", m[1])
			}
		}
	}
	var sample []byte
	for _, file := range []string{"testdata/v1.jsonl", "testdata/v1-stream.jsonl"} {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		sample = append(sample, b...)
	}
	sampled := map[string]bool{}
	for _, line := range bytes.Split(bytes.TrimSpace(sample), []byte("\n")) {
		var keys map[string]json.RawMessage
		if err := json.Unmarshal(line, &keys); err != nil {
			t.Fatal(err)
		}
		for k := range keys {
			sampled[k] = true
			if !documented[k] && !documented[strings.TrimSuffix(k, "64")] {
				t.Errorf("%s is in the sample, but not in the page", k)
			}
		}
	}
	for k := range documented {
		if !sampled[k] && !sampled[k+"64"] {
			t.Errorf("%s is in the page, but not in the sample", k)
		}
	}
}

package conformance

import (
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// What coverage.md says of the suite that all clients run is what stands at the suite's tests.
func TestCoverage(t *testing.T) {
	t.Parallel()
	made := map[int]bool{}
	number := regexp.MustCompile(`\[(\d+)\]`)
	for _, file := range []string{"boto3_suite.py", "boto3_jobs.py"} {
		text, err := os.ReadFile(filepath.Join("clients", file))
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.SplitSeq(string(text), "\n") {
			if !strings.HasPrefix(strings.TrimSpace(line), "def test_") {
				continue
			}
			for _, m := range number.FindAllStringSubmatch(line, -1) {
				n, _ := strconv.Atoi(m[1]) // digits
				made[n] = true
			}
		}
	}
	text, err := os.ReadFile("coverage.md")
	if err != nil {
		t.Fatal(err)
	}
	next := 1
	for line := range strings.SplitSeq(string(text), "\n") {
		cells := strings.Split(strings.Trim(line, "| "), " | ")
		n, err := strconv.Atoi(cells[0])
		if err != nil || len(cells) < 4 {
			continue
		}
		if n != next {
			t.Errorf("check %d follows %d", n, next-1)
		}
		next = n + 1
		all := cells[1] == "yes" && cells[2] == "yes" && cells[3] == "yes"
		if all != made[n] {
			t.Errorf("check %d: the table says %v, and the suite's tests name it: %v", n, cells[1:4], made[n])
		}
		if !all && (len(cells) < 5 || cells[4] == "") {
			t.Errorf("check %d: not by all clients, and no reason is given", n)
		}
	}
	if next != 71 {
		t.Errorf("the table ends with %d", next-1)
	}
}

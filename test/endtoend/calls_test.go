package endtoend_test

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/firn-backup/firn/internal/mustrun"
)

// A run over a tree that has not changed looks at every name once and opens
// no file: counted in system calls, whatever the machine's speed.
func TestNoChangeCostsOneLookAName(t *testing.T) {
	t.Parallel()
	mustrun.Tool(t, "strace")
	m := newMachine(t, memory(t))
	const dirs, files = 40, 100
	for d := range dirs {
		must(t, os.MkdirAll(m.path("src", fmt.Sprint(d)), 0o755))
		for f := range files {
			must(t, os.WriteFile(m.path("src", fmt.Sprint(d), fmt.Sprint(f)), []byte("content\n"), 0o644))
		}
	}
	// Files so young that their times are not trusted yet are looked into once more.
	m.must("backup", "src")
	m.must("backup", "src")
	out := m.path("strace.out")
	cmd := m.command(t.Context(), "backup", "src")
	cmd.Args = append([]string{"strace", "-f", "-qq", "-c", "-o", out}, cmd.Args...)
	cmd.Path = "/usr/bin/strace"
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	calls := countCalls(t, out)
	t.Log(calls)
	looks := calls["newfstatat"] + calls["statx"] + calls["lstat"]
	if entries := dirs*files + dirs + 1; looks < entries || looks > entries+entries/10+200 {
		t.Errorf("%d entries, %d looks", entries, looks)
	}
	if opens := calls["openat"] + calls["openat2"] + calls["open"]; opens > 2*dirs+200 {
		t.Errorf("%d directories, %d opens", dirs, opens)
	}
	if n := calls["llistxattr"] + calls["listxattr"] + calls["flistxattr"] + calls["readlink"] + calls["readlinkat"]; n > 100 {
		t.Errorf("%d calls for attributes and links", n)
	}
	if n := calls["fsync"] + calls["fdatasync"]; n > 40 {
		t.Errorf("%d syncs", n)
	}
}

// countCalls reads the table that strace -c writes.
func countCalls(t *testing.T, file string) map[string]int {
	t.Helper()
	text, err := os.ReadFile(file)
	must(t, err)
	calls := map[string]int{}
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		if len(f) < 5 || f[len(f)-1] == "total" {
			continue
		}
		if n, err := strconv.Atoi(f[3]); err == nil {
			calls[f[len(f)-1]] = n
		}
	}
	return calls
}

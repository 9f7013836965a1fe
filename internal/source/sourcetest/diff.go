package sourcetest

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/firn-backup/firn/internal/mustrun"
)

// Diff fails the test unless the trees a and b hold the same: names, types,
// contents, modes, owners, times to the nanosecond, links, hard links, ACLs
// and extended attributes, as rsync sees them, each way. What lies below
// "deep" directly in them, which rsync cannot reach, it compares itself.
func Diff(t testing.TB, a, b string) {
	t.Helper()
	if s := Differences(t, a, b); s != "" {
		t.Errorf("%s and %s differ:\n%s", a, b, s)
	}
}

// Differences is what Diff would complain about, empty when there is nothing.
func Differences(t testing.TB, a, b string) string {
	t.Helper()
	mustrun.Tool(t, "rsync")
	Removable(t, a)
	Removable(t, b)
	var s strings.Builder
	for _, way := range [][2]string{{a, b}, {b, a}} {
		cmd := exec.Command("rsync", "-aHAXni", "--checksum", "--delete", "--modify-window=-1", "--8-bit-output", "--exclude=/deep", way[0]+"/", way[1]+"/")
		var out bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &out
		if err := cmd.Run(); err != nil {
			t.Fatalf("rsync: %v\n%s", err, &out)
		}
		if out.Len() > 0 {
			s.WriteString("from " + way[0] + ":\n" + out.String())
		}
	}
	deepA, deepB := filepath.Join(a, "deep"), filepath.Join(b, "deep")
	if exists(deepA) || exists(deepB) {
		if !exists(deepA) || !exists(deepB) {
			s.WriteString("only one has deep\n")
		} else if d := cmp.Diff(portable(Read(t, deepA)), portable(Read(t, deepB))); d != "" {
			s.WriteString("deep: " + d)
		}
	}
	return s.String()
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

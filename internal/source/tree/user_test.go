package tree

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/firn-backup/firn/internal/mustrun"
	"github.com/firn-backup/firn/internal/snapshot"
	"github.com/firn-backup/firn/internal/source"
	"github.com/firn-backup/firn/internal/source/sourcetest"
)

func ignore([]source.Item) error { return nil }

// asUser is the environment variable that names the fixture when the test
// binary runs again as a user who may not read everything.
const asUser = "FIRN_TEST_AS_USER"

// TestAsUser makes a tree of root's and has nobody walk it.
func TestAsUser(t *testing.T) {
	if dir := os.Getenv(asUser); dir != "" {
		walkAsUser(t, dir)
		return
	}
	t.Parallel()
	mustrun.Root(t)
	dir, err := os.MkdirTemp("", "firn-as-user-") // t.TempDir's parents are closed to others
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	makeTree(t, dir, "a", "closed/x", "listed/x", "listed/y/", "passed/x", "secret", "tree/z")
	for name, mode := range map[string]fs.FileMode{".": 0o755, "closed": 0o700, "listed": 0o744, "passed": 0o711, "secret": 0o600} {
		if err := os.Chmod(filepath.Join(dir, name), mode); err != nil {
			t.Fatal(err)
		}
	}
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(dir, "tree/test")
	if err := os.WriteFile(program, self, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, "-test.run=^TestAsUser$", "-test.v")
	cmd.Env = append(os.Environ(), asUser+"="+dir)
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: TestAsUser") {
		t.Errorf("%v\n%s", err, out)
	}
}

func walkAsUser(t *testing.T, dir string) {
	items := sourcetest.Walk(t, open(t, Options{Paths: []string{dir}, Exclude: []string{"/tree/test"}}))
	wantPaths(t, sourcetest.Paths(items, dir), ".", "a", "closed", "listed", "listed/x", "listed/y", "passed", "secret", "tree", "tree/z")
	for i, p := range sourcetest.Paths(items, dir) {
		it := items[i]
		switch p {
		case "closed", "passed": // the directories are known, their contents are not
			if !errors.Is(it.Err, fs.ErrPermission) || !it.Known || it.Gone || it.Entry.Type != snapshot.Dir || it.Entry.Mode == 0 {
				t.Errorf("%s: %+v", p, it)
			}
		case "listed/x", "listed/y": // names without anything else
			if !errors.Is(it.Err, fs.ErrPermission) || it.Known || it.Gone || it.Entry.Type != 0 {
				t.Errorf("%s: %+v", p, it)
			}
		default:
			if it.Err != nil {
				t.Error(it.Err)
			}
		}
		if p == "secret" {
			if _, err := open(t, Options{Paths: []string{dir}}).Open(&it.Entry); !errors.Is(err, fs.ErrPermission) {
				t.Errorf("a file that cannot be read: %v", err)
			}
		}
	}
	// A root in a directory that can be passed but not listed is fine; roots that cannot be read are not.
	if err := open(t, Options{Paths: []string{dir + "/passed/x"}}).Walk(context.Background(), ignore); err != nil {
		t.Error(err)
	}
	items = sourcetest.Walk(t, open(t, Options{Paths: []string{dir, dir + "/passed/x"}, Exclude: []string{"[!p]*"}}))
	wantPaths(t, sourcetest.Paths(items, dir), ".", "passed", "passed/x")
	for _, p := range []string{"closed", "listed", "passed", "secret", "closed/x"} {
		err := open(t, Options{Paths: []string{dir + "/tree", filepath.Join(dir, p)}}).Walk(context.Background(), func([]source.Item) error {
			t.Error("called")
			return nil
		})
		if !errors.Is(err, fs.ErrPermission) {
			t.Errorf("root %s: %v", p, err)
		}
	}
}

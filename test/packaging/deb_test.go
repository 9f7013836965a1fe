// Package packaging tries what is installed: the Debian package, and make install.
package packaging

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	_ "github.com/firn-backup/firn/internal/cli" // what is built: results must not be taken from the cache when it changes
	"github.com/firn-backup/firn/internal/mustrun"
)

// run runs a program in the project's root and returns what it prints.
func run(t *testing.T, env []string, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Dir = filepath.Join("..", "..")
	cmd.Env = append(os.Environ(), env...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
	return string(out)
}

// A package is built, installed into a root of its own by dpkg, works there, and goes again without a trace.
func TestDeb(t *testing.T) {
	t.Parallel()
	mustrun.Tool(t, "make", "dpkg-deb", "dpkg", "gzip", "man", "systemd-analyze", "fakeroot")
	dir := t.TempDir()
	out, root := filepath.Join(dir, "out"), filepath.Join(dir, "root")
	run(t, []string{"GOFLAGS="}, "make", "deb", "OUT="+out, "BIN="+filepath.Join(dir, "bin"), "VERSION=v1.2.3-4-gabcdef0")
	debs, err := filepath.Glob(filepath.Join(out, "*.deb"))
	if err != nil || len(debs) != 1 || !strings.HasPrefix(filepath.Base(debs[0]), "firn_1.2.3+4+gabcdef0_") {
		t.Fatalf("packages %q, %v", debs, err)
	}
	for _, d := range []string{"var/lib/dpkg/updates", "var/lib/dpkg/info", "tmp"} {
		if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, f := range []string{"status", "available"} {
		if err := os.WriteFile(filepath.Join(root, "var/lib/dpkg", f), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	dpkg := func(args ...string) {
		t.Helper()
		run(t, []string{"PATH=" + os.Getenv("PATH") + ":/usr/sbin:/sbin"}, "fakeroot", append([]string{"dpkg", "--root=" + root, "--log=/dev/null",
			"--force-script-chrootless", "--force-not-root", "--force-depends"}, args...)...)
	}
	dpkg("-i", debs[0])
	firn := filepath.Join(root, "usr/bin/firn")
	version := run(t, nil, firn, "version")
	if !strings.Contains(version, "v1.2.3-4-gabcdef0") || !regexp.MustCompile(`[0-9a-f]{12}`).MatchString(version) || !regexp.MustCompile(`20\d\d-\d\d-\d\d`).MatchString(version) {
		t.Errorf("firn version says neither version, commit nor date:\n%s", version)
	}
	page := run(t, []string{"MANPAGER=cat", "LC_ALL=C"}, "man", "-l", filepath.Join(root, "usr/share/man/man1/firn-backup.1.gz"))
	if !strings.Contains(page, "firn-backup") {
		t.Errorf("manual page:\n%s", page)
	}
	for _, f := range []string{
		"usr/share/bash-completion/completions/firn", "usr/share/doc/firn/howto/restore.md", "usr/share/doc/firn/coming-from/hopkiw.md", "usr/share/doc/firn/design/format.md", "usr/share/doc/firn/copyright",
		"usr/lib/systemd/system/firn-run.timer", "usr/lib/systemd/user/firn-run.service",
	} {
		if info, err := os.Stat(filepath.Join(root, f)); err != nil || info.Size() == 0 {
			t.Errorf("%s: %v", f, err)
		}
	}
	// The units name what the package brings.
	unit, err := os.ReadFile(filepath.Join(root, "usr/lib/systemd/system/firn-run.service"))
	if err != nil || !strings.Contains(string(unit), "\nExecStart=/usr/bin/firn run --quiet\n") {
		t.Errorf("%s, %v", unit, err)
	}
	verify := exec.Command("systemd-analyze", "verify", "--man=no", filepath.Join(root, "usr/lib/systemd/system/firn-run.timer"))
	if said, _ := verify.CombinedOutput(); strings.Contains(strings.ReplaceAll(string(said), "/usr/bin/firn is not executable", ""), "firn-run.timer:") {
		t.Errorf("systemd-analyze: %s", said)
	}
	dpkg("--purge", "firn")
	_ = filepath.WalkDir(filepath.Join(root, "usr"), func(path string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			t.Errorf("%s stays behind", path)
		}
		return nil
	})
}

// make install makes the same program, under any prefix.
func TestInstall(t *testing.T) {
	t.Parallel()
	mustrun.Tool(t, "make")
	dir := t.TempDir()
	run(t, []string{"GOFLAGS="}, "make", "install", "DESTDIR="+dir, "PREFIX=/opt/firn", "BIN="+filepath.Join(dir, "bin"))
	if out := run(t, nil, filepath.Join(dir, "opt/firn/bin/firn"), "version"); !strings.Contains(out, "firn") {
		t.Errorf("%s", out)
	}
	if _, err := os.Stat(filepath.Join(dir, "opt/firn/share/man/man1/firn.1")); err != nil {
		t.Error(err)
	}
}

// Package endtoend_test drives the real binary as a user does: whole trees in
// and out, kills, memory, and the usual programs as judges.
package endtoend_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	// What the binary is made of: without it, results of these tests would be taken from go's cache
	// although the program has changed.
	_ "github.com/firn-backup/firn/internal/cli"
)

var build = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "firn-endtoend-")
	if err != nil {
		return "", err
	}
	bin := filepath.Join(dir, "firn")
	cmd := exec.Command("go", "build", "-o", bin, "github.com/firn-backup/firn/cmd/firn")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", errors.New(string(out))
	}
	return bin, nil
})

func TestMain(m *testing.M) {
	if os.Getenv(weighEnv) != "" {
		os.Exit(weigh())
	}
	code := m.Run()
	stopServers()
	if bin, err := build(); err == nil {
		os.RemoveAll(filepath.Dir(bin))
	}
	os.Exit(code)
}

// machine is a home directory with everything in it.
type machine struct {
	t    *testing.T
	bin  string
	home string
	env  []string
	now  string // FIRN_NOW; empty: the real time

	backup []string // what killAfter runs
}

func newMachine(t *testing.T, home string) *machine {
	t.Helper()
	bin, err := build()
	must(t, err)
	must(t, os.MkdirAll(home, 0o755))
	return &machine{t: t, bin: bin, home: home}
}

// memory is a directory in memory where there is one with room for all tests, for what writes and syncs much.
func memory(t *testing.T) string {
	t.Helper()
	var fs syscall.Statfs_t
	if err := syscall.Statfs("/dev/shm", &fs); err != nil || fs.Bavail*uint64(fs.Bsize) < 8<<30 {
		return t.TempDir()
	}
	dir, err := os.MkdirTemp("/dev/shm", "firn-test-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (m *machine) path(elem ...string) string {
	return filepath.Join(append([]string{m.home}, elem...)...)
}

func (m *machine) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, m.bin, args...)
	cmd.Dir = m.home
	cmd.Env = []string{"HOME=" + m.home, "PATH=" + os.Getenv("PATH"), "TZ=UTC"}
	cmd.Env = append(cmd.Env, m.env...)
	if m.now != "" {
		cmd.Env = append(cmd.Env, "FIRN_NOW="+m.now)
	}
	return cmd
}

// result is one finished run.
type result struct {
	code           int
	stdout, stderr string
}

func (m *machine) run(args ...string) result {
	m.t.Helper()
	return m.finish(m.command(context.Background(), args...))
}

// finish runs a program to its end.
func (m *machine) finish(cmd *exec.Cmd) result {
	m.t.Helper()
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		m.t.Fatal(err)
	}
	return result{code: cmd.ProcessState.ExitCode(), stdout: out.String(), stderr: errs.String()}
}

// must runs firn and wants it to succeed.
func (m *machine) must(args ...string) result {
	m.t.Helper()
	r := m.run(args...)
	if r.code != 0 {
		m.t.Fatalf("firn %s: exit %d\n%s", strings.Join(args, " "), r.code, r.stderr)
	}
	return r
}

// summary runs firn with --json and decodes the data of its summary event.
func (m *machine) summary(into any, args ...string) result {
	m.t.Helper()
	r := m.must(append(args, "--json")...)
	d := json.NewDecoder(strings.NewReader(r.stdout))
	for d.More() {
		var e struct {
			Event string          `json:"event"`
			Data  json.RawMessage `json:"data"`
		}
		must(m.t, d.Decode(&e))
		if e.Event == "summary" {
			must(m.t, json.Unmarshal(e.Data, into))
			return r
		}
	}
	m.t.Fatalf("firn %s: no summary", strings.Join(args, " "))
	return r
}

func (m *machine) vault() string { return m.path(".local/share/firn/vault/archives") }

// shell runs a pipeline and wants it to succeed.
func (m *machine) shell(script string) {
	m.t.Helper()
	cmd := exec.Command("bash", "-euo", "pipefail", "-c", script)
	cmd.Dir = m.home
	cmd.Env = append(os.Environ(), "HOME="+m.home)
	if out, err := cmd.CombinedOutput(); err != nil {
		m.t.Fatalf("%s\n%v\n%s", script, err, out)
	}
}

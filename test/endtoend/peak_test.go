package endtoend_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"syscall"
	"testing"
)

// weighEnv has this test program run another one, and tell its peak memory.
const weighEnv = "FIRN_TEST_WEIGH"

// weigh runs the program in its arguments and writes the peak memory of that, in bytes, to its descriptor 3.
//
// What the kernel tells of a child begins with the peak of whoever started it: a test program in which much goes on
// must not start what it weighs.
func weigh() int {
	cmd := exec.Command(os.Args[1], os.Args[2:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	if err := cmd.Run(); cmd.ProcessState == nil {
		fmt.Fprintln(os.Stderr, err)
		return 125
	}
	if ru, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage); ok {
		fmt.Fprint(os.NewFile(3, "peak"), ru.Maxrss<<10)
	}
	return cmd.ProcessState.ExitCode()
}

// weighed runs firn, which must succeed, and returns its peak memory, in bytes, too.
func (m *machine) weighed(args ...string) (result, int64) {
	m.t.Helper()
	self, err := os.Executable()
	must(m.t, err)
	r, w, err := os.Pipe()
	must(m.t, err)
	defer r.Close()
	cmd := m.command(context.Background(), args...)
	cmd.Args = append([]string{self}, cmd.Args...)
	cmd.Path, cmd.ExtraFiles = self, []*os.File{w}
	cmd.Env = append(cmd.Env, weighEnv+"=1")
	got := m.finish(cmd)
	must(m.t, w.Close())
	told, err := io.ReadAll(r)
	if got.code != 0 {
		m.t.Fatalf("firn %q: exit %d\n%s", args, got.code, got.stderr)
	}
	must(m.t, err)
	peak, err := strconv.ParseInt(string(told), 10, 64)
	must(m.t, err)
	return got, peak
}

// peakOf is the peak memory of a process that runs, in bytes, without that of whoever started it.
func peakOf(t *testing.T, pid int) int64 {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if errors.Is(err, os.ErrNotExist) {
		return 0 // no such thing here
	}
	must(t, err)
	var kib int64
	if f := regexp.MustCompile(`(?m)^VmHWM:\s*(\d+) kB$`).FindSubmatch(status); f != nil {
		kib, err = strconv.ParseInt(string(f[1]), 10, 64)
		must(t, err)
	}
	return kib << 10
}

// Of the peak of what is weighed nothing is the test program's.
func TestWeighed(t *testing.T) {
	t.Parallel()
	much := make([]byte, 150<<20)
	for i := 0; i < len(much); i += 4 << 10 {
		much[i] = 1
	}
	m := newMachine(t, t.TempDir())
	if _, peak := m.weighed("version"); peak < 1<<20 || peak > 120<<20 {
		t.Errorf("firn version took %d MiB", peak>>20)
	}
	much[0]++
}

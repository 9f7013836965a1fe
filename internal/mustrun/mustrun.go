// Package mustrun makes a test that needs something from outside skip where it
// is missing, and fail instead where the environment says FIRN_MUST_RUN=1, as
// continuous integration does: there a skipped test would be a hole. It is
// imported by tests only.
package mustrun

import (
	"os"
	"os/exec"
	"testing"
)

// Tool skips, or fails, the test unless all the programs are on PATH.
func Tool(t testing.TB, names ...string) {
	t.Helper()
	for _, name := range names {
		if _, err := exec.LookPath(name); err != nil {
			Skip(t, name+" is not installed")
		}
	}
}

// Root skips, or fails, the test unless it runs as root.
func Root(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		Skip(t, "needs root")
	}
}

// Skip skips the test, or fails it under FIRN_MUST_RUN=1.
func Skip(t testing.TB, why string) {
	t.Helper()
	if os.Getenv("FIRN_MUST_RUN") == "1" {
		t.Fatalf("must run here, but: %s", why)
	}
	t.Skip(why)
}

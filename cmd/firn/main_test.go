package main

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"firn": main})
}

// TestScript runs every script of testdata/script against the real program,
// each with a home of its own. $HOME is $WORK/home. `exits N command…` demands
// an exit code.
func TestScript(t *testing.T) {
	t.Parallel()
	testscript.Run(t, testscript.Params{
		Dir: filepath.Join("testdata", "script"),
		Setup: func(e *testscript.Env) error {
			home := filepath.Join(e.WorkDir, "home")
			for _, v := range [][2]string{
				{"HOME", home}, {"TZ", "UTC"}, {"LC_ALL", "C.UTF-8"}, {"FIRN_MUST_RUN", os.Getenv("FIRN_MUST_RUN")},
			} {
				e.Setenv(v[0], v[1])
			}
			return os.MkdirAll(home, 0o700)
		},
		Cmds:                map[string]func(ts *testscript.TestScript, neg bool, args []string){"exits": exits},
		RequireExplicitExec: false,
		RequireUniqueNames:  true,
	})
}

// exits runs a command that must end with the given code: exits 64 firn frob.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE COMMAND ARGUMENT…")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec(args[1], args[2:]...)
	got := 0
	if e := (*exec.ExitError)(nil); errors.As(err, &e) {
		got = e.ExitCode()
	} else if err != nil {
		ts.Fatalf("%v", err)
	}
	if got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
}

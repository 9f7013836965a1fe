package program

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

func sh(script string) []string { return []string{"sh", "-c", script} }

func TestOutputAndEnv(t *testing.T) {
	t.Parallel()
	var got []string
	err := Run(t.Context(), Options{
		Argv: sh(`cat; echo "$FIRN_SET" >&2; printf 'no newline'`), Env: []string{"FIRN_SET=documents"}, Stdin: strings.NewReader("one\ntwo\r\n"),
		Line: func(s string) { got = append(got, s) },
	})
	if want := []string{"one", "two", "documents", "no newline"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("%q, %v", got, err)
	}
}

// A program that talks for ever, in one line or many, costs no memory.
func TestLongLines(t *testing.T) {
	t.Parallel()
	var longest, count int
	err := Run(t.Context(), Options{
		Argv: sh(`head -c 3000000 /dev/zero | tr '\0' x; echo; echo short`),
		Line: func(s string) { longest, count = max(longest, len(s)), count+1 },
	})
	if err != nil || longest != lineLimit || count != 2 {
		t.Errorf("%d lines of up to %d bytes, %v", count, longest, err)
	}
}

func TestFailures(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		argv []string
		want string
	}{
		{nil, "no program is named"},
		{[]string{""}, "no program is named"},
		{sh("exit 7"), "sh: exit status 7"},
		{sh("kill -9 $$"), "sh: signal: killed"},
		{[]string{"/nonexistent/hook", "secret"}, "/nonexistent/hook: cannot be run: no such file or directory"},
		{[]string{"no-such-program-of-firn", "secret"}, "no-such-program-of-firn: cannot be run: executable file not found in $PATH"},
	} {
		err := Run(t.Context(), Options{Argv: c.argv})
		if err == nil || err.Error() != c.want {
			t.Errorf("%q: %v", c.argv, err)
		}
	}
}

// What takes too long goes with all that it started, also what does not listen.
func TestTimeout(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, script := range []string{`sleep 1000`, `trap '' TERM; echo $$ > pid; (trap '' TERM; sleep 1000) & wait; sleep 1000`} {
		err := Run(t.Context(), Options{Argv: sh("cd " + dir + "; " + script), Timeout: 200 * time.Millisecond, Grace: 200 * time.Millisecond})
		if !errors.Is(err, ErrTimeout) || !strings.Contains(err.Error(), "200ms") {
			t.Errorf("%s: %v", script, err)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "pid")); err != nil {
		t.Error(err)
	}
}

func TestCancel(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	var once sync.Once
	err := Run(ctx, Options{Argv: sh(`echo on; sleep 1000`), Line: func(string) { once.Do(cancel) }})
	if !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

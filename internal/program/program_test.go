package program

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
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
	if err != nil || longest != lineLimit+len(" … (2995904 bytes more)") || count != 2 {
		t.Errorf("%d lines of up to %d bytes, %v", count, longest, err)
	}
}

// Of a program that says too much, the beginning and the end are passed on, and how much was between.
func TestMuchOutput(t *testing.T) {
	t.Parallel()
	var got []string
	if err := Run(t.Context(), Options{Argv: sh(`seq 1 1000000; printf last`), Line: func(s string) { got = append(got, s) }}); err != nil {
		t.Fatal(err)
	}
	at := slices.IndexFunc(got, func(s string) bool { return strings.HasPrefix(s, "… (") })
	if at < 0 || got[0] != "1" || got[at-1] != strconv.Itoa(at) || got[len(got)-1] != "last" || got[len(got)-2] != "1000000" {
		t.Fatalf("%d lines, from %q to %q, cut at %d", len(got), got[0], got[len(got)-1], at)
	}
	first, err := strconv.Atoi(got[at+1])
	if want := fmt.Sprintf("… (%d lines of ", first-1-at); err != nil || !strings.HasPrefix(got[at], want) {
		t.Errorf("%q, and then %q: %v", got[at], got[at+1], err)
	}
	if size := len(strings.Join(got, "\n")); size > headLimit+tailLimit+100 || size < headLimit+tailLimit-100 {
		t.Errorf("%d bytes were passed on", size)
	}

	// A little more than the beginning is passed on whole.
	got = nil
	if err := Run(t.Context(), Options{Argv: sh(`seq 1 8000`), Line: func(s string) { got = append(got, s) }}); err != nil || len(got) != 8000 {
		t.Errorf("%d lines, %v", len(got), err)
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
	for _, script := range []string{`echo > began; sleep 1000`, `trap '' TERM; echo > began; (trap '' TERM; sleep 1000) & wait; sleep 1000`} {
		began := filepath.Join(dir, "began")
		// On a busy machine the time may be over before the script has begun: it gets more then.
		for timeout := 200 * time.Millisecond; ; timeout *= 2 {
			err := Run(t.Context(), Options{Argv: sh("cd " + dir + "; " + script), Timeout: timeout, Grace: 200 * time.Millisecond})
			if !errors.Is(err, ErrTimeout) || !strings.Contains(err.Error(), timeout.String()) {
				t.Errorf("%s: %v", script, err)
			}
			if os.Remove(began) == nil {
				break
			}
			if timeout > time.Minute {
				t.Fatalf("%s has never begun", script)
			}
		}
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

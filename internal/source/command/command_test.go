package command

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/firn-backup/firn/internal/mustrun"
	"github.com/firn-backup/firn/internal/source"
	"github.com/firn-backup/firn/internal/source/sourcetest"
)

func stream(t testing.TB, script string) source.Stream {
	t.Helper()
	c, err := New("sh", "-c", script)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestCommand(t *testing.T) {
	t.Parallel()
	mustrun.Tool(t, "sh")
	sourcetest.StreamSuite(t, func(t testing.TB) sourcetest.StreamBench {
		return sourcetest.StreamBench{
			Stream: stream(t, "head -c 3000000 /dev/zero"), Change: func(testing.TB) {}, Failing: stream(t, "echo begun; echo why >&2; exit 7"),
		}
	})
}

func TestPipe(t *testing.T) {
	t.Parallel()
	sourcetest.StreamSuite(t, func(t testing.TB) sourcetest.StreamBench {
		return sourcetest.StreamBench{Stream: NewPipe("pipe", bytes.NewReader(make([]byte, 1<<20))), Change: func(testing.TB) {}}
	})
}

// A failure names the program and what it said, and never its arguments: they may hold secrets.
func TestErrors(t *testing.T) {
	t.Parallel()
	mustrun.Tool(t, "sh")
	for script, want := range map[string]string{
		"echo x; echo why >&2; exit 7 # secret": "sh: exit status 7: why",
		"echo x; kill -9 $$ # secret":           "sh: signal: killed",
	} {
		s := stream(t, script)
		p, _ := s.Make(t.Context(), time.Time{})
		r, err := s.Open(t.Context(), p, nil)
		if err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 100)
		for err == nil {
			_, err = r.Read(b)
		}
		r.Close()
		if err.Error() != want || strings.Contains(err.Error(), "secret") {
			t.Errorf("%v; want %s", err, want)
		}
	}
	s, _ := New("/no/such/program", "secret")
	if _, err := s.Open(t.Context(), source.Point{}, nil); err == nil || strings.Contains(err.Error(), "secret") {
		t.Errorf("%v", err)
	}
	if _, err := New(); err == nil {
		t.Error("no command is a command")
	}
}

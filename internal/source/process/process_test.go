package process

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/firn-backup/firn/internal/mustrun"
)

var errSource = errors.New("the source is damaged")

// A receiver gets all of a stream and its end, or no end at all.
func TestFeed(t *testing.T) {
	t.Parallel()
	mustrun.Tool(t, "sh", "cat")
	out := filepath.Join(t.TempDir(), "out")
	script := "cat > " + out + " && echo whole >> " + out
	if err := Feed(t.Context(), strings.NewReader(strings.Repeat("x", 300_000)), "recv", "sh", "-c", script); err != nil {
		t.Error(err)
	}
	if b, err := os.ReadFile(out); err != nil || !strings.HasSuffix(string(b), "whole\n") || len(b) != 300_006 {
		t.Errorf("%d bytes, %v", len(b), err)
	}
	if err := os.Remove(out); err != nil { // the next may be killed before it opens it
		t.Fatal(err)
	}
	bad := io.MultiReader(strings.NewReader("begun"), &failingReader{})
	if err := Feed(t.Context(), bad, "recv", "sh", "-c", script); !errors.Is(err, errSource) {
		t.Errorf("%v", err)
	}
	if b, _ := os.ReadFile(out); strings.Contains(string(b), "whole") {
		t.Errorf("it saw an end: %q", b)
	}
	for script, want := range map[string]string{
		"cat >/dev/null; echo why >&2; exit 3": "recv: exit status 3: why",
		"exit 0":                               "recv: it ended before it had read everything",
		"kill -9 $$":                           "recv: signal: killed",
	} {
		in := strings.NewReader(strings.Repeat("x", 1_000_000))
		if err := Feed(t.Context(), in, "recv", "sh", "-c", script); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%q: %v", script, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := Feed(ctx, strings.NewReader("x"), "recv", "cat"); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

// A program that says very much while it writes a stream costs no memory, and its last words are told.
func TestMuchTalk(t *testing.T) {
	t.Parallel()
	mustrun.Tool(t, "sh", "head", "tr")
	r, err := Start(t.Context(), "send", "sh", "-c", "head -c 30000000 /dev/zero | tr '\\0' x >&2; echo data; echo >&2; echo why >&2; exit 3")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if b, err := io.ReadAll(r); string(b) != "data\n" || err == nil || !strings.HasSuffix(err.Error(), "x; why") || len(err.Error()) > maxTalk+100 {
		t.Errorf("%q, %d bytes of error", b, len(err.Error()))
	}
	if cap(r.talk.buf) > 256<<10 {
		t.Errorf("%d bytes are held", cap(r.talk.buf))
	}
}

type failingReader struct{}

func (failingReader) Read([]byte) (int, error) { return 0, errSource }

func TestRun(t *testing.T) {
	t.Parallel()
	mustrun.Tool(t, "sh")
	if out, err := Run(t.Context(), "name", "sh", "-c", "echo $LC_ALL $TZ"); err != nil || out != "C UTC\n" {
		t.Errorf("%q, %v", out, err)
	}
	long := "for i in 1 2 3 4 5; do echo line $i >&2; done; exit 2"
	if _, err := Run(t.Context(), "name", "sh", "-c", long); err == nil || err.Error() != "name: exit status 2: line 3; line 4; line 5" {
		t.Errorf("%v", err)
	}
	if out, err := Usage(t.Context(), "false"); err != nil || out != "" {
		t.Errorf("%q, %v", out, err)
	}
	if _, err := Usage(t.Context(), "/no/such/program"); err == nil {
		t.Error("a program that is not there has a usage")
	}
}

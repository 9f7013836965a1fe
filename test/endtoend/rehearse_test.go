package endtoend_test

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/firn-backup/firn/internal/mustrun"
)

// TestRehearse runs the commands of docs/howto/rehearse.md as they are written there: a comment that begins with
// a number is the exit code. Servers listen on another port, on which exports are changed to. What is not ready is asked for again, and
// after each try three hours have passed for the server, however fast the machine is.
func TestRehearse(t *testing.T) {
	t.Parallel()
	mustrun.Tool(t, "aws")
	m := newMachine(t, memory(t))
	must(t, os.MkdirAll(m.path("bin"), 0o755))
	must(t, os.Symlink(m.bin, m.path("bin/firn")))
	noiseFile(t, m.path("Documents/letters/a"), 1, 300_000)
	noiseFile(t, m.path("Documents/b"), 2, 70_000)
	text, err := os.ReadFile("../../docs/howto/rehearse.md")
	must(t, err)
	r := &rehearsal{t: t, m: m, env: map[string]string{"AWS_EC2_METADATA_DISABLED": "true", "AWS_PAGER": ""}}
	t.Cleanup(r.stop)
	commands := 0
	inside := false
	for line := range strings.SplitSeq(string(text), "\n") {
		if strings.HasPrefix(line, "```") {
			inside = !inside
			continue
		}
		if inside && line != "" {
			r.line(line)
			commands++
		}
	}
	if commands < 20 {
		t.Errorf("%d commands only", commands)
	}
	for _, dir := range []string{"back", "later", "again", "untroubled"} {
		r.run("diff -r "+m.path("Documents")+" "+m.path(dir, m.path("Documents")), 0)
	}
}

type rehearsal struct {
	t      *testing.T
	m      *machine
	env    map[string]string
	server *exec.Cmd
	url    string
}

func (r *rehearsal) stop() {
	if r.server != nil {
		_ = r.server.Process.Kill()
		_ = r.server.Wait() // it was killed
		r.server = nil
	}
}

// command is a shell for a line.
func (r *rehearsal) command(line string) *exec.Cmd {
	cmd := exec.CommandContext(context.Background(), "bash", "-c", line)
	cmd.Dir = r.m.home
	cmd.Env = []string{"HOME=" + r.m.home, "PATH=" + r.m.path("bin") + ":" + os.Getenv("PATH"), "TZ=UTC"}
	for k, v := range r.env {
		cmd.Env = append(cmd.Env, k+"="+v)
	}
	return cmd
}

func (r *rehearsal) line(line string) {
	r.t.Helper()
	line, comment, _ := strings.Cut(line, "  #")
	comment = strings.TrimSpace(comment)
	switch {
	case strings.HasPrefix(line, "firn serve"):
		r.serve(line)
	case strings.HasPrefix(line, "export "):
		for _, x := range strings.Fields(line)[1:] {
			k, v, _ := strings.Cut(x, "=")
			if k == "AWS_ENDPOINT_URL_GLACIER" {
				v = r.url
			}
			r.env[k] = v
		}
	case strings.HasPrefix(comment, "75 for some seconds"):
		for tries := range 16 {
			if r.run(line, 0, 75) == 0 {
				return
			}
			r.pass(3 * (tries + 1))
		}
		r.t.Errorf("%s: never ready", line)
	case strings.HasPrefix(comment, "75"):
		r.run(line, 75)
	default:
		r.run(line, 0)
	}
}

// run runs a line, which must end with one of those exit codes.
func (r *rehearsal) run(line string, want ...int) int {
	r.t.Helper()
	cmd := r.command(line)
	out, _ := cmd.CombinedOutput() // the exit code counts
	code := cmd.ProcessState.ExitCode()
	for _, w := range want {
		if code == w {
			return code
		}
	}
	r.t.Fatalf("%s: exit %d, want %d\n%s", line, code, want, out)
	return code
}

// pass has the server's clock go so many hours before the real one.
func (r *rehearsal) pass(hours int) {
	r.t.Helper()
	must(r.t, os.WriteFile(r.m.path("hours"), fmt.Appendf(nil, "+%dh", hours), 0o644))
}

func (r *rehearsal) serve(line string) {
	r.t.Helper()
	r.stop()
	delete(r.env, "FIRN_NOW")
	if before, yes := strings.CutSuffix(line, " --time-scale 3600"); yes {
		r.pass(0)
		line = before + " --clock " + r.m.path("hours")
	}
	r.server = r.command("exec " + line + " --listen 127.0.0.1:0")
	out, err := r.server.StdoutPipe()
	must(r.t, err)
	must(r.t, r.server.Start())
	url, err := bufio.NewReader(out).ReadString('\n')
	must(r.t, err)
	r.url = strings.TrimSpace(url)
	if _, is := r.env["AWS_ENDPOINT_URL_GLACIER"]; is {
		r.env["AWS_ENDPOINT_URL_GLACIER"] = r.url
	}
}

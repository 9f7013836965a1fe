package timer

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/firn-backup/firn/internal/mustrun"
)

// systemd itself finds no fault with the units, however odd the paths.
func TestSystemdVerifies(t *testing.T) {
	t.Parallel()
	mustrun.Tool(t, "systemd-analyze")
	for _, system := range []bool{true, false} {
		dir := t.TempDir()
		firn := filepath.Join(dir, `f irn 100% $HOME;`)
		if err := os.WriteFile(firn, []byte("#!/bin/sh\n"), 0o755); err != nil {
			t.Fatal(err)
		}
		units, err := Units(Options{Firn: firn, Args: []string{"--config", `/etc/a 'b'\c"%h$HOME.toml`}, System: system, Calendar: "*-*-* 03:00:00"})
		if err != nil {
			t.Fatal(err)
		}
		args := []string{"verify", "--man=no"}
		if !system {
			args = append(args, "--user")
		}
		for _, u := range units {
			path := filepath.Join(dir, u.Name)
			if err := os.WriteFile(path, []byte(u.Text), 0o644); err != nil {
				t.Fatal(err)
			}
			args = append(args, path)
		}
		out, err := exec.Command("systemd-analyze", args...).CombinedOutput()
		for line := range strings.Lines(string(out)) {
			if strings.Contains(line, Name) {
				t.Errorf("system %t: %s", system, line)
			}
		}
		if err != nil && len(out) == 0 {
			t.Errorf("system %t: %v", system, err)
		}
	}
}

// A shell reads the words of the cron line as they were meant, once cron has taken its own escapes away.
func TestCronLine(t *testing.T) {
	t.Parallel()
	odd := []string{"--config", `/a b'c"$HOME%d\`}
	line, err := CronLine(Options{Firn: "/bin/echo", Args: odd})
	if err != nil {
		t.Fatal(err)
	}
	rest, ok := strings.CutPrefix(line, "17 * * * * ")
	if !ok {
		t.Fatal(line)
	}
	out, err := exec.Command("sh", "-c", strings.ReplaceAll(rest, `\%`, "%")).Output()
	if want := "/bin/echo"; err != nil || string(out) != strings.TrimPrefix(want+" ", want+" ")+strings.Join(odd, " ")+" run --quiet\n" {
		t.Errorf("%q, %v", out, err)
	}
	if _, err := CronLine(Options{Firn: "/x", Calendar: "Mon *-*-*"}); err == nil {
		t.Error("cron takes what only systemd understands")
	}
	if _, err := Units(Options{Firn: `/a"b`}); err == nil {
		t.Error("a path that systemd does not take")
	}
	for _, bad := range []Options{{}, {Firn: "firn"}, {Firn: "/x\ny"}, {Firn: "/x", Args: []string{"\n* * * * * evil"}}} {
		if _, err := CronLine(bad); err == nil {
			t.Errorf("%+v: no error", bad)
		}
		if _, err := Units(bad); err == nil {
			t.Errorf("%+v: no error", bad)
		}
	}
}

// What else is in a crontab stays as it is.
func TestCrontab(t *testing.T) {
	t.Parallel()
	mine := "# my own\n@daily /x\nno newline at the end"
	one := WithCronLine(mine, "17 * * * * /firn run "+cronMark)
	if want := mine + "\n17 * * * * /firn run " + cronMark + "\n"; one != want {
		t.Errorf("%q", one)
	}
	two := WithCronLine(one, "17 3 * * * /firn run "+cronMark)
	if want := mine + "\n17 3 * * * /firn run " + cronMark + "\n"; two != want {
		t.Errorf("%q", two)
	}
	if none := WithCronLine(two, ""); none != mine+"\n" {
		t.Errorf("%q", none)
	}
}

package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/firn-backup/firn/internal/mustrun"
	"github.com/firn-backup/firn/test/loopback"
)

// TestHowTo runs pages of docs as they are read: the commands of all code blocks (those without a language; ```toml is the
// config file) in one shell, from top to bottom, each of which must exit with 0, or with the number that its comment begins with. "75 for some hours, then 0" is
// repeated until it is 0. Each sleep is three hours at the service, whatever the machine takes for what is between. What a reader has already, and how to see that it came true, is in comments "test".
func TestHowTo(t *testing.T) {
	t.Parallel()
	for page, tools := range map[string][]string{
		"../README.md":            nil,
		"tutorial/first-steps.md": nil,
		"howto/restore.md":        {"age", "zstd", "tar"},
		"howto/items.md":          {"age", "zstd", "tar"},
		"howto/mirrors.md":        nil,
		"howto/glacier-vaults.md": nil,
	} {
		t.Run(strings.TrimSuffix(filepath.Base(page), ".md"), func(t *testing.T) {
			t.Parallel()
			for _, tool := range tools {
				mustrun.Tool(t, tool)
			}
			text, err := os.ReadFile(filepath.Join("../../docs", page))
			if err != nil {
				t.Fatal(err)
			}
			script, n := pageScript(string(text), filepath.Base(page) == "README.md")
			if n < 2 {
				t.Fatalf("only %d commands were found", n)
			}
			runScript(t, script)
		})
	}
}

// runScript runs a page's script in a home of its own. The directories of other disks that pages name are in there too.
func runScript(t *testing.T, script string) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	home := filepath.Join(dir, "home")
	if err := os.Mkdir(home, 0o700); err != nil {
		t.Fatal(err)
	}
	host, clock := loopback.Host(), filepath.Join(dir, "clock") // the pages' port is free there
	if err := os.WriteFile(clock, []byte("+0h\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	script = strings.NewReplacer("/mnt/", dir+"/mnt/", "/media/", dir+"/media/", "/Volumes/", dir+"/Volumes/", "/restore ", dir+"/restore ", "/restore\n", dir+"/restore\n", "/restore$", dir+"/restore$",
		"127.0.0.1", host, "serve glacier", "serve glacier --listen "+host+":9900", "--time-scale 3600 ", "--clock "+clock+" ",
		"go run ./cmd/firn ", "firn ").Replace(script)
	cmd := exec.CommandContext(t.Context(), "bash", "-c", script)
	cmd.Dir = home
	cmd.Env = append(os.Environ(), "HOME="+home, "CLOCK="+clock, "TZ=UTC", "LC_ALL=C.UTF-8", "XDG_CONFIG_HOME=", "XDG_STATE_HOME=", "XDG_DATA_HOME=", "XDG_CACHE_HOME=",
		"AWS_EC2_METADATA_DISABLED=true", "AWS_CONFIG_FILE=/dev/null", "AWS_SHARED_CREDENTIALS_FILE=/dev/null")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// pageScript is a page as a script, and how many commands of its readers' are in it. Of README.md only the first block counts.
func pageScript(text string, readme bool) (string, int) {
	const begin = `trap 'kill $(jobs -p) 2>/dev/null || true' EXIT
must() { got=$?; [ $got = $1 ] || { echo "EXIT $got, WANT $1: $2"; exit 1; }; }
hours=0
sleep() { hours=$((hours+3)); echo "+${hours}h" >"$CLOCK.new" && mv "$CLOCK.new" "$CLOCK"; }
`
	var b strings.Builder
	b.WriteString(begin)
	if readme {
		b.WriteString("mkdir ~/Documents; echo x >~/Documents/x\n")
	}
	exit := regexp.MustCompile(`  # ([0-9]+)\b(.*)$`)
	n, in := 0, ""
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\n")
		indented, isIndented := strings.CutPrefix(line, "    ")
		switch {
		case in != "" && (line == "```" || line == "-->" && in == "test"):
			if in == "toml" {
				b.WriteString("END\n")
			}
			in = ""
			if readme {
				return b.String(), n
			}
			continue
		case in == "" && line == "<!-- test":
			in = "test"
			continue
		case in == "" && line == "```toml":
			b.WriteString("mkdir -p ~/.config/firn; cat >~/.config/firn/config.toml <<'END'\n")
			in = "toml"
			continue
		case in == "" && strings.HasPrefix(line, "```"):
			in = "block" + strings.TrimPrefix(line, "```")
			continue
		case in == "toml":
			b.WriteString(line + "\n")
			continue
		case in == "" && isIndented:
			line = indented
		case in != "block" && in != "test":
			continue
		}
		if line == "" || strings.HasPrefix(line, "make ") {
			continue
		}
		if in != "test" {
			n++
		}
		want, again := "0", false
		if m := exit.FindStringSubmatch(line); m != nil {
			want, again = m[1], strings.HasSuffix(m[2], "then 0")
			if again {
				want = "0"
			}
		}
		quoted := "'" + strings.ReplaceAll(line, "'", `'\''`) + "'"
		if again {
			fmt.Fprintf(&b, "while %s\ngot=$?; [ $got = 75 ]; do sleep; done; (exit $got)\n", line)
		} else {
			fmt.Fprintf(&b, "%s\n", line)
		}
		fmt.Fprintf(&b, "must %s %s\n", want, quoted)
		if strings.HasSuffix(line, "&") { // a server
			b.WriteString("until (: </dev/tcp/127.0.0.1/9900) 2>/dev/null; do command sleep 0.02; done\n")
		}
	}
	return b.String(), n
}

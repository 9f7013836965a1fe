package main

import (
	"errors"
	"fmt"
	"hash/crc32"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/firn-backup/firn/internal/mustrun"
	"github.com/firn-backup/firn/test/loopback"
	"github.com/firn-backup/firn/test/s3proxy"
	"github.com/firn-backup/firn/test/s3server"
)

// TestHowTo runs pages of docs as they are read: the commands of all code blocks (those without a language; ```toml is added to the
// config file, ```cron is run as often as it takes) in one shell, from top to bottom, each of which must exit with 0, or with the number that its
// comment begins with. "75 for some hours, then 0" is repeated until it is 0. What "asks for the vault's name" is told it on a terminal.
// Each sleep is three hours at the service, whatever the machine takes for what is between; "later HOURS" is as many, for Firn's own clock too.
// What a reader has already, and how to see that it came true, is in comments "test". Systemd and cron are stand-ins that write down what they are
// told, S3 is moto behind the proxy that adds storage classes.
func TestHowTo(t *testing.T) {
	t.Parallel()
	for page, tools := range map[string][]string{
		"../README.md":            nil,
		"tutorial/first-steps.md": nil,
		"howto/restore.md":        {"age", "zstd", "tar"},
		"howto/items.md":          {"age", "zstd", "tar"},
		"howto/mirrors.md":        nil,
		"howto/glacier-vaults.md": nil,
		"howto/s3.md":             {"aws"},
		"howto/run-by-itself.md":  nil,
		"howto/empty-a-vault.md":  {"script"},
	} {
		t.Run(strings.TrimSuffix(filepath.Base(page), ".md"), func(t *testing.T) {
			t.Parallel()
			mustrun.Tool(t, tools...)
			text, err := os.ReadFile(filepath.Join("../../docs", page))
			if err != nil {
				t.Fatal(err)
			}
			script, n := pageScript(string(text), filepath.Base(page) == "README.md")
			if n < 2 {
				t.Fatalf("only %d commands were found", n)
			}
			p := newReader(t)
			if slices.Contains(tools, "aws") {
				p.s3(t)
			}
			p.run(t, script)
		})
	}
}

// reader is who reads a page: a home, and the clock of the services.
type reader struct {
	dir, home, clock string
	env              []string
}

func newReader(t *testing.T) *reader {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	firn, err := exec.LookPath("firn")
	if err != nil {
		t.Fatal(err)
	}
	r := &reader{dir: dir, home: filepath.Join(dir, "home"), clock: filepath.Join(dir, "clock")}
	r.env = append(os.Environ(), "HOME="+r.home, "CLOCK="+r.clock, "TZ=UTC", "LC_ALL=C.UTF-8", "XDG_CONFIG_HOME=", "XDG_STATE_HOME=", "XDG_DATA_HOME=", "XDG_CACHE_HOME=",
		"PATH="+filepath.Join(dir, "bin")+string(filepath.ListSeparator)+os.Getenv("PATH"),
		"AWS_EC2_METADATA_DISABLED=true", "AWS_CONFIG_FILE=/dev/null", "AWS_SHARED_CREDENTIALS_FILE=/dev/null")
	for _, dir := range []string{r.home, filepath.Join(dir, "bin")} {
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for path, text := range map[string]string{
		"clock": "+0h\n",
		// For root too the units are its own.
		"bin/firn":      "#!/bin/sh\ncase $* in 'schedule install'|'schedule remove') set -- \"$@\" --user ;; esac\nexec " + firn + " \"$@\"\n",
		"bin/systemctl": "#!/bin/sh\necho \"$@\" >>~/systemctl.asked\n",
		"bin/crontab": "#!/bin/sh\ncase $1 in\n-l) cat ~/crontab 2>/dev/null || { echo no crontab for me >&2; exit 1; } ;;\n" +
			"-) cat >~/crontab.new && mv ~/crontab.new ~/crontab ;;\nesac\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, path), []byte(text), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	return r
}

// s3 gives the reader an account of S3.
func (r *reader) s3(t *testing.T) {
	t.Helper()
	server, err := moto()
	if errors.Is(err, s3server.ErrMissing) {
		mustrun.Skip(t, err.Error())
	}
	if err != nil {
		t.Fatal(err)
	}
	h := httptest.NewServer(s3proxy.New(s3proxy.Options{Upstream: server.URL, Classes: true, Now: func() time.Time {
		text, err := os.ReadFile(r.clock)
		if err != nil {
			t.Error(err)
		}
		passed, err := time.ParseDuration(strings.TrimSpace(string(text)))
		if err != nil {
			t.Error(err)
		}
		return time.Now().Add(passed)
	}}))
	t.Cleanup(h.Close)
	r.env = append(append(r.env, server.Env()...), "AWS_ENDPOINT_URL_S3="+h.URL)
}

// run runs a page's script. The directories of other disks that pages name are in the reader's own.
func (r *reader) run(t *testing.T, script string) {
	t.Helper()
	host := loopback.Host() // the pages' port is free there
	elsewhere := strings.NewReplacer("/mnt/", r.dir+"/mnt/", "/media/", r.dir+"/media/", "/Volumes/", r.dir+"/Volumes/", "/restore ", r.dir+"/restore ", "/restore\n", r.dir+"/restore\n", "/restore$", r.dir+"/restore$",
		"127.0.0.1", host, "serve glacier", "serve glacier --listen "+host+":9900", "--time-scale 3600 ", "--clock "+r.clock+" ",
		"go run ./cmd/firn ", "firn ", "my-backups", bucketName(r.dir, "my-backups"), "my-locked-backups", bucketName(r.dir, "my-locked-backups"))
	cmd := exec.CommandContext(t.Context(), "bash", "-c", elsewhere.Replace(script))
	cmd.Dir, cmd.Env, cmd.WaitDelay = r.home, r.env, time.Second
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// bucketName is a name that no other run of the page has: all share a server.
func bucketName(dir, name string) string {
	return fmt.Sprintf("%s-%x", name, crc32.ChecksumIEEE([]byte(dir)))
}

// pageScript is a page as a script, and how many commands of its readers' are in it. Of README.md only the first block counts.
func pageScript(text string, readme bool) (string, int) {
	const begin = `trap 'kill $(jobs -p) 2>/dev/null || true' EXIT
must() { got=$?; [ $got = $1 ] || { echo "EXIT $got, WANT $1: $2"; exit 1; }; }
start=$(date +%s) hours=0
pass() {
	hours=$((hours+$1)); echo "+${hours}h" >"$CLOCK.new" && mv "$CLOCK.new" "$CLOCK"
	[ -z "$FIRN_NOW" ] || FIRN_NOW=$(date -ud "@$((start+hours*3600))" +%FT%TZ)
}
sleep() { pass 3; }
later() { export FIRN_NOW=now; pass $1; }
aws() { command aws --endpoint-url "$AWS_ENDPOINT_URL_S3" "$@"; }
`
	var b strings.Builder
	b.WriteString(begin)
	if readme {
		b.WriteString("mkdir ~/Documents; echo x >~/Documents/x\n")
	}
	exit := regexp.MustCompile(`  # ([0-9]+)\b(.*)$`)
	asked := regexp.MustCompile(`://[^ ]*/(\w+) .*  # .*asked? for the vault's name$`)
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
			b.WriteString("mkdir -p ~/.config/firn; cat >>~/.config/firn/config.toml <<'END'\n")
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
		case in == "blockcron":
			line = strings.Join(strings.Fields(line)[5:], " ")
		case in != "block" && in != "test":
			continue
		}
		if line == "" || strings.HasPrefix(line, "make ") {
			continue
		}
		if in != "test" {
			n++
		}
		want, again := "0", in == "blockcron"
		if m := exit.FindStringSubmatch(line); m != nil {
			want, again = m[1], strings.HasSuffix(m[2], "then 0")
			if again {
				want = "0"
			}
		}
		quoted := "'" + strings.ReplaceAll(line, "'", `'\''`) + "'"
		if m := asked.FindStringSubmatch(line); m != nil {
			line = "echo " + m[1] + " | script -qec " + quoted + " /dev/null"
		}
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

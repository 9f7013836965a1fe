package endtoend_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	_ "github.com/firn-backup/firn/internal/glaciercli"

	"github.com/firn-backup/firn/internal/mustrun"
)

// annex is a repository of git-annex on a machine, with the program called glacier in its PATH.
type annex struct {
	*machine
	s   *service
	dir string
}

// newAnnex makes a repository, and a server of vaults with the service's delays.
func newAnnex(t *testing.T, args ...string) *annex {
	t.Helper()
	mustrun.Tool(t, "git", "git-annex")
	m := newMachine(t, memory(t))
	a := &annex{machine: m, s: newService(t, m, args...), dir: m.path("repo")}
	bin := m.path("bin")
	must(t, os.Mkdir(bin, 0o755))
	m.must("install-glacier", bin)
	// Keys only where initremote is given them: git-annex remembers them.
	a.env = []string{"PATH=" + bin + ":" + os.Getenv("PATH"), "AWS_ENDPOINT_URL_GLACIER=http://" + a.s.listen, "AWS_EC2_METADATA_DISABLED=true",
		"GIT_CONFIG_GLOBAL=" + m.path("gitconfig"), "GIT_CONFIG_NOSYSTEM=1", "LC_ALL=C.UTF-8"}
	must(t, os.WriteFile(m.path("gitconfig"), []byte("[user]\nname = a\nemail = a@example.org\n[init]\ndefaultBranch = main\n[annex]\nretry = 0\n"), 0o644))
	must(t, os.Mkdir(a.dir, 0o755))
	a.ok("git", "init", "-q")
	a.ok("git", "annex", "init", "-q", "here")
	return a
}

// run runs any program in the repository.
func (a *annex) sh(args ...string) (code int, output string) {
	a.t.Helper()
	cmd := a.command(a.t.Context())
	cmd.Path, cmd.Args, cmd.Err = "", args, nil
	for _, kv := range cmd.Env {
		if path, ok := strings.CutPrefix(kv, "PATH="); ok { // the last one counts
			for dir := range strings.SplitSeq(path, ":") {
				if p := filepath.Join(dir, args[0]); exec.Command(p).Err == nil {
					if _, err := os.Stat(p); err == nil {
						cmd.Path = p
						break
					}
				}
			}
		}
	}
	cmd.Dir = a.dir
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		a.t.Fatalf("%v: %v", args, err)
	}
	return cmd.ProcessState.ExitCode(), out.String()
}

func (a *annex) ok(args ...string) string {
	a.t.Helper()
	code, out := a.sh(args...)
	if code != 0 {
		a.t.Fatalf("%v: exit %d\n%s", args, code, out)
	}
	return out
}

// fails wants a failure that says some text.
func (a *annex) fails(text string, args ...string) {
	a.t.Helper()
	code, out := a.sh(args...)
	if code == 0 || !strings.Contains(out, text) {
		a.t.Fatalf("%v: exit %d, without %q:\n%s", args, code, text, out)
	}
}

// where wants a file to be in so many places, by the location log.
func (a *annex) where(file string, copies int) {
	a.t.Helper()
	_, out := a.sh("git", "annex", "whereis", file)
	if want := fmt.Sprintf("(%d cop", copies); !strings.Contains(out, want) {
		a.t.Fatalf("%s is not in %d places:\n%s", file, copies, out)
	}
}

func (a *annex) initremote(name string, more ...string) {
	a.t.Helper()
	a.env = append(a.env, "AWS_ACCESS_KEY_ID=AKIATEST", "AWS_SECRET_ACCESS_KEY=s3kr1t")
	a.ok(append([]string{"git", "annex", "initremote", name, "type=glacier", "datacenter=eu-west-1"}, more...)...)
	a.env = a.env[:len(a.env)-2]
}

func (a *annex) add(files ...string) {
	a.t.Helper()
	for _, f := range files {
		must(a.t, os.MkdirAll(filepath.Dir(filepath.Join(a.dir, f)), 0o755))
		must(a.t, os.WriteFile(filepath.Join(a.dir, f), []byte("content of "+f), 0o644))
	}
	a.ok("git", "annex", "add", "-q", ".")
	a.ok("git", "commit", "-qm", "add")
}

// glacier runs the command as a script does, with the keys that git-annex has.
func (a *annex) glacier(args ...string) (int, string) {
	a.t.Helper()
	a.env = append(a.env, "AWS_ACCESS_KEY_ID=AKIATEST", "AWS_SECRET_ACCESS_KEY=s3kr1t")
	defer func() { a.env = a.env[:len(a.env)-2] }()
	return a.sh(append([]string{"glacier", "--region=eu-west-1"}, args...)...)
}

// What git-annex does with a Glacier remote, from its making to the last drop.
func TestAnnex(t *testing.T) {
	t.Parallel()
	a := newAnnex(t)
	a.initremote("cold", "encryption=none", "vault=myvault")
	a.initremote("cold2", "encryption=none") // the vault is there already, or made
	a.add("f1", "a.ü", "e.웅", "dir/f 2")
	a.ok("git", "annex", "copy", "--to", "cold", ".")
	for _, f := range []string{"f1", "a.ü", "e.웅", "dir/f 2"} {
		a.where(f, 2)
	}
	if _, list := a.glacier("archive", "list", "myvault"); strings.Count(list, "\n") != 4 || !strings.Contains(list, ".ü\n") {
		t.Errorf("archives are:\n%s", list)
	}
	a.fails("inventory says it has a copy", "git", "annex", "copy", "--to", "cold", "f1")
	a.fails("inventory says it has a copy", "git", "annex", "fsck", "--from", "cold", "f1")
	a.where("f1", 2)
	a.fails("necessary cop", "git", "annex", "drop", "f1")
	a.ok("git", "annex", "trust", "--force", "cold")
	a.ok("git", "annex", "drop", ".")

	a.fails("glacier: queued retrieval job for archive 'SHA256E-s", "git", "annex", "get", "f1")
	a.fails("glacier: job still pending for archive 'SHA256E-s", "git", "annex", "get", "f1")
	a.fails("queued retrieval job", "git", "annex", "get", "-J4", ".")
	a.s.pass(5 * time.Hour)
	a.ok("git", "annex", "get", "-J4", ".")
	for _, f := range []string{"f1", "a.ü", "e.웅", "dir/f 2"} {
		if got := string(read(t, filepath.Join(a.dir, f))); got != "content of "+f {
			t.Errorf("%s came back as %q", f, got)
		}
	}

	a.ok("git", "annex", "drop", "f1")
	a.ok("git", "annex", "move", "--from", "cold", "f1") // the job's output is still there
	a.where("f1", 1)
	a.ok("git", "annex", "fsck", "--from", "cold", "f1")
	a.ok("git", "annex", "copy", "--to", "cold", "f1")
	a.where("f1", 2)
	a.ok("git", "annex", "drop", "--from", "cold", "f1")
	a.ok("git", "annex", "copy", "--to", "cold", "f1")
	a.ok("git", "annex", "move", "--to", "cold2", "f1")
	a.where("f1", 2)

	var files []string
	for i := range 24 {
		files = append(files, fmt.Sprintf("many/%d", i))
	}
	a.add(files...)
	if out := a.ok("git", "annex", "copy", "-J4", "--to", "cold", "many"); strings.Contains(out, "locked") {
		t.Errorf("four at once:\n%s", out)
	}
	a.where("many/23", 2)
	a.ok("git", "annex", "drop", "-J4", "--force", "--from", "cold", "many")
	a.where("many/23", 1)
}

// A clone that has never seen the vault never loses what it knows of locations, and gets to work by waiting.
func TestAnnexSecondClone(t *testing.T) {
	t.Parallel()
	a := newAnnex(t)
	a.initremote("cold", "encryption=none", "vault=v")
	a.add("f1", "f2")
	a.ok("git", "annex", "copy", "--to", "cold", "f1")
	a.ok("git", "annex", "sync")

	b := *a
	other := *a.machine
	b.machine, b.dir = &other, a.path("clone", "repo")
	b.home = a.path("clone")
	must(t, os.Mkdir(b.home, 0o755))
	b.ok2(t, a, "git", "clone", "-q", a.dir, b.dir)
	b.env = append(append([]string{}, a.env...), "AWS_ACCESS_KEY_ID=AKIAOTHERKEY", "AWS_SECRET_ACCESS_KEY=other")
	b.ok("git", "annex", "init", "-q", "there")
	b.ok("git", "annex", "enableremote", "cold")
	b.ok("git", "annex", "trust", "--force", "cold")
	step := func(d time.Duration) { a.s.pass(d); b.now = a.now }
	b.now = a.now
	b.fails("exited 75", "git", "annex", "fsck", "--from", "cold", "f1")
	b.where("f1", 2)
	b.fails("not found", "git", "annex", "get", "--from", "cold", "f1")
	b.add("g")
	b.fails("exited 75", "git", "annex", "copy", "--to", "cold", "g")
	step(25 * time.Hour)
	a.ok("git", "annex", "copy", "--to", "cold", "f2") // after the inventory that b is going to get
	a.ok("git", "annex", "sync")
	b.ok("git", "annex", "sync")
	b.fails("queued inventory job", "git", "annex", "fsck", "--from", "cold", "f1")
	b.fails("exited 75", "git", "annex", "fsck", "--from", "cold", "f2")
	b.fails("job still pending for inventory", "git", "annex", "copy", "--to", "cold", "g")
	step(5 * time.Hour)
	b.fails("inventory says it has a copy", "git", "annex", "fsck", "--from", "cold", "f1")
	b.where("f1", 2)
	b.fails("exited 75", "git", "annex", "fsck", "--from", "cold", "f2")
	b.where("f2", 2)
	b.ok("git", "annex", "copy", "--to", "cold", "g")
	b.fails("queued retrieval job", "git", "annex", "get", "--from", "cold", "f1")
	step(5 * time.Hour)
	b.ok("git", "annex", "get", "--from", "cold", "f1")

	// The stale knowledge of the first: it is weeks old, and the vault has changed.
	b.ok("git", "annex", "drop", "--from", "cold", "f1")
	step(30 * 24 * time.Hour)
	a.fails("exited 75", "git", "annex", "fsck", "--from", "cold", "f1")
	a.where("f1", 2)
	step(5 * time.Hour)
	a.fails("exited 75", "git", "annex", "fsck", "--from", "cold", "f1") // the inventory is from before it was asked for
	a.where("f1", 2)
	step(50 * time.Hour)
	a.sh("git", "annex", "fsck", "--from", "cold", "f1") // now it is known to be gone
	a.where("f1", 1)
}

// ok2 runs a program where there is no repository yet.
func (a *annex) ok2(t *testing.T, from *annex, args ...string) {
	t.Helper()
	x := *a
	x.dir = from.home
	x.ok(args...)
}

// Encrypted: names say nothing, sizes are not known in advance, four at once.
func TestAnnexEncrypted(t *testing.T) {
	t.Parallel()
	mustrun.Tool(t, "gpg")
	a := newAnnex(t)
	a.initremote("cold", "encryption=shared", "vault=secret", "fileprefix=p/")
	a.add("f1", "f2", "f3", "f4.ü")
	a.ok("git", "annex", "copy", "-J4", "--to", "cold", ".")
	_, list := a.glacier("archive", "list", "secret")
	if !regexp.MustCompile(`\A(p/GPGHMACSHA1--[0-9a-f]{40}\n){4}\z`).MatchString(list) {
		t.Errorf("archives are:\n%s", list)
	}
	// With a prefix too it is known to be there: nothing is uploaded twice.
	a.fails("inventory says it has a copy", "git", "annex", "copy", "--to", "cold", "f1")
	a.ok("git", "annex", "trust", "--force", "cold")
	a.ok("git", "annex", "drop", ".")
	a.fails("queued", "git", "annex", "get", ".")
	a.s.pass(5 * time.Hour)
	a.ok("git", "annex", "get", "-J4", ".")
	if got := string(read(t, filepath.Join(a.dir, "f4.ü"))); got != "content of f4.ü" {
		t.Errorf("came back as %q", got)
	}
}

// git-annex's own test of remotes fails in what it makes impossible itself (that an archive is present it never
// believes), and in nothing else.
func TestAnnexTestremote(t *testing.T) {
	t.Parallel()
	a := newAnnex(t, "--delay", "0s")
	a.initremote("cold", "encryption=none", "vault=v")
	_, out := a.sh("git", "annex", "testremote", "--fast", "cold")
	var failed []string
	for line := range strings.Lines(out) {
		if strings.Contains(line, "FAIL") {
			failed = append(failed, strings.Join(strings.Fields(line)[:2], " "))
		}
	}
	if len(failed) != 8 || strings.Trim(strings.Join(failed, ""), "presntTu: ") != "" || !strings.Contains(out, "8 out of ") {
		t.Errorf("%q failed:\n%s", failed, out)
	}
}

// Faults and lost answers: what git-annex tries again is stored once, and what was killed is cleared up.
func TestAnnexFaults(t *testing.T) {
	t.Parallel()
	a := newAnnex(t, "--delay", "0s", "--inject", "*:500:0.05", "--inject", "UploadMultipartPart:drop:0.1", "--inject", "CompleteMultipartUpload:lose:0.7")
	a.initremote("cold", "encryption=none", "vault=v")
	noiseFile(t, filepath.Join(a.dir, "big"), 9, 9<<20)
	a.add("f1", "f2", "f3", "f4")
	for tries := 0; ; tries++ {
		code, out := a.sh("git", "annex", "copy", "--to", "cold", ".", "--not", "--in", "cold")
		if code == 0 {
			break
		}
		if tries == 20 {
			t.Fatal(out)
		}
	}
	if _, list := a.glacier("archive", "list", "v"); strings.Count(list, "\n") != 5 || strings.Contains(list, "id:") {
		t.Errorf("archives are:\n%s", list)
	}
}

// The commands of the how-to page, one after the other, as they stand there.
func TestAnnexHowTo(t *testing.T) {
	t.Parallel()
	a := newAnnex(t)
	a.add("photo.jpg", "other.jpg")
	done := 0
	for line := range strings.Lines(string(read(t, filepath.Join("..", "..", "docs", "howto", "git-annex.md")))) {
		if strings.HasPrefix(line, "## Several clones") {
			a.s.pass(30 * time.Hour)
		}
		command, is := strings.CutPrefix(line, "    ")
		command, comment, _ := strings.Cut(strings.TrimSpace(command), "#")
		wrong, fails := strings.CutPrefix(strings.TrimSpace(comment), "fails: ")
		switch {
		case !is, strings.HasPrefix(command, "firn "), strings.HasPrefix(command, "export "): // of other machines
			continue
		case strings.TrimSpace(comment) == "hours later":
			a.s.pass(5 * time.Hour)
			continue
		}
		command = strings.ReplaceAll(command, "_KEY_ID=… AWS_SECRET_ACCESS_KEY=…", "_KEY_ID=AKIATEST AWS_SECRET_ACCESS_KEY=s")
		if fails {
			a.fails(wrong, "sh", "-c", command)
		} else {
			a.ok("sh", "-c", command)
		}
		done++
	}
	if done < 10 {
		t.Errorf("%d commands were found", done)
	}
}

// Scripts and git-annex start the command often, and several at once: none is slow, and none stands in another's way.
func TestGlacierCommandFourAtOnce(t *testing.T) {
	t.Parallel()
	m := newMachine(t, memory(t))
	s := newService(t, m)
	must(t, os.Symlink(m.bin, m.path("glacier")))
	m.env = append(m.env, "AWS_ENDPOINT_URL_GLACIER=http://"+s.listen)
	plain := &machine{t: t, bin: m.bin, home: m.home}
	m.bin = m.path("glacier")
	m.must("vault", "create", "v")
	must(t, os.WriteFile(m.path("f0"), []byte("content"), 0o644))
	must(t, os.WriteFile(m.path("f1"), []byte("Content"), 0o644))
	// The catalog is made anew by whoever comes first.
	must(t, os.RemoveAll(m.path(".local")))
	errs := make(chan error, 4)
	for i := range 4 {
		go func() {
			errs <- func() error {
				file := m.path(fmt.Sprint("f", i%2)) // two and two the same
				for k := range 4 {
					name := fmt.Sprintf("SHA256E-s7--%d%d", i, k)
					for _, args := range [][]string{
						{"archive", "upload", "--name", name, "v", file}, {"archive", "checkpresent", "v", "--quiet", name},
						{"archive", "list", "v"}, {"archive", "delete", "v", name}, {"archive", "upload", "--name", name, "v", file},
					} {
						if out, err := m.command(t.Context(), args...).CombinedOutput(); err != nil {
							return fmt.Errorf("%v: %w\n%s", args, err, out)
						}
					}
				}
				return nil
			}()
		}()
	}
	for range 4 {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	if n := strings.Count(m.must("archive", "list", "v").stdout, "\n"); n != 16 {
		t.Errorf("%d archives", n)
	}
	if testing.Short() {
		return
	}
	best := func(m *machine, args ...string) time.Duration {
		best := time.Hour
		for range 40 {
			cmd := m.command(t.Context(), args...)
			_ = cmd.Run() // the annex's question fails, as it must
			// Of the processor: what a loaded machine lets it wait for is not its own.
			best = min(best, cmd.ProcessState.UserTime()+cmd.ProcessState.SystemTime())
		}
		t.Logf("%v: %s", args, best)
		return best
	}
	// On a slow processor the program takes long to do nothing.
	allowed := max(20*time.Millisecond, 3*best(plain, "version"))
	for _, args := range [][]string{{"--compatibility-test-git-annex"}, {"archive", "checkpresent", "v", "--quiet", "SHA256E-s7--00"}} {
		if took := best(m, args...); took > allowed {
			t.Errorf("%v takes %s", args, took)
		}
	}
}

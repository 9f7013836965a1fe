package endtoend_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/firn-backup/firn/internal/source/sourcetest"
	"github.com/firn-backup/firn/test/loopback"
)

// service is the real server of vaults, with a clock that tests move.
type service struct {
	t      *testing.T
	m      *machine
	args   []string
	root   string
	clock  string
	log    string
	listen string
	cmd    *exec.Cmd
	now    time.Time
}

// newService starts a server whose jobs take as long as the service's do.
func newService(t *testing.T, m *machine, args ...string) *service {
	t.Helper()
	s := &service{t: t, m: m, args: args, root: m.path("server"), clock: m.path("clock"), log: m.path("access.log"), listen: loopback.Host() + ":0"}
	m.env = append(m.env, "AWS_ACCESS_KEY_ID=AKIAIOSFODNN7EXAMPLE", "AWS_SECRET_ACCESS_KEY=test", "AWS_EC2_METADATA_DISABLED=true")
	s.set(time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC))
	s.start()
	t.Cleanup(s.kill)
	return s
}

func (s *service) start() {
	s.t.Helper()
	args := append([]string{"serve", "glacier", "--root", s.root, "--listen", s.listen, "--clock", s.clock,
		"--delay", "real", "--access-log", s.log}, s.args...)
	s.cmd = s.m.command(context.Background(), args...)
	out, err := s.cmd.StdoutPipe()
	must(s.t, err)
	s.cmd.Stderr = os.Stderr
	must(s.t, s.cmd.Start())
	line, err := bufio.NewReader(out).ReadString('\n')
	must(s.t, err)
	u, err := url.Parse(strings.TrimSpace(line))
	must(s.t, err)
	s.listen = u.Host // and on the same port when it is started again, which nobody takes meanwhile
}

// kill ends the server as a power failure does.
func (s *service) kill() {
	_ = s.cmd.Process.Kill()
	_ = s.cmd.Wait() // it was killed
}

// set sets the clock, of the server and of the machine.
func (s *service) set(at time.Time) {
	s.t.Helper()
	s.now = at
	must(s.t, os.WriteFile(s.clock, []byte(at.Format(time.RFC3339)), 0o644))
	s.m.now = at.Format(time.RFC3339)
}

func (s *service) pass(d time.Duration) { s.t.Helper(); s.set(s.now.Add(d)) }

func (s *service) vault(name string) string {
	return fmt.Sprintf("glacier://us-east-1/%s?endpoint=http://%s", name, s.listen)
}

// requests counts what the server was asked for.
func (s *service) requests(op string) int {
	s.t.Helper()
	log, err := os.ReadFile(s.log)
	must(s.t, err)
	return strings.Count(string(log), " op="+op+" ")
}

// exits runs firn and wants an exit code.
func (m *machine) exits(code int, args ...string) result {
	m.t.Helper()
	r := m.run(args...)
	if r.code != code {
		m.t.Fatalf("firn %s: exit %d, want %d\n%s%s", strings.Join(args, " "), r.code, code, r.stdout, r.stderr)
	}
	return r
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	must(t, err)
	return b
}

func noiseFile(t *testing.T, path string, seed byte, n int64) {
	t.Helper()
	must(t, os.MkdirAll(filepath.Dir(path), 0o755))
	f, err := os.Create(path)
	must(t, err)
	noise := rand.NewChaCha8([32]byte{seed})
	b := make([]byte, 1<<20)
	for n > 0 {
		_, _ = noise.Read(b) // never fails
		k, err := f.Write(b[:min(n, int64(len(b)))])
		must(t, err)
		n -= int64(k)
	}
	must(t, f.Close())
}

// A backup into a vault of the service; one file, and everything, come back when the
// service has them ready; and so they do after the loss of the catalog.
func TestGlacier(t *testing.T) {
	t.Parallel()
	m := newMachine(t, memory(t))
	s := newService(t, m)
	for i := range 30 {
		noiseFile(t, m.path(fmt.Sprintf("src/d%d/f%02d", i%3, i)), byte(i), 1000+int64(i)*7000)
	}
	noiseFile(t, m.path("src/big"), 77, 20<<20)
	v := s.vault("photos")
	m.must("vault", "create", v)
	m.must("backup", "src", "--vault", v, "--volume-size", "8MiB")

	one := m.path("src/d1/f07")
	m.exits(75, "restore", "src", one, "--to", "one")
	jobs := s.requests("InitiateJob")
	m.exits(75, "restore", "src", one, "--to", "one")
	s.pass(time.Hour)
	m.exits(75, "restore", "src", one, "--to", "one")
	if _, err := os.Stat(m.path("one")); err == nil {
		t.Error("something was restored before it was ready")
	}
	s.pass(5 * time.Hour)
	var got struct {
		Read  int64 `json:"bytes_read"`
		Files int64 `json:"files"`
	}
	m.summary(&got, "restore", "src", one, "--to", "one")
	if got.Files != 1 || got.Read > 4<<20 {
		t.Errorf("one file of 50 KB: %+v", got)
	}
	if n := s.requests("InitiateJob"); n != jobs || n != 1 {
		t.Errorf("%d jobs, %d at first", n, jobs)
	}
	if want, back := read(t, one), read(t, m.path("one", one)); !bytes.Equal(want, back) {
		t.Error("the file came back as another one")
	}

	m.exits(75, "restore", "src", "--to", "all")
	s.pass(6 * time.Hour)
	m.must("restore", "src", "--to", "all")
	sourcetest.Diff(t, m.path("src"), m.path("all", m.path("src")))

	m.exits(75, "verify") // an inventory
	s.pass(48 * time.Hour)
	m.exits(75, "verify", "--read")
	s.pass(6 * time.Hour)
	m.exits(75, "verify", "--read") // everything is asked for
	s.pass(6 * time.Hour)
	m.must("verify", "--read")

	must(t, os.Rename(m.path(".local/state/firn"), m.path("lost")))
	s.pass(48 * time.Hour)
	m.exits(75, "recover", v) // an inventory
	s.pass(6 * time.Hour)
	m.exits(75, "recover", v) // the manifest
	s.pass(6 * time.Hour)
	m.must("recover", v)
	m.exits(75, "restore", "src", "--to", "again")
	s.pass(6 * time.Hour)
	m.must("restore", "src", "--to", "again")
	sourcetest.Diff(t, m.path("src"), m.path("again", m.path("src")))
}

// The client is killed at random moments, the server too, and a twentieth of all requests
// fails in one way or another: in the end there is one complete snapshot, and nothing was stored twice that was acknowledged.
func TestGlacierKill9(t *testing.T) {
	t.Parallel()
	kills, size := 12, int64(12<<20)
	if soak() {
		kills, size = 60, 64<<20
	}
	m := newMachine(t, memory(t))
	var faults []string
	for _, what := range []string{"500", "408", "429", "400", "drop", "lose"} {
		faults = append(faults, "--inject", "*:"+what+":0.008")
	}
	s := newService(t, m, faults...)
	for i := range 40 {
		noiseFile(t, m.path(fmt.Sprintf("src/d%d/f%02d", i%3, i)), byte(i), 1000+int64(i)*3000)
	}
	noiseFile(t, m.path("src/big"), 77, size)
	v := s.vault("backups")
	m.must("vault", "create", v)
	r := rand.New(rand.NewPCG(uint64(os.Getpid()), 9))
	t.Logf("seed: %d", os.Getpid())
	volume := "512KiB"
	if soak() {
		volume = "1MiB"
	}
	m.backup = []string{"backup", "src", "--vault", v, "--volume-size", volume, "--json"}
	for done, tries := 0, 0; ; tries++ {
		if tries > 10*kills {
			t.Fatal("no end")
		}
		lines := -1
		if done < kills {
			lines = r.IntN(3)
		}
		killed := killAfter(t, m, lines, r)
		if !killed {
			break
		}
		if done++; done%4 == 0 {
			s.kill()
			s.start()
		}
	}
	if n := strings.Count(m.must("snapshots", "src").stdout, "full"); n != 1 {
		t.Errorf("%d full snapshots:\n%s", n, m.must("snapshots", "src").stdout)
	}
	ready := func(args ...string) result {
		t.Helper()
		for range 8 {
			s.pass(30 * time.Hour)
			r := m.run(args...)
			if r.code != 75 {
				if r.code != 0 {
					t.Fatalf("firn %s: exit %d\n%s", strings.Join(args, " "), r.code, r.stderr)
				}
				return r
			}
			s.pass(-24 * time.Hour)
		}
		t.Fatalf("firn %s: never ready", strings.Join(args, " "))
		return result{}
	}
	s.pass(48 * time.Hour)
	if r := ready("verify"); strings.Contains(r.stderr, "orphan") {
		t.Errorf("stored twice:\n%s", r.stderr)
	}
	ready("restore", "src", "--to", "back")
	sourcetest.Diff(t, m.path("src"), m.path("back", m.path("src")))
}

// Memory stays bounded whatever goes through a vault of the service. In soak only.
func TestGlacierMemory(t *testing.T) {
	if !soak() {
		t.Skip("FIRN_SOAK=1 runs it")
	}
	m := newMachine(t, t.TempDir())
	s := newService(t, m)
	noiseFile(t, m.path("src/big"), 1, 5<<30)
	v := s.vault("large")
	m.must("vault", "create", v)
	peak := func(args ...string) {
		t.Helper()
		_, peak := m.weighed(args...)
		t.Logf("%s: peak %d MiB", args[0], peak>>20)
		if peak > peakAllowed {
			t.Errorf("%s: peak memory %d MiB", args[0], peak>>20)
		}
	}
	peak("backup", "src", "--vault", v)
	m.exits(75, "restore", "src", "--to", "back")
	s.pass(6 * time.Hour)
	peak("restore", "src", "--to", "back")
	sourcetest.Diff(t, m.path("src"), m.path("back", m.path("src")))
}

// What does not answer is not waited for without end.
func TestGlacierNobodyThere(t *testing.T) {
	t.Parallel()
	m := newMachine(t, t.TempDir())
	m.env = append(m.env, "AWS_ACCESS_KEY_ID=AKIAIOSFODNN7EXAMPLE", "AWS_SECRET_ACCESS_KEY=test", "AWS_EC2_METADATA_DISABLED=true")
	noiseFile(t, m.path("src/a"), 1, 10)
	r := m.exits(1, "backup", "src", "--vault", "glacier://us-east-1/none?endpoint=http://"+loopback.Nobody())
	if !strings.Contains(r.stderr, "refused") {
		t.Errorf("%s", r.stderr)
	}
}

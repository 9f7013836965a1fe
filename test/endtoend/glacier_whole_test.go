package endtoend_test

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/firn-backup/firn/internal/source/sourcetest"
)

// Everything at once: a large tree into a vault of the service while both ends are killed and a twentieth of all
// requests fails, then one file and all of it back with the service's delays, killed on the way too. At the end
// there is one complete snapshot, nothing was stored twice that was acknowledged, and no process took much memory.
// 5 GB in soak, of bytes that do not compress; less otherwise.
func TestGlacierWhole(t *testing.T) {
	t.Parallel()
	size, volume, kills, dir := int64(24<<20), "1MiB", 8, memory
	if soak() {
		size, volume, kills, dir = 5<<30, "32MiB", 40, func(t *testing.T) string { return t.TempDir() }
	}
	m := newMachine(t, dir(t))
	var faults []string
	for _, what := range []string{"500", "408", "429", "400", "drop", "lose"} {
		faults = append(faults, "--inject", "*:"+what+":0.0085") // five in a hundred together
	}
	s := newService(t, m, faults...)
	one := wholeTree(t, m, size)
	v := s.vault("whole")
	m.must("vault", "create", v)
	r := rand.New(rand.NewPCG(uint64(os.Getpid()), 11))
	t.Logf("seed: %d", os.Getpid())
	w := &whole{t: t, m: m, s: s, r: r}

	began := time.Now()
	m.backup = []string{"backup", "src", "--vault", v, "--volume-size", volume, "--json"}
	done := 0
	for tries := 0; ; tries++ {
		if tries > 20*kills {
			t.Fatal("no end")
		}
		lines := -1
		if done < kills {
			lines = r.IntN(4)
		}
		if !killAfter(t, m, lines, r) {
			break
		}
		if done++; done%4 == 0 {
			w.restart()
		}
	}
	t.Logf("backup of %d MiB through %d kills and %d of the server: %v", size>>20, done, w.restarts, time.Since(began).Round(time.Second))
	if done < kills/2 {
		t.Errorf("only %d kills", done)
	}
	if n := strings.Count(m.must("snapshots", "src").stdout, "full"); n != 1 {
		t.Errorf("%d full snapshots", n)
	}

	// A full backup once more, undisturbed but for the faults: what it takes.
	w.peak("backup", "backup", "src", "--vault", v, "--volume-size", volume, "--full", "--name", "src")

	w.exits75("restore", "src", one, "--to", "one")
	w.restart()
	s.pass(6 * time.Hour)
	w.peak("restore of one file", "restore", "src", one, "--to", "one")
	if !bytes.Equal(read(t, one), read(t, m.path("one", one))) {
		t.Error("the file came back as another one")
	}

	w.exits75("restore", "src", "--to", "back")
	s.pass(6 * time.Hour)
	began = time.Now()
	for i := range 4 {
		w.killed(m.path("back"), size*int64(i+1)/6, "restore", "src", "--to", "back")
		if i == 1 {
			w.restart()
		}
	}
	w.peak("restore", "restore", "src", "--to", "back")
	t.Logf("restore through 4 kills: %v", time.Since(began).Round(time.Second))
	sourcetest.Diff(t, m.path("src"), m.path("back", m.path("src")))

	s.pass(48 * time.Hour)
	for range 4 {
		if got := m.run("verify"); got.code == 0 {
			if strings.Contains(got.stderr, "orphan") {
				t.Errorf("stored twice:\n%s", got.stderr)
			}
			break
		}
		s.pass(6 * time.Hour)
	}
	w.restart()
	t.Logf("the server's peak memory: %d MiB", w.served>>20)
	if w.served > peakAllowed {
		t.Errorf("the server took %d MiB", w.served>>20)
	}
}

// wholeTree makes a tree of so many bytes: large files, and some thousand small ones. It returns one of the latter.
func wholeTree(t *testing.T, m *machine, size int64) string {
	t.Helper()
	small := int64(200)
	for i := range small {
		noiseFile(t, m.path(fmt.Sprintf("src/small/%d/f%03d", i%7, i)), byte(i), 500+i*300)
	}
	for i := range int64(5) {
		noiseFile(t, m.path(fmt.Sprintf("src/large/f%d", i)), byte(100+i), (size-small*30_000)/5)
	}
	return m.path("src/small/3/f101")
}

// whole is the course of the test.
type whole struct {
	t        *testing.T
	m        *machine
	s        *service
	r        *rand.Rand
	restarts int
	served   int64 // peak memory of servers, bytes
}

// restart kills the server and starts it again.
func (w *whole) restart() {
	w.t.Helper()
	w.served = max(w.served, peakOf(w.t, w.s.cmd.Process.Pid))
	w.s.kill()
	w.restarts++
	w.s.start()
}

// exits75 runs firn until it says so; faults may break off a run.
func (w *whole) exits75(args ...string) {
	w.t.Helper()
	w.m.exits(75, args...)
}

// peak runs firn, which must succeed, and looks at its memory.
func (w *whole) peak(what string, args ...string) {
	w.t.Helper()
	began := time.Now()
	_, peak := w.m.weighed(args...)
	w.t.Logf("%s: %v, peak %d MiB", what, time.Since(began).Round(time.Millisecond), peak>>20)
	if peak > peakAllowed {
		w.t.Errorf("%s: peak memory %d MiB", what, peak>>20)
	}
}

// killed runs firn and kills it when so many bytes lie below dir, or lets it end.
func (w *whole) killed(dir string, bytes int64, args ...string) {
	w.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	cmd := w.m.command(ctx, args...)
	must(w.t, cmd.Start())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = cmd.Wait() // it is killed
	}()
	for {
		select {
		case <-ended:
			return
		default:
		}
		if below(dir) > bytes {
			_ = cmd.Process.Kill()
			<-ended
			return
		}
	}
}

// below is how many bytes the files below a directory have, as far as they can be seen.
func below(dir string) int64 {
	var n int64
	_ = filepath.WalkDir(dir, func(_ string, d os.DirEntry, err error) error { // it changes meanwhile
		if err == nil && !d.IsDir() {
			if info, err := d.Info(); err == nil {
				n += info.Size()
			}
		}
		return nil
	})
	return n
}

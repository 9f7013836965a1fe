package sqlite_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/firn-backup/firn/internal/catalog/catalogtest"
	"github.com/firn-backup/firn/internal/catalog/sqlite"
)

// A child process is this test program, told by its environment what to do.
const childEnv = "FIRN_TEST_CATALOG_CHILD"

type childTask struct {
	Path string
	Rows int
	Work catalogtest.Work
	Last string // after this line it goes no further, and can be killed; empty: to the end
}

func TestMain(m *testing.M) {
	if task := os.Getenv(childEnv); task != "" {
		if err := child(task); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func child(text string) error {
	var task childTask
	task.Work.Report = func(s string) {
		if fmt.Println(s); s == task.Last {
			_, _ = io.Copy(io.Discard, os.Stdin) // until the parent is gone
		}
	}
	if err := json.Unmarshal([]byte(text), &task); err != nil {
		return err
	}
	ctx := context.Background()
	d, err := sqlite.Open(ctx, task.Path, sqlite.Options{PageRows: task.Rows})
	if err != nil {
		return err
	}
	if err := task.Work.Run(ctx, d); err != nil {
		return err
	}
	return d.Close()
}

// start starts a child.
func start(t *testing.T, task childTask) (*exec.Cmd, *bufio.Scanner) {
	t.Helper()
	text, err := json.Marshal(task)
	must(t, err)
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"="+string(text))
	cmd.Stderr = os.Stderr
	if task.Last != "" {
		_, err := cmd.StdinPipe()
		must(t, err)
	}
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	return cmd, bufio.NewScanner(out)
}

// TestProcesses: four processes begin with no catalog at all and write to it at once.
func TestProcesses(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "state", "catalog.db")
	var wg sync.WaitGroup
	var works []catalogtest.Work
	for i := range 4 {
		w := catalogtest.Work{Set: fmt.Sprint("set", i), Snapshots: 4, Files: 2000, Volumes: 8}
		works = append(works, w)
		cmd, out := start(t, childTask{Path: path, Rows: 100, Work: w})
		wg.Go(func() {
			for out.Scan() {
			}
			if err := cmd.Wait(); err != nil {
				t.Errorf("process %d: %v", i, err)
			}
		})
	}
	wg.Wait()
	d := open(t, path, 0)
	for _, w := range works {
		must(t, w.Check(t.Context(), d, w.Snapshots, 0))
	}
}

// TestKill kills a process anywhere, again and again: what it said is stored is
// stored, and what it was at is undone or goes on.
func TestKill(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "catalog.db")
	w := catalogtest.Work{Set: "A", Snapshots: 5, Files: 6000, Volumes: 10}
	var stored uint64
	volume := 0
	for round := 0; stored < w.Snapshots; round++ {
		cmd, out := start(t, childTask{Path: path, Rows: 300, Work: w})
		lines := rand.IntN(12)
		stopped := round%2 == 0
		for out.Scan() {
			hear(t, out.Text(), &stored, &volume)
			if lines--; lines > 0 {
				continue
			}
			if stopped {
				checkCopy(t, cmd, dir, w, stored, volume)
			}
			must(t, cmd.Process.Kill())
			lines = 1 << 30 // what it had said before is heard
		}
		err := cmd.Wait()
		if err != nil && !strings.Contains(err.Error(), "killed") {
			t.Fatal(err)
		}
		if err == nil { // it came to its end; the one before may have been killed between storing the last and saying so
			stored, volume = w.Snapshots, 0
		}
		d, err := sqlite.Open(t.Context(), path, sqlite.Options{})
		must(t, err)
		must(t, w.Check(t.Context(), d, stored, volume))
		must(t, d.Close())
	}
}

func hear(t *testing.T, line string, stored *uint64, volume *int) {
	t.Helper()
	var n uint64
	var v int
	if _, err := fmt.Sscanf(line, "stored %d", &n); err == nil {
		*stored, *volume = n, 0
	} else if _, err := fmt.Sscanf(line, "volume %d %d", &n, &v); err == nil {
		*stored, *volume = n-1, v
	} else {
		t.Fatalf("child says %q", line)
	}
}

// checkCopy stops the process wherever it is and opens a copy of its files: a catalog as
// a kill at that instant leaves it, with its log as it was.
func checkCopy(t *testing.T, cmd *exec.Cmd, dir string, w catalogtest.Work, stored uint64, volume int) {
	t.Helper()
	must(t, cmd.Process.Signal(syscall.SIGSTOP))
	defer func() { must(t, cmd.Process.Signal(syscall.SIGCONT)) }()
	waitStopped(t, cmd.Process.Pid)
	to := t.TempDir()
	for _, name := range []string{"catalog.db", "catalog.db-wal"} {
		copyFile(t, filepath.Join(dir, name), filepath.Join(to, name))
	}
	d, err := sqlite.Open(t.Context(), filepath.Join(to, "catalog.db"), sqlite.Options{})
	must(t, err)
	must(t, w.Check(t.Context(), d, stored, volume))
	must(t, d.Close())
}

// waitStopped waits until all threads of the process are stopped, as /proc tells: one may still be in a system call.
func waitStopped(t *testing.T, pid int) {
	t.Helper()
	for moving := true; moving; {
		moving = false
		threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
		must(t, err)
		for _, name := range threads {
			b, err := os.ReadFile(name) // one that has ended does not move
			if _, after, _ := strings.Cut(string(b), ") "); err == nil && after[0] != 'T' && after[0] != 'Z' && after[0] != 'X' {
				moving = true
			}
		}
	}
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	src, err := os.Open(from)
	if os.IsNotExist(err) {
		return
	}
	must(t, err)
	defer src.Close()
	dst, err := os.Create(to)
	must(t, err)
	_, err = io.Copy(dst, src)
	must(t, err)
	must(t, dst.Close())
}

// TestTornLog: after a loss of power the log may end anywhere. What is left of it is a
// catalog as it was at some commit.
func TestTornLog(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	w := catalogtest.Work{Set: "A", Snapshots: 2, Files: 1000, Volumes: 4}
	task := childTask{Path: filepath.Join(dir, "catalog.db"), Rows: 100, Work: w, Last: "volume 2 3"}
	cmd, out := start(t, task) // one that ended would take its log with it
	for out.Scan() && out.Text() != task.Last {
	}
	must(t, cmd.Process.Kill())
	for out.Scan() {
	}
	_ = cmd.Wait()
	log, err := os.ReadFile(filepath.Join(dir, "catalog.db-wal"))
	must(t, err)
	if len(log) < 100_000 {
		t.Fatalf("the log has %d bytes: it was written back, and this tests nothing", len(log))
	}
	for range 12 {
		to := t.TempDir()
		path := filepath.Join(to, "catalog.db")
		copyFile(t, filepath.Join(dir, "catalog.db"), path)
		must(t, os.WriteFile(path+"-wal", log[:rand.IntN(len(log))], 0o600))
		d, err := sqlite.Open(t.Context(), path, sqlite.Options{})
		must(t, err)
		must(t, w.Check(t.Context(), d, 0, 0))
		must(t, w.Run(t.Context(), d))
		must(t, w.Check(t.Context(), d, 2, 0))
		must(t, d.Close())
	}
}

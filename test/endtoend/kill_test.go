package endtoend_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/firn-backup/firn/internal/mustrun"
	"github.com/firn-backup/firn/internal/source/sourcetest"
)

// A backup of many volumes is killed at 50 random moments, each followed by the
// same command: in the end there is one snapshot, whole, and no volume was
// stored twice.
func TestKill9(t *testing.T) {
	t.Parallel()
	mustrun.Tool(t, "rsync")
	m := newMachine(t, memory(t))
	r := rand.New(rand.NewPCG(uint64(os.Getpid()), 9))
	t.Logf("seed: %d", os.Getpid())
	noise := rand.NewChaCha8([32]byte{1})
	write := func(name string, n int) {
		b := make([]byte, n)
		noise.Read(b)
		must(t, os.MkdirAll(filepath.Dir(m.path(name)), 0o755))
		must(t, os.WriteFile(m.path(name), b, 0o644))
	}
	for i := range 200 {
		write(fmt.Sprintf("src/d%d/f%03d", i%7, i), 1000+r.IntN(60_000))
	}
	write("src/big", 20<<20)
	write("src/zbig", 9<<20)

	// A run tells of each volume that is stored; it is killed so many lines
	// after that, or within the time to the next, at a point that nobody chooses.
	m.backup = []string{"backup", "src", "--volume-size", "256KiB", "--json", "--compress", "zstd:1"}
	kills := 0
	for runs := 0; ; runs++ {
		if runs > 400 {
			t.Fatal("no end")
		}
		lines := -1 // not killed
		if kills < 50 {
			lines = r.IntN(3)
		}
		if !killAfter(t, m, lines, r) {
			break
		}
		kills++
	}
	if kills < 20 {
		t.Errorf("only %d kills before the backup was complete", kills)
	}
	snaps := strings.Count(m.must("snapshots", "src").stdout, "full")
	if snaps != 1 {
		t.Errorf("%d full snapshots:\n%s", snaps, m.must("snapshots", "src").stdout)
	}
	m.must("verify", "--read")
	if r := m.must("verify"); strings.Contains(r.stderr, "orphan") {
		t.Errorf("orphans:\n%s", r.stderr)
	}
	oneOfEach(t, m)
	m.must("restore", "src", "--to", "back")
	sourcetest.Diff(t, m.path("src"), m.path("back", m.path("src")))
}

// killAfter runs a backup and kills it after so many volumes were told of, and a random
// number of spins. It says whether there was a kill.
func killAfter(t *testing.T, m *machine, lines int, r *rand.Rand) bool {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	cmd := m.command(ctx, m.backup...)
	var errs strings.Builder
	cmd.Stderr = &errs
	out := startOneAhead(t, cmd)
	seen, killed := 0, false
	kill := func() {
		for range r.IntN(2_000_000) { // somewhere on the way to the next volume
			seen += 0
		}
		killed = true
		_ = cmd.Process.Kill()
	}
	if lines == 0 {
		kill()
	}
	for out.Scan() {
		if strings.Contains(out.Text(), `"event":"archive"`) {
			if seen++; seen == lines {
				kill()
			}
		}
	}
	err := cmd.Wait()
	if !killed && err != nil {
		t.Fatalf("backup: %v\n%s", err, errs.String())
	}
	return killed && err != nil
}

// oneOfEach proves that the vault has each volume of each snapshot once.
func oneOfEach(t *testing.T, m *machine) {
	t.Helper()
	volume := regexp.MustCompile(`/(\d{6})-[0-9A-Z]{26}\.tar`)
	seen := map[string]string{}
	must(t, filepath.WalkDir(m.vault(), func(p string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		if f := volume.FindStringSubmatch(p); f != nil {
			key := filepath.Dir(p) + "/" + f[1]
			if other, twice := seen[key]; twice {
				t.Errorf("volume stored twice: %s and %s", other, p)
			}
			seen[key] = p
		}
		return nil
	}))
	if len(seen) < 100 {
		t.Errorf("%d volumes only", len(seen))
	}
}

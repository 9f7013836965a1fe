package endtoend_test

import (
	"bytes"
	"context"
	"encoding/json"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// A single file goes up through kills of client and server and through faults, as one archive, and comes back.
func TestGlacierArchiveKill9(t *testing.T) {
	t.Parallel()
	m := newMachine(t, memory(t))
	s := newService(t, m, "--inject", "*:500:0.03", "--inject", "UploadMultipartPart:drop:0.03", "--inject", "CompleteMultipartUpload:lose:0.5")
	noiseFile(t, m.path("f.iso"), 5, 40<<20)
	g := newGate(t, s)
	v := "glacier://us-east-1/files?endpoint=http://" + g.host
	m.must("vault", "create", v)
	r := rand.New(rand.NewPCG(uint64(os.Getpid()), 3))
	t.Logf("seed: %d", os.Getpid())
	args := []string{"archive", "upload", v, "f.iso", "--part-size", "1MiB", "--limit-rate", "60MiB"}
	kills := 0
	for tries := 0; ; tries++ {
		if tries > 60 {
			t.Fatal("no end")
		}
		cmd := m.command(context.Background(), args...)
		var errs strings.Builder
		cmd.Stderr = &errs
		left, arrives := 1+r.IntN(5), r.IntN(2) == 0
		if kills == 8 {
			left = 0 // never
		}
		g.start(t, cmd, func() bool {
			if left--; left == 0 {
				_ = cmd.Process.Kill()
				return arrives
			}
			return true
		})
		err := cmd.Wait()
		if err == nil {
			break
		}
		if !strings.Contains(err.Error(), "killed") {
			t.Fatalf("%v\n%s", err, errs.String())
		}
		if kills++; kills%3 == 0 {
			s.kill()
			s.start()
		}
	}
	if kills < 4 {
		t.Errorf("only %d kills", kills)
	}
	// Each kill costs the parts that were on their way, not those that had arrived.
	if n := s.requests("UploadMultipartPart"); n > 40+3*kills+20 {
		t.Errorf("%d parts were sent for 40, with %d kills", n, kills)
	}
	var list []struct {
		Archive string
		Name    string
		Size    int64
	}
	must(t, json.Unmarshal([]byte(m.must("archive", "list", v, "--json").stdout), &list))
	if len(list) != 1 || list[0].Size != 40<<20 || list[0].Name != "f.iso" {
		t.Errorf("archives: %+v", list)
	}
	if files, err := filepath.Glob(filepath.Join(s.root, "files", "archives", "*")); err != nil || len(files) != 1 {
		t.Errorf("the vault holds %q, %v", files, err)
	}
	if out := m.must("archive", "uploads", v, "--json").stdout; strings.TrimSpace(out) != "[]" {
		t.Errorf("left: %s", out)
	}

	get := []string{"archive", "retrieve", v, "f.iso", "-o", "back.iso"}
	m.exits(75, get...)
	s.pass(6 * time.Hour)
	m.must(get...)
	if !bytes.Equal(read(t, m.path("f.iso")), read(t, m.path("back.iso"))) {
		t.Error("the file came back as another one")
	}
	if n := s.requests("InitiateJob"); n > 6 {
		t.Errorf("%d requests for one job", n)
	}
}

// What retrievals cost is told before, and refused where it is too much or not known.
func TestGlacierCosts(t *testing.T) {
	t.Parallel()
	m := newMachine(t, memory(t))
	s := newService(t, m)
	for _, name := range []string{"a", "b", "c"} {
		noiseFile(t, m.path("src", name), name[0], 2<<20)
	}
	v := s.vault("costs")
	m.must("vault", "create", v)
	m.must("backup", "src", "--vault", v, "--volume-size", "1MiB")
	r := m.must("restore", "src", "--to", "back", "--dry-run")
	for _, want := range []string{"Bulk", "Standard", "Expedited", "5-12 h", "$0.0"} {
		if !strings.Contains(r.stderr, want) {
			t.Errorf("a dry run does not tell of %s:\n%s", want, r.stderr)
		}
	}
	r = m.exits(1, "restore", "src", "--to", "back", "--max-cost", "0.0001")
	if !strings.Contains(r.stderr, "--max-cost is $0.0001") || !strings.Contains(r.stderr, "nothing was asked for") {
		t.Errorf("%s", r.stderr)
	}
	if n := s.requests("InitiateJob"); n != 0 {
		t.Errorf("%d jobs were begun", n)
	}
	m.exits(75, "restore", "src", "--to", "back", "--max-cost", "1", "--retrieve-rate", "2/day")
	if n := s.requests("InitiateJob"); n != 2 {
		t.Errorf("%d jobs were begun, at 2 a day", n)
	}
	m.exits(64, "restore", "src", "--to", "back", "--max-cost", "cheap")
	m.exits(64, "restore", "src", "--to", "back", "--retrieve-rate", "fast")

	// A region of which no price is known.
	e := strings.Replace(s.vault("elsewhere"), "us-east-1", "eu-north-1", 1)
	m.must("vault", "create", e)
	noiseFile(t, m.path("f"), 1, 1000)
	m.must("archive", "upload", e, "f")
	r = m.exits(1, "archive", "retrieve", e, "f", "-o", "g", "--max-cost", "1000")
	if !strings.Contains(r.stderr, "unknown price") {
		t.Errorf("%s", r.stderr)
	}
	r = m.exits(75, "archive", "retrieve", e, "f", "-o", "g")
	if !strings.Contains(r.stderr, "unknown price") {
		t.Errorf("%s", r.stderr)
	}
}

// What a backup has stored is known at once, and not when an inventory tells of it. Another machine, which knows
// nothing, gets an archive by its id.
func TestGlacierKnownAtOnce(t *testing.T) {
	t.Parallel()
	m := newMachine(t, memory(t))
	s := newService(t, m)
	noiseFile(t, m.path("src", "a"), 1, 3<<20)
	v := s.vault("known")
	m.must("vault", "create", v)
	m.must("backup", "src", "--vault", v, "--volume-size", "1MiB")
	var list []struct {
		Archive     string
		Description string
		Size        int64
	}
	must(t, json.Unmarshal([]byte(m.must("archive", "list", v, "--json").stdout), &list))
	if len(list) != 5 || !strings.Contains(list[0].Description, "set=src") || list[0].Size < 1000 {
		t.Fatalf("after the backup: %+v", list)
	}
	volume := list[0]

	other := newMachine(t, m.path("other"))
	other.env, other.now = m.env, m.now
	get := []string{"archive", "retrieve", v, "id:" + volume.Archive, "-o", "volume"}
	r := other.exits(1, append(get, "--max-cost", "1000")...)
	if !strings.Contains(r.stderr, "how large it is is not known") || s.requests("InitiateJob") != 0 {
		t.Errorf("%d jobs\n%s", s.requests("InitiateJob"), r.stderr)
	}
	other.exits(75, get...)
	other.exits(75, get...)
	s.pass(6 * time.Hour)
	other.now = m.now
	other.must(get...)
	if got := read(t, other.path("volume")); int64(len(got)) != volume.Size || s.requests("InitiateJob") != 1 {
		t.Errorf("%d bytes of %d, with %d jobs", len(got), volume.Size, s.requests("InitiateJob"))
	}
	other.exits(10, "archive", "retrieve", v, "id:"+volume.Archive[:len(volume.Archive)-4]+"AAAA", "-o", "none")

	// Once the inventory is there the two agree.
	s.pass(48 * time.Hour)
	m.exits(75, "vault", "sync", v)
	s.pass(6 * time.Hour)
	if r := m.must("vault", "sync", v); !strings.Contains(r.stderr, "5 archives") || !strings.Contains(r.stderr, "; 0 new") {
		t.Errorf("%s", r.stderr)
	}
}

// Parts of any size take no memory of that size: a file is read where it lies. Killed in between it goes on.
// What the collector lets pile up depends on what else the machine does; a part is 256 MiB.
func TestGlacierLargeParts(t *testing.T) {
	t.Parallel()
	m := newMachine(t, memory(t))
	s := newService(t, m)
	noiseFile(t, m.path("f"), 1, 600<<20)
	g := newGate(t, s)
	v := "glacier://us-east-1/large?endpoint=http://" + g.host
	m.must("vault", "create", v)
	args := []string{"archive", "upload", v, "f", "--part-size", "256MiB"}
	cmd := m.command(t.Context(), args...)
	parts := 0
	g.start(t, cmd, func() bool { parts++; return parts == 1 }) // one arrives, and the others never
	for s.requests("UploadMultipartPart") < 1 {
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait() // it was killed
	g.open()
	r, peak := m.weighed(args...)
	if peak > 160<<20 || !strings.Contains(r.stderr, "going on with an interrupted upload") {
		t.Errorf("peak memory %d MiB\n%s", peak>>20, r.stderr)
	}
	m.exits(75, "archive", "retrieve", v, "f", "-o", "back")
	s.pass(6 * time.Hour)
	if _, peak := m.weighed("archive", "retrieve", v, "f", "-o", "back"); peak > 160<<20 {
		t.Errorf("retrieving took %d MiB", peak>>20)
	}
	m.shell("cmp f back")
}

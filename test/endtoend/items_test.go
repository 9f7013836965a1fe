package endtoend_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/firn-backup/firn/internal/mustrun"
	"github.com/firn-backup/firn/internal/source/sourcetest"
)

// archivesOf are the archives of the machine's vault that hold items, by id.
func archivesOf(t *testing.T, m *machine) map[string]bool {
	t.Helper()
	all := map[string]bool{}
	root := m.path("v/archives")
	must(t, filepath.WalkDir(root, func(p string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		id, err := filepath.Rel(root, p)
		all[id] = true
		return err
	}))
	return all
}

// TestKillReconcile: a mirror is reconciled, or the items of a directory are stored, and killed at random moments, each followed by the same
// command, while files change and go: in the end everything is stored once, nothing else is, and at no moment is an archive missing that
// the catalog counts on.
func TestKillReconcile(t *testing.T) {
	t.Parallel()
	for kind, encrypt := range map[string]string{"mirror": "age", "items": "age", "mirror-open": "none", "items-open": "none"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			kind := strings.TrimSuffix(kind, "-open")
			m := newMachine(t, memory(t))
			r := rand.New(rand.NewPCG(uint64(os.Getpid()), 7))
			t.Logf("seed: %d", os.Getpid())
			write := func(k, version int) {
				dir := m.path("src", fmt.Sprintf("%x", k%8))
				if k%3 == 0 {
					dir = m.path("src") // a file that is an item by itself
				}
				must(t, os.MkdirAll(dir, 0o755))
				must(t, os.WriteFile(filepath.Join(dir, fmt.Sprintf("band%x", k)), []byte(fmt.Sprintf("band %d, version %d", k, version)), 0o644))
			}
			for k := range 60 {
				write(k, 0)
			}
			conf := fmt.Sprintf("[vault.v]\nurl = \"dir:%s\"\n[set.src]\nkind = \"%s\"\npath = \"%s\"\nvault = \"v\"\nreplace = true\nencrypt = \"%s\"\n",
				m.path("v"), kind, m.path("src"), encrypt)
			must(t, os.MkdirAll(m.path(".config/firn"), 0o755))
			must(t, os.WriteFile(m.path(".config/firn/config.toml"), []byte(conf), 0o600))
			m.must("vault", "create", "v")
			m.backup = []string{"backup", "src", "--json"}
			if kind == "mirror" {
				m.backup = []string{"vault", "reconcile", "src", "--commit", "--json"}
			}
			killing(t, m, r, func(version int) {
				for range 15 {
					write(r.IntN(70), version)
				}
				_ = os.Remove(m.path("src", fmt.Sprintf("band%x", 3*version)))
			})
			m.must("restore", "src", "--to", "back")
			if kind == "items" {
				for version := 1; version <= 4; version++ { // what is gone is kept by a set of items
					_ = os.Remove(m.path("back", fmt.Sprintf("band%x", 3*version)))
					_ = os.Remove(m.path("src", fmt.Sprintf("band%x", 3*version)))
				}
			}
			m.shell("diff -r src back")
		})
	}
}

// killing runs the machine's backup again and again, killed at random moments, and then to its end, after each of four changes.
func killing(t *testing.T, m *machine, r *rand.Rand, change func(version int)) {
	t.Helper()
	kills := 0
	for version := 1; version <= 4; version++ {
		for runs := 0; killAfter(t, m, r.IntN(12), r); runs++ {
			kills++
			there := archivesOf(t, m)
			for _, i := range currentItems(t, m) {
				if !there[i] {
					t.Fatalf("archive %s of a current version is not in the vault", i)
				}
			}
			if runs > 8 {
				break
			}
		}
		change(version)
	}
	m.must(m.backup...)
	m.must("verify", "--read")
	if r := m.must("verify"); strings.Contains(r.stderr, "orphan") {
		t.Errorf("orphans:\n%s", r.stderr)
	}
	if r := m.must(m.backup...); strings.Contains(r.stdout, `"event":"archive"`) {
		t.Errorf("not done:\n%s", r.stdout)
	}
	t.Logf("%d kills", kills)
}

// currentItems are the archives of the current versions of the set.
func currentItems(t *testing.T, m *machine) []string {
	t.Helper()
	res := m.run("ls", "src", "--json")
	if res.code != 0 {
		return nil // killed before there was a catalog
	}
	var list []struct {
		Archive string `json:"archive"`
	}
	must(t, json.Unmarshal([]byte(res.stdout), &list))
	var out []string
	for _, i := range list {
		if i.Archive != "" {
			out = append(out, i.Archive)
		}
	}
	return out
}

// TestItemsWithoutFirn: what is stored restores with the usual tools alone.
func TestItemsWithoutFirn(t *testing.T) {
	t.Parallel()
	mustrun.Tool(t, "age")
	mustrun.Tool(t, "zstd")
	mustrun.Tool(t, "rsync")
	m := newMachine(t, memory(t))
	m.must("key", "new")
	must(t, os.MkdirAll(m.path("src/project/sub"), 0o755))
	must(t, os.WriteFile(m.path("src/project/sub/notes"), []byte("notes"), 0o640))
	must(t, os.Link(m.path("src/project/sub/notes"), m.path("src/project/again")))
	must(t, os.Symlink("sub/notes", m.path("src/project/link")))
	must(t, os.WriteFile(m.path("src/dump.sql"), []byte(strings.Repeat("insert;\n", 9000)), 0o600))
	for _, c := range []struct{ name, keys, dir, file string }{
		{"locked", "", `age -d -i "$KEY" "$1" | zstd -dc | tar x`, `age -d -i "$KEY" "$1" | zstd -dc > dump.sql`},
		{"open", "encrypt = \"none\"\ncompress = \"gzip\"\n", `tar xzf "$1"`, `gzip -dc < "$1" > dump.sql`},
		{"bare", "encrypt = \"none\"\ncompress = \"none\"\n", `tar xf "$1"`, `cp "$1" dump.sql`},
	} {
		url := m.path("v-" + c.name)
		conf := fmt.Sprintf("[vault.v]\nurl = \"dir:%s\"\n[set.%s]\nkind = \"items\"\npath = \"%s\"\nvault = \"v\"\n%s", url, c.name, m.path("src"), c.keys)
		must(t, os.WriteFile(m.path(c.name+".toml"), []byte(conf), 0o600))
		m.must("--config", m.path(c.name+".toml"), "vault", "create", "v")
		m.must("--config", m.path(c.name+".toml"), "backup", c.name)
		var list []struct{ Type, Archive string }
		must(t, json.Unmarshal([]byte(m.must("--config", m.path(c.name+".toml"), "ls", c.name, "--json").stdout), &list))
		back := m.path("back-" + c.name)
		must(t, os.MkdirAll(back, 0o755))
		for _, i := range list {
			script := c.file
			if i.Type == "d" {
				script = c.dir
			}
			cmd := exec.Command("sh", "-e", "-c", script, "sh", filepath.Join(url, "archives", i.Archive))
			cmd.Dir, cmd.Env = back, append(os.Environ(), "KEY="+m.path(".config/firn/key.txt"))
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("%s: %v\n%s", script, err, out)
			}
		}
		sourcetest.Diff(t, m.path("src/project"), filepath.Join(back, "project"))
		same(t, m.path("src/dump.sql"), filepath.Join(back, "dump.sql"))
	}
}

func same(t *testing.T, a, b string) {
	t.Helper()
	x, err := os.ReadFile(a)
	must(t, err)
	y, err := os.ReadFile(b)
	must(t, err)
	if string(x) != string(y) {
		t.Errorf("%s is not %s", b, a)
	}
}

package reader_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/firn-backup/firn/internal/mustrun"
	"github.com/firn-backup/firn/internal/source/sourcetest"

	// What the binary is made of: see test/endtoend.
	_ "github.com/firn-backup/firn/internal/cli"
)

// TestBinary has the real program back up a tree of everything that is hard
// about file systems, three times over: as it is, after every kind of change,
// and after much of it went. After each, the reader must bring back what is
// there, as rsync sees it. It is told no signer: it finds the key in the key file.
func TestBinary(t *testing.T) {
	mustrun.Tool(t, append(codecs["zstd+age"].tools, "go", "gpg", "python3", "openssl", "bash", "rsync")...)
	bin := filepath.Join(t.TempDir(), "firn")
	build := exec.Command("go", "build", "-o", bin, "github.com/firn-backup/firn/cmd/firn")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, c := range []struct {
		compress, encrypt string
		whole             bool // the story to its end
	}{{"zstd:1", "age", true}, {"none", "openpgp", false}} {
		t.Run(c.compress+"+"+c.encrypt, func(t *testing.T) {
			w := newWorld(t, bin, c.compress, c.encrypt)

			sourcetest.Hostile(t, w.source)
			odd := filepath.Join(w.source, "odd attribute")
			must(t, os.WriteFile(odd, nil, 0o600))
			must(t, unix.Setxattr(odd, "user.\xff%=", []byte("its name is not UTF-8"), 0))
			first := w.round(t)
			sourcetest.Mutate(t, w.source)
			w.round(t)
			if !c.whole {
				return
			}
			w.prune(t)
			w.round(t)
			w.round(t) // a snapshot that stores nothing

			again := filepath.Join(t.TempDir(), "again")
			w.read(t, "1", again)
			sourcetest.Diff(t, filepath.Join(first, w.source), filepath.Join(again, w.source))
		})
	}
}

// world is a home directory, a tree to back up, and the program.
type world struct {
	bin, home, source string
	options           []string // of backups
}

func newWorld(t *testing.T, bin, compress, encrypt string) *world {
	t.Helper()
	dir := t.TempDir()
	w := &world{bin: bin, home: filepath.Join(memory(t), "home"), source: filepath.Join(dir, "tree")}
	w.options = []string{"--compress", compress, "--encrypt", encrypt, "--volume-size", "1MiB", "--name", "documents"}
	must(t, os.Mkdir(w.home, 0o700))
	if encrypt == "openpgp" {
		newKeyRing(t)
		w.options = append(w.options, "--recipient", keyRingUser)
	}
	return w
}

// memory is a directory in memory where there is one: what is in a vault was synced.
func memory(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "firn-reader-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// round backs the tree up and reads it back. It returns where to.
func (w *world) round(t *testing.T) string {
	t.Helper()
	cmd := exec.Command(w.bin, append([]string{"backup", "--quiet", w.source}, w.options...)...)
	cmd.Env = append(os.Environ(), "HOME="+w.home, "XDG_CONFIG_HOME=", "XDG_DATA_HOME=", "XDG_STATE_HOME=", "XDG_CACHE_HOME=")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("backup: %v\n%s", err, out)
	}
	dest := filepath.Join(t.TempDir(), "out")
	w.read(t, "latest", dest)
	sourcetest.Diff(t, w.source, filepath.Join(dest, w.source))
	return dest
}

func (w *world) read(t *testing.T, when, dest string) {
	t.Helper()
	vault, key := filepath.Join(w.home, ".local/share/firn/vault/archives"), filepath.Join(w.home, ".config/firn/key.txt")
	cmd := exec.Command("python3", "firn-read.py", vault, key, "documents", when, dest)
	if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
		t.Fatalf("reading snapshot %s: %v\n%s", when, err, out)
	}
}

// prune takes much of the hostile tree away, and changes the types of some of the rest.
func (w *world) prune(t *testing.T) {
	t.Helper()
	path := func(rel string) string { return filepath.Join(w.source, rel) }
	for _, gone := range []string{"names", "deep", "sizes", "times"} {
		must(t, os.RemoveAll(path(gone)))
	}
	must(t, os.WriteFile(path("sizes"), []byte("was a directory\n"), 0o600))
	must(t, os.Symlink("/", path("times")))

	// Of each second file below links and sparse a name goes, or its content, or its mode changes.
	i := 0
	for _, pattern := range []string{"links/*", "sparse/*", "sparse*"} {
		names, err := filepath.Glob(path(pattern))
		must(t, err)
		for _, name := range names {
			if st, err := os.Lstat(name); err != nil || !st.Mode().IsRegular() {
				continue
			}
			switch i++; i % 4 {
			case 0:
				must(t, os.Remove(name))
			case 1:
				must(t, os.Chmod(name, 0o640))
			case 2:
				must(t, os.Link(name, name+" too"))
			}
		}
	}
	if i < 8 {
		t.Fatalf("only %d files to change", i)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

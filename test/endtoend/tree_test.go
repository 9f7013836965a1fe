package endtoend_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/firn-backup/firn/internal/mustrun"
	"github.com/firn-backup/firn/internal/source/sourcetest"
)

func soak() bool { return os.Getenv("FIRN_SOAK") == "1" }

// A frozen copy of this system's own trees, and a hostile one, go in and come
// back; changed, they go in and come back again; and so they do without Firn.
func TestSystemTree(t *testing.T) {
	t.Parallel()
	mustrun.Root(t)
	mustrun.Tool(t, "rsync", "age", "zstd", "tar", "cp")
	m := newMachine(t, t.TempDir())
	src := m.path("src")
	must(t, os.Mkdir(src, 0o755))
	copies := "/etc /usr/share/doc /usr/share/zoneinfo /usr/share/perl /usr/lib/python3 /usr/lib/udev /usr/lib/systemd"
	if soak() {
		copies = "/etc /usr/share /usr/lib"
	}
	m.shell(`for d in ` + copies + `; do [ -e "$d" ] || continue; mkdir -p "src/sys$(dirname "$d")"; cp -a "$d" "src/sys$d"; done`)
	sourcetest.Hostile(t, m.path("src/hostile"))
	m.must("backup", "src")
	m.must("restore", "src", "--to", "back")
	same := func(back string) {
		for _, d := range []string{"sys", "hostile"} {
			sourcetest.Diff(t, filepath.Join(src, d), filepath.Join(m.path(back), src, d))
		}
	}
	same("back")

	sourcetest.Mutate(t, m.path("src/hostile"))
	m.shell(`rm -rf src/sys/etc/init.d; echo changed >> src/sys/etc/passwd; chmod -R g+w src/sys/usr/share/doc; touch src/sys/new`)
	m.must("backup", "src")
	m.must("restore", "src", "--to", "back2")
	same("back2")
	m.must("verify", "--read")

	// Without the catalog, and then without Firn.
	m.shell(`rm -r .local/state/firn`)
	m.must("recover")
	m.must("restore", "src", "--to", "back3")
	same("back3")
}

// The volumes together are what age, zstd and tar restore without Firn: the
// full snapshot, and the others for their codecs.
func TestWithoutFirn(t *testing.T) {
	t.Parallel()
	mustrun.Root(t)
	mustrun.Tool(t, "age", "zstd", "gzip", "bzip2", "gpg", "tar", "rsync")
	for _, x := range []struct{ name, decode string }{
		{"zstd+age", `age -d -i .config/firn/key.txt "$f" | zstd -dc`},
		{"gzip+age", `age -d -i .config/firn/key.txt "$f" | gzip -dc`},
		{"bzip2+none", `bzip2 -dc "$f"`},
		{"zstd+openpgp", `gpg -q --batch -d "$f" 2>/dev/null | zstd -dc`},
		{"none+none", `cat "$f"`},
	} {
		t.Run(x.name, func(t *testing.T) {
			t.Parallel()
			home, err := os.MkdirTemp("", "fe") // short: gpg's agent has a socket below it
			must(t, err)
			sourcetest.Removable(t, home)
			m := newMachine(t, home)
			must(t, os.Mkdir(m.path("src"), 0o755))
			sourcetest.Hostile(t, m.path("src/hostile"), sourcetest.Deep) // whose paths GNU tar cannot make
			args := []string{"backup", "src", "--volume-size", "1MiB"}
			compress, encrypt, _ := strings.Cut(x.name, "+")
			args = append(args, "--compress", compress, "--encrypt", encrypt)
			if encrypt == "openpgp" {
				m.shell(`mkdir -m 700 .gnupg; gpg --batch -q --passphrase '' --quick-gen-key me@example.com rsa3072 encr never`)
				t.Cleanup(func() { m.shell("gpgconf --kill all") })
				args = append(args, "--recipient", "me@example.com")
			}
			m.must(args...)
			m.shell(`mkdir back; for f in $(ls .local/share/firn/vault/archives/src-*/*/0*); do ` + x.decode + `; done |
				tar -x -C back --xattrs --xattrs-include='*' --acls --numeric-owner -p 2>tar.err || { cat tar.err >&2; exit 1; }`)
			sourcetest.Diff(t, m.path("src"), m.path("back", m.path("src")))
		})
	}
}

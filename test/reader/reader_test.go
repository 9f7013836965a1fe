// Package reader_test proves that docs/design/format.md is enough to get
// everything back: firn-read.py, which was written from that page alone, must
// restore what is stored, with Debian's programs only.
package reader_test

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/firn-backup/firn/internal/mustrun"
)

var codecs = map[string]struct {
	compress, encrypt string
	tools             []string
}{
	"zstd+age":     {"zstd", "age", []string{"zstd", "age", "age-keygen"}},
	"gzip+openpgp": {"gzip", "openpgp", []string{"gzip", "gpg"}},
	"bzip2+none":   {"bzip2", "none", []string{"bzip2"}},
	"none+none":    {"none", "none", nil},
}

func TestChain(t *testing.T) {
	for name, c := range codecs {
		t.Run(name, func(t *testing.T) {
			mustrun.Tool(t, append(c.tools, "python3", "openssl", "bash", "tar", "jq")...)
			if c.encrypt != "openpgp" {
				t.Parallel() // gpg gets its key ring through the environment
			}
			v := newVault(t, c.compress, c.encrypt)
			trees := v.story(t)
			for i, want := range trees {
				dest := filepath.Join(t.TempDir(), "out")
				if out, err := v.read(dest, v.snaps[i].Snap); err != nil {
					t.Fatalf("snapshot %d: %v\n%s", i+1, err, out)
				}
				want.compare(t, dest)
			}
			dest := t.TempDir()
			for i, want := range trees {
				v.untar(t, dest, i)
				want.compareContent(t, dest)
			}
		})
	}
}

// TestWhen finds snapshots by date and by number, and sets by id.
func TestWhen(t *testing.T) {
	t.Parallel()
	mustrun.Tool(t, "python3", "openssl", "bash")
	v := newVault(t, "none", "none")
	trees := v.story(t)
	for when, want := range map[string]int{"2026-11-01": 0, "2026-11-02T11": 0, "2026-11-02": 1, "2026-11-02T12:00:00.5": 1, "2027-01": 2, "latest": 2, "1": 0, "2": 1} {
		dest := filepath.Join(t.TempDir(), "out")
		if out, err := v.run(dest, v.snaps[0].SetID, when); err != nil {
			t.Errorf("%s: %v\n%s", when, err, out)
			continue
		}
		trees[want].compare(t, dest)
	}
	if out, err := v.read(filepath.Join(t.TempDir(), "out"), "2026-10"); err == nil {
		t.Errorf("restored from before the first snapshot: %s", out)
	}
}

// TestUntrusted: whatever is wrong with a chain, it is refused before anything is written.
func TestUntrusted(t *testing.T) {
	t.Parallel()
	mustrun.Tool(t, "python3", "openssl", "bash")
	for name, spoil := range map[string]func(t *testing.T, v *vault) []string{
		"nobody is trusted": func(_ *testing.T, v *vault) []string {
			return []string{"ed25519:"}
		},
		"foreign signer": func(_ *testing.T, v *vault) []string {
			v.key = ed25519.NewKeyFromSeed(bytes.Repeat([]byte{9}, 32))
			return []string{v.signer()}
		},
		"a changed entry": func(t *testing.T, v *vault) []string {
			v.edit(t, 2, func(s string) string { return strings.Replace(s, `"mode":"0400"`, `"mode":"0666"`, 1) })
			return nil
		},
		"no signature": func(t *testing.T, v *vault) []string {
			v.edit(t, 2, func(s string) string { return s[:strings.Index(s, `{"signature"`)] })
			return nil
		},
		"an older base in the newer one's place": func(t *testing.T, v *vault) []string {
			b, err := os.ReadFile(v.manifests[0])
			if err != nil {
				t.Fatal(err)
			}
			v.edit(t, 1, func(string) string { return string(b) })
			return nil
		},
		"a base that is gone": func(t *testing.T, v *vault) []string {
			if err := os.Remove(v.manifests[0]); err != nil {
				t.Fatal(err)
			}
			return nil
		},
		"a newer version": func(t *testing.T, v *vault) []string {
			v.edit(t, 1, func(s string) string { return strings.Replace(s, `"min-reader":1`, `"min-reader":2`, 1) })
			return nil
		},
		"a newer version of the newest": func(t *testing.T, v *vault) []string {
			v.edit(t, 2, func(s string) string { return strings.Replace(s, `"min-reader":1`, `"min-reader":2`, 1) })
			return nil
		},
		"a must-understand key": func(t *testing.T, v *vault) []string {
			v.edit(t, 1, func(s string) string { return strings.Replace(s, `"must":[]`, `"must":["dedup"]`, 1) })
			return nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			v := newVault(t, "none", "none")
			v.story(t)
			signers := spoil(t, v)
			dest := filepath.Join(t.TempDir(), "out")
			if out, err := v.read(dest, "latest", signers...); err == nil {
				t.Errorf("restored: %s", out)
			}
			if left, err := os.ReadDir(dest); len(left) > 0 || err != nil && !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%v, %v", left, err)
			}
		})
	}
}

// TestDamagedVolume: what lies elsewhere comes back all the same.
func TestDamagedVolume(t *testing.T) {
	t.Parallel()
	mustrun.Tool(t, "python3", "openssl", "bash")
	v := newVault(t, "none", "none")
	trees := v.story(t)
	archive := filepath.Join(v.archives, v.firstVolume)
	b, err := os.ReadFile(archive)
	if err != nil {
		t.Fatal(err)
	}
	e := trees[0]["home/me/a file"].e
	b[e.Content.Offset] ^= 1
	if err := os.WriteFile(archive, b, 0o600); err != nil {
		t.Fatal(err)
	}
	dest := filepath.Join(t.TempDir(), "out")
	out, err := v.read(dest, v.snaps[0].Snap)
	for _, name := range []string{e.Path, v.firstVolume} {
		if err == nil || !strings.Contains(string(out), name) {
			t.Errorf("%s is not reported as damaged: %v: %s", name, err, out)
		}
	}
	want := trees[0]
	delete(want, e.Path)
	want.compare(t, dest)
}

func (v *vault) signer() string {
	return "ed25519:" + base64.RawURLEncoding.EncodeToString(v.key.Public().(ed25519.PublicKey))
}

// read runs the reader. Without signers it is told to trust the vault's.
func (v *vault) read(dest, when string, signers ...string) ([]byte, error) {
	return v.run(dest, "documents", when, signers...)
}

func (v *vault) run(dest, set, when string, signers ...string) ([]byte, error) {
	if len(signers) == 0 {
		signers = []string{v.signer()}
	}
	identity := v.identity
	if v.encrypt != "age" {
		identity = "-"
	}
	args := append([]string{"firn-read.py", v.archives, identity, set, when, dest}, signers...)
	return exec.Command("python3", args...).CombinedOutput()
}

// edit changes the manifest of a snapshot, which is neither compressed nor encrypted.
func (v *vault) edit(t *testing.T, snap int, change func(string) string) {
	t.Helper()
	b, err := os.ReadFile(v.manifests[snap])
	if err != nil {
		t.Fatal(err)
	}
	after := change(string(b))
	if after == string(b) {
		t.Fatal("nothing was changed")
	}
	if err := os.WriteFile(v.manifests[snap], []byte(after), 0o600); err != nil {
		t.Fatal(err)
	}
}

// commands are the blocks of shell commands in the page: how to check a
// signature, and how to restore a snapshot on top of the one before.
func commands(t *testing.T) (verify, restore string) {
	t.Helper()
	page, err := os.ReadFile("../../docs/design/format.md")
	if err != nil {
		t.Fatal(err)
	}
	var blocks []string
	for _, b := range strings.Split(string(page), "```sh\n")[1:] {
		b, _, _ = strings.Cut(b, "```")
		blocks = append(blocks, b)
	}
	if len(blocks) != 2 {
		t.Fatalf("%d blocks of commands in the page", len(blocks))
	}
	return blocks[0], blocks[1]
}

// untar brings dest from the snapshot before to this one as the page says, with Debian's programs only.
func (v *vault) untar(t *testing.T, dest string, snap int) {
	t.Helper()
	h := v.snaps[snap]
	verify, restore := commands(t)
	const native = `age -d -i "$KEY" | zstd -d`
	if !strings.Contains(restore, native) {
		t.Fatalf("the page's commands do not decode with %s", native)
	}
	decode := map[string]string{"age": `age -d -i "$KEY"`, "openpgp": "gpg --batch -qd", "none": "cat"}[h.Encrypt] +
		map[string]string{"zstd": " | zstd -d", "gzip": " | gzip -d", "bzip2": " | bzip2 -d", "none": ""}[h.Compress]
	cmd := exec.Command("bash", "-c", strings.Replace(restore, native, decode, 1)+verify)
	cmd.Env = append(os.Environ(), "KEY="+v.identity, "DIR="+filepath.Dir(v.manifests[snap]), "DEST="+dest, "ARCHIVES="+v.archives, "TMPDIR="+t.TempDir())
	if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "Signature Verified Successfully") {
		t.Fatalf("snapshot %d: %v\n%s", snap+1, err, out)
	}
}

// The page is good enough for a reader of 150 lines.
func TestLength(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("firn-read.py")
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(text), "\n"); n > 150 {
		t.Errorf("%d lines", n)
	}
	for line := range strings.SplitSeq(string(text), "\n") {
		if len(line) > 170 {
			t.Errorf("a line of %d characters: %s", len(line), line)
		}
	}
}

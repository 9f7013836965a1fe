package endtoend_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
)

const peakAllowed = 200 << 20

// The memory of a backup, a restore of one file and a verification does not grow with the size.
func TestPeakMemory(t *testing.T) {
	t.Parallel()
	size := int64(8 << 30)
	if soak() {
		size = 20 << 30
	}
	m := newMachine(t, t.TempDir())
	must(t, os.Mkdir(m.path("src"), 0o755))
	// One part in 16 does not compress; the rest is text.
	text := bytes.Repeat([]byte("The quick brown fox jumps over the lazy dog, and what of it? "), 1<<20/61+1)[:1<<20]
	noise := make([]byte, 1<<20)
	src := rand.NewChaCha8([32]byte{3})
	for i := range size >> 30 {
		f, err := os.Create(m.path("src", fmt.Sprintf("file%02d", i)))
		must(t, err)
		for k := range 1024 {
			b := text
			if k%16 == 0 {
				src.Read(noise)
				b = noise
			}
			_, err := f.Write(b)
			must(t, err)
		}
		must(t, f.Close())
	}
	_, peak := m.weighed("backup", "src")
	t.Logf("backup of %d GiB: peak %d MiB", size>>30, peak>>20)
	if peak > peakAllowed {
		t.Errorf("backup: peak memory %d MiB", peak>>20)
	}
	if _, peak = m.weighed("restore", "src", m.path("src/file03"), "--to", "back"); peak > peakAllowed {
		t.Errorf("restore: peak memory %d MiB", peak>>20)
	}
	must(t, os.RemoveAll(m.path("src")))
	if _, peak = m.weighed("verify", "--read"); peak > peakAllowed {
		t.Errorf("verify --read: peak memory %d MiB", peak>>20)
	}
}

// A million small files, in soak; fewer otherwise.
func TestPeakMemoryOfManyFiles(t *testing.T) {
	t.Parallel()
	n := 50_000
	if soak() {
		n = 1_000_000
	}
	m := newMachine(t, t.TempDir())
	for i := range n {
		dir := m.path("src", fmt.Sprintf("%03d/%02d", i/10_000, i/100%100))
		if i%100 == 0 {
			must(t, os.MkdirAll(dir, 0o755))
		}
		must(t, os.WriteFile(filepath.Join(dir, fmt.Sprint(i)), []byte(fmt.Sprintf("file %d\n", i)), 0o644))
	}
	for _, args := range [][]string{{"backup", "src"}, {"backup", "src"}, {"restore", "src", "--to", "back"}, {"verify", "--read"}} {
		_, peak := m.weighed(args...)
		t.Logf("%v: peak %d MiB", args, peak>>20)
		if peak > peakAllowed {
			t.Errorf("%v: peak memory %d MiB", args, peak>>20)
		}
	}
}

// A file of 1 MiB out of 1 GiB that does not compress is had for less than 4 MiB.
func TestOneFileCostsOneFile(t *testing.T) {
	t.Parallel()
	m := newMachine(t, memory(t))
	must(t, os.Mkdir(m.path("src"), 0o755))
	src := rand.NewChaCha8([32]byte{5})
	data := make([]byte, 1<<20)
	for i := range 1024 {
		src.Read(data)
		must(t, os.WriteFile(m.path("src", fmt.Sprintf("%04d", i)), data, 0o644))
	}
	m.must("backup", "src", "--no-verify-frames")
	for _, name := range []string{"0000", "0333", "0777", "1023"} {
		var s struct {
			BytesRead int64 `json:"bytes_read"`
			Files     int64 `json:"files"`
		}
		m.summary(&s, "restore", "src", m.path("src", name), "--to", "back")
		if s.Files != 1 || s.BytesRead == 0 || s.BytesRead >= 4<<20 {
			t.Errorf("%s: %d files, %d bytes read", name, s.Files, s.BytesRead)
		}
		want, err := os.ReadFile(m.path("src", name))
		must(t, err)
		got, err := os.ReadFile(m.path("back", m.path("src", name)))
		must(t, err)
		if !bytes.Equal(got, want) {
			t.Errorf("%s differs", name)
		}
	}
}

package durable

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
)

// TestDirect writes what lies well and what does not, and looks at the file the usual way, in whose cache its old bytes are.
func TestDirect(t *testing.T) {
	t.Parallel()
	name := filepath.Join(t.TempDir(), "file")
	want := make([]byte, 3<<20+123)
	r := rand.NewChaCha8([32]byte{1})
	if err := os.WriteFile(name, want, 0o600); err != nil {
		t.Fatal(err)
	}
	d, err := OpenDirect(name)
	if errors.Is(err, errors.ErrUnsupported) {
		t.Skipf("not on this file system: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	block := make([]byte, 1<<20+directAlign)
	for _, c := range []struct {
		off, size, skew int
		want            int // where the file system does not refuse
	}{
		{0, 1 << 20, 0, 1 << 20},
		{1 << 20, 1<<20 + 123, 0, 1 << 20},
		{2 << 20, 100, 0, 0},
		{2<<20 + 17, 1 << 20, 0, 0},
		{2 << 20, 1 << 20, 1, 1 << 20},
	} {
		p := block[c.skew : c.skew+c.size]
		r.Read(p)
		n, err := d.WriteAt(p, int64(c.off))
		if err != nil && !errors.Is(err, errors.ErrUnsupported) {
			t.Fatal(err)
		}
		if err == nil && n != c.want {
			t.Errorf("%d bytes at %d, %d off in memory: wrote %d, want %d", c.size, c.off, c.skew, n, c.want)
		}
		copy(want[c.off:], p[:n])
	}
	got, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Error("the file has other bytes than were written")
	}
}

func TestOpenDirectOfNothing(t *testing.T) {
	t.Parallel()
	_, err := OpenDirect(filepath.Join(t.TempDir(), "none"))
	if !errors.Is(err, os.ErrNotExist) && !errors.Is(err, errors.ErrUnsupported) {
		t.Error(err)
	}
}

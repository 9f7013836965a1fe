package manifest_test

import (
	"io"
	"os"
	"runtime"
	"testing"

	"github.com/firn-backup/firn/internal/codec"
	"github.com/firn-backup/firn/internal/manifest"
)

// TestMemory writes and reads a manifest at once, through a pipe, and looks at
// what is held meanwhile: the same for any number of entries.
func TestMemory(t *testing.T) {
	n := 100_000
	if os.Getenv("FIRN_SOAK") == "1" {
		n = 10_000_000
	}
	pr, pw := io.Pipe()
	go func() {
		pw.CloseWithError(func() error {
			w, err := manifest.NewWriter(pw, fullHeader())
			if err != nil {
				return err
			}
			if err := w.Volume(testVolume(1, codec.Frame{Raw: 1 << 40, Packed: 1 << 30})); err != nil {
				return err
			}
			for i := range n {
				e := benchEntry(i)
				if err := w.Entry(&e); err != nil {
					return err
				}
			}
			_, err = w.Close(testKey())
			return err
		}())
	}()
	r, err := manifest.NewReader(pr)
	if err != nil {
		t.Fatal(err)
	}
	runtime.GC()
	var before, now runtime.MemStats
	runtime.ReadMemStats(&before)
	for i := 0; ; i++ {
		_, err := r.Next()
		if err == io.EOF {
			if i != n+1 {
				t.Errorf("%d records", i)
			}
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if i%(n/4) == n/5 {
			runtime.GC()
			runtime.ReadMemStats(&now)
			if now.HeapAlloc > before.HeapAlloc+8<<20 {
				t.Errorf("after %d records %d bytes are held, at first %d", i, now.HeapAlloc, before.HeapAlloc)
			}
		}
	}
}

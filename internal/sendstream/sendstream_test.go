package sendstream

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// samples are streams of real programs: btrfs-progs 6.2 with Linux 6.18, zfs-fuse 0.7.
func sample(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasSuffix(name, ".gz") {
		return b
	}
	z, err := gzip.NewReader(bytes.NewReader(b))
	if err == nil {
		b, err = io.ReadAll(z)
	}
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func samples() map[string]Info {
	return map[string]Info{
		"full.btrfs":           {Format: Btrfs},
		"inc.btrfs":            {Format: Btrfs, Incremental: true},
		"two.btrfs":            {Format: Btrfs},
		"v2.btrfs":             {Format: Btrfs},
		"full.zfs.gz":          {Format: ZFS, ID: "6226480617313127048"},
		"inc.zfs.gz":           {Format: ZFS, Incremental: true, ID: "2861569354728762424", BaseID: "6226480617313127048"},
		"intermediates.zfs.gz": {Format: ZFS, Incremental: true, BaseID: "6226480617313127048"},
		"recursive.zfs.gz":     {Format: ZFS},
	}
}

// check passes a stream through a Checker in pieces.
func check(f Format, b []byte, piece int) error {
	c := NewChecker(f)
	for len(b) > 0 {
		n := min(piece, len(b))
		if _, err := c.Write(b[:n]); err != nil {
			return err
		}
		b = b[n:]
	}
	return c.End()
}

func TestWhole(t *testing.T) {
	t.Parallel()
	for name, want := range samples() {
		b := sample(t, name)
		got, err := Inspect(b[:min(len(b), HeadSize)])
		if want.Format == Btrfs { // UUIDs are checked by what refers to what
			if len(got.ID) != 36 || (got.BaseID != "") != want.Incremental {
				t.Errorf("%s: %+v", name, got)
			}
			got.ID, got.BaseID = "", ""
		}
		if err != nil || got != want {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
		for _, piece := range []int{1, 7, 312, 1 << 20} {
			if err := check(want.Format, b, piece); err != nil {
				t.Errorf("%s in pieces of %d: %v", name, piece, err)
			}
		}
	}
	full, _ := Inspect(sample(t, "full.btrfs"))
	inc, _ := Inspect(sample(t, "inc.btrfs"))
	if inc.BaseID != full.ID {
		t.Errorf("the incremental builds on %s, the full one is %s", inc.BaseID, full.ID)
	}
}

// A stream that is cut anywhere is never whole, unless it is cut between two streams.
func TestCut(t *testing.T) {
	t.Parallel()
	for name, info := range samples() {
		b := sample(t, name)
		step := max(1, len(b)/2000)
		for n := 0; n < len(b); n += step {
			err := check(info.Format, b[:n], 1<<20)
			if err == nil && name == "two.btrfs" && bytes.HasPrefix(b[n:], []byte(btrfsMagic)) {
				continue
			}
			if !errors.Is(err, ErrCut) {
				t.Fatalf("%s cut at %d of %d: %v", name, n, len(b), err)
			}
		}
		if err := check(info.Format, append(bytes.Clone(b), 'x'), 1<<20); err == nil {
			t.Errorf("%s: a byte behind its end is not seen", name)
		}
		// Of what is cut short of its magic number no more can be said than that it is cut.
		if f := Detect(b[:5]); info.Format == Btrfs && f != Btrfs {
			t.Errorf("%s: five bytes of it are %s", name, f)
		}
	}
}

// Every command of btrfs has a checksum: no byte can be another one, the stream's version apart.
func TestDamagedBtrfs(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"full.btrfs", "inc.btrfs", "v2.btrfs"} {
		b := sample(t, name)
		for i := range b {
			if i >= len(btrfsMagic) && i < btrfsHeader {
				continue
			}
			bad := bytes.Clone(b)
			bad[i] ^= 1
			if err := check(Btrfs, bad, 1<<20); err == nil {
				t.Errorf("%s: byte %d changed, and nothing is seen", name, i)
			}
		}
	}
}

func TestRaw(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"", "x", "hello", "btrfs-stre", strings.Repeat("\x00", 400)} {
		f := Detect([]byte(text))
		if want := map[bool]Format{true: Btrfs, false: Raw}[text == "btrfs-stre"]; f != want {
			t.Errorf("%q is %s", text, f)
		}
		if f == Raw {
			if err := check(f, []byte(text), 3); err != nil {
				t.Errorf("%q: %v", text, err)
			}
		}
	}
	c := NewChecker(Raw)
	if _, err := c.Write(make([]byte, 100)); err != nil || c.Bytes() != 100 {
		t.Errorf("%d bytes, %v", c.Bytes(), err)
	}
}

// Whatever the bytes, memory is bounded and the answer does not depend on how they are cut into pieces.
func FuzzChecker(f *testing.F) {
	for name := range samples() {
		if b := sample(f, name); len(b) < 16<<10 {
			f.Add(b)
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		_, _ = Inspect(b[:min(len(b), HeadSize)])
		format := Detect(b)
		whole, pieces := check(format, b, 1<<20), check(format, b, 5)
		if (whole == nil) != (pieces == nil) {
			t.Errorf("%v whole, %v in pieces", whole, pieces)
		}
	})
}

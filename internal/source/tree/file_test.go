package tree

import (
	"bytes"
	"crypto/sha256"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"github.com/firn-backup/firn/internal/snapshot"
	"github.com/firn-backup/firn/internal/source/sourcetest"
	"github.com/firn-backup/firn/internal/tarstream"
)

// TestExtentList: however many extents there are, few are kept, and these hold
// all the others in order.
func TestExtentList(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		most := rapid.IntRange(1, 20).Draw(t, "most")
		l := extentList{most: most}
		var all []tarstream.Extent
		var end int64
		for range rapid.IntRange(0, 200).Draw(t, "extents") {
			x := tarstream.Extent{Offset: end + rapid.SampledFrom([]int64{0, 1, 4096, 8192, 100_000, 1 << 40}).Draw(t, "hole"), Size: rapid.Int64Range(1, 1<<20).Draw(t, "size")}
			end = x.Offset + x.Size
			all = append(all, x)
			l.add(x)
			if len(l.extents) >= 2*most {
				t.Fatalf("%d extents are kept", len(l.extents))
			}
		}
		l.shrink(most)
		if len(l.extents) > most {
			t.Fatalf("%d extents are left", len(l.extents))
		}
		i := 0
		end = -1
		for _, x := range l.extents {
			if x.Offset <= end {
				t.Fatalf("extent %v begins before %d", x, end)
			}
			end = x.Offset + x.Size
			for i < len(all) && all[i].Offset >= x.Offset && all[i].Offset+all[i].Size <= end {
				i++
			}
		}
		if i != len(all) {
			t.Fatalf("extent %v is in none", all[i])
		}
	})
}

// TestHoles: files of gigabytes of nothing are read as what they have.
func TestHoles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for name, offsets := range map[string][]int64{
		"all hole": nil, "at the end": {5<<30 - 4096}, "at the start": {0}, "many": {0, 1 << 20, 2 << 20, 4 << 30},
	} {
		path := filepath.Join(dir, name)
		f, err := os.Create(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := f.Truncate(5 << 30); err != nil {
			t.Fatal(err)
		}
		for _, off := range offsets {
			if _, err := f.WriteAt(bytes.Repeat([]byte{1}, 4096), off); err != nil {
				t.Fatal(err)
			}
		}
		f.Close()
		tree := open(t, Options{Paths: []string{path}})
		e := sourcetest.Walk(t, tree)[0].Entry
		in, err := tree.Open(&e)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(in)
		if err != nil || !in.Sparse() || int64(len(b)) != in.Stored() || in.Check() != nil || e.Size != 5<<30 {
			t.Fatalf("%s: %v, %v, %v, %d bytes", name, err, in.Sparse(), in.Check(), len(b))
		}
		extents, n, err := tarstream.ParseSparseMap(b, e.Size)
		if err != nil || len(extents) != len(offsets) {
			t.Fatalf("%s: extents %v, %v", name, extents, err)
		}
		for i, x := range extents {
			if x.Offset > offsets[i] || x.Offset+x.Size < offsets[i]+4096 {
				t.Errorf("%s: extent %v, data at %d", name, x, offsets[i])
			}
		}
		if data := b[n:]; bytes.Count(data, []byte{1}) != 4096*len(offsets) {
			t.Errorf("%s: the data is not what was written", name)
		}
		if err := in.Close(); err != nil {
			t.Error(err)
		}
	}
}

// TestSmallHoles: a form that saves little is not worth it.
func TestSmallHoles(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(path, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, minHoles-1); err != nil {
		t.Fatal(err)
	}
	tree := open(t, Options{Paths: []string{path}})
	e := sourcetest.Walk(t, tree)[0].Entry
	f, err := tree.Open(&e)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if b, err := io.ReadAll(f); f.Sparse() || err != nil || !bytes.Equal(b, make([]byte, minHoles-1)) {
		t.Errorf("sparse: %v, %v", f.Sparse(), err)
	}
}

// TestReadErrors: what cannot be read is zeros, and Check tells.
func TestReadErrors(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	makeTree(t, dir, "f")
	tree := open(t, Options{Paths: []string{dir + "/f"}})
	e := sourcetest.Walk(t, tree)[0].Entry
	in, err := tree.Open(&e)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	// Reading a directory is what fails without a broken disk.
	f := in.(*file)
	d, err := unix.Open(dir, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	unix.Close(f.fd)
	f.fd = d
	b, err := io.ReadAll(in)
	if err != nil || string(b) != "\x00" {
		t.Errorf("%q, %v", b, err)
	}
	if err := in.Check(); err == nil || !strings.Contains(err.Error(), "read error") {
		t.Errorf("Check: %v", err)
	}
}

// TestBadSectors: what lies behind a place that cannot be read is read, until
// there are too many such places.
func TestBadSectors(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "f")
	content := bytes.Repeat([]byte("x"), 1<<20)
	if err := os.WriteFile(path, content, 0o644); err != nil {
		t.Fatal(err)
	}
	tree := open(t, Options{Paths: []string{path}})
	e := sourcetest.Walk(t, tree)[0].Entry
	for name, bad := range map[string]func(page int64) bool{
		"one":  func(page int64) bool { return page == 7 },
		"last": func(page int64) bool { return page == 255 },
		"many": func(page int64) bool { return page >= 100 },
	} {
		in, err := tree.Open(&e)
		if err != nil {
			t.Fatal(err)
		}
		calls := 0
		in.(*file).pread = func(fd int, p []byte, off int64) (int, error) {
			page := off / 4096
			if bad(page) {
				calls++
				return 0, unix.EIO
			}
			end := page + 1
			for end < 256 && !bad(end) {
				end++
			}
			return unix.Pread(fd, p[:min(int64(len(p)), end*4096-off)], off)
		}
		var b bytes.Buffer
		n, err := io.CopyBuffer(&b, struct{ io.Reader }{in}, make([]byte, 10_000))
		if err != nil || n != 1<<20 {
			t.Errorf("%s: %d bytes, %v", name, n, err)
		}
		want := bytes.Clone(content)
		for page := range int64(256) {
			if bad(page) {
				clear(want[page*4096 : (page+1)*4096])
			}
		}
		if !bytes.Equal(b.Bytes(), want) || calls > maxFaults {
			t.Errorf("%s: other bytes are zeros, after %d attempts", name, calls)
		}
		if err := in.Check(); err == nil || !strings.Contains(err.Error(), "read error") {
			t.Errorf("%s: Check: %v", name, err)
		}
		in.Close()
	}
}

// TestAccessTime: a backup leaves no trace in a file of one's own.
func TestAccessTime(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	makeTree(t, dir, "f")
	path := dir + "/f"
	old := []unix.Timespec{{Sec: 1000}, {Sec: 2000}} // read before it was last written: relatime would tell
	if err := unix.UtimesNanoAt(unix.AT_FDCWD, path, old, 0); err != nil {
		t.Fatal(err)
	}
	tree := open(t, Options{Paths: []string{dir}})
	e := sourcetest.Walk(t, tree)[1].Entry
	f, err := tree.Open(&e)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := io.ReadAll(f); err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil || st.Atim.Sec != 1000 {
		t.Errorf("access time %v, %v", st.Atim, err)
	}
}

func BenchmarkLoad(b *testing.B) {
	tree, e := benchFile(b)
	b.ReportAllocs()
	for b.Loop() {
		if err := tree.Load(&e); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkOpenRead(b *testing.B) {
	tree, e := benchFile(b)
	buf := make([]byte, 64<<10)
	b.ReportAllocs()
	for b.Loop() {
		f, err := tree.Open(&e)
		if err != nil {
			b.Fatal(err)
		}
		h := sha256.New()
		if _, err := io.CopyBuffer(h, struct{ io.Reader }{f}, buf); err != nil {
			b.Fatal(err)
		}
		if err := f.Check(); err != nil {
			b.Fatal(err)
		}
		f.Close()
	}
}

func benchFile(b *testing.B) (*Tree, snapshot.Entry) {
	dir := b.TempDir()
	makeTree(b, dir, "some/directory/here/file.txt")
	tree := open(b, Options{Paths: []string{dir}})
	items := sourcetest.Walk(b, tree)
	return tree, items[len(items)-1].Entry
}

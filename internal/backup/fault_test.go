package backup_test

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/firn-backup/firn/internal/backup"
	"github.com/firn-backup/firn/internal/catalog"
	"github.com/firn-backup/firn/internal/coldstore/faultstore"
	"github.com/firn-backup/firn/internal/failure"
	"github.com/firn-backup/firn/internal/snapshot"
	"github.com/firn-backup/firn/internal/source"
)

// badDisk reads zeros in the middle of a file, as a tree does where the disk says EIO.
type badDisk struct {
	source.Tree
	name string // of the file
}

func (b badDisk) Open(e *snapshot.Entry) (source.File, error) {
	f, err := b.Tree.Open(e)
	if err != nil || !strings.HasSuffix(e.Path, b.name) {
		return f, err
	}
	data, err := io.ReadAll(f)
	if err != nil {
		return nil, err
	}
	clear(data[len(data)/2 : len(data)/2+100])
	return &badFile{f, bytes.NewReader(data)}, nil
}

type badFile struct {
	source.File
	r io.Reader
}

func (f *badFile) Read(p []byte) (int, error) { return f.r.Read(p) }
func (f *badFile) Check() error               { return fmt.Errorf("read error: %w", syscall.EIO) }

func (w *world) entry(name string) (e snapshot.Entry) {
	w.t.Helper()
	must(w.t, w.db.Entries(w.t.Context(), w.last().ID, catalog.Query{Under: []string{w.path(name)[1:]}},
		func(x snapshot.Entry) error { e = x; return nil }))
	return e
}

// What the disk did not give leaves no trace in the file's times: it is read again by every run, stored again
// when it is other bytes, and said each time.
func TestReadErrorsAreMetAgain(t *testing.T) {
	t.Parallel()
	for _, size := range []int{5000, 1<<20 + 5000} {
		w := newWorld(t)
		w.fill()
		w.write("hurt", noise(3, size))
		must(t, os.Link(w.path("hurt"), w.path("z-hurt")))
		bad := func(o *backup.Options) { o.Tree = badDisk{o.Tree, "hurt"} }
		for run := range 3 {
			r, err := w.run(bad)
			if failure.KindOf(err) != failure.Partial || r.Problems == 0 {
				t.Errorf("%d bytes, run %d: %d problems, error %v", size, run, r.Problems, err)
			}
			if !w.entry("hurt").Torn || !w.entry("z-hurt").Torn {
				t.Errorf("%d bytes, run %d: nothing tells that it is torn", size, run)
			}
			if run > 0 && r.Sent > 3000 {
				t.Errorf("%d bytes, run %d: sent %d bytes for what is as bad as it was", size, run, r.Sent)
			}
		}
		w.mustRun()
		w.check(w.last().ID)
		if w.entry("hurt").Torn || w.entry("z-hurt").Torn {
			t.Errorf("%d bytes: still torn when read well", size)
		}
		w.sameAddress(w.last().ID, "hurt", "z-hurt")
		if r := w.mustRun(); r.Sent > 3000 || r.Counts.Changed+r.Counts.Metadata != 0 {
			t.Errorf("%d bytes: the run after it found %+v", size, r.Counts)
		}
	}
}

// A disk that does not give a file any more which is stored already, and is read only to be sure: what is stored stays.
func TestReadErrorsOfWhatIsStored(t *testing.T) {
	t.Parallel()
	for _, size := range []int{5000, 1<<20 + 5000} {
		w := newWorld(t)
		w.fill()
		w.write("hurt", noise(3, size))
		w.mustRun()
		r, err := w.run(func(o *backup.Options) { o.Tree, o.Checksum = badDisk{o.Tree, "hurt"}, true })
		if failure.KindOf(err) != failure.Partial || r.Problems != 1 {
			t.Errorf("%d bytes: %d problems, error %v", size, r.Problems, err)
		}
		w.check(w.last().ID)
		if ps, err := w.db.Problems(t.Context(), w.last().ID); err != nil || len(ps) != 1 || ps[0].Reason != syscall.EIO.Error() {
			t.Errorf("%d bytes: problems %v, %v", size, ps, err)
		}
	}
}

// A volume's end in the padding behind a file that could not be read well: who goes on knows that it was not.
func TestReadErrorBeforeACutInPadding(t *testing.T) {
	t.Parallel()
	hit := 0
	for size := int64(2048); size < 5000; size += 128 {
		w := newWorld(t)
		w.write("hurt", noise(3, 600))
		w.write("other", noise(4, 3000))
		_, err := w.through(faultstore.New(faultstore.Fault{Mode: faultstore.DeadFrom, Method: "CreateUpload", Call: 1}), func(o *backup.Options) {
			o.VolumeSize, o.FrameSize = size, 512
			o.Tree = badDisk{o.Tree, "hurt"}
		})
		if err == nil {
			t.Fatal("the run was not interrupted")
		}
		res, err := w.run(func(o *backup.Options) { o.VolumeSize, o.FrameSize = size, 512 })
		if err != nil && failure.KindOf(err) != failure.Partial {
			t.Fatal(err)
		}
		if len(res.Settled) > 0 {
			hit++
		}
		w.check(w.last().ID)
	}
	if hit == 0 {
		t.Error("no cut found it")
	}
}

// Large files are not read ahead: their cuts, by their own way.
func TestResumeAtEveryCutOfLargeFiles(t *testing.T) {
	t.Parallel()
	for _, size := range []int64{99_999, 512 << 10, 512<<10 - 1536, 1<<20 + 1} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			for i, n := range []int{1<<20 + 1, 1<<20 + 511, 1<<20 + 512, 1<<20 + 64<<10, 3<<19 - 512} {
				w.write(fmt.Sprintf("f%d", i), noise(byte(i), n))
			}
			must(t, os.Link(w.path("f1"), w.path("g1")))
			for runs := 0; ; runs++ {
				f := faultstore.New(faultstore.Fault{Mode: faultstore.DeadFrom, Method: "CreateUpload", Call: 1})
				_, err := w.through(f, func(o *backup.Options) { o.VolumeSize, o.FrameSize = size, 40_000 })
				if err == nil {
					break
				}
				if runs > 110 {
					t.Fatalf("no end: %v", err)
				}
			}
			w.check(w.last().ID)
			w.noOrphans()
			w.sameAddress(w.last().ID, "f1", "g1")
		})
	}
}

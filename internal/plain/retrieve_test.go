package plain_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/firn-backup/firn/internal/catalog"
	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/internal/failure"
	"github.com/firn-backup/firn/internal/plain"
	"github.com/firn-backup/firn/internal/retrieval"
	"github.com/firn-backup/firn/internal/transfer"
)

// cut is a vault whose reads break off for good after so many bytes, and count.
type cut struct {
	*store
	left int64 // negative: never
	read *int64
}

func (c *cut) OpenRetrieved(ctx context.Context, r coldstore.Retrieval, off, size int64) (io.ReadCloser, error) {
	rc, err := c.store.OpenRetrieved(ctx, r, off, size)
	if err != nil {
		return nil, err
	}
	return &cutReader{rc, c}, nil
}

type cutReader struct {
	io.ReadCloser
	c *cut
}

func (r *cutReader) Read(p []byte) (int, error) {
	if r.c.left == 0 {
		return 0, errStop
	}
	if r.c.left > 0 {
		p = p[:min(int64(len(p)), r.c.left)]
	}
	n, err := r.ReadCloser.Read(p)
	*r.c.read += int64(n)
	if r.c.left > 0 {
		r.c.left -= int64(n)
	}
	return n, err
}

func (w *world) upload(name string, data []byte) catalog.ArchiveRecord {
	w.t.Helper()
	a, err := w.Stream(w.t.Context(), bytes.NewReader(data), plain.UploadOptions{Name: name, PartSize: mib})
	must(w.t, err)
	f, err := w.Find(w.t.Context(), "id:"+a.ID)
	must(w.t, err)
	return f.ArchiveRecord
}

func retrieve() plain.RetrieveOptions {
	return plain.RetrieveOptions{Retrieval: retrieval.Options{Transfer: transfer.Options{Retries: -1}}}
}

// Not ready, then broken off, then on from the byte, then whole.
func TestRetrieveGoesOn(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "?delay=4h")
	data := noise(3, 5*mib+77)
	r := w.upload("f", data)
	out := filepath.Join(w.dir, "out")
	get := func() error {
		return w.Retrieve(t.Context(), []plain.Target{{Archive: r, File: out}}, retrieve())
	}
	if err := get(); failure.KindOf(err) != failure.NotReady {
		t.Fatal(err)
	}
	w.when = w.when.Add(5 * time.Hour)
	var read int64
	c := &cut{w.s, 2*mib + 5, &read}
	w.Store = c
	if err := get(); !errors.Is(err, errStop) {
		t.Fatal(err)
	}
	if _, err := os.Stat(out); err == nil {
		t.Error("it has its name already")
	}
	c.left, read = -1, 0
	must(t, get())
	if back, err := os.ReadFile(out); err != nil || !bytes.Equal(back, data) {
		t.Errorf("other bytes: %v", err)
	}
	if read != int64(len(data))-2*mib-5 {
		t.Errorf("%d bytes were read again", read-int64(len(data))+2*mib+5)
	}
	if left, _ := filepath.Glob(out + "*.part"); len(left) > 0 {
		t.Errorf("left: %q", left)
	}
	read = 0
	if err := get(); err != nil || read != 0 {
		t.Errorf("what is there already: %v, %d bytes read", err, read)
	}
	must(t, os.WriteFile(out, []byte("mine"), 0o644))
	if err := get(); failure.KindOf(err) != failure.Usage {
		t.Errorf("a file was replaced: %v", err)
	}
}

// What is wrong in the part that an earlier run wrote is found, and the next run begins anew.
func TestRetrieveDamagedPart(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "")
	data := noise(3, 3*mib)
	r := w.upload("f", data)
	out := filepath.Join(w.dir, "out")
	var read int64
	c := &cut{w.s, mib, &read}
	w.Store = c
	get := func() error {
		return w.Retrieve(t.Context(), []plain.Target{{Archive: r, File: out}}, retrieve())
	}
	if err := get(); !errors.Is(err, errStop) {
		t.Fatal(err)
	}
	c.left = -1
	parts, _ := filepath.Glob(out + "*.part")
	b, err := os.ReadFile(parts[0])
	must(t, err)
	b[99] ^= 1
	must(t, os.WriteFile(parts[0], b, 0o644))
	if err := get(); failure.KindOf(err) != failure.Damaged {
		t.Errorf("%v", err)
	}
	must(t, get())
	if back, err := os.ReadFile(out); err != nil || !bytes.Equal(back, data) {
		t.Errorf("other bytes: %v", err)
	}
}

func TestRetrieveRanges(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "")
	w.s.traits = func(t *coldstore.Traits) { t.Granularity = mib }
	data := noise(3, 3*mib+100)
	r := w.upload("f", data)
	for _, s := range []plain.Span{{}, {First: 0, End: 1}, {First: mib - 1, End: mib + 1}, {First: 3 * mib}, {First: 5, End: 1 << 60}, {First: 3*mib + 99, End: 3*mib + 100}} {
		var b bytes.Buffer
		must(t, w.Retrieve(t.Context(), []plain.Target{{Archive: r, Span: s, Out: &b}}, retrieve()))
		end := s.End
		if end == 0 || end > int64(len(data)) {
			end = int64(len(data))
		}
		if !bytes.Equal(b.Bytes(), data[s.First:end]) {
			t.Errorf("%+v: %d bytes", s, b.Len())
		}
	}
	for _, s := range []plain.Span{{First: 3*mib + 100}, {First: -1}, {First: 5, End: 5}} {
		if err := w.Retrieve(t.Context(), []plain.Target{{Archive: r, Span: s, Out: io.Discard}}, retrieve()); failure.KindOf(err) != failure.Usage {
			t.Errorf("%+v: %v", s, err)
		}
	}
}

func TestFindAndDelete(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "")
	old := w.upload("same", []byte("1"))
	w.when = w.when.Add(time.Hour)
	young := w.upload("same", []byte("2"))
	for ref, want := range map[string]string{"same": young.ID, "name:same": young.ID, "id:" + old.ID: old.ID, old.ID: old.ID} {
		f, err := w.Find(t.Context(), ref)
		if err != nil || f.ID != want || (f.Same == 1) != (ref == "same" || ref == "name:same") {
			t.Errorf("%s: %+v, %v", ref, f, err)
		}
	}
	for _, ref := range []string{"id:same", "name:" + old.ID, "nothing", ""} {
		if _, err := w.Find(t.Context(), ref); !errors.Is(err, plain.ErrNotKnown) || failure.KindOf(err) != failure.NotFound {
			t.Errorf("%q: %v", ref, err)
		}
	}
	w.s.traits = func(t *coldstore.Traits) { t.MinDays = 90 }
	list := []catalog.ArchiveRecord{old, young}
	tooYoung := (*plain.TooYoung)(nil)
	w.when = old.Created.Add(90 * 24 * time.Hour) // the other has an hour left: neither goes
	if err := w.Delete(t.Context(), list, plain.DeleteOptions{}, nil); !errors.As(err, &tooYoung) || tooYoung.Archive.ID != young.ID {
		t.Errorf("%v", err)
	}
	must(t, w.Delete(t.Context(), list[:1], plain.DeleteOptions{}, nil))
	must(t, w.Delete(t.Context(), list[1:], plain.DeleteOptions{AllowEarly: true}, nil))
	if _, err := w.Find(t.Context(), "same"); !errors.Is(err, plain.ErrNotKnown) {
		t.Errorf("%v", err)
	}
	if r, err := w.Catalog.ArchiveByID(t.Context(), w.URL, old.ID); err != nil || r.DeletedAt.IsZero() {
		t.Errorf("%+v, %v", r, err)
	}
	// A vault whose listing lags is taken from the catalog.
	third := w.upload("third", []byte("3"))
	w.s.traits = func(t *coldstore.Traits) { t.ListLag = time.Hour }
	n := 0
	must(t, w.Each(t.Context(), func(r catalog.ArchiveRecord) error { n++; return nil }))
	if f, err := w.Find(t.Context(), "third"); err != nil || f.ID != third.ID || n != 1 {
		t.Errorf("%+v, %v, %d archives", f, err, n)
	}
}

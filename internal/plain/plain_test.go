package plain_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/firn-backup/firn/internal/catalog"
	"github.com/firn-backup/firn/internal/catalog/sqlite"
	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/internal/coldstore/localdir"
	"github.com/firn-backup/firn/internal/failure"
	"github.com/firn-backup/firn/internal/plain"
	"github.com/firn-backup/firn/internal/transfer"
	"github.com/firn-backup/firn/treehash"
)

const mib = 1 << 20

// world is a vault, a catalog, a directory and a clock.
type world struct {
	*plain.Vault
	t    *testing.T
	s    *store
	dir  string
	when time.Time
}

// store is a vault that can be made to break, and told what it is like.
type store struct {
	coldstore.Store
	traits  func(*coldstore.Traits)
	mu      sync.Mutex
	puts    []int64
	before  func(op string) error
	after   func(op string) error
	created int
}

func (s *store) Traits() coldstore.Traits {
	t := s.Store.Traits()
	if s.traits != nil {
		s.traits(&t)
	}
	return t
}

func hook(h func(string) error, op string) error {
	if h == nil {
		return nil
	}
	return h(op)
}

func (s *store) CreateUpload(ctx context.Context, a coldstore.NewArchive, part int64) (coldstore.Upload, error) {
	s.created++
	return s.Store.CreateUpload(ctx, a, part)
}

func (s *store) PutPart(ctx context.Context, id string, off int64, data []byte, hash treehash.Hash) error {
	s.mu.Lock()
	err := hook(s.before, "put")
	if err == nil {
		s.puts = append(s.puts, off)
	}
	s.mu.Unlock()
	if err != nil {
		return err
	}
	return s.Store.PutPart(ctx, id, off, data, hash)
}

func (s *store) CompleteUpload(ctx context.Context, id string, size int64, hash treehash.Hash) (coldstore.Archive, error) {
	if err := hook(s.before, "complete"); err != nil {
		return coldstore.Archive{}, err
	}
	a, err := s.Store.CompleteUpload(ctx, id, size, hash)
	if err == nil {
		err = hook(s.after, "complete")
	}
	return a, err
}

func newWorld(t *testing.T, delay string) *world {
	t.Helper()
	w := &world{t: t, dir: t.TempDir(), when: time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)}
	now := func() time.Time { return w.when }
	root, o, err := localdir.ParseURL("dir:" + filepath.Join(w.dir, "vault") + delay)
	must(t, err)
	o.Now = now
	s, err := localdir.Create(root, o)
	must(t, err)
	w.s = &store{Store: s}
	db, err := sqlite.Open(t.Context(), filepath.Join(w.dir, "catalog.db"), sqlite.Options{})
	must(t, err)
	t.Cleanup(func() { db.Close() })
	w.Vault = &plain.Vault{Store: w.s, Catalog: db, URL: "dir:" + root, Now: now}
	return w
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func noise(seed byte, n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{seed}).Read(b) // never fails
	return b
}

func (w *world) write(name string, data []byte) string {
	w.t.Helper()
	p := filepath.Join(w.dir, name)
	must(w.t, os.WriteFile(p, data, 0o644))
	return p
}

var errStop = errors.New("stopped here")

func options() plain.UploadOptions {
	return plain.UploadOptions{PartSize: mib, Transfer: transfer.Options{Parallel: 1, Retries: -1}}
}

// An upload that breaks off at any part goes on there.
func TestFileGoesOn(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "")
	data := noise(1, 6*mib+123)
	path := w.write("f.iso", data)
	for k := range 7 {
		n := 0
		w.s.before = func(op string) error {
			if n++; op == "put" && n > k {
				return errStop
			}
			return nil
		}
		if _, err := w.File(t.Context(), path, options()); !errors.Is(err, errStop) {
			t.Fatal(err)
		}
		w.s.before, w.s.puts = nil, nil
		before := w.s.created
		var there int64
		o := options()
		o.Resumed = func(n, _ int64) { there = n }
		a, err := w.File(t.Context(), path, o)
		must(t, err)
		if len(w.s.puts) != 7-k || w.s.created != before || there != int64(k)*mib {
			t.Errorf("broken off after %d parts: %d were sent, %d bytes there, %d new uploads", k, len(w.s.puts), there, w.s.created-before)
		}
		if a.TreeHash != treehash.Sum(data) || a.Description != "f.iso" {
			t.Errorf("%+v", a)
		}
		r, err := w.Catalog.ArchiveByID(t.Context(), w.URL, a.ID)
		if err != nil || r.Name != "f.iso" || r.TreeHash != a.TreeHash || !r.UploadedAt.Equal(w.when) {
			t.Errorf("%+v, %v", r, err)
		}
		w.clean()
	}
}

// clean wants nothing to be left of uploads.
func (w *world) clean() {
	w.t.Helper()
	must(w.t, w.Uploads(w.t.Context(), func(u coldstore.Upload, _ catalog.FileUpload) error {
		w.t.Errorf("an upload is left: %+v", u)
		return nil
	}))
	list, err := w.Catalog.FileUploads(w.t.Context(), w.URL, "")
	if err != nil || len(list) != 0 {
		w.t.Errorf("the catalog remembers %+v, %v", list, err)
	}
}

// A file that is another one is not mixed with what was sent of the old.
func TestFileThatChanged(t *testing.T) {
	t.Parallel()
	for what, change := range map[string]func(t *testing.T, path string, data []byte){
		"other bytes, same times": func(t *testing.T, path string, data []byte) {
			info, err := os.Stat(path)
			must(t, err)
			data[5] ^= 1
			must(t, os.WriteFile(path, data, 0o644))
			must(t, os.Chtimes(path, info.ModTime(), info.ModTime()))
		},
		"longer": func(t *testing.T, path string, data []byte) { must(t, os.WriteFile(path, append(data, 'x'), 0o644)) },
		"younger": func(t *testing.T, path string, data []byte) {
			must(t, os.Chtimes(path, time.Unix(1e9, 0), time.Unix(1e9, 0)))
		},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, "")
			data := noise(1, 4*mib)
			path := w.write("f", data)
			n := 0
			w.s.before = func(string) error {
				if n++; n > 2 {
					return errStop
				}
				return nil
			}
			if _, err := w.File(t.Context(), path, options()); !errors.Is(err, errStop) {
				t.Fatal(err)
			}
			w.s.before = nil
			change(t, path, data)
			a, err := w.File(t.Context(), path, options())
			must(t, err)
			now, err := os.ReadFile(path)
			must(t, err)
			if a.TreeHash != treehash.Sum(now) || a.Size != int64(len(now)) {
				t.Errorf("%+v", a)
			}
			w.clean()
		})
	}
}

// The answer to the completion is lost, and the process ends: the archive is there once.
func TestFileCompletionLost(t *testing.T) {
	t.Parallel()
	for _, when := range []string{"before", "after"} {
		w := newWorld(t, "")
		path := w.write("f", noise(1, 2*mib))
		lost := func(op string) error {
			if op == "complete" {
				return errStop
			}
			return nil
		}
		if when == "before" {
			w.s.before = lost
		} else {
			w.s.after = lost
		}
		if _, err := w.File(t.Context(), path, options()); !errors.Is(err, errStop) {
			t.Fatal(err)
		}
		w.s.before, w.s.after = nil, nil
		w.s.puts = nil
		a, err := w.File(t.Context(), path, options())
		must(t, err)
		n := 0
		must(t, w.Each(t.Context(), func(catalog.ArchiveRecord) error { n++; return nil }))
		if n != 1 || len(w.s.puts) != 0 || a.Description != "f" {
			t.Errorf("%s: %d archives, %d parts sent again, %+v", when, n, len(w.s.puts), a)
		}
		w.clean()
	}
}

func TestFileRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "")
	w.s.traits = func(t *coldstore.Traits) { t.MaxParts = 3 }
	for name, o := range map[string]plain.UploadOptions{
		w.write("large", noise(1, 3*mib+1)): options(),
		w.write("empty", nil):               {},
		w.dir:                               {},
		w.write("ok", []byte("x")):          {Description: "ü"},
	} {
		if _, err := w.File(t.Context(), name, o); failure.KindOf(err) != failure.Usage {
			t.Errorf("%s: %v", name, err)
		}
	}
	if w.s.created != 0 {
		t.Error("something was begun")
	}
	_, err := w.File(t.Context(), filepath.Join(w.dir, "large"), options())
	if !strings.Contains(fmt.Sprint(err), "--part-size") {
		t.Errorf("%v", err)
	}
	must(t, os.Truncate(filepath.Join(w.dir, "large"), 3*mib))
	if _, err = w.File(t.Context(), filepath.Join(w.dir, "large"), options()); err != nil {
		t.Errorf("what just fits: %v", err)
	}
}

// endless is a stream that counts what was read of it.
type endless struct{ n int64 }

func (e *endless) Read(p []byte) (int, error) {
	e.n += int64(len(p))
	return len(p), nil
}

func TestStream(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "")
	w.s.traits = func(t *coldstore.Traits) { t.MaxParts = 3 }
	stream := func(r io.Reader, name string, part, expect int64) (coldstore.Archive, error) {
		return w.Stream(t.Context(), r, plain.UploadOptions{Name: name, PartSize: part, Expect: expect})
	}
	data := noise(1, 3*mib)
	a, err := stream(bytes.NewReader(data), "fits", mib, 0)
	if err != nil || a.TreeHash != treehash.Sum(data) {
		t.Errorf("%+v, %v", a, err)
	}
	e := &endless{}
	_, err = stream(e, "endless", mib, 0)
	if failure.KindOf(err) != failure.Failed || !strings.Contains(fmt.Sprint(err), "--expected-size") || !strings.Contains(fmt.Sprint(err), "--part-size") {
		t.Errorf("%v", err)
	}
	if e.n > 3*mib+2 { // as soon as it is certain
		t.Errorf("%d bytes were read", e.n)
	}
	if _, err = stream(e, "x", mib, 4*mib); failure.KindOf(err) != failure.Usage || w.s.created != 2 {
		t.Errorf("%v", err)
	}
	if _, err = stream(strings.NewReader(""), "empty", 0, 0); failure.KindOf(err) != failure.Usage {
		t.Errorf("%v", err)
	}
	if _, err = stream(strings.NewReader("x"), "", 0, 0); failure.KindOf(err) != failure.Usage {
		t.Errorf("%v", err)
	}
	// Parts by what is expected, by the key, and by nothing.
	var parts []int64
	w.s.traits = func(t *coldstore.Traits) { t.MaxParts = 10_000 }
	w.Store = partSizes{w.s, &parts}
	for name, expect := range map[string]int64{"a": 300 << 30, "SHA256E-s322122547200--0123.iso": 0, "b": 0, "MD5-s10--x": 0} {
		if _, err := stream(strings.NewReader("x"), name, 0, expect); err != nil {
			t.Fatal(err)
		}
		want := map[string]int64{"a": 32 * mib, "SHA256E-s322122547200--0123.iso": 32 * mib, "b": 64 * mib, "MD5-s10--x": 16 * mib}[name]
		if got := parts[len(parts)-1]; got != want {
			t.Errorf("%s: parts of %d", name, got)
		}
	}
	w.clean()
}

// A stream that had nearly as many bytes before as fit gets larger parts, and one that nobody expected is told of while it can be helped.
func TestStreamNearTheEnd(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "")
	w.s.traits = func(t *coldstore.Traits) { t.MaxParts = 10_000 }
	var parts []int64
	inner := w.Store
	w.Store = partSizes{w.s, &parts}
	now := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	for i, r := range []struct {
		name string
		size int64
	}{{"dump", 700 << 30}, {"dump", 501 << 30}, {"small", 499 << 30}, {"huge", 60_000 << 30}} {
		must(t, w.Catalog.PutArchive(t.Context(), catalog.ArchiveRecord{
			Vault: w.URL, Name: r.name, UploadedAt: now, Archive: coldstore.Archive{ID: fmt.Sprint("before", i), Size: r.size, Created: now, TreeHash: treehash.Sum([]byte(r.name))},
		}))
	}
	for name, want := range map[string]int64{"dump": 128 * mib, "small": 64 * mib, "other": 64 * mib, "huge": w.s.Traits().MaxPart} {
		if _, err := w.Stream(t.Context(), strings.NewReader("x"), plain.UploadOptions{Name: name}); err != nil {
			t.Fatal(name, err)
		}
		if got := parts[len(parts)-1]; got != want {
			t.Errorf("%s: parts of %d and not %d", name, got, want)
		}
	}

	w.Store = inner
	w.s.traits = func(t *coldstore.Traits) { t.MaxParts = 5 }
	for _, c := range []struct{ size, expect, told int64 }{{4*mib - 1, 0, 0}, {4 * mib, 0, 4 * mib}, {5 * mib, 5 * mib, 0}, {5 * mib, mib, 4 * mib}} {
		told, times := int64(0), 0
		_, err := w.Stream(t.Context(), bytes.NewReader(noise(1, int(c.size))), plain.UploadOptions{
			Name: fmt.Sprint("near", c), PartSize: mib, Expect: c.expect,
			Near: func(come, most, partSize int64) {
				if told, times = come, times+1; most != 5*mib || partSize != mib {
					t.Errorf("%d, %d", most, partSize)
				}
			},
		})
		if err != nil || times > 1 || (told > 0) != (c.told > 0) || told < c.told || told > c.told+mib {
			t.Errorf("%+v: told %d times, at %d: %v", c, times, told, err)
		}
	}
}

type partSizes struct {
	*store
	sizes *[]int64
}

func (p partSizes) CreateUpload(ctx context.Context, a coldstore.NewArchive, part int64) (coldstore.Upload, error) {
	*p.sizes = append(*p.sizes, part)
	return p.store.CreateUpload(ctx, a, part)
}

func TestAnnexSize(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]int64{
		"SHA256E-s42--ab.tar.gz": 42, "dir/MD5E-s0--x": 0, "WORM-s7-m1234567--name": 7, "URL-m5-s9--x": 9,
		"SHA256E--nosize": -1, "file-s42.txt": -1, "holiday-s5--x.jpg": -1, "SHA1-sx--y": -1, "": -1,
	} {
		got, ok := plain.AnnexSize(name)
		if ok != (want >= 0) || ok && got != want {
			t.Errorf("%q: %d, %v", name, got, ok)
		}
	}
}

func TestDescribe(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]string{"a b.txt": "a b.txt", "naïve": "na%C3%AFve", " x ": "%20x%20", "a\nb": "a%0Ab"} {
		if got := plain.Describe(name); got != want || plain.CheckDescription(got) != nil {
			t.Errorf("%q: %q", name, got)
		}
	}
	if got := plain.Describe(strings.Repeat("ä", 5000)); failure.KindOf(plain.CheckDescription(got)) != failure.Usage {
		t.Error("a name that is too long became another")
	}
}

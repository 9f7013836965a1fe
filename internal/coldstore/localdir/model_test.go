package localdir

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/internal/coldstore/storetest"
	"github.com/firn-backup/firn/treehash"
)

// model is what the vault should hold.
type model struct {
	archives map[string]treehash.Hash
	uploads  map[string]*modelUpload
	order    []string // ids of the uploads as they were created
}

type modelUpload struct {
	name  string
	parts map[int64][]byte
	ended bool
}

// Any sequence of operations, each of which may be cut short by a kill at any
// step and is then gone on with by another process, keeps what was
// acknowledged, and nothing else.
func TestModel(t *testing.T) {
	t.Parallel()
	dir := memDir(t)
	pieces := [][]byte{storetest.Bytes(minPart, 1), storetest.Bytes(minPart, 2), storetest.Bytes(10, 3), storetest.Bytes(777, 4)}
	var runs atomic.Int32
	rapid.Check(t, func(t *rapid.T) {
		root := filepath.Join(dir, string(rune('a'+runs.Add(1)%26))+time.Now().Format("150405.000000000"))
		s, err := Create(root, Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(root)
		m := &model{archives: map[string]treehash.Hash{}, uploads: map[string]*modelUpload{}}
		r := &modelRun{t: t, s: s, m: m}
		names := []string{"set/a", "set/b", "c"}
		t.Repeat(map[string]func(*rapid.T){
			"create": func(t *rapid.T) { r.create(t, rapid.SampledFrom(names).Draw(t, "name")) },
			"put": func(t *rapid.T) {
				off := rapid.Int64Range(0, 1).Draw(t, "part") * minPart
				r.put(t, off, pieces[rapid.IntRange(0, len(pieces)-1).Draw(t, "data")])
			},
			"complete": func(t *rapid.T) { r.complete(t) },
			"abort":    func(t *rapid.T) { r.abort(t) },
			"delete":   func(t *rapid.T) { r.delete(t, rapid.SampledFrom(names).Draw(t, "name")) },
			"tidy": func(t *rapid.T) {
				if got, err := r.s.Tidy(t.Context(), time.Hour); err != nil || len(got.Unexplained) > 0 || got.Uploads > 0 {
					t.Fatalf("Tidy: %+v, %v", got, err)
				}
			},
			"reopen": func(t *rapid.T) { r.reopen(t) },
			"":       r.check,
		})
	})
}

type modelRun struct {
	t *rapid.T
	s *Store
	m *model
}

func (r *modelRun) reopen(t *rapid.T) {
	s, err := Open(r.s.root, r.s.o)
	if err != nil {
		t.Fatal(err)
	}
	r.s = s
}

// try runs op, perhaps killed at one of its steps; then another process goes on.
func (r *modelRun) try(t *rapid.T, op func()) (died bool) {
	if n := rapid.IntRange(-8, 8).Draw(t, "kill at step"); n >= 0 {
		if _, died = killAt(r.s, n, op); died {
			r.reopen(t)
		}
		return died
	}
	op()
	return false
}

// pick draws an upload that was told of; "" when there is none.
func (r *modelRun) pick(t *rapid.T) string {
	if len(r.m.order) == 0 {
		return ""
	}
	return r.m.order[rapid.IntRange(0, len(r.m.order)-1).Draw(t, "upload")]
}

func (r *modelRun) create(t *rapid.T, name string) {
	r.try(t, func() {
		u, err := r.s.CreateUpload(t.Context(), coldstore.NewArchive{Name: name}, minPart)
		if _, exists := r.m.archives[name]; exists {
			if !errors.Is(err, coldstore.ErrExists) {
				t.Fatalf("CreateUpload of what exists: %v", err)
			}
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		r.m.order = append(r.m.order, u.ID)
		r.m.uploads[u.ID] = &modelUpload{name: name, parts: map[int64][]byte{}}
	})
}

func (r *modelRun) put(t *rapid.T, off int64, data []byte) {
	id := r.pick(t)
	if id == "" {
		return
	}
	u := r.m.uploads[id]
	before := u.parts[off]
	died := r.try(t, func() {
		err := r.s.PutPart(t.Context(), id, off, data, treehash.Sum(data))
		switch {
		case u.ended && !errors.Is(err, coldstore.ErrNotFound):
			t.Fatalf("PutPart to an ended upload: %v", err)
		case u.ended:
		case r.moved(id) && errors.Is(err, coldstore.ErrInvalid): // its completion was cut short
		case r.moved(id) && errors.Is(err, coldstore.ErrNotFound): // and another took the name
			u.ended = true
		case err != nil:
			t.Fatalf("PutPart: %v", err)
		default:
			u.parts[off] = data
		}
	})
	if !died || u.ended {
		return
	}
	parts, err := r.s.ListParts(t.Context(), id)
	if err != nil && !r.moved(id) {
		t.Fatal(err)
	}
	if err != nil {
		u.ended = true
		return
	}
	delete(u.parts, off)
	for _, p := range parts {
		if p.Offset != off {
			continue
		}
		switch p.TreeHash {
		case treehash.Sum(data):
			u.parts[off] = data
		case treehash.Sum(before):
			u.parts[off] = before
		default:
			t.Fatalf("a part that nobody put: %+v", p)
		}
	}
}

// moved says that an upload's completion was cut short. While another has the name it seems to have ended.
func (r *modelRun) moved(id string) bool {
	_, err := os.Lstat(r.s.uploadData(id))
	return isAbsent(err)
}

// content is what an upload would become; nil when its parts do not make a whole.
func (u *modelUpload) content() []byte {
	first, second := u.parts[0], u.parts[minPart]
	if len(first) == 0 || len(second) > 0 && len(first) != minPart {
		return nil
	}
	return append(first[:len(first):len(first)], second...)
}

func (r *modelRun) complete(t *rapid.T) {
	id := r.pick(t)
	if id == "" {
		return
	}
	u := r.m.uploads[id]
	data := u.content()
	want := treehash.Sum(data)
	var err error
	died := r.try(t, func() {
		_, err = r.s.CompleteUpload(t.Context(), id, int64(len(data)), want)
	})
	if died {
		if data == nil || u.ended {
			t.Fatal("a refused completion came to a step")
		}
		if a, err := r.s.Stat(t.Context(), u.name); err == nil && a.TreeHash == want && r.m.archives[u.name].IsZero() {
			r.m.archives[u.name], u.ended = want, true
		}
		return
	}
	have, exists := r.m.archives[u.name]
	switch {
	case u.ended && exists && err == nil && have != want:
		t.Fatal("a completion was repeated with another result")
	case u.ended:
	case exists:
		if !errors.Is(err, coldstore.ErrExists) {
			t.Fatalf("CompleteUpload over an archive: %v", err)
		}
	case data == nil:
		if !errors.Is(err, coldstore.ErrInvalid) {
			t.Fatalf("CompleteUpload with gaps: %v", err)
		}
	case errors.Is(err, coldstore.ErrNotFound):
		// Its completion was cut short, and another upload has taken the name since, and was deleted.
		u.ended = true
	case err != nil:
		t.Fatalf("CompleteUpload: %v", err)
	default:
		r.m.archives[u.name], u.ended = want, true
	}
}

func (r *modelRun) abort(t *rapid.T) {
	id := r.pick(t)
	if id == "" {
		return
	}
	died := r.try(t, func() {
		if err := r.s.AbortUpload(t.Context(), id); err != nil {
			t.Fatal(err)
		}
	})
	if died {
		if _, err := r.s.ListParts(t.Context(), id); err == nil {
			return
		}
	}
	r.m.uploads[id].ended = true
}

func (r *modelRun) delete(t *rapid.T, name string) {
	_, exists := r.m.archives[name]
	died := r.try(t, func() {
		err := r.s.Delete(t.Context(), name)
		if exists && err != nil || !exists && !errors.Is(err, coldstore.ErrNotFound) {
			t.Fatalf("Delete of %s, which exists: %v: %v", name, exists, err)
		}
	})
	if died {
		if _, err := r.s.Stat(t.Context(), name); err == nil {
			return
		}
	}
	delete(r.m.archives, name)
}

// check compares the vault with the model.
func (r *modelRun) check(t *rapid.T) {
	n := 0
	if _, err := r.s.List(t.Context(), func(a coldstore.Archive) error {
		n++
		data, err := os.ReadFile(r.s.archivePath(a.ID))
		if err != nil {
			return err
		}
		if want, is := r.m.archives[a.ID]; !is || treehash.Sum(data) != want || a.TreeHash != want {
			t.Fatalf("archive %s is not what was stored", a.ID)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if n != len(r.m.archives) {
		t.Fatalf("%d archives, want %d", n, len(r.m.archives))
	}
	if err := r.s.ListUploads(t.Context(), func(u coldstore.Upload) error {
		if m := r.m.uploads[u.ID]; m != nil && m.ended && !r.moved(u.ID) {
			t.Fatalf("upload %s has ended, and is listed", u.ID)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}

// Several processes, each with a Store of its own, do not get into each other's way: of those
// that want a name one gets it, and its data is whole.
func TestSeveralStores(t *testing.T) {
	t.Parallel()
	first := newStoreT(t, Options{})
	const stores, names = 4, 5
	data := make([][]byte, stores)
	for i := range data {
		data[i] = storetest.Bytes(minPart+i, uint64(i))
	}
	var won [names]atomic.Int32
	var wg sync.WaitGroup
	for i := range stores {
		s := reopen(t, first)
		wg.Go(func() {
			for n := range names {
				u, err := s.CreateUpload(t.Context(), coldstore.NewArchive{Name: "set/" + string(rune('a'+n))}, minPart)
				if errors.Is(err, coldstore.ErrExists) {
					continue
				}
				if err != nil {
					t.Error(err)
					return
				}
				storetest.PutParts(t, s, u, data[i])
				_, err = s.CompleteUpload(t.Context(), u.ID, int64(len(data[i])), treehash.Sum(data[i]))
				switch {
				case err == nil:
					won[n].Add(1)
				case !errors.Is(err, coldstore.ErrExists):
					t.Error(err)
				default:
					if err := s.AbortUpload(t.Context(), u.ID); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	wg.Wait()
	for n := range won {
		if won[n].Load() != 1 {
			t.Errorf("archive %d was stored by %d", n, won[n].Load())
		}
	}
	if _, err := first.List(t.Context(), func(a coldstore.Archive) error {
		got, err := os.ReadFile(first.archivePath(a.ID))
		if err != nil || treehash.Sum(got) != a.TreeHash {
			t.Errorf("archive %s is mixed: %v", a.ID, err)
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
}

// Two processes put parts to one upload, and one completes it while the other still puts.
func TestOneUploadTwoStores(t *testing.T) {
	t.Parallel()
	a := newStoreT(t, Options{})
	b := reopen(t, a)
	data := storetest.Bytes(2*minPart, 1)
	other := storetest.Bytes(minPart, 2)
	u, err := a.CreateUpload(t.Context(), coldstore.NewArchive{Name: "a"}, minPart)
	if err != nil {
		t.Fatal(err)
	}
	for i, s := range []*Store{a, b} {
		p := data[i*minPart:][:minPart]
		if err := s.PutPart(t.Context(), u.ID, int64(i)*minPart, p, treehash.Sum(p)); err != nil {
			t.Fatal(err)
		}
	}
	for _, s := range []*Store{a, b} {
		if parts, err := s.ListParts(t.Context(), u.ID); err != nil || len(parts) != 2 {
			t.Errorf("parts: %v, %v", parts, err)
		}
	}
	done := make(chan error)
	go func() {
		for {
			if err := b.PutPart(t.Context(), u.ID, 0, data[:minPart], treehash.Sum(data[:minPart])); err != nil {
				done <- err
				return
			}
			if err := b.PutPart(t.Context(), u.ID, 2*minPart, other, treehash.Sum(other)); err != nil {
				done <- err
				return
			}
		}
	}()
	for {
		_, err := a.CompleteUpload(t.Context(), u.ID, 2*minPart, treehash.Sum(data))
		if err == nil {
			break
		}
		if !errors.Is(err, coldstore.ErrInvalid) { // with the third part it is too long
			t.Fatal(err)
		}
		all := append(data[:len(data):len(data)], other...)
		if _, err := a.CompleteUpload(t.Context(), u.ID, 3*minPart, treehash.Sum(all)); err == nil {
			break
		}
	}
	if err := <-done; !errors.Is(err, coldstore.ErrNotFound) {
		t.Errorf("PutPart to a completed upload: %v", err)
	}
	got, err := a.Stat(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(a.archivePath("a"))
	if err != nil || treehash.Sum(text) != got.TreeHash {
		t.Errorf("the archive was changed after its completion: %v", err)
	}
}

func FuzzName(f *testing.F) {
	for _, name := range []string{"a", "../a", "a/b.json", "a//b", ".tmp~x", strings.Repeat("x", 901), "a/..", "-"} {
		f.Add(name)
	}
	s := newStore("/v", "", Options{})
	f.Fuzz(func(t *testing.T, name string) {
		if checkName(name) != nil {
			return
		}
		path := s.archivePath(name)
		if path != "/v/archives/"+name || filepath.Clean(path) != path || isTemp(filepath.Base(path)) {
			t.Errorf("name %q leads to %q", name, path)
		}
		if path := s.metaPath(name); path != "/v/meta/"+name+".json" || len(filepath.Base(path)) > 255 {
			t.Errorf("name %q has its meta file at %q", name, path)
		}
	})
}

func FuzzLog(f *testing.F) {
	head := `{"format":1,"upload":"01ARZ3NDEKTSV4RRFFQ69G5FAV","id":"a","partSize":1048576,"created":"2026-11-22T02:00:00Z"}`
	f.Add([]byte("\n" + head + "\n"))
	f.Add([]byte("\n" + head + "\n\n" + `{"part":0,"size":5,"hash":"` + treehash.Sum(nil).String() + `","at":"2026-11-22T02:00:00Z"}` + "\n"))
	f.Add([]byte("\n" + head + "\n\n" + `{"drop":0}` + "\n\n" + `{"part":1}` + "\x00\n"))
	f.Add([]byte(head))
	path := filepath.Join(f.TempDir(), "log")
	f.Fuzz(func(t *testing.T, text []byte) {
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		log, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer log.Close()
		u, err := readLog(log)
		if err != nil {
			return
		}
		if checkName(u.head.ID) != nil || u.head.PartSize < 1 {
			t.Errorf("head %+v", u.head)
		}
		for _, p := range u.sorted() {
			if p.Size < 1 {
				t.Errorf("part %+v", p)
			}
		}
	})
}

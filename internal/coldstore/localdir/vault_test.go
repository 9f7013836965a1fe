package localdir

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/internal/coldstore/storetest"
	"github.com/firn-backup/firn/internal/failure"
	"github.com/firn-backup/firn/treehash"
)

func TestCreate(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	root := filepath.Join(dir, "deep", "vault")
	s, err := Create(root, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if len(s.VaultID()) != 26 || s.Root() != root {
		t.Errorf("vault %q at %q", s.VaultID(), s.Root())
	}
	again, err := Open(root+"/", Options{})
	if err != nil || again.VaultID() != s.VaultID() || again.Root() != root {
		t.Errorf("Open: %v", err)
	}
	if _, err := Create(root, Options{}); !errors.Is(err, coldstore.ErrExists) || !strings.Contains(err.Error(), root) {
		t.Errorf("Create again: %v", err)
	}
	if text, err := os.ReadFile(filepath.Join(root, "README.txt")); err != nil || !strings.Contains(string(text), "age -d") {
		t.Errorf("README: %v", err)
	}
	if info, err := os.Stat(root); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("mode %v", info.Mode())
	}

	full := filepath.Join(dir, "full")
	write(t, filepath.Join(full, "thesis.tex"), "x")
	if _, err := Create(full, Options{}); !errors.Is(err, coldstore.ErrInvalid) || !strings.Contains(err.Error(), "thesis.tex") {
		t.Errorf("Create in a full directory: %v", err)
	}
	if got := files(t, full); got != "thesis.tex" {
		t.Errorf("it holds %s now", got)
	}
	if _, err := Create("relative", Options{}); !errors.Is(err, coldstore.ErrInvalid) {
		t.Errorf("relative: %v", err)
	}
	if _, err := Create(filepath.Join(full, "thesis.tex"), Options{}); err == nil {
		t.Error("made in a file")
	}

	// A Create that was cut short can be repeated; a vault that lost its marker is not made anew.
	half := filepath.Join(dir, "half")
	for _, d := range []string{"archives", "meta", "lost+found"} {
		if err := os.MkdirAll(filepath.Join(half, d), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	write(t, filepath.Join(half, ".tmp~X"), "x")
	if _, err := Create(half, Options{}); err != nil {
		t.Errorf("Create repeated: %v", err)
	}
	if err := os.Remove(filepath.Join(half, markerName)); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(half, "archives", "a"), "x")
	if _, err := Create(half, Options{}); !errors.Is(err, coldstore.ErrInvalid) {
		t.Errorf("Create over a vault without marker: %v", err)
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestOpenRefuses(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, filepath.Join(dir, "file"), "")
	for _, root := range []string{dir, filepath.Join(dir, "absent"), filepath.Join(dir, "file")} {
		_, err := Open(root, Options{})
		if !errors.Is(err, coldstore.ErrNotFound) || failure.KindOf(err) != failure.NotFound || !strings.Contains(err.Error(), root) {
			t.Errorf("Open(%s): %v", root, err)
		}
	}
	if got := files(t, dir); got != "file" {
		t.Errorf("Open made %s", got)
	}
	for text, kind := range map[string]error{
		"":             coldstore.ErrIntegrity,
		"{":            coldstore.ErrIntegrity,
		`{"format":1}`: coldstore.ErrIntegrity,
		`{"format":2,"vault":"01ARZ3NDEKTSV4RRFFQ69G5FAV"}`: coldstore.ErrUnsupported,
	} {
		write(t, filepath.Join(dir, "v", markerName), text)
		if _, err := Open(filepath.Join(dir, "v"), Options{}); !errors.Is(err, kind) {
			t.Errorf("marker %q: %v", text, err)
		}
	}
	s := newStoreT(t, Options{})
	if err := os.Remove(filepath.Join(s.root, metaDir)); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(s.root, Options{}); failure.KindOf(err) != failure.Damaged {
		t.Errorf("without meta/: %v", err)
	}
}

// An unmounted vault, while it is in use, never looks like an empty one, nor like one that lost its archives.
func TestVaultGone(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	for _, delay := range []time.Duration{0, time.Hour} {
		c := newClock()
		s := newStoreT(t, Options{Delay: delay, Now: c.Now})
		storetest.Upload(t, s, coldstore.NewArchive{Name: "a"}, minPart, []byte("x"))
		u, err := s.CreateUpload(ctx, coldstore.NewArchive{Name: "b"}, minPart)
		if err != nil {
			t.Fatal(err)
		}
		r, err := s.RequestRetrieval(ctx, "a", coldstore.Range{}, coldstore.RetrievalOptions{})
		if err != nil {
			t.Fatal(err)
		}
		c.Advance(2 * time.Hour)
		if err := os.Rename(s.root, s.root+"-unmounted"); err != nil {
			t.Fatal(err)
		}
		if delay > 0 { // the empty mount point stays
			if err := os.Mkdir(s.root, 0o700); err != nil {
				t.Fatal(err)
			}
		}
		hash := treehash.Sum([]byte("x"))
		_, stat := s.Stat(ctx, "a")
		_, list := s.List(ctx, func(coldstore.Archive) error { return nil })
		_, create := s.CreateUpload(ctx, coldstore.NewArchive{Name: "c"}, minPart)
		_, parts := s.ListParts(ctx, u.ID)
		_, complete := s.CompleteUpload(ctx, u.ID, 1, hash)
		_, request := s.RequestRetrieval(ctx, "a", coldstore.Range{}, coldstore.RetrievalOptions{})
		_, read := s.OpenRetrieved(ctx, r, 0, 1)
		for what, err := range map[string]error{
			"Stat": stat, "List": list, "CreateUpload": create, "ListParts": parts, "CompleteUpload": complete,
			"RequestRetrieval": request, "OpenRetrieved": read,
			"PutPart":     s.PutPart(ctx, u.ID, 0, []byte("x"), hash),
			"Delete":      s.Delete(ctx, "a"),
			"AbortUpload": s.AbortUpload(ctx, u.ID),
			"ListUploads": s.ListUploads(ctx, func(coldstore.Upload) error { return nil }),
		} {
			if err == nil || errors.Is(err, coldstore.ErrNotFound) || errors.Is(err, coldstore.ErrExpired) || !strings.Contains(err.Error(), s.root) {
				t.Errorf("%s: %v", what, err)
			}
		}
		if delay > 0 && files(t, s.root) != "" {
			t.Errorf("something was written into the mount point: %s", files(t, s.root))
		}
	}
}

// People can read a vault without Firn.
func TestLayout(t *testing.T) {
	t.Parallel()
	c := newClock()
	s := newStoreT(t, Options{Now: c.Now})
	data := storetest.Bytes(3*minPart/2, 1)
	storetest.Upload(t, s, coldstore.NewArchive{Name: "docs-01X/01Y/000001-A.tar.zst.age", Description: "firn/1 set=docs"}, minPart, data)
	got, err := os.ReadFile(filepath.Join(s.root, "archives/docs-01X/01Y/000001-A.tar.zst.age"))
	if err != nil || treehash.Sum(got) != treehash.Sum(data) {
		t.Errorf("the data: %v", err)
	}
	text, err := os.ReadFile(filepath.Join(s.root, "meta/docs-01X/01Y/000001-A.tar.zst.age.json"))
	if err != nil {
		t.Fatal(err)
	}
	before, _, _ := strings.Cut(string(text), `  "upload"`)
	want := `{
  "id": "docs-01X/01Y/000001-A.tar.zst.age",
  "description": "firn/1 set=docs",
  "size": 1572864,
  "treeHash": "` + treehash.Sum(data).String() + `",
  "created": "2026-11-22T02:00:00.123456789Z",
`
	if before != want {
		t.Errorf("meta:\n%s\nwant:\n%s", before, want)
	}
}

func TestDamage(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	c := newClock()
	s := newStoreT(t, Options{Now: c.Now})
	data := storetest.Bytes(1000, 1)
	ids := []string{"set/good", "set/empty", "set/garbage", "set/other", "set/short", "set/missing", "zzz"}
	for _, id := range ids {
		storetest.Upload(t, s, coldstore.NewArchive{Name: id}, minPart, data)
	}
	write(t, s.metaPath("set/empty"), "")
	write(t, s.metaPath("set/garbage"), "\x00\x00\x00\x00")
	text, err := os.ReadFile(s.metaPath("set/good"))
	if err != nil {
		t.Fatal(err)
	}
	write(t, s.metaPath("set/other"), string(text))
	if err := os.Truncate(s.archivePath("set/short"), 600); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(s.archivePath("set/missing")); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(s.root, metaDir, "set", ".tmp~A"), "x")
	write(t, filepath.Join(s.root, metaDir, "notes.txt"), "x")

	var listed []string
	_, err = s.List(ctx, func(a coldstore.Archive) error { listed = append(listed, a.ID); return nil })
	if strings.Join(listed, " ") != "set/good zzz" && strings.Join(listed, " ") != "zzz set/good" {
		t.Errorf("listed %v", listed)
	}
	for _, id := range []string{"set/empty", "set/garbage", "set/other", "set/short", "set/missing"} {
		if !errors.Is(err, coldstore.ErrIntegrity) || !strings.Contains(err.Error(), id) {
			t.Errorf("List does not tell of %s: %v", id, err)
		}
		if _, err := s.Stat(ctx, id); !errors.Is(err, coldstore.ErrIntegrity) {
			t.Errorf("Stat of %s: %v", id, err)
		}
	}
	// What is left of a truncated archive can be read.
	r, err := s.RequestRetrieval(ctx, "set/short", coldstore.Range{}, coldstore.RetrievalOptions{})
	if err != nil {
		t.Fatal(err)
	}
	rc, err := s.OpenRetrieved(ctx, r, 100, 900)
	if err != nil {
		t.Fatal(err)
	}
	defer rc.Close()
	got := make([]byte, 1000)
	n := 0
	for err == nil {
		var k int
		k, err = rc.Read(got[n:])
		n += k
	}
	if n != 500 || !strings.Contains(err.Error(), "unexpected EOF") || string(got[:n]) != string(data[100:600]) {
		t.Errorf("read %d bytes, %v", n, err)
	}
	// Damaged archives are not overwritten, and can be deleted.
	if _, err := s.CreateUpload(ctx, coldstore.NewArchive{Name: "set/empty"}, minPart); !errors.Is(err, coldstore.ErrExists) {
		t.Errorf("over a damaged archive: %v", err)
	}
	for _, id := range ids {
		if err := s.Delete(ctx, id); err != nil {
			t.Errorf("Delete %s: %v", id, err)
		}
	}
	c.Advance(25 * time.Hour)
	if tidied, err := s.Tidy(ctx, 0); err != nil || len(tidied.Unexplained) != 0 {
		t.Errorf("Tidy: %+v, %v", tidied, err)
	}
	if got := files(t, s.root); got != "meta/notes.txt" {
		t.Errorf("left: %s", got)
	}
}

// An archive that lost its meta file is neither overwritten nor tidied away.
func TestLostMeta(t *testing.T) {
	t.Parallel()
	s := newStoreT(t, Options{})
	storetest.Upload(t, s, coldstore.NewArchive{Name: "set/a"}, minPart, []byte("precious"))
	if err := os.Remove(s.metaPath("set/a")); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(s.root, uploadsDir)); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(s.root, uploadsDir), 0o700); err != nil {
		t.Fatal(err)
	}
	u, err := s.CreateUpload(t.Context(), coldstore.NewArchive{Name: "set/a"}, minPart)
	if err == nil {
		storetest.PutParts(t, s, u, []byte("else"))
		_, err = s.CompleteUpload(t.Context(), u.ID, 4, treehash.Sum([]byte("else")))
	}
	if !errors.Is(err, coldstore.ErrExists) {
		t.Errorf("over it: %v", err)
	}
	tidied, err := s.Tidy(t.Context(), 0)
	if err != nil || len(tidied.Unexplained) != 1 || tidied.Unexplained[0] != s.archivePath("set/a") {
		t.Errorf("Tidy: %+v, %v", tidied, err)
	}
	if text, err := os.ReadFile(s.archivePath("set/a")); err != nil || string(text) != "precious" {
		t.Errorf("it holds %q, %v", text, err)
	}
}

func TestTidy(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	c := newClock()
	s := newStoreT(t, Options{Now: c.Now, Delay: time.Hour, Expiry: 2 * time.Hour})
	storetest.Upload(t, s, coldstore.NewArchive{Name: "a"}, minPart, []byte("x"))
	idle, err := s.CreateUpload(ctx, coldstore.NewArchive{Name: "idle"}, minPart)
	if err != nil {
		t.Fatal(err)
	}
	busy, err := s.CreateUpload(ctx, coldstore.NewArchive{Name: "busy"}, minPart)
	if err != nil {
		t.Fatal(err)
	}
	r, err := s.RequestRetrieval(ctx, "a", coldstore.Range{}, coldstore.RetrievalOptions{})
	if err != nil {
		t.Fatal(err)
	}
	tidy := func(olderThan time.Duration, want Tidied) {
		t.Helper()
		got, err := s.Tidy(ctx, olderThan)
		if err != nil || got.Uploads != want.Uploads || got.Completed != want.Completed || got.Retrievals != want.Retrievals ||
			got.Leftovers != want.Leftovers || len(got.Unexplained) != 0 {
			t.Errorf("Tidy: %+v, %v; want %+v", got, err, want)
		}
	}
	tidy(0, Tidied{})
	c.Advance(2*time.Hour + time.Minute)
	if _, err := s.CheckRetrieval(ctx, r.Token); err != nil {
		t.Error(err)
	}
	tidy(3*time.Hour, Tidied{})
	c.Advance(time.Hour)
	storetest.PutParts(t, s, busy, []byte("y"))
	tidy(3*time.Hour, Tidied{Uploads: 1, Retrievals: 1})
	if _, err := s.ListParts(ctx, idle.ID); !errors.Is(err, coldstore.ErrNotFound) {
		t.Errorf("the idle upload: %v", err)
	}
	if parts, err := s.ListParts(ctx, busy.ID); err != nil || len(parts) != 1 {
		t.Errorf("the busy upload: %v, %v", parts, err)
	}
	storetest.PutParts(t, s, busy, []byte("yes")) // the store still knows it
	if _, err := s.CheckRetrieval(ctx, r.Token); !errors.Is(err, coldstore.ErrExpired) {
		t.Errorf("the retrieval: %v", err)
	}
	c.Advance(21 * time.Hour)
	tidy(100*time.Hour, Tidied{})
	tidy(0, Tidied{Uploads: 1, Completed: 1})
	if got := files(t, s.root); got != "archives/a meta/a.json" {
		t.Errorf("left: %s", got)
	}
	if entries, err := os.ReadDir(filepath.Join(s.root, retrievalsDir)); err != nil || len(entries) != 0 {
		t.Errorf("retrievals: %v, %v", entries, err)
	}
}

// An upload's completion is found also when its log is gone.
func TestCompleteAfterTidy(t *testing.T) {
	t.Parallel()
	c := newClock()
	s := newStoreT(t, Options{Now: c.Now})
	u, err := s.CreateUpload(t.Context(), coldstore.NewArchive{Name: "set/a"}, minPart)
	if err != nil {
		t.Fatal(err)
	}
	data := []byte("x")
	storetest.PutParts(t, s, u, data)
	if _, err := s.CompleteUpload(t.Context(), u.ID, 1, treehash.Sum(data)); err != nil {
		t.Fatal(err)
	}
	c.Advance(25 * time.Hour)
	if _, err := s.Tidy(t.Context(), 0); err != nil || strings.Contains(files(t, s.root), uploadsDir) {
		t.Fatal(err)
	}
	if a, err := s.CompleteUpload(t.Context(), u.ID, 1, treehash.Sum(data)); err != nil || a.ID != "set/a" {
		t.Errorf("CompleteUpload: %v, %v", a, err)
	}
	if _, err := s.CompleteUpload(t.Context(), u.ID, 2, treehash.Sum(data)); !errors.Is(err, coldstore.ErrInvalid) {
		t.Errorf("with another size: %v", err)
	}
	if _, err := s.CompleteUpload(t.Context(), u.ID, 1, treehash.Hash{}); !errors.Is(err, coldstore.ErrIntegrity) {
		t.Errorf("with another hash: %v", err)
	}
}

// What a power failure can leave of a log: a torn end, a hole of zeros.
func TestTornLog(t *testing.T) {
	t.Parallel()
	for _, torn := range []string{`{"part":0,"si`, "\x00\x00\x00\x00", "\n\x00\x00\n{}\n", `{"part":`} {
		s := newStoreT(t, Options{})
		data := storetest.Bytes(2*minPart, 1)
		u, err := s.CreateUpload(t.Context(), coldstore.NewArchive{Name: "a"}, minPart)
		if err != nil {
			t.Fatal(err)
		}
		storetest.PutParts(t, s, u, data[:minPart])
		f, err := os.OpenFile(s.uploadLog(u.ID), os.O_WRONLY|os.O_APPEND, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteString(torn); err != nil {
			t.Fatal(err)
		}
		f.Close()
		s = reopen(t, s)
		if parts, err := s.ListParts(t.Context(), u.ID); err != nil || len(parts) != 1 {
			t.Errorf("%q: %v, %v", torn, parts, err)
		}
		p := data[minPart:]
		if err := s.PutPart(t.Context(), u.ID, minPart, p, treehash.Sum(p)); err != nil {
			t.Error(err)
		}
		s = reopen(t, s)
		if _, err := s.CompleteUpload(t.Context(), u.ID, 2*minPart, treehash.Sum(data)); err != nil {
			t.Errorf("%q: %v", torn, err)
		}
	}
}

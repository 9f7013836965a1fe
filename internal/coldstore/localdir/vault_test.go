package localdir

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/internal/coldstore/storetest"
	"github.com/firn-backup/firn/internal/durable"
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

// After a deletion nothing is left, not even directories.
func TestDeleteLeavesNothing(t *testing.T) {
	t.Parallel()
	s := newStoreT(t, Options{})
	storetest.Upload(t, s, coldstore.NewArchive{Name: "set/snap/a"}, minPart, []byte("x"))
	storetest.Upload(t, s, coldstore.NewArchive{Name: "set/b"}, minPart, []byte("x"))
	for _, id := range []string{"set/snap/a", "set/b"} {
		if err := s.Delete(t.Context(), id); err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(filepath.Dir(s.archivePath("set/snap/a"))); !isAbsent(err) {
			t.Errorf("%s is deleted, and its directory is left: %v", id, err)
		}
	}
	for _, dir := range directories() {
		if entries, err := os.ReadDir(filepath.Join(s.root, dir)); err != nil || len(entries) != 0 {
			t.Errorf("%s holds %v, %v", dir, entries, err)
		}
	}
}

// Whoever begins or ends something waits for other processes, as long as the context allows.
func TestLocks(t *testing.T) {
	t.Parallel()
	s := newStoreT(t, Options{})
	hash := treehash.Sum([]byte("x"))
	storetest.Upload(t, s, coldstore.NewArchive{Name: "there"}, minPart, []byte("x"))
	u, err := s.CreateUpload(t.Context(), coldstore.NewArchive{Name: "a"}, minPart)
	if err != nil {
		t.Fatal(err)
	}
	storetest.PutParts(t, s, u, []byte("x"))
	create := func(ctx context.Context) error {
		_, err := s.CreateUpload(ctx, coldstore.NewArchive{}, minPart)
		return err
	}
	complete := func(ctx context.Context) error {
		_, err := s.CompleteUpload(ctx, u.ID, 1, hash)
		return err
	}
	put := func(ctx context.Context) error { return s.PutPart(ctx, u.ID, 0, []byte("x"), hash) }
	abort := func(ctx context.Context) error { return s.AbortUpload(ctx, u.ID) }
	remove := func(ctx context.Context) error { return s.Delete(ctx, "there") }
	for _, c := range []struct {
		path   string
		how    durable.Sharing
		what   string
		do     func(context.Context) error
		passes bool
	}{
		{filepath.Join(s.root, markerName), durable.Exclusive, "create", create, false},
		{filepath.Join(s.root, markerName), durable.Exclusive, "delete", remove, false},
		{filepath.Join(s.root, markerName), durable.Exclusive, "complete", complete, false},
		{filepath.Join(s.root, markerName), durable.Exclusive, "abort", abort, false},
		{filepath.Join(s.root, markerName), durable.Exclusive, "put", put, true},
		{s.uploadLog(u.ID), durable.Exclusive, "put", put, false},
		{s.uploadLog(u.ID), durable.Shared, "put", put, true},
		{s.uploadLog(u.ID), durable.Shared, "abort", abort, false},
		{s.uploadLog(u.ID), durable.Shared, "complete", complete, false},
	} {
		f, err := os.OpenFile(c.path, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		if err := durable.LockFile(t.Context(), f, c.how); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Millisecond)
		if c.passes {
			ctx = t.Context()
		}
		err = c.do(ctx)
		if cancel(); c.passes != (err == nil) || !c.passes && !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s while another holds %s: %v", c.what, c.path, err)
		}
		f.Close()
	}
	if err := complete(t.Context()); err != nil {
		t.Error(err)
	}
}

// One archive's retrieval opens no other archive.
func TestRetrievalOfAnother(t *testing.T) {
	t.Parallel()
	s := newStoreT(t, Options{})
	for _, id := range []string{"a", "b"} {
		storetest.Upload(t, s, coldstore.NewArchive{Name: id}, minPart, []byte(id))
	}
	r, err := s.RequestRetrieval(t.Context(), "a", coldstore.Range{}, coldstore.RetrievalOptions{})
	if err != nil {
		t.Fatal(err)
	}
	r.Archive = "b"
	if _, err := s.OpenRetrieved(t.Context(), r, 0, 1); !errors.Is(err, coldstore.ErrInvalid) {
		t.Errorf("OpenRetrieved: %v", err)
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

package localdir

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/internal/coldstore/storetest"
	"github.com/firn-backup/firn/treehash"
)

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

// No id leads out of the vault.
func TestHostileNames(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	s := newStoreT(t, Options{})
	storetest.Upload(t, s, coldstore.NewArchive{Name: "a"}, minPart, []byte("x"))
	outside := filepath.Join(filepath.Dir(s.root), "outside.json")
	text, err := os.ReadFile(s.metaPath("a"))
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"../../outside", "../archives/../meta/a", "./a", "/a", "a/", ""} {
		write(t, outside, strings.Replace(string(text), `"id": "a"`, `"id": "`+id+`"`, 1))
		_, stat := s.Stat(ctx, id)
		_, request := s.RequestRetrieval(ctx, id, coldstore.Range{}, coldstore.RetrievalOptions{})
		_, create := s.CreateUpload(ctx, coldstore.NewArchive{Name: id}, minPart)
		_, read := s.OpenRetrieved(ctx, coldstore.Retrieval{Token: "warm:0:0:" + id}, 0, 1)
		if id == "" {
			create = stat // an empty name is no name
		}
		for what, err := range map[string]error{"Stat": stat, "RequestRetrieval": request, "CreateUpload": create, "Delete": s.Delete(ctx, id)} {
			if !errors.Is(err, coldstore.ErrInvalid) {
				t.Errorf("%s of %q: %v", what, id, err)
			}
		}
		if !errors.Is(read, coldstore.ErrExpired) {
			t.Errorf("OpenRetrieved of %q: %v", id, read)
		}
		if _, err := os.Stat(outside); err != nil {
			t.Fatal(err)
		}
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

// An archive whose meta file is damaged can be read, and a listing's error tells of it.
func TestDamagedMeta(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	s := newStoreT(t, Options{Now: newClock().Now})
	data := storetest.Bytes(3<<20, 1)
	for _, id := range []string{"set/a", "set/b", "set/c", "set/d"} {
		storetest.Upload(t, s, coldstore.NewArchive{Name: id}, minPart, data)
	}
	write(t, s.metaPath("set/a"), "{")
	write(t, s.metaPath("set/b"), "")
	write(t, s.metaPath("set/c"), "{")
	if err := os.Remove(s.archivePath("set/c")); err != nil {
		t.Fatal(err)
	}
	var listed []string
	_, err := s.List(ctx, func(a coldstore.Archive) error { listed = append(listed, a.ID); return nil })
	if len(listed) != 1 || !errors.Is(err, coldstore.ErrIntegrity) {
		t.Errorf("listed %v, %v", listed, err)
	}
	var names []string
	for _, a := range coldstore.DamagedArchives(fmt.Errorf("list: %w", err)) {
		names = append(names, a.ID)
		if a.Size != int64(len(data)) || !a.TreeHash.IsZero() {
			t.Errorf("%+v", a)
		}
		r, err := s.RequestRetrieval(ctx, a.ID, coldstore.Range{Offset: 1 << 20, Size: 2 << 20}, coldstore.RetrievalOptions{})
		if err != nil {
			t.Fatal(err)
		}
		rc, err := s.OpenRetrieved(ctx, r, 1<<20, 1000)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(rc)
		rc.Close()
		if err != nil || string(got) != string(data[1<<20:1<<20+1000]) {
			t.Errorf("%s: %d bytes, %v", a.ID, len(got), err)
		}
	}
	slices.Sort(names)
	if strings.Join(names, " ") != "set/a set/b" {
		t.Errorf("readable: %v", names)
	}
	if _, err := s.RequestRetrieval(ctx, "set/c", coldstore.Range{}, coldstore.RetrievalOptions{}); !errors.Is(err, coldstore.ErrIntegrity) {
		t.Errorf("neither meta file nor data: %v", err)
	}
}

// What the medium does not give back is damage of that archive, and of no other.
func TestUnreadable(t *testing.T) {
	t.Parallel()
	for _, broken := range []error{syscall.EIO, syscall.ENODATA, syscall.EUCLEAN, syscall.EBADMSG} {
		err := unreadable(&os.PathError{Op: "read", Path: "x", Err: broken})
		if !errors.Is(err, coldstore.ErrIntegrity) || !errors.Is(err, broken) {
			t.Errorf("%v is %v", broken, err)
		}
	}
	for _, other := range []error{syscall.EACCES, syscall.ETIMEDOUT, syscall.ECONNRESET, syscall.EMFILE} {
		if err := unreadable(other); err != other {
			t.Errorf("%v is %v", other, err)
		}
	}

	ctx := t.Context()
	s := newStoreT(t, Options{Now: newClock().Now})
	data := storetest.Bytes(4096, 1)
	storetest.Upload(t, s, coldstore.NewArchive{Name: "set/a"}, minPart, data)
	r, err := s.RequestRetrieval(ctx, "set/a", coldstore.Range{}, coldstore.RetrievalOptions{})
	if err != nil {
		t.Fatal(err)
	}
	// A directory can be opened and not be read, as root too.
	if err := os.Remove(s.archivePath("set/a")); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(s.archivePath("set/a"), 0o700); err != nil {
		t.Fatal(err)
	}
	rc, err := s.OpenRetrieved(ctx, r, 0, 4096)
	if err != nil {
		t.Fatal(err)
	}
	defer rc.Close()
	if _, err := rc.Read(make([]byte, 100)); !errors.Is(err, coldstore.ErrIntegrity) {
		t.Errorf("read of what cannot be read: %v", err)
	}
}

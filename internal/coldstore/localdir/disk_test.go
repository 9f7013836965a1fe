package localdir

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/internal/coldstore/storetest"
	"github.com/firn-backup/firn/internal/mustrun"
	"github.com/firn-backup/firn/treehash"
)

// tmpfs mounts a file system of that many bytes.
func tmpfs(t *testing.T, options string) string {
	t.Helper()
	mustrun.Root(t)
	dir := t.TempDir()
	if err := syscall.Mount("firn-test", dir, "tmpfs", 0, options); err != nil {
		mustrun.Skip(t, "cannot mount a tmpfs: "+err.Error())
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func TestFullDisk(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	s, err := Create(filepath.Join(tmpfs(t, "size=3m"), "vault"), Options{})
	if err != nil {
		t.Fatal(err)
	}
	first := storetest.Bytes(minPart, 1)
	storetest.Upload(t, s, coldstore.NewArchive{Name: "first"}, minPart, first)
	data := storetest.Bytes(3*minPart, 2)
	u, err := s.CreateUpload(ctx, coldstore.NewArchive{Name: "big"}, minPart)
	if err != nil {
		t.Fatal(err)
	}
	small, err := s.CreateUpload(ctx, coldstore.NewArchive{Name: "small"}, minPart)
	if err != nil {
		t.Fatal(err)
	}
	storetest.PutParts(t, s, small, data[:10])
	for off := int64(0); err == nil && off < 3*minPart; off += minPart {
		err = s.PutPart(ctx, u.ID, off, data[off:off+minPart], treehash.Sum(data[off:off+minPart]))
	}
	if !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), s.root) || strings.Contains(err.Error(), "\n") || errors.Is(err, coldstore.ErrTemporary) {
		t.Fatalf("full disk: %v", err)
	}
	parts, err := s.ListParts(ctx, u.ID)
	if err != nil || len(parts) == 0 || len(parts) > 1 {
		t.Errorf("parts: %v, %v", parts, err)
	}
	if there := checkWhole(t, s, map[string][]byte{"first": first}); len(there) != 1 {
		t.Errorf("archives %v", there)
	}
	// With the disk full to the last byte, deleting works, and then so does the rest.
	filler := filepath.Join(filepath.Dir(s.root), "filler")
	_ = os.WriteFile(filler, make([]byte, 3*minPart), 0o600)
	if _, err := s.CompleteUpload(ctx, small.ID, 10, treehash.Sum(data[:10])); !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), s.root) {
		t.Errorf("completed on a full disk: %v", err)
	}
	if there := checkWhole(t, s, map[string][]byte{"first": first}); len(there) != 1 {
		t.Errorf("archives %v", there)
	}
	if err := s.Delete(ctx, "first"); err != nil {
		t.Errorf("Delete: %v", err)
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	if _, err := s.CompleteUpload(ctx, u.ID, minPart, treehash.Sum(data[:minPart])); err != nil {
		t.Errorf("CompleteUpload: %v", err)
	}
	if _, err := s.CompleteUpload(ctx, small.ID, 10, treehash.Sum(data[:10])); err != nil {
		t.Errorf("CompleteUpload: %v", err)
	}
	if there := checkWhole(t, s, map[string][]byte{"big": data[:minPart], "small": data[:10]}); len(there) != 2 {
		t.Errorf("archives %v", there)
	}
}

func TestReadOnly(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	dir := tmpfs(t, "size=8m")
	c := newClock()
	s, err := Create(filepath.Join(dir, "vault"), Options{Now: c.Now})
	if err != nil {
		t.Fatal(err)
	}
	data := storetest.Bytes(1000, 1)
	storetest.Upload(t, s, coldstore.NewArchive{Name: "a"}, minPart, data)
	u, err := s.CreateUpload(ctx, coldstore.NewArchive{Name: "b"}, minPart)
	if err != nil {
		t.Fatal(err)
	}
	storetest.PutParts(t, s, u, data)
	if err := syscall.Mount("", dir, "", syscall.MS_REMOUNT|syscall.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	s = reopen(t, s)
	if there := checkWhole(t, s, map[string][]byte{"a": data}); len(there) != 1 {
		t.Errorf("archives %v", there)
	}
	r, err := s.RequestRetrieval(ctx, "a", coldstore.Range{}, coldstore.RetrievalOptions{})
	if err != nil {
		t.Fatal(err)
	}
	rc, err := s.OpenRetrieved(ctx, r, 0, 1000)
	if err != nil {
		t.Fatal(err)
	}
	rc.Close()
	if parts, err := s.ListParts(ctx, u.ID); err != nil || len(parts) != 1 {
		t.Errorf("ListParts: %v, %v", parts, err)
	}
	_, create := s.CreateUpload(ctx, coldstore.NewArchive{Name: "c"}, minPart)
	_, complete := s.CompleteUpload(ctx, u.ID, 1000, treehash.Sum(data))
	_, tidy := s.Tidy(ctx, 0)
	_, make := Create(filepath.Join(dir, "other"), Options{})
	for what, err := range map[string]error{
		"CreateUpload": create, "CompleteUpload": complete, "Tidy": tidy, "Create": make,
		"PutPart": s.PutPart(ctx, u.ID, 0, data[1:], treehash.Sum(data[1:])),
		"Delete":  s.Delete(ctx, "a"),
		"Abort":   s.AbortUpload(ctx, u.ID),
	} {
		if !errors.Is(err, syscall.EROFS) || !strings.Contains(err.Error(), dir) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// TestHiddenFiles works on a file system that keeps removed files under a hidden name while they are open, as
// FUSE's library does by default, and NFS.
func TestHiddenFiles(t *testing.T) {
	t.Parallel()
	mustrun.Root(t)
	mustrun.Tool(t, "bindfs")
	dir := t.TempDir()
	mount := exec.Command("bindfs", t.TempDir(), dir)
	if out, err := mount.CombinedOutput(); err != nil {
		mustrun.Skip(t, fmt.Sprintf("cannot mount bindfs: %v: %s", err, out))
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	ctx := t.Context()
	c := newClock()
	s, err := Create(filepath.Join(dir, "vault"), Options{Now: c.Now})
	if err != nil {
		t.Fatal(err)
	}
	data := storetest.Bytes(minPart+5000, 1)
	for i := range 10 {
		u, err := s.CreateUpload(ctx, coldstore.NewArchive{Name: fmt.Sprint(i)}, minPart)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.PutPartDeferred(ctx, u.ID, 0, data[:minPart]); err != nil {
			t.Fatal(err)
		}
		if i%2 == 0 {
			s = reopen(t, s) // as after a kill
		}
		if err := s.AbortUpload(ctx, u.ID); err != nil {
			t.Errorf("AbortUpload: %v", err)
		}
		if err := s.ListUploads(ctx, func(u coldstore.Upload) error { return fmt.Errorf("%s is there", u.ID) }); err != nil {
			t.Error(err)
		}
	}
	// Parts past the cache and through it, and all of the life of an archive.
	u, err := s.CreateUpload(ctx, coldstore.NewArchive{Name: "whole"}, minPart)
	if err != nil {
		t.Fatal(err)
	}
	for off := 0; off < len(data); off += minPart {
		if _, err := s.PutPartDeferred(ctx, u.ID, int64(off), data[off:min(off+minPart, len(data))]); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.FlushParts(ctx, u.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := s.CompleteUpload(ctx, u.ID, int64(len(data)), treehash.Sum(data)); err != nil {
		t.Fatal(err)
	}
	checkWhole(t, s, map[string][]byte{"whole": data})
	if err := s.Delete(ctx, "whole"); err != nil {
		t.Error(err)
	}
	if _, err := s.Tidy(ctx, 0); err != nil {
		t.Error(err)
	}
	if err := s.DeleteVault(ctx); err != nil {
		t.Error(err)
	}
}

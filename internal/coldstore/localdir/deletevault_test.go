package localdir

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/treehash"
)

func TestDeleteVault(t *testing.T) {
	t.Parallel()
	s := newStoreT(t, Options{})
	ctx := t.Context()
	data := []byte("content")
	up, err := s.CreateUpload(ctx, coldstore.NewArchive{Name: "a/b"}, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.PutPart(ctx, up.ID, 0, data, treehash.Sum(data)); err != nil {
		t.Fatal(err)
	}
	a, err := s.CompleteUpload(ctx, up.ID, int64(len(data)), treehash.Sum(data))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.CreateUpload(ctx, coldstore.NewArchive{Name: "open"}, 1<<20); err != nil {
		t.Fatal(err)
	}
	if err := s.DeleteVault(ctx); !errors.Is(err, coldstore.ErrInvalid) {
		t.Fatalf("a vault with an archive in it: %v", err)
	}
	if _, err := s.Stat(ctx, a.ID); err != nil {
		t.Fatal(err)
	}
	// The deletion is cut short when the data is still there.
	s.step = func(at string) {
		if at == "removal synced" {
			panic("killed")
		}
	}
	func() {
		defer func() { _ = recover() }()
		_ = s.Delete(ctx, a.ID)
	}()
	again, err := Open(s.root, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := again.DeleteVault(ctx); err != nil {
		t.Fatal(err)
	}
	if err := again.DeleteVault(ctx); err != nil {
		t.Errorf("once more: %v", err)
	}
	if _, err := os.Lstat(s.root); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the directory is still there: %v", err)
	}

	// What is not the vault's stays.
	other := newStoreT(t, Options{})
	note := filepath.Join(other.root, "note")
	if err := os.WriteFile(note, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := other.DeleteVault(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(note); err != nil {
		t.Error(err)
	}
	if _, err := Open(other.root, Options{}); !errors.Is(err, coldstore.ErrNotFound) {
		t.Errorf("the vault is still there: %v", err)
	}
}

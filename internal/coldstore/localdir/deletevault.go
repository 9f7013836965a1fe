package localdir

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/internal/durable"
)

var _ coldstore.VaultDeleter = (*Store)(nil)

// DeleteVault deletes the vault if no archive is in it (else ErrInvalid): what was left of uploads and retrievals, the marker, and the
// directory if nothing else is in that. A vault that is not there is deleted already. Once the marker is gone
// the vault is; what a kill leaves behind after that are empty directories, in which Create makes a vault again.
func (s *Store) DeleteVault(ctx context.Context) error {
	if err := s.deleteVault(ctx); err != nil {
		return fmt.Errorf("delete vault %s: %w", s.root, err)
	}
	return nil
}

func (s *Store) deleteVault(ctx context.Context) error {
	if _, err := os.Lstat(filepath.Join(s.root, markerName)); isAbsent(err) {
		return nil
	}
	if err := noFiles(filepath.Join(s.root, metaDir)); err != nil {
		return err
	}
	// Deletions that were cut short are finished, and nothing else is touched before it is sure.
	if err := s.tidyTrees(ctx, 0, &Tidied{}); err != nil {
		return err
	}
	unlock, err := s.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	for _, dir := range []string{archivesDir, metaDir} {
		if err := noFiles(filepath.Join(s.root, dir)); err != nil {
			return err
		}
	}
	for _, dir := range []string{uploadsDir, retrievalsDir, deletingDir} {
		path := filepath.Join(s.root, dir)
		entries, err := os.ReadDir(path)
		if err != nil {
			return err
		}
		for _, e := range entries {
			if err := removeRest(filepath.Join(path, e.Name())); err != nil {
				return err
			}
		}
	}
	if err := durable.Remove(filepath.Join(s.root, markerName)); err != nil {
		return err
	}
	// The vault is no more. What cannot be removed now is empty, and in nobody's way.
	for _, dir := range directories() {
		_ = removeEmptyTree(filepath.Join(s.root, dir))
	}
	_ = os.Remove(filepath.Join(s.root, readmeName))
	_ = os.Remove(s.root)
	return nil
}

// noFiles says that nothing but directories is below dir.
func noFiles(dir string) error {
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			err = fmt.Errorf("%s is in it: %w", path, coldstore.ErrInvalid)
		}
		return err
	})
}

// removeEmptyTree removes directories, and fails where there is anything else.
func removeEmptyTree(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range entries {
		if e.IsDir() {
			errs = append(errs, removeEmptyTree(filepath.Join(dir, e.Name())))
		}
	}
	return errors.Join(append(errs, os.Remove(dir))...)
}

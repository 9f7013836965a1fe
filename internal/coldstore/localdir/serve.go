package localdir

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/internal/durable"
)

// This file is what a server of vaults needs to know beyond the contract.

// UploadState tells of one upload, open or completed.
type UploadState struct {
	coldstore.Upload
	Open     bool      // false: it was completed
	LastUsed time.Time // when it was begun, or a part was put
}

// StatUpload tells of one upload. ErrNotFound: there is no trace of it (any more). Of a
// completed one there is until Tidy or EndUploads. What it reads of an open one it keeps until that ends, so that
// asking again is cheap.
func (s *Store) StatUpload(ctx context.Context, id string) (UploadState, error) {
	u, log, err := s.openUpload(ctx, id, durable.Shared)
	if err != nil {
		return UploadState{}, fmt.Errorf("stat upload %s: %w", id, err)
	}
	defer log.Close()
	state, err := s.uploadState(u)
	if err != nil || !state.Open {
		s.forget(id)
	}
	return state, err
}

// OpenParts are the parts of an open upload, by offset: those of ListParts, found faster the second time.
func (s *Store) OpenParts(ctx context.Context, id string) ([]coldstore.Part, error) {
	u, log, err := s.openUpload(ctx, id, durable.Shared)
	if err != nil {
		return nil, fmt.Errorf("list parts of upload %s: %w", id, err)
	}
	defer log.Close()
	return u.sorted(), nil
}

func (s *Store) uploadState(u *upload) (UploadState, error) {
	open, err := s.isOpen(u)
	if err != nil {
		return UploadState{}, fmt.Errorf("stat upload %s: %w", u.head.Upload, err)
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	return UploadState{
		Upload: coldstore.Upload{
			ID: u.head.Upload, PartSize: u.head.PartSize, Created: u.head.Created,
			NewArchive: coldstore.NewArchive{Name: u.head.Name, Description: u.head.Description},
		},
		Open: open, LastUsed: u.last,
	}, nil
}

// EndUploads ends every upload of which over says so: an open one is aborted, of a completed one the
// trace is removed by which a completion is repeated fast. Each is told as it is when nobody works at it.
func (s *Store) EndUploads(ctx context.Context, over func(UploadState) bool) error {
	return s.walkUploads(ctx, func(id string) error {
		// Looked at without a lock first: most are not over.
		if state, err := s.StatUpload(ctx, id); err != nil || !over(state) {
			if errors.Is(err, coldstore.ErrNotFound) {
				return nil // half made, or half removed: Tidy's
			}
			return err
		}
		u, log, release, err := s.holdUpload(ctx, id)
		if errors.Is(err, coldstore.ErrNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		defer release()
		state, err := s.uploadState(u)
		switch {
		case err != nil:
			return err
		case !over(state):
			return nil
		case state.Open:
			return s.dropUpload(ctx, u, log)
		}
		return s.removeUpload(id, log)
	})
}

// Created is when the vault was made.
func (s *Store) Created() (time.Time, error) {
	text, err := os.ReadFile(filepath.Join(s.root, markerName))
	if isAbsent(err) {
		return time.Time{}, s.gone()
	}
	if err != nil {
		return time.Time{}, err
	}
	var m marker
	if err := json.Unmarshal(text, &m); err != nil {
		return time.Time{}, broken("%s in %s is damaged", markerName, s.root)
	}
	return m.Created, nil
}

// LinkData makes path, in an existing directory of the same file system, another name of an archive's data,
// durably: it can be read there after the archive was deleted. It must not be written to.
func (s *Store) LinkData(archive, path string) error {
	if err := checkName(archive); err != nil {
		return fmt.Errorf("link archive %s: %w", archive, err)
	}
	if err := os.Link(s.archivePath(archive), path); err != nil {
		return fmt.Errorf("link archive %s: %w", archive, err)
	}
	return durable.SyncDir(filepath.Dir(path))
}

// IsVault says whether there is a vault's marker at root.
func IsVault(root string) bool {
	info, err := os.Stat(filepath.Join(root, markerName))
	return err == nil && info.Mode().IsRegular()
}

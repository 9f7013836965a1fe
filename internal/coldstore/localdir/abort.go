package localdir

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/internal/durable"
)

// AbortUpload throws an open upload away. One that was completed stays an archive.
func (s *Store) AbortUpload(ctx context.Context, uploadID string) error {
	if err := s.abortUpload(ctx, uploadID); err != nil {
		return fmt.Errorf("abort upload %s: %w", uploadID, err)
	}
	return nil
}

func (s *Store) abortUpload(ctx context.Context, id string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	u, log, err := s.openUpload(ctx, id, durable.Exclusive)
	if errors.Is(err, coldstore.ErrNotFound) {
		return nil // of one without a readable log Tidy removes what there is
	}
	if err != nil {
		return err
	}
	defer log.Close()
	u.use.Lock()
	defer u.use.Unlock()
	unlock, err := s.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	return s.dropUpload(ctx, u)
}

// dropUpload removes an open upload, with the data that a completion cut short has moved
// already. Of a completed one it removes nothing. The caller holds the upload and the vault.
func (s *Store) dropUpload(ctx context.Context, u *upload) error {
	id := u.head.Upload
	open, err := s.isOpen(u)
	if err != nil {
		return err
	}
	s.forget(id)
	if !open {
		return nil
	}
	mine, err := s.hasMoved(u)
	if err != nil {
		return err
	}
	if mine {
		// Moved data goes before the log, which alone tells what it is.
		if err := removeIfThere(s.archivePath(u.head.ID)); err != nil {
			return err
		}
		s.at("moved data removed")
		s.removeEmptyParents(u.head.ID)
	}
	return s.removeUpload(id)
}

// hasMoved says whether what lies in the place of an upload's archive, without a meta file, is this upload's data, moved
// there by a completion that was cut short. It reads all of it, to be sure: no doubt may cost an archive that has
// only lost its meta file.
func (s *Store) hasMoved(u *upload) (bool, error) {
	if _, err := os.Lstat(s.uploadData(u.head.Upload)); !isAbsent(err) {
		return false, err
	}
	size, hash := u.whole()
	return s.recognize(u.head.ID, size, hash)
}

// claimed says whether the data in an archive's place, without a meta file, is that of any upload.
func (s *Store) claimed(ctx context.Context, archive string) (bool, error) {
	found := false
	err := s.walkUploads(ctx, func(id string) error {
		u, err := s.peekUpload(id)
		if err != nil || u.head.ID != archive || found {
			return nil // what cannot be read can claim nothing
		}
		found, err = s.hasMoved(u)
		return err
	})
	return found, err
}

// removeUpload removes an upload's directory, the log first: from then on there is no such upload.
func (s *Store) removeUpload(id string) error {
	s.forget(id)
	if err := removeIfThere(s.uploadLog(id)); err != nil {
		return err
	}
	s.at("upload log removed")
	return os.RemoveAll(s.uploadDir(id))
}

package localdir

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"

	"github.com/firn-backup/firn/internal/coldstore"
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
	u, log, release, err := s.holdUpload(ctx, id)
	if errors.Is(err, coldstore.ErrNotFound) {
		return nil // of one without a readable log Tidy removes what there is
	}
	if err != nil {
		return err
	}
	defer release()
	return s.dropUpload(ctx, u, log)
}

// dropUpload removes an open upload, with the data that a completion cut short has moved
// already. Of a completed one it removes nothing. The caller holds the upload, by its log, which is closed, and the vault.
func (s *Store) dropUpload(ctx context.Context, u *upload, log *os.File) error {
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
	return s.removeUpload(id, log)
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

// removeUpload removes an upload's directory, the log first: from then on there is no such upload. log is the open log that the
// caller holds the upload by, or nil; it is closed.
func (s *Store) removeUpload(id string, log *os.File) error {
	s.forget(id)
	if err := removeIfThere(s.uploadLog(id)); err != nil {
		return err
	}
	s.at("upload log removed")
	if log != nil {
		log.Close() // what it says is nobody's concern any more
	}
	return removeRest(s.uploadDir(id))
}

// removeRest removes path and all below it. NFS and FUSE keep a removed file, under a hidden name in its directory, until nobody
// has it open, which FUSE learns late. A directory with such files only is as good as removed.
func removeRest(path string) error {
	err := os.RemoveAll(path)
	if !errors.Is(err, syscall.ENOTEMPTY) && !errors.Is(err, syscall.EBUSY) {
		return err
	}
	entries, rerr := os.ReadDir(path)
	if rerr != nil {
		return err
	}
	for _, e := range entries {
		if e.IsDir() || !hiddenName(e.Name()) {
			return err
		}
	}
	_ = os.Remove(path) // they may be gone by now
	return nil
}

// hiddenName says that a file was removed while it was open: what Linux' NFS client and libfuse rename it to.
func hiddenName(name string) bool {
	return strings.HasPrefix(name, ".nfs") || strings.HasPrefix(name, ".fuse_hidden")
}

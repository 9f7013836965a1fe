package localdir

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/internal/durable"
	"github.com/firn-backup/firn/internal/snapshot"
	"github.com/firn-backup/firn/treehash"
)

// CompleteUpload makes the parts an archive. It may be repeated as long as
// that archive exists.
//
// Of a kill in the middle it leaves an upload that can be completed again:
// first the data goes from the upload to its place, then the meta file appears. In between the data
// is no archive; a repetition recognizes it by its tree hash.
func (s *Store) CompleteUpload(ctx context.Context, uploadID string, size int64, hash treehash.Hash) (coldstore.Archive, error) {
	m, err := s.complete(ctx, uploadID, size, hash)
	if err != nil {
		return coldstore.Archive{}, fmt.Errorf("complete upload %s: %w", uploadID, err)
	}
	return m.archive(), nil
}

func (s *Store) complete(ctx context.Context, id string, size int64, hash treehash.Hash) (*meta, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	u, _, release, err := s.holdUpload(ctx, id)
	if errors.Is(err, coldstore.ErrNotFound) {
		return s.completedBefore(ctx, id, size, hash, err)
	}
	if err != nil {
		return nil, err
	}
	defer release()

	if _, err := os.Lstat(s.uploadLog(id)); isAbsent(err) { // removed while this waited, by Abort or Delete
		return nil, s.notFound()
	}
	m, err := s.readMeta(u.head.ID)
	switch {
	case err == nil && m.Upload == id:
		s.forget(id)
		return m, m.same(size, hash)
	case err == nil:
		return nil, fmt.Errorf("archive %s: %w", u.head.ID, coldstore.ErrExists)
	case !errors.Is(err, coldstore.ErrNotFound):
		return nil, err
	}
	open, err := s.isOpen(u)
	if err != nil {
		return nil, err
	}
	if !open { // its data is gone
		return nil, s.notFound()
	}
	if err := checkParts(u.sorted(), size, hash); err != nil {
		return nil, err
	}
	m = &meta{
		ID: u.head.ID, Description: u.head.Description, Size: size, TreeHash: hash,
		Created: s.now(), Upload: id,
	}
	if err := s.commitArchive(ctx, m); err != nil {
		return nil, err
	}
	// The log stays, as a sign by which a repetition finds the archive fast, until Tidy.
	s.forget(id)
	return m, nil
}

// completedBefore looks for the archive that came from an upload of which there is nothing any more,
// neither the upload nor the log that stays behind: by going through all archives, which is slow
// and rare. notFound is what to say when there is none.
func (s *Store) completedBefore(ctx context.Context, id string, size int64, hash treehash.Hash, notFound error) (*meta, error) {
	if !snapshot.ValidID(id) {
		return nil, notFound
	}
	errFound := errors.New("found")
	var found *meta
	err := s.walkMeta(ctx, func(archive string) error {
		m, err := s.readMeta(archive)
		if err != nil || m.Upload != id {
			return nil // of damaged ones List tells
		}
		found = m
		return errFound
	})
	if found != nil {
		return found, found.same(size, hash)
	}
	if err != nil {
		return nil, err
	}
	return nil, notFound
}

// same says whether a repeated completion asks for what has become of the upload.
func (m *meta) same(size int64, hash treehash.Hash) error {
	switch {
	case m.Size != size:
		return fmt.Errorf("it was completed with %d bytes, not %d: %w", m.Size, size, coldstore.ErrInvalid)
	case m.TreeHash != hash:
		return fmt.Errorf("it was completed with tree hash %s, not %s: %w", m.TreeHash, hash, coldstore.ErrIntegrity)
	}
	return nil
}

// checkParts says whether the parts are size bytes without a gap that have the tree hash.
func checkParts(parts []coldstore.Part, size int64, hash treehash.Hash) error {
	if size < 1 || size > maxParts*maxPart {
		return fmt.Errorf("an archive has between 1 and %d bytes, not %d: %w", int64(maxParts*maxPart), size, coldstore.ErrInvalid)
	}
	hashes := make([]treehash.Hash, len(parts))
	end := int64(0)
	for i, p := range parts {
		if p.Offset != end { // also after a part that is too short and not the last
			return fmt.Errorf("bytes %d to %d are missing: %w", end, p.Offset, coldstore.ErrInvalid)
		}
		end = p.Offset + p.Size
		hashes[i] = p.TreeHash
	}
	if end != size {
		return fmt.Errorf("the parts are %d bytes together, not %d: %w", end, size, coldstore.ErrInvalid)
	}
	if got := treehash.Combine(hashes); got != hash {
		return fmt.Errorf("the parts' tree hash is %s, not %s: %w", got, hash, coldstore.ErrIntegrity)
	}
	return nil
}

// commitArchive turns an upload, whose data is synced, into an archive. The caller holds the vault.
func (s *Store) commitArchive(ctx context.Context, m *meta) error {
	text, err := encode(m)
	if err != nil {
		return err
	}
	if err := s.checkFree(m.ID); err != nil {
		return fmt.Errorf("archive %s: %w", m.ID, err)
	}
	_, err = os.Lstat(s.uploadData(m.Upload))
	moved := isAbsent(err)
	if !moved {
		if err := s.clearPlace(ctx, m.ID); err != nil {
			return err
		}
	}
	for _, path := range []string{s.metaPath(m.ID), s.archivePath(m.ID)} {
		if err := durable.MkdirAll(filepath.Dir(path), dirPerm); err != nil {
			return err
		}
	}
	s.at("archive directories made")
	if moved {
		is, err := s.recognize(m.ID, m.Size, m.TreeHash)
		if err != nil {
			return err
		}
		if !is { // another has taken the name, and was deleted
			return s.notFound()
		}
	} else if err := s.moveData(m); err != nil {
		return err
	}
	if err := durable.SyncDir(filepath.Dir(s.archivePath(m.ID))); err != nil {
		return err
	}
	s.at("data in place")
	if err := durable.WriteFile(s.metaPath(m.ID), text, filePerm); err != nil {
		return err
	}
	s.at("archive made")
	return nil
}

// moveData moves an upload's data to its place.
func (s *Store) moveData(m *meta) error {
	from, to := s.uploadData(m.Upload), s.archivePath(m.ID)
	info, err := os.Lstat(from)
	if err != nil {
		return err
	}
	switch {
	case info.Size() < m.Size:
		return coldstore.Damagef("the data %s has %d bytes instead of %d", from, info.Size(), m.Size)
	case info.Size() > m.Size: // a last part was put again, and shorter
		if err := truncate(from, m.Size); err != nil {
			return err
		}
	}
	s.at("before the move")
	if err := os.Rename(from, to); err != nil {
		return err
	}
	s.at("data moved")
	return nil
}

// clearPlace makes sure that what lies in an archive's place, without a meta file, may be overwritten:
// what a deletion cut short left, or another upload's completion; that one has lost the name
// then. An archive whose meta file was lost is never overwritten.
func (s *Store) clearPlace(ctx context.Context, archive string) error {
	path := s.archivePath(archive)
	if _, err := os.Lstat(path); isAbsent(err) {
		return nil
	}
	if err := s.tidyDeleting(ctx, &Tidied{}); err != nil {
		return err
	}
	if _, err := os.Lstat(path); isAbsent(err) {
		return nil
	} else if err != nil {
		return err
	}
	claimed, err := s.claimed(ctx, archive)
	if err != nil {
		return err
	}
	if !claimed {
		return fmt.Errorf("%s is in the way, and no meta file tells what it is: %w", path, coldstore.ErrExists)
	}
	return nil
}

func truncate(path string, size int64) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	err = f.Truncate(size)
	if err == nil {
		err = f.Sync()
	}
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	return err
}

// recognize says whether the data in an archive's place has that size and
// tree hash. It reads all of it, and syncs it: what was read may have come from the cache.
func (s *Store) recognize(archive string, size int64, hash treehash.Hash) (bool, error) {
	f, err := os.Open(s.archivePath(archive))
	if isAbsent(err) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() || info.Size() != size {
		return false, err
	}
	h := treehash.New()
	if _, err := io.CopyBuffer(struct{ io.Writer }{h}, struct{ io.Reader }{f}, make([]byte, 4*treehash.LeafSize)); err != nil {
		return false, err
	}
	if h.Size() != size || h.Sum() != hash {
		return false, nil
	}
	return true, durable.SyncData(f)
}

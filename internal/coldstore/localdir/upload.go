package localdir

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"syscall"

	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/internal/durable"
	"github.com/firn-backup/firn/internal/snapshot"
	"github.com/firn-backup/firn/treehash"
)

// The vault API's limits.
const (
	minPart  = 1 << 20
	maxPart  = 4 << 30
	maxParts = 10_000
)

// CreateUpload begins an upload.
func (s *Store) CreateUpload(ctx context.Context, a coldstore.NewArchive, partSize int64) (coldstore.Upload, error) {
	u, err := s.createUpload(ctx, a, partSize)
	if err != nil {
		return coldstore.Upload{}, fmt.Errorf("begin upload of %q: %w", a.Name, err)
	}
	return u, nil
}

func (s *Store) createUpload(ctx context.Context, a coldstore.NewArchive, partSize int64) (coldstore.Upload, error) {
	var none coldstore.Upload
	if err := ctx.Err(); err != nil {
		return none, err
	}
	if partSize < minPart || partSize > maxPart || partSize&(partSize-1) != 0 {
		return none, fmt.Errorf("part size %d is no power of two between %d and %d: %w", partSize, minPart, maxPart, coldstore.ErrInvalid)
	}
	if err := checkDescription(a.Description); err != nil {
		return none, err
	}
	now := s.now()
	id, err := snapshot.NewID(now, rand.Reader)
	if err != nil {
		return none, err
	}
	head := logHead{
		Format: Version, Upload: id, Name: a.Name, ID: a.Name,
		Description: a.Description, PartSize: partSize, Created: now,
	}
	if head.ID == "" {
		if head.ID, err = snapshot.NewID(now, rand.Reader); err != nil {
			return none, err
		}
	}
	if err := checkName(head.ID); err != nil {
		return none, err
	}
	// Under the lock, so that Tidy knows an upload that is only half made for a leftover.
	unlock, err := s.lock(ctx)
	if err != nil {
		return none, err
	}
	defer unlock()
	if err := s.checkFree(head.ID); err != nil {
		return none, err
	}
	if err := s.makeUpload(head); err != nil {
		os.RemoveAll(s.uploadDir(id))
		return none, err
	}
	return coldstore.Upload{ID: id, PartSize: partSize, NewArchive: a, Created: now}, nil
}

// makeUpload writes an upload's directory. Nothing is synced: before the first
// part there is nothing to lose.
func (s *Store) makeUpload(head logHead) error {
	if err := os.Mkdir(s.uploadDir(head.Upload), dirPerm); err != nil {
		return err
	}
	s.at("upload directory made")
	data, err := os.OpenFile(s.uploadData(head.Upload), os.O_WRONLY|os.O_CREATE|os.O_EXCL, filePerm)
	if err != nil {
		return err
	}
	if err := data.Close(); err != nil {
		return err
	}
	s.at("upload data made")
	log, err := os.OpenFile(s.uploadLog(head.Upload), os.O_WRONLY|os.O_CREATE|os.O_EXCL|os.O_APPEND, filePerm)
	if err != nil {
		return err
	}
	err = appendLine(log, head)
	if closeErr := log.Close(); err == nil {
		err = closeErr
	}
	return err
}

// checkFree says whether an archive may come to be under this id: no other has
// it, nor lies in its way (a is in the way of a/b).
func (s *Store) checkFree(id string) error {
	info, err := os.Lstat(s.metaPath(id))
	switch {
	case err == nil && !info.IsDir():
		return coldstore.ErrExists
	case err == nil:
		return fmt.Errorf("other archives are below %s%s: %w", id, metaSuffix, coldstore.ErrInvalid)
	case errors.Is(err, syscall.ENOTDIR):
		return fmt.Errorf("another archive's name is the beginning of %s: %w", id, coldstore.ErrInvalid)
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	info, err = os.Lstat(s.archivePath(id))
	switch {
	case err == nil && info.IsDir():
		return fmt.Errorf("other archives are below %s: %w", id, coldstore.ErrInvalid)
	case errors.Is(err, syscall.ENOTDIR):
		return fmt.Errorf("another archive's name is the beginning of %s: %w", id, coldstore.ErrInvalid)
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return err
	}
	return nil
}

// openUpload opens the log of an upload that can still be worked at, locked, and
// brings what is known of it up to date. The caller closes the file, which unlocks it.
func (s *Store) openUpload(ctx context.Context, id string, how durable.Sharing) (*upload, *os.File, error) {
	if !snapshot.ValidID(id) {
		return nil, nil, s.notFound()
	}
	log, err := os.OpenFile(s.uploadLog(id), os.O_RDWR|os.O_APPEND, 0)
	if err != nil {
		if isAbsent(err) {
			err = s.notFound()
		}
		return nil, nil, err
	}
	u, err := s.readUpload(ctx, id, log, how)
	if err != nil {
		log.Close()
		return nil, nil, err
	}
	return u, log, nil
}

// holdUpload opens an upload that nobody else works at until release is called, and holds the vault meanwhile.
// ErrNotFound is of the upload only.
func (s *Store) holdUpload(ctx context.Context, id string) (u *upload, log *os.File, release func(), err error) {
	u, log, err = s.openUpload(ctx, id, durable.Exclusive)
	if err != nil {
		return nil, nil, nil, err
	}
	u.use.Lock()
	unlock, err := s.lock(ctx)
	if err != nil {
		u.use.Unlock()
		log.Close()
		return nil, nil, nil, err
	}
	return u, log, func() {
		unlock()
		u.use.Unlock()
		log.Close()
	}, nil
}

func (s *Store) readUpload(ctx context.Context, id string, log *os.File, how durable.Sharing) (*upload, error) {
	if err := durable.LockFile(ctx, log, how); err != nil {
		return nil, err
	}
	s.mu.Lock()
	u := s.uploads[id]
	s.mu.Unlock()
	if u != nil {
		return u, u.refresh(log)
	}
	u, err := readLog(log)
	if errors.Is(err, errUnreadable) {
		return nil, s.notFound()
	}
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if first := s.uploads[id]; first != nil {
		return first, nil // another goroutine was faster; all use one
	}
	s.uploads[id] = u
	return u, nil
}

// forget drops what is known of an upload that has ended.
func (s *Store) forget(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if u := s.uploads[id]; u != nil {
		u.drop()
		delete(s.uploads, id)
	}
}

// PutPart stores one part. It is on disk when PutPart returns without error.
// Two processes must not put the same part with different data at once.
func (s *Store) PutPart(ctx context.Context, uploadID string, off int64, data []byte, hash treehash.Hash) error {
	if err := s.putPart(ctx, uploadID, off, data, hash, false); err != nil {
		return fmt.Errorf("put part at %d of upload %s: %w", off, uploadID, err)
	}
	return nil
}

// putPart stores a part; right says that its hash is known to be that of data.
func (s *Store) putPart(ctx context.Context, id string, off int64, data []byte, hash treehash.Hash, right bool) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	u, log, err := s.openUpload(ctx, id, durable.Shared)
	if err != nil {
		return err
	}
	defer log.Close() // what it says may be forgotten: no error of Close matters
	p := coldstore.Part{Offset: off, Size: int64(len(data)), TreeHash: hash}
	if err := u.checkPart(p.Offset, p.Size); err != nil {
		return err
	}
	if !right {
		if got := treehash.Sum(data); got != hash {
			return fmt.Errorf("its tree hash is %s, not %s: %w", got, hash, coldstore.ErrIntegrity)
		}
	}
	u.use.RLock()
	defer u.use.RUnlock()
	one := u.lockPart(off)
	defer one.Unlock()
	return s.putLocked(u, log, p, data)
}

// checkPart says whether a part may have that place and size.
func (u *upload) checkPart(off, size int64) error {
	partSize := u.head.PartSize
	switch {
	case size == 0:
		return fmt.Errorf("the part is empty: %w", coldstore.ErrInvalid)
	case size > partSize:
		return fmt.Errorf("the part has %d bytes, parts of this upload have %d: %w", size, partSize, coldstore.ErrInvalid)
	case off < 0 || off%partSize != 0:
		return fmt.Errorf("the offset is no multiple of the part size %d: %w", partSize, coldstore.ErrInvalid)
	case off/partSize >= maxParts:
		return fmt.Errorf("an upload has at most %d parts: %w", maxParts, coldstore.ErrInvalid)
	}
	return nil
}

// lockPart keeps others from putting the same part. The caller unlocks what it returns.
func (u *upload) lockPart(off int64) *sync.Mutex {
	one := &u.parts[off/u.head.PartSize%int64(len(u.parts))]
	one.Lock()
	return one
}

// putLocked writes a part whose hash is right, syncs it and tells the log. The caller has locked the part.
func (s *Store) putLocked(u *upload, log *os.File, part coldstore.Part, data []byte) error {
	id, off := u.head.Upload, part.Offset
	f, err := os.OpenFile(s.uploadData(id), os.O_WRONLY, 0)
	moved := isAbsent(err)
	if err != nil && !moved {
		return err
	}
	defer f.Close() // once more on a closed file, or on none, does nothing
	p, ok := u.part(off)
	same := ok && p == part
	if moved { // by a completion
		open, err := s.isOpen(u)
		switch {
		case err != nil:
			return err
		case !open:
			s.forget(id)
			return s.notFound()
		case !same:
			return fmt.Errorf("its completion has begun and must be repeated: %w", coldstore.ErrInvalid)
		}
	}
	if same {
		return nil
	}
	if ok {
		if err := appendLine(log, logLine{Drop: &off, At: s.now()}); err != nil {
			return err
		}
		if err := durable.SyncData(log); err != nil {
			return err
		}
		s.at("old part withdrawn")
	}
	u.withdraw(off)
	if err := s.writePart(f, off, data); err != nil {
		return err
	}
	s.at("part written")
	if err := appendLine(log, logLine{Part: &off, Size: part.Size, Hash: part.TreeHash, At: s.now()}); err != nil {
		return err
	}
	return u.refresh(log)
}

// writePart writes data into an upload and syncs it. Many do so at once, each at its offset.
func (s *Store) writePart(f *os.File, off int64, data []byte) error {
	if _, err := f.WriteAt(data, off); err != nil {
		return err
	}
	s.at("part in the cache")
	if err := durable.SyncData(f); err != nil {
		return err
	}
	return f.Close()
}

// ListParts tells which parts are there.
func (s *Store) ListParts(ctx context.Context, uploadID string) ([]coldstore.Part, error) {
	parts, err := s.listParts(ctx, uploadID)
	if err != nil {
		return nil, fmt.Errorf("list parts of upload %s: %w", uploadID, err)
	}
	return parts, nil
}

func (s *Store) listParts(ctx context.Context, id string) ([]coldstore.Part, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if !snapshot.ValidID(id) {
		return nil, s.notFound()
	}
	u, err := s.peekUpload(id)
	if err != nil {
		return nil, err
	}
	if open, err := s.isOpen(u); err != nil {
		return nil, err
	} else if !open {
		return nil, s.notFound()
	}
	return u.sorted(), nil
}

// peekUpload reads an upload's log without locking anything or writing: also in a vault that is read-only.
func (s *Store) peekUpload(id string) (*upload, error) {
	log, err := os.Open(s.uploadLog(id))
	if err != nil {
		if isAbsent(err) {
			err = s.notFound()
		}
		return nil, err
	}
	defer log.Close()
	u, err := readLog(log)
	if errors.Is(err, errUnreadable) {
		return nil, s.notFound()
	}
	return u, err
}

// isOpen says whether an upload can still become an archive: its data is in its directory, or has
// been moved to its place by a completion that was cut short.
func (s *Store) isOpen(u *upload) (bool, error) {
	m, err := s.readMeta(u.head.ID)
	if err == nil && m.Upload == u.head.Upload {
		return false, nil
	}
	taken := err == nil || errors.Is(err, coldstore.ErrIntegrity)
	if err != nil && !taken && !errors.Is(err, coldstore.ErrNotFound) {
		return false, err
	}
	if _, err := os.Lstat(s.uploadData(u.head.Upload)); !isAbsent(err) {
		return err == nil, err
	}
	if taken {
		return false, nil
	}
	info, err := os.Lstat(s.archivePath(u.head.ID))
	if isAbsent(err) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	size, _ := u.whole()
	return info.Size() == size, nil
}

// ListUploads calls fn for every open upload. Those that cannot be read are told in the error, after all others.
func (s *Store) ListUploads(ctx context.Context, fn func(coldstore.Upload) error) error {
	var damages []error
	err := s.walkUploads(ctx, func(id string) error {
		u, err := s.peekUpload(id)
		open := false
		if err == nil {
			open, err = s.isOpen(u)
		}
		switch {
		case errors.Is(err, coldstore.ErrNotFound):
			return nil
		case err != nil:
			damages = append(damages, fmt.Errorf("list upload %s: %w", id, err))
			return nil
		case !open:
			return nil
		}
		return fn(coldstore.Upload{
			ID: u.head.Upload, PartSize: u.head.PartSize, Created: u.head.Created,
			NewArchive: coldstore.NewArchive{Name: u.head.Name, Description: u.head.Description},
		})
	})
	if err != nil {
		return err
	}
	return errors.Join(damages...)
}

// walkUploads calls fn with the id of every upload, open or not.
func (s *Store) walkUploads(ctx context.Context, fn func(id string) error) error {
	entries, err := os.ReadDir(filepath.Join(s.root, uploadsDir))
	if err != nil {
		return fmt.Errorf("list uploads: %w", err)
	}
	for _, e := range entries {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("list uploads: %w", err)
		}
		if !e.IsDir() || !snapshot.ValidID(e.Name()) {
			continue
		}
		if err := fn(e.Name()); err != nil {
			return err
		}
	}
	return nil
}

package localdir

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/internal/durable"
	"github.com/firn-backup/firn/internal/snapshot"
	"github.com/firn-backup/firn/treehash"
)

// meta is what is known of an archive: the file that makes it exist.
type meta struct {
	ID          string        `json:"id"`
	Description string        `json:"description"`
	Size        int64         `json:"size"`
	TreeHash    treehash.Hash `json:"treeHash"`
	Created     time.Time     `json:"created"`
	Upload      string        `json:"upload"` // the upload that it came from, so that its completion can be repeated
}

func (m *meta) archive() coldstore.Archive {
	return coldstore.Archive{
		ID: m.ID, Description: m.Description, Size: m.Size, TreeHash: m.TreeHash, Created: m.Created,
	}
}

// readMeta reads what is known of an archive. ErrNotFound, or ErrIntegrity
// when the file is there and cannot be understood.
func (s *Store) readMeta(id string) (*meta, error) {
	text, err := os.ReadFile(s.metaPath(id))
	if isAbsent(err) || errors.Is(err, syscall.EISDIR) {
		return nil, s.notFound()
	}
	if err != nil {
		return nil, unreadable(err)
	}
	var m meta
	if err := json.Unmarshal(text, &m); err != nil || m.ID != id || m.Size < 1 || m.TreeHash.IsZero() {
		return nil, coldstore.Damagef("%s is damaged", s.metaPath(id))
	}
	return &m, nil
}

// readable is readMeta for reading: where the meta file is damaged, the data's length has to do. What
// is read is checked by who reads it.
func (s *Store) readable(id string) (*meta, error) {
	m, err := s.readMeta(id)
	if !errors.Is(err, coldstore.ErrIntegrity) {
		return m, err
	}
	info, lerr := os.Lstat(s.archivePath(id))
	if lerr != nil || !info.Mode().IsRegular() || info.Size() == 0 {
		return nil, err
	}
	return &meta{ID: id, Size: info.Size()}, nil
}

// Stat tells of one archive. ErrIntegrity: it is there, but damaged.
func (s *Store) Stat(ctx context.Context, archive string) (coldstore.Archive, error) {
	a, err := s.stat(ctx, archive)
	if err != nil {
		return coldstore.Archive{}, fmt.Errorf("stat archive %s: %w", archive, err)
	}
	return a, nil
}

func (s *Store) stat(ctx context.Context, archive string) (coldstore.Archive, error) {
	if err := ctx.Err(); err != nil {
		return coldstore.Archive{}, err
	}
	if err := checkName(archive); err != nil {
		return coldstore.Archive{}, err
	}
	m, err := s.readMeta(archive)
	if err != nil {
		return coldstore.Archive{}, err
	}
	if err := s.checkData(m); err != nil {
		return coldstore.Archive{}, err
	}
	return m.archive(), nil
}

// checkData says whether an archive's data is there, in its whole length.
func (s *Store) checkData(m *meta) error {
	path := s.archivePath(m.ID)
	info, err := os.Lstat(path)
	if isAbsent(err) {
		if _, err := os.Lstat(s.metaPath(m.ID)); isAbsent(err) {
			return s.notFound() // deleted in between
		}
		return coldstore.Damagef("the data %s is missing", path)
	}
	if err != nil {
		return unreadable(err)
	}
	if !info.Mode().IsRegular() || info.Size() != m.Size {
		return coldstore.Damagef("the data %s has %d bytes instead of %d", path, info.Size(), m.Size)
	}
	return nil
}

// List calls fn for every archive whose meta file can be read and whose data has its
// length. Those that are damaged are told in the error, ErrIntegrity, after all others were listed. What is
// made or deleted meanwhile may be listed or not.
func (s *Store) List(ctx context.Context, fn func(coldstore.Archive) error) (time.Time, error) {
	asOf := s.now()
	var damage coldstore.ListDamage
	err := s.walkMeta(ctx, func(id string) error {
		m, err := s.readMeta(id)
		if err == nil {
			err = s.checkData(m)
		}
		switch {
		case err == nil:
			return fn(m.archive())
		case errors.Is(err, coldstore.ErrNotFound):
			return nil
		case ctx.Err() != nil:
			return err
		}
		err = fmt.Errorf("list archive %s: %w", id, err)
		if m == nil && ctx.Err() == nil {
			if left, lerr := s.readable(id); lerr == nil {
				err = &coldstore.DamagedArchive{Archive: left.archive(), Err: err}
			}
		}
		damage.All = append(damage.All, err)
		return nil
	})
	if err != nil {
		return time.Time{}, err
	}
	if len(damage.All) > 0 {
		return asOf, &damage
	}
	return asOf, nil
}

// walkMeta calls fn with the id of every meta file. Directories are read in
// pieces, so that memory does not grow with the vault.
func (s *Store) walkMeta(ctx context.Context, fn func(id string) error) error {
	return walk(ctx, filepath.Join(s.root, metaDir), "", func(rel string) error {
		id, is := strings.CutSuffix(rel, metaSuffix)
		if !is || checkName(id) != nil {
			return nil // a temporary file, or something of another's
		}
		return fn(id)
	})
}

// walk calls fn with the slash-separated path of every file below dir/rel.
// dir itself must be there; what vanishes below it is passed over.
func walk(ctx context.Context, dir, rel string, fn func(rel string) error) error {
	f, err := os.Open(filepath.Join(dir, filepath.FromSlash(rel)))
	if err != nil {
		if rel != "" && isAbsent(err) {
			return nil
		}
		return fmt.Errorf("list %s: %w", dir, err)
	}
	defer f.Close()
	for {
		entries, readErr := f.ReadDir(1000)
		for _, e := range entries {
			if err := ctx.Err(); err != nil {
				return fmt.Errorf("list %s: %w", dir, err)
			}
			path := e.Name()
			if rel != "" {
				path = rel + "/" + path
			}
			if e.IsDir() {
				err = walk(ctx, dir, path, fn)
			} else {
				err = fn(path)
			}
			if err != nil {
				return err
			}
		}
		if errors.Is(readErr, io.EOF) {
			return nil
		}
		if readErr != nil {
			return fmt.Errorf("list %s: %w", dir, readErr)
		}
	}
}

// Delete deletes an archive, a damaged one too. It is gone, durably, when its meta file is.
func (s *Store) Delete(ctx context.Context, archive string) error {
	if err := s.delete(ctx, archive); err != nil {
		return fmt.Errorf("delete archive %s: %w", archive, err)
	}
	return nil
}

func (s *Store) delete(ctx context.Context, archive string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := checkName(archive); err != nil {
		return err
	}
	unlock, err := s.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	m, err := s.readMeta(archive)
	if err != nil && !errors.Is(err, coldstore.ErrIntegrity) {
		return err
	}
	if m != nil && snapshot.ValidID(m.Upload) {
		// Without its upload nobody can take the data for that of a
		// completion that was cut short, and make it an archive again.
		if err := s.removeUpload(m.Upload, nil); err != nil {
			return err
		}
	}
	s.at("upload forgotten")
	id, err := snapshot.NewID(s.now(), rand.Reader)
	if err != nil {
		return err
	}
	path := s.metaPath(archive)
	record := filepath.Join(s.root, deletingDir, id+metaSuffix)
	if err := os.Rename(path, record); err != nil {
		return err
	}
	s.at("meta removed")
	if err := durable.SyncDir(filepath.Dir(path)); err != nil {
		return err
	}
	s.at("removal synced")
	return s.finishDelete(archive, record)
}

// finishDelete removes what a deleted archive leaves. The record in deleting/
// goes last: while it is there, Tidy knows that the data is no archive's that lost its meta file.
func (s *Store) finishDelete(archive, record string) error {
	if err := removeIfThere(s.archivePath(archive)); err != nil {
		return err
	}
	s.at("data removed")
	s.removeEmptyParents(archive)
	return removeIfThere(record)
}

// removeEmptyParents removes the directories that an archive lay in, as far as they are empty now.
func (s *Store) removeEmptyParents(archive string) {
	for {
		i := strings.LastIndexByte(archive, '/')
		if i < 0 {
			return
		}
		archive = archive[:i]
		// Not empty, or not there: either is as it should be.
		errMeta := os.Remove(filepath.Join(s.root, metaDir, filepath.FromSlash(archive)))
		errData := os.Remove(s.archivePath(archive))
		if errMeta != nil && errData != nil {
			return
		}
	}
}

func removeIfThere(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ENOTDIR) {
		return err
	}
	return nil
}

package localdir

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/internal/snapshot"
)

// repeatable is how long at least the log of a completed upload stays.
const repeatable = 24 * time.Hour

// Tidied tells what Tidy did.
type Tidied struct {
	Uploads    int // open ones that were aborted
	Completed  int // logs of completed ones, removed
	Retrievals int // expired ones, removed
	Leftovers  int // other files of operations that were cut short, removed

	// Unexplained are files in archives/ without a meta file, of which nothing
	// tells how they came there. They are left alone: one may be an archive whose meta file was lost.
	Unexplained []string
}

// Tidy removes what operations that were cut short have left, and what nobody needs any more: open uploads
// to which nothing was added for olderThan, the logs of uploads completed longer ago than that (and than a
// day), expired retrievals. Work that is going on is not disturbed, provided that olderThan is longer than
// any pause of an upload that is to be continued.
func (s *Store) Tidy(ctx context.Context, olderThan time.Duration) (Tidied, error) {
	var t Tidied
	for _, do := range []func(context.Context, time.Duration, *Tidied) error{
		s.tidyUploads, s.tidyRetrievals, s.tidyTrees,
	} {
		if err := do(ctx, olderThan, &t); err != nil {
			return t, fmt.Errorf("tidy vault %s: %w", s.root, err)
		}
	}
	return t, nil
}

func (s *Store) tidyUploads(ctx context.Context, olderThan time.Duration, t *Tidied) error {
	return s.walkUploads(ctx, func(id string) error {
		u, log, release, err := s.holdUpload(ctx, id)
		if errors.Is(err, coldstore.ErrNotFound) {
			return s.tidyHalfUpload(ctx, id, t)
		}
		if err != nil {
			return err
		}
		defer release()
		open, err := s.isOpen(u)
		if err != nil {
			return err
		}
		idle := s.now().Sub(u.last)
		switch {
		case open && idle > olderThan:
			t.Uploads++
			return s.dropUpload(ctx, u, log)
		case !open && idle > max(olderThan, repeatable):
			t.Completed++
			return s.removeUpload(id, log)
		}
		if !open || !u.deferring() {
			s.forget(id) // whoever works at it reads its log again
		}
		return nil
	})
}

// tidyHalfUpload removes an upload without a readable log. Whoever makes or removes one holds the vault,
// so that it is nobody's any more.
func (s *Store) tidyHalfUpload(ctx context.Context, id string, t *Tidied) error {
	unlock, err := s.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	if _, err := s.peekUpload(id); !errors.Is(err, coldstore.ErrNotFound) {
		return err
	}
	t.Leftovers++
	return removeRest(s.uploadDir(id))
}

func (s *Store) tidyRetrievals(ctx context.Context, _ time.Duration, t *Tidied) error {
	unlock, err := s.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	dir := filepath.Join(s.root, retrievalsDir)
	err = walk(ctx, dir, "", func(rel string) error {
		id, is := strings.CutSuffix(filepath.Base(rel), metaSuffix)
		if !is || !snapshot.ValidID(id) {
			return nil
		}
		r, err := s.readRetrieval(strings.TrimSuffix(strings.Replace(rel, "/", ".", 1), metaSuffix))
		if err != nil && !errors.Is(err, coldstore.ErrExpired) {
			return err
		}
		if err == nil && s.now().Before(r.Expires) {
			return nil
		}
		t.Retrievals++
		return removeIfThere(filepath.Join(dir, filepath.FromSlash(rel)))
	})
	if err != nil {
		return err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		os.Remove(filepath.Join(dir, e.Name())) // as far as they are empty
	}
	return nil
}

// tidyTrees looks through archives/, meta/ and deleting/. Whoever writes there holds the vault.
func (s *Store) tidyTrees(ctx context.Context, _ time.Duration, t *Tidied) error {
	unlock, err := s.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	if err := s.tidyDeleting(ctx, t); err != nil {
		return err
	}
	err = walk(ctx, filepath.Join(s.root, metaDir), "", func(rel string) error {
		if isTemp(filepath.Base(rel)) {
			t.Leftovers++
			return removeIfThere(filepath.Join(s.root, metaDir, filepath.FromSlash(rel)))
		}
		return nil
	})
	if err != nil {
		return err
	}
	return walk(ctx, filepath.Join(s.root, archivesDir), "", func(id string) error {
		if _, err := os.Lstat(s.metaPath(id)); !isAbsent(err) {
			return err
		}
		claimed, err := s.claimed(ctx, id)
		if err == nil && !claimed {
			t.Unexplained = append(t.Unexplained, s.archivePath(id))
		}
		return err
	})
}

// tidyDeleting finishes deletions that were cut short.
func (s *Store) tidyDeleting(ctx context.Context, t *Tidied) error {
	dir := filepath.Join(s.root, deletingDir)
	return walk(ctx, dir, "", func(rel string) error {
		record := filepath.Join(dir, filepath.FromSlash(rel))
		text, err := os.ReadFile(record)
		if err != nil {
			return err
		}
		t.Leftovers++
		var m meta
		if json.Unmarshal(text, &m) != nil || checkName(m.ID) != nil {
			return removeIfThere(record)
		}
		if _, err := os.Lstat(s.metaPath(m.ID)); !isAbsent(err) {
			if err != nil {
				return err
			}
			return removeIfThere(record) // there is a new archive of that name
		}
		claimed, err := s.claimed(ctx, m.ID)
		if err != nil {
			return err
		}
		if claimed {
			return removeIfThere(record)
		}
		return s.finishDelete(m.ID, record)
	})
}

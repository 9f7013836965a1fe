package itemstore

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/firn-backup/firn/internal/catalog"
	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/internal/failure"
	"github.com/firn-backup/firn/internal/transfer"
	"github.com/firn-backup/firn/internal/units"
)

// outOfReach is after how many deletions in a row that had no answer the others are not tried.
const outOfReach = 5

// Deleting says what may be deleted, and who is told of it. All functions are needed.
type Deleting struct {
	Early  bool // before the vault's minimum storage duration is over, which may be charged for
	Shrunk bool // also of a directory that has lost most of its files since
	// Deleted is told of each that is deleted, Kept of each that is kept since what took its place has less in it, and Failed of each that the
	// vault refuses to delete.
	Deleted func(catalog.Item)
	Kept    func(path, reason string)
	Failed  func(path string, err error)
}

// Delete deletes the archives of versions that are not current any more, if they are old enough: those younger than the vault's minimum
// storage duration, or locked, are counted. Before that the versions that took their place are seen to be told of in the vault. One that
// cannot be deleted does not stop the others.
func (s *Session) Delete(ctx context.Context, d Deleting) (young int64, err error) {
	if ok, err := s.told(ctx); err != nil || !ok {
		return 0, errors.Join(err, unless(ok, "what was stored last is not told of in the vault yet: nothing is deleted"))
	}
	days := time.Duration(s.o.Store.Traits().KeptDays(d.Early)) * 24 * time.Hour
	unanswered := 0
	err = s.o.Catalog.Items(ctx, s.o.Set.ID, catalog.ItemQuery{Ended: true}, func(i catalog.Item) error {
		if i.Vault != s.o.Vault || i.Snapshot != "" {
			return nil
		}
		if s.o.Now().Before(i.Stored.Add(days)) {
			young++
			return nil
		}
		reason, err := s.worse(ctx, &i, d.Shrunk)
		if err != nil {
			return err
		}
		if reason != "" {
			d.Kept(i.Path, reason)
			return nil
		}
		err = s.delete(ctx, i.Archive.Archive)
		var locked *coldstore.LockedError
		switch {
		case err == nil:
			unanswered = 0
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case errors.As(err, &locked):
			young++
			return nil
		case errors.Is(err, coldstore.ErrTemporary), errors.Is(err, coldstore.ErrThrottled), errors.Is(err, coldstore.ErrInDoubt):
			if unanswered++; unanswered >= outOfReach {
				return fmt.Errorf("delete archive %s of %s: %w", i.Archive.Archive, i.Path, err)
			}
			fallthrough
		default:
			d.Failed(i.Path, fmt.Errorf("delete its archive %s: %w", i.Archive.Archive, err))
			return nil
		}
		if err := s.o.Catalog.ItemDeleted(ctx, i, s.o.Now()); err != nil {
			return err
		}
		d.Deleted(i)
		return nil
	})
	if err != nil {
		return young, err
	}
	return young, s.dropIndexes(ctx, d.Early, days)
}

// fewFiles is how many files a directory may lose all but one of: that happens.
const fewFiles = 10

// worse is why a version is better than what took its place; empty: it is not. What a directory has lost may be on a disk that fails, or is not
// mounted.
func (s *Session) worse(ctx context.Context, i *catalog.Item, shrunk bool) (string, error) {
	if !i.Dir {
		return "", nil
	}
	now, err := s.o.Catalog.CurrentItem(ctx, s.o.Set.ID, i.Path)
	switch {
	case failure.KindOf(err) == failure.NotFound:
		return "", nil
	case err != nil || !now.Dir:
		return "", err
	case now.Torn:
		return "what is stored since is not whole", nil
	case shrunk:
		return "", nil
	case now.Files == 0 && (i.Files > 0 || i.Bare):
		return "it is empty now", nil
	case i.Files >= fewFiles && now.Files*2 < i.Files:
		return fmt.Sprintf("it has %s now and had %d", units.Count(now.Files, "file"), i.Files), nil
	}
	return "", nil
}

// delete deletes an archive; one that is not there is deleted, and an item without one too.
func (s *Session) delete(ctx context.Context, archive string) error {
	if archive == "" {
		return nil
	}
	err := transfer.Retry(ctx, s.o.Transfer, func() error { return s.o.Store.Delete(ctx, archive) })
	if errors.Is(err, coldstore.ErrNotFound) {
		return nil
	}
	return err
}

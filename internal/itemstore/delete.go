package itemstore

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/firn-backup/firn/internal/catalog"
	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/internal/transfer"
)

// outOfReach is after how many deletions in a row that had no answer the others are not tried.
const outOfReach = 5

// Delete deletes the archives of versions that are not current any more, if they are old enough: those younger than the vault's minimum
// storage duration, or locked, are counted. Before that the versions that took their place are seen to be told of in the vault. deleted is told
// of each, and failed of each that the vault refuses to delete, which does not stop the others.
func (s *Session) Delete(ctx context.Context, early bool, deleted func(catalog.Item), failed func(path string, err error)) (young int64, err error) {
	if ok, err := s.told(ctx); err != nil || !ok {
		return 0, errors.Join(err, unless(ok, "what was stored last is not told of in the vault yet: nothing is deleted"))
	}
	days := time.Duration(s.o.Store.Traits().KeptDays(early)) * 24 * time.Hour
	unanswered := 0
	err = s.o.Catalog.Items(ctx, s.o.Set.ID, catalog.ItemQuery{Ended: true}, func(i catalog.Item) error {
		if i.Vault != s.o.Vault || i.Snapshot != "" {
			return nil
		}
		if s.o.Now().Before(i.Stored.Add(days)) {
			young++
			return nil
		}
		err := s.delete(ctx, i.Archive.Archive)
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
			failed(i.Path, fmt.Errorf("delete its archive %s: %w", i.Archive.Archive, err))
			return nil
		}
		if err := s.o.Catalog.ItemDeleted(ctx, i, s.o.Now()); err != nil {
			return err
		}
		deleted(i)
		return nil
	})
	if err != nil {
		return young, err
	}
	return young, s.dropIndexes(ctx, early, days)
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

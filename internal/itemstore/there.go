package itemstore

import (
	"context"
	"errors"
	"fmt"

	"github.com/firn-backup/firn/internal/catalog"
	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/internal/failure"
)

// ErrLost says that the vault does not have what the catalog says that it has: what is not stored again would be nowhere.
var ErrLost = errors.New("what was stored is not in the vault any more")

// There looks, by one archive that should be there, whether the vault is the one that the catalog means: one that was
// made anew, emptied or put back from an older copy is found out so. Single archives are what verify looks for. A vault that cannot tell,
// or is out of reach at the moment, says nothing. Catalog and store may be nil.
func There(ctx context.Context, o Options) error {
	s, tells := o.Store.(coldstore.Stater)
	if !tells || o.Catalog == nil {
		return nil
	}
	look := func(archive, what string) error {
		_, err := s.Stat(ctx, archive)
		if errors.Is(err, coldstore.ErrNotFound) || errors.Is(err, coldstore.ErrIntegrity) {
			return failure.Wrap(failure.Damaged, fmt.Errorf("set %s: %w: %s: %w", o.Set.Name, ErrLost, what, err))
		}
		return nil
	}
	stop := errors.New("stop")
	var one catalog.Item
	err := o.Catalog.Items(ctx, o.Set.ID, catalog.ItemQuery{}, func(i catalog.Item) error {
		if i.Vault != o.Vault || i.Archive.Archive == "" || !i.Deleted.IsZero() {
			return nil
		}
		one = i
		return stop
	})
	if err != nil && !errors.Is(err, stop) {
		return err
	}
	if one.Path != "" {
		return look(one.Archive.Archive, one.Path)
	}
	return nil
}

// forgetIndexes makes up for indexes that are known to be gone.
func (s *Session) forgetIndexes(ctx context.Context) error {
	runs, err := s.o.Catalog.ItemRuns(ctx, s.o.Set.ID)
	if err != nil {
		return err
	}
	indexed := false
	for _, r := range runs {
		if r.Index.Archive == "" || r.IndexGone || r.Vault != s.o.Vault {
			continue
		}
		indexed = true
		by, err := s.o.Catalog.NeededBy(ctx, r.Vault, r.Index.Archive)
		if err == nil && by == "" { // not even the run that stored it needs it
			err = s.o.Catalog.ItemsUnlisted(ctx, r)
		}
		if err != nil {
			return err
		}
	}
	if indexed || !s.o.Store.Traits().Terse {
		return nil
	}
	// What earlier versions of Firn described here nobody can read: an index is to tell of it.
	for _, r := range runs {
		if r.Vault == s.o.Vault {
			if err := s.o.Catalog.ItemsUnlisted(ctx, r); err != nil {
				return err
			}
		}
	}
	return nil
}

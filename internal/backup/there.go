package backup

import (
	"context"
	"errors"
	"fmt"

	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/internal/failure"
)

// ErrBaseLost says that the vault does not have, or not whole, the snapshot that
// an incremental would build on: what it does not store again would be nowhere.
var ErrBaseLost = errors.New("the snapshot that this one would build on is not in the vault any more")

// baseThere looks whether the vault still has the base's manifest, or what another program stored, if it can tell. A vault that was emptied,
// made anew or put back from an older copy is found out so; single volumes are what verify looks for.
func (r *run) baseThere(ctx context.Context) error {
	if r.base == nil {
		return nil
	}
	archive := r.base.ManifestPart.Archive
	if r.base.Adopted != "" { // it has none, and one volume
		v, err := r.o.Catalog.Volume(ctx, r.base.ID, 1)
		if err != nil {
			return err
		}
		archive = v.Archive
	}
	err := r.there(ctx, archive)
	if _, tells := r.o.Store.(coldstore.Stater); err == nil && !tells && archive != "" { // then at least what was deleted here is known
		a, kerr := r.o.Catalog.ArchiveByID(ctx, r.base.Vault, archive)
		if kerr == nil && !a.DeletedAt.IsZero() {
			err = fmt.Errorf("archive %s was deleted here: %w", archive, coldstore.ErrNotFound)
		}
	}
	if err == nil {
		return nil
	}
	return failure.Wrap(failure.Damaged, fmt.Errorf("set %s: %w: snapshot %s: %w", r.o.Set.Name, ErrBaseLost, r.base.ID, err))
}

// attemptThere says whether all volumes that an attempt has stored are in the vault, if it can tell.
func (r *run) attemptThere(ctx context.Context, snap string) (bool, error) {
	vols, err := r.o.Catalog.Volumes(ctx, snap)
	if err != nil {
		return false, err
	}
	for _, v := range vols {
		if v.Archive != "" && r.there(ctx, v.Archive) != nil {
			return false, nil
		}
	}
	return true, ctx.Err()
}

// there is an error when the vault says that an archive is missing or damaged. A vault
// that cannot tell, or is out of reach at the moment, says nothing of the kind.
func (r *run) there(ctx context.Context, archive string) error {
	s, ok := r.o.Store.(coldstore.Stater)
	if !ok || archive == "" {
		return nil
	}
	_, err := s.Stat(ctx, archive)
	if errors.Is(err, coldstore.ErrNotFound) || errors.Is(err, coldstore.ErrIntegrity) {
		return err
	}
	return nil
}

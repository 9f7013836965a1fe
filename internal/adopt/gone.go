package adopt

import (
	"context"
	"slices"
	"time"

	"github.com/firn-backup/firn/internal/adopted"
	"github.com/firn-backup/firn/internal/catalog"
	"github.com/firn-backup/firn/internal/units"
)

// dropGone leaves out what is not in the vault any more: archives that the catalog does not know, though a listing that it took in is days younger than
// they are. They were deleted by whomever; recorded again they would be missed by each further listing. Those of which nobody says when they
// were stored stay.
func (f *Found) dropGone(ctx context.Context, db *catalog.DB) error {
	vaults := map[string][]int{} // where their archives are in f.Archives
	for i := range f.Archives {
		if a := &f.Archives[i]; a.DeletedAt.IsZero() && !a.Created.IsZero() {
			vaults[a.Vault] = append(vaults[a.Vault], i)
		}
	}
	gone := map[string]map[string]bool{}
	for vault, at := range vaults {
		listed, err := db.LastListing(ctx, vault)
		if err != nil {
			return err
		}
		if listed.Archives == 0 { // never listed, or made by this catalog's owner, who may have been told so by a service that had it
			continue
		}
		ids := map[string]bool{}
		for _, i := range at {
			if a := &f.Archives[i]; a.Created.AddDate(0, 0, listLag).Before(listed.AsOf) {
				ids[a.ID] = true
			}
		}
		err = db.FindArchives(ctx, vault, func(r catalog.ArchiveRecord) bool {
			delete(ids, r.ID)
			return false
		}, nil)
		if err != nil {
			return err
		}
		if len(ids) > 0 {
			f.notice("%s of it left out: the listing of %s as of %s has no such any more", units.Count(len(ids), "archive"), vault,
				listed.AsOf.UTC().Format(time.RFC3339))
			gone[vault] = ids
		}
	}
	if len(gone) == 0 {
		return nil
	}
	f.Archives = slices.DeleteFunc(f.Archives, func(a catalog.ArchiveRecord) bool { return gone[a.Vault][a.ID] && a.DeletedAt.IsZero() })
	for i := range f.Sets {
		s := &f.Sets[i]
		s.Items = slices.DeleteFunc(s.Items, func(it catalog.Item) bool { return gone[s.Vault][it.Archive.Archive] })
		s.Rows = slices.DeleteFunc(s.Rows, func(r adopted.Row) bool { return gone[s.Vault][r.Archive.ID] })
	}
	return nil
}

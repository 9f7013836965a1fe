package adopt

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/firn-backup/firn/internal/adopted"
	"github.com/firn-backup/firn/internal/catalog"
	"github.com/firn-backup/firn/internal/failure"
)

// snapshots records what another program stored as snapshots of a set, but for what is known to be there no more.
func (r *recorder) snapshots(ctx context.Context, s *Set, mine catalog.Set) (added int64, err error) {
	listed, err := r.db.LastListing(ctx, mine.Vault)
	if err != nil {
		return 0, err
	}
	rows := make([]adopted.Row, 0, len(s.Rows))
	for _, row := range s.Rows {
		a, err := r.db.ArchiveByID(ctx, mine.Vault, row.Archive.ID)
		if err != nil && failure.KindOf(err) != failure.NotFound {
			return 0, err
		}
		doomed, derr := r.db.IsDoomed(ctx, mine.Vault, row.Archive.ID)
		if derr != nil {
			return 0, derr
		}
		switch known := err == nil; {
		case known && !a.DeletedAt.IsZero() || doomed:
			r.notice("the archive of %s was deleted here: it is left out", row.Date)
			continue
		case known && !listed.AsOf.IsZero() && !a.SeenAsOf.Equal(listed.AsOf) && listed.AsOf.After(adopted.Midnight(row.Date, r.zone).AddDate(0, 0, listLag)):
			r.notice("the archive of %s is not in the vault's listing of %s: it is left out", row.Date, listed.AsOf.UTC().Format(time.RFC3339))
			continue
		case known && !a.SeenAsOf.IsZero():
			row.Archive.Created = a.Created
		}
		rows = append(rows, row)
	}
	list, err := adopted.Chain(mine, r.zone, rows)
	if err != nil {
		return 0, failure.Wrap(failure.Damaged, err)
	}
	if added, err = r.db.AdoptSnapshots(ctx, list); err != nil {
		return added, err
	}
	return added, r.dropOthers(ctx, mine, list)
}

// listLag is how many days after a snapshot's date a listing surely has its archive: an upload may take a day, and an inventory one or two more.
const listLag = 5

// dropOthers forgets sets that were made by an earlier adoption of the same archives under another name, and in which nothing was ever stored: an
// archive should expire by the rules of one set.
func (r *recorder) dropOthers(ctx context.Context, mine catalog.Set, list []catalog.Adopted) error {
	ours := map[string]bool{}
	for i := range list {
		ours[list[i].Archive.Archive] = true
	}
	sets, err := r.db.Sets(ctx)
	if err != nil {
		return err
	}
	for _, s := range sets {
		if _, configured := r.known.Sets[s.Name]; s.ID == mine.ID || configured || s.Host != mine.Host || s.Vault != mine.Vault || !isStream(s.Kind) {
			continue
		}
		snaps, err := r.db.Snapshots(ctx, s.ID)
		if err != nil {
			return err
		}
		same := len(snaps) > 0 || s.Label == adopted.Btrsend // an earlier version knew no snapshots of it
		for _, x := range snaps {
			vols, err := r.db.Volumes(ctx, x.ID)
			if err != nil {
				return err
			}
			same = same && x.Adopted != "" && len(vols) == 1 && ours[vols[0].Archive]
		}
		if !same {
			continue
		}
		if err := r.db.RemoveSet(ctx, s.ID); err != nil {
			return err
		}
		r.notice("set %s had nothing else than these archives: they are set %s now", s.Name, mine.Name)
	}
	return nil
}

func (r *recorder) notice(format string, args ...any) {
	if text := fmt.Sprintf(format, args...); !slices.Contains(r.notices, text) {
		r.notices = append(r.notices, text)
	}
}

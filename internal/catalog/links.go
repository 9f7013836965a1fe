package catalog

import (
	"context"

	"github.com/firn-backup/firn/internal/snapshot"
)

// LinkLeader returns the first name, in path order, of a link group that the
// snapshot or attempt itself put; what an EntryWriter has not flushed yet is
// not seen. found is false when there is none.
func (d *DB) LinkLeader(ctx context.Context, snap, group string) (e snapshot.Entry, found bool, err error) {
	v, err := d.view(ctx, d.b.Read, snap)
	if err != nil {
		return e, false, d.fail("find a link", err)
	}
	// The plus keeps SQLite, which knows nothing of how many rows there are, from going through the
	// whole chain by the primary key instead of using the index of link groups.
	page, err := d.page(ctx, 1, false, `SELECT `+rowColumns+` FROM entries e WHERE +e.chain = $1 AND e.n = $2
		AND e.grp = $3 ORDER BY e.path LIMIT 1`, v.chain, v.n, blob(group))
	if err != nil || len(page) == 0 {
		return e, false, d.fail("find a link of "+snap, err)
	}
	e, err = page[0].Entry()
	return e, err == nil, err
}

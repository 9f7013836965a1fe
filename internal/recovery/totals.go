package recovery

import (
	"context"
	"errors"

	"github.com/firn-backup/firn/internal/catalog"
	"github.com/firn-backup/firn/internal/manifest"
	"github.com/firn-backup/firn/internal/snapshot"
)

// counting sums up what a snapshot holds. For an incremental, what changes is looked up in its
// base; when that is much, the whole tree is counted in the end instead.
type counting struct {
	r       *run
	base    *catalog.Snapshot // nil: a full one
	stream  bool              // a producer's: no entries, and as large as it is
	t       catalog.Totals
	lookups int
	count   bool // the tree at the end

	volumes, gone int // of the snapshot, and those that the vault does not have
}

// maxLookups is how many changes are looked up, at some milliseconds each at worst.
const maxLookups = 500

func (c *counting) volume(v *manifest.Volume) {
	c.volumes++
	c.t.Raw += v.Raw
	c.t.Stored += v.Size
}

func (c *counting) put(ctx context.Context, e *snapshot.Entry) error {
	c.t.Changed++
	c.t.Entries++
	c.t.Bytes += e.Size
	return c.without(ctx, e.Path)
}

func (c *counting) delete(ctx context.Context, path string) error {
	c.t.Deleted++
	return c.without(ctx, path)
}

var errFound = errors.New("found")

// without takes off what the base has at path.
func (c *counting) without(ctx context.Context, path string) error {
	if c.base == nil || c.count {
		return nil
	}
	if c.lookups++; c.lookups > maxLookups {
		c.count = true
		return nil
	}
	err := c.r.o.Catalog.Entries(ctx, c.base.ID, catalog.Query{Under: []string{path}}, func(e snapshot.Entry) error {
		if e.Path == path {
			c.t.Entries--
			c.t.Bytes -= e.Size
		}
		return errFound
	})
	if errors.Is(err, errFound) {
		return nil
	}
	return err
}

func (c *counting) totals(ctx context.Context, snap string, manifestSize int64) (catalog.Totals, error) {
	c.t.Stored += manifestSize
	switch {
	case c.stream:
		c.t.Bytes = c.t.Raw
	case c.base == nil:
	case !c.count:
		c.t.Entries += c.base.Totals.Entries
		c.t.Bytes += c.base.Totals.Bytes
	default:
		c.t.Entries, c.t.Bytes = 0, 0
		rows, err := c.r.o.Catalog.Rows(ctx, snap, "")
		if err != nil {
			return c.t, err
		}
		defer rows.Close()
		for {
			row, err := rows.Next(ctx)
			if err != nil || row == nil {
				return c.t, err
			}
			c.t.Entries++
			c.t.Bytes += row.Size
		}
	}
	return c.t, nil
}

package cli

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/firn-backup/firn/internal/catalog"
	"github.com/firn-backup/firn/internal/snapshot"
	"github.com/firn-backup/firn/internal/units"
)

func newDiff(c *command) *cobra.Command {
	return &cobra.Command{
		Use:         "diff SET@A [SET@B]",
		Annotations: lists(),
		Short:       "Show what differs between two snapshots",
		Long: `Show what differs between two snapshots: + new, - gone, C content changed,
T another type, m only owner, mode, times or the like changed. Nothing is read from the vault.
Without SET@B, the newest snapshot is compared. @B alone is one of the same set.
Of a mirror, or a set of items, it is what was stored of it at either time.`,
		Example: example("firn diff Documents@2026-11-01 Documents@2026-11-08", "firn diff Documents@2026-11-01 @latest"),
		Args:    args(1, 2, "one or two snapshots"),
		RunE: func(cmd *cobra.Command, args []string) error {
			a, err := c.open(cmd)
			if err != nil {
				return err
			}
			ctx := cmd.Context()
			if single, err := c.diffItems(ctx, a, args); single || err != nil {
				return err
			}
			setA, snapA, err := a.FindSnapshot(ctx, args[0])
			if err != nil {
				return err
			}
			b := setA.ID
			if len(args) == 2 {
				b = args[1]
				if strings.HasPrefix(b, "@") {
					b = setA.ID + b
				}
			}
			setB, snapB, err := a.FindSnapshot(ctx, b)
			if err != nil {
				return err
			}
			if err := errors.Join(notStream(setA, snapA, "nothing of it can be compared"), notStream(setB, snapB, "nothing of it can be compared")); err != nil {
				return err
			}
			c.talk("from %s", c.where(setA, snapA))
			c.talk("to   %s", c.where(setB, snapB))
			db, err := a.Catalog(ctx, false)
			if err != nil {
				return err
			}
			return c.diff(func(fn differs) error {
				return merge(ctx, db, snapA.ID, snapB.ID, func(x, y *snapshot.Entry) error { return fn(compare(x, y), x, y) })
			})
		},
	}
}

// difference is what differs between two entries of one path.
type difference byte

const (
	same     difference = 0
	added    difference = '+'
	removed  difference = '-'
	content  difference = 'C'
	retyped  difference = 'T'
	metadata difference = 'm'
)

func (d difference) word() string {
	return map[difference]string{added: "added", removed: "removed", content: "content", retyped: "type", metadata: "metadata"}[d]
}

type jsonDiff struct {
	Change string     `json:"change"`
	Before *jsonEntry `json:"before,omitempty"`
	After  *jsonEntry `json:"after,omitempty"`
}

// differs is told of an entry before and after, nil where there is none, and how they differ.
type differs func(d difference, x, y *snapshot.Entry) error

// diff shows what each calls its argument with.
func (c *command) diff(each func(differs) error) error {
	list := c.array(jsonDiff{})
	counts := map[difference]int64{}
	var grown int64
	err := each(func(d difference, x, y *snapshot.Entry) error {
		if d == same {
			return nil
		}
		counts[d]++
		var j jsonDiff
		e, note := y, ""
		if x != nil {
			grown -= x.Size
			j.Before = entryJSON(x)
			e = x
		}
		if y != nil {
			grown += y.Size
			j.After = entryJSON(y)
			e = y
		}
		if d == content && x.Size != y.Size {
			note = "  (" + units.Size(x.Size) + " to " + units.Size(y.Size) + ")"
		}
		if c.json {
			j.Change = d.word()
			return list.add(j)
		}
		c.printf("%c %s%s\n", d, name(e), note)
		return c.failure()
	})
	if err != nil {
		return err
	}
	if c.json {
		list.close()
		return nil
	}
	sign := "+"
	if grown < 0 {
		sign = ""
	}
	c.talk("%s added, %s removed, %s with other content, %s of another type, %s with other metadata; %s%s",
		count(counts[added]), count(counts[removed]), count(counts[content]), count(counts[retyped]), count(counts[metadata]), sign, units.Size(grown))
	return nil
}

// merge calls fn with the entries of each path that either snapshot has, in
// path order, nil where one has it not.
func merge(ctx context.Context, db *catalog.DB, before, after string, fn func(x, y *snapshot.Entry) error) error {
	open := func(id string) (next func() (*snapshot.Entry, error), err error) {
		cur, err := db.Rows(ctx, id, "")
		if err != nil {
			return nil, err
		}
		return func() (*snapshot.Entry, error) {
			row, err := cur.Next(ctx)
			if err != nil || row == nil {
				return nil, errors.Join(err, cur.Close())
			}
			e, err := row.Entry()
			return &e, err
		}, nil
	}
	nextX, err := open(before)
	if err != nil {
		return err
	}
	nextY, err := open(after)
	if err != nil {
		return err
	}
	return mergeTwo(nextX, nextY, func(e *snapshot.Entry) string { return e.Path }, fn)
}

// mergeTwo is merge of any two lists in the order of paths; at their ends they give nil.
func mergeTwo[T any](nextX, nextY func() (*T, error), path func(*T) string, fn func(x, y *T) error) error {
	x, err := nextX()
	if err != nil {
		return err
	}
	y, err := nextY()
	for err == nil && (x != nil || y != nil) {
		order := 0
		switch {
		case x == nil:
			order = 1
		case y == nil:
			order = -1
		default:
			order = snapshot.ComparePaths(path(x), path(y))
		}
		a, b := x, y
		if order > 0 {
			a = nil
		}
		if order < 0 {
			b = nil
		}
		if err = fn(a, b); err != nil {
			break
		}
		if a != nil {
			x, err = nextX()
		}
		if b != nil && err == nil {
			y, err = nextY()
		}
	}
	return err
}

// compare tells what differs; nil is an entry that is not there.
func compare(x, y *snapshot.Entry) difference {
	switch {
	case x == nil:
		return added
	case y == nil:
		return removed
	case x.Type != y.Type:
		return retyped
	case x.Type == snapshot.File && !sameContent(x, y), x.Link != y.Link, x.Major != y.Major, x.Minor != y.Minor:
		return content
	case x.Mode != y.Mode, x.UID != y.UID, x.GID != y.GID, x.User != y.User, x.Group != y.Group, x.MTime != y.MTime,
		!slices.Equal(x.Xattrs, y.Xattrs), x.Torn != y.Torn:
		return metadata
	}
	return same
}

// sameContent compares by hash. A file that is sparse in one snapshot and not in
// the other is taken for changed: its stored forms cannot be compared.
func sameContent(x, y *snapshot.Entry) bool {
	a, b := x.Content, y.Content
	return x.Size == y.Size && a.IsZero() == b.IsZero() && a.Sparse == b.Sparse && bytes.Equal(a.SHA256[:], b.SHA256[:])
}

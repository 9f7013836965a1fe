package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"strings"

	"github.com/firn-backup/firn/internal/app"
	"github.com/firn-backup/firn/internal/catalog"
	"github.com/firn-backup/firn/internal/snapshot"
	"github.com/firn-backup/firn/internal/units"
)

// itemEntry is an item as lists of entries show it.
func itemEntry(i *catalog.Item) *snapshot.Entry {
	e := &snapshot.Entry{Path: i.Path, Type: snapshot.File, Mode: i.Mode, UID: i.UID, GID: i.GID, User: i.User, Group: i.Group, MTime: i.MTime, Size: i.Size(), Torn: i.Torn}
	if i.Dir {
		e.Type = snapshot.Dir
	}
	return e
}

// findItems finds versions of items that are archives of their own. What is in items in Firn's format is found as in any snapshot.
func (c *command) findItems(ctx context.Context, a *app.App, set catalog.Set, match func(string) bool, list *array) (int, error) {
	db, err := a.Catalog(ctx, false)
	if err != nil {
		return 0, err
	}
	runs, err := db.ItemRuns(ctx, set.ID)
	if err != nil || len(runs) == 0 {
		return 0, err
	}
	// last is the last run before number until; 0: the last of all.
	last := func(until uint64) catalog.ItemRun {
		for k := len(runs) - 1; k > 0; k-- {
			if until == 0 || runs[k].N < until {
				return runs[k]
			}
		}
		return runs[0]
	}
	in := func(r catalog.ItemRun) foundIn { return foundIn{r.ID, r.N, stampJSON(r.At)} }
	found := 0
	err = db.Items(ctx, set.ID, catalog.ItemQuery{All: true}, func(i catalog.Item) error {
		if i.Snapshot != "" || !match(i.Path) {
			return nil
		}
		found++
		from, to := last(i.N+1), last(i.Until)
		if c.json {
			return list.add(jsonFound{set.Name, set.ID, set.Host, entryJSON(itemEntry(&i)), in(from), in(to)})
		}
		span := c.stamp(from.At)
		if to.N != from.N {
			span += " to " + c.stamp(to.At)
		}
		gone := ""
		if !i.Deleted.IsZero() {
			gone = "; its archive was deleted " + c.stamp(i.Deleted)
		}
		c.printf("%s: %s  (%s, %s; in runs of %s%s)\n", clean(setLabel(a, set)), itemName(&i), units.Size(i.Size()), c.stamp(i.MTime.Time()), span, gone)
		return c.failure()
	})
	return found, err
}

// diffItems shows what differs between two runs of a set of single archives. ok is false where the arguments name none.
func (c *command) diffItems(ctx context.Context, a *app.App, args []string) (ok bool, err error) {
	set, from, ok, err := a.FindItems(ctx, args[0])
	if !ok || err != nil {
		return ok, err
	}
	b := set.ID
	if len(args) == 2 {
		if b = args[1]; strings.HasPrefix(b, "@") {
			b = set.ID + b
		}
	}
	other, to, ok, err := a.FindItems(ctx, b)
	if err != nil {
		return true, err
	}
	if !ok || other.ID != set.ID {
		return true, usage("%s is of set %s, which stores single archives, and %s is not: only runs of one such set can be compared", args[0], set.Name, b)
	}
	db, err := a.Catalog(ctx, false)
	if err != nil {
		return true, err
	}
	runs, err := db.ItemRuns(ctx, set.ID)
	if err != nil {
		return true, err
	}
	for k, n := range []uint64{from, to} {
		text := "now"
		for _, r := range runs {
			if r.N == n {
				text = fmt.Sprintf("run %d of %s (%s)", r.N, c.stamp(r.At), r.ID)
			}
		}
		c.talk("%s %s, %s", []string{"from", "to  "}[k], set.Name, text)
	}
	return true, c.diff(func(fn differs) error {
		nextX, stopX := itemsAt(ctx, db, set.ID, from)
		defer stopX()
		nextY, stopY := itemsAt(ctx, db, set.ID, to)
		defer stopY()
		return mergeTwo(nextX, nextY, func(i *catalog.Item) string { return i.Path }, func(x, y *catalog.Item) error {
			switch {
			case x == nil:
				return fn(added, nil, itemEntry(y))
			case y == nil:
				return fn(removed, itemEntry(x), nil)
			}
			return fn(compareItems(x, y), itemEntry(x), itemEntry(y))
		})
	})
}

// compareItems tells what differs between two versions of an item, as far as it is known.
func compareItems(x, y *catalog.Item) difference {
	switch {
	case x.N == y.N:
		return same
	case x.Dir != y.Dir:
		return retyped
	case x.Dir && len(x.Content) > 0 && bytes.Equal(x.Content, y.Content), !x.Dir && x.Plain == y.Plain && x.PlainHash == y.PlainHash:
		return metadata
	}
	return content
}

// itemsAt gives the versions that were current after a run one after the other, and nil at the end.
func itemsAt(ctx context.Context, db *catalog.DB, set string, at uint64) (next func() (*catalog.Item, error), stop func()) {
	end := errors.New("end")
	pull, stop := iter.Pull2(func(yield func(*catalog.Item, error) bool) {
		err := db.Items(ctx, set, catalog.ItemQuery{At: at}, func(i catalog.Item) error {
			if !yield(&i, nil) {
				return end
			}
			return nil
		})
		if err != nil && !errors.Is(err, end) {
			yield(nil, err)
		}
	})
	return func() (*catalog.Item, error) {
		i, err, _ := pull()
		return i, err
	}, stop
}

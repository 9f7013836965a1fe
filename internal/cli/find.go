package cli

import (
	"context"
	"path"
	"strings"

	"github.com/bmatcuk/doublestar/v4"
	"github.com/spf13/cobra"

	"github.com/firn-backup/firn/internal/app"
	"github.com/firn-backup/firn/internal/catalog"
	"github.com/firn-backup/firn/internal/config"
	"github.com/firn-backup/firn/internal/snapshot"
	"github.com/firn-backup/firn/internal/units"
)

func newFind(c *command) *cobra.Command {
	var sets []string
	var ignoreCase bool
	cmd := &cobra.Command{
		Use:         "find PATTERN",
		Annotations: lists(),
		Short:       "Find files in all snapshots",
		Long: `Find every version of the files, directories and links whose name matches a
pattern, in all snapshots, and say from which snapshot to which each version is
there; and the items that are archives of their own, by their names. The pattern is that of a shell: * ? [a-z] {a,b}. One with a slash is
matched against the whole path (without the leading slash, ** crosses
directories), another against the last name only. Nothing is read from the vault.`,
		Example: example("firn find 'letter*'", "firn find --set Documents '**/2025/*.odt'"),
		Args:    args(1, 1, "one pattern (in quotes)"),
		RunE: func(cmd *cobra.Command, args []string) error {
			a, err := c.open(cmd)
			if err != nil {
				return err
			}
			match, err := matcher(args[0], ignoreCase)
			if err != nil {
				return err
			}
			in, err := someSets(cmd.Context(), a, sets)
			if err != nil {
				return err
			}
			for _, s := range in {
				if len(sets) > 0 && config.IsStreamKind(s.Kind) {
					return usage("set %s holds streams, which have no list of files: nothing can be found in it", s.Name)
				}
			}
			return c.find(cmd.Context(), a, in, match)
		},
	}
	cmd.Flags().StringArrayVar(&sets, "set", nil, "look in this `SET` only; may be repeated")
	cmd.Flags().BoolVarP(&ignoreCase, "ignore-case", "i", false, "letters match in any case")
	return cmd
}

// matcher is a pattern as find takes it.
func matcher(pattern string, ignoreCase bool) (func(p string) bool, error) {
	whole := strings.Contains(pattern, "/")
	pattern = strings.TrimPrefix(pattern, "/")
	if ignoreCase {
		pattern = strings.ToLower(pattern)
	}
	if pattern == "" || !doublestar.ValidatePattern(pattern) {
		return nil, usage("%q is not a pattern", pattern)
	}
	return func(p string) bool {
		if !whole {
			p = path.Base(p)
		}
		if ignoreCase {
			p = strings.ToLower(p)
		}
		return doublestar.MatchUnvalidated(pattern, p)
	}, nil
}

// jsonFound is one version of an entry.
type jsonFound struct {
	Set   string `json:"set"`
	SetID string `json:"setid"`
	Host  string `json:"host"`
	*jsonEntry
	First foundIn `json:"first"`
	Last  foundIn `json:"last"`
}

type foundIn struct {
	Snapshot string  `json:"snapshot"`
	N        uint64  `json:"n"`
	At       *string `json:"at"`
}

func (c *command) find(ctx context.Context, a *app.App, sets []catalog.Set, match func(string) bool) error {
	list := c.array(jsonFound{})
	found := 0
	for _, set := range sets {
		db, err := a.Catalog(ctx, false)
		if err != nil {
			return err
		}
		snaps, err := db.Snapshots(ctx, set.ID)
		if err != nil {
			return err
		}
		byN := map[uint64]catalog.Snapshot{}
		for _, s := range snaps {
			byN[s.N] = s
		}
		in := func(n uint64) foundIn { return foundIn{byN[n].ID, n, stampJSON(byN[n].At)} }
		err = db.Find(ctx, set.ID, match, func(e snapshot.Entry, _ string, first, last uint64) error {
			found++
			if c.json {
				return list.add(jsonFound{set.Name, set.ID, set.Host, entryJSON(&e), in(first), in(last)})
			}
			span := c.stamp(byN[first].At)
			if last != first {
				span += " to " + c.stamp(byN[last].At)
			}
			what := units.Size(e.Size) + ", " + c.stamp(e.MTime.Time())
			if e.Type != snapshot.File {
				what = typeName(e.Type)
			}
			c.printf("%s: %s  (%s; in snapshots of %s)\n", clean(setLabel(a, set)), name(&e), what, span)
			return c.failure()
		})
		if err != nil {
			return err
		}
		n, err := c.findItems(ctx, a, set, match, list)
		if err != nil {
			return err
		}
		found += n
	}
	switch {
	case c.json:
		list.close()
	case found == 0:
		c.talk("nothing found")
	}
	return nil
}

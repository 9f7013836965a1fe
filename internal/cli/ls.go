package cli

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/firn-backup/firn/internal/app"
	"github.com/firn-backup/firn/internal/catalog"
	"github.com/firn-backup/firn/internal/snapshot"
)

type lsOptions struct {
	long, null, versions bool
	depth                int
}

func newLs(c *command) *cobra.Command {
	var o lsOptions
	cmd := &cobra.Command{
		Use:         "ls SET[@WHEN] [PATH…]",
		Annotations: lists(),
		Short:       "List what a snapshot holds",
		Long: `List the entries of a snapshot, or those at and below the given paths. Nothing is
read from the vault. In names, control characters and bytes that are not UTF-8
are shown as \n, \t and \xNN, and a backslash as two; --null and --json give
names as they are.`,
		Example: example("firn ls Documents", "firn ls Documents@2026-11-01 home/me/Documents -l", "firn ls Documents --depth 2"),
		Args:    args(1, -1, "a set, and paths"),
		RunE: func(cmd *cobra.Command, args []string) error {
			a, err := c.open(cmd)
			if err != nil {
				return err
			}
			return c.ls(cmd.Context(), a, args[0], args[1:], o)
		},
	}
	cmd.Flags().BoolVarP(&o.long, "long", "l", false, "show mode, owner, size and time")
	cmd.Flags().BoolVar(&o.versions, "versions", false, "of a set of items, or a mirror: list all versions that were stored")
	cmd.Flags().BoolVarP(&o.null, "null", "0", false, "end names with NUL, and show them as they are")
	cmd.Flags().IntVar(&o.depth, "depth", 0, "list at most so many levels below each path (default: all)")
	return cmd
}

func (c *command) ls(ctx context.Context, a *app.App, arg string, paths []string, o lsOptions) error {
	if set, at, ok, err := a.FindItems(ctx, arg); ok || err != nil {
		if err != nil {
			return err
		}
		return c.lsItems(ctx, a, set, at, paths, o)
	}
	set, snap, err := a.FindSnapshot(ctx, arg)
	if err != nil {
		return err
	}
	if err := notStream(set, snap, "nothing of it can be listed"); err != nil {
		return err
	}
	db, err := a.Catalog(ctx, false)
	if err != nil {
		return err
	}
	q := catalog.Query{}
	for _, p := range paths {
		found, err := a.EntryPath(ctx, snap, p)
		if err != nil {
			return err
		}
		if found == "" { // the root: everything
			q.Under = nil
			break
		}
		q.Under = append(q.Under, found)
	}
	list := c.array(jsonEntry{})
	err = db.Entries(ctx, snap.ID, q, func(e snapshot.Entry) error {
		switch {
		case o.depth > 0 && depthBelow(e.Path, q.Under) > o.depth:
			return nil
		case c.json:
			return list.add(entryJSON(&e))
		case o.null:
			c.printf("%s\x00", e.Path)
		case o.long:
			c.printf("%s\n", c.longLine(&e))
		default:
			c.printf("%s\n", name(&e))
		}
		return c.failure()
	})
	if err != nil {
		return err
	}
	if c.json {
		list.close()
	}
	if c.verbose {
		c.talk("%s", c.where(set, snap))
	}
	return nil
}

// depthBelow is how many levels a path lies below the listed path that holds it.
func depthBelow(path string, under []string) int {
	for _, u := range under {
		if snapshot.Below(path, u) {
			return strings.Count(path[len(u):], "/")
		}
	}
	return strings.Count(path, "/") + 1
}

func (c *command) longLine(e *snapshot.Entry) string {
	size := count(e.Size)
	if e.Type == snapshot.CharDev || e.Type == snapshot.BlkDev {
		size = fmt.Sprintf("%d,%d", e.Major, e.Minor)
	}
	line := fmt.Sprintf("%s %-8s %-8s %14s %s %s", modeText(e), owner(e.User, e.UID), owner(e.Group, e.GID), size,
		c.stamp(e.MTime.Time()), name(e))
	if e.Type == snapshot.Symlink {
		line += " -> " + shown(e.Link)
	}
	return line
}

func owner(name string, id uint32) string {
	if name == "" {
		return fmt.Sprint(id)
	}
	return clean(name)
}

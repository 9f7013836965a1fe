package cli

import (
	"context"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/firn-backup/firn/internal/app"
	"github.com/firn-backup/firn/internal/catalog"
	"github.com/firn-backup/firn/internal/config"
	"github.com/firn-backup/firn/internal/units"
)

func newSnapshots(c *command) *cobra.Command {
	return &cobra.Command{
		Use:         "snapshots [SET]",
		Annotations: lists(),
		Aliases:     []string{"snapshot"},
		Short:       "List snapshots",
		Long: `List the snapshots of a set, or of all sets, oldest first. ENTRIES and SIZE are
of the whole tree as it was, STORED is what the snapshot takes in the vault.`,
		Example: example("firn snapshots", "firn snapshots Documents --json"),
		Args:    args(0, 1, "a set at most"),
		RunE: func(cmd *cobra.Command, names []string) error {
			a, err := c.open(cmd)
			if err != nil {
				return err
			}
			sets, err := someSets(cmd.Context(), a, names)
			if err != nil {
				return err
			}
			return c.listSnapshots(cmd.Context(), a, sets)
		},
	}
}

// someSets are the sets of those names, or all.
func someSets(ctx context.Context, a *app.App, names []string) ([]catalog.Set, error) {
	if len(names) == 0 {
		db, err := a.Catalog(ctx, false)
		if noCatalog(err) {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		return db.Sets(ctx)
	}
	var sets []catalog.Set
	for _, n := range names {
		s, err := a.FindSet(ctx, n)
		if err != nil {
			return nil, err
		}
		sets = append(sets, s)
	}
	return sets, nil
}

// jsonSnapshot is a snapshot in lists.
type jsonSnapshot struct {
	Snapshot string  `json:"snapshot"`
	Set      string  `json:"set"`
	SetID    string  `json:"setid"`
	Host     string  `json:"host"`
	N        uint64  `json:"n"`
	At       *string `json:"at"`
	Made     *string `json:"made"`
	Kind     string  `json:"kind"`
	Stream   string  `json:"stream,omitempty"`  // of what is no tree: zfs, btrfs or raw
	Point    string  `json:"point,omitempty"`   // what was sent
	Adopted  string  `json:"adopted,omitempty"` // the program that stored it
	Base     string  `json:"base,omitempty"`
	Chain    string  `json:"chain"`
	State    string  `json:"state"`
	Vault    string  `json:"vault"`
	Entries  int64   `json:"entries"`
	Size     int64   `json:"size"`
	Changed  int64   `json:"changed"`
	Deleted  int64   `json:"deleted"`
	Raw      int64   `json:"raw"`
	Stored   int64   `json:"stored"`
	Problems int64   `json:"problems"`
}

func snapshotJSON(set catalog.Set, s catalog.Snapshot) jsonSnapshot {
	t := s.Totals
	stream := ""
	if s.Header.IsStream() {
		stream = s.Header.Stream
	}
	return jsonSnapshot{
		Stream: stream, Point: s.Header.Point, Adopted: s.Adopted,
		Snapshot: s.ID, Set: set.Name, SetID: set.ID, Host: set.Host, N: s.N, At: stampJSON(s.At), Made: stampJSON(s.Made),
		Kind: string(s.Kind), Base: s.Base, Chain: s.Chain, State: string(s.State), Vault: s.Vault,
		Entries: t.Entries, Size: t.Bytes, Changed: t.Changed, Deleted: t.Deleted, Raw: t.Raw, Stored: t.Stored, Problems: t.Problems,
	}
}

// entriesText is how many entries a snapshot has, or what it is where it has none.
func entriesText(s *catalog.Snapshot) string {
	if s.Adopted != "" {
		return s.Adopted
	}
	if s.Header.IsStream() {
		return s.Header.Stream
	}
	return count(s.Totals.Entries)
}

// sizeText is how large it was, where that is known.
func sizeText(s *catalog.Snapshot) string {
	if s.Adopted != "" {
		return "?"
	}
	return units.Size(s.Totals.Bytes)
}

func (c *command) listSnapshots(ctx context.Context, a *app.App, sets []catalog.Set) error {
	list := []jsonSnapshot{}
	t := newTable("SET", ">N", "DATE", "KIND", ">ENTRIES", ">SIZE", ">STORED", "SNAPSHOT")
	unfinished := 0
	for _, set := range sets {
		db, err := a.Catalog(ctx, false)
		if err != nil {
			return err
		}
		if set.Kind == config.KindItems || set.Kind == config.KindMirror {
			runs, err := db.ItemRuns(ctx, set.ID)
			if err != nil {
				return err
			}
			for i, j := range itemSnapshots(set, runs) {
				list = append(list, j)
				t.row(clean(setLabel(a, set)), strconv.FormatUint(j.N, 10), c.stamp(runs[i].At), j.Kind, count(j.Entries), units.Size(j.Size), units.Size(j.Stored), j.Snapshot)
			}
			continue
		}
		snaps, err := db.Snapshots(ctx, set.ID)
		if err != nil {
			return err
		}
		for _, s := range snaps {
			if s.State != catalog.Stored {
				unfinished++
				continue
			}
			list = append(list, snapshotJSON(set, s))
			note := ""
			if s.Totals.Problems > 0 {
				note = "  (" + plural(s.Totals.Problems, "problem") + ")"
			}
			t.row(clean(setLabel(a, set)), strconv.FormatUint(s.N, 10), c.stamp(s.At), string(s.Kind), entriesText(&s),
				sizeText(&s), units.Size(s.Totals.Stored), s.ID+note)
		}
	}
	if c.json {
		return c.document(list)
	}
	if len(list) > 0 {
		t.print(c.output)
	} else {
		c.talk("no snapshots yet (after a loss of the catalog, firn recover VAULT finds them)")
	}
	if unfinished > 0 {
		c.talk("%s; firn backup goes on with it", plural(int64(unfinished), "unfinished attempt"))
	}
	return nil
}

// setLabel is how lists name a set: with its host where that is another.
func setLabel(a *app.App, s catalog.Set) string {
	if s.Host == a.Host {
		return s.Name
	}
	return s.Host + "/" + s.Name
}

package cli

import (
	"strings"
	"time"

	"github.com/bmatcuk/doublestar/v4"
	"github.com/spf13/cobra"

	"github.com/firn-backup/firn/internal/catalog"
	"github.com/firn-backup/firn/internal/foreign"
	"github.com/firn-backup/firn/internal/plain"
	"github.com/firn-backup/firn/internal/units"
)

type listArchivesFlags struct {
	match, contains, since, until, larger, smaller, by string
}

func newArchiveList(c *command) *cobra.Command {
	var f listArchivesFlags
	cmd := &cobra.Command{
		Use:         "list VAULT",
		Annotations: lists(),
		Short:       "List the archives of a vault, or search them",
		Long: `List the archives of a vault, the oldest first. Of a vault whose listing takes hours it is what the catalog
knows: what was uploaded here, and what the last firn vault sync saw. Flags say which ones; all of them must fit.

Archives that other tools stored are shown by the names, and with the times of change, that these wrote
into the descriptions: mt-aws-glacier, FastGlacier, CloudBerry and more; --json says which tool it was.`,
		Example: example("firn archive list photos", "firn archive list photos --match '*.iso' --since 2026-01-01 --larger 1GiB",
			"firn archive list photos --contains holiday --format csv"),
		Args: args(1, 1, "one vault"),
		RunE: func(cmd *cobra.Command, args []string) error { return c.listArchives(cmd, args[0], f) },
	}
	fs := cmd.Flags()
	fs.StringVar(&f.match, "match", "", "only those whose names, or descriptions where they have none, fit the `GLOB`")
	fs.StringVar(&f.contains, "contains", "", "only those with that `TEXT` in the name, the description or the id")
	fs.StringVar(&f.since, "since", "", "only those that were stored at that `TIME` or later")
	fs.StringVar(&f.until, "until", "", "only those that were stored before that `TIME`; a date is the whole day")
	fs.StringVar(&f.larger, "larger", "", "only those of more than that `SIZE`")
	fs.StringVar(&f.smaller, "smaller", "", "only those of less than that `SIZE`")
	fs.StringVar(&f.by, "stored-by", "", "only those that that `TOOL` described, as --json names it")
	return cmd
}

// filter is what the flags ask for.
func (f *listArchivesFlags) filter(zone *time.Location) (func(r *catalog.ArchiveRecord) bool, error) {
	if f.match != "" && !doublestar.ValidatePattern(f.match) {
		return nil, usage("--match %s: not a pattern", f.match)
	}
	var from, to time.Time
	var least, most int64 = -1, 1<<63 - 1
	var err error
	if f.since != "" {
		if from, _, err = units.ParseTime(f.since, zone); err != nil {
			return nil, usage("--since: %v", err)
		}
	}
	if f.until != "" {
		if _, to, err = units.ParseTime(f.until, zone); err != nil {
			return nil, usage("--until: %v", err)
		}
	}
	if f.larger != "" {
		if least, err = units.ParseSize(f.larger); err != nil {
			return nil, usage("--larger: %v", err)
		}
	}
	if f.smaller != "" {
		if most, err = units.ParseSize(f.smaller); err != nil {
			return nil, usage("--smaller: %v", err)
		}
	}
	return func(r *catalog.ArchiveRecord) bool {
		title := plain.Title(*r)
		switch {
		case r.Size <= least, f.smaller != "" && r.Size >= most,
			f.since != "" && r.Created.Before(from), f.until != "" && (r.Created.IsZero() || r.Created.After(to)):
			return false
		case f.match != "" && !doublestar.MatchUnvalidated(f.match, title) && !doublestar.MatchUnvalidated("**/"+f.match, title):
			return false
		case f.contains != "" && !strings.Contains(title, f.contains) && !strings.Contains(r.Description, f.contains) && !strings.Contains(r.ID, f.contains):
			return false
		}
		if f.by == "" {
			return true
		}
		d, ok := foreign.Decode(r.Description)
		return ok && string(d.Tool) == f.by
	}, nil
}

func (c *command) listArchives(cmd *cobra.Command, vault string, f listArchivesFlags) error {
	fits, err := f.filter(c.env.Now().Location())
	if err != nil {
		return err
	}
	_, v, err := c.plainVault(cmd, vault)
	if err != nil {
		return err
	}
	var list *array
	t := newTable(">SIZE", "CREATED", "CHANGED", "ID", "NAME")
	if c.json {
		list = c.array(jsonArchive{})
	}
	err = v.Each(cmd.Context(), func(r catalog.ArchiveRecord) error {
		if !fits(&r) {
			return nil
		}
		if c.json {
			return list.add(archiveJSON(r))
		}
		changed := "-"
		if d, ok := foreign.Decode(r.Description); ok && !d.ModTime.IsZero() {
			changed = c.stamp(d.ModTime)
		}
		t.row(units.Size(r.Size), c.stamp(r.Created), changed, r.ID, shown(plain.Title(r)))
		return nil
	})
	if err != nil {
		return err
	}
	if c.json {
		list.close()
		return nil
	}
	t.print(c.output)
	return nil
}

// jsonArchive is one archive. docs/reference/archive-commands.md.
type jsonArchive struct {
	Vault       string  `json:"vault"`
	Archive     string  `json:"archive"`
	Name        string  `json:"name,omitempty"`
	Name64      []byte  `json:"name64,omitempty"`
	Description string  `json:"description"`
	Size        int64   `json:"size"`
	TreeHash    string  `json:"tree_hash,omitempty"`
	Created     *string `json:"created,omitempty"`
	Seen        *string `json:"seen,omitempty"`
	File        string  `json:"file,omitempty"`

	StoredBy *jsonForeign `json:"stored_by,omitempty"`
}

// jsonForeign is what the tool that stored an archive wrote into its description. docs/reference/archive-commands.md.
type jsonForeign struct {
	Tool       string  `json:"tool"`
	Form       string  `json:"form"`
	Name       string  `json:"name,omitempty"`
	Name64     []byte  `json:"name64,omitempty"`
	Changed    *string `json:"changed,omitempty"`
	Naive      bool    `json:"naive,omitempty"`
	Size       *int64  `json:"size,omitempty"`
	MD5        string  `json:"md5,omitempty"`
	Compressed bool    `json:"compressed,omitempty"`
	Encrypted  bool    `json:"encrypted,omitempty"`
	Directory  bool    `json:"directory,omitempty"`
	Parent     string  `json:"parent,omitempty"`
	Group      string  `json:"group,omitempty"`
}

func foreignJSON(description string) *jsonForeign {
	f, ok := foreign.Decode(description)
	if !ok {
		return nil
	}
	j := &jsonForeign{Tool: string(f.Tool), Form: f.Form, Changed: stampJSON(f.ModTime), Naive: f.Naive, MD5: f.MD5, Compressed: f.Compressed,
		Encrypted: f.Encrypted, Directory: f.Directory, Parent: f.Parent, Group: f.Group}
	if f.Size >= 0 {
		j.Size = &f.Size
	}
	p := pathJSON(f.Name)
	j.Name, j.Name64 = p.Path, p.Path64
	return j
}

func archiveJSON(r catalog.ArchiveRecord) jsonArchive {
	j := jsonArchive{Vault: r.Vault, Archive: r.ID, Description: r.Description, Size: r.Size, Created: stampJSON(r.Created), Seen: stampJSON(r.SeenAsOf)}
	p := pathJSON(r.Name)
	j.Name, j.Name64 = p.Path, p.Path64
	if !r.TreeHash.IsZero() {
		j.TreeHash = r.TreeHash.String()
	}
	j.StoredBy = foreignJSON(r.Description)
	return j
}

package cli

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/bmatcuk/doublestar/v4"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/firn-backup/firn/internal/app"
	"github.com/firn-backup/firn/internal/catalog"
	"github.com/firn-backup/firn/internal/failure"
	"github.com/firn-backup/firn/internal/foreign"
	"github.com/firn-backup/firn/internal/plain"
	"github.com/firn-backup/firn/internal/units"
)

type listArchivesFlags struct {
	match, contains, since, until, older, larger, smaller, by string

	all bool
}

// filters are the names of the flags that say which archives.
func (*listArchivesFlags) filters() []string {
	return []string{"match", "contains", "since", "until", "older", "larger", "smaller", "stored-by"}
}

func (f *listArchivesFlags) add(fs *pflag.FlagSet) {
	fs.StringVar(&f.match, "match", "", "only those whose names, or descriptions where they have none, fit the `GLOB`")
	fs.StringVar(&f.contains, "contains", "", "only those with that `TEXT` in the name, the description or the id")
	fs.StringVar(&f.since, "since", "", "only those that were stored at that `TIME` or later")
	fs.StringVar(&f.until, "until", "", "only those that were stored before that `TIME`; a date is the whole day")
	fs.StringVar(&f.older, "older", "", "only those that were stored longer ago than that `TIME`, as 730d")
	fs.StringVar(&f.larger, "larger", "", "only those of more than that `SIZE`")
	fs.StringVar(&f.smaller, "smaller", "", "only those of less than that `SIZE`; not those whose size nobody told yet")
	fs.StringVar(&f.by, "stored-by", "", "only those that that `TOOL` described, as --json names it")
}

func newArchiveList(c *command) *cobra.Command {
	var f listArchivesFlags
	cmd := &cobra.Command{
		Use:         "list VAULT…|glacier://REGION|--all",
		Annotations: lists(),
		Short:       "List the archives of vaults, or search them",
		Long: `List the archives of a vault, the oldest first. Of a vault whose listing takes hours it is what the catalog
knows: what was uploaded here, and what the last firn vault sync saw. Flags say which ones; all of them must fit.
glacier://REGION stands for all vaults that the account has there, --all for every vault that is known here.

Archives that other tools stored are shown by the names, and with the times of change, that these wrote
into the descriptions: mt-aws-glacier, FastGlacier, CloudBerry and more; --json says which tool it was.`,
		Example: example("firn archive list photos", "firn archive list photos --match '*.iso' --since 2026-01-01 --larger 1GiB",
			"firn archive list photos --contains holiday --format csv", "firn archive list glacier://eu-west-1 --match '*.iso'"),
		Args: args(0, -1, "vaults"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if f.all != (len(args) == 0) {
				return usage("list takes either vaults or --all")
			}
			return c.listArchives(cmd, args, f)
		},
	}
	fs := cmd.Flags()
	f.add(fs)
	fs.BoolVar(&f.all, "all", false, "of all vaults that are known here: the default one, those of the config file, of sets, and of the catalog")
	return cmd
}

// filter is what the flags ask for at a time, in whose zone dates are.
func (f *listArchivesFlags) filter(now time.Time) (func(r *catalog.ArchiveRecord) bool, error) {
	if f.match != "" && !doublestar.ValidatePattern(f.match) {
		return nil, usage("--match %s: not a pattern", f.match)
	}
	zone := now.Location()
	var from, to, before time.Time
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
	if f.older != "" {
		age, err := units.ParseDuration(f.older)
		if err != nil {
			return nil, usage("--older: %v", err)
		}
		before = now.Add(-age)
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
		case f.older != "" && (r.Created.IsZero() || !r.Created.Before(before)):
			return false
		case r.Size <= least, f.smaller != "" && (r.Size >= most || !sizeKnown(r)),
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

// sizeKnown says whether anybody told how large an archive is. What another program knew, and no listing has shown yet, may be of any size: of the
// vaults that list at once sizes are as they are, and no other has archives of no bytes.
func sizeKnown(r *catalog.ArchiveRecord) bool { return r.Size > 0 || !app.ListsLate(r.Vault) }

// archiveSize is the size of an archive for people.
func archiveSize(r *catalog.ArchiveRecord) string {
	if !sizeKnown(r) {
		return "-"
	}
	return units.Size(r.Size)
}

// listArchives lists one vault, or what can be listed of several: then what cannot is reported, and the end is failure.Partial.
func (c *command) listArchives(cmd *cobra.Command, vaults []string, f listArchivesFlags) error {
	if err := given(cmd, f.filters()...); err != nil {
		return err
	}
	a, err := c.open(cmd)
	if err != nil {
		return err
	}
	fits, err := f.filter(a.Now())
	if err != nil {
		return err
	}
	urls, several, err := c.vaultsToList(cmd.Context(), a, vaults)
	if err != nil {
		return err
	}
	out := newArchiveTable(c, several)
	failed, all := 0, len(urls)
	for _, url := range urls {
		v, err := c.knownVault(cmd.Context(), a, url)
		if err == nil {
			err = c.listArchivesOf(cmd.Context(), v, several, func(r catalog.ArchiveRecord) error {
				if !fits(&r) {
					return nil
				}
				return out.add(r)
			})
		}
		switch {
		case err == nil:
		case f.all && url == a.DefaultVaultURL() && failure.KindOf(err) == failure.NotFound: // not made yet
			all--
		case several && app.ListsLate(url) && failure.KindOf(err) == failure.NotFound && (f.all || slices.ContainsFunc(vaults, app.IsRegion)):
			all-- // nobody asked for this one, and the service says that it is gone
			c.warn("%s is not there any more; what was in it is not listed", url)
		case !several || cmd.Context().Err() != nil || c.output.failure() != nil:
			return err
		default:
			failed++
			c.warn("%s: %v", url, err)
		}
	}
	out.end()
	switch {
	case failed == 0:
		return nil
	case failed == all:
		return failure.Errorf(failure.Failed, "%s could not be listed", units.Count(failed, "vault"))
	}
	return failure.Errorf(failure.Partial, "%d of %d vaults could not be listed", failed, all)
}

// vaultsToList are the URLs of the vaults that are meant, each once, in order; none are all that are known. several says that more than one
// may be meant.
func (c *command) vaultsToList(ctx context.Context, a *app.App, vaults []string) (urls []string, several bool, err error) {
	add := func(url string) {
		if !slices.Contains(urls, url) {
			urls = append(urls, url)
		}
	}
	for _, v := range vaults {
		if !app.IsRegion(v) {
			url, err := a.KnownVaultURL(ctx, v)
			if err != nil {
				return nil, false, err
			}
			add(url)
			continue
		}
		several = true
		known, err := a.KnownVaults(ctx, v)
		if err != nil {
			return nil, false, err
		}
		there, err := a.VaultsOf(ctx, v)
		if err != nil { // what is known is listed all the same
			if len(known) == 0 || ctx.Err() != nil {
				return nil, false, adminError(err)
			}
			c.warn("the service does not tell of its vaults; these are those known here: %v", err)
		}
		for _, url := range there {
			if !slices.ContainsFunc(known, func(k string) bool { return vaultName(k) == vaultName(url) }) { // with an account in it, perhaps
				known = append(known, url)
			}
		}
		slices.Sort(known)
		for _, url := range known {
			add(url)
		}
	}
	if len(vaults) > 0 {
		return urls, several || len(urls) > 1, nil
	}
	config, err := knownVaults(ctx, a)
	if err != nil {
		return nil, false, err
	}
	for _, v := range config {
		url := v.URL
		if a.Config.Vaults[v.Name] != nil {
			if url, err = a.VaultURL(v.Name); err != nil {
				return nil, false, err
			}
		}
		add(url)
	}
	known, err := a.KnownVaults(ctx, "")
	for _, url := range known {
		add(url)
	}
	return urls, true, err
}

func (c *command) listArchivesOf(ctx context.Context, v *plain.Vault, several bool, fn func(catalog.ArchiveRecord) error) error {
	if several && v.Store.Traits().ListLag > 0 {
		last, err := v.Catalog.LastListing(ctx, v.URL)
		if err != nil {
			return err
		}
		if last.AsOf.IsZero() {
			c.talk("%s: only what was uploaded here is known; firn vault sync asks what it has", v.URL)
		}
	}
	return v.Each(ctx, fn)
}

// archiveTable prints archives in the form that is asked for.
type archiveTable struct {
	c       *command
	list    *array
	t       *table
	several bool
}

func newArchiveTable(c *command, several bool) *archiveTable {
	out := &archiveTable{c: c, several: several}
	switch {
	case c.json:
		out.list = c.array(jsonArchive{})
	case several:
		out.t = newTable("VAULT", ">SIZE", "CREATED", "CHANGED", "ID", "NAME")
	default:
		out.t = newTable(">SIZE", "CREATED", "CHANGED", "ID", "NAME")
	}
	return out
}

func (o *archiveTable) add(r catalog.ArchiveRecord) error {
	if o.list != nil {
		return o.list.add(archiveJSON(r))
	}
	changed := "-"
	if d, ok := foreign.Decode(r.Description); ok && !d.ModTime.IsZero() {
		changed = o.c.stamp(d.ModTime)
	}
	cells := []string{archiveSize(&r), o.c.stamp(r.Created), changed, r.ID, shown(plain.Title(r))}
	if o.several {
		cells = append([]string{clean(r.Vault)}, cells...)
	}
	o.t.row(cells...)
	return nil
}

func (o *archiveTable) end() {
	if o.list != nil {
		o.list.close()
		return
	}
	o.t.print(o.c.output)
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

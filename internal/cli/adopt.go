package cli

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/firn-backup/firn/internal/adopt"
	"github.com/firn-backup/firn/internal/app"
	"github.com/firn-backup/firn/internal/failure"
)

type adoptFlags struct {
	region, account string
	keys, vaults    []string
	set             string
	write           string
	dry             bool
}

// newAdopt has a command for each of adopt.Tools.
func newAdopt(c *command) *cobra.Command {
	var below []*cobra.Command
	for _, t := range adopt.Tools() {
		below = append(below, newAdoptTool(c, t))
	}
	return parent("adopt", "Take over what other programs left", `Read the state of another program and record it in the catalog, so that nothing is
uploaded again and what is stored is found. The other program's files are not changed,
and adopting them again does no harm.`, below...)
}

func newAdoptTool(c *command, t adopt.Tool) *cobra.Command {
	var f adoptFlags
	cmd := &cobra.Command{
		Use:     t.Name + " " + t.File,
		Short:   t.Short,
		Long:    t.Long,
		Example: example("firn adopt " + t.Name + " " + t.File),
		Args:    args(least(t), max(t.Most, 1), map[bool]string{true: "its files", false: "one file"}[t.Most > 1]),
		RunE:    func(cmd *cobra.Command, args []string) error { return c.adopt(cmd, t, args, f) },
	}
	fs := cmd.Flags()
	for name, add := range map[string]func(){
		adopt.FlagRegion: func() { fs.StringVar(&f.region, "region", "us-east-1", "the `REGION` that the vaults are in") },
		adopt.FlagAccount: func() {
			fs.StringVar(&f.account, "account", "", "the `NUMBER` of the account (default: the service is asked)")
		},
		adopt.FlagKey: func() {
			fs.StringArrayVar(&f.keys, "key", nil, "take over what belongs to the access key `ID` only; may be repeated")
		},
		adopt.FlagVault: func() {
			fs.StringArrayVar(&f.vaults, "vault", nil, "the `VAULT` that it is, or NAME=VAULT: what is called NAME there is this VAULT here; may be repeated")
		},
		adopt.FlagSet: func() {
			fs.StringVar(&f.set, "set", "", "the `SET` that goes on with it (default: the only one of the config file that can, or a new one)")
		},
	} {
		if slices.Contains(t.Flags, name) {
			add()
		}
	}
	fs.StringVar(&f.write, "write", "", "write the sets that are made into a new `FILE`, to be appended to the config file")
	fs.BoolVar(&f.dry, "dry-run", false, "say what would be taken over, and change nothing")
	return cmd
}

// least is how many files must be given.
func least(t adopt.Tool) int {
	if t.None {
		return 0
	}
	return 1
}

// jsonAdopted is what was taken over. docs/reference/adopt.md.
type jsonAdopted struct {
	Tool     string   `json:"tool"`
	File     string   `json:"file"`
	Files    []string `json:"files"`
	Archives int64    `json:"archives"`
	Deleted  int64    `json:"deleted"`
	Added    int64    `json:"added"`
	Vaults   []string `json:"vaults"`
	Sets     []string `json:"sets"`
	Items    int64    `json:"items"`
	// Snapshots of the sets that were not known.
	Snapshots int64  `json:"snapshots"`
	Config    string `json:"config,omitempty"`
	DryRun    bool   `json:"dry_run,omitempty"`
}

func (c *command) adopt(cmd *cobra.Command, t adopt.Tool, files []string, f adoptFlags) error {
	a, err := c.open(cmd)
	if err != nil {
		return err
	}
	if _, err := os.Lstat(f.write); f.write != "" && err == nil {
		return usage("%s exists already: the sets are written into a new file", f.write)
	}
	named, err := adoptedVaults(a, f.vaults)
	if err != nil {
		return err
	}
	db, err := a.Catalog(cmd.Context(), true)
	if err != nil {
		return err
	}
	known, err := adoptKnown(a)
	if err != nil {
		return err
	}
	located := map[adopt.Place]string{}
	one := "" // of the names that are the vault that --vault VAULT says
	o := adopt.Options{Known: known, Set: f.set, Now: a.Now(), Rand: rand.Reader, Keys: f.keys, Zone: c.env.Now().Location(), VaultURL: func(ctx context.Context, p adopt.Place) (string, error) {
		switch url := named[p.Name]; {
		case p.Name != "" && url != "":
			return url, nil
		case named[""] != "" && p.Name != "" && one != "" && p.Name != one:
			return "", withHint(usage("they are of several vaults, among them %s and %s: --vault %s says of none which it is", one, p.Name, named[""]),
				"--vault NAME=VAULT says it of one; it may be repeated")
		case named[""] != "":
			one = cmp.Or(p.Name, one)
			return named[""], nil
		case located[p] != "":
			return located[p], nil
		}
		asked := p
		if cmd.Flags().Changed("region") || p.Region == "" {
			p.Region = f.region
		}
		if f.account != "" {
			p.Account = f.account
		}
		url, err := c.adoptedVault(ctx, a, p, "--account NUMBER says which account it is without asking, --vault %s=URL which vault")
		if err == nil {
			located[asked] = url
		}
		return url, err
	}}
	res, err := adopt.Run(cmd.Context(), t, files, o, db, f.dry)
	if err != nil {
		return err
	}
	for _, n := range res.Notices {
		c.warn("%s", n)
	}
	if f.write != "" && !f.dry && res.Config != "" {
		if err := writeNew(f.write, res.Config); err != nil {
			return err
		}
	}
	return c.tellAdopted(t, files, f, res)
}

// writeNew writes a file that must not exist.
func writeNew(file, text string) error {
	out, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return usage("%s exists already: the sets are written into a new file", file)
	}
	if err != nil {
		return err
	}
	_, err = out.WriteString(text)
	if err == nil {
		err = out.Sync()
	}
	return errors.Join(err, out.Close())
}

func (c *command) tellAdopted(t adopt.Tool, files []string, f adoptFlags, res adopt.Result) error {
	if c.json {
		j := jsonAdopted{Tool: t.Name, Files: append([]string{}, files...), Snapshots: res.Snapshots, Archives: res.Archives, Deleted: res.Deleted, Added: res.Added, Vaults: res.Vaults,
			Sets: []string{}, Items: res.Items, Config: res.Config, DryRun: f.dry}
		if len(files) > 0 {
			j.File = files[0]
		}
		if j.Vaults == nil {
			j.Vaults = []string{}
		}
		for _, s := range res.Sets {
			j.Sets = append(j.Sets, s.Name)
		}
		return c.document(j)
	}
	for _, v := range res.Vaults {
		c.printf("%s\n", clean(v))
	}
	if res.Config != "" && f.write == "" {
		c.talk("to be appended to the config file (--write FILE writes it):\n")
		for line := range strings.SplitSeq(strings.TrimRight(res.Config, "\n"), "\n") {
			c.talk("%s", line)
		}
		c.talk("")
	}
	text := fmt.Sprintf("%s found, %s of them deleted; ", plural(res.Archives, "archive"), count(res.Deleted))
	switch {
	case f.dry:
		text += "nothing was recorded"
	case len(res.Sets) > 0 && res.Items == 0 && hasRows(res.Sets):
		text += fmt.Sprintf("%s new; %s with %s new to them", count(res.Added), plural(int64(len(res.Sets)), "set"), plural(res.Snapshots, "snapshot"))
	case len(res.Sets) > 0:
		text += fmt.Sprintf("%s new; %s with %s new to them", count(res.Added), plural(int64(len(res.Sets)), "set"), plural(res.Items, "item"))
	default:
		text += count(res.Added) + " new"
	}
	c.talk("%s", text)
	return nil
}

func hasRows(sets []adopt.Set) bool {
	return slices.ContainsFunc(sets, func(s adopt.Set) bool { return len(s.Rows) > 0 })
}

// adoptKnown is what the config file has.
func adoptKnown(a *app.App) (adopt.Known, error) {
	k := adopt.Known{Host: a.Host, Vaults: map[string]string{}, Sets: map[string]adopt.Set{}}
	for name, v := range a.Config.Vaults {
		k.Vaults[name] = v.URL
	}
	for name, s := range a.Config.Sets {
		url, err := a.VaultURL(s.Vault)
		if err != nil {
			return k, err
		}
		k.Sets[name] = adopt.Set{Name: name, Kind: s.KindOf(), Vault: url, Path: s.Path, Policy: s.Policy}
	}
	return k, nil
}

// adoptedVaults are what --vault says: by the names that the program has, and by the empty name that of all.
func adoptedVaults(a *app.App, flags []string) (map[string]string, error) {
	named := map[string]string{}
	for _, v := range flags {
		name, vault, ok := strings.Cut(v, "=")
		if !ok || strings.Contains(name, ":") { // a URL may have a "=" of its own
			name, vault = "", v
		}
		if vault == "" || name == "" && !strings.Contains(vault, ":") && a.Config.Vaults[vault] == nil {
			return nil, usage("--vault %s: must be NAME=VAULT, or one vault of the config file or a URL", v)
		}
		url, err := a.VaultURL(vault)
		if err != nil {
			return nil, err
		}
		named[name] = url
	}
	return named, nil
}

// adoptedVault is the URL of a vault that a program knows by name. The hint says how the account, where it cannot be asked for, is told; %s is the
// vault's name.
func (c *command) adoptedVault(ctx context.Context, a *app.App, p adopt.Place, hint string) (string, error) {
	if p.Name == "" {
		return "", withHint(usage("the files do not say which vault it is"), "--vault VAULT says it")
	}
	if v := a.Config.Vaults[p.Name]; v != nil {
		return v.URL, nil
	}
	if p.Account != "" {
		return app.WithAccount(p.Region, p.Name, p.Account)
	}
	url, err := a.AccountURL(ctx, p.Region, p.Name)
	if err != nil && failure.KindOf(err) != failure.Usage {
		err = withHint(err, hint, p.Name)
	}
	return url, err
}

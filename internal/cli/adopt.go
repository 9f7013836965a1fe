package cli

import (
	"context"
	"fmt"
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
		Args:    args(1, 1, "one file"),
		RunE:    func(cmd *cobra.Command, args []string) error { return c.adopt(cmd, t, args[0], f) },
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
			fs.StringArrayVar(&f.vaults, "vault", nil, "`NAME=VAULT`: what is called NAME there is this VAULT here; may be repeated")
		},
	} {
		if slices.Contains(t.Flags, name) {
			add()
		}
	}
	fs.BoolVar(&f.dry, "dry-run", false, "say what would be taken over, and change nothing")
	return cmd
}

// jsonAdopted is what was taken over. docs/reference/adopt.md.
type jsonAdopted struct {
	Tool     string   `json:"tool"`
	File     string   `json:"file"`
	Archives int64    `json:"archives"`
	Deleted  int64    `json:"deleted"`
	Added    int64    `json:"added"`
	Vaults   []string `json:"vaults"`
	DryRun   bool     `json:"dry_run,omitempty"`
}

func (c *command) adopt(cmd *cobra.Command, t adopt.Tool, file string, f adoptFlags) error {
	a, err := c.open(cmd)
	if err != nil {
		return err
	}
	named := map[string]string{}
	for _, v := range f.vaults {
		name, url, ok := strings.Cut(v, "=")
		if !ok || name == "" || url == "" {
			return usage("--vault %s: must be NAME=VAULT", v)
		}
		if url, err = a.VaultURL(url); err != nil {
			return err
		}
		named[name] = url
	}
	db, err := a.Catalog(cmd.Context(), true)
	if err != nil {
		return err
	}
	o := adopt.Options{Keys: f.keys, VaultURL: func(ctx context.Context, name string) (string, error) {
		if url := named[name]; url != "" {
			return url, nil
		}
		return c.adoptedVault(ctx, a, f, name)
	}}
	res, err := adopt.Run(cmd.Context(), t, file, o, db, f.dry)
	if err != nil {
		return err
	}
	for _, n := range res.Notices {
		c.warn("%s", n)
	}
	if c.json {
		j := jsonAdopted{Tool: t.Name, File: file, Archives: res.Archives, Deleted: res.Deleted, Added: res.Added, Vaults: res.Vaults, DryRun: f.dry}
		if j.Vaults == nil {
			j.Vaults = []string{}
		}
		return c.document(j)
	}
	for _, v := range res.Vaults {
		c.printf("%s\n", clean(v))
	}
	text := fmt.Sprintf("%s found, %s of them deleted; %s new", plural(res.Archives, "archive"), count(res.Deleted), count(res.Added))
	if f.dry {
		text = fmt.Sprintf("%s found, %s of them deleted; nothing was recorded", plural(res.Archives, "archive"), count(res.Deleted))
	}
	c.talk("%s", text)
	return nil
}

// adoptedVault is the URL of a vault that a program knows by name only.
func (c *command) adoptedVault(ctx context.Context, a *app.App, f adoptFlags, name string) (string, error) {
	if v := a.Config.Vaults[name]; v != nil {
		return v.URL, nil
	}
	if f.account != "" {
		return app.WithAccount(f.region, name, f.account)
	}
	url, err := a.AccountURL(ctx, f.region, name)
	if err != nil && failure.KindOf(err) != failure.Usage {
		err = withHint(err, "--account NUMBER says which account it is without asking, --vault %s=URL which vault", name)
	}
	return url, err
}

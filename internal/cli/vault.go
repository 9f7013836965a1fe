package cli

import (
	"context"
	"maps"
	"slices"

	"github.com/spf13/cobra"

	"github.com/firn-backup/firn/internal/app"
	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/internal/failure"
)

func newVault(c *command) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "vault",
		Short: "Make, look at, empty and administer vaults",
		Long: `A vault is a place that keeps archives. A command takes the name of a [vault.NAME]
of the config file, or a URL: dir:/path, s3://BUCKET/PREFIX, glacier://REGION/VAULT.`,
		Args: cobra.ArbitraryArgs,
		RunE: needCommand,
	}
	cmd.AddCommand(newVaultCreate(c), newVaultList(c), newVaultShow(c), newVaultDelete(c), newVaultSync(c), newVaultReconcile(c), newVaultEmpty(c), newVaultTidy(c),
		newVaultTag(c), newVaultPolicy(c), newVaultLock(c), newVaultNotify(c), newVaultRetrievalPolicy(c), newVaultCapacity(c))
	return cmd
}

func newVaultCreate(c *command) *cobra.Command {
	force := false
	cmd := &cobra.Command{
		Use:   "create VAULT",
		Short: "Make a vault",
		Long: `Make a vault: in a directory that is empty or does not exist, or in Amazon Glacier.
A bucket of S3 must be there already; it is looked at for settings that would lose archives (lifecycle rules),
and the least permissions that machines need are printed as IAM policies.`,
		Example: example("firn vault create dir:/mnt/nas/firn", "firn vault create nas", "firn vault create 's3://bucket/laptop?class=DEEP_ARCHIVE'"),
		Args:    args(1, 1, "one vault"),
		RunE: func(cmd *cobra.Command, args []string) error {
			a, err := c.open(cmd)
			if err != nil {
				return err
			}
			return c.createVault(cmd.Context(), a, args[0], force)
		},
	}
	cmd.Flags().BoolVar(&force, "force", false, "also where archives would be lost")
	return cmd
}

type jsonVault struct {
	Name     string         `json:"name,omitempty"`
	URL      string         `json:"url"`
	Exists   bool           `json:"exists"`
	Error    string         `json:"error,omitempty"`
	Archives *int64         `json:"archives,omitempty"`
	Size     *int64         `json:"size,omitempty"`
	Kinds    []vaultContent `json:"contents,omitempty"`
	AsOf     *string        `json:"as_of,omitempty"`
	MinDays  int            `json:"minimum_days,omitempty"`
	Service  *vaultService  `json:"service,omitempty"`

	Inspection *jsonInspection `json:"inspection,omitempty"`
}

// vaultContent is what a vault holds of one sort.
type vaultContent struct {
	What     string `json:"what"` // "volume", "manifest", "key", "item", "items" (an index of such), "foreign"
	Archives int64  `json:"archives"`
	Size     int64  `json:"size"`
}

func newVaultList(c *command) *cobra.Command {
	return &cobra.Command{
		Use:         "list [glacier://REGION]",
		Annotations: lists(),
		Short:       "List the vaults that are known here, or those of an account",
		Long: `List the default vault, those of the config file, and those that sets of the catalog go to.
With a region, or a vault of it, list all vaults that the account has there; with s3://, its buckets.`,
		Example: example("firn vault list", "firn vault list glacier://eu-west-1", "firn vault list s3://"),
		Args:    args(0, 1, "one region or s3:// at most"),
		RunE: func(cmd *cobra.Command, args []string) error {
			a, err := c.open(cmd)
			if err != nil {
				return err
			}
			if len(args) == 1 {
				return c.listAccount(cmd.Context(), a, args[0])
			}
			known, err := knownVaults(cmd.Context(), a)
			if err != nil {
				return err
			}
			t := newTable("NAME", "URL", "STATE")
			for i, v := range known {
				state := "ok"
				switch _, err := a.OpenStore(cmd.Context(), v.URL, false); {
				case err == nil:
					known[i].Exists = true
				case failure.KindOf(err) == failure.NotFound && v.Name == "(default)":
					state = "not made yet"
				case failure.KindOf(err) == failure.NotFound:
					state = "not there"
				default:
					state, known[i].Error = "error: "+err.Error(), err.Error()
				}
				t.row(clean(v.Name), clean(v.URL), clean(state))
			}
			if c.json {
				return c.document(known)
			}
			t.print(c.output)
			return nil
		},
	}
}

func knownVaults(ctx context.Context, a *app.App) ([]jsonVault, error) {
	list := []jsonVault{{Name: "(default)", URL: a.DefaultVaultURL()}}
	for _, name := range slices.Sorted(maps.Keys(a.Config.Vaults)) {
		list = append(list, jsonVault{Name: name, URL: a.Config.Vaults[name].URL})
	}
	sets, err := someSets(ctx, a, nil)
	if err != nil {
		return nil, err
	}
	for _, s := range sets {
		if !slices.ContainsFunc(list, func(v jsonVault) bool { return v.URL == s.Vault }) {
			list = append(list, jsonVault{Name: "-", URL: s.Vault})
		}
	}
	return list, nil
}

func newVaultShow(c *command) *cobra.Command {
	return &cobra.Command{
		Use:   "show [VAULT]",
		Short: "Show what a vault holds",
		Long: `List a vault's archives and show how many there are of each sort. A vault that is
slow to list, of Amazon Glacier, is described as the service does at once, and
as the catalog knows it (firn vault sync). Without a vault, the default one.`,
		Example: example("firn vault show", "firn vault show glacier://eu-west-1/photos"),
		Args:    args(0, 1, "one vault at most"),
		RunE: func(cmd *cobra.Command, args []string) error {
			a, err := c.open(cmd)
			if err != nil {
				return err
			}
			url, err := a.VaultURL(append(args, "")[0])
			if err != nil {
				return err
			}
			s, err := a.OpenStore(cmd.Context(), url, false)
			if err != nil {
				return err
			}
			if _, ok := s.(coldstore.VaultDescriber); ok {
				return c.showService(cmd.Context(), a, url, s)
			}
			return c.showVault(cmd.Context(), url, s)
		},
	}
}

func (c *command) showVault(ctx context.Context, url string, s coldstore.Store) error {
	var n contents
	asOf, err := s.List(ctx, func(a coldstore.Archive) error {
		n.add(a)
		return nil
	})
	if err != nil {
		return err
	}
	in, err := c.inspect(ctx, s)
	if err != nil {
		return err
	}
	if c.json {
		return c.document(jsonVault{Inspection: inspectionJSON(in), URL: url, Exists: true, Archives: &n.archives, Size: &n.size, Kinds: n.list(), AsOf: stampJSON(asOf), MinDays: s.Traits().MinDays})
	}
	c.talk("%s, as of %s", url, c.stamp(asOf))
	n.print(c.output)
	c.tellInspection(in, false)
	return nil
}

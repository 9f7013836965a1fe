package cli

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/internal/units"
)

// parent is a command that only has commands below it.
func parent(use, short, long string, below ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{Use: use, Short: short, Long: long, Args: cobra.ArbitraryArgs, RunE: needCommand}
	cmd.AddCommand(below...)
	return cmd
}

// onVault is a command on one ability of the vault that its first argument names.
func onVault[T any](c *command, use, short, eg, what string, least, most int, takes string, run func(cmd *cobra.Command, v T, url string, args []string) error) *cobra.Command {
	return &cobra.Command{
		Use: use, Short: short, Example: eg, Args: args(least, most, takes),
		RunE: func(cmd *cobra.Command, args []string) error {
			_, url, store, err := c.openVault(cmd, args[0])
			if err != nil {
				return err
			}
			v, err := ability[T](store, what)
			if err != nil {
				return err
			}
			return run(cmd, v, url, args[1:])
		},
	}
}

func newVaultTag(c *command) *cobra.Command {
	const what = "tags"
	return parent("tag", "Show and change a vault's tags", "Show and change a vault's tags: short texts by name, for bills and for people.",
		onVault(c, "list VAULT", "List a vault's tags", example("firn vault tag list glacier://eu-west-1/photos"), what, 1, 1, "one vault", func(cmd *cobra.Command, v coldstore.Tagger, _ string, _ []string) error {
			var tags map[string]string
			err := administer(cmd.Context(), func() (err error) { tags, err = v.Tags(cmd.Context()); return err })
			if err != nil {
				return err
			}
			if c.json {
				if tags == nil {
					tags = map[string]string{}
				}
				return c.document(tags)
			}
			t := newTable("TAG", "VALUE")
			for _, k := range slices.Sorted(maps.Keys(tags)) {
				t.row(clean(k), clean(tags[k]))
			}
			t.print(c.output)
			return nil
		}),
		onVault(c, "add VAULT NAME=VALUE…", "Add or change tags", example("firn vault tag add glacier://eu-west-1/photos owner=anna"), what, 2, -1, "a vault and NAME=VALUE", func(cmd *cobra.Command, v coldstore.Tagger, _ string, args []string) error {
			tags := map[string]string{}
			for _, a := range args {
				k, value, ok := strings.Cut(a, "=")
				if !ok || k == "" {
					return usage("%q is not NAME=VALUE", a)
				}
				tags[k] = value
			}
			return administer(cmd.Context(), func() error { return v.AddTags(cmd.Context(), tags) })
		}),
		onVault(c, "remove VAULT NAME…", "Remove tags", example("firn vault tag remove glacier://eu-west-1/photos owner"), what, 2, -1, "a vault and tags' names", func(cmd *cobra.Command, v coldstore.Tagger, _ string, names []string) error {
			return administer(cmd.Context(), func() error { return v.RemoveTags(cmd.Context(), names) })
		}),
	)
}

// policyText reads a policy, which must be JSON.
func (c *command) policyText(file string) (string, error) {
	text, err := c.readText(file)
	if err == nil && !json.Valid([]byte(text)) {
		err = usage("%s: not a JSON document", file)
	}
	return text, err
}

// showPolicy prints a policy as it is.
func (c *command) showPolicy(policy string) {
	for line := range strings.SplitSeq(strings.TrimRight(policy, "\n"), "\n") {
		c.printf("%s\n", clean(line))
	}
}

func newVaultPolicy(c *command) *cobra.Command {
	const what = "access policies"
	return parent("policy", "Show and change who may do what with a vault", "Show and change a vault's access policy: a JSON document of Amazon's that says who may do what with the vault.",
		onVault(c, "show VAULT", "Print the access policy", example("firn vault policy show glacier://eu-west-1/photos"), what, 1, 1, "one vault", func(cmd *cobra.Command, v coldstore.AccessPolicyKeeper, _ string, _ []string) error {
			var policy string
			err := administer(cmd.Context(), func() (err error) { policy, err = v.AccessPolicy(cmd.Context()); return err })
			if err != nil {
				return err
			}
			if c.json {
				return c.document(map[string]any{"policy": rawJSON(policy)})
			}
			c.showPolicy(policy)
			return nil
		}),
		onVault(c, "set VAULT FILE", "Set the access policy to that in a file (-: stdin)", example("firn vault policy set glacier://eu-west-1/photos policy.json"), what, 2, 2, "a vault and a file", func(cmd *cobra.Command, v coldstore.AccessPolicyKeeper, _ string, args []string) error {
			policy, err := c.policyText(args[0])
			if err != nil {
				return err
			}
			return administer(cmd.Context(), func() error { return v.SetAccessPolicy(cmd.Context(), policy) })
		}),
		onVault(c, "delete VAULT", "Take the access policy away", example("firn vault policy delete glacier://eu-west-1/photos"), what, 1, 1, "one vault", func(cmd *cobra.Command, v coldstore.AccessPolicyKeeper, _ string, _ []string) error {
			return administer(cmd.Context(), func() error { return v.DeleteAccessPolicy(cmd.Context()) })
		}),
	)
}

// rawJSON is a document as it is, where it is JSON, else its text.
func rawJSON(text string) any {
	if json.Valid([]byte(text)) {
		return json.RawMessage(text)
	}
	return text
}

// onAccount is a command on one ability of the account that its first argument names, by a vault or glacier://REGION.
func onAccount[T any](c *command, use, short, eg, what string, least, most int, takes string, run func(cmd *cobra.Command, v T, args []string) error) *cobra.Command {
	return &cobra.Command{
		Use: use, Short: short, Example: eg, Args: args(least, most, takes),
		RunE: func(cmd *cobra.Command, args []string) error {
			a, err := c.open(cmd)
			if err != nil {
				return err
			}
			v, err := accountAbility[T](cmd.Context(), a, args[0], what)
			if err != nil {
				return err
			}
			return run(cmd, v, args[1:])
		},
	}
}

func newVaultRetrievalPolicy(c *command) *cobra.Command {
	const what = "retrieval policy"
	const takes = "a vault, or glacier://REGION"
	return parent("retrieval-policy", "Show and change how much the account may retrieve an hour",
		"Show and change the data retrieval policy of an account in a region, which all its vaults share. It is named by a vault, or by glacier://REGION.",
		onAccount(c, "show VAULT", "Show the policy", example("firn vault retrieval-policy show glacier://eu-west-1"), what, 1, 1, takes, func(cmd *cobra.Command, v coldstore.RetrievalLimiter, _ []string) error {
			var p coldstore.RetrievalPolicy
			err := administer(cmd.Context(), func() (err error) { p, err = v.RetrievalPolicy(cmd.Context()); return err })
			if err != nil {
				return err
			}
			if c.json {
				return c.document(jsonRetrievalPolicy{p.Strategy, p.BytesPerHour})
			}
			if p.BytesPerHour > 0 {
				c.printf("%s %s\n", clean(p.Strategy), units.ExactSize(p.BytesPerHour))
			} else {
				c.printf("%s\n", clean(p.Strategy))
			}
			return nil
		}),
		onAccount(c, "set VAULT none|free-tier|SIZE", "Set the policy: no limit, the free tier only, or so many bytes an hour",
			example("firn vault retrieval-policy set glacier://eu-west-1 free-tier", "firn vault retrieval-policy set glacier://eu-west-1 10GB"), what, 2, 2, takes+", and the policy",
			func(cmd *cobra.Command, v coldstore.RetrievalLimiter, args []string) error {
				p := coldstore.RetrievalPolicy{}
				switch strings.ToLower(args[0]) {
				case "none":
					p.Strategy = "None"
				case "free-tier", "freetier":
					p.Strategy = "FreeTier"
				default:
					n, err := units.ParseSize(args[0])
					if err != nil || n <= 0 {
						return usage("%q is not none, free-tier or a size such as 10GB", args[0])
					}
					p.Strategy, p.BytesPerHour = "BytesPerHour", n
				}
				return administer(cmd.Context(), func() error { return v.SetRetrievalPolicy(cmd.Context(), p) })
			}),
	)
}

type jsonRetrievalPolicy struct {
	Strategy     string `json:"strategy"`
	BytesPerHour int64  `json:"bytes_per_hour,omitempty"`
}

func newVaultCapacity(c *command) *cobra.Command {
	const what = "provisioned capacity"
	var confirm string
	buy := onAccount(c, "buy VAULT", "Buy one unit of capacity for a month; it costs money, each time", example("firn vault capacity buy glacier://eu-west-1"), what, 1, 1, "a vault, or glacier://REGION",
		func(cmd *cobra.Command, v coldstore.CapacityBuyer, _ []string) error {
			const text = "A unit of provisioned capacity is paid for a month, about 100 dollars, and cannot be given back."
			if err := c.confirm(cmd.Context(), "capacity", confirm, text); err != nil {
				return err
			}
			id, err := v.BuyCapacity(cmd.Context()) // never twice
			if err != nil {
				return withHint(adminError(err), "firn vault capacity list shows whether it was bought all the same")
			}
			if c.json {
				return c.document(map[string]string{"id": id})
			}
			c.printf("%s\n", clean(id))
			return nil
		})
	buy.Flags().StringVar(&confirm, "confirm", "", "`capacity`, instead of typing it on the terminal")
	return parent("capacity", "Show and buy capacity for Expedited retrievals", "Show and buy provisioned capacity, with which Expedited retrievals are always possible. It belongs to an account in a region.",
		onAccount(c, "list VAULT", "List the capacity bought", example("firn vault capacity list glacier://eu-west-1"), what, 1, 1, "a vault, or glacier://REGION", func(cmd *cobra.Command, v coldstore.CapacityBuyer, _ []string) error {
			var all []coldstore.Capacity
			err := administer(cmd.Context(), func() (err error) { all, err = v.Capacities(cmd.Context()); return err })
			if err != nil {
				return err
			}
			list := []jsonCapacity{}
			t := newTable("ID", "BEGINS", "EXPIRES")
			for _, x := range all {
				list = append(list, jsonCapacity{x.ID, stampJSON(x.Begins), stampJSON(x.Expires)})
				t.row(clean(x.ID), c.stamp(x.Begins), c.stamp(x.Expires))
			}
			if c.json {
				return c.document(list)
			}
			t.print(c.output)
			return nil
		}), buy)
}

type jsonCapacity struct {
	ID      string  `json:"id"`
	Begins  *string `json:"begins,omitempty"`
	Expires *string `json:"expires,omitempty"`
}

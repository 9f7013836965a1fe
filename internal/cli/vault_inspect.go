package cli

import (
	"context"
	"encoding/json"
	"time"

	"github.com/spf13/cobra"

	"github.com/firn-backup/firn/internal/app"
	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/internal/failure"
	"github.com/firn-backup/firn/internal/units"
)

// jsonInspection is what there is to know of the place that a vault is in. docs/reference/json.md.
type jsonInspection struct {
	Facts     map[string]string `json:"facts"`
	Dangers   []string          `json:"dangers"`
	Notes     []string          `json:"notes"`
	Policies  map[string]any    `json:"policies"`
	Proposals map[string]any    `json:"proposals,omitempty"`
}

// inspect looks at the place that a vault is in; nil where there is nothing to look at.
func (c *command) inspect(ctx context.Context, s coldstore.Store) (*coldstore.Inspection, error) {
	x, ok := s.(coldstore.Inspector)
	if !ok {
		return nil, nil
	}
	var in coldstore.Inspection
	err := administer(ctx, func() (err error) { in, err = x.Inspect(ctx); return err })
	return &in, err
}

func inspectionJSON(in *coldstore.Inspection) *jsonInspection {
	if in == nil {
		return nil
	}
	j := &jsonInspection{Facts: map[string]string{}, Dangers: append([]string{}, in.Dangers...), Notes: append([]string{}, in.Notes...), Policies: map[string]any{}}
	for _, f := range in.Facts {
		j.Facts[f.Name] = f.Value
	}
	for _, d := range in.Policies {
		j.Policies[d.Name] = json.RawMessage(d.Text)
	}
	for _, d := range in.Proposals {
		if j.Proposals == nil {
			j.Proposals = map[string]any{}
		}
		j.Proposals[d.Name] = json.RawMessage(d.Text)
	}
	return j
}

// tellInspection says what was found; the documents are data.
func (c *command) tellInspection(in *coldstore.Inspection, documents bool) {
	if in == nil {
		return
	}
	t := newTable("SETTING", "VALUE")
	for _, f := range in.Facts {
		t.row(clean(f.Name), clean(f.Value))
	}
	t.print(c.output)
	for _, n := range in.Notes {
		c.talk("%s", n)
	}
	for _, d := range in.Dangers {
		c.warn("%s", d)
	}
	if !documents {
		return
	}
	for _, list := range [][]coldstore.Document{in.Policies, in.Proposals} {
		for _, d := range list {
			c.printf("\n# %s: %s\n", clean(d.Name), clean(d.For))
			c.showPolicy(d.Text)
		}
	}
}

// createVault makes a vault, or looks whether it can be in the place that the URL names.
func (c *command) createVault(ctx context.Context, a *app.App, name string, force bool) error {
	url, err := a.VaultURL(name)
	if err != nil {
		return err
	}
	s, err := a.CreateVault(ctx, url)
	if err != nil {
		return err
	}
	in, err := c.inspect(ctx, s)
	if err != nil {
		return err
	}
	if c.json {
		if err := c.document(jsonVault{Name: name, URL: url, Exists: true, Inspection: inspectionJSON(in)}); err != nil {
			return err
		}
	} else {
		c.tellInspection(in, true)
	}
	if in != nil && len(in.Dangers) > 0 && !force {
		err := failure.Errorf(failure.Failed, "%s: archives would be lost there", url)
		if c.json {
			err = failure.Errorf(failure.Failed, "%s: archives would be lost there: %s", url, in.Dangers[0])
		}
		return withHint(err, "change that and run this again; --force takes the place as it is")
	}
	switch {
	case c.json:
	case in != nil: // a place that was there before
		c.talk("%s can be used", url)
	default:
		c.talk("made %s", url)
	}
	return nil
}

// warnOfDangers says what in the place that a vault is in loses archives. What cannot be found out is passed over.
func (c *command) warnOfDangers(ctx context.Context, s coldstore.Store, log func(msg string, args ...any)) {
	x, ok := s.(coldstore.Inspector)
	if !ok {
		return
	}
	dangers, err := x.Dangers(ctx)
	if err != nil {
		log("look for dangers to the vault", "error", err)
	}
	for _, d := range dangers {
		log("danger to the vault", "what", d)
		c.warn("%s", d)
	}
}

func newVaultTidy(c *command) *cobra.Command {
	older := "7d"
	cmd := &cobra.Command{
		Use:   "tidy VAULT",
		Short: "Remove what interrupted work has left in a vault",
		Long: `Give up the uploads that were begun long ago and never ended, of Firn and of other programs: what was sent of
them is charged for. In a directory, also remove what operations that were cut short have left.
An upload that is going on, or may yet, must be younger than --older-than.`,
		Example: example("firn vault tidy offsite", "firn vault tidy offsite --older-than 30d"),
		Args:    args(1, 1, "one vault"),
		RunE: func(cmd *cobra.Command, args []string) error {
			age, err := units.ParseDuration(older)
			if err != nil || age < 0 {
				return usage("--older-than %s: that is not a time, such as 7d", older)
			}
			return c.tidyVault(cmd, args[0], age)
		},
	}
	cmd.Flags().StringVar(&older, "older-than", older, "leave alone what is younger than this `TIME`")
	return cmd
}

func (c *command) tidyVault(cmd *cobra.Command, vault string, age time.Duration) error {
	a, url, store, err := c.openVault(cmd, vault)
	if err != nil {
		return err
	}
	var done app.Tidied
	err = administer(cmd.Context(), func() (err error) {
		done, err = a.TidyVault(cmd.Context(), store, age)
		return err
	})
	if err != nil {
		return err
	}
	if c.json {
		return c.document(struct {
			URL     string `json:"url"`
			Uploads int    `json:"uploads"`
			Others  int    `json:"others"`
		}{url, done.Uploads, done.Others})
	}
	c.talk("%s: gave up %s, removed %s", url, plural(int64(done.Uploads), "upload"), plural(int64(done.Others), "leftover"))
	return nil
}

package cli

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"

	"github.com/spf13/cobra"

	"github.com/firn-backup/firn/internal/adopt"
	"github.com/firn-backup/firn/internal/app"
	"github.com/firn-backup/firn/internal/config"
)

// runFlags are those of firn run.
type runFlags struct {
	hopkiw string
	region string
	dry    bool
}

func (f *runFlags) add(cmd *cobra.Command) {
	fs := cmd.Flags()
	fs.StringVar(&f.hopkiw, "hopkiw", "", "run what a configuration `FILE` of hopkiw's glacier-backup says, instead of the config file's sets")
	fs.StringVar(&f.region, "region", "", "with --hopkiw: the `REGION` of its vault (default: AWS_REGION, else us-east-1)")
	fs.BoolVarP(&f.dry, "dry-run", "n", false, "with --hopkiw: say what would be stored")
}

// runHopkiw runs a configuration of hopkiw's glacier-backup as it is documented: each of its paths is a set, all of which are
// dealt with. Paths that are not there are left out.
func (c *command) runHopkiw(cmd *cobra.Command, f runFlags, names []string) error {
	if len(names) > 0 {
		return usage("--hopkiw runs all that its file names: no sets can be given")
	}
	conf, err := adopt.ReadHopkiwConfig(f.hopkiw)
	if err != nil {
		return err
	}
	if conf.LogFile != "" && !c.global.logFileSet {
		c.global.logFile, c.global.logFileSet = conf.LogFile, true
	}
	ctx := cmd.Context()
	a, err := c.open(cmd)
	if err != nil {
		return err
	}
	sets, err := c.hopkiwSets(ctx, a, conf, f)
	if err != nil {
		return err
	}
	var errs []error
	for _, s := range sets {
		if _, err := os.Stat(s.Path); errors.Is(err, fs.ErrNotExist) {
			c.talk("%s is not there: left out", clean(s.Path))
			continue
		}
		if ctx.Err() != nil {
			break
		}
		targets, err := a.Targets(ctx, []string{s.Name}, "")
		if err == nil {
			flags := backupFlags{}
			if f.dry {
				flags.dryRun = "plan"
			}
			err = c.backupSet(ctx, a, targets[0], flags)
		}
		if err != nil {
			err = fmt.Errorf("set %s: %w", s.Name, err)
		}
		errs = append(errs, err)
	}
	if len(errs) == 0 && ctx.Err() == nil {
		c.talk("%s: nothing that it asks for is there", clean(conf.File))
	}
	return c.together(errs)
}

// hopkiwSets are the paths of a configuration as sets, which the config has from then on.
func (c *command) hopkiwSets(ctx context.Context, a *app.App, conf *adopt.HopkiwConfig, f runFlags) ([]adopt.Set, error) {
	known, err := adoptKnown(a)
	if err != nil {
		return nil, err
	}
	region := f.region
	for _, name := range []string{"AWS_REGION", "AWS_DEFAULT_REGION"} {
		if v, ok := c.env.LookupEnv(name); ok && region == "" {
			region = v
		}
	}
	if region == "" {
		region = "us-east-1"
	}
	sets, err := adopt.HopkiwSets(ctx, conf, adopt.Options{Known: known, VaultURL: func(ctx context.Context, p adopt.Place) (string, error) {
		p.Region = region
		return c.adoptedVault(ctx, a, p, "account_id in [main] says which account it is without asking, or a vault %s of the config file where it is")
	}})
	if err != nil {
		return nil, err
	}
	db, err := a.Catalog(ctx, !f.dry)
	if err != nil && !noCatalog(err) {
		return nil, err
	}
	text, err := adopt.Named(ctx, db, sets, known, a.Now(), rand.Reader, !f.dry)
	if err != nil {
		return nil, err
	}
	more, err := config.Parse(conf.File, []byte(text), config.Options{})
	if err != nil {
		return nil, err
	}
	if a.Config.Vaults == nil {
		a.Config.Vaults = map[string]*config.Vault{}
	}
	if a.Config.Sets == nil {
		a.Config.Sets = map[string]*config.Set{}
	}
	maps.Copy(a.Config.Vaults, more.Vaults)
	maps.Copy(a.Config.Sets, more.Sets)
	return sets, nil
}

package cli

import (
	"github.com/spf13/cobra"

	"github.com/firn-backup/firn/internal/app"
	"github.com/firn-backup/firn/internal/transfer"
	"github.com/firn-backup/firn/internal/units"
)

// limitFlag is --limit-rate.
type limitFlag struct{ rates []string }

func (f *limitFlag) add(cmd *cobra.Command) {
	cmd.Flags().StringArrayVar(&f.rates, "limit-rate", nil, "move at most `RATE` bytes a second (500KiB, 20Mbit), or by time of day: '08:00-18:00 500KiB'; 0: no limit; repeatable")
	fromEnv(cmd, "limit-rate")
}

// limiter is the one that everything of this command goes through; nil: there is no limit. The flag
// counts before the config file.
func (c *command) limiter(a *app.App, f limitFlag) (*transfer.Limiter, error) {
	if c.limit != nil {
		return c.limit, nil
	}
	rates := []units.DayRate(a.Config.LimitRate)
	if len(f.rates) > 0 {
		var err error
		if rates, err = units.ParseDayRates(f.rates); err != nil {
			return nil, usage("--limit-rate: %v", err)
		}
	}
	c.limit = transfer.NewLimiter(rates, nil, nil)
	return c.limit, nil
}

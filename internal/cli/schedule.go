package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/firn-backup/firn/internal/app"
	"github.com/firn-backup/firn/internal/durable"
	"github.com/firn-backup/firn/internal/failure"
	"github.com/firn-backup/firn/internal/program"
	"github.com/firn-backup/firn/internal/timer"
)

type scheduleFlags struct {
	system, user, cron bool
	calendar, firn     string
	unit               string
}

func newSchedule(c *command) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "schedule",
		Short: "Have firn run looked after by systemd or cron",
		Long: `Install, remove or show what makes the machine run "firn run" every hour: a timer of
systemd, or a line of the crontab. When which set is due stands in the config file
(schedule = …); the timer only comes often enough.`,
		RunE: needCommand,
	}
	var f scheduleFlags
	sub := func(use, short string, run func(cmd *cobra.Command, f scheduleFlags) error, eg ...string) *cobra.Command {
		x := &cobra.Command{
			Use: use, Short: short, Example: example(eg...), Args: args(0, 0, "no arguments"),
			RunE: func(cmd *cobra.Command, _ []string) error {
				if f.system && f.user {
					return usage("--system and --user: which of them?")
				}
				if !f.user && !f.system {
					f.system = os.Geteuid() == 0
				}
				return run(cmd, f)
			},
		}
		x.Flags().BoolVar(&f.system, "system", false, "for the whole machine, run by root (default for root)")
		x.Flags().BoolVar(&f.user, "user", false, "for this user (default for all others)")
		x.Flags().BoolVar(&f.cron, "cron", false, "a line of this user's crontab, where there is no systemd")
		cmd.AddCommand(x)
		return x
	}
	what := func(x *cobra.Command) {
		x.Flags().StringVar(&f.calendar, "calendar", "", "when to look, as OnCalendar of systemd has it `WHEN`; cron knows hourly and daily (default hourly)")
		x.Flags().StringVar(&f.firn, "program", "", "`FILE` that is run (default: this one)")
	}
	what(sub("install", "Install it and switch it on; what was installed before is replaced", c.scheduleInstall, "firn schedule install", "firn schedule install --cron --calendar daily"))
	show := sub("show", "Print what would be installed", c.scheduleShow, "firn schedule show --unit timer")
	what(show)
	show.Flags().StringVar(&f.unit, "unit", "", "only this one: `service` or timer")
	sub("remove", "Switch it off and remove it", c.scheduleRemove, "firn schedule remove")
	return cmd
}

// timerOptions are what runs: this program, with the config file and catalog that this command was told of.
func (c *command) timerOptions(f scheduleFlags) (timer.Options, error) {
	o := timer.Options{Firn: f.firn, Calendar: f.calendar, System: f.system}
	if o.Firn == "" {
		self, err := os.Executable()
		if err != nil {
			return o, fmt.Errorf("find this program: %w", err)
		}
		if strings.Contains(self, string(filepath.Separator)+"go-build") {
			return o, withHint(usage("this program was made by go run and will be gone: %s", self), "make install, or --program FILE")
		}
		o.Firn = self
	}
	for _, x := range []struct{ flag, value string }{{"--config", c.global.config}, {"--catalog", c.global.catalog}} {
		if x.value == "" {
			continue
		}
		path, err := filepath.Abs(x.value)
		if err != nil {
			return o, err
		}
		o.Args = append(o.Args, x.flag, path)
	}
	return o, nil
}

func (c *command) scheduleShow(_ *cobra.Command, f scheduleFlags) error {
	o, err := c.timerOptions(f)
	if err != nil {
		return err
	}
	if f.cron {
		line, err := timer.CronLine(o)
		if err != nil {
			return failure.Wrap(failure.Usage, err)
		}
		c.printf("%s\n", line)
		return nil
	}
	units, err := timer.Units(o)
	if err != nil {
		return failure.Wrap(failure.Usage, err)
	}
	shown := 0
	for _, u := range units {
		if f.unit != "" && filepath.Ext(u.Name) != "."+f.unit {
			continue
		}
		if f.unit == "" {
			c.printf("# %s\n", u.Name)
		}
		c.printf("%s", u.Text)
		shown++
	}
	if shown == 0 {
		return usage("--unit %s: must be service or timer", f.unit)
	}
	return nil
}

// unitDir is where units of one's own go: systemd.unit(5).
func unitDir(a *app.App, system bool) string {
	if system {
		return "/etc/systemd/system"
	}
	return filepath.Join(filepath.Dir(filepath.Dir(a.Paths.Config)), "systemd", "user")
}

func (c *command) scheduleInstall(cmd *cobra.Command, f scheduleFlags) error {
	a, err := c.open(cmd)
	if err != nil {
		return err
	}
	o, err := c.timerOptions(f)
	if err != nil {
		return err
	}
	scheduled := 0
	for _, s := range a.Config.Sets {
		if !s.Schedule.IsZero() || s.Policy != "" {
			scheduled++
		}
	}
	if scheduled == 0 {
		c.warn("no set of the config file has a schedule yet: firn run will find nothing to do")
	}
	if f.cron {
		line, err := timer.CronLine(o)
		if err != nil {
			return failure.Wrap(failure.Usage, err)
		}
		return c.editCrontab(cmd.Context(), line)
	}
	units, err := timer.Units(o)
	if err != nil {
		return failure.Wrap(failure.Usage, err)
	}
	dir := unitDir(a, f.system)
	if err := durable.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("install the timer: %w", err)
	}
	for _, u := range units {
		if err := durable.WriteFile(filepath.Join(dir, u.Name), []byte(u.Text), 0o644); err != nil {
			return fmt.Errorf("install the timer: %w", err)
		}
		c.talk("wrote %s", filepath.Join(dir, u.Name))
	}
	for _, args := range [][]string{{"daemon-reload"}, {"enable", "--now", timer.Name + ".timer"}} {
		if err := c.systemctl(cmd.Context(), f.system, args...); err != nil {
			return withHint(err, "where there is no systemd: firn schedule install --cron")
		}
	}
	c.talk("firn run is run %s from now on; firn status tells how the sets are", orHourly(f.calendar))
	if !f.system {
		c.talk("so that it runs while you are not logged in: loginctl enable-linger")
	}
	return nil
}

func orHourly(calendar string) string {
	if calendar == "" {
		return "every hour"
	}
	return calendar
}

func (c *command) scheduleRemove(cmd *cobra.Command, f scheduleFlags) error {
	if f.cron {
		return c.editCrontab(cmd.Context(), "")
	}
	a, err := c.open(cmd)
	if err != nil {
		return err
	}
	dir := unitDir(a, f.system)
	if _, err := os.Lstat(filepath.Join(dir, timer.Name+".timer")); errors.Is(err, fs.ErrNotExist) {
		return failure.Errorf(failure.NotFound, "there is no %s in %s", timer.Name+".timer", dir)
	}
	// Where systemd is out of order, its files go all the same.
	err = c.systemctl(cmd.Context(), f.system, "disable", "--now", timer.Name+".timer")
	for _, ext := range []string{".timer", ".service"} {
		if rerr := os.Remove(filepath.Join(dir, timer.Name+ext)); rerr != nil && !errors.Is(rerr, fs.ErrNotExist) {
			err = errors.Join(err, rerr)
		}
	}
	return errors.Join(err, c.systemctl(cmd.Context(), f.system, "daemon-reload"))
}

// toolTime is how long systemctl and crontab may take.
const toolTime = time.Minute

func (c *command) systemctl(ctx context.Context, system bool, args ...string) error {
	argv := []string{"systemctl"}
	if !system {
		argv = append(argv, "--user")
	}
	return c.tool(ctx, program.Options{Argv: append(argv, args...)})
}

// tool runs a program of the system; what it says is part of its error.
func (c *command) tool(ctx context.Context, o program.Options) error {
	var said []string
	o.Timeout = toolTime
	o.Line = func(s string) { said = append(said, s) }
	if err := program.Run(ctx, o); err != nil {
		if len(said) > 0 {
			return fmt.Errorf("%w: %s", err, strings.Join(said, "; "))
		}
		return err
	}
	return nil
}

// editCrontab puts a line into this user's crontab, or, when it is empty, takes Firn's out.
func (c *command) editCrontab(ctx context.Context, line string) error {
	var had strings.Builder
	err := c.tool(ctx, program.Options{Argv: []string{"crontab", "-l"}, Env: []string{"LC_ALL=C"}, Stdout: &had})
	if err != nil && !strings.Contains(err.Error(), "no crontab for") {
		return err
	}
	now := timer.WithCronLine(had.String(), line)
	if now == had.String() {
		if line == "" {
			return failure.Errorf(failure.NotFound, "there is no line of Firn's in the crontab")
		}
		c.talk("the crontab has the line already")
		return nil
	}
	if err := c.tool(ctx, program.Options{Argv: []string{"crontab", "-"}, Stdin: bytes.NewReader([]byte(now))}); err != nil {
		return err
	}
	if line != "" {
		c.talk("the crontab has now: %s", line)
	} else {
		c.talk("the line is gone from the crontab")
	}
	return nil
}

// Package cli is Firn's command line: what the commands and flags are, what
// they print and with which code they exit. One file a command; all output
// passes through output.go. What the commands do is done by the use cases; what
// they do it with comes from package app.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/firn-backup/firn/internal/app"
	"github.com/firn-backup/firn/internal/failure"
	"github.com/firn-backup/firn/internal/transfer"
	"github.com/firn-backup/firn/internal/units"
)

// Env is the world that a command runs in.
type Env struct {
	Args           []string // without the program's name
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	LookupEnv      func(string) (string, bool)
	Now            func() time.Time
	Build          Build
}

// longID is how long an unknown run of letters after a - is at least where it is taken for the id of a service's, and not for flags.
const longID = 20

// command is what every command has at hand.
type command struct {
	*output
	env     Env
	global  globals
	app     *app.App // nil until open
	limit   *transfer.Limiter
	lastRun lastRun
	started bool // flags and arguments were good, and the command itself began
}

type globals struct {
	config, catalog, logFile, logLevel, now, format string
	logFileSet                                      bool
}

// Run runs one command line and returns the exit code.
func Run(ctx context.Context, env Env) int {
	c := &command{env: env, output: &output{stdout: env.Stdout, stderr: env.Stderr}}
	root := newRoot(c)
	root.SetArgs(env.Args)
	root.SetIn(env.Stdin)
	root.SetOut(env.Stdout)
	root.SetErr(env.Stderr)
	err := root.ExecuteContext(ctx)
	if c.app != nil {
		err = errors.Join(err, c.app.Close())
	}
	if err == nil {
		err = c.failure()
	}
	switch {
	case err == nil:
	case ctx.Err() != nil && (errors.Is(err, context.Canceled) || failure.KindOf(err) == failure.Failed):
		err = failure.Wrap(failure.Interrupted, err)
	case !c.started && failure.KindOf(err) == failure.Failed: // cobra's own complaints
		err = withHint(failure.Wrap(failure.Usage, err), "firn help lists the commands, firn COMMAND --help the flags of one")
	}
	return c.report(err)
}

// newRoot is the list of commands: a new one gets a line here.
func newRoot(c *command) *cobra.Command {
	root := &cobra.Command{
		Use:   "firn",
		Short: "Back up to cold storage, and get it back",
		Long: `Firn backs up directories, ZFS and btrfs snapshots and any program's output to cold
storage, and gets them back. What it stores are standard streams: tar (or what zfs
send and btrfs send make), compressed by zstd, encrypted by age.

  firn backup ~/Documents                 back up; the first time makes key, catalog and vault
  firn restore Documents --to ./back      get the newest snapshot back
  firn key show                           the key, to be printed and kept`,
		SilenceUsage:  true,
		SilenceErrors: true,

		SuggestionsMinimumDistance: 2,
		CompletionOptions:          cobra.CompletionOptions{DisableDefaultCmd: true},
		PersistentPreRunE:          c.prepare,
		Args:                       cobra.ArbitraryArgs,
		RunE:                       needCommand,
	}
	root.SetUsageTemplate(strings.ReplaceAll(root.UsageTemplate(), ".FlagUsages", ".FlagUsagesWrapped 100"))
	root.SetHelpCommand(newHelp())
	root.SetHelpCommandGroupID("about") // of that command
	f := root.PersistentFlags()
	f.StringVar(&c.global.config, "config", "", "config `FILE`; empty: none (default ~/.config/firn/config.toml)")
	f.StringVar(&c.global.catalog, "catalog", "", "catalog `FILE` (default ~/.local/state/firn/catalog.db)")
	f.BoolVar(&c.output.json, "json", false, "print JSON: one document for lists, a line an event for long runs")
	f.StringVar(&c.global.format, "format", "", "print lists as `FORM`: table, csv or json")
	f.BoolVarP(&c.output.quiet, "quiet", "q", false, "print warnings and errors only")
	f.BoolVarP(&c.output.verbose, "verbose", "v", false, "print a line for each file or archive")
	f.StringVar(&c.global.logFile, "log-file", "", "also append the run's log to `FILE`; empty: none")
	f.StringVar(&c.global.logLevel, "log-level", "", "debug, info, warn or error (default info)")
	f.StringVar(&c.global.now, "now", "", "the `TIME` it is, for tests and rehearsals")
	_ = f.MarkHidden("now") // it exists
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		if unknown := (*pflag.NotExistError)(nil); errors.As(err, &unknown) && len(unknown.GetSpecifiedShortnames()) >= longID {
			return withHint(failure.Wrap(failure.Usage, err), "an id that begins with - is written id:ID")
		}
		return withHint(failure.Wrap(failure.Usage, err), "%s --help lists the flags", cmd.CommandPath())
	})
	root.AddGroup(
		&cobra.Group{ID: "work", Title: "Back up and restore:"},
		&cobra.Group{ID: "look", Title: "Look:"},
		&cobra.Group{ID: "manage", Title: "Keys and vaults:"},
		&cobra.Group{ID: "about", Title: "Other:"},
	)
	add := func(group string, commands ...*cobra.Command) {
		for _, x := range commands {
			x.GroupID = group
			root.AddCommand(x)
		}
	}
	add("work",
		newBackup(c),
		newPrune(c),
		newRestore(c),
		newRun(c),
		newVerify(c),
		newRecover(c),
		newAdopt(c),
	)
	add("look",
		newStatus(c),
		newPlan(c),
		newSnapshots(c),
		newLs(c),
		newFeed(c),
		newFind(c),
		newDiff(c),
		newLog(c),
	)
	add("manage",
		newKey(c),
		newArchive(c),
		newVault(c),
		newJob(c),
		newServe(c),
		newSchedule(c),
	)
	add("about",
		newTreehash(c),
		newVersion(c),
		newCompletion(c),
		newMan(c),
		newInstallGlacier(c),
	)
	fillTexts(root)
	completeArguments(c, root)
	completeFlag(c, root, "format")
	completeFlag(c, root, "log-level")
	return root
}

// needCommand is what a command does that only has commands below it.
func needCommand(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		err := usage("unknown command %q for %q", args[0], cmd.CommandPath())
		if s := cmd.SuggestionsFor(args[0]); len(s) > 0 {
			return withHint(err, "did you mean %s?", strings.Join(s, " or "))
		}
		return withHint(err, "%s --help lists the commands", cmd.CommandPath())
	}
	cmd.SetOut(cmd.ErrOrStderr())
	_ = cmd.Help() // writes to stderr, where nobody hears of an error
	return usage("%s: which command?", cmd.CommandPath())
}

// envFlag lets a flag be set by the environment too: FIRN_ and its name. The
// global flags all are.
const envFlag = "firn-env"

// fromEnv marks flags of a command as settable by the environment.
func fromEnv(cmd *cobra.Command, names ...string) {
	for _, n := range names {
		if err := cmd.Flags().SetAnnotation(n, envFlag, []string{"true"}); err != nil {
			panic(err) // a flag that does not exist: found by any test
		}
	}
}

func envName(flag string) string {
	return "FIRN_" + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// prepare runs before every command: the environment's part of the flags, and
// what can be said about the global ones.
func (c *command) prepare(cmd *cobra.Command, _ []string) error {
	var err error
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		_, marked := f.Annotations[envFlag]
		if err != nil || f.Changed || !(marked || cmd.Root().PersistentFlags().Lookup(f.Name) == f) {
			return
		}
		if v, ok := c.env.LookupEnv(envName(f.Name)); ok && v != "" {
			if e := cmd.Flags().Set(f.Name, v); e != nil {
				err = usage("environment: %s=%s: not a value for --%s", envName(f.Name), v, f.Name)
			}
		}
	})
	if err != nil {
		return err
	}
	if err := c.setFormat(cmd); err != nil {
		return err
	}
	c.global.logFileSet = cmd.Flags().Changed("log-file")
	if c.global.now != "" {
		at, _, err := units.ParseTime(c.global.now, time.Local)
		if err != nil {
			return usage("--now: %v", err)
		}
		c.env.Now = func() time.Time { return at }
	}
	c.started = true
	return nil
}

// exactArgs is cobra.ExactArgs with a message that says what is wanted.
func args(least, most int, what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) < least || (most >= 0 && len(args) > most) {
			return withHint(usage("%s takes %s, not %s", cmd.CommandPath(), what, plural(int64(len(args)), "argument")), "usage: %s", cmd.UseLine())
		}
		return nil
	}
}

// example indents lines of examples as cobra's help wants them.
func example(lines ...string) string {
	return fmt.Sprintf("  %s", strings.Join(lines, "\n  "))
}

package cli

import (
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/firn-backup/firn/internal/app"
	"github.com/firn-backup/firn/internal/catalog"
	"github.com/firn-backup/firn/internal/config"
)

// What the shell is offered: sets, vaults and dates, by what a command's usage says that it takes. Nothing is asked of a vault, and
// what cannot be read is not offered: a shell has no place for errors.

// candidates are words for an argument that begins with typed.
type candidates func(cmd *cobra.Command, typed string) []string

// completeArguments gives each command below cmd the completion that its usage and flags call for.
func completeArguments(c *command, cmd *cobra.Command) {
	for _, x := range cmd.Commands() {
		completeArguments(c, x)
	}
	cmd.LocalNonPersistentFlags().VisitAll(func(f *pflag.Flag) { completeFlag(c, cmd, f.Name) })
	operands := strings.TrimPrefix(cmd.Use, cmd.Name())
	if cmd.ValidArgsFunction != nil || len(cmd.ValidArgs) > 0 || operands == "" || strings.HasPrefix(operands, " -") {
		return
	}
	operands = strings.TrimSpace(operands)
	first, rest, _ := strings.Cut(operands, " ")
	if strings.HasPrefix(operands, "[") {
		first, rest, _ = strings.Cut(operands, "]")
		first, rest = first[1:], strings.TrimSpace(strings.TrimPrefix(rest, "…"))
		if strings.HasPrefix(operands, "["+first+"]…") {
			first += "…"
		}
	}
	words := wordsFor(c, first)
	if words == nil {
		return
	}
	again := strings.HasSuffix(first, "…") || strings.HasPrefix(rest, "[SET")
	files := strings.Contains(first, "PATH")
	filesAfter := strings.Contains(rest, "FILE") || strings.Contains(rest, "DIR") || strings.Contains(rest, "PATH")
	cmd.ValidArgsFunction = func(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
		switch {
		case len(args) > 0 && !again && filesAfter:
			return nil, cobra.ShellCompDirectiveDefault
		case len(args) > 0 && !again:
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		list := words(cmd, typed)
		if files {
			return list, cobra.ShellCompDirectiveDefault
		}
		how := cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveKeepOrder
		if strings.Contains(first, "@") && !strings.Contains(typed, "@") {
			how |= cobra.ShellCompDirectiveNoSpace // an @ may follow
		}
		return list, how
	}
}

// wordsFor are the candidates for an operand of a usage line; nil: nothing is known of it.
func wordsFor(c *command, operand string) candidates {
	switch {
	case strings.HasPrefix(operand, "SET") && strings.Contains(operand, "@"):
		return c.completeWhen
	case strings.HasPrefix(operand, "SET|VAULT"):
		return func(cmd *cobra.Command, typed string) []string {
			return append(c.completeSet(cmd, typed), c.completeVault(cmd, typed)...)
		}
	case strings.HasPrefix(operand, "SET"), strings.HasSuffix(operand, "| SET"):
		return c.completeSet
	case strings.HasPrefix(operand, "VAULT"):
		return c.completeVault
	}
	return nil
}

func completeFlag(c *command, cmd *cobra.Command, name string) {
	fixed := map[string][]string{
		"format": {"table", "csv", "json"}, "log-level": {"debug", "info", "warn", "error"},
		"overwrite": {"never", "always"}, "tier": {"expedited", "standard", "bulk"},
	}
	var words candidates
	switch {
	case fixed[name] != nil:
		words = func(*cobra.Command, string) []string { return fixed[name] }
	case name == "vault":
		words = c.completeVault
	case name == "set":
		words = c.completeSet
	default:
		return
	}
	err := cmd.RegisterFlagCompletionFunc(name, func(cmd *cobra.Command, _ []string, typed string) ([]string, cobra.ShellCompDirective) {
		return words(cmd, typed), cobra.ShellCompDirectiveNoFileComp
	})
	if err != nil {
		panic(err) // twice, or no flag: found by any test
	}
}

// beginnings are those that begin with typed, in their order, each once.
func beginnings(list []string, typed string) []string {
	var found []string
	for _, s := range list {
		if strings.HasPrefix(s, typed) && clean(s) == s && !slices.Contains(found, s) {
			found = append(found, s)
		}
	}
	return found
}

// forCompletion opens Firn for a completion; nil: it cannot be opened. cobra does not run prepare before one.
func (c *command) forCompletion(cmd *cobra.Command) *app.App {
	c.quiet = true
	if err := c.prepare(cmd, nil); err != nil {
		return nil
	}
	a, err := c.open(cmd)
	if err != nil {
		return nil
	}
	return a
}

func (c *command) completeSet(cmd *cobra.Command, typed string) []string {
	a := c.forCompletion(cmd)
	if a == nil {
		return nil
	}
	var names []string
	for name := range a.Config.Sets {
		names = append(names, name)
	}
	sets, err := someSets(cmd.Context(), a, nil)
	if err != nil {
		sets = nil // the config's are known
	}
	for _, s := range sets {
		names = append(names, setLabel(a, s))
	}
	slices.Sort(names)
	return beginnings(names, typed)
}

func (c *command) completeVault(cmd *cobra.Command, typed string) []string {
	a := c.forCompletion(cmd)
	if a == nil {
		return nil
	}
	known, err := knownVaults(cmd.Context(), a)
	if err != nil {
		return nil
	}
	var names, urls []string
	for _, v := range known {
		if a.Config.Vaults[v.Name] != nil {
			names = append(names, v.Name)
		}
		urls = append(urls, v.URL)
	}
	return beginnings(append(names, urls...), typed)
}

// completeWhen completes SET@WHEN: sets before the @, and behind it the days that have snapshots (times, where a day has
// several), the newest first.
func (c *command) completeWhen(cmd *cobra.Command, typed string) []string {
	name, _, at := strings.Cut(typed, "@")
	if !at {
		return c.completeSet(cmd, typed)
	}
	a := c.forCompletion(cmd)
	if a == nil {
		return nil
	}
	set, err := a.FindSet(cmd.Context(), name)
	if err != nil {
		return nil
	}
	times, err := snapshotTimes(cmd, a, set)
	if err != nil {
		return nil
	}
	days := map[string]int{}
	for _, t := range times {
		days[t.Format(time.DateOnly)]++
	}
	list := []string{}
	for _, t := range slices.Backward(times) {
		day := t.Format(time.DateOnly)
		list = append(list, name+"@"+day)
		if days[day] > 1 {
			list = append(list, name+"@"+t.Format("2006-01-02T15:04:05"))
		}
	}
	return beginnings(append(list, name+"@latest"), typed)
}

// snapshotTimes are the local times of a set's stored snapshots, in their order.
func snapshotTimes(cmd *cobra.Command, a *app.App, set catalog.Set) ([]time.Time, error) {
	db, err := a.Catalog(cmd.Context(), false)
	if err != nil {
		return nil, err
	}
	var times []time.Time
	if set.Kind == config.KindItems || set.Kind == config.KindMirror {
		runs, err := db.ItemRuns(cmd.Context(), set.ID)
		for _, r := range runs {
			times = append(times, r.At.Local())
		}
		return times, err
	}
	snaps, err := db.Snapshots(cmd.Context(), set.ID)
	for _, s := range snaps {
		if s.State == catalog.Stored {
			times = append(times, s.At.Local())
		}
	}
	return times, err
}

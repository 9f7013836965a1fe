package cli

import (
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/firn-backup/firn/internal/catalog"
	"github.com/firn-backup/firn/internal/plain"
	"github.com/firn-backup/firn/internal/units"
)

// selectedFlags say which archives of a vault are deleted without naming each.
type selectedFlags struct {
	listArchivesFlags
	yes, dry bool
}

func (s *selectedFlags) addTo(fs *pflag.FlagSet) {
	s.add(fs)
	fs.BoolVarP(&s.yes, "yes", "y", false, "do not ask")
	fs.BoolVarP(&s.dry, "dry-run", "n", false, "say which archives the flags select, and delete nothing")
}

// check refuses what does not go together.
func (s *selectedFlags) check(cmd *cobra.Command, refs []string, force bool) error {
	if err := given(cmd, s.filters()...); err != nil {
		return err
	}
	selects := false
	for _, name := range s.filters() {
		selects = selects || cmd.Flags().Changed(name)
	}
	switch {
	case len(refs) == 0 && !selects:
		return withHint(usage("it takes archives, or flags that select some"), "firn vault empty VAULT deletes all")
	case len(refs) > 0 && (selects || s.dry):
		return usage("it takes either archives or flags that select some")
	case len(refs) == 0 && force:
		return usage("what snapshots need is deleted by name: --force goes with archives")
	}
	return nil
}

// deleteSelected deletes what flags select, but for what is needed or too young.
func (c *command) deleteSelected(cmd *cobra.Command, vault string, s selectedFlags, early bool) error {
	ctx := cmd.Context()
	a, v, err := c.plainVault(cmd, vault)
	if err != nil {
		return err
	}
	fits, err := s.filter(a.Now())
	if err != nil {
		return err
	}
	var list []catalog.ArchiveRecord
	if err := v.Each(ctx, func(r catalog.ArchiveRecord) error {
		if fits(&r) {
			list = append(list, r)
		}
		return nil
	}); err != nil {
		return err
	}
	list, needed, young, err := v.Free(ctx, list, early)
	if err != nil {
		return err
	}
	var size int64
	unknown := 0
	for _, r := range list {
		if size += r.Size; !sizeKnown(&r) {
			unknown++
		}
		if s.dry && c.json {
			if err := c.line(archiveJSON(r)); err != nil {
				return err
			}
		} else if !s.yes || s.dry {
			c.talk("%s %s (%s, stored %s)", map[bool]string{true: "would delete", false: "to be deleted:"}[s.dry], plain.Title(r), deletedSize(&r), c.stamp(r.Created))
		}
	}
	if needed > 0 {
		c.talk("%s left out: sets need them, or they are Firn's own (firn prune)", plural(int64(needed), "archive"))
	}
	if young > 0 {
		c.talk("%s left out: their minimum storage durations are not over (--allow-early-delete deletes them)", plural(int64(young), "archive"))
	}
	sum := units.Size(size)
	if unknown > 0 {
		sum += fmt.Sprintf(" and what %d of unknown size have", unknown)
	}
	if s.dry || len(list) == 0 {
		c.talk("%s selected, %s; nothing was deleted", plural(int64(len(list)), "archive"), sum)
		return nil
	}
	if !s.yes {
		if err := c.mayDelete(cmd, fmt.Sprintf("Delete %s, %s? [y/N] ", plural(int64(len(list)), "archive"), sum)); err != nil {
			return err
		}
	}
	return c.deleteThem(ctx, a, v, list, plain.DeleteOptions{AllowEarly: early})
}

// deletedSize is the size of an archive within a sentence.
func deletedSize(r *catalog.ArchiveRecord) string {
	if !sizeKnown(r) {
		return "of unknown size"
	}
	return units.Size(r.Size)
}

// mayDelete asks on the terminal.
func (c *command) mayDelete(cmd *cobra.Command, question string) error {
	tty, err := os.OpenFile("/dev/tty", os.O_RDWR, 0)
	if err != nil {
		return withHint(usage("this must be confirmed, and there is no terminal to ask on"), "--yes says that you mean it, --dry-run shows what it is")
	}
	defer tty.Close() // it was only asked
	answer, err := c.askLine(cmd.Context(), tty, question)
	if err != nil {
		return err
	}
	if answer = strings.ToLower(strings.TrimSpace(answer)); answer != "y" && answer != "yes" {
		return usage("nothing was done")
	}
	return nil
}

package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
)

func newInstallGlacier(c *command) *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use:   "install-glacier [DIR]",
		Short: "Make the command glacier, for git-annex and old scripts",
		Long: `Make a link called glacier to this program, in the directory that it lies in or in
another. Called by that name Firn is glacier-cli, as git-annex's Glacier remotes and
scripts use it. A file of that name that is something else is left alone.`,
		Example: example("firn install-glacier", "firn install-glacier ~/bin"),
		Args:    args(0, 1, "one directory at most"),
		RunE: func(_ *cobra.Command, args []string) error {
			program, err := os.Executable()
			if err != nil {
				return err
			}
			dir := filepath.Dir(program)
			if len(args) == 1 {
				if dir, err = filepath.Abs(args[0]); err != nil {
					return err
				}
			}
			return c.installGlacier(program, dir, force)
		},
	}
	cmd.Flags().BoolVar(&force, "force", false, "replace whatever has that name")
	return cmd
}

func (c *command) installGlacier(program, dir string, force bool) error {
	link := filepath.Join(dir, "glacier")
	target := program
	if filepath.Dir(program) == dir {
		target = filepath.Base(program) // goes with the directory
	}
	if info, err := os.Stat(dir); err != nil || !info.IsDir() {
		return usage("%s is not a directory", dir)
	}
	_, err := os.Lstat(link)
	switch {
	case err == nil && linksTo(link, program):
		c.talk("%s is there already", link)
		return nil
	case err == nil && !force:
		return withHint(usage("%s exists, and is something else", link), "--force replaces it")
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return err
	}
	// Whoever calls it meanwhile finds the old one or the new one.
	temp := filepath.Join(dir, fmt.Sprintf(".glacier-%d", os.Getpid()))
	if err := os.Symlink(target, temp); err != nil {
		return err
	}
	if err := os.Rename(temp, link); err != nil {
		return errors.Join(err, os.Remove(temp))
	}
	c.printf("%s\n", clean(link))
	return nil
}

// linksTo says whether a link leads to a program.
func linksTo(link, program string) bool {
	a, err := filepath.EvalSymlinks(link)
	if err != nil {
		return false
	}
	b, err := filepath.EvalSymlinks(program)
	return err == nil && a == b
}

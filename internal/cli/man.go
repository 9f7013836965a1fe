package cli

import (
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

func newMan(c *command) *cobra.Command {
	return &cobra.Command{
		Use:     "man DIR",
		Short:   "Write the manual pages into a directory",
		Example: example("firn man /usr/local/share/man/man1"),
		Args:    args(1, 1, "a directory"),
		RunE: func(cmd *cobra.Command, dir []string) error {
			if err := os.MkdirAll(dir[0], 0o755); err != nil {
				return err
			}
			root := cmd.Root()
			root.DisableAutoGenTag = true // it would hold today's date
			b := c.env.Build.complete()
			header := &doc.GenManHeader{Section: "1", Source: "Firn " + b.Version, Manual: "Firn"}
			if t, err := time.Parse(time.RFC3339, b.Date); err == nil {
				header.Date = &t
			}
			if err := doc.GenManTree(root, header, dir[0]); err != nil {
				return fmt.Errorf("write manual pages: %w", err)
			}
			pages, err := filepath.Glob(filepath.Join(dir[0], "firn*.1"))
			if err != nil {
				return err
			}
			c.talk("%s in %s", plural(int64(len(pages)), "page"), dir[0])
			return nil
		},
	}
}

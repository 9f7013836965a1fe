package cli

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// Build is which Firn this is. What is empty is taken from what the Go tool
// writes into the binary.
type Build struct {
	Version, Commit, Date string
}

func (b Build) complete() Build {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return b
	}
	if b.Version == "" {
		b.Version = info.Main.Version
	}
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision" && b.Commit == "":
			b.Commit = s.Value[:min(12, len(s.Value))]
		case s.Key == "vcs.time" && b.Date == "":
			b.Date = s.Value
		}
	}
	if b.Version == "" {
		b.Version = "(devel)"
	}
	return b
}

func newVersion(c *command) *cobra.Command {
	return &cobra.Command{
		Use:     "version",
		Short:   "Print which Firn this is",
		Example: example("firn version"),
		Args:    args(0, 0, "no arguments"),
		RunE: func(*cobra.Command, []string) error {
			b := c.env.Build.complete()
			if c.json {
				return c.document(struct {
					Version string `json:"version"`
					Commit  string `json:"commit,omitempty"`
					Date    string `json:"date,omitempty"`
					Go      string `json:"go"`
					OS      string `json:"os"`
					Arch    string `json:"arch"`
				}{b.Version, b.Commit, b.Date, runtime.Version(), runtime.GOOS, runtime.GOARCH})
			}
			text := "firn " + b.Version
			if b.Commit != "" {
				text += fmt.Sprintf(" (%s", b.Commit)
				if b.Date != "" {
					text += ", " + b.Date
				}
				text += ")"
			}
			c.printf("%s, %s %s/%s\n", text, runtime.Version(), runtime.GOOS, runtime.GOARCH)
			return nil
		},
	}
}

package cli

import (
	"github.com/spf13/cobra"
)

// oneWord makes SET@WHEN one word for bash, which ends words at an @ otherwise.
const oneWord = "COMP_WORDBREAKS=${COMP_WORDBREAKS//@/}\n"

func newCompletion(c *command) *cobra.Command {
	return &cobra.Command{
		Use:   "completion SHELL",
		Short: "Print the completion script for a shell",
		Long: `Print the completion script for bash (with its package bash-completion), zsh or
fish. Commands, flags, sets, vaults and the dates of snapshots (SET@…) complete.`,
		Example: example("firn completion bash > ~/.local/share/bash-completion/completions/firn",
			"firn completion zsh > \"${fpath[1]}/_firn\"",
			"firn completion fish > ~/.config/fish/completions/firn.fish"),
		Args:      args(1, 1, "the name of a shell"),
		ValidArgs: []string{"bash", "zsh", "fish"},
		RunE: func(cmd *cobra.Command, shell []string) error {
			root := cmd.Root()
			switch shell[0] {
			case "bash":
				if err := root.GenBashCompletionV2(c, true); err != nil {
					return err
				}
				c.printf("%s", oneWord)
				return nil
			case "zsh":
				return root.GenZshCompletion(c)
			case "fish":
				return root.GenFishCompletion(c, true)
			}
			return usage("completion: unknown shell %q (bash, zsh or fish)", shell[0])
		},
	}
}

// Write is data to stdout, for what writes by itself.
func (o *output) Write(p []byte) (int, error) {
	o.printf("%s", p)
	return len(p), o.failed
}

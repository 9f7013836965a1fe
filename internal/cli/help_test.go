package cli

import (
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// Each command that does something has an example of itself, and says in a line what it is for.
func TestHelp(t *testing.T) {
	t.Parallel()
	var all func(cmd *cobra.Command)
	all = func(cmd *cobra.Command) {
		for _, x := range cmd.Commands() {
			all(x)
			path := x.CommandPath()
			if x.Short == "" || strings.HasSuffix(x.Short, ".") || strings.Contains(x.Short, "\n") || len([]rune(x.Short)) > 80 {
				t.Errorf("%s: %q is not a line that says what it is for", path, x.Short)
			}
			if !x.HasSubCommands() && !strings.Contains(x.Example, path) {
				t.Errorf("%s has no example of itself", path)
			}
			for line := range strings.Lines(x.Long) {
				if n := len([]rune(strings.TrimRight(line, "\n"))); n > textWidth {
					t.Errorf("%s: a line of its text has %d characters", path, n)
				}
			}
		}
	}
	all(newRoot(&command{output: &output{}}))
}

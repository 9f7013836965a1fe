package cli

import (
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/spf13/cobra"
)

// newHelp is cobra's help command, for which a command that does not exist is wrong usage.
func newHelp() *cobra.Command {
	return &cobra.Command{
		Use:     "help [COMMAND]…",
		Short:   "Show how a command is used",
		Example: example("firn help backup", "firn help vault sync"),
		RunE: func(cmd *cobra.Command, args []string) error {
			of, rest, err := cmd.Root().Find(args)
			if err != nil || len(rest) > 0 {
				return needCommand(of, rest)
			}
			of.InitDefaultHelpFlag()
			return of.Help()
		},
		ValidArgsFunction: func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			of, _, err := cmd.Root().Find(args)
			if err != nil {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			var names []string
			for _, sub := range of.Commands() {
				if sub.IsAvailableCommand() {
					names = append(names, sub.Name()+"\t"+sub.Short)
				}
			}
			return names, cobra.ShellCompDirectiveNoFileComp
		},
	}
}

// textWidth is how wide the texts of helps are at most, columns.
const textWidth = 84

// fillTexts fills the long texts of all commands below cmd to a terminal's width.
func fillTexts(cmd *cobra.Command) {
	for _, x := range cmd.Commands() {
		fillTexts(x)
		x.Long = fill(x.Long)
	}
}

// fill breaks paragraphs with lines that are too long anew. Those with indented lines or a list stay as they are.
func fill(text string) string {
	paragraphs := strings.Split(text, "\n\n")
	for i, p := range paragraphs {
		lines := strings.Split(p, "\n")
		tooLong := slices.ContainsFunc(lines, func(l string) bool { return utf8.RuneCountInString(l) > textWidth })
		if !tooLong || slices.ContainsFunc(lines, func(l string) bool { return strings.HasPrefix(l, " ") || strings.HasPrefix(l, "- ") }) {
			continue
		}
		var b strings.Builder
		column := 0
		for _, w := range strings.Fields(p) {
			n := utf8.RuneCountInString(w)
			switch {
			case column == 0:
			case column+1+n > textWidth:
				b.WriteByte('\n')
				column = 0
			default:
				b.WriteByte(' ')
				column++
			}
			b.WriteString(w)
			column += n
		}
		paragraphs[i] = b.String()
	}
	return strings.Join(paragraphs, "\n\n")
}

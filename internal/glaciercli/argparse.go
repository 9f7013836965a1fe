package glaciercli

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// This file reads command lines as Python's argparse does, which scripts and git-annex rely on: options anywhere
// among the arguments, long ones abbreviated, values glued on, "--" before what only looks like an option
// (docs/adr/0140). It is a little more tolerant in one thing: arguments of a list may be apart.

// option is one that a command takes.
type option struct {
	long, short string // "--name", "-o"; either may be empty
	value       string // what it is called in help; empty: it takes none
	number      bool   // a whole number
	help        string
}

func (o *option) String() string { return strings.Trim(o.short+"/"+o.long, "/") }

// argument is a positional one. Only the last may be many.
type argument struct {
	name string
	many bool
	help string
}

// parser is one level of the command line.
type parser struct {
	prog      string
	about     string
	options   []option
	arguments []argument
}

// parsed is what a command line said.
type parsed struct {
	given   map[string]string // by option's long name, or its short one where it has none; flags are ""
	numbers map[string]int64
	args    []string // as many as there are arguments, and those of a list after them
	at      []int    // where each of args stood
}

// stray is an option that is not known, and where it stood.
type stray struct {
	text string
	at   int
}

func (p *parsed) has(name string) bool { _, ok := p.given[name]; return ok }

// usageError is one of wrong usage: exit code 2, after the usage of prog.
type usageError struct {
	usage string
	prog  string
	text  string
}

func (e *usageError) Error() string { return e.text }

// helpWanted asks for help.
type helpWanted struct{ text string }

func (h *helpWanted) Error() string { return "help is wanted" }

func (p *parser) fail(format string, args ...any) error {
	return &usageError{p.usage(), p.prog, fmt.Sprintf(format, args...)}
}

// isNumber is argparse's idea of a negative number, which is no option.
func isNumber(s string) bool {
	whole, fraction, dotted := strings.Cut(s[1:], ".")
	digits := func(s string) bool { return strings.Trim(s, "0123456789") == "" }
	return digits(whole) && digits(fraction) && (dotted && fraction != "" || !dotted && whole != "")
}

// match finds the option that an argument is. ok is false for what is no option; opt is nil for one that is not known.
func (p *parser) match(arg string) (opt *option, value string, glued, ok bool, err error) {
	if len(arg) < 2 || arg[0] != '-' {
		return nil, "", false, false, nil
	}
	name, value, glued := strings.Cut(arg, "=")
	for i := range p.options {
		if o := &p.options[i]; arg == o.long || arg == o.short {
			return o, "", false, true, nil
		}
	}
	for i := range p.options {
		if o := &p.options[i]; glued && (name == o.long || name == o.short) {
			return o, value, true, true, nil
		}
	}
	var found []*option
	var said []string
	for i := range p.options {
		o := &p.options[i]
		switch {
		case strings.HasPrefix(arg, "--"):
			if !strings.HasPrefix(o.long, name) {
				continue
			}
			said = append(said, o.long)
		case o.short != "" && strings.HasPrefix(arg, o.short):
			value, glued = arg[len(o.short):], true
			said = append(said, o.short)
		default:
			continue
		}
		found = append(found, o)
	}
	switch {
	case len(found) > 1:
		return nil, "", false, true, p.fail("ambiguous option: %s could match %s", arg, strings.Join(said, ", "))
	case len(found) == 1:
		return found[0], value, glued, true, nil
	case isNumber(arg), strings.Contains(arg, " "):
		return nil, "", false, false, nil
	}
	return nil, "", false, true, nil
}

// parse reads a command line. stop says that the first positional argument ends it, which is then in rest with
// what follows. unknown are options that p does not have.
func (p *parser) parse(args []string, stop bool) (out *parsed, rest []string, unknown []stray, err error) {
	out = &parsed{given: map[string]string{}, numbers: map[string]int64{}}
	for i := 0; i < len(args); i++ {
		if args[i] == "--" {
			for i++; i < len(args); i++ {
				out.args, out.at = append(out.args, args[i]), append(out.at, i)
			}
			break
		}
		o, value, glued, is, err := p.match(args[i])
		switch {
		case err != nil:
			return nil, nil, nil, err
		case !is && stop:
			return out, args[i:], unknown, nil
		case !is:
			out.args, out.at = append(out.args, args[i]), append(out.at, i)
			continue
		case o == nil:
			unknown = append(unknown, stray{args[i], i})
			continue
		case o.long == "--help":
			return nil, nil, nil, &helpWanted{p.help()}
		case o.value == "":
			if glued {
				return nil, nil, nil, p.fail("argument %s: ignored explicit argument %s", o, repr(value))
			}
		case !glued:
			if i+1 == len(args) || args[i+1] == "--" || p.isOption(args[i+1]) {
				return nil, nil, nil, p.fail("argument %s: expected one argument", o)
			}
			i++
			value = args[i]
		}
		if err := p.set(out, o, value); err != nil {
			return nil, nil, nil, err
		}
	}
	return out, nil, unknown, nil
}

func (p *parser) isOption(arg string) bool {
	_, _, _, is, err := p.match(arg)
	return is || err != nil
}

func (p *parser) set(out *parsed, o *option, value string) error {
	name := o.long
	if name == "" {
		name = o.short
	}
	out.given[name] = value
	if !o.number {
		return nil
	}
	text := strings.ReplaceAll(strings.TrimSpace(value), "_", "")
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return p.fail("argument %s: invalid int value: %s", o, repr(value))
	}
	out.numbers[name] = n
	return nil
}

// finish checks that all arguments are there. top is whose error it is if there are too many; before are strays of the levels above.
func (p *parser) finish(out *parsed, before, unknown []stray, top *parser) error {
	var missing []string
	for _, a := range p.arguments[min(len(out.args), len(p.arguments)):] {
		missing = append(missing, a.name)
	}
	if len(missing) > 0 {
		return p.fail("the following arguments are required: %s", strings.Join(missing, ", "))
	}
	if n := len(p.arguments); len(out.args) > n && (n == 0 || !p.arguments[n-1].many) {
		for i := n; i < len(out.args); i++ {
			unknown = append(unknown, stray{out.args[i], out.at[i]})
		}
	}
	slices.SortFunc(unknown, func(a, b stray) int { return a.at - b.at })
	return top.unrecognized(append(before, unknown...))
}

func (p *parser) unrecognized(list []stray) error {
	if len(list) == 0 {
		return nil
	}
	var texts []string
	for _, s := range list {
		texts = append(texts, s.text)
	}
	return p.fail("unrecognized arguments: %s", strings.Join(texts, " "))
}

func (p *parser) usage() string {
	var b strings.Builder
	b.WriteString("usage: " + p.prog)
	for _, o := range p.options {
		name := o.short
		if name == "" {
			name = o.long
		}
		if o.value != "" {
			name += " " + o.value
		}
		b.WriteString(" [" + name + "]")
	}
	for _, a := range p.arguments {
		b.WriteString(" " + a.name)
		if a.many {
			b.WriteString(" [" + a.name + " ...]")
		}
	}
	return b.String()
}

func (p *parser) help() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n\n%s\n", p.usage(), p.about)
	if len(p.arguments) > 0 {
		b.WriteString("\npositional arguments:\n")
		for _, a := range p.arguments {
			fmt.Fprintf(&b, "  %-22s%s\n", a.name, a.help)
		}
	}
	b.WriteString("\noptions:\n")
	for _, o := range p.options {
		names := o.String()
		if o.long != "" && o.short != "" {
			names = o.short + ", " + o.long
		}
		if o.value != "" {
			names += " " + o.value
		}
		fmt.Fprintf(&b, "  %-22s%s\n", names, o.help)
	}
	return b.String()
}

// Package glaciercli is the command line of glacier-cli and of its fork, as git-annex and scripts call it: its commands, options,
// lines of output and exit codes. What it does differently, because the originals fail there, is listed in
// docs/reference/glacier-command.md. What the commands do is done by the use cases that firn's own are made of.
package glaciercli

import (
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/firn-backup/firn/internal/app"
	"github.com/firn-backup/firn/internal/failure"
	"github.com/firn-backup/firn/internal/units"
)

// Env is the world that a command runs in.
type Env struct {
	Args           []string // without the program's name
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	LookupEnv      func(string) (string, bool)
	Now            func() time.Time
}

// Exit codes.
const (
	exitFailed      = 1
	exitUsage       = 2
	exitNotReady    = 75 // EX_TEMPFAIL: run the same command again later
	exitInterrupted = 130
)

// compatibilityTest is what git-annex runs before each operation, to tell this program from another of the name: it must fail.
const compatibilityTest = "--compatibility-test-git-annex"

// defaultRegion is that of glacier-cli.
const defaultRegion = "us-east-1"

// session is one command line being done.
type session struct {
	*output
	env    Env
	region string
	given  bool // the region was
	args   *parsed
	app    *app.App
}

// Run runs one command line and returns the exit code.
func Run(ctx context.Context, env Env) int {
	s := &session{env: env, output: &output{stdout: env.Stdout, stderr: env.Stderr}}
	if slices.Contains(env.Args, compatibilityTest) {
		s.talk("", topParser().usage())
		s.say("error: unrecognized arguments: %s", compatibilityTest)
		return exitUsage
	}
	err := s.run(ctx)
	if s.app != nil {
		err = errors.Join(err, s.app.Close())
	}
	if err == nil {
		err = s.failed
	}
	return s.report(ctx, err)
}

// pending says that something was asked for and is not ready.
type pending struct{ text string }

func (p *pending) Error() string { return p.text }

func (s *session) report(ctx context.Context, err error) int {
	var wrong *usageError
	var help *helpWanted
	var later *pending
	switch {
	case err == nil:
		return 0
	case errors.As(err, &help):
		s.line(strings.TrimRight(help.text, "\n"))
		if s.failed != nil {
			return exitFailed
		}
		return 0
	case errors.As(err, &wrong):
		s.talk("", wrong.usage)
		s.talk("", wrong.prog+": error: "+wrong.text)
		return exitUsage
	case ctx.Err() != nil:
		s.say("interrupted")
		return exitInterrupted
	case errors.As(err, &later):
		s.say("%s", later.text)
		return exitNotReady
	case failure.KindOf(err) == failure.NotReady:
		s.say("%s", err)
		return exitNotReady
	}
	s.say("%s", err)
	return exitFailed
}

// command is one that can be called.
type command struct {
	group, name string
	parser
	run func(ctx context.Context, s *session) error
}

func (s *session) run(ctx context.Context) error {
	top := topParser()
	given, rest, unknown, err := top.parse(s.env.Args, true)
	if err != nil {
		return err
	}
	if given.has("--region") {
		s.region, s.given = given.given["--region"], true
	} else {
		s.region = defaultRegion
	}
	rest = append(given.args, rest...)
	all := commands()
	var groups, names []string
	for _, c := range all {
		if !slices.Contains(groups, c.group) {
			groups = append(groups, c.group)
		}
	}
	if len(rest) == 0 {
		if err := top.unrecognized(unknown); err != nil {
			return err
		}
		return top.fail("too few arguments")
	}
	if !slices.Contains(groups, rest[0]) {
		return top.fail("argument {%s}: invalid choice: %s (choose from %s)", strings.Join(groups, ","), repr(rest[0]), reprs(groups))
	}
	for _, c := range all {
		if c.group == rest[0] {
			names = append(names, c.name)
		}
	}
	group := &parser{prog: "glacier " + rest[0], about: "Commands: " + strings.Join(names, ", "), options: helpOption(),
		arguments: []argument{{name: "{" + strings.Join(names, ",") + "} ...", help: "what to do"}}}
	_, below, more, err := group.parse(rest[1:], true)
	unknown = append(unknown, more...)
	if err != nil {
		return err
	}
	if len(below) == 0 {
		return group.fail("too few arguments")
	}
	at := slices.IndexFunc(all, func(c command) bool { return c.group == rest[0] && c.name == below[0] })
	if at < 0 {
		return group.fail("argument {%s}: invalid choice: %s (choose from %s)", strings.Join(names, ","), repr(below[0]), reprs(names))
	}
	c := all[at]
	c.prog = "glacier " + c.group + " " + c.name
	c.options = append(helpOption(), c.options...)
	args, _, more, err := c.parse(below[1:], false)
	if err != nil {
		return err
	}
	if err := c.finish(args, unknown, more, top); err != nil {
		return err
	}
	s.args = args
	return c.run(ctx, s)
}

func helpOption() []option {
	return []option{{long: "--help", short: "-h", help: "show this help message and exit"}}
}

func topParser() *parser {
	return &parser{
		prog: "glacier", about: "Archives in vaults of Amazon Glacier, and in those of Firn's config file.",
		options:   append(helpOption(), option{long: "--region", value: "REGION", help: "region of the vaults (default " + defaultRegion + ")"}),
		arguments: []argument{{name: "{vault,archive,job} ...", help: "what to work on"}},
	}
}

func reprs(list []string) string {
	var out []string
	for _, s := range list {
		out = append(out, repr(s))
	}
	return strings.Join(out, ", ")
}

// open puts Firn together. The environment's FIRN_CONFIG, FIRN_CATALOG, FIRN_LOG_FILE and FIRN_NOW are those of firn.
func (s *session) open() (*app.App, error) {
	if s.app != nil {
		return s.app, nil
	}
	o := app.Options{LookupEnv: s.env.LookupEnv, Now: s.env.Now, Waiting: func(text string) { s.warn("%s", text) }}
	if v, ok := s.env.LookupEnv("FIRN_CONFIG"); ok {
		o.Config = v
	}
	if v, ok := s.env.LookupEnv("FIRN_CATALOG"); ok {
		o.Catalog = v
	}
	if v, ok := s.env.LookupEnv("FIRN_NOW"); ok && v != "" {
		at, _, err := units.ParseTime(v, time.Local)
		if err != nil {
			return nil, failure.Errorf(failure.Usage, "FIRN_NOW: %v", err)
		}
		o.Now = func() time.Time { return at }
	}
	a, err := app.New(o)
	if err == nil {
		s.app = a
	}
	return a, err
}

// poll is how often a waiting command looks; 0: as it is best for a service whose jobs take hours.
func (s *session) poll() (time.Duration, error) {
	v, ok := s.env.LookupEnv("FIRN_POLL")
	if !ok || v == "" {
		return 0, nil
	}
	d, err := units.ParseDuration(v)
	if err != nil {
		return 0, failure.Errorf(failure.Usage, "FIRN_POLL: %v", err)
	}
	return d, nil
}

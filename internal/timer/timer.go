// Package timer writes down, for systemd and for cron, that "firn run" is to be run now and
// then. It is pure: texts and where they belong. What is due, and whether a missed run is
// made up for, firn run decides itself; the timer only has to come often enough.
package timer

import (
	"errors"
	"fmt"
	"strings"
)

// Name is that of the units and what marks the line of a crontab.
const Name = "firn-run"

// Options say what is run and when. Firn is needed.
type Options struct {
	Firn string   // the program, absolute
	Args []string // before "run": --config FILE and the like

	// Calendar is when, as systemd's OnCalendar has it. Empty: hourly. Cron knows only hourly and daily.
	Calendar string
	// System makes units for the whole machine, run by root; otherwise they are a user's own.
	System bool
}

// File is one file to write.
type File struct {
	Name string
	Text string
}

// Units are the service and its timer.
func Units(o Options) ([]File, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	if strings.ContainsAny(o.Firn, "\"'\\") {
		return nil, fmt.Errorf("systemd runs no program whose path has quotes or backslashes in it: %s", o.Firn)
	}
	when := o.Calendar
	if when == "" {
		when = "hourly"
	}
	return []File{
		{Name + ".service", o.service()},
		{Name + ".timer", `# Written by "firn schedule install", and removed by "firn schedule remove".
[Unit]
Description=Look now and then whether a backup is due
Documentation=man:firn-run(1)

[Timer]
OnCalendar=` + escape(when) + `
# A machine that was off looks when it is on again.
Persistent=true
# Not all machines of a network at once.
RandomizedDelaySec=5min

[Install]
WantedBy=timers.target
`},
	}, nil
}

func (o Options) check() error {
	for _, s := range append([]string{o.Firn, o.Calendar}, o.Args...) {
		if strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f }) {
			return fmt.Errorf("%q has control characters in it", s)
		}
	}
	if !strings.HasPrefix(o.Firn, "/") {
		return errors.New("the program's path must be absolute")
	}
	return nil
}

func (o Options) service() string {
	var b strings.Builder
	b.WriteString(`# Written by "firn schedule install", and removed by "firn schedule remove".
[Unit]
Description=Back up what is due
Documentation=man:firn-run(1)
`)
	if o.System {
		b.WriteString("Wants=network-online.target\nAfter=network-online.target\n")
	}
	b.WriteString("\n[Service]\nType=oneshot\nExecStart=" + o.command() + "\n" + `# Asked of the vault and not there yet: no failure.
SuccessExitStatus=75
# Nothing that somebody works with is to wait for a backup.
Nice=10
IOSchedulingClass=best-effort
IOSchedulingPriority=7
# A backup that is told to stop ends what it is at; the next one goes on there.
TimeoutStopSec=2min
UMask=0077
`)
	if o.System {
		// Backups read everything, hooks mount and dump, snapshots are made of file systems: what is shut off here
		// is what none of that needs. It is written to neither the programs nor the system's configuration.
		b.WriteString(`NoNewPrivileges=yes
ProtectSystem=full
ProtectKernelTunables=yes
ProtectKernelLogs=yes
ProtectControlGroups=yes
ProtectClock=yes
ProtectHostname=yes
LockPersonality=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
SystemCallArchitectures=native
`)
	}
	return b.String()
}

// command is the command line as systemd reads it.
func (o Options) command() string {
	words := []string{quote(o.Firn)} // of which no variables are replaced
	for _, a := range append(append([]string{}, o.Args...), "run", "--quiet") {
		words = append(words, quote(strings.ReplaceAll(a, "$", "$$")))
	}
	return strings.Join(words, " ")
}

// quote makes one word of s: systemd.service(5), "COMMAND LINES".
func quote(s string) string {
	s = escape(s)
	if s != "" && !strings.ContainsAny(s, " '\"\\;") {
		return s
	}
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
}

// escape keeps systemd from reading specifiers into s.
func escape(s string) string { return strings.ReplaceAll(s, "%", "%%") }

// cronMark ends the line that is Firn's.
const cronMark = "# " + Name

// CronLine is a line of a user's crontab, of which the environment is next to nothing; cron mails what is printed, and
// that is what went wrong.
func CronLine(o Options) (string, error) {
	if err := o.check(); err != nil {
		return "", err
	}
	when, ok := map[string]string{"": "17 * * * *", "hourly": "17 * * * *", "daily": "17 3 * * *"}[o.Calendar]
	if !ok {
		return "", fmt.Errorf("cron knows hourly and daily here, not %q", o.Calendar)
	}
	words := []string{}
	for _, w := range append(append([]string{o.Firn}, o.Args...), "run", "--quiet") {
		words = append(words, shell(w))
	}
	return when + " " + strings.Join(words, " ") + " " + cronMark, nil
}

// shell makes one word of s for sh, in a crontab, where % would be a line's end.
func shell(s string) string {
	if s == "" || strings.ContainsFunc(s, func(r rune) bool {
		return !('a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || strings.ContainsRune("/._-=:,+@", r))
	}) {
		s = "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
	}
	return strings.ReplaceAll(s, "%", `\%`)
}

// WithCronLine is a crontab with the line in the place of the one that was Firn's, or at its end; an empty line: without it.
func WithCronLine(crontab, line string) string {
	var b strings.Builder
	for l := range strings.Lines(crontab) {
		if !strings.HasSuffix(strings.TrimRight(l, "\n"), cronMark) {
			b.WriteString(strings.TrimRight(l, "\n") + "\n")
		}
	}
	if line != "" {
		b.WriteString(line + "\n")
	}
	return b.String()
}

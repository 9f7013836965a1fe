package config

import (
	"slices"
	"strings"
	"time"

	"github.com/firn-backup/firn/internal/notify"
	"github.com/firn-backup/firn/internal/notify/command"
	"github.com/firn-backup/firn/internal/notify/webhook"
)

// Notify is a [notify.NAME] section.
type Notify struct {
	Name string `toml:"-"`
	Line int    `toml:"-"`

	Kind     string        `toml:"kind"`     // "webhook", "ping", "command", "mail"
	On       []string      `toml:"on"`       // kinds of events; nil: as Events says
	Sets     []string      `toml:"sets"`     // names of sets; nil: all
	URL      string        `toml:"url"`      // of webhook and ping; a secret
	Command  []string      `toml:"command"`  // of command
	To       string        `toml:"to"`       // of mail
	From     string        `toml:"from"`     // of mail; empty: the mailer's choice
	Sendmail string        `toml:"sendmail"` // of mail; empty: the system's
	Timeout  time.Duration `toml:"timeout"`  // of command and mail; 0: the default
}

// Kinds of notifications.
const (
	NotifyWebhook = "webhook"
	NotifyPing    = "ping"
	NotifyCommand = "command"
	NotifyMail    = "mail"
)

// notifyKeys are the keys of each kind beside kind, on and sets; the first is needed.
func notifyKeys() map[string][]string {
	return map[string][]string{
		NotifyWebhook: {"url"},
		NotifyPing:    {"url"},
		NotifyCommand: {"command", "timeout"},
		NotifyMail:    {"to", "from", "sendmail", "timeout"},
	}
}

// Events are the kinds of events that it is for. A service that watches for silence must hear of all; people
// and programs hear by themselves only of what is wrong.
func (n *Notify) Events() []notify.Kind {
	var kinds []notify.Kind
	for _, k := range n.On {
		kinds = append(kinds, notify.Kind(k))
	}
	switch {
	case len(n.On) > 0:
		return kinds
	case n.Kind == NotifyPing:
		return []notify.Kind{notify.Started, notify.Success, notify.Partial, notify.Failure}
	}
	return []notify.Kind{notify.Partial, notify.Failure, notify.Overdue}
}

// Wants says whether it is for such an event of such a set.
func (n *Notify) Wants(k notify.Kind, set string) bool {
	return slices.Contains(n.Events(), k) && (len(n.Sets) == 0 || slices.Contains(n.Sets, set))
}

// Hooks are the keys of a set that name programs to run around its backups.
type Hooks struct {
	Before      []string      `toml:"before"`       // program and arguments; if it fails, nothing is backed up
	After       []string      `toml:"after"`        // is run in any case once Before was
	HookTimeout time.Duration `toml:"hook-timeout"` // of each; 0: an hour
}

// HasHooks says whether there is anything to run.
func (h *Hooks) HasHooks() bool { return len(h.Before)+len(h.After) > 0 }

func (p *parser) checkHooks(s *Set, at func(string) string) {
	for key, argv := range map[string][]string{"before": s.Before, "after": s.After} {
		if _, there := p.lines[at(key)]; there && p.good(at(key)) {
			p.checkArgv(at(key), argv)
		}
	}
}

// checkArgv checks a program and its arguments.
func (p *parser) checkArgv(key string, argv []string) {
	switch {
	case len(argv) == 0 || argv[0] == "":
		p.fault(key, "names no program")
	case slices.ContainsFunc(argv, func(s string) bool { return strings.ContainsRune(s, 0) }):
		p.fault(key, "has a NUL in it")
	}
}

func (p *parser) checkNotify(c *Config, n *Notify) {
	section := "notify." + n.Name
	at := func(key string) string { return section + "." + key }
	keys, ok := notifyKeys()[n.Kind]
	if !ok {
		p.fault(at("kind"), "must be webhook, ping, command or mail, not %q", n.Kind)
		return
	}
	for kind, others := range notifyKeys() {
		for _, key := range others {
			if _, there := p.lines[at(key)]; there && kind != n.Kind && p.good(at(key)) && !slices.Contains(keys, key) {
				p.fault(at(key), "does not belong to a notification of kind %s", n.Kind)
			}
		}
	}
	if _, there := p.lines[at(keys[0])]; !there {
		p.fault(section, "has no %s", keys[0])
		return
	}
	for i, on := range n.On {
		if !slices.Contains(notify.Kinds(), notify.Kind(on)) {
			p.fault(index(at("on"), i), "must be one of %s, not %q", kindsOfEvents(), on)
		}
	}
	for i, set := range n.Sets {
		if c.Sets[set] == nil {
			p.fault(index(at("sets"), i), "there is no [set.%s]", set)
		}
	}
	if !p.good(at(keys[0])) {
		return
	}
	switch n.Kind {
	case NotifyWebhook, NotifyPing:
		if err := webhook.CheckURL(n.URL); err != nil {
			p.fault(at("url"), "%v", err)
		}
	case NotifyCommand:
		p.checkArgv(at("command"), n.Command)
	case NotifyMail:
		for key, address := range map[string]string{"to": n.To, "from": n.From} {
			if address == "" && key == "from" {
				continue
			}
			if err := command.CheckAddress(address); err != nil {
				p.fault(at(key), "%v", err)
			}
		}
	}
}

func kindsOfEvents() string {
	var names []string
	for _, k := range notify.Kinds() {
		names = append(names, string(k))
	}
	return strings.Join(names, ", ")
}

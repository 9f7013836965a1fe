package app

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/firn-backup/firn/internal/catalog"
	"github.com/firn-backup/firn/internal/config"
	"github.com/firn-backup/firn/internal/failure"
	"github.com/firn-backup/firn/internal/notify"
	"github.com/firn-backup/firn/internal/notify/command"
	"github.com/firn-backup/firn/internal/notify/webhook"
	"github.com/firn-backup/firn/internal/program"
)

// notifiers is the one list of ways to tell somebody.
func notifiers() map[string]func(n *config.Notify, line func(string)) (notify.Notifier, error) {
	hook := func(ping bool) func(*config.Notify, func(string)) (notify.Notifier, error) {
		return func(n *config.Notify, _ func(string)) (notify.Notifier, error) {
			return webhook.New(webhook.Options{URL: n.URL, Ping: ping})
		}
	}
	return map[string]func(*config.Notify, func(string)) (notify.Notifier, error){
		config.NotifyWebhook: hook(false),
		config.NotifyPing:    hook(true),
		config.NotifyCommand: func(n *config.Notify, line func(string)) (notify.Notifier, error) {
			return command.New(command.Options{Argv: n.Command, Timeout: n.Timeout, Line: line})
		},
		config.NotifyMail: func(n *config.Notify, line func(string)) (notify.Notifier, error) {
			return command.NewMail(command.MailOptions{To: n.To, From: n.From, Sendmail: n.Sendmail, Timeout: n.Timeout, Line: line})
		},
	}
}

// Notify tells all that want to hear of it, one after another. What goes wrong is told to warn, with the
// notification's name: who cannot be told must not make a backup fail that did not. line is told what programs print.
func (a *App) Notify(ctx context.Context, e notify.Event, warn func(error), line func(string)) {
	e.Host = a.Host
	if e.At.IsZero() {
		e.At = a.Now()
	}
	for _, name := range slices.Sorted(maps.Keys(a.Config.Notifications)) {
		n := a.Config.Notifications[name]
		if !n.Wants(e.Kind, e.Set) {
			continue
		}
		to, err := notifiers()[n.Kind](n, line)
		if err == nil {
			err = to.Notify(ctx, e)
		}
		if err != nil {
			warn(fmt.Errorf("notify.%s: %w", name, err))
		}
	}
}

// defaultHookTimeout is how long a hook may take where the set says nothing: a dump of a large database takes its time.
const defaultHookTimeout = time.Hour

// Around is what is done around the work on a set.
type Around struct {
	Hooks config.Hooks
	Line  func(line string)   // is told what hooks print
	Exit  func(err error) int // the exit code that an error stands for
}

// WithHooks runs work between the hooks of a set, which it locks: before must succeed, else there is no
// work; after is run once before was, also when before or work has failed, and is told how.
func (a *App) WithHooks(ctx context.Context, set catalog.Set, o Around, work func(context.Context) error) error {
	if !o.Hooks.HasHooks() {
		return work(ctx)
	}
	ctx, release, err := a.LockSet(ctx, set)
	if err != nil {
		return err
	}
	defer release()
	timeout := o.Hooks.HookTimeout
	if timeout == 0 {
		timeout = defaultHookTimeout
	}
	run := func(ctx context.Context, argv []string, event notify.Kind, code int) error {
		return program.Run(ctx, program.Options{
			Argv: argv, Timeout: timeout, Line: o.Line,
			Env: []string{"FIRN_SET=" + set.Name, "FIRN_HOST=" + a.Host, "FIRN_EVENT=" + string(event), "FIRN_EXIT=" + strconv.Itoa(code)},
		})
	}
	if len(o.Hooks.Before) > 0 {
		if err = run(ctx, o.Hooks.Before, notify.Started, 0); err != nil {
			err = fmt.Errorf("nothing was backed up, because the hook before it failed: %w", err)
		}
	}
	if err == nil {
		err = work(ctx)
	}
	if len(o.Hooks.After) == 0 {
		return err
	}
	// Whatever before has set up is taken down, also when the work was interrupted.
	herr := run(context.WithoutCancel(ctx), o.Hooks.After, EventOf(err), o.Exit(err))
	switch {
	case herr == nil:
		return err
	case err == nil || failure.KindOf(err) == failure.Partial:
		return fmt.Errorf("the backup is done, but the hook after it failed: %w", errors.Join(herr, err))
	}
	o.Line("the hook after it failed too: " + herr.Error())
	return err
}

// EventOf is how work went that ended with err.
func EventOf(err error) notify.Kind {
	switch {
	case err == nil:
		return notify.Success
	case failure.KindOf(err) == failure.Partial:
		return notify.Partial
	}
	return notify.Failure
}

package config

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/firn-backup/firn/internal/notify"
)

func TestNotifications(t *testing.T) {
	t.Parallel()
	c, err := parse(t, `
[set.documents]
paths = ["/x"]
before = ["/etc/firn/mount", "--all"]
hook-timeout = "10m"

[notify.silence]
kind = "ping"
url = "https://ping.example/s3cr3t"

[notify.chat]
kind = "webhook"
url = "https://chat.example/s3cr3t"
on = ["success"]
sets = ["documents"]

[notify.root]
kind = "mail"
to = "root"
timeout = "5s"
`)
	if err != nil {
		t.Fatal(err)
	}
	s := c.Sets["documents"]
	if !s.HasHooks() || !slices.Equal(s.Before, []string{"/etc/firn/mount", "--all"}) || s.HookTimeout != 10*time.Minute {
		t.Errorf("%+v", s.Hooks)
	}
	for _, w := range []struct {
		name string
		kind notify.Kind
		set  string
		want bool
	}{
		{"silence", notify.Started, "any", true}, {"silence", notify.Overdue, "any", false}, {"silence", notify.Success, "any", true},
		{"chat", notify.Success, "documents", true}, {"chat", notify.Success, "photos", false}, {"chat", notify.Failure, "documents", false},
		{"root", notify.Success, "any", false}, {"root", notify.Failure, "any", true}, {"root", notify.Overdue, "any", true},
	} {
		if got := c.Notifications[w.name].Wants(w.kind, w.set); got != w.want {
			t.Errorf("%+v: %t", w, got)
		}
	}
}

func TestNotificationFaults(t *testing.T) {
	t.Parallel()
	_, err := parse(t, `[set.documents]
paths = ["/x"]
before = []
after = ["", "x"]
[notify.a]
url = "https://x"
[notify.b]
kind = "ping"
[notify.c]
kind = "webhook"
url = "s3cr3t"
command = ["x"]
on = ["sucess"]
sets = ["nothing"]
[notify.d]
kind = "command"
command = []
`)
	if err == nil {
		t.Fatal("no fault")
	}
	var got []string
	for line := range strings.Lines(err.Error()) {
		_, text, _ := strings.Cut(strings.TrimSpace(line), "config.toml:")
		got = append(got, text)
	}
	want := []string{
		`3: set.documents.before: names no program`,
		`4: set.documents.after: names no program`,
		`5: notify.a.kind: must be webhook, ping, command or mail, not ""`,
		`7: notify.b: has no url`,
		`11: notify.c.url: must be an http:// or https:// URL`,
		`12: notify.c.command: does not belong to a notification of kind webhook`,
		`13: notify.c.on[0]: must be one of started, success, partial, failure, overdue, not "sucess"`,
		`14: notify.c.sets[0]: there is no [set.nothing]`,
		`17: notify.d.command: names no program`,
	}
	if !slices.Equal(got, want) {
		t.Errorf("faults:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

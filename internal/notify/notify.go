// Package notify is the contract of telling somebody outside how work went: it owns what an event says, its text
// and its JSON. The adapters live below it, one folder each. It must not know how events are sent, nor
// to whom, nor when something is worth telling; and of backups it knows nothing but the words for how one ends.
package notify

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"
)

// Kind is what is told.
type Kind string

const (
	Started Kind = "started"
	Success Kind = "success"
	Partial Kind = "partial" // stored, but some files could not be read as they should
	Failure Kind = "failure"
	Overdue Kind = "overdue" // a backup that should be there is not
)

// Kinds are all kinds.
func Kinds() []Kind { return []Kind{Started, Success, Partial, Failure, Overdue} }

// Event is one thing to tell. It holds no secrets.
type Event struct {
	Kind    Kind
	Set     string
	Host    string
	Run     string // id of the run; may be empty
	At      time.Time
	Took    time.Duration // 0: not known
	Code    int           // exit code
	Summary string        // one line
	Details []string      // further lines: problems, hints
}

// Subject is one short line.
func (e Event) Subject() string {
	what := map[Kind]string{
		Started: "backup of %s has begun", Success: "backup of %s is done", Partial: "backup of %s is done in part",
		Failure: "backup of %s failed", Overdue: "backup of %s is overdue",
	}[e.Kind]
	if what == "" {
		what = string(e.Kind) + ": %s"
	}
	return "firn: " + fmt.Sprintf(what, e.Set) + " (" + e.Host + ")"
}

// Text is the whole, for people.
func (e Event) Text() string {
	var b strings.Builder
	b.WriteString(e.Subject() + "\n\n")
	if e.Summary != "" {
		b.WriteString(e.Summary + "\n")
	}
	for _, d := range e.Details {
		b.WriteString(d + "\n")
	}
	fmt.Fprintf(&b, "\nat %s", e.At.Format(time.RFC3339))
	if e.Took > 0 {
		fmt.Fprintf(&b, ", after %s", e.Took.Round(time.Second))
	}
	if e.Run != "" {
		fmt.Fprintf(&b, "\nfirn log %s shows what was done", e.Run)
	}
	b.WriteString("\n")
	return b.String()
}

// MarshalJSON is the event for programs: docs/reference/notifications.md.
func (e Event) MarshalJSON() ([]byte, error) {
	details := e.Details
	if details == nil {
		details = []string{}
	}
	return json.Marshal(struct {
		Event   Kind     `json:"event"`
		Set     string   `json:"set"`
		Host    string   `json:"host"`
		Run     string   `json:"run,omitempty"`
		At      string   `json:"at"`
		Seconds float64  `json:"seconds"`
		Exit    int      `json:"exit"`
		Summary string   `json:"summary"`
		Details []string `json:"details"`
		Text    string   `json:"text"` // what chat services show of a webhook
	}{e.Kind, e.Set, e.Host, e.Run, e.At.Format(time.RFC3339), e.Took.Seconds(), e.Code, e.Summary, details, e.Text()})
}

// A Notifier tells somebody. It may be called again after a failure; it tries often enough itself
// that its caller need not. Failures never show where to (an address may be a secret). Safe for concurrent use.
type Notifier interface {
	Notify(ctx context.Context, e Event) error
}

package cli

import (
	"fmt"
	"sync"
	"time"

	"github.com/dustin/go-humanize"

	"github.com/firn-backup/firn/internal/progress"
	"github.com/firn-backup/firn/internal/units"
)

// count prints a number with separators: 1,234,567.
func count(n int64) string { return humanize.Comma(n) }

// plural is "1 file", "1,234 files".
func plural(n int64, one string) string {
	if n == 1 {
		return "1 " + one
	}
	return count(n) + " " + one + "s"
}

// waitingText says how a vault's retrievals stand.
func waitingText(ready, all int) string {
	return fmt.Sprintf("%s ready, of %s", count(int64(ready)), plural(int64(all), "retrieval"))
}

// jsonEvent is one line of a long run with --json. docs/reference/json.md.
type jsonEvent struct {
	Event    string `json:"event"`
	Set      string `json:"set,omitempty"`
	Snapshot string `json:"snapshot,omitempty"`
	jsonPath
	Archive    string   `json:"archive,omitempty"`
	Volume     *int     `json:"volume,omitempty"`
	Size       *int64   `json:"size,omitempty"`
	Action     string   `json:"action,omitempty"`
	Text       string   `json:"text,omitempty"`
	Bytes      *int64   `json:"bytes,omitempty"`
	Files      *int64   `json:"files,omitempty"`
	Sent       *int64   `json:"sent,omitempty"`
	TotalBytes *int64   `json:"total_bytes,omitempty"`
	TotalFiles *int64   `json:"total_files,omitempty"`
	Rate       *float64 `json:"rate,omitempty"`        // bytes a second
	ETA        *float64 `json:"eta_seconds,omitempty"` // absent: unknown
	Exit       *int     `json:"exit,omitempty"`
	Data       any      `json:"data,omitempty"`
}

// watch draws m and tells events until stop is called: a bar on a terminal,
// JSON lines with --json, plain lines with --verbose. stop may be called twice.
func (o *output) watch(label string, m *progress.Meter) (w progress.Watcher, stop func()) {
	var halt []func()
	switch {
	case o.json:
		done := make(chan struct{})
		var wg sync.WaitGroup
		wg.Go(func() { o.tick(label, m, done) })
		halt = append(halt, func() { close(done); wg.Wait() })
	case !o.quiet && isTerminal(o.stderr):
		b := startBar(o.stderr, label, m)
		o.mu.Lock()
		o.bar = b
		o.mu.Unlock()
		halt = append(halt, func() {
			o.mu.Lock()
			o.bar = nil
			o.mu.Unlock()
			b.stop()
		})
	}
	var once sync.Once
	return o.tell, func() {
		once.Do(func() {
			for _, f := range halt {
				f()
			}
		})
	}
}

// tick writes a progress event a second.
func (o *output) tick(label string, m *progress.Meter, done <-chan struct{}) {
	t := time.NewTicker(time.Second)
	defer t.Stop()
	for {
		select {
		case <-done:
			return
		case <-t.C:
			_ = o.line(progressEvent(label, m.Report())) // a failed write is kept in o.failed
		}
	}
}

func progressEvent(label string, r progress.Report) jsonEvent {
	e := jsonEvent{Event: "progress", Set: label, Bytes: &r.Bytes, Files: &r.Files, Sent: &r.Sent, Rate: &r.Rate}
	if r.TotalsKnown {
		e.TotalBytes, e.TotalFiles = &r.TotalBytes, &r.TotalFiles
	}
	if r.ETA >= 0 {
		s := r.ETA.Seconds()
		e.ETA = &s
	}
	return e
}

// tell says what happened, as far as anybody wants to know.
func (o *output) tell(e progress.Event) {
	if o.json {
		if e.Kind != progress.File || o.verbose { // a million files are a million lines
			_ = o.line(eventJSON(e))
		}
		return
	}
	switch e.Kind {
	case progress.File:
		if o.verbose {
			o.talk("%-9s %s (%s)", e.Text, e.Path, units.Size(e.Bytes))
		}
	case progress.Archive:
		if o.verbose {
			o.talk("%-9s %s (%s)", e.Text, e.Archive, units.Size(e.Bytes))
		}
	case progress.Problem:
		if e.Path == "" {
			o.warn("%s", e.Text)
		} else {
			o.warn("%s: %s", e.Path, e.Text)
		}
	case progress.Began, progress.Notice, progress.Waiting, progress.Summary:
		if e.Text != "" {
			o.talk("%s", e.Text)
		}
	}
}

func eventJSON(e progress.Event) jsonEvent {
	j := jsonEvent{Event: string(e.Kind), Set: e.Set, Snapshot: e.Snapshot, Archive: e.Archive, Data: e.Data}
	if e.Path != "" {
		j.jsonPath = pathJSON(e.Path)
	}
	switch e.Kind {
	case progress.File:
		j.Action, j.Size = e.Text, &e.Bytes
	case progress.Archive:
		j.Action, j.Size, j.Volume = e.Text, &e.Bytes, &e.N
	default:
		j.Text = e.Text
	}
	return j
}

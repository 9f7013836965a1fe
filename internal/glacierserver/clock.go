package glacierserver

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/firn-backup/firn/internal/durable"
	"github.com/firn-backup/firn/internal/failure"
	"github.com/firn-backup/firn/internal/units"
)

// Clock is simulated time: of archives, jobs and inventories, never of
// signatures. The zero value is the real time.
type Clock struct {
	// File, when set, is read at each request: a time (RFC 3339), at which the clock
	// stands still, or an offset from what the clock would show else: +36h, -90m, +2d. While it
	// is empty, which it is for a moment when a shell writes to it, what it said before holds.
	File string
	// Scale is how many simulated seconds a real one lasts. 0: 1. It goes on over restarts.
	Scale float64
	// Real tells the real time. Nil: time.Now.
	Real func() time.Time

	anchor anchor
	said   atomic.Pointer[string] // by the file, when it was not empty
}

// anchor is where a scaled clock began to run as it does.
type anchor struct {
	Real  time.Time `json:"real"`
	Shown time.Time `json:"shown"`
	Scale float64   `json:"scale"`
}

func (a anchor) at(real time.Time) time.Time {
	passed := float64(real.Sub(a.Real)) * a.Scale
	return a.Shown.Add(time.Duration(passed))
}

// start takes up the time where the last server on the root left it.
func (c *Clock) start(path string) error {
	if c.Real == nil {
		c.Real = time.Now
	}
	if c.Scale == 0 {
		c.Scale = 1
	}
	if !(c.Scale > 0 && c.Scale <= 1e9) {
		return failure.Errorf(failure.Usage, "time scale %g: not between 0 and 1,000,000,000", c.Scale)
	}
	if c.File != "" {
		if _, err := c.read(time.Time{}); err != nil {
			return failure.Wrap(failure.Usage, err)
		}
	}
	now := c.Real().UTC()
	c.anchor = anchor{Real: now, Shown: now, Scale: c.Scale}
	text, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if c.Scale == 1 {
			return nil
		}
	case err != nil:
		return err
	default:
		var last anchor
		if err := json.Unmarshal(text, &last); err != nil {
			return failure.Errorf(failure.Damaged, "%s: %w", path, err)
		}
		if last.Scale == c.Scale {
			c.anchor = last
			return nil
		}
		c.anchor.Shown = last.at(now)
	}
	return saveJSON(path, c.anchor)
}

// now is the simulated time, in milliseconds as the API tells it.
func (c *Clock) now() (time.Time, error) {
	at := c.anchor.at(c.Real().UTC())
	if c.File != "" {
		var err error
		if at, err = c.read(at); err != nil {
			return time.Time{}, err
		}
	}
	return at.UTC().Truncate(time.Millisecond), nil
}

// orReal is now for where no error can be told: with the file unreadable, the time without it.
func (c *Clock) orReal() time.Time {
	at, err := c.now()
	if err != nil {
		return c.anchor.at(c.Real().UTC()).Truncate(time.Millisecond)
	}
	return at
}

func (c *Clock) read(at time.Time) (time.Time, error) {
	raw, err := os.ReadFile(c.File)
	if err != nil {
		return time.Time{}, fmt.Errorf("read clock: %w", err)
	}
	text := strings.TrimSpace(string(raw))
	if text == "" {
		before := c.said.Load()
		if before == nil {
			return at, nil
		}
		text = *before
	}
	if text[0] == '+' || text[0] == '-' {
		d, err := units.ParseDuration(text[1:])
		if err != nil {
			return time.Time{}, fmt.Errorf("clock file %s: %w", c.File, err)
		}
		if text[0] == '-' {
			d = -d
		}
		c.said.Store(&text)
		return at.Add(d), nil
	}
	t, err := time.Parse(time.RFC3339Nano, text)
	if err != nil {
		return time.Time{}, fmt.Errorf("clock file %s: %q is neither a time such as 2026-11-22T02:00:00Z nor an offset such as +36h", c.File, text)
	}
	c.said.Store(&text)
	return t, nil
}

// stamp is a time as the API writes it.
func stamp(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z") }

// stampOrNull is null for no time.
func stampOrNull(t time.Time) *string {
	if t.IsZero() {
		return nil
	}
	s := stamp(t)
	return &s
}

// saveJSON writes v as a file, durably.
func saveJSON(path string, v any) error {
	text, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	return durable.WriteFile(path, append(text, '\n'), filePerm)
}

// loadJSON reads such a file. found is false where there is none.
func loadJSON(path string, v any) (found bool, err error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if err := json.Unmarshal(text, v); err != nil {
		return false, failure.Errorf(failure.Damaged, "%s is damaged: %w", path, err)
	}
	return true, nil
}

package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/firn-backup/firn/internal/app"
	"github.com/firn-backup/firn/internal/failure"
	"github.com/firn-backup/firn/internal/units"
)

// open puts Firn together for a command. It is closed when the command ends.
func (c *command) open(cmd *cobra.Command) (*app.App, error) {
	if c.app != nil {
		return c.app, nil
	}
	o := app.Options{
		Config:    c.global.config,
		NoConfig:  c.global.config == "" && cmd.Flags().Changed("config"),
		Catalog:   c.global.catalog,
		LogLevel:  c.global.logLevel,
		LookupEnv: c.env.LookupEnv,
		Now:       c.env.Now,
		Notice:    func(s string) { c.talk("%s", s) },
		Warn:      func(s string) { c.warn("%s", s) },
		Waiting:   func(s string) { c.warn("%s", s) },
	}
	if c.global.logFileSet {
		o.LogFile = &c.global.logFile
	}
	if tty, err := os.OpenFile("/dev/tty", os.O_RDWR, 0); err == nil { // somebody is there to ask
		_ = tty.Close()
		o.Ask = func(prompt string) ([]byte, error) { return c.ask(cmd.Context(), prompt) }
	}
	a, err := app.New(o)
	if err != nil {
		return nil, err
	}
	c.app = a
	return a, nil
}

// ask reads a passphrase from the terminal without showing it. An interruption
// gives the terminal back as it was.
func (c *command) ask(ctx context.Context, prompt string) ([]byte, error) {
	tty, err := os.OpenFile("/dev/tty", os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer tty.Close()
	fd := int(tty.Fd())
	before, err := term.GetState(fd)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	fmt.Fprint(tty, clean(prompt)+": ")
	type answer struct {
		text []byte
		err  error
	}
	done := make(chan answer, 1)
	go func() {
		text, err := term.ReadPassword(fd)
		done <- answer{text, err}
	}()
	defer fmt.Fprintln(tty)
	select {
	case a := <-done:
		if errors.Is(a.err, io.EOF) {
			return nil, errors.New("no passphrase was given")
		}
		return a.text, a.err
	case <-ctx.Done():
		_ = term.Restore(fd, before)
		return nil, ctx.Err()
	}
}

// table prints rows in columns; the first is the header. A column whose header
// begins with ">" is set to the right.
type table struct {
	right []bool
	rows  [][]string
}

func newTable(header ...string) *table {
	t := &table{}
	for i, h := range header {
		var right bool
		header[i], right = strings.CutPrefix(h, ">")
		t.right = append(t.right, right)
	}
	t.row(header...)
	return t
}

// row adds a row. Cells are made harmless for a terminal: many a one is what a vault or another program's file said.
func (t *table) row(cells ...string) {
	for i, cell := range cells {
		cells[i] = clean(cell)
	}
	t.rows = append(t.rows, cells)
}

// print writes the table, without blanks at the ends of lines.
func (t *table) print(o *output) {
	width := make([]int, len(t.right))
	for _, r := range t.rows {
		for i, cell := range r {
			width[i] = max(width[i], utf8.RuneCountInString(cell))
		}
	}
	for _, r := range t.rows {
		var b strings.Builder
		for i, cell := range r {
			pad := strings.Repeat(" ", width[i]-utf8.RuneCountInString(cell))
			if t.right[i] {
				cell = pad + cell
			} else {
				cell += pad
			}
			if i > 0 {
				b.WriteString("  ")
			}
			b.WriteString(cell)
		}
		o.printf("%s\n", strings.TrimRight(b.String(), " "))
	}
}

// stamp is a time as lists show it: local, to the second.
func (c *command) stamp(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return units.Time(t.In(c.env.Now().Location()))
}

// stampJSON is a time in JSON: RFC 3339 in UTC; nil when there is none.
func stampJSON(t time.Time) *string {
	if t.IsZero() {
		return nil
	}
	s := t.UTC().Format(time.RFC3339Nano)
	return &s
}

// noCatalog says whether err is the want of a catalog, which for a list of
// everything only means that there is nothing yet.
func noCatalog(err error) bool {
	return errors.Is(err, app.ErrNoCatalog) && failure.KindOf(err) == failure.NotFound
}

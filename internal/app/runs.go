package app

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/firn-backup/firn/internal/catalog"
	"github.com/firn-backup/firn/internal/durable"
	"github.com/firn-backup/firn/internal/failure"
	"github.com/firn-backup/firn/internal/snapshot"
)

// keptRuns is how many logs of runs stay in the state directory.
const keptRuns = 1000

// Run is one run of a command that is worth remembering: its log, and its row in
// the catalog.
type Run struct {
	*slog.Logger
	ID string

	app      *App
	row      catalog.Run
	files    []*os.File
	optional bool // the run goes on without a record
}

// BeginReading is BeginRun for a command that needs to write nothing of Firn's own, such as a restore: where
// log and row cannot be made, there is a warning and the run goes on.
func (a *App) BeginReading(ctx context.Context, command, set string) (*Run, error) {
	return a.beginRun(ctx, command, set, true)
}

// BeginRun opens the run's log and makes its row. set may be empty. End it.
func (a *App) BeginRun(ctx context.Context, command, set string) (*Run, error) {
	return a.beginRun(ctx, command, set, false)
}

func (a *App) beginRun(ctx context.Context, command, set string, optional bool) (*Run, error) {
	id, err := snapshot.NewID(time.Now(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("begin run: %w", err)
	}
	r := &Run{ID: id, app: a, row: catalog.Run{ID: id, Command: command, Set: set, Started: a.Now()}, optional: optional}
	if err := r.openLogs(); err != nil {
		r.closeLogs()
		return nil, fmt.Errorf("begin run: %w", err)
	}
	db, err := a.Catalog(ctx, true)
	if err == nil {
		if db.ReadOnly() && optional && db.ReadOnlyReason() == "" {
			a.o.Warn("the catalog " + a.Paths.Catalog + " cannot be written: this run is not recorded in it, nor what it asks the vault for")
		}
		err = db.PutRun(ctx, r.row)
	}
	if err != nil && optional && ctx.Err() == nil && failure.KindOf(err) != failure.Damaged {
		a.o.Warn("this run is not recorded: " + err.Error())
		err = nil
	}
	if err != nil {
		r.closeLogs()
		return nil, fmt.Errorf("begin run: %w", err)
	}
	r.Info("run begins", "run", id, "command", command, "set", set, "host", a.Host)
	return r, nil
}

func (r *Run) openLogs() error {
	level, err := r.app.logLevel()
	if err != nil {
		return err
	}
	var out []io.Writer
	open := func(name string) error {
		f, err := os.OpenFile(name, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		if err == nil {
			r.files = append(r.files, f)
			out = append(out, f)
		}
		return err
	}
	err = durable.MkdirAll(r.app.Paths.Runs, 0o700)
	if err == nil {
		r.app.dropOldLogs()
		err = open(r.app.runLog(r.ID))
	}
	if err != nil && r.optional {
		r.app.o.Warn("there is no log of this run: " + err.Error())
		err = nil
	}
	if f := r.app.logFile(); err == nil && f != "" {
		err = open(f)
	}
	if err != nil {
		return err
	}
	r.Logger = slog.New(slog.NewTextHandler(io.MultiWriter(out...), &slog.HandlerOptions{Level: level}))
	return nil
}

func (a *App) runLog(id string) string { return filepath.Join(a.Paths.Runs, id+".log") }

func (a *App) logFile() string {
	switch {
	case a.o.LogFile != nil && *a.o.LogFile == "":
		return ""
	case a.o.LogFile != nil:
		return a.abs(*a.o.LogFile)
	case a.Config.Log != nil:
		return *a.Config.Log
	}
	return ""
}

func (a *App) logLevel() (slog.Level, error) {
	text := a.o.LogLevel
	if text == "" {
		text = a.Config.LogLevel
	}
	var level slog.Level
	if text != "" {
		if err := level.UnmarshalText([]byte(text)); err != nil || strings.ContainsAny(text, "+-") {
			return 0, failure.Errorf(failure.Usage, "log level %q: must be debug, info, warn or error", text)
		}
	}
	return level, nil
}

// dropOldLogs keeps the newest logs; names are in the order of time. What
// cannot be removed stays: it is in nobody's way.
func (a *App) dropOldLogs() {
	entries, err := os.ReadDir(a.Paths.Runs)
	if err != nil || len(entries) < keptRuns {
		return
	}
	for _, e := range entries[:len(entries)-keptRuns+1] {
		if id, ok := strings.CutSuffix(e.Name(), ".log"); ok && snapshot.ValidID(id) {
			_ = os.Remove(filepath.Join(a.Paths.Runs, e.Name()))
		}
	}
}

// End writes down how the run ended. It does so also when ctx is over.
func (r *Run) End(ctx context.Context, exit int, summary string) error {
	r.row.Ended, r.row.Exit, r.row.Summary = r.app.Now(), exit, summary
	r.Info("run ends", "exit", exit, "summary", summary)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	db, err := r.app.Catalog(ctx, true)
	if err == nil {
		err = db.PutRun(ctx, r.row)
	}
	if r.optional {
		return r.closeLogs() // who could not begin the record was told, and its end is worth no failure
	}
	return errors.Join(err, r.closeLogs())
}

func (r *Run) closeLogs() error {
	var errs []error
	for _, f := range r.files {
		errs = append(errs, f.Close())
	}
	r.files = nil
	return errors.Join(errs...)
}

// OpenRunLog opens the log of a run. failure.NotFound: it is not there, or no more.
func (a *App) OpenRunLog(id string) (io.ReadCloser, error) {
	f, err := os.Open(a.runLog(id))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, failure.Errorf(failure.NotFound, "there is no log of run %s", id)
	}
	return f, err
}

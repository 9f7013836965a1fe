package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/firn-backup/firn/internal/app"
	"github.com/firn-backup/firn/internal/catalog"
	"github.com/firn-backup/firn/internal/durable"
	"github.com/firn-backup/firn/internal/failure"
	"github.com/firn-backup/firn/internal/progress"
	"github.com/firn-backup/firn/internal/restore"
	"github.com/firn-backup/firn/internal/retrieval"
	"github.com/firn-backup/firn/internal/sendstream"
	"github.com/firn-backup/firn/internal/units"
)

// notStream refuses what can be asked of files only.
func notStream(set catalog.Set, snap catalog.Snapshot, what string) error {
	if !snap.Header.IsStream() {
		return nil
	}
	hint := fmt.Sprintf("firn restore %s --to FILE", set.Name)
	if snap.Header.Stream != string(sendstream.Raw) {
		hint = fmt.Sprintf("firn restore %s --receive TARGET brings it back as a snapshot to look at", set.Name)
	}
	return withHint(usage("set %s holds a %s stream, which has no list of files: %s", set.Name, snap.Header.Stream, what), "%s", hint)
}

// streamTarget is where streams go.
type streamTarget struct {
	text    string // for people
	receive string // dataset or directory of the receiver
	stdout  bool
	dir     string // one file a snapshot
	file    string
	replace bool // what is at file, or in dir
}

func streamTargetOf(f restoreFlags) (streamTarget, error) {
	t := streamTarget{text: f.to, replace: f.overwrite == "always"}
	switch {
	case f.receive != "" && f.to != "":
		return t, usage("--to and --receive do not go together")
	case f.receive != "":
		t.text, t.receive = f.receive, f.receive
	case f.to == "-":
		t.text, t.stdout = "standard output", true
	case strings.HasSuffix(f.to, "/"):
		t.dir = f.to
	default:
		if info, err := os.Stat(f.to); err == nil && info.IsDir() {
			t.dir = f.to
		} else {
			t.file = f.to
		}
	}
	return t, nil
}

// checkChain says whether the streams of a chain can go there.
func (t streamTarget) checkChain(set string, chain []catalog.Snapshot) error {
	n := len(chain)
	last := chain[n-1]
	format := sendstream.Format(last.Header.Stream)
	many := fmt.Sprintf("snapshot %s is an incremental: %d streams must be received one after the other", last.ID, n)
	switch {
	case t.file != "" && n > 1:
		return withHint(usage("%s; one file does not hold them", many), "firn restore %s --to DIR/ makes a file of each; --receive TARGET receives them", set)
	case t.stdout && n > 1 && format != sendstream.Btrfs: // btrfs receive goes on with the next by itself
		return withHint(usage("%s; a pipe does not tell where one ends", many), "firn restore %s --receive TARGET receives them; --to DIR/ makes a file of each", set)
	case t.file != "" && !t.replace:
		if _, err := os.Lstat(t.file); err == nil {
			return withHint(failure.Errorf(failure.Failed, "%s exists", t.file), "--overwrite always replaces it")
		}
	case t.dir != "" && !t.replace:
		for _, s := range chain {
			if name := streamFile(t.dir, &s); exists(name) {
				return withHint(failure.Errorf(failure.Failed, "%s exists", name), "--overwrite always replaces it")
			}
		}
	}
	return nil
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// streamFile is the name of a stream's file. In the order of names the files of a chain are received.
func streamFile(dir string, s *catalog.Snapshot) string {
	if s.Adopted != "" { // before all of Firn's own, and called by its date
		return filepath.Join(dir, fmt.Sprintf("000000-%s-%s.%s", s.Header.Point, s.Kind, s.Header.Stream))
	}
	return filepath.Join(dir, fmt.Sprintf("%06d-%s-%s.%s", s.N, s.At.UTC().Format("20060102T150405Z"), s.Kind, s.Header.Stream))
}

// restoreStream restores a snapshot that is a stream.
func (c *command) restoreStream(ctx context.Context, a *app.App, set catalog.Set, snap catalog.Snapshot, paths []string, o restore.Options, f restoreFlags) error {
	if len(paths) > 0 || f.strip != "" {
		return notStream(set, snap, "all of it is restored, or nothing")
	}
	t, err := streamTargetOf(f)
	if err != nil {
		return err
	}
	so := restore.StreamOptions{Options: o}
	chain, err := restore.StreamChain(ctx, o.Catalog, snap.ID)
	if failure.KindOf(err) == failure.Damaged {
		return withHint(err, "firn snapshots %s lists older ones; firn restore %s@DATE restores as of a date", set.Name, set.Name)
	}
	if err != nil {
		return err
	}
	if err := t.checkChain(set.Name, chain); err != nil {
		return err
	}
	if so.Take, err = c.streamTaker(a, t, sendstream.Format(snap.Header.Stream)); err != nil {
		return err
	}
	d, err := c.desk(ctx, f.retrieveFlags, snap.Vault, nil)
	if err != nil {
		return err
	}
	var run *app.Run
	if !o.DryRun {
		if run, err = a.BeginRun(ctx, "restore", set.Name); err != nil {
			return err
		}
	}
	meter := progress.New(nil)
	tell, stop := c.watch(set.Name, meter)
	defer stop()
	so.Observe = &restoreWatcher{meter: meter, tell: tell, log: run, c: c, dry: o.DryRun}
	tell.Tell(progress.Event{Kind: progress.Began, Set: set.Name, Snapshot: snap.ID,
		Text: fmt.Sprintf("restoring %s as of %s to %s", set.Name, c.stamp(snap.At), t.text)})
	res, err := restore.RunStream(ctx, so)
	stop()
	if err == nil && o.DryRun && !o.Traits.Warm {
		err = d.budget.forecast(retrieval.Bill{Tier: o.Tier, Requests: int64(res.Archives), Bytes: res.ToRead, Days: o.Days})
	}
	summary := restoredStream(set.Name, t, res, o.DryRun)
	if err == nil {
		c.tell(progress.Event{Kind: progress.Summary, Set: set.Name, Snapshot: snap.ID, Text: summary, Data: jsonRestore{
			Set: set.Name, Snapshot: snap.ID, To: t.text, DryRun: o.DryRun, Entries: int64(len(res.Chain)), Selected: res.Raw,
			Archives: res.Archives, Ranges: res.Archives, ToRead: res.ToRead, BytesRead: res.Read, Files: int64(res.Taken), Bytes: res.Raw,
		}})
	} else {
		summary = err.Error()
	}
	if run == nil {
		return err
	}
	return errors.Join(err, run.End(ctx, c.codeOf(ctx, err), summary))
}

func restoredStream(set string, t streamTarget, r restore.StreamResult, dry bool) string {
	what := plural(int64(len(r.Chain)), "stream")
	if dry {
		if slices.ContainsFunc(r.Chain, func(s catalog.Snapshot) bool { return s.Adopted != "" }) {
			return fmt.Sprintf("%s: would restore %s of unknown size, reading %s in %s", set, what, units.Size(r.ToRead), plural(int64(r.Archives), "archive"))
		}
		return fmt.Sprintf("%s: would restore %s, %s, reading %s in %s", set, what, units.Size(r.Raw), units.Size(r.ToRead), plural(int64(r.Archives), "archive"))
	}
	return fmt.Sprintf("%s: restored %s (%s) to %s, reading %s", set, what, units.Size(r.Raw), t.text, units.Size(r.Read))
}

// streamTaker takes streams to their target.
func (c *command) streamTaker(a *app.App, t streamTarget, format sendstream.Format) (func(context.Context, *catalog.Snapshot, io.Reader) error, error) {
	switch {
	case t.receive != "":
		recv, err := a.OpenReceiver(format, t.receive)
		return func(ctx context.Context, s *catalog.Snapshot, r io.Reader) error {
			return recv.Receive(ctx, r, s.Base == "")
		}, err
	case t.stdout && c.json:
		return nil, usage("--json and --to -: standard output can be one of them only")
	case t.stdout:
		if isTerminal(c.env.Stdout) {
			return nil, usage("a stream is not for a terminal: --to FILE, or a pipe")
		}
		return func(_ context.Context, _ *catalog.Snapshot, r io.Reader) error {
			_, err := io.Copy(c.env.Stdout, r)
			return err
		}, nil
	}
	return func(_ context.Context, s *catalog.Snapshot, r io.Reader) error {
		name := t.file
		if t.dir != "" {
			name = streamFile(t.dir, s)
		}
		if dir := filepath.Dir(name); !exists(dir) {
			if err := durable.MkdirAll(dir, 0o777); err != nil {
				return err
			}
		}
		return writeStream(name, r, t.replace)
	}, nil
}

// writeStream writes a file, which gets its name when all of it is there.
func writeStream(name string, r io.Reader, replace bool) error {
	f, err := os.CreateTemp(filepath.Dir(name), durable.TempMark+"*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // if it has its name already there is nothing to remove
	w := bufio.NewWriterSize(f, 1<<20)
	_, err = io.Copy(w, r)
	err = errors.Join(err, w.Flush())
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if replace {
		return durable.Rename(f.Name(), name)
	}
	if err := os.Link(f.Name(), name); err == nil {
		return durable.SyncDir(filepath.Dir(name))
	} else if errors.Is(err, fs.ErrExist) {
		return err
	}
	if exists(name) { // a file system without hard links
		return fmt.Errorf("%s: %w", name, fs.ErrExist)
	}
	return durable.Rename(f.Name(), name)
}

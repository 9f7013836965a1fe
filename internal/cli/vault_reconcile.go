package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/firn-backup/firn/internal/app"
	"github.com/firn-backup/firn/internal/failure"
	"github.com/firn-backup/firn/internal/mirror"
	"github.com/firn-backup/firn/internal/progress"
	"github.com/firn-backup/firn/internal/snapshot"
	"github.com/firn-backup/firn/internal/units"
)

// reconcileFlags are what the command line says of a mirror.
type reconcileFlags struct {
	commit, checksum    bool
	allowShrunk, early  bool
	name                string
	compress, encrypt   string
	exclude, recipients []string
	files, requireMount []string
	startOver           bool
	parallel            int
	limit               limitFlag
}

func newVaultReconcile(c *command) *cobra.Command {
	var f reconcileFlags
	cmd := &cobra.Command{
		Use:   "reconcile SET|VAULT [DIR]",
		Short: "Make a vault hold each file of a directory as an archive",
		Long: `Compare the files below a directory with the archives that are stored of them, one archive
a file, and show what is to be uploaded and deleted. With --commit it is done: uploads first, then
archives of which a newer version is stored or whose file is gone are deleted, once
they are as old as the vault's minimum storage duration.

Files whose size, times and inode are as they were are not read (--checksum reads all);
others are compared by their tree hash. Nothing is deleted where a directory is missing, not mounted, or has lost more
than half of its files.

SET is a set of kind mirror. With the name or URL of a vault, a set is made for the directory at the first time.`,
		Example: example("firn vault reconcile bands", "firn vault reconcile bands --commit",
			"firn vault reconcile glacier://eu-west-1/timemachine /Volumes/TM/nb.sparsebundle --encrypt none --commit"),
		Args: args(1, 2, "a set or vault, and a directory"),
		RunE: func(cmd *cobra.Command, args []string) error { return c.reconcileMirror(cmd, args, f) },
	}
	fs := cmd.Flags()
	fs.BoolVar(&f.commit, "commit", false, "do it, instead of showing it")
	fs.BoolVar(&f.checksum, "checksum", false, "read every file, whatever its metadata say")
	fs.BoolVar(&f.allowShrunk, "allow-shrunk", false, "believe that files are gone also where a directory is missing, not mounted, or has lost most of them")
	fs.BoolVar(&f.early, "allow-early-delete", false, "delete before the minimum storage duration is over, which is charged for")
	fs.BoolVar(&f.startOver, "start-over", false, startOverText)
	fs.StringVar(&f.name, "name", "", "`NAME` of the set made for the directory (default: its last element)")
	fs.StringVar(&f.compress, "compress", "", "zstd[:1-19], gzip[:1-9], bzip2[:1-9] or none (default none)")
	fs.StringVar(&f.encrypt, "encrypt", "", "age, openpgp or none (default age)")
	fs.StringArrayVar(&f.exclude, "exclude", nil, "leave out what fits the gitignore `PATTERN`; repeatable")
	fs.StringArrayVar(&f.requireMount, "require-mount", nil, "fail unless something is mounted at `DIR`; repeatable")
	fs.StringArrayVarP(&f.recipients, "recipient", "r", nil, "encrypt to `KEY`; repeatable (default: the key file's)")
	fs.StringArrayVar(&f.files, "recipient-file", nil, "encrypt to the keys in `FILE`; repeatable")
	fs.IntVar(&f.parallel, "parallel", 0, "parts of a large file sent at a time (default 2)")
	f.limit.add(cmd)
	return cmd
}

func (c *command) reconcileMirror(cmd *cobra.Command, args []string, f reconcileFlags) error {
	ctx := cmd.Context()
	a, err := c.open(cmd)
	if err != nil {
		return err
	}
	dir := ""
	if len(args) == 2 {
		if dir, err = filepath.Abs(args[1]); err != nil {
			return err
		}
	}
	t, err := a.MirrorTarget(ctx, args[0], dir, f.name)
	if err != nil {
		return err
	}
	s := t.Config
	s.Exclude = append(s.Exclude, f.exclude...)
	s.RequireMount = append(s.RequireMount, f.requireMount...)
	s.Checksum = s.Checksum || f.checksum
	if f.compress != "" {
		s.Compress = f.compress
	}
	if f.encrypt != "" {
		s.Encrypt = f.encrypt
	}
	if cmd.Flags().Changed("recipient") || cmd.Flags().Changed("recipient-file") {
		s.Recipients, s.RecipientFiles = f.recipients, f.files
	}
	flags := backupFlags{parallel: f.parallel, limit: f.limit, startOver: f.startOver}
	if err := c.checkBeforeKey(ctx, a, t, flags); err != nil {
		return err
	}
	return c.mirrorRun(ctx, a, t, flags, mirrorRun{
		command: "vault reconcile", commit: f.commit, delete: true, early: f.early, allowShrunk: f.allowShrunk,
	})
}

// mirrorRun says what a run over a mirror does.
type mirrorRun struct {
	command            string
	commit, delete     bool
	early, allowShrunk bool
}

func (c *command) backupMirror(ctx context.Context, a *app.App, t app.Target, f backupFlags) error {
	if d := t.Config.MinInterval; d > 0 && !f.force && !t.New {
		due, err := a.ItemsDue(ctx, t.Set, d)
		if err != nil {
			return err
		}
		if a.Now().Before(due) {
			c.talk("%s: nothing is done before %s (min-interval; --force does it all the same)", t.Set.Name, c.stamp(due))
			return nil
		}
	}
	return c.mirrorRun(ctx, a, t, f, mirrorRun{command: "backup", commit: f.dryRun == "", delete: t.Config.Replace, allowShrunk: f.allowEmpty})
}

func (c *command) mirrorRun(ctx context.Context, a *app.App, t app.Target, f backupFlags, m mirrorRun) error {
	if _, err := os.Stat(t.Config.Path); err != nil {
		return err
	}
	ctx, s, err := c.openSingle(ctx, a, t, f, m.command, !m.commit)
	if err != nil {
		return err
	}
	defer s.end()
	t = s.t
	one := *t.Config
	one.Paths = []string{t.Config.Path}
	tree, err := a.OpenTree(&one, app.VaultDir(t.Set.Vault), func(path, reason string) { c.warn("/%s: %s", path, reason) })
	if err != nil {
		return errors.Join(err, s.close(ctx, c, err, ""))
	}
	meter := progress.New(nil)
	tell, stop := c.watch(t.Set.Name, meter)
	defer stop()
	s.items.Transfer.Sent = meter.AddSent
	o := mirror.Options{
		Items: s.items, Tree: tree, Dir: t.Config.Path, Commit: m.commit, Delete: m.delete, Early: m.early, AllowShrunk: m.allowShrunk,
		Checksum: t.Config.Checksum, Names: app.OwnerNames(), Observe: &mirrorWatcher{meter: meter, tell: tell, log: s.run},
	}
	tell.Tell(progress.Event{Kind: progress.Began, Set: t.Set.Name, Text: "comparing " + t.Config.Path + " with " + t.Set.Vault})
	res, err := mirror.Run(ctx, o)
	err = errors.Join(err, tree.Close())
	stop()
	summary := ""
	if kind := failure.KindOf(err); err == nil || kind == failure.Partial {
		for _, w := range res.Withheld {
			c.warn("not deleted: %s", w.Text())
		}
		if !m.commit {
			c.mirrorPlan(res)
		}
		summary = mirrorSummary(t.Set.Name, res, m)
		c.tell(progress.Event{Kind: progress.Summary, Set: t.Set.Name, Snapshot: res.Run.ID, Text: summary, Data: mirrorJSON(t, res, m)})
		switch {
		case len(res.Withheld) > 0 && err != nil:
			err = withHint(err, "mount what is not mounted; if they are meant to be gone, %s deletes their archives", shrunkFlag(m))
		case !m.commit && m.command == "vault reconcile" && len(res.Upload)+due(res) > 0:
			c.hint("--commit does it")
		}
	}
	return errors.Join(err, s.close(ctx, c, err, summary))
}

func shrunkFlag(m mirrorRun) string {
	if m.command == "backup" {
		return "firn vault reconcile --allow-shrunk --commit"
	}
	return "--allow-shrunk"
}

// due is how many archives may be deleted now.
func due(r mirror.Result) int {
	n := 0
	for _, d := range r.Delete {
		if d.Due.IsZero() {
			n++
		}
	}
	return n
}

// mirrorPlan lists what is to be done.
func (c *command) mirrorPlan(r mirror.Result) {
	if c.json {
		return // the summary has it
	}
	for _, u := range r.Upload {
		c.printf("upload  %-8s %12s  %s\n", u.Kind, units.Size(u.Size), shown(u.Path))
	}
	for _, d := range r.Delete {
		note := ""
		if !d.Due.IsZero() {
			note = "  (not before " + c.stamp(d.Due) + ")"
		}
		c.printf("delete  %-8s %12s  %s%s\n", d.Kind, units.Size(d.Size), shown(d.Path), note)
	}
}

func mirrorSummary(set string, r mirror.Result, m mirrorRun) string {
	text := fmt.Sprintf("%s: %s (%s), %s unchanged", set, plural(r.Files, "file"), units.Size(r.Bytes), count(r.Unchanged))
	if r.Read > 0 {
		text += fmt.Sprintf(", %s read to be compared", count(r.Read))
	}
	late := len(r.Delete) - due(r)
	if !m.commit {
		if len(r.Upload)+due(r) == 0 {
			text += "; nothing to do"
		} else {
			text += fmt.Sprintf("; to upload: %s; to delete: %s", count(int64(len(r.Upload))), count(int64(due(r))))
		}
		if late > 0 {
			text += fmt.Sprintf("; %s to be deleted later", count(int64(late)))
		}
		return text + foundText(r.Known)
	}
	text += fmt.Sprintf("; %s uploaded (%s), %s deleted", count(r.Stored), units.Size(r.Sent), count(r.Deleted))
	if late > 0 && m.delete {
		text += fmt.Sprintf(", %s kept until the vault's minimum storage duration is over", count(int64(late)))
	}
	text += foundText(r.Known)
	if r.Left > 0 {
		text += fmt.Sprintf("; %s left out: not a file", plural(r.Left, "name"))
	}
	if r.Bad > 0 {
		text += "; " + plural(r.Bad, "problem")
	}
	return text
}

// foundText tells of archives of a set in its vault that the catalog did not know.
func foundText(n int) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprintf("; %s were found in the vault", plural(int64(n), "archive"))
}

// jsonMirror is the data of the summary of a mirror. docs/reference/json.md.
type jsonMirror struct {
	Set       string     `json:"set"`
	SetID     string     `json:"setid"`
	Vault     string     `json:"vault"`
	Run       string     `json:"run,omitempty"`
	Commit    bool       `json:"commit"`
	Files     int64      `json:"files"`
	Bytes     int64      `json:"bytes"`
	Unchanged int64      `json:"unchanged"`
	Read      int64      `json:"files_read"`
	Uploads   []jsonItem `json:"uploads"`
	Deletions []jsonItem `json:"deletions"`
	Withheld  []string   `json:"withheld,omitempty"`
	Stored    int64      `json:"stored"`
	Sent      int64      `json:"sent"`
	Deleted   int64      `json:"deleted"`
	Problems  int64      `json:"problems"`
}

func mirrorJSON(t app.Target, r mirror.Result, m mirrorRun) jsonMirror {
	j := jsonMirror{Set: t.Set.Name, SetID: t.Set.ID, Vault: t.Set.Vault, Run: r.Run.ID, Commit: m.commit, Files: r.Files, Bytes: r.Bytes,
		Unchanged: r.Unchanged, Read: r.Read, Uploads: []jsonItem{}, Deletions: []jsonItem{}, Stored: r.Stored, Sent: r.Sent, Deleted: r.Deleted, Problems: r.Bad}
	for _, u := range r.Upload {
		j.Uploads = append(j.Uploads, jsonItem{jsonPath: pathJSON(u.Path), Why: string(u.Kind), Size: u.Size})
	}
	for _, d := range r.Delete {
		j.Deletions = append(j.Deletions, jsonItem{jsonPath: pathJSON(d.Path), Why: string(d.Kind), Size: d.Size, Due: stampJSON(d.Due)})
	}
	for _, w := range r.Withheld {
		j.Withheld = append(j.Withheld, w.Text())
	}
	return j
}

// mirrorWatcher tells progress of what a run over a mirror does.
type mirrorWatcher struct {
	meter *progress.Meter
	tell  progress.Watcher
	log   *app.Run // nil where nothing is done
}

var _ mirror.Observer = (*mirrorWatcher)(nil)

func (w *mirrorWatcher) Looking(int64)   {}
func (w *mirrorWatcher) Read(n int64)    { w.meter.AddBytes(n) }
func (w *mirrorWatcher) Sending(n int64) { w.meter.AddBytes(n) }

func (w *mirrorWatcher) Stored(ch mirror.Change) {
	w.meter.AddFiles(1)
	w.log.Info("stored", "file", ch.Path, "why", string(ch.Kind), "archive", ch.Archive, "bytes", ch.Size)
	w.tell.Tell(progress.Event{Kind: progress.Archive, Archive: ch.Archive, Path: ch.Path, Bytes: ch.Size, Text: "uploaded (" + string(ch.Kind) + ")"})
}

func (w *mirrorWatcher) Deleted(ch mirror.Change) {
	w.log.Info("deleted", "file", ch.Path, "why", string(ch.Kind), "archive", ch.Archive)
	w.tell.Tell(progress.Event{Kind: progress.Archive, Archive: ch.Archive, Path: ch.Path, Bytes: ch.Size, Text: "deleted (" + string(ch.Kind) + ")"})
}

func (w *mirrorWatcher) Problem(p snapshot.Problem) {
	if w.log != nil {
		w.log.Warn("problem", "path", p.Path, "reason", p.Reason)
	}
	w.tell.Tell(progress.Event{Kind: progress.Problem, Path: p.Path, Text: p.Reason})
}

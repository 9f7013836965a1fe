package cli

import (
	"context"
	"errors"
	"fmt"

	"github.com/firn-backup/firn/internal/app"
	"github.com/firn-backup/firn/internal/backup"
	"github.com/firn-backup/firn/internal/catalog"
	"github.com/firn-backup/firn/internal/config"
	"github.com/firn-backup/firn/internal/failure"
	"github.com/firn-backup/firn/internal/items"
	"github.com/firn-backup/firn/internal/itemstore"
	"github.com/firn-backup/firn/internal/progress"
	"github.com/firn-backup/firn/internal/snapshot"
	"github.com/firn-backup/firn/internal/units"
)

// single is a set of single archives, ready to be run.
type single struct {
	t     app.Target
	items itemstore.Options
	run   *app.Run // nil in a dry run
	end   func()   // gives the set back
}

// openSingle puts together what a run of a set of kind items or mirror needs. In a dry run nothing is made.
func (c *command) openSingle(ctx context.Context, a *app.App, t app.Target, f backupFlags, command string, dry bool) (context.Context, *single, error) {
	s := &single{t: t, end: func() {}}
	o, key, err := a.ItemOptions(ctx, t, dry)
	if err != nil {
		return ctx, nil, err
	}
	s.items = o
	if dry {
		if s.items.Store, err = a.DryStore(ctx, t); err != nil {
			return ctx, nil, err
		}
		return ctx, s, c.checkKnown(ctx, a, t, s.items.Store, f)
	}
	if s.items.Store, err = a.OpenVaultFor(ctx, t, key); err != nil {
		return ctx, nil, err
	}
	if err := c.checkKnown(ctx, a, t, s.items.Store, f); err != nil {
		return ctx, nil, err
	}
	if t.New {
		if t.Set, err = a.AddSet(ctx, t.Set); err != nil {
			return ctx, nil, err
		}
		s.t, s.items.Set = t, t.Set
	}
	held, release, err := a.LockSet(ctx, t.Set)
	if err != nil {
		return ctx, nil, err
	}
	s.end = release
	if err := o.Catalog.PutSet(ctx, t.Set); err != nil {
		release()
		return ctx, nil, err
	}
	if s.run, err = a.BeginRun(ctx, command, t.Set.Name); err == nil {
		s.items.Transfer.Limit, err = c.limiter(a, f.limit)
	}
	if err != nil {
		release()
		return ctx, nil, err
	}
	s.items.Transfer.Parallel = f.parallel
	return held, s, nil
}

func (c *command) backupItems(ctx context.Context, a *app.App, t app.Target, f backupFlags) error {
	dry := f.dryRun != ""
	ctx, s, err := c.openSingle(ctx, a, t, f, "backup", dry)
	if err != nil {
		return err
	}
	defer s.end()
	t = s.t
	set := t.Config
	interval := set.MinInterval
	if f.force {
		interval = 0
	}
	warn := func(path, reason string) { c.warn("/%s: %s", path, reason) }
	o := items.Options{
		Items: s.items, Path: set.Path, Exclude: set.Exclude, Once: set.Store == config.StoreOnce, Replace: set.Replace, Checksum: set.Checksum,
		AllowShrunk: f.allowEmpty, DryRun: dry, MinInterval: interval, Names: app.OwnerNames(), Skip: a.OwnPath(t.Set.Vault),
		Files: set.What == "" || set.What == config.WhatBoth || set.What == config.WhatFiles,
		Dirs:  set.What == "" || set.What == config.WhatBoth || set.What == config.WhatDirs,
		Tree: func(full string) (items.Tree, error) {
			one := *set
			one.Paths, one.RequireMount = []string{full}, nil
			return a.OpenTree(&one, app.VaultDir(t.Set.Vault), warn)
		},
	}
	if err := app.RequireMounts(set.RequireMount); err != nil {
		return errors.Join(err, s.close(ctx, c, err, ""))
	}
	if set.Format == config.FormFirn {
		o.Snapshot = func(ctx context.Context, full string) (string, int64, error) {
			return c.itemSnapshot(ctx, a, s, full, warn)
		}
	}
	meter := progress.New(nil)
	tell, stop := c.watch(t.Set.Name, meter)
	defer stop()
	s.items.Transfer.Sent = meter.AddSent
	o.Items.Transfer.Sent = meter.AddSent
	w := &itemsWatcher{meter: meter, tell: tell, log: s.run, c: c, done: map[string]bool{}}
	o.Observe = w
	verb := "backing up"
	if dry {
		verb = "looking at"
	}
	tell.Tell(progress.Event{Kind: progress.Began, Set: t.Set.Name, Text: verb + " the items of " + set.Path + " to " + t.Set.Vault})
	res, err := items.Run(ctx, o)
	stop()
	if dry {
		for _, ch := range res.Upload {
			w.plan(ch)
		}
	}
	summary := itemsSummary(t.Set.Name, res, dry, c)
	if err == nil || failure.KindOf(err) == failure.Partial {
		c.tell(progress.Event{Kind: progress.Summary, Set: t.Set.Name, Snapshot: res.Run.ID, Text: summary, Data: itemsJSON(t, res, dry)})
		if res.Worse > 0 && !f.allowEmpty {
			c.hint("look at what is stored now; --allow-empty deletes the older archives of directories that are meant to have less in them")
		}
	}
	return errors.Join(err, s.close(ctx, c, err, summary))
}

// close ends the run's log and says how it went.
func (s *single) close(ctx context.Context, c *command, err error, summary string) error {
	if s.run == nil {
		return nil
	}
	if err != nil && failure.KindOf(err) != failure.Partial {
		summary = err.Error()
		s.run.Error("failed", "error", err)
	}
	c.lastRun = lastRun{id: s.run.ID, summary: summary, code: codeOf(err)}
	return s.run.End(ctx, c.codeOf(ctx, err), summary)
}

// itemSnapshot stores an item in Firn's format: as a full snapshot of its own.
func (c *command) itemSnapshot(ctx context.Context, a *app.App, s *single, full string, warn func(path, reason string)) (string, int64, error) {
	t := s.t
	one := *t.Config
	one.Paths, one.RequireMount = []string{full}, nil
	t.Config = &one
	o, _, err := a.BackupOptions(ctx, t, warn)
	if err != nil {
		return "", 0, err
	}
	o.Store, o.Full, o.Transfer = s.items.Store, true, s.items.Transfer
	res, err := backup.Run(ctx, o)
	return res.Snapshot.ID, res.Sent, err
}

func itemsSummary(set string, r items.Result, dry bool, c *command) string {
	if dry {
		return fmt.Sprintf("%s: would store %s of %s; %s unchanged", set, plural(int64(len(r.Upload)), "item"), count(r.Items), count(r.Unchanged)) + foundText(r.Known)
	}
	text := fmt.Sprintf("%s: %s, %s stored (%s), %s unchanged", set, plural(r.Items, "item"), count(r.Stored), units.Size(r.Sent), count(r.Unchanged))
	if r.TooEarly > 0 {
		text += fmt.Sprintf("; %s changed and not stored again before %s (min-interval)", count(r.TooEarly), c.stamp(r.Due))
	}
	if r.Deleted > 0 {
		text += fmt.Sprintf("; %s deleted", plural(r.Deleted, "older archive"))
	}
	if r.Young > 0 {
		text += fmt.Sprintf("; %s kept until the vault's minimum storage duration is over", plural(r.Young, "older archive"))
	}
	if r.Worse > 0 {
		text += fmt.Sprintf("; %s kept since what is stored now has less in it", plural(r.Worse, "older archive"))
	}
	text += foundText(r.Known)
	if r.Bad > 0 {
		text += "; " + plural(r.Bad, "problem")
	}
	return text
}

// jsonItems is the data of the summary of a set of kind items. docs/reference/json.md.
type jsonItems struct {
	Set       string     `json:"set"`
	SetID     string     `json:"setid"`
	Vault     string     `json:"vault"`
	Run       string     `json:"run,omitempty"`
	DryRun    bool       `json:"dry_run,omitempty"`
	Items     int64      `json:"items"`
	Unchanged int64      `json:"unchanged"`
	Uploads   []jsonItem `json:"uploads"`
	Stored    int64      `json:"stored"`
	Sent      int64      `json:"sent"`
	Deleted   int64      `json:"deleted"`
	Kept      int64      `json:"kept"` // older archives that are too young to be deleted
	Fuller    int64      `json:"fuller"`
	TooEarly  int64      `json:"too_early"`
	Problems  int64      `json:"problems"`
}

// jsonItem is one item that is stored, or would be.
type jsonItem struct {
	jsonPath
	Why  string  `json:"why"`
	Size int64   `json:"size"`
	Due  *string `json:"due,omitempty"`
}

func itemsJSON(t app.Target, r items.Result, dry bool) jsonItems {
	j := jsonItems{Set: t.Set.Name, SetID: t.Set.ID, Vault: t.Set.Vault, Run: r.Run.ID, DryRun: dry, Items: r.Items, Unchanged: r.Unchanged,
		Uploads: []jsonItem{}, Stored: r.Stored, Sent: r.Sent, Deleted: r.Deleted, Kept: r.Young, Fuller: r.Worse, TooEarly: r.TooEarly, Problems: r.Bad}
	for _, u := range r.Upload {
		j.Uploads = append(j.Uploads, jsonItem{jsonPath: pathJSON(u.Name), Why: u.Why, Size: u.Size})
	}
	return j
}

// itemsWatcher tells progress of what a run over items does.
type itemsWatcher struct {
	meter *progress.Meter
	tell  progress.Watcher
	log   *app.Run
	c     *command
	done  map[string]bool
}

var _ items.Observer = (*itemsWatcher)(nil)

func (w *itemsWatcher) Looking(string) {}
func (w *itemsWatcher) Read(n int64)   { w.meter.AddBytes(n) }

func (w *itemsWatcher) Stored(i catalog.Item, why string) {
	w.meter.AddFiles(1)
	if w.log != nil {
		w.log.Info("stored", "item", i.Path, "why", why, "archive", i.Archive.Archive, "snapshot", i.Snapshot, "bytes", i.Archive.Size)
	}
	w.tell.Tell(progress.Event{Kind: progress.Archive, Archive: i.Archive.Archive, Path: i.Path, Bytes: i.Archive.Size, Text: "stored (" + why + ")"})
}

func (w *itemsWatcher) Deleted(i catalog.Item) {
	if w.log != nil {
		w.log.Info("deleted", "item", i.Path, "archive", i.Archive.Archive, "bytes", i.Archive.Size)
	}
	w.tell.Tell(progress.Event{Kind: progress.Archive, Archive: i.Archive.Archive, Path: i.Path, Bytes: i.Archive.Size, Text: "deleted"})
}

func (w *itemsWatcher) Problem(p snapshot.Problem) {
	if w.log != nil {
		w.log.Warn("problem", "path", p.Path, "reason", p.Reason)
	}
	w.tell.Tell(progress.Event{Kind: progress.Problem, Path: p.Path, Text: p.Reason})
}

func (w *itemsWatcher) Notice(p snapshot.Problem) {
	w.tell.Tell(progress.Event{Kind: progress.Notice, Path: p.Path, Text: p.Path + " is left out: " + p.Reason})
}

func (w *itemsWatcher) Kept(path, reason string) {
	if w.log != nil {
		w.log.Warn("kept", "path", path, "reason", reason)
	}
	w.c.warn("%s: its older archive is kept: %s", shown(path), reason)
}

// plan tells of what would be stored.
func (w *itemsWatcher) plan(ch items.Change) {
	if w.c.json {
		return // the summary has them
	}
	w.c.printf("would store %s (%s)\n", shown(ch.Full), ch.Why)
}

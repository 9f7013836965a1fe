package cli

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/firn-backup/firn/internal/app"
	"github.com/firn-backup/firn/internal/catalog"
	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/internal/extract"
	"github.com/firn-backup/firn/internal/failure"
	"github.com/firn-backup/firn/internal/items"
	"github.com/firn-backup/firn/internal/progress"
	"github.com/firn-backup/firn/internal/restore"
	"github.com/firn-backup/firn/internal/retrieval"
	"github.com/firn-backup/firn/internal/snapshot"
	"github.com/firn-backup/firn/internal/units"
	"github.com/firn-backup/firn/treehash"
)

// jsonItemVersion is a version of an item in lists. docs/reference/json.md.
type jsonItemVersion struct {
	jsonPath
	Type     string  `json:"type"` // "f" or "d"
	Size     int64   `json:"size"` // of the file, or of the files in the directory
	Files    int64   `json:"files,omitempty"`
	MTime    *string `json:"mtime,omitempty"`
	Run      uint64  `json:"run"`
	Until    uint64  `json:"until,omitempty"` // the run that replaced it or found it gone
	Stored   *string `json:"stored"`
	Deleted  *string `json:"deleted,omitempty"`
	Vault    string  `json:"vault"`
	Archive  string  `json:"archive,omitempty"`
	Snapshot string  `json:"snapshot,omitempty"`
	Packed   int64   `json:"archive_size,omitempty"`
	TreeHash string  `json:"tree_hash,omitempty"` // of the archive
}

func itemVersionJSON(i *catalog.Item) jsonItemVersion {
	j := jsonItemVersion{jsonPath: pathJSON(i.Path), Type: "f", Size: i.Size(), Files: i.Files, MTime: stampJSON(i.MTime.Time()), Run: i.N, Until: i.Until,
		Stored: stampJSON(i.Stored), Deleted: stampJSON(i.Deleted), Vault: i.Vault, Archive: i.Archive.Archive, Snapshot: i.Snapshot, Packed: i.Archive.Size}
	if i.Dir {
		j.Type = "d"
	}
	if i.Archive.Archive != "" {
		j.TreeHash = treehash.Hash(i.Archive.TreeHash).String()
	}
	return j
}

// lsItems lists the items of a set as they were after run at; 0: as they are.
func (c *command) lsItems(ctx context.Context, a *app.App, set catalog.Set, at uint64, paths []string, o lsOptions) error {
	db, err := a.Catalog(ctx, false)
	if err != nil {
		return err
	}
	q := catalog.ItemQuery{At: at, All: o.versions}
	for _, p := range paths {
		q.Under = append(q.Under, items.CleanPath(p))
	}
	list := c.array(jsonItemVersion{})
	n := 0
	err = db.Items(ctx, set.ID, q, func(i catalog.Item) error {
		n++
		switch {
		case c.json:
			return list.add(itemVersionJSON(&i))
		case o.null:
			c.printf("%s\x00", i.Path)
		case o.long || o.versions:
			c.printf("%s\n", c.itemLine(&i))
		default:
			c.printf("%s\n", itemName(&i))
		}
		return c.failure()
	})
	if err != nil {
		return err
	}
	if c.json {
		list.close()
	}
	if n == 0 && len(paths) > 0 {
		return failure.Errorf(failure.NotFound, "%s: not among the items of set %s", paths[0], set.Name)
	}
	return nil
}

func itemName(i *catalog.Item) string {
	if i.Dir {
		return shown(i.Path) + "/"
	}
	return shown(i.Path)
}

func (c *command) itemLine(i *catalog.Item) string {
	where := i.Archive.Archive
	switch {
	case i.Snapshot != "":
		where = "snapshot " + i.Snapshot
	case where == "":
		where = "empty"
	}
	state := ""
	switch {
	case !i.Deleted.IsZero():
		state = "  (deleted " + c.stamp(i.Deleted) + ")"
	case i.Until > 0:
		state = "  (until run " + strconv.FormatUint(i.Until, 10) + ")"
	}
	return fmt.Sprintf("%14s  %s  stored %s  %s  %s%s", count(i.Size()), c.stamp(i.MTime.Time()), c.stamp(i.Stored), itemName(i), where, state)
}

// itemSnapshots lists the runs of a set of single archives as snapshots.
func itemSnapshots(set catalog.Set, runs []catalog.ItemRun) []jsonSnapshot {
	var list []jsonSnapshot
	for _, r := range runs {
		list = append(list, jsonSnapshot{Snapshot: r.ID, Set: set.Name, SetID: set.ID, Host: set.Host, N: r.N, At: stampJSON(r.At), Made: stampJSON(r.At),
			Kind: set.Kind, Chain: r.ID, State: string(catalog.Stored), Vault: r.Vault, Entries: r.Items, Size: r.Bytes, Changed: r.New, Deleted: r.Gone,
			Stored: r.Sent + r.Index.Size})
	}
	return list
}

// restoreItems gets items of a set of single archives back.
func (c *command) restoreItems(ctx context.Context, a *app.App, set catalog.Set, at uint64, paths []string, f restoreFlags) error {
	plain, err := restoreOptions(f)
	if err != nil {
		return err
	}
	db, err := a.Catalog(ctx, false)
	if err != nil {
		return err
	}
	o := items.RestoreOptions{
		Catalog: db, Set: set, At: at, Paths: paths, To: f.to, Strip: f.strip, DryRun: f.dryRun, Overwrite: plain.Overwrite, Numeric: f.numeric,
		Wait: f.wait, Codecs: a.Codecs(f.identities), Now: a.Now,
		Open: func(ctx context.Context, vault string) (coldstore.Store, error) {
			return a.OpenStore(ctx, vault, false)
		},
	}
	d, err := c.desk(ctx, f.retrieveFlags, set.Vault, nil)
	if err != nil {
		return err
	}
	o.Tier, o.Days, o.Pace = d.tier, d.days, d.pace
	o.Approve = func(ctx context.Context, vault string, b retrieval.Bill) error {
		store, err := a.OpenStore(ctx, vault, false)
		if err != nil {
			return err
		}
		d, err := c.desk(ctx, f.retrieveFlags, vault, store)
		if err != nil {
			return err
		}
		return d.approve(ctx, b)
	}
	if o.Transfer.Limit, err = c.limiter(a, f.limit); err != nil {
		return err
	}
	o.Snapshot = func(ctx context.Context, id string, under []string, dry bool) (items.SnapshotResult, error) {
		return c.restoreItemSnapshot(ctx, a, id, under, dry, f)
	}
	var run *app.Run
	if !f.dryRun {
		if run, err = a.BeginReading(ctx, "restore", set.Name); err != nil {
			return err
		}
	}
	meter := progress.New(nil)
	tell, stop := c.watch(set.Name, meter)
	defer stop()
	o.Observe = &itemsRestoreWatcher{meter: meter, tell: tell, log: run}
	tell.Tell(progress.Event{Kind: progress.Began, Set: set.Name, Text: "restoring " + set.Name + " to " + f.to})
	res, err := items.Restore(ctx, o)
	stop()
	summary := itemsRestoreSummary(set.Name, res, f)
	kind := failure.KindOf(err)
	if err == nil || kind == failure.Partial || kind == failure.Damaged {
		c.tell(progress.Event{Kind: progress.Summary, Set: set.Name, Text: summary, Data: jsonRestore{Set: set.Name, To: f.to, DryRun: f.dryRun,
			Entries: res.Items, Selected: res.Bytes, Archives: int(res.Items - res.Kept), ToRead: res.ToRead, BytesRead: res.Read, Files: res.Files, Kept: res.Kept, Problems: res.Bad}})
	} else {
		summary = err.Error()
	}
	if run == nil {
		return err
	}
	return errors.Join(err, run.End(ctx, c.codeOf(ctx, err), summary))
}

func itemsRestoreSummary(set string, r items.RestoreResult, f restoreFlags) string {
	if f.dryRun {
		return fmt.Sprintf("%s: would restore %s (%s), reading %s; %s there already", set, plural(r.Items-r.Kept, "item"), units.Size(r.Bytes), units.Size(r.ToRead), count(r.Kept))
	}
	text := fmt.Sprintf("%s: restored %s to %s, reading %s", set, plural(r.Files, "item"), f.to, units.Size(r.Read))
	if r.Kept > 0 {
		text += fmt.Sprintf("; %s there already", count(r.Kept))
	}
	if r.Bad > 0 {
		text += "; " + plural(r.Bad, "problem")
	}
	return text
}

// restoreItemSnapshot restores an item in Firn's format: under its own name, as the plain ones are. It tells what was done, or with
// dry would be.
func (c *command) restoreItemSnapshot(ctx context.Context, a *app.App, id string, under []string, dry bool, f restoreFlags) (items.SnapshotResult, error) {
	db, err := a.Catalog(ctx, false)
	if err != nil {
		return items.SnapshotResult{}, err
	}
	snap, err := db.Snapshot(ctx, id)
	if err != nil {
		return items.SnapshotResult{}, err
	}
	o, err := restoreOptions(f)
	if err != nil {
		return items.SnapshotResult{}, err
	}
	store, err := a.OpenStore(ctx, snap.Vault, false)
	if err != nil {
		return items.SnapshotResult{}, err
	}
	full := ""
	if len(snap.Header.Paths) == 1 {
		full = snap.Header.Paths[0]
	}
	parent := items.Parent(full)
	for _, u := range under {
		o.Paths = append(o.Paths, parent+"/"+u)
	}
	if o.Strip == "" {
		o.Strip = parent
	} else {
		o.Strip = parent + "/" + o.Strip
	}
	o.Catalog, o.Store, o.Traits, o.Snapshot, o.Now, o.Codecs = db, store, store.Traits(), snap.ID, a.Now, a.Codecs(f.identities)
	d, err := c.desk(ctx, f.retrieveFlags, snap.Vault, store)
	if err != nil {
		return items.SnapshotResult{}, err
	}
	o.Tier, o.Days, o.Pace, o.Approve = d.tier, d.days, d.pace, d.approve
	if o.Transfer.Limit, err = c.limiter(a, f.limit); err != nil {
		return items.SnapshotResult{}, err
	}
	o.DryRun = dry
	res, err := restore.Run(ctx, o)
	if dry {
		return items.SnapshotResult{Read: res.Plan.Read, Kept: res.Plan.Kept > 0 && res.Plan.Kept == res.Plan.Files}, err
	}
	return items.SnapshotResult{Read: res.Read, Kept: res.Kept > 0 && res.Files == 0}, err
}

type itemsRestoreWatcher struct {
	meter *progress.Meter
	tell  progress.Watcher
	log   *app.Run // nil: no log
}

var _ items.RestoreObserver = (*itemsRestoreWatcher)(nil)

func (w *itemsRestoreWatcher) Planned(n, bytes int64) { w.meter.SetTotals(bytes, n) }
func (w *itemsRestoreWatcher) Read(n int64)           { w.meter.AddSent(n) }

func (w *itemsRestoreWatcher) Waiting(ready, all int) {
	w.tell.Tell(progress.Event{Kind: progress.Waiting, Text: waitingText(ready, all)})
}

func (w *itemsRestoreWatcher) Restored(i catalog.Item, kept bool) {
	w.meter.AddFiles(1)
	w.meter.AddBytes(i.Size())
	text := "restored"
	if kept {
		text = "kept"
	}
	w.tell.Tell(progress.Event{Kind: progress.File, Path: i.Path, Bytes: i.Size(), Text: text})
}

func (w *itemsRestoreWatcher) Problem(p snapshot.Problem) {
	if w.log != nil {
		w.log.Warn("problem", "path", p.Path, "reason", p.Reason)
	}
	w.tell.Tell(progress.Event{Kind: progress.Problem, Path: p.Path, Text: p.Reason})
}

func (w *itemsRestoreWatcher) Warning(x extract.Warning) {
	w.tell.Tell(progress.Event{Kind: progress.Notice, Text: x.String()})
}

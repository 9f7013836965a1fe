package items

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"
	"time"

	"github.com/bmatcuk/doublestar/v4"

	"github.com/firn-backup/firn/internal/catalog"
	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/internal/cost"
	"github.com/firn-backup/firn/internal/extract"
	"github.com/firn-backup/firn/internal/failure"
	"github.com/firn-backup/firn/internal/itemstore"
	"github.com/firn-backup/firn/internal/retrieval"
	"github.com/firn-backup/firn/internal/snapshot"
	"github.com/firn-backup/firn/internal/transfer"
	"github.com/firn-backup/firn/internal/units"
	"github.com/firn-backup/firn/treehash"
)

// RestoreOptions say what to get back. Catalog, Open, Set, To, Codecs and Now are needed.
type RestoreOptions struct {
	Catalog *catalog.DB
	Open    func(ctx context.Context, vault string) (coldstore.Store, error) // URL
	Set     catalog.Set
	Codecs  retrieval.Codecs
	Now     func() time.Time

	At     uint64   // as it was after that run; 0: now
	Paths  []string // items, directories of items, patterns of them, or paths within an item that is a directory; empty: everything
	To     string   // the directory to restore below
	Strip  string   // left off the beginning of names
	DryRun bool

	Overwrite extract.Overwrite
	Numeric   bool
	Tier      coldstore.Tier
	Days      int
	Wait      bool
	Transfer  transfer.Options
	Approve   func(ctx context.Context, vault string, b retrieval.Bill) error
	Pace      cost.Pace
	// Snapshot restores an item in Firn's format: paths of a snapshot. With dry nothing is restored, and it
	// tells what would be done. Needed where there are such.
	Snapshot func(ctx context.Context, id string, under []string, dry bool) (SnapshotResult, error)

	Observe RestoreObserver // may be nil
}

// RestoreObserver is told of progress. Read may be called from any goroutine.
type RestoreObserver interface {
	Planned(items, bytes int64)
	Waiting(ready, all int)
	Read(bytes int64)
	Restored(i catalog.Item, kept bool)
	Problem(p snapshot.Problem)
	Warning(w extract.Warning)
}

// RestoreResult is what was done, or with DryRun would be.
type RestoreResult struct {
	Items  int64 // selected
	Bytes  int64 // of those, before the codecs
	ToRead int64 // bytes of archives that must be read
	Files  int64 // restored
	Kept   int64 // were there already
	Read   int64
	itemstore.Problems
}

// SnapshotResult is what was done with an item in Firn's format.
type SnapshotResult struct {
	Read int64 // bytes
	Kept bool  // all files of it were there already
}

// wanted is an item that is selected.
type wanted struct {
	catalog.Item
	under []string // paths within it; empty: all
}

type restorer struct {
	o    RestoreOptions
	res  RestoreResult
	root *extract.Root
	dir  *itemstore.Dir // To, for looking at what is there
	read retrieval.Tally
	bad  bool // something is damaged
}

// Restore gets items back. What an archive came with is compared with its hash before a file gets its name; members of a
// directory's tar have theirs while it is read, and damage is told of in the end. Errors have kinds: failure.NotReady where archives are not
// readable yet (what is ready has been restored), Damaged, NotFound where nothing is selected, Partial.
func Restore(ctx context.Context, o RestoreOptions) (RestoreResult, error) {
	r := &restorer{o: o}
	if o.Observe == nil {
		r.o.Observe = silentRestore{}
	}
	if o.Catalog == nil || o.Open == nil || o.Now == nil || o.To == "" {
		return r.res, errors.New("restore: an option is missing")
	}
	list, err := r.selected(ctx)
	if err != nil {
		return r.res, err
	}
	r.o.Observe.Planned(r.res.Items, r.res.Bytes)
	if list, err = r.missing(ctx, r.places(list)); err != nil || o.DryRun {
		return r.res, err
	}
	if r.root, err = extract.Open(o.To, extract.Options{Overwrite: o.Overwrite, NumericOwner: o.Numeric, Warn: r.o.Observe.Warning}); err != nil {
		return r.res, err
	}
	defer r.root.Close()
	err = r.all(ctx, list)
	r.res.Read = r.read.Bytes()
	if serr := r.root.Sync(); err == nil {
		err = serr
	}
	if err != nil {
		return r.res, retrieval.Explain(err)
	}
	switch {
	case r.bad:
		return r.res, failure.Errorf(failure.Damaged, "%s could not be restored; the first: %s", units.Count(r.res.Bad, "item"), r.res.First())
	case r.res.Bad > 0:
		return r.res, failure.Errorf(failure.Partial, "%s could not be restored; the first: %s", units.Count(r.res.Bad, "item"), r.res.First())
	}
	return r.res, nil
}

func (r *restorer) problem(path string, err error) {
	p := r.res.Add(path, err)
	if retrieval.IsDamage(err) {
		r.bad = true
	}
	r.o.Observe.Problem(p)
}

// selected are the versions that are asked for.
func (r *restorer) selected(ctx context.Context) ([]wanted, error) {
	found := make([]bool, len(r.o.Paths))
	var list []wanted
	err := r.o.Catalog.Items(ctx, r.o.Set.ID, catalog.ItemQuery{At: r.o.At}, func(i catalog.Item) error {
		w := wanted{Item: i}
		take := len(r.o.Paths) == 0
		for k, p := range r.o.Paths {
			p = strings.Trim(path.Clean("/"+p), "/")
			switch {
			case p == "" || i.Path == p || snapshot.Below(i.Path, p) || fits(p, i.Path):
				take, found[k], w.under = true, true, nil
			case i.Dir && snapshot.Below(p, i.Path) && !take:
				w.under = append(w.under, p)
				found[k] = true
			}
		}
		if !take && len(w.under) == 0 {
			return nil
		}
		if take {
			w.under = nil
		}
		r.res.Items++
		r.res.Bytes += i.Size()
		list = append(list, w)
		return nil
	})
	if err != nil {
		return nil, err
	}
	for k, ok := range found {
		if !ok {
			return nil, failure.Errorf(failure.NotFound, "%s: not among the items of set %s", r.o.Paths[k], r.o.Set.Name)
		}
	}
	return list, nil
}

// fits says whether a pattern means a path; one without a slash fits at any depth.
func fits(pattern, p string) bool {
	if !strings.ContainsAny(pattern, `*?[{`) {
		return false
	}
	if !strings.Contains(pattern, "/") {
		pattern = "**/" + pattern
	}
	ok, err := doublestar.Match(pattern, p)
	return ok && err == nil
}

// target is the name on disk; ok is false for what Strip leaves nothing of.
func (r *restorer) target(p string) (string, bool) {
	strip := strings.Trim(r.o.Strip, "/")
	if strip == "" {
		return p, true
	}
	if !snapshot.Below(p, strip) || p == strip {
		return p, p != strip
	}
	return p[len(strip)+1:], true
}

// missing are those that are not there yet.
func (r *restorer) missing(ctx context.Context, list []wanted) ([]wanted, error) {
	var err error
	if _, serr := os.Stat(r.o.To); serr == nil {
		if r.dir, err = itemstore.OpenDir(r.o.To); err != nil {
			return nil, err
		}
		defer r.dir.Close()
	}
	kept := list[:0]
	for _, w := range list {
		if !w.Deleted.IsZero() {
			r.problem(w.Path, fmt.Errorf("the archive of this version was deleted on %s, after a newer one was stored", w.Deleted.UTC().Format(time.DateOnly)))
			continue
		}
		there, err := r.there(ctx, w)
		if err != nil {
			return nil, err
		}
		if there {
			r.res.Kept++
			r.o.Observe.Restored(w.Item, true)
			continue
		}
		r.res.ToRead += w.Archive.Size
		if w.Snapshot != "" && r.o.DryRun && r.o.Snapshot != nil {
			is, err := r.o.Snapshot(ctx, w.Snapshot, w.under, true)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", w.Path, err)
			}
			r.res.ToRead += is.Read
			if is.Kept {
				r.res.Kept++
				r.o.Observe.Restored(w.Item, true)
				continue
			}
		}
		kept = append(kept, w)
	}
	return kept, nil
}

// there says whether a file is on disk as it is to be.
func (r *restorer) there(ctx context.Context, w wanted) (bool, error) {
	if w.Dir || w.Snapshot != "" || r.dir == nil || w.PlainHash.IsZero() && w.Archive.Archive != "" {
		return false, nil
	}
	p, ok := r.target(w.Path)
	if !ok {
		return false, nil
	}
	open := r.dir.Opener(p)
	if e, err := itemstore.StatFile(open); err != nil || e.Size != w.Plain {
		return false, nil
	}
	h, _, _, err := itemstore.HashFile(ctx, open, itemstore.HashBuffer(), r.o.Now, nil)
	return err == nil && h == w.PlainHash, ctx.Err()
}

// all restores what is not there, vault by vault.
func (r *restorer) all(ctx context.Context, list []wanted) error {
	var vaults []string
	by := map[string][]wanted{}
	for _, w := range list {
		if w.Snapshot != "" {
			if err := r.snapshot(ctx, w); err != nil {
				return err
			}
			continue
		}
		if _, ok := by[w.Vault]; !ok {
			vaults = append(vaults, w.Vault)
		}
		by[w.Vault] = append(by[w.Vault], w)
	}
	var late error
	for _, v := range vaults {
		err := r.vault(ctx, v, by[v])
		if failure.KindOf(err) == failure.NotReady {
			late = err
			continue
		}
		if err != nil {
			return err
		}
	}
	return late
}

func (r *restorer) snapshot(ctx context.Context, w wanted) error {
	if r.o.Snapshot == nil {
		return errors.New("restore: an option is missing")
	}
	is, err := r.o.Snapshot(ctx, w.Snapshot, w.under, false)
	r.read.Add(is.Read)
	r.o.Observe.Read(is.Read)
	switch {
	case err == nil && is.Kept:
		r.res.Kept++
		r.o.Observe.Restored(w.Item, true)
	case err == nil:
		r.res.Files++
		r.o.Observe.Restored(w.Item, false)
	case failure.KindOf(err) == failure.Partial, failure.KindOf(err) == failure.Damaged:
		r.problem(w.Path, err)
	default:
		return err
	}
	return nil
}

// vault restores from one vault: what is ready first, then all is asked for, and what has become ready restored.
func (r *restorer) vault(ctx context.Context, url string, list []wanted) error {
	store, err := r.o.Open(ctx, url)
	if err != nil {
		return err
	}
	o := retrieval.Options{Store: store, Traits: store.Traits(), Journal: r.o.Catalog, Vault: url, Codecs: r.o.Codecs, Now: r.o.Now, Tier: r.o.Tier,
		Days: r.o.Days, Wait: r.o.Wait, Transfer: r.o.Transfer, Pace: r.o.Pace, Waiting: r.o.Observe.Waiting,
		Read: func(n int64) { r.read.Add(n); r.o.Observe.Read(n) }}
	if r.o.Approve != nil {
		o.Approve = func(ctx context.Context, b retrieval.Bill) error { return r.o.Approve(ctx, url, b) }
	}
	desk := retrieval.New(o)
	if err := r.learn(ctx, store, url, list); err != nil {
		return err
	}
	var late []wanted
	for _, w := range list {
		if w.Archive.Archive == "" {
			if err := r.one(ctx, desk, coldstore.Retrieval{}, w); err != nil {
				return err
			}
			continue
		}
		rt, ok, err := desk.Held(ctx, w.Archive.Archive, coldstore.Range{})
		if err != nil {
			return err
		}
		if ok && w.unknown() {
			ok = false // it is met again below
		}
		if ok {
			err = r.one(ctx, desk, rt, w)
		} else {
			late = append(late, w)
		}
		if err != nil {
			return err
		}
	}
	for _, w := range late {
		if err := desk.Want(ctx, w.Archive.Archive, coldstore.Range{}, w.Archive.Size); err != nil {
			return err
		}
	}
	gone := map[string]bool{}
	if err := desk.Order(ctx, func(archive string, err error) error {
		gone[archive] = true
		return nil // met again below
	}); err != nil {
		return err
	}
	// Of what is asked for the vault may tell how large it is.
	if err := r.learn(ctx, store, url, late); err != nil {
		return err
	}
	if err := desk.Ready(ctx); err != nil {
		return err
	}
	for _, w := range late {
		if w.unknown() && !gone[w.Archive.Archive] {
			r.problem(w.Path, fmt.Errorf("the size of archive %s is not known: firn vault sync %s asks the vault for it", w.Archive.Archive, w.Vault))
			continue
		}
		rt, err := desk.Ask(ctx, w.Archive.Archive, coldstore.Range{})
		if err == nil && !rt.Ready {
			err = fmt.Errorf("archive %s: %w", w.Archive.Archive, coldstore.ErrNotReady)
		}
		if retrieval.IsDamage(err) {
			r.problem(w.Path, err)
			continue
		}
		if err == nil {
			err = r.one(ctx, desk, rt, w)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// one restores an item. Its error ends the restore; damage is only noted.
func (r *restorer) one(ctx context.Context, desk *retrieval.Desk, rt coldstore.Retrieval, w wanted) error {
	err := r.fetch(ctx, desk, rt, w)
	switch {
	case err == nil, errors.Is(err, extract.ErrMetadata):
		r.res.Files++
		r.o.Observe.Restored(w.Item, false)
		return nil
	case ctx.Err() != nil || extract.Fatal(err) || failure.KindOf(err) == failure.NoKey || errors.Is(retrieval.Explain(err), coldstore.ErrExpired):
		return err
	case failure.KindOf(retrieval.Explain(err)) == failure.NoKey:
		return err
	}
	r.problem(w.Path, err)
	return nil
}

func (r *restorer) fetch(ctx context.Context, desk *retrieval.Desk, rt coldstore.Retrieval, w wanted) error {
	open := func() (io.ReadCloser, error) {
		if w.Archive.Archive == "" {
			return io.NopCloser(strings.NewReader("")), nil
		}
		return desk.OpenWhole(ctx, rt, w.Archive.Size, w.Archive.TreeHash, w.Compress, w.Encrypt)
	}
	if w.Dir {
		return r.directory(ctx, open, w)
	}
	in, err := open()
	if err != nil {
		return err
	}
	defer in.Close()
	return r.file(in, w)
}

// file writes a single file.
func (r *restorer) file(in io.Reader, w wanted) error {
	e := entryOf(w.Item)
	var ok bool
	if e.Path, ok = r.target(w.Path); !ok {
		return nil
	}
	if w.PlainHash.IsZero() {
		e.Size = 1 << 62 // it is not known
	}
	f, err := r.root.File(&e)
	if err != nil {
		return err
	}
	defer f.Close() // thrown away unless it was committed
	sum := treehash.New()
	n, err := io.CopyBuffer(struct{ io.Writer }{io.MultiWriter(f, sum)}, struct{ io.Reader }{in}, make([]byte, 1<<20))
	if err != nil {
		return err
	}
	if !w.PlainHash.IsZero() && (n != w.Plain || sum.Sum() != w.PlainHash) {
		return failure.Errorf(failure.Damaged, "it came with %d bytes of tree hash %s, and it should have %d of %s", n, sum.Sum(), w.Plain, w.PlainHash)
	}
	return f.CommitSize(n)
}

// entryOf is an item that is a file as an entry.
func entryOf(i catalog.Item) snapshot.Entry {
	e := snapshot.Entry{Path: i.Path, Type: snapshot.File, Mode: i.Mode, UID: i.UID, GID: i.GID, User: i.User, Group: i.Group, MTime: i.MTime, Size: i.Plain}
	if i.Bare || i.Dated {
		e.Mode, e.UID, e.GID = 0o644, uint32(os.Geteuid()), uint32(os.Getegid())
		if e.MTime == (snapshot.Time{}) { // it is not younger than that
			e.MTime = snapshot.TimeOf(i.Stored)
		}
	}
	return e
}

type silentRestore struct{}

func (silentRestore) Planned(int64, int64)        {}
func (silentRestore) Waiting(int, int)            {}
func (silentRestore) Read(int64)                  {}
func (silentRestore) Restored(catalog.Item, bool) {}
func (silentRestore) Problem(snapshot.Problem)    {}
func (silentRestore) Warning(extract.Warning)     {}

// CleanPath is a path of an item as a user writes it.
func CleanPath(p string) string { return strings.Trim(path.Clean("/"+p), "/") }

// Parent is the directory that a path lies in; empty for the root.
func Parent(full string) string {
	d := path.Dir(full)
	if d == "/" || d == "." {
		return ""
	}
	return d
}

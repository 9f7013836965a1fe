package itemstore

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/firn-backup/firn/internal/catalog"
	"github.com/firn-backup/firn/internal/codec"
	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/internal/snapshot"
	"github.com/firn-backup/firn/internal/transfer"
	"github.com/firn-backup/firn/treehash"
)

// found is an archive that may be an item of the set.
type found struct {
	coldstore.Archive
	mtime time.Time
	mark  Mark
}

// Found is what a vault has of a set of which the catalog knows nothing.
type Found struct {
	Items []catalog.Item // by path and run
	runs  []catalog.ItemRun
}

// Find looks for what a vault has of a set of which the catalog knows nothing: a lost catalog, or archives that
// mt-aws-glacier stored, cost no second upload. Only archives whose descriptions tell of themselves are meant, and those that bear no
// mark of a set only where local says that the file of that name has their tree hash; local may be nil. It finds
// nothing when the catalog knows items of the set, and changes nothing. The options' catalog and store may be nil: there are none.
func Find(ctx context.Context, o Options, local func(ctx context.Context, name string, size int64) (treehash.Hash, bool)) (Found, error) {
	if o.Store == nil {
		return Found{}, nil
	}
	if err := There(ctx, o); err != nil || o.Encrypt.Name() != codec.None {
		return Found{}, err
	}
	if some, err := o.known(ctx); some || err != nil {
		return Found{}, err
	}
	byName := map[string][]found{}
	err := eachKnown(ctx, o, func(a coldstore.Archive) error {
		name, mtime, m, ok := ParseMT2(a.Description)
		if !ok || m.SetID != "" && !o.mine(ctx, m) {
			return nil
		}
		if o.Catalog != nil {
			if by, err := o.Catalog.NeededBy(ctx, o.Vault, a.ID); err != nil || by != "" {
				return err
			}
		}
		if m.SetID == "" {
			if local == nil {
				return nil
			}
			if h, ok := local(ctx, name, a.Size); !ok || h != a.TreeHash {
				return ctx.Err()
			}
		}
		byName[name] = append(byName[name], found{a, mtime, m})
		return nil
	})
	if err != nil || len(byName) == 0 {
		return Found{}, err
	}
	return o.versions(ctx, byName)
}

// known says whether the catalog knows items of the set.
func (o *Options) known(ctx context.Context) (bool, error) {
	if o.Catalog == nil {
		return false, nil
	}
	stop := errors.New("stop")
	err := o.Catalog.Items(ctx, o.Set.ID, catalog.ItemQuery{All: true}, func(catalog.Item) error { return stop })
	if errors.Is(err, stop) {
		return true, nil
	}
	return false, err
}

// TakeOver records what Find finds, and returns it.
func TakeOver(ctx context.Context, o Options, local func(ctx context.Context, name string, size int64) (treehash.Hash, bool)) (Found, error) {
	if err := o.check(); err != nil {
		return Found{}, err
	}
	if o.Encrypt.Name() != codec.None {
		return Found{}, nil
	}
	f, err := Find(ctx, o, local)
	if err != nil {
		return f, err
	}
	for _, run := range f.runs {
		if err := o.Catalog.PutItemRun(ctx, run); err != nil {
			return f, err
		}
	}
	// All or nothing: where the catalog knows some, the vault is not asked for the others again.
	if len(f.Items) > 0 {
		err = o.Catalog.PutItems(ctx, f.Items)
	}
	return f, err
}

// mine says whether a mark is that of this set, or was that of its predecessor of the same name on the same host.
func (o *Options) mine(ctx context.Context, m Mark) bool {
	if m.SetID == o.Set.ID {
		return true
	}
	if m.Set != o.Set.Name || m.Host != o.Host {
		return false
	}
	if o.Catalog == nil {
		return true
	}
	_, err := o.Catalog.SetByID(ctx, m.SetID)
	return err != nil // another set of the catalog's own keeps what it has
}

// eachKnown calls fn for the archives that a vault has, as far as that is known.
func eachKnown(ctx context.Context, o Options, fn func(coldstore.Archive) error) error {
	if o.Store.Traits().ListLag > 0 {
		if o.Catalog == nil {
			return nil
		}
		there := func(r catalog.ArchiveRecord) bool {
			return r.DeletedAt.IsZero() && strings.HasPrefix(r.Description, "mt")
		}
		return o.Catalog.FindArchives(ctx, o.Vault, there, func(r catalog.ArchiveRecord) error { return fn(r.Archive) })
	}
	var all []coldstore.Archive
	err := transfer.Retry(ctx, o.Transfer, func() error {
		all = all[:0]
		_, err := o.Store.List(ctx, func(a coldstore.Archive) error {
			if strings.HasPrefix(a.Description, "mt") {
				all = append(all, a)
			}
			return nil
		})
		return err
	})
	if err != nil && !errors.Is(err, coldstore.ErrIntegrity) {
		return err // it names the vault
	}
	for _, a := range all {
		if err := fn(a); err != nil {
			return err
		}
	}
	return nil
}

// versions are what was found, as runs of the set that may have stored it.
func (o *Options) versions(ctx context.Context, byName map[string][]found) (f Found, err error) {
	var runs []catalog.ItemRun
	if o.Catalog != nil {
		if runs, err = o.Catalog.ItemRuns(ctx, o.Set.ID); err != nil {
			return f, err
		}
	}
	var first uint64
	if len(runs) > 0 {
		first = runs[len(runs)-1].N
	}
	var lists [][]catalog.Item
	for _, name := range slices.SortedFunc(maps.Keys(byName), snapshot.ComparePaths) {
		list := byName[name]
		slices.SortStableFunc(list, order(list))
		var items []catalog.Item
		for _, one := range list {
			items = append(items, o.recovered(name, one))
		}
		lists = append(lists, items)
	}
	if f.runs, err = o.historyRuns(first, History(first, lists)); err != nil {
		return f, err
	}
	for _, list := range lists {
		f.Items = append(f.Items, list...)
	}
	Totals(f.runs, f.Items)
	return f, nil
}

// recovered is an item as its archive alone tells of it.
func (o *Options) recovered(name string, f found) catalog.Item {
	i := catalog.Item{
		SetID: o.Set.ID, Path: name, Vault: o.Vault, Archive: catalog.ArchiveRef{Archive: f.ID, Size: f.Size, TreeHash: f.TreeHash}, Stored: f.Created,
		ItemMore: catalog.ItemMore{
			Dir: f.mark.Dir, Self: true, Name: name + f.mark.Ext, Desc: f.Description, Compress: codec.None, Encrypt: codec.None,
			MTime: snapshot.TimeOf(f.mtime), Bare: true,
		},
	}
	if f.mark.Codec != "" {
		i.Compress = f.mark.Codec
	} else {
		i.Plain, i.PlainHash = f.Size, f.TreeHash
	}
	if i.Stored.IsZero() {
		i.Stored = o.Now()
	}
	if i.Dir {
		i.Bytes = f.Size
	}
	return i
}

// Recovered are the versions of an item of which all that is known are archives that tell of themselves, the oldest first. Their
// numbers are not set. A mark that cannot be read leaves an archive out.
func Recovered(setID, vault, name string, archives []coldstore.Archive, now func() time.Time) []catalog.Item {
	o := &Options{Vault: vault, Set: catalog.Set{ID: setID}, Now: now}
	var list []found
	for _, a := range archives {
		if _, mtime, m, ok := ParseMT2(a.Description); ok {
			list = append(list, found{a, mtime, m})
		}
	}
	slices.SortStableFunc(list, order(list))
	var items []catalog.Item
	for _, f := range list {
		items = append(items, o.recovered(name, f))
	}
	return items
}

// order is that of the versions of one name. Firn stores what is there, whatever its time, so that what was stored last is current; of mt-aws-glacier's
// own the one with the newest time of the file is, as there.
func order(list []found) func(a, b found) int {
	if slices.ContainsFunc(list, func(f found) bool { return f.mark.SetID != "" }) {
		return func(a, b found) int {
			return cmp.Or(a.Created.Compare(b.Created), a.mtime.Compare(b.mtime), strings.Compare(a.ID, b.ID))
		}
	}
	return func(a, b found) int {
		return cmp.Or(a.mtime.Compare(b.mtime), a.Created.Compare(b.Created), strings.Compare(a.ID, b.ID))
	}
}

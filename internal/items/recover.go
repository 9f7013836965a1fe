package items

import (
	"cmp"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/firn-backup/firn/internal/catalog"
	"github.com/firn-backup/firn/internal/codec"
	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/internal/cost"
	"github.com/firn-backup/firn/internal/failure"
	"github.com/firn-backup/firn/internal/itemstore"
	"github.com/firn-backup/firn/internal/manifest"
	"github.com/firn-backup/firn/internal/retrieval"
	"github.com/firn-backup/firn/internal/snapshot"
	"github.com/firn-backup/firn/internal/transfer"
	"github.com/firn-backup/firn/internal/units"
)

// RecoverOptions say what to recover from. The first group is needed.
type RecoverOptions struct {
	Catalog *catalog.DB
	Store   coldstore.Store
	Vault   string // URL
	Codecs  retrieval.Codecs
	Signers []ed25519.PublicKey // whose indexes are believed
	Now     func() time.Time
	Rand    io.Reader

	TrustAny bool
	// PathOf is the path that the config file gives to a set; empty: it has none of that name. Nil: there is no such file.
	PathOf   func(set string) string
	Tier     coldstore.Tier
	Days     int
	Wait     bool
	Transfer transfer.Options
	Approve  func(ctx context.Context, b retrieval.Bill) error
	Pace     cost.Pace
	Waiting  func(ready, all int)
	Problem  func(archive, reason string)
}

// RecoverResult is what came of it.
type RecoverResult struct {
	Sets  int   // recorded
	Items int64 // versions recorded
	Bad   int64
}

// listedSet is what a vault has of a set.
type listedSet struct {
	id      string
	mark    itemstore.Mark
	indexes []listedIndex
	self    map[string][]coldstore.Archive // by name: archives that tell of themselves
}

type listedIndex struct {
	coldstore.Archive
	d manifest.Description
}

type recoverer struct {
	o     RecoverOptions
	desk  *retrieval.Desk
	res   RecoverResult
	there map[string]coldstore.Archive
	noKey bool
	bad   bool
}

// Recover records sets of single archives that a vault has and the catalog does not know: by the indexes that trusted keys signed,
// and by the descriptions that tell of themselves. Sets of which the catalog knows items stay as they are. Errors are those of a recovery:
// failure.NotReady, NoKey, Damaged, Partial.
func Recover(ctx context.Context, o RecoverOptions) (RecoverResult, error) {
	r := &recoverer{o: o, there: map[string]coldstore.Archive{}}
	if o.Problem == nil {
		r.o.Problem = func(string, string) {}
	}
	r.desk = retrieval.New(retrieval.Options{Store: o.Store, Traits: o.Store.Traits(), Journal: o.Catalog, Vault: o.Vault, Codecs: o.Codecs, Now: o.Now,
		Tier: o.Tier, Days: o.Days, Wait: o.Wait, Transfer: o.Transfer, Approve: o.Approve, Pace: o.Pace, Waiting: o.Waiting})
	sets, err := r.list(ctx)
	if err != nil {
		return r.res, retrieval.Explain(err)
	}
	chosen := map[string][]listedIndex{}
	for id, s := range sets {
		known, err := r.known(ctx, id)
		if err != nil {
			return r.res, err
		}
		if known {
			delete(sets, id)
			continue
		}
		chosen[id] = newest(s.indexes)
		for _, x := range chosen[id] {
			if err := r.desk.Want(ctx, x.ID, coldstore.Range{}, x.Size); err != nil {
				return r.res, retrieval.Explain(err)
			}
		}
	}
	if err := r.desk.Order(ctx, func(string, error) error { return nil }); err != nil {
		return r.res, retrieval.Explain(err)
	}
	if err := r.desk.Ready(ctx); err != nil {
		return r.res, retrieval.Explain(err)
	}
	for _, id := range slices.Sorted(maps.Keys(sets)) {
		if err := r.set(ctx, sets[id], chosen[id]); err != nil {
			return r.res, retrieval.Explain(err)
		}
	}
	if err := r.recoverSnapshots(ctx); err != nil {
		return r.res, err
	}
	switch {
	case r.noKey && r.res.Sets == 0:
		return r.res, failure.Errorf(failure.NoKey, "no key at hand opens the indexes of items in the vault")
	case r.bad:
		return r.res, failure.Errorf(failure.Damaged, "%s recovered, but there are problems with damaged or untrusted data: %d", units.Count(r.res.Items, "item"), r.res.Bad)
	case r.res.Bad > 0:
		return r.res, failure.Errorf(failure.Partial, "%s recovered, %s", units.Count(r.res.Items, "item"), units.Count(r.res.Bad, "problem"))
	}
	return r.res, nil
}

func (r *recoverer) problem(archive string, err error) {
	r.res.Bad++
	r.bad = r.bad || retrieval.IsDamage(err)
	r.noKey = r.noKey || errors.Is(err, codec.ErrNoKey)
	r.o.Problem(archive, strings.ReplaceAll(err.Error(), "\n", "; "))
}

// known says whether the catalog knows items of a set.
func (r *recoverer) known(ctx context.Context, set string) (bool, error) {
	stop := errors.New("stop")
	err := r.o.Catalog.Items(ctx, set, catalog.ItemQuery{All: true}, func(i catalog.Item) error {
		if i.Archive.Archive != "" || i.Snapshot == "" {
			return stop
		}
		return nil
	})
	if errors.Is(err, stop) {
		return true, nil
	}
	return false, err
}

// list sorts what the vault has by sets. It needs memory for all archives.
func (r *recoverer) list(ctx context.Context) (map[string]*listedSet, error) {
	var all []coldstore.Archive
	err := transfer.Retry(ctx, r.o.Transfer, func() error {
		all = all[:0]
		_, err := r.o.Store.List(ctx, func(a coldstore.Archive) error { all = append(all, a); return nil })
		return err
	})
	if err != nil && !errors.Is(err, coldstore.ErrIntegrity) {
		return nil, err // it names the vault
	}
	sets := map[string]*listedSet{}
	get := func(id string) *listedSet {
		if sets[id] == nil {
			sets[id] = &listedSet{id: id, self: map[string][]coldstore.Archive{}}
		}
		return sets[id]
	}
	for _, a := range all {
		r.there[a.ID] = a
		if d, ok := itemstore.Described(a); ok && d.What == itemstore.WhatIndex {
			s := get(d.SetID)
			s.indexes = append(s.indexes, listedIndex{a, d})
			continue
		}
		if name, _, m, ok := itemstore.ParseMT2(a.Description); ok && snapshot.ValidID(m.SetID) {
			s := get(m.SetID)
			s.mark = m
			s.self[name] = append(s.self[name], a)
		}
	}
	return sets, nil
}

// newest are the last index that tells of everything, and those after it.
func newest(list []listedIndex) []listedIndex {
	slices.SortFunc(list, func(a, b listedIndex) int {
		return cmp.Or(cmp.Compare(a.d.N, b.d.N), a.Created.Compare(b.Created), strings.Compare(a.ID, b.ID))
	})
	for i := len(list) - 1; i >= 0; i-- {
		if list[i].d.Kind == snapshot.Full {
			return list[i:]
		}
	}
	return list
}

// set recovers one set: what its indexes tell, and then what tells of itself and is newer.
func (r *recoverer) set(ctx context.Context, s *listedSet, indexes []listedIndex) error {
	items := map[string]catalog.Item{} // by path and number
	var head itemstore.IndexHeader
	var read []listedIndex
	for _, x := range indexes {
		h, err := r.index(ctx, x, s.id, items)
		if err != nil {
			if ctx.Err() != nil || errors.Is(err, coldstore.ErrNotReady) {
				return err
			}
			r.problem(x.ID, err)
			continue
		}
		x.d.N, x.d.Snap, x.d.At, x.d.Kind = h.N, h.Run, h.At, snapshot.Incremental
		if h.From <= 1 {
			x.d.Kind = snapshot.Full
		}
		read = append(read, x)
		if h.N > head.N {
			head = h
		}
	}
	set, err := r.putSet(ctx, s, head)
	if err != nil || set.ID == "" {
		return err
	}
	list := r.present(set, items)
	times := r.merge(set, s, head.N, &list)
	slices.SortFunc(list, func(a, b catalog.Item) int {
		return cmp.Or(snapshot.ComparePaths(a.Path, b.Path), cmp.Compare(a.N, b.N))
	})
	endOlder(list)
	if err := r.record(ctx, set, read, list, head.N, times); err != nil {
		return err
	}
	r.res.Sets++
	r.res.Items += int64(len(list))
	return nil
}

// index reads one index.
func (r *recoverer) index(ctx context.Context, x listedIndex, set string, items map[string]catalog.Item) (itemstore.IndexHeader, error) {
	var h itemstore.IndexHeader
	packed, err := codec.PackingOf(x.d.Codecs)
	if err != nil {
		return h, err
	}
	rt, err := r.desk.Ask(ctx, x.ID, coldstore.Range{})
	if err != nil {
		return h, err
	}
	rc, err := r.desk.OpenWhole(ctx, rt, x.Size, x.TreeHash, packed.Compress, packed.Encrypt)
	if err != nil {
		return h, err
	}
	defer rc.Close()
	got := map[string]catalog.Item{}
	signer, err := itemstore.ReadIndex(rc, func(ih itemstore.IndexHeader) error {
		h = ih
		if ih.SetID != set || x.d.N != 0 && ih.N != x.d.N { // names of older indexes do not tell it
			return failure.Errorf(failure.Damaged, "it is the index of another set or run than its description says")
		}
		return nil
	}, func(i catalog.Item) error {
		got[fmt.Sprintf("%s\x00%d", i.Path, i.N)] = i
		return nil
	})
	if err != nil {
		return h, err
	}
	if !r.o.TrustAny && !slices.ContainsFunc(r.o.Signers, func(k ed25519.PublicKey) bool { return k.Equal(signer) }) {
		return h, failure.Errorf(failure.Damaged, "its index is signed by a key that is not trusted")
	}
	maps.Copy(items, got)
	return h, nil
}

// endOlder ends every version of which an index has a newer one.
func endOlder(list []catalog.Item) {
	for k := range list[:max(len(list)-1, 0)] {
		if next := list[k+1]; list[k].Until == 0 && next.Path == list[k].Path {
			list[k].Until = next.N
		}
	}
}

// putSet records the set if the catalog does not know it.
func (r *recoverer) putSet(ctx context.Context, s *listedSet, h itemstore.IndexHeader) (catalog.Set, error) {
	if set, err := r.o.Catalog.SetByID(ctx, s.id); err == nil {
		return set, nil
	}
	set := catalog.Set{ID: s.id, Name: s.mark.Set, Label: s.mark.Set, Host: s.mark.Host, Kind: s.mark.Kind, Vault: r.o.Vault, Created: r.o.Now()}
	root := ""
	if h.N > 0 {
		set.Name, set.Label, set.Host, set.Kind, root = h.Set, h.Label, h.Host, h.Kind, string(h.Path)
	}
	if set.Name == "" || set.Kind != "items" && set.Kind != "mirror" {
		return catalog.Set{}, nil // nothing that can be read tells of it: the problem was told of
	}
	if configured := r.o.PathOf != nil && r.o.PathOf(set.Name) != ""; !configured && set.Kind == "mirror" {
		set.Root = root
	}
	sets, err := r.o.Catalog.Sets(ctx)
	if err != nil {
		return set, err
	}
	if slices.ContainsFunc(sets, func(k catalog.Set) bool { return k.Name == set.Name && k.Host == set.Host }) {
		set.Name, set.Root = set.Name+"-"+set.ID, ""
	}
	return set, r.o.Catalog.PutSet(ctx, set)
}

// present are the versions of indexes whose archives the vault has; the current ones that it has not are problems.
func (r *recoverer) present(set catalog.Set, items map[string]catalog.Item) []catalog.Item {
	var list []catalog.Item
	for _, i := range items {
		i.SetID, i.Vault = set.ID, r.o.Vault
		if _, ok := r.there[i.Archive.Archive]; !ok && i.Archive.Archive != "" && i.Deleted.IsZero() {
			if i.Until == 0 && !i.Self { // one that tells of itself needs no index to be gone
				r.problem(i.Archive.Archive, failure.Errorf(failure.Damaged, "the archive of %s is not in the vault", i.Path))
				continue
			}
			i.Deleted = r.o.Now()
			if i.Until == 0 {
				continue
			}
		}
		list = append(list, i)
	}
	return list
}

// merge adds archives that tell of themselves and are in no index: they are newer than its run n. It returns the times of the runs after that.
func (r *recoverer) merge(set catalog.Set, s *listedSet, n uint64, list *[]catalog.Item) []time.Time {
	known := map[string]bool{}
	current := map[string]int{}
	for k, i := range *list {
		known[i.Archive.Archive] = true
		if i.Until == 0 {
			current[i.Path] = k
		}
	}
	var lists [][]catalog.Item
	for _, name := range slices.Sorted(maps.Keys(s.self)) {
		all := slices.DeleteFunc(s.self[name], func(a coldstore.Archive) bool { return known[a.ID] })
		if items := itemstore.Recovered(set.ID, r.o.Vault, name, all, r.o.Now); len(items) > 0 {
			lists = append(lists, items)
		}
	}
	times := itemstore.History(n, lists)
	for _, items := range lists {
		if c, ok := current[items[0].Path]; ok {
			(*list)[c].Until = items[0].N
		}
		*list = append(*list, items...)
	}
	return times
}

// record writes it all down. Runs after the number n have those times.
func (r *recoverer) record(ctx context.Context, set catalog.Set, indexes []listedIndex, list []catalog.Item, n uint64, times []time.Time) error {
	if err := r.o.Catalog.PutItems(ctx, list); err != nil { // all or nothing: a set that has some is not recovered again
		return err
	}
	byN := map[uint64]*catalog.ItemRun{}
	get := func(n uint64) *catalog.ItemRun {
		if byN[n] == nil {
			byN[n] = &catalog.ItemRun{SetID: set.ID, N: n, Vault: r.o.Vault}
		}
		return byN[n]
	}
	for _, i := range list {
		if run := get(i.N); i.Stored.After(run.At) {
			run.At = i.Stored
		}
		if i.Until != 0 {
			get(i.Until) // it may have found things gone, and stored nothing
		}
	}
	for k, at := range times {
		get(n + uint64(k) + 1).At = at
	}
	for _, x := range indexes {
		run := get(x.d.N)
		run.ID, run.At = x.d.Snap, x.d.At
		run.Index = catalog.ArchiveRef{Archive: x.ID, Size: x.Size, TreeHash: x.TreeHash}
		run.IndexFrom = 1
		if x.d.Kind != snapshot.Full {
			run.IndexFrom = x.d.N
		}
	}
	var runs []catalog.ItemRun
	var last time.Time
	for _, n := range slices.Sorted(maps.Keys(byN)) {
		run := byN[n]
		if run.At.IsZero() { // nothing is left of what it stored
			run.At = cmp.Or(last, r.o.Now())
		}
		last = run.At
		runs = append(runs, *run)
	}
	itemstore.Totals(runs, list)
	for k := range runs {
		run := &runs[k]
		if run.ID == "" {
			id, err := snapshot.NewID(r.o.Now(), r.o.Rand)
			if err != nil {
				return err
			}
			run.ID = id
		}
		if err := r.o.Catalog.PutItemRun(ctx, *run); err != nil {
			return err
		}
	}
	return nil
}

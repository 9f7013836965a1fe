// Package verify is the use case of comparing catalog and vault: whether every
// archive that the snapshots need is there with the right size and hash, what
// is there that no snapshot needs, and, where asked for, whether all of it
// can be read back. It changes nothing.
package verify

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/firn-backup/firn/internal/catalog"
	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/internal/cost"
	"github.com/firn-backup/firn/internal/failure"
	"github.com/firn-backup/firn/internal/manifest"
	"github.com/firn-backup/firn/internal/retrieval"
	"github.com/firn-backup/firn/internal/transfer"
	"github.com/firn-backup/firn/internal/units"
)

// Options say what to verify. Catalog, Lister, Vault and Now are needed; for Read also
// Store and Codecs.
type Options struct {
	Catalog *catalog.DB
	Lister  coldstore.Lister
	Vault   string   // URL, as in the catalog
	Sets    []string // ids; empty: all that have snapshots in this vault
	Now     func() time.Time

	Read  bool // read everything back
	Store coldstore.Retriever
	// Codecs open what is stored.
	Codecs retrieval.Codecs
	// Signers are whose manifests are believed. Empty: anybody's, as long as they are those of the catalog.
	Signers []ed25519.PublicKey

	Tier     coldstore.Tier
	Days     int
	Wait     bool
	Poll     time.Duration
	Transfer transfer.Options
	Approve  func(ctx context.Context, b retrieval.Bill) error // see retrieval.Options
	Pace     cost.Pace                                         // of requests; the zero Pace: none

	Observe Observer // may be nil
}

// Observer is told of progress. Read may be called from any goroutine.
type Observer interface {
	// Archive: one was looked at (when listing), or read to its end (with Options.Read).
	Archive(archive string, size int64, read bool)
	Read(bytes int64)
	Waiting(ready, all int)
	Finding(f Finding)
}

// Kind says what was found.
type Kind string

const (
	Missing   Kind = "missing"   // a snapshot needs it, and it is not there
	Different Kind = "different" // its size or hash is not what the catalog says
	Damaged   Kind = "damaged"   // it does not read back as what was stored
	Orphan    Kind = "orphan"    // Firn's own, and no snapshot of the catalog needs it
	Unsure    Kind = "unsure"    // the listing is older than the snapshot
)

// Finding is something that is not as it should be.
type Finding struct {
	Kind     Kind
	Archive  string
	Set      string // id
	Snapshot string // id
	Volume   int    // 0: the manifest
	Path     string // of an entry that cannot be restored whole; may be empty
	Size     int64  // of an orphan, bytes
	Reason   string // one line for people
}

// Sample is how many findings a Result lists; an Observer sees all.
const Sample = 100

// Result is what was found.
type Result struct {
	AsOf      time.Time // of the listing
	Snapshots int
	Items     int   // that are archives of their own, in their current versions
	Archives  int   // that the snapshots and items need
	Bytes     int64 // of those
	Read      int64 // bytes read back
	Files     int64 // whose contents were compared
	Found     map[Kind]int64
	OrphanSum int64 // bytes
	Sample    []Finding
}

// Run verifies. Errors have kinds: failure.Damaged when something is missing,
// different or damaged (the result tells what), NotReady when the listing or retrievals are
// not ready yet, NoKey. Orphans and what is not sure are no error.
func Run(ctx context.Context, o Options) (Result, error) {
	if o.Observe == nil {
		o.Observe = silent{}
	}
	r := &run{o: o, expected: map[string]*expected{}, strays: map[string]bool{}, doomed: map[string]bool{}, res: Result{Found: map[Kind]int64{}}}
	if o.Catalog == nil || o.Lister == nil || o.Now == nil || o.Read && o.Store == nil {
		return r.res, errors.New("verify: an option is missing")
	}
	if err := r.expect(ctx); err != nil {
		return r.res, err
	}
	if err := r.list(ctx); err != nil {
		return r.res, retrieval.Explain(err)
	}
	if o.Read {
		err := r.readAll(ctx)
		r.res.Read = r.read.Bytes()
		if err != nil {
			return r.res, retrieval.Explain(err)
		}
	}
	return r.res, r.verdict()
}

type run struct {
	o        Options
	snaps    []catalog.Snapshot // stored, in this vault, by set and number
	sets     []string
	all      bool                 // sets are all that the catalog has in this vault
	expected map[string]*expected // by archive
	strays   map[string]bool      // archives of no snapshot that were told of
	doomed   map[string]bool      // archives that are to be deleted
	res      Result
	read     retrieval.Tally
}

// expected is an archive that the catalog knows. A hundred bytes for each are in memory.
type expected struct {
	set, snap string
	made      time.Time
	volume    int
	size      int64
	hash      [32]byte
	seen      bool
	unsure    bool // newer than the listing
	needed    bool // else it may be there and need not: an upload under way
}

// expect gathers what the catalog knows.
func (r *run) expect(ctx context.Context) error {
	sets, err := r.o.Catalog.Sets(ctx)
	if err != nil {
		return err
	}
	for _, id := range r.o.Sets {
		if !slices.ContainsFunc(sets, func(s catalog.Set) bool { return s.ID == id }) {
			return failure.Errorf(failure.NotFound, "no set %s", id)
		}
	}
	r.all = len(r.o.Sets) == 0
	for _, s := range sets {
		if !r.all && !slices.Contains(r.o.Sets, s.ID) {
			continue
		}
		r.sets = append(r.sets, s.ID)
		if err := r.expectItems(ctx, s.ID); err != nil {
			return err
		}
		err := r.o.Catalog.Doomed(ctx, s.ID, func(x catalog.Doomed) error {
			r.doomed[x.Archive] = r.doomed[x.Archive] || x.Vault == r.o.Vault
			return nil
		})
		if err != nil {
			return err
		}
		snaps, err := r.o.Catalog.Snapshots(ctx, s.ID)
		if err != nil {
			return err
		}
		for _, snap := range snaps {
			if snap.Vault != r.o.Vault {
				continue
			}
			if err := r.expectSnapshot(ctx, snap); err != nil {
				return err
			}
		}
	}
	return nil
}

func (r *run) expectSnapshot(ctx context.Context, s catalog.Snapshot) error {
	stored := s.State == catalog.Stored
	if stored {
		r.snaps = append(r.snaps, s)
		r.res.Snapshots++
		if s.Adopted == "" {
			r.put(s.ManifestPart.Archive, expected{
				set: s.SetID, snap: s.ID, made: s.Made, size: s.ManifestPart.Size, hash: s.ManifestPart.TreeHash, needed: true,
			})
		}
	} else {
		pending, err := r.o.Catalog.PendingOf(ctx, s.ID)
		if err != nil {
			return err
		}
		for _, p := range pending {
			r.put(p.Name, expected{
				set: s.SetID, snap: s.ID, made: s.Made, volume: p.Volume.N, size: p.Volume.Size, hash: p.Volume.TreeHash,
			})
		}
	}
	// What an attempt has stored is needed too: it goes on from there.
	return r.eachVolume(ctx, s.ID, func(v *manifest.Volume) error {
		r.put(v.Archive, expected{
			set: s.SetID, snap: s.ID, made: s.Made, volume: v.N, size: v.Size, hash: v.TreeHash, needed: true,
		})
		return nil
	})
}

func (r *run) put(archive string, e expected) {
	if e.needed {
		r.res.Archives++
		r.res.Bytes += e.size
	}
	if old := r.expected[archive]; old == nil || e.needed {
		r.expected[archive] = &e
	}
}

// eachVolume calls fn with a snapshot's volumes, one at a time: all together they may take much memory.
func (r *run) eachVolume(ctx context.Context, snap string, fn func(v *manifest.Volume) error) error {
	for n := 1; ; n++ {
		v, err := r.o.Catalog.Volume(ctx, snap, n)
		if failure.KindOf(err) == failure.NotFound {
			return nil
		}
		if err != nil {
			return err
		}
		if err := fn(&v); err != nil {
			return err
		}
	}
}

// list compares the vault's listing with what is expected.
func (r *run) list(ctx context.Context) error {
	var asOf time.Time
	// A listing that breaks off begins anew: what it told of before is passed over.
	err := transfer.Retry(ctx, r.o.Transfer, func() (err error) {
		asOf, err = r.o.Lister.List(ctx, func(a coldstore.Archive) error {
			r.compare(a)
			return nil
		})
		return err
	})
	// A vault that sees damage itself lists all else, and tells of that.
	damage := err
	if err != nil && (asOf.IsZero() || !errors.Is(err, coldstore.ErrIntegrity)) {
		return err // it names the vault
	}
	r.res.AsOf = asOf
	lag := r.o.Lister.Traits().ListLag
	explained := false
	for archive, e := range r.expected {
		if e.seen || !e.needed {
			continue
		}
		f := Finding{Kind: Missing, Archive: archive, Set: e.set, Snapshot: e.snap, Volume: e.volume, Reason: "it is not in the vault"}
		if err := r.stat(ctx, archive); damage != nil && errors.Is(err, coldstore.ErrIntegrity) {
			f.Kind, f.Reason = Different, retrieval.Reason(err)
			e.seen, explained = true, true
		} else if lag > 0 && e.made.Add(lag).After(asOf) {
			e.unsure = true
			f.Kind, f.Reason = Unsure, "the vault's listing is of "+asOf.UTC().Format(time.RFC3339)
		}
		r.found(f)
	}
	if damage != nil && !explained && r.all {
		for _, one := range coldstore.Damages(damage) {
			r.found(Finding{Kind: Damaged, Reason: one})
		}
	}
	return nil
}

// compare compares an archive of the listing with what is expected.
func (r *run) compare(a coldstore.Archive) {
	e := r.expected[a.ID]
	switch {
	case e == nil:
		r.stray(a)
		return
	case e.seen:
		return
	}
	e.seen = true
	r.o.Observe.Archive(a.ID, a.Size, false)
	f := Finding{Kind: Different, Archive: a.ID, Set: e.set, Snapshot: e.snap, Volume: e.volume}
	if e.size == 0 { // of what another program stored it may not have been known
		e.size = a.Size
	}
	switch {
	case !e.needed:
	case a.Size != e.size:
		f.Reason = fmt.Sprintf("it has %d bytes and not %d", a.Size, e.size)
		r.found(f)
	case !a.TreeHash.IsZero() && e.hash != [32]byte{} && a.TreeHash != e.hash:
		f.Reason = fmt.Sprintf("it has another tree hash, %s", a.TreeHash)
		r.found(f)
	}
}

// stat asks about one archive, where the vault can tell.
func (r *run) stat(ctx context.Context, archive string) error {
	s, ok := r.o.Lister.(coldstore.Stater)
	if !ok {
		return coldstore.ErrUnsupported
	}
	_, err := s.Stat(ctx, archive)
	return err
}

// stray looks at an archive that the catalog does not know.
func (r *run) stray(a coldstore.Archive) {
	d, ok := manifest.ParseDescription(a.Description)
	if !ok {
		d, ok = manifest.ParseName(a.ID)
	}
	if !ok || d.What == manifest.WhatKey {
		return
	}
	known := slices.Contains(r.sets, d.SetID)
	if !known && !r.all || r.strays[a.ID] {
		return
	}
	r.strays[a.ID] = true
	f := Finding{
		Kind: Orphan, Archive: a.ID, Set: d.SetID, Snapshot: d.Snap, Volume: d.Part, Size: a.Size,
		Reason: "no snapshot of the catalog needs it",
	}
	if r.doomed[a.ID] {
		f.Reason = "nothing needs it any more; firn prune deletes it"
	}
	if !known {
		f.Reason = "the catalog does not know its set"
	}
	r.res.OrphanSum += a.Size
	r.found(f)
}

func (r *run) found(f Finding) {
	r.res.Found[f.Kind]++
	if len(r.res.Sample) < Sample {
		r.res.Sample = append(r.res.Sample, f)
	}
	r.o.Observe.Finding(f)
}

func (r *run) verdict() error {
	missing, different, damaged := r.res.Found[Missing], r.res.Found[Different], r.res.Found[Damaged]
	if missing+different+damaged == 0 {
		return nil
	}
	first := ""
	for _, f := range r.res.Sample {
		if f.Kind == Missing || f.Kind == Different || f.Kind == Damaged {
			if first = ": " + f.Reason; f.Archive != "" {
				first = ": archive " + f.Archive + first
			}
			break
		}
	}
	return failure.Errorf(failure.Damaged, "the vault is damaged: %s missing, %d different, %s when reading%s",
		units.Count(missing, "archive"), different, units.Count(damaged, "fault"), first)
}

type silent struct{}

func (silent) Archive(string, int64, bool) {}
func (silent) Read(int64)                  {}
func (silent) Waiting(int, int)            {}
func (silent) Finding(Finding)             {}

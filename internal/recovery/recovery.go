// Package recovery is the use case of rebuilding a lost catalog from a vault
// and the keys alone: it lists the vault, reads the manifests, believes those that a
// trusted key signed and that stand where they say they stand, and records them. What the
// catalog has already stays as it is.
package recovery

import (
	"cmp"
	"context"
	"crypto/ed25519"
	"errors"
	"slices"
	"sync/atomic"
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

// Options say what to recover from. All but the last group are needed.
type Options struct {
	Catalog *catalog.DB
	Lister  coldstore.Lister
	Store   coldstore.Retriever
	Vault   string // URL, as the catalog is to have it
	Codecs  retrieval.Codecs
	// Signers are whose manifests are believed: the key file's, and the trusted ones.
	Signers []ed25519.PublicKey
	Now     func() time.Time

	// TrustAny believes manifests whoever signed them, and trusts the signers from then on.
	TrustAny bool
	// Configured says whether the config file has a set of that name; nil: it has none.
	Configured func(name string) bool
	// Kind is the kind that the config file gives to the set of that name, empty where it has none. Nil: there is no such file.
	Kind     func(name string) string
	Tier     coldstore.Tier
	Days     int
	Wait     bool
	Poll     time.Duration
	Transfer transfer.Options
	Approve  func(ctx context.Context, b retrieval.Bill) error // see retrieval.Options
	Pace     cost.Pace                                         // of requests; the zero Pace: none
	Observe  Observer                                          // may be nil
}

// Observer is told of progress. Read may be called from any goroutine.
type Observer interface {
	// Listed: so many snapshots seem to be in the vault, so many of them not in the catalog.
	Listed(asOf time.Time, snapshots, missing int)
	Waiting(ready, all int)
	Read(bytes int64)
	Recovered(set catalog.Set, s catalog.Snapshot)
	Problem(p Problem)
}

// Kind says what is the matter.
type Kind string

const (
	Damaged   Kind = "damaged"   // a manifest does not read back as what was stored, or contradicts itself or its place
	Untrusted Kind = "untrusted" // a manifest is signed by a key that is not trusted
	Unusable  Kind = "unusable"  // a snapshot's base could not be recovered
	Missing   Kind = "missing"   // a volume is not in the vault; the snapshot is recovered all the same
	Conflict  Kind = "conflict"  // something else has its place in the catalog
	NoKey     Kind = "no-key"    // the keys at hand do not open a manifest
	Newer     Kind = "newer"     // a newer Firn wrote it
)

// Problem is something that could not be recovered as it should have been.
type Problem struct {
	Kind     Kind
	Archive  string
	Set      string // id
	Snapshot string // id
	Signer   ed25519.PublicKey
	Reason   string // one line for people
}

// Sample is how many problems a Result lists; an Observer sees all.
const Sample = 100

// Result is what came of it.
type Result struct {
	AsOf      time.Time // of the vault's listing: what is newer was not seen
	Sets      int       // that the vault has
	Recovered int       // snapshots recorded now
	Kept      int       // snapshots that the catalog had
	Strays    int       // volumes of no manifest: of runs under way, or orphans
	Keys      int       // wrapped keys in the vault
	Read      int64     // bytes
	Problems  int64
	Found     map[Kind]int64
	Sample    []Problem
}

// marker is what Params of a snapshot say while it is being recorded: such a one was left
// half done by an interrupted recovery, and is done again.
const marker = "recovery"

type run struct {
	o        Options
	desk     *retrieval.Desk
	archives map[string]coldstore.Archive // all of the vault's, by id
	wanted   int
	read     atomic.Int64
	res      Result
}

// Run recovers. It may be repeated, and goes on where it was interrupted.
// Errors have kinds: failure.NotReady when the listing or manifests are not ready yet, NoKey when
// the keys at hand open no manifest at all, Damaged when a manifest is
// damaged or not trusted or a volume missing, Partial when something else could not be recovered.
func Run(ctx context.Context, o Options) (Result, error) {
	if o.Observe == nil {
		o.Observe = silent{}
	}
	r := &run{o: o, res: Result{Found: map[Kind]int64{}}, archives: map[string]coldstore.Archive{}}
	if o.Catalog == nil || o.Lister == nil || o.Store == nil || o.Now == nil || o.Vault == "" {
		return r.res, errors.New("recovery: an option is missing")
	}
	r.desk = retrieval.New(retrieval.Options{
		Store: o.Store, Traits: o.Lister.Traits(), Journal: o.Catalog, Vault: o.Vault, Codecs: o.Codecs, Now: o.Now,
		Tier: o.Tier, Days: o.Days, Wait: o.Wait, Poll: o.Poll, Transfer: o.Transfer,
		Approve: o.Approve, Pace: o.Pace,
		Read: func(n int64) { r.read.Add(n); o.Observe.Read(n) }, Waiting: o.Observe.Waiting,
	})
	err := r.run(ctx)
	r.res.Read = r.read.Load()
	if err != nil {
		return r.res, retrieval.Explain(err)
	}
	return r.res, r.verdict()
}

func (r *run) run(ctx context.Context) error {
	listing, err := r.list(ctx)
	if err != nil {
		return err
	}
	for i := range listing.Sets {
		if err := r.look(ctx, &listing.Sets[i]); err != nil {
			return err
		}
	}
	all := r.res.Kept + r.wanted
	r.o.Observe.Listed(r.res.AsOf, all, r.wanted)
	// What the vault does not have is met again when it is read.
	if err := r.desk.Order(ctx, func(string, error) error { return nil }); err != nil {
		return err
	}
	if err := r.desk.Ready(ctx); err != nil {
		return err
	}
	for i := range listing.Sets {
		if err := r.recoverSet(ctx, &listing.Sets[i]); err != nil {
			return err
		}
	}
	return nil
}

// list lists the vault. It needs memory for all archives that are there.
func (r *run) list(ctx context.Context) (manifest.Listing, error) {
	var all []coldstore.Archive
	var asOf time.Time
	err := transfer.Retry(ctx, r.o.Transfer, func() (err error) {
		all = all[:0] // a listing that broke off begins anew
		asOf, err = r.o.Lister.List(ctx, func(a coldstore.Archive) error {
			all = append(all, a)
			return nil
		})
		return err
	})
	switch {
	case err != nil && !asOf.IsZero() && errors.Is(err, coldstore.ErrIntegrity):
		// A vault that sees damage itself lists all else, and tells of that.
		for _, one := range coldstore.Damages(err) {
			r.problem(Problem{Kind: Damaged, Reason: one})
		}
		all = append(all, coldstore.DamagedArchives(err)...)
	case err != nil:
		return manifest.Listing{}, err // it names the vault
	}
	r.res.AsOf = asOf
	for _, a := range all {
		r.archives[a.ID] = a
	}
	l := manifest.GroupArchives(all)
	r.res.Sets, r.res.Keys = len(l.Sets), len(l.Keys)
	return l, nil
}

// look finds out which snapshots of a set the catalog lacks, and asks for their manifests.
func (r *run) look(ctx context.Context, set *manifest.ListedSet) error {
	for i := range set.Snapshots {
		s := &set.Snapshots[i]
		if len(s.Manifests) == 0 {
			r.res.Strays += len(s.Volumes)
			continue
		}
		have, err := r.o.Catalog.Snapshot(ctx, s.ID)
		if err == nil && have.State == catalog.Stored {
			r.res.Kept++
			s.Manifests = nil
			continue
		}
		if err != nil && failure.KindOf(err) != failure.NotFound {
			return err
		}
		if s.Manifests, err = r.kept(ctx, s.Manifests); err != nil {
			return err
		}
		if len(s.Manifests) == 0 {
			continue
		}
		r.wanted++
		for _, a := range s.Manifests {
			if err := r.desk.Want(ctx, a.ID, coldstore.Range{}, a.Size); err != nil {
				return err
			}
		}
	}
	return nil
}

// kept are those manifests that this machine is not about to delete: what has expired here does not come back.
func (r *run) kept(ctx context.Context, manifests []coldstore.Archive) ([]coldstore.Archive, error) {
	var list []coldstore.Archive
	for _, a := range manifests {
		going, err := r.o.Catalog.IsDoomed(ctx, r.o.Vault, a.ID)
		if err != nil {
			return nil, err
		}
		if !going {
			list = append(list, a)
		}
	}
	return list, nil
}

// recoverSet recovers the snapshots of a set, one sequence number after the other.
func (r *run) recoverSet(ctx context.Context, set *manifest.ListedSet) error {
	var snaps []*manifest.ListedSnapshot
	bases := map[string]int{} // how many snapshots build on one
	for i := range set.Snapshots {
		s := &set.Snapshots[i]
		if s.N == 0 && len(s.Manifests) > 0 {
			// No description tells: the manifest does. It is checked when it is read as a whole.
			h, err := r.peek(ctx, s.Manifests[0])
			if err == nil {
				s.N, s.Base = h.N, h.Base
			} else if !r.skippable(err) {
				return err
			}
		}
		bases[s.Base]++
		if len(s.Manifests) > 0 {
			snaps = append(snaps, s)
		}
	}
	// Of several that claim one number, that comes first on which others build, else the newest.
	slices.SortStableFunc(snaps, func(a, b *manifest.ListedSnapshot) int {
		return cmp.Or(cmp.Compare(a.N, b.N), cmp.Compare(bases[b.ID], bases[a.ID]), cmp.Compare(b.ID, a.ID))
	})
	for _, s := range snaps {
		if err := r.recoverSnapshot(ctx, set, s); err != nil {
			return err
		}
	}
	return nil
}

// recoverSnapshot tries the manifests of a snapshot, the newest first, until one is right.
// Several are there when the answer to storing one was lost.
func (r *run) recoverSnapshot(ctx context.Context, set *manifest.ListedSet, s *manifest.ListedSnapshot) error {
	want, err := r.namedByNext(ctx, set, s)
	if err != nil {
		return err
	}
	tries := s.Manifests
	var failed []Problem
	for _, strict := range []bool{true, false} {
		if want == (manifest.Hash{}) && strict {
			continue
		}
		hash := want
		if !strict {
			hash = manifest.Hash{} // none is what the next one builds on; one is better than none
		}
		failed = nil
		for _, a := range tries {
			p, err := r.record(ctx, set, s, a, hash)
			if err != nil {
				return err
			}
			if p == nil {
				for _, p := range failed {
					r.problem(p)
				}
				return nil
			}
			if p.Kind != other {
				failed = append(failed, *p)
			}
		}
	}
	for _, p := range failed {
		r.problem(p)
	}
	return nil
}

// other is the kind of a manifest that is right, but not the one that was wanted.
const other Kind = "other"

// namedByNext is the hash of the manifest that the next snapshot builds on,
// where there are several to choose from; zero where that is not to be known.
func (r *run) namedByNext(ctx context.Context, set *manifest.ListedSet, s *manifest.ListedSnapshot) (manifest.Hash, error) {
	if len(s.Manifests) < 2 {
		return manifest.Hash{}, nil
	}
	for _, next := range set.Snapshots {
		if next.Base != s.ID || len(next.Manifests) == 0 {
			continue
		}
		h, err := r.peek(ctx, next.Manifests[0])
		if err == nil {
			return h.BaseHash, nil
		}
		if !r.skippable(err) {
			return manifest.Hash{}, err
		}
	}
	return manifest.Hash{}, nil
}

func (r *run) problem(p Problem) {
	r.res.Problems++
	r.res.Found[p.Kind]++
	if len(r.res.Sample) < Sample {
		r.res.Sample = append(r.res.Sample, p)
	}
	r.o.Observe.Problem(p)
}

func (r *run) verdict() error {
	if r.res.Problems == 0 {
		return nil
	}
	first := ""
	if len(r.res.Sample) > 0 {
		first = ": " + r.res.Sample[0].Reason
	}
	bad := r.res.Found[Damaged] + r.res.Found[Untrusted] + r.res.Found[Missing] + r.res.Found[Unusable]
	switch {
	case r.res.Found[NoKey] == r.res.Problems && r.res.Recovered+r.res.Kept == 0:
		return failure.Errorf(failure.NoKey, "no key at hand opens any manifest in the vault%s", first)
	case bad > 0:
		return failure.Errorf(failure.Damaged, "%s recovered, but there %s with damaged or untrusted data%s",
			units.Count(r.res.Recovered, "snapshot"), isAre(bad, "problem"), first)
	}
	return failure.Errorf(failure.Partial, "%s recovered, %d not%s", units.Count(r.res.Recovered, "snapshot"), r.res.Problems, first)
}

func isAre(n int64, one string) string {
	if n == 1 {
		return "is " + units.Count(n, one)
	}
	return "are " + units.Count(n, one)
}

// rootOf is the path that a set is bound to: that of an implicit set is known
// by its being the only one.
func (r *run) rootOf(h *manifest.Header) string {
	if len(h.Paths) != 1 || r.o.Configured != nil && r.o.Configured(h.Set) {
		return ""
	}
	return h.Paths[0]
}

// kindOf is the kind of a set of trees, which manifests do not tell: each item of a set may be one.
func (r *run) kindOf(h *manifest.Header) string {
	if r.o.Kind != nil {
		if k := r.o.Kind(h.Set); k == "items" {
			return k
		}
	}
	return "tree"
}

// putSet records a manifest's set if the catalog does not know it; made says that it did not.
func (r *run) putSet(ctx context.Context, h *manifest.Header) (set catalog.Set, made bool, err error) {
	sets, err := r.o.Catalog.Sets(ctx)
	if err != nil {
		return set, false, err
	}
	taken := false
	for _, s := range sets {
		if s.ID == h.SetID {
			return s, false, nil
		}
		taken = taken || s.Name == h.Set && s.Host == h.Host
	}
	kind := r.kindOf(h)
	if h.IsStream() { // which producer's, the config file knows
		kind = "stream"
	}
	set = catalog.Set{
		ID: h.SetID, Name: h.Set, Label: h.Label, Host: h.Host, Kind: kind, Vault: r.o.Vault, Root: r.rootOf(h), Created: h.Made,
	}
	if taken {
		// A set of that name was made after the catalog was lost; the id tells them apart.
		set.Name, set.Root = h.Set+"-"+h.SetID, ""
	}
	return set, true, r.o.Catalog.PutSet(ctx, set)
}

type silent struct{}

func (silent) Listed(time.Time, int, int)              {}
func (silent) Waiting(int, int)                        {}
func (silent) Read(int64)                              {}
func (silent) Recovered(catalog.Set, catalog.Snapshot) {}
func (silent) Problem(Problem)                         {}

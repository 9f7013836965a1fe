package backup

import (
	"context"
	"errors"
	"fmt"

	"github.com/firn-backup/firn/internal/catalog"
	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/internal/manifest"
	"github.com/firn-backup/firn/internal/snapshot"
	"github.com/firn-backup/firn/internal/transfer"
	"github.com/firn-backup/firn/internal/volume"
)

// run is one run of Run.
type run struct {
	o     *Options
	snap  catalog.Snapshot // the attempt
	base  *catalog.Snapshot
	check catalog.Checkpoint // where the attempt goes on
	rec   recorder
	w     *catalog.EntryWriter
	stats stats
	res   Result
	again bool  // the attempt was begun by an earlier run
	sent  *sent // what the stream is, where it is a producer's; nil: a tree's

	changed, deleted int64 // what the manifest lists
}

// newRun settles what earlier runs left in doubt and finds or begins the attempt.
func newRun(ctx context.Context, o *Options) (*run, error) {
	if err := o.check(false); err != nil {
		return nil, err
	}
	r := &run{o: o}
	snaps, err := r.settleAll(ctx)
	if err != nil {
		return nil, err
	}
	p := plan(snaps, o)
	if p.resume != nil {
		whole, err := r.attemptThere(ctx, p.resume.ID)
		if err != nil {
			return nil, err
		}
		// One that has stored nothing has nothing to go on with, and its date is that of data that nobody has read.
		stored, err := o.Catalog.CheckpointOf(ctx, p.resume.ID)
		if err != nil {
			return nil, err
		}
		if !whole || stored.Volume == 0 {
			p.discard, p.resume = p.resume.ID, nil
		}
	}
	r.base = p.base
	if err := r.baseThere(ctx); err != nil {
		return nil, err
	}
	if p.discard != "" {
		if err := r.discard(ctx, p.discard); err != nil {
			return nil, err
		}
	}
	if p.resume != nil {
		r.snap = *p.resume
		if err := r.resume(ctx); err != nil {
			return nil, err
		}
	} else if err := r.begin(ctx, p.n); err != nil {
		return nil, err
	}
	if r.w, err = o.Catalog.EntryWriter(ctx, r.snap.ID); err != nil {
		return nil, err
	}
	r.rec = r.w
	r.res.Snapshot = r.snap
	return r, nil
}

// settleAll settles what earlier runs of the set left in doubt, and returns its snapshots, and the attempt if there is one, by N.
func (r *run) settleAll(ctx context.Context) ([]catalog.Snapshot, error) {
	o := r.o
	if o.Transfer.Pool == nil { // the part buffers of one volume are those of the next
		o.Transfer.Pool = transfer.NewPool(max(o.Transfer.Parallel, transfer.DefaultParallel) + 1)
	}
	o.Transfer.Deferred = true // an attempt goes on at volumes, never at parts
	snaps, err := o.Catalog.Snapshots(ctx, o.Set.ID)
	if err != nil {
		return nil, err
	}
	for i := range snaps {
		if snaps[i].State != catalog.Running {
			continue
		}
		stored, err := r.settle(ctx, snaps[i].ID)
		if err != nil {
			return nil, err
		}
		if stored {
			r.res.Settled = append(r.res.Settled, snaps[i].ID)
			if snaps[i], err = o.Catalog.Snapshot(ctx, snaps[i].ID); err != nil {
				return nil, err
			}
		}
	}
	return snaps, r.abortStale(ctx)
}

// discard abandons an attempt; what it has stored becomes orphans.
func (r *run) discard(ctx context.Context, snap string) error {
	vols, err := r.o.Catalog.Abandon(ctx, snap, r.o.Now())
	if err != nil {
		return fmt.Errorf("abandon attempt %s: %w", snap, err)
	}
	for _, v := range vols {
		r.res.Orphans = append(r.res.Orphans, v.Archive)
	}
	return nil
}

// decision says which attempt a run works on.
type decision struct {
	base    *catalog.Snapshot // nil: a full
	resume  *catalog.Snapshot
	discard string // attempt to abandon first
	n       uint64 // of a new attempt
}

// plan decides, from the set's snapshots in order of N, whether an attempt goes on, and what
// a new one is based on.
func plan(snaps []catalog.Snapshot, o *Options) decision {
	var d decision
	var last, running *catalog.Snapshot
	for i := range snaps {
		s := &snaps[i]
		d.n = max(d.n, s.N)
		if s.State == catalog.Running {
			running = s
		} else {
			last = s
		}
	}
	d.n++
	full := o.Full || last == nil || last.Vault != o.Set.Vault
	if !full && o.Incrementals > 0 && chainLength(snaps, last.ChainN) > o.Incrementals {
		full = true
	}
	if !full {
		d.base = last
	}
	if running == nil {
		return d
	}
	same := running.Params == o.Params && running.Vault == o.Set.Vault
	switch {
	case same && running.Kind == snapshot.Full:
		d.base, d.resume = nil, running
	case same && !full && running.Base == last.ID:
		d.resume = running
	default:
		d.discard = running.ID
	}
	return d
}

// chainLength counts the stored snapshots of a chain, its full included.
func chainLength(snaps []catalog.Snapshot, chain uint64) int {
	n := 0
	for _, s := range snaps {
		if s.State == catalog.Stored && s.ChainN == chain {
			n++
		}
	}
	return n
}

// settle finishes the uploads of an attempt whose completion was under way when
// its run ended. It reports whether the manifest was among them: then the
// attempt is a snapshot.
func (r *run) settle(ctx context.Context, snap string) (bool, error) {
	pending, err := r.o.Catalog.PendingOf(ctx, snap)
	if err != nil {
		return false, err
	}
	for _, p := range pending {
		a, err := transfer.Settle(ctx, r.o.Store, transfer.Pending{
			UploadID: p.UploadID, Name: p.Name, Size: p.Volume.Size, TreeHash: p.Volume.TreeHash, Leaves: p.Volume.Leaves,
		}, r.o.Transfer)
		switch {
		// Invalid: parts are missing, which a directory's log forgets when the power fails. What is left is given up with the stale.
		case errors.Is(err, coldstore.ErrNotFound), errors.Is(err, coldstore.ErrInvalid):
			if err := r.o.Catalog.DropPending(ctx, snap, p.Volume.N); err != nil {
				return false, err
			}
			if p.Volume.N > 0 {
				// What follows a volume that never came to be is worth nothing.
				return false, nil
			}
		case err != nil:
			return false, fmt.Errorf("settle %s: %w", p.Name, err)
		}
		if err == nil {
			if err := r.recordSettled(ctx, snap, a, &p); err != nil {
				return false, err
			}
		}
		switch {
		case err != nil:
		case p.Volume.N == 0:
			ref := catalog.ArchiveRef{Archive: a.ID, Size: p.Volume.Size, TreeHash: p.Volume.TreeHash, Stored: r.o.Now().UTC()}
			return true, r.o.Catalog.FinishStored(ctx, snap, p.Hash, ref, p.Totals)
		default:
			if err := r.o.Catalog.VolumeStored(ctx, snap, p.Volume.N, a.ID); err != nil {
				return false, err
			}
		}
	}
	return false, nil
}

// recordSettled is record for what an earlier run has stored.
func (r *run) recordSettled(ctx context.Context, snap string, a coldstore.Archive, p *catalog.Pending) error {
	of, err := r.o.Catalog.Snapshot(ctx, snap)
	if err != nil {
		return err
	}
	d := describe(of.Header, "volume", p.Volume.N)
	if p.Volume.N == 0 {
		d = describe(of.Header, "manifest", 0)
	}
	return r.record(ctx, a, &p.Volume, d.String())
}

// abortStale gives up the uploads that earlier runs of the set left open. The
// set is locked, so none of them is another run's.
func (r *run) abortStale(ctx context.Context) error {
	var stale []string
	err := transfer.Retry(ctx, r.o.Transfer, func() error {
		stale = stale[:0]
		return r.o.Store.ListUploads(ctx, func(u coldstore.Upload) error {
			d, ok := manifest.ParseDescription(u.Description)
			if !ok {
				d, ok = manifest.ParseName(u.Name) // which is all that some vaults tell
			}
			if ok && d.SetID == r.o.Set.ID {
				stale = append(stale, u.ID)
			}
			return nil
		})
	})
	if err != nil {
		return err // it names the vault
	}
	for _, id := range stale {
		if err := transfer.Retry(ctx, r.o.Transfer, func() error { return r.o.Store.AbortUpload(ctx, id) }); err != nil {
			return err // it names the upload
		}
	}
	return nil
}

func (r *run) resume(ctx context.Context) error {
	c := r.o.Catalog
	if err := c.Rewind(ctx, r.snap.ID); err != nil {
		return fmt.Errorf("go on with attempt %s: %w", r.snap.ID, err)
	}
	var err error
	if r.check, err = c.CheckpointOf(ctx, r.snap.ID); err != nil {
		return err
	}
	r.again = true
	r.res.Resumed = r.check.Volume > 0
	if r.res.Resumed {
		r.o.Observe.Resumed(r.snap.ID, r.check.Volume)
	}
	return nil
}

func (r *run) begin(ctx context.Context, n uint64) error {
	o := r.o
	now := o.Now()
	id, err := snapshot.NewID(now, o.Rand)
	if err != nil {
		return fmt.Errorf("make an identifier: %w", err)
	}
	s := catalog.Snapshot{
		ID: id, SetID: o.Set.ID, N: n, Kind: snapshot.Full, Chain: id, ChainN: n,
		At: now.UTC(), Made: now.UTC(), State: catalog.Running, Params: o.Params, Vault: o.Set.Vault,
	}
	if r.base != nil {
		s.Kind, s.Base, s.Chain, s.ChainN = snapshot.Incremental, r.base.ID, r.base.Chain, r.base.ChainN
	}
	s.Header = manifest.Header{
		SetID: o.Set.ID, Set: o.Set.Name, Label: o.Set.Label, Host: o.Host, Snap: id, N: n,
		At: s.At, Made: s.Made, Kind: s.Kind, Base: s.Base, Stream: "tar",
		Compress: o.Compress.Name(), Encrypt: o.Encrypt.Name(), Paths: o.Paths,
	}
	if r.base != nil {
		s.Header.BaseHash = r.base.ManifestHash
	}
	if x := r.sent; x != nil {
		s.At = x.at
		s.Header.Stream, s.Header.Point, s.Header.PointID, s.Header.At = string(x.format), x.point, x.pointID, x.at
	}
	r.snap = s
	return o.Catalog.Begin(ctx, s)
}

func (r *run) volumeSize() int64 {
	if r.o.VolumeSize == 0 {
		return volume.DefaultSize
	}
	return r.o.VolumeSize
}

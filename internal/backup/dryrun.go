package backup

import (
	"context"

	"github.com/firn-backup/firn/internal/catalog"
	"github.com/firn-backup/firn/internal/failure"
	"github.com/firn-backup/firn/internal/manifest"
	"github.com/firn-backup/firn/internal/snapshot"
	"github.com/firn-backup/firn/internal/source"
	"github.com/firn-backup/firn/internal/volume"
)

// DryRun tells what Run would do. It needs neither Store nor Signer, nor a Catalog where there
// is none yet, and has nothing that it could send or record anything with. With read set it also reads,
// compresses and encrypts everything that Run would store, and throws it away;
// otherwise it compares times and sizes only.
func DryRun(ctx context.Context, o Options, read bool) (Result, error) {
	if err := o.check(true); err != nil {
		return Result{}, err
	}
	r := &run{o: &o, rec: nowhere{}}
	var snaps []catalog.Snapshot
	var err error
	if o.Catalog != nil {
		if snaps, err = o.Catalog.Snapshots(ctx, o.Set.ID); err != nil && failure.KindOf(err) != failure.NotFound {
			return Result{}, err
		}
	}
	p := plan(snaps, &o)
	r.base = p.base
	r.snap = catalog.Snapshot{SetID: o.Set.ID, N: p.n, Kind: snapshot.Full, Vault: o.Set.Vault, At: o.Now()}
	if p.base != nil {
		r.snap.Kind, r.snap.Base = snapshot.Incremental, p.base.ID
	}
	if p.resume != nil {
		r.snap = *p.resume
		if r.check, err = o.Catalog.CheckpointOf(ctx, r.snap.ID); err != nil {
			return Result{}, err
		}
		r.res.Resumed = r.check.Volume > 0
	}
	if read {
		err = r.readAll(ctx)
	} else {
		err = r.compareOnly(ctx)
	}
	r.res.Snapshot = r.snap
	r.res.Snapshot.Totals.Entries, r.res.Snapshot.Totals.Bytes = r.stats.tree.entries, r.stats.tree.bytes
	r.res.Counts = r.stats.counts
	r.res.Problems = r.stats.problems
	r.res.Volumes, r.res.Sent = int(r.stats.volumes.Load()), r.stats.sent.Load()
	if err == nil && r.res.Problems > 0 {
		err = failure.Errorf(failure.Partial, "%s: there would be problems (%d)", o.Set.Name, r.res.Problems)
	}
	return r.res, err
}

// compareOnly counts what differs by its times and sizes.
func (r *run) compareOnly(ctx context.Context) error {
	em := &emitter{r: r, ctx: ctx, rec: nowhere{}}
	m := &merger{checksum: r.o.Checksum}
	m.from, m.started, m.inFile = r.check.Path, r.check.Started, r.check.InFile
	m.emit = func(_ context.Context, j *job) error {
		switch j.kind {
		case jobProblem:
			return em.problem(j.entry.Path, j.reason)
		case jobDelete:
			em.count(Deleted, &j.entry)
		case jobStore:
			if j.action == Changed && j.entry.Type != snapshot.File {
				j.action = Metadata
			}
			em.count(j.action, &j.entry)
		}
		return nil
	}
	m.pass = func(t tally) { r.o.Observe.Entry(Unchanged, "", t.entries, t.bytes) }
	err := r.compareAll(ctx, m)
	r.stats.tree = m.seen
	r.stats.counts.Unchanged = m.same.entries
	if r.base != nil {
		r.res.Shrunk = shrunk(m.seen, r.base.Totals)
	}
	return err
}

// readAll runs the whole pipeline into nothing.
func (r *run) readAll(ctx context.Context) error {
	st, err := decodeState(r.check)
	if err != nil || st.Ended {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	em := &emitter{r: r, ctx: ctx, rec: r.rec, size: r.volumeSize(), n: r.snap.N, cks: &checkpoints{}, links: newLinks(r)}
	em.lastPath, em.started, em.wrote = r.check.Path, r.check.Started, r.check.Volume > 0
	em.w = volume.NewWriter(ctx, volume.Options{
		Size: r.o.VolumeSize, FrameSize: r.o.FrameSize, First: r.check.Volume + 1, Workers: r.o.Workers,
		NoVerify: r.o.NoVerify, Compress: r.o.Compress, Encrypt: r.o.Encrypt,
		Open:  func(context.Context, int) (volume.Sink, error) { return &counter{r: r}, nil },
		OnCut: em.cut,
	})
	err = r.produce(ctx, cancel, em, st)
	if err == nil {
		err = em.end()
	}
	if err != nil {
		em.w.Abort()
		return err
	}
	return em.w.Close()
}

// counter is a sink that only counts.
type counter struct {
	r *run
	n int64
}

var _ volume.Sink = (*counter)(nil)

func (c *counter) Write(p []byte) (int, error) {
	c.n += int64(len(p))
	return len(p), nil
}

func (c *counter) Finish(_ context.Context, v *manifest.Volume) error {
	c.r.stats.volumes.Add(1)
	c.r.stats.sent.Add(c.n)
	c.r.stats.raw.Add(v.Raw)
	return nil
}

func (c *counter) Abort(context.Context) error { return nil }

// nowhere records nothing.
type nowhere struct{}

var _ recorder = nowhere{}

func (nowhere) Put(context.Context, *snapshot.Entry) error      { return nil }
func (nowhere) Refresh(context.Context, *snapshot.Entry) error  { return nil }
func (nowhere) Delete(context.Context, string) error            { return nil }
func (nowhere) Problem(context.Context, snapshot.Problem) error { return nil }

// Count walks a tree and tells how many entries it has and how many bytes.
func Count(ctx context.Context, t source.Tree) (entries, bytes int64, err error) {
	err = t.Walk(ctx, func(items []source.Item) error {
		for i := range items {
			entries++
			bytes += items[i].Entry.Size
		}
		return ctx.Err()
	})
	return entries, bytes, err
}

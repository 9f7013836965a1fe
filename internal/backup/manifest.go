package backup

import (
	"context"
	"fmt"

	"github.com/firn-backup/firn/internal/catalog"
	"github.com/firn-backup/firn/internal/manifest"
	"github.com/firn-backup/firn/internal/snapshot"
	"github.com/firn-backup/firn/internal/volume"
)

// storeManifest writes the table of contents from what the catalog recorded,
// and stores it: from then on the snapshot exists.
func (r *run) storeManifest(ctx context.Context) error {
	if err := r.w.Flush(ctx); err != nil {
		return err
	}
	if err := r.countTree(ctx); err != nil {
		return err
	}
	vols, err := r.o.Catalog.Volumes(ctx, r.snap.ID)
	if err != nil {
		return err
	}
	attempt := ""
	if r.again {
		if attempt, err = snapshot.NewID(r.o.Now(), r.o.Rand); err != nil {
			return err
		}
	}
	name := manifest.ManifestName(&r.snap.Header, attempt, r.o.Compress.Ext(), r.o.Encrypt.Ext())
	var hash manifest.Hash
	var ref catalog.ArchiveRef
	var totals catalog.Totals
	w := volume.NewWriter(ctx, volume.Options{
		Size: -1, FrameSize: r.o.FrameSize, Workers: r.o.Workers, NoVerify: r.o.NoVerify,
		Compress: r.o.Compress, Encrypt: r.o.Encrypt,
		Open: func(ctx context.Context, _ int) (volume.Sink, error) {
			s := r.newSink(ctx, name, r.describe("manifest", 0))
			s.pending = func(p *catalog.Pending) error {
				p.Volume.N = 0
				totals = r.totals(vols, p.Volume.Size)
				p.Hash, p.Totals = hash, totals
				return nil
			}
			s.stored = func(_ context.Context, v *manifest.Volume) error {
				ref = catalog.ArchiveRef{Archive: v.Archive, Size: v.Size, TreeHash: v.TreeHash, Stored: r.o.Now().UTC()}
				return nil
			}
			return s, nil
		},
	})
	if hash, err = r.writeManifest(ctx, w, vols); err != nil {
		w.Abort()
		return fmt.Errorf("write the manifest of %s: %w", r.snap.ID, err)
	}
	if err := w.Close(); err != nil {
		return err
	}
	if err := r.o.Catalog.FinishStored(ctx, r.snap.ID, hash, ref, totals); err != nil {
		return err
	}
	r.o.Observe.Volume(0, ref.Archive, ref.Size)
	return r.finish(ctx)
}

func (r *run) writeManifest(ctx context.Context, w *volume.Writer, vols []manifest.Volume) (manifest.Hash, error) {
	c := r.o.Catalog
	mw, err := manifest.NewWriter(w, r.snap.Header)
	if err != nil {
		return manifest.Hash{}, err
	}
	for _, v := range vols {
		whole, err := c.Volume(ctx, r.snap.ID, v.N)
		if err != nil {
			return manifest.Hash{}, err
		}
		if err := mw.Volume(&whole); err != nil {
			return manifest.Hash{}, err
		}
	}
	err = c.Changes(ctx, r.snap.ID, func(path string, e *snapshot.Entry) error {
		if e == nil {
			r.deleted++
			return mw.Delete(path)
		}
		r.changed++
		return mw.Entry(e)
	})
	if err != nil {
		return manifest.Hash{}, err
	}
	problems, err := c.Problems(ctx, r.snap.ID)
	if err != nil {
		return manifest.Hash{}, err
	}
	r.res.Problems = int64(len(problems))
	for i := range problems {
		if err := mw.Problem(&problems[i]); err != nil {
			return manifest.Hash{}, err
		}
	}
	return mw.Close(r.o.Signer)
}

// totals sums the snapshot up, manifestSize being that of the manifest's archive.
func (r *run) totals(vols []manifest.Volume, manifestSize int64) catalog.Totals {
	t := catalog.Totals{
		Entries: r.stats.tree.entries, Bytes: r.stats.tree.bytes,
		Changed: r.changed, Deleted: r.deleted,
		Stored: manifestSize, Problems: r.res.Problems,
	}
	for _, v := range vols {
		t.Raw += v.Raw
		t.Stored += v.Size
	}
	if r.snap.Header.IsStream() {
		t.Bytes = t.Raw
	}
	return t
}

// countTree sums up the tree of an attempt that goes on: its own walk may have
// ended before the interruption, and what it saw of paths dealt with then is not what is recorded.
func (r *run) countTree(ctx context.Context) error {
	if !r.res.Resumed || r.snap.Header.IsStream() {
		return nil
	}
	rows, err := r.o.Catalog.Rows(ctx, r.snap.ID, "")
	if err != nil {
		return err
	}
	defer rows.Close()
	r.stats.tree = tally{}
	for {
		row, err := rows.Next(ctx)
		if row == nil || err != nil {
			return err
		}
		r.stats.tree.add(row.Size)
	}
}

// finish fills in the result from what is stored now.
func (r *run) finish(ctx context.Context) error {
	var err error
	r.res.Counts = r.stats.counts
	r.res.Volumes = int(r.stats.volumes.Load())
	r.res.Sent = r.stats.sent.Load()
	r.res.Snapshot, err = r.o.Catalog.Snapshot(ctx, r.snap.ID)
	return err
}

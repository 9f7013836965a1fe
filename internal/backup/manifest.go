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
		Compress: r.o.Compress, Encrypt: r.o.Encrypt, Name: "the manifest",
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
		return fmt.Errorf("make the manifest of %s: %w", r.snap.ID, err)
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
	if err := r.writeChanges(ctx, mw); err != nil {
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

// change is what the manifest says of a path; a nil entry: it was deleted.
type change struct {
	path  string
	entry *snapshot.Entry
}

// changesAhead is how many changes are read at a time while those before are written.
const changesAhead = 256

// writeChanges reads the changes in a goroutine of its own: reading them takes as long as writing them, and nothing else
// is left to do at the end of a backup.
func (r *run) writeChanges(ctx context.Context, mw *manifest.Writer) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	batches := make(chan []change, 2)
	var read error // set when batches is closed
	go func() {
		defer close(batches)
		var batch []change
		send := func() error {
			select {
			case batches <- batch:
				batch = nil
				return nil
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
		read = r.o.Catalog.Changes(ctx, r.snap.ID, func(path string, e *snapshot.Entry) error {
			if batch = append(batch, change{path, e}); len(batch) < changesAhead {
				return nil
			}
			return send()
		})
		if read == nil && len(batch) > 0 {
			read = send()
		}
	}()
	for batch := range batches {
		for _, c := range batch {
			var err error
			if c.entry == nil {
				r.deleted++
				err = mw.Delete(c.path)
			} else {
				r.changed++
				err = mw.Entry(c.entry)
			}
			if err != nil {
				cancel(err)
				for range batches { // until the reader has let go of the catalog
				}
				return err
			}
		}
	}
	return read
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

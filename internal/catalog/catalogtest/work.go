package catalogtest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/firn-backup/firn/internal/catalog"
	"github.com/firn-backup/firn/internal/manifest"
	"github.com/firn-backup/firn/internal/snapshot"
)

// Work is what a backup does to the catalog, without the backup: snapshots of a tree that
// is known beforehand, with volumes and checkpoints. Killed anywhere and run again, it goes on.
type Work struct {
	Set       string
	Snapshots uint64             // how many
	Files     int                // in the tree
	Volumes   int                // a snapshot
	Report    func(event string) `json:"-"` // told what is stored; may be nil
}

// path of file i.
func (w *Work) path(i int) string { return fmt.Sprintf("dir%02d/file%06d", i*20/w.Files, i) }

// size of file i in snapshot n, -1 when it is not there: a fifth changes from one to the
// next, and a few come and go. Every third snapshot is full.
func (w *Work) size(i int, n uint64) int64 {
	if i%50 == int(n)%50 {
		return -1
	}
	return int64(i)<<20 + int64(n-(n+uint64(i))%5)
}

func (w *Work) id(n uint64) string { return fmt.Sprint(w.Set, "-", n) }

// Run does the work that is left.
func (w *Work) Run(ctx context.Context, d *catalog.DB) error {
	if err := d.PutSet(ctx, catalog.Set{ID: w.Set, Name: w.Set}); err != nil {
		return err
	}
	snaps, err := d.Snapshots(ctx, w.Set)
	if err != nil {
		return err
	}
	for n := uint64(1); n <= w.Snapshots; n++ {
		switch {
		case len(snaps) >= int(n) && snaps[n-1].State == catalog.Stored:
			continue
		case len(snaps) >= int(n):
			if err := d.Rewind(ctx, w.id(n)); err != nil {
				return err
			}
		default:
			base := ""
			if n%3 != 1 {
				base = w.id(n - 1)
			}
			if err := d.Begin(ctx, attempt(w.Set, w.id(n), n, base)); err != nil {
				return err
			}
		}
		if err := w.snapshot(ctx, d, n); err != nil {
			return fmt.Errorf("snapshot %d: %w", n, err)
		}
	}
	return nil
}

func (w *Work) snapshot(ctx context.Context, d *catalog.DB, n uint64) error {
	c, err := d.CheckpointOf(ctx, w.id(n))
	if err != nil {
		return err
	}
	ew, err := d.EntryWriter(ctx, w.id(n))
	if err != nil {
		return err
	}
	per := w.Files / w.Volumes
	for i := c.Volume * per; i < w.Files; i++ {
		was := int64(-1)
		if n%3 != 1 {
			was = w.size(i, n-1)
		}
		switch now := w.size(i, n); {
		case now == was:
			err = ew.Refresh(ctx, file(w.path(i), now))
		case now < 0:
			err = ew.Delete(ctx, w.path(i))
		default:
			err = ew.Put(ctx, file(w.path(i), now))
		}
		if err != nil {
			return err
		}
		if (i+1)%per == 0 {
			v := (i + 1) / per
			if err := ew.PutPending(ctx, catalog.Pending{Snap: w.id(n), Volume: testVolume(v),
				Check: catalog.Checkpoint{Path: w.path(i), Started: true}}); err != nil {
				return err
			}
			if err := d.VolumeStored(ctx, w.id(n), v, fmt.Sprint("archive", v)); err != nil {
				return err
			}
			w.report("volume %d %d", n, v)
		}
	}
	if err := ew.Flush(ctx); err != nil {
		return err
	}
	err = d.FinishStored(ctx, w.id(n), manifest.Hash{byte(n)}, catalog.ArchiveRef{Archive: "m"}, catalog.Totals{Entries: int64(n)})
	if err == nil {
		w.report("stored %d", n)
	}
	return err
}

func (w *Work) report(format string, args ...any) {
	if w.Report != nil {
		w.Report(fmt.Sprintf(format, args...))
	}
}

// Check compares all that is stored with what it must be. snapshots and volumes are what was reported of: the
// newest snapshot that was stored, and the newest volume of the one after it. It changes
// nothing but that it rewinds the attempt.
func (w *Work) Check(ctx context.Context, d *catalog.DB, stored uint64, volume int) error {
	snaps, err := d.Snapshots(ctx, w.Set)
	if err != nil {
		return err
	}
	if len(snaps) < int(stored) {
		return fmt.Errorf("%d snapshots, want %d", len(snaps), stored)
	}
	for i, s := range snaps {
		n := uint64(i + 1)
		upTo := w.Files
		switch {
		case s.N != n:
			return fmt.Errorf("snapshot %d in place of %d", s.N, n)
		case s.State == catalog.Stored:
		case n <= stored:
			return fmt.Errorf("snapshot %d is not stored", n)
		default:
			if err := d.Rewind(ctx, s.ID); err != nil {
				return err
			}
			c, err := d.CheckpointOf(ctx, s.ID)
			if err != nil {
				return err
			}
			if n == stored+1 && c.Volume < volume {
				return fmt.Errorf("snapshot %d is at volume %d, want %d", n, c.Volume, volume)
			}
			upTo = c.Volume * (w.Files / w.Volumes)
		}
		if err := w.checkTree(ctx, d, n, upTo); err != nil {
			return fmt.Errorf("snapshot %d: %w", n, err)
		}
	}
	return nil
}

// checkTree compares a snapshot, whose files from upTo on are those of its base.
func (w *Work) checkTree(ctx context.Context, d *catalog.DB, n uint64, upTo int) error {
	size := func(i int) int64 {
		switch {
		case i < upTo:
			return w.size(i, n)
		case n%3 != 1:
			return w.size(i, n-1)
		default:
			return -1
		}
	}
	i := 0
	skip := func() {
		for i < w.Files && size(i) < 0 {
			i++
		}
	}
	err := d.Entries(ctx, w.id(n), catalog.Query{}, func(e snapshot.Entry) error {
		skip()
		if i == w.Files || e.Path != w.path(i) || e.Size != size(i) {
			return fmt.Errorf("entry %q of size %d stands where file %d should", e.Path, e.Size, i)
		}
		i++
		return nil
	})
	if skip(); err == nil && i < w.Files {
		err = fmt.Errorf("no entry of file %d", i)
	}
	if err != nil {
		return err
	}
	changes := 0
	for i := range upTo {
		if n%3 != 1 && w.size(i, n) != w.size(i, n-1) || n%3 == 1 && w.size(i, n) >= 0 {
			changes++
		}
	}
	err = d.Changes(ctx, w.id(n), func(string, *snapshot.Entry) error { changes--; return nil })
	if err == nil && changes != 0 {
		err = fmt.Errorf("%d changes are missing", changes)
	}
	return err
}

// testManyHandles: several users of one catalog, each with a set of its own, do not disturb each other.
func testManyHandles(t *testing.T, target Target) {
	open := target(t)
	var wg sync.WaitGroup
	for h := range 4 {
		d := open(200)
		w := &Work{Set: fmt.Sprint("set", h), Snapshots: 4, Files: 1000, Volumes: 5}
		wg.Go(func() {
			if err := errors.Join(w.Run(t.Context(), d), w.Check(t.Context(), d, 4, 0)); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

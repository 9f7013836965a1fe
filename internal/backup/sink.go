package backup

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/firn-backup/firn/internal/catalog"
	"github.com/firn-backup/firn/internal/codec"
	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/internal/manifest"
	"github.com/firn-backup/firn/internal/snapshot"
	"github.com/firn-backup/firn/internal/transfer"
	"github.com/firn-backup/firn/internal/volume"
)

// checkpoints keeps, for each volume whose last byte was written, where the
// stream stood then, until the volume is stored.
type checkpoints struct {
	mu sync.Mutex
	m  map[int]catalog.Checkpoint
}

func (c *checkpoints) put(n int, k catalog.Checkpoint) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.m == nil {
		c.m = make(map[int]catalog.Checkpoint)
	}
	k.Volume = n
	c.m[n] = k
}

func (c *checkpoints) take(n int) (catalog.Checkpoint, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	k, ok := c.m[n]
	delete(c.m, n)
	return k, ok
}

// sink stores one volume, or the manifest: it journals before the completion
// and after.
type sink struct {
	*transfer.Upload
	r           *run
	name        string
	description string
	pending     func(*catalog.Pending) error                  // completes what is journalled before
	stored      func(context.Context, *manifest.Volume) error // records that it is stored
}

var _ volume.Sink = (*sink)(nil)

func (r *run) newSink(ctx context.Context, name string, d manifest.Description) *sink {
	t := r.o.Transfer
	sent := t.Sent
	t.Sent = func(n int64) {
		r.o.Observe.Sent(n)
		if sent != nil {
			sent(n)
		}
	}
	up := transfer.NewUpload(ctx, r.o.Store, coldstore.NewArchive{Name: name, Description: d.String(), Meta: d.What == manifest.WhatManifest}, t)
	return &sink{Upload: up, r: r, name: name, description: d.String()}
}

// Finish stores the volume. The journal knows all about it before the vault is asked
// to complete it, so that a kill at any instant leaves either nothing to
// complete or a completion that can be repeated.
func (s *sink) Finish(ctx context.Context, v *manifest.Volume) error {
	a, err := s.Complete(ctx, func(p transfer.Pending) error {
		v.Archive, v.Size, v.TreeHash, v.Leaves = p.Name, p.Size, p.TreeHash, p.Leaves
		pend := catalog.Pending{Snap: s.r.snap.ID, Volume: *v, UploadID: p.UploadID, Name: s.name}
		if err := s.pending(&pend); err != nil {
			return err
		}
		return s.r.w.PutPending(ctx, pend)
	})
	if err != nil {
		// Where the outcome is unknown this does nothing: the journal knows, and the next run settles it.
		return errors.Join(err, s.Upload.Abort(context.WithoutCancel(ctx)))
	}
	v.Archive = a.ID
	if err := s.r.record(ctx, a, v, s.description); err != nil {
		return err
	}
	if err := s.stored(ctx, v); err != nil {
		return fmt.Errorf("record %s: %w", s.name, err)
	}
	s.r.stats.sent.Add(v.Size)
	return nil
}

func (s *sink) Abort(ctx context.Context) error { return s.Upload.Abort(ctx) }

// record has the catalog know of an archive at once, where the vault's listing would tell of it days later only.
func (r *run) record(ctx context.Context, a coldstore.Archive, v *manifest.Volume, description string) error {
	if l, ok := r.o.Store.(coldstore.Lister); !ok || l.Traits().ListLag == 0 {
		return nil
	}
	now := r.o.Now().UTC()
	a.Size, a.TreeHash, a.Description = v.Size, v.TreeHash, cmp.Or(a.Description, description)
	if a.Created.IsZero() {
		a.Created = now
	}
	return r.o.Catalog.PutArchive(ctx, catalog.ArchiveRecord{Vault: r.o.Set.Vault, Archive: a, UploadedAt: now})
}

func (r *run) describe(what string, n int) manifest.Description {
	return describe(r.snap.Header, what, n)
}

func describe(h manifest.Header, what string, n int) manifest.Description {
	return manifest.Description{
		Set: h.Set, SetID: h.SetID, Host: h.Host, Snap: h.Snap, N: h.N, At: h.At, Kind: h.Kind, Base: h.Base,
		Part: n, What: what, Codecs: codecNames(h),
	}
}

func codecNames(h manifest.Header) []string {
	var names []string
	for _, n := range []string{h.Compress, h.Encrypt} {
		if n != codec.None && n != "" {
			names = append(names, n)
		}
	}
	return names
}

// openVolume is volume.Options.Open for the volumes of the stream.
func (r *run) openVolume(cks *checkpoints) func(context.Context, int) (volume.Sink, error) {
	return func(ctx context.Context, n int) (volume.Sink, error) {
		attempt, err := snapshot.NewID(r.o.Now(), r.o.Rand)
		if err != nil {
			return nil, err
		}
		name := manifest.VolumeName(&r.snap.Header, n, attempt, r.o.Compress.Ext(), r.o.Encrypt.Ext())
		s := r.newSink(ctx, name, r.describe("volume", n))
		s.pending = func(p *catalog.Pending) error {
			k, ok := cks.take(n)
			if !ok {
				return fmt.Errorf("volume %d: no checkpoint", n)
			}
			p.Check = k
			return nil
		}
		s.stored = func(ctx context.Context, v *manifest.Volume) error {
			if err := r.o.Catalog.VolumeStored(ctx, r.snap.ID, n, v.Archive); err != nil {
				return err
			}
			r.stats.volumes.Add(1)
			r.stats.raw.Add(v.Raw)
			r.o.Observe.Volume(n, v.Archive, v.Size)
			return nil
		}
		return s, nil
	}
}

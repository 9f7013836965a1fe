package itemstore

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/firn-backup/firn/internal/catalog"
	"github.com/firn-backup/firn/internal/codec"
	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/internal/manifest"
	"github.com/firn-backup/firn/internal/transfer"
	"github.com/firn-backup/firn/internal/volume"
	"github.com/firn-backup/firn/treehash"
)

// giveUpTime bounds how long giving up an upload may take when the run itself is over.
const giveUpTime = 30 * time.Second

// sink is one archive on its way.
type sink struct {
	*transfer.Upload
	s    *Session
	u    *catalog.ItemUpload // what the journal is told; its Item is complete before Finish is called
	keep bool                // what was sent is left for the next run to go on from
}

var _ volume.Sink = (*sink)(nil)

func (s *Session) newSink(ctx context.Context, u *catalog.ItemUpload, a coldstore.NewArchive, o transfer.Options) *sink {
	return &sink{Upload: transfer.NewUpload(ctx, s.o.Store, a, o), s: s, u: u, keep: o.Begun != nil && u.Item.Encrypt == codec.None}
}

// Finish is that of volume.Sink: it stores what was written, having written down before that it is about to be stored.
func (k *sink) Finish(ctx context.Context, _ *manifest.Volume) error {
	a, err := k.Complete(ctx, func(p transfer.Pending) error {
		k.u.UploadID, k.u.Size, k.u.TreeHash = p.UploadID, p.Size, p.TreeHash
		k.u.Item.Archive = catalog.ArchiveRef{Size: p.Size, TreeHash: p.TreeHash}
		return k.s.o.Catalog.PutItemUpload(ctx, *k.u)
	})
	if err != nil {
		return errors.Join(err, k.Abort(ctx))
	}
	k.u.Item.Archive.Archive = a.ID
	return nil
}

// Abort is that of volume.Sink. After a completion that was tried it leaves all to the journal.
func (k *sink) Abort(ctx context.Context) error {
	if k.keep {
		k.Leave()
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), giveUpTime)
	defer cancel()
	return k.Upload.Abort(ctx)
}

// measured counts and hashes what goes by.
type measured struct {
	w    io.Writer
	hash *treehash.Hasher
	n    int64
}

func (m *measured) Write(p []byte) (int, error) {
	n, err := m.w.Write(p)
	m.n += int64(n)
	m.hash.Write(p[:n])
	return n, err
}

// put stores a piece.
func (s *Session) put(ctx context.Context, p Piece, run catalog.ItemRun, large bool) (catalog.Item, error) {
	i := p.Item
	i.SetID, i.Vault, i.N, i.Until, i.Deleted = s.o.Set.ID, s.o.Vault, run.N, 0, time.Time{}
	s.label(&i, run)
	ext := ""
	if i.Dir {
		ext = ".tar"
	}
	name, err := s.archiveName(&i, WhatItem, ext+s.o.Compress.Ext()+s.o.Encrypt.Ext())
	if err != nil {
		return i, err
	}
	t := s.o.Transfer
	t.PartSize, t.Expect, t.Pool = s.partSize(p.Expect, large), p.Expect, nil
	if !large {
		t.Parallel = 1
	}
	u := &catalog.ItemUpload{Item: i, Name: name, Begun: s.o.Now()}
	if old := s.takeResume(i.Path); old != nil {
		err := errOther
		if large && old.Item.State == i.State && i.State != [32]byte{} {
			p.Item.N = run.N
			err = s.goOn(ctx, p, old, t)
		}
		switch {
		case err == nil:
			return old.Item, s.o.Catalog.ItemStored(ctx, old.Item)
		case !errors.Is(err, errOther) && !errors.Is(err, transfer.ErrOtherParts) && !errors.Is(err, coldstore.ErrNotFound):
			return i, err
		}
		if err := s.giveUp(ctx, *old); err != nil {
			return i, err
		}
	}
	if large {
		t.Begun = func(up coldstore.Upload) error {
			u.UploadID, u.PartSize = up.ID, up.PartSize
			return s.o.Catalog.PutItemUpload(ctx, *u)
		}
	}
	if err := s.send(ctx, p, u, t, large); err != nil {
		return i, err
	}
	i = u.Item
	if i.Archive.Archive == "" {
		i.Self, i.Listed, i.Desc = false, 0, "" // it is empty: there is nothing to store
	}
	return i, s.o.Catalog.ItemStored(ctx, i)
}

var errOther = errors.New("it is not what was begun")

func (s *Session) takeResume(path string) *catalog.ItemUpload {
	s.mu.Lock()
	defer s.mu.Unlock()
	u, ok := s.resume[path]
	delete(s.resume, path)
	if !ok {
		return nil
	}
	return &u
}

// goOn sends what is left of an upload that an earlier run began. old becomes what was stored.
func (s *Session) goOn(ctx context.Context, p Piece, old *catalog.ItemUpload, t transfer.Options) error {
	t.Begun = func(coldstore.Upload) error { return nil } // what is there is kept
	old.Item.N = p.Item.N
	t.PartSize = old.PartSize
	err := transfer.Retry(ctx, t, func() (err error) {
		t.Have, err = s.o.Store.ListParts(ctx, old.UploadID)
		return err
	})
	if err != nil {
		return err
	}
	t.Continue = &coldstore.Upload{ID: old.UploadID, PartSize: old.PartSize, Created: old.Begun}
	return s.send(ctx, p, old, t, true)
}

func (s *Session) send(ctx context.Context, p Piece, u *catalog.ItemUpload, t transfer.Options, large bool) error {
	a := coldstore.NewArchive{Name: u.Name, Description: u.Item.Desc}
	if s.o.bare() {
		return s.putBare(ctx, p, u, a, t)
	}
	return s.putCoded(ctx, p, u, a, t, large)
}

// fill brings u up to what is known once all was written.
func (s *Session) fill(p Piece, u *catalog.ItemUpload, m *measured) error {
	i := u.Item
	i.Plain, i.PlainHash, i.Stored = m.n, m.hash.Sum(), s.o.Now()
	if err := p.Done(&i); err != nil {
		return err
	}
	if i.Self {
		i.Listed = i.N
	}
	u.Item = i
	return nil
}

// putBare stores bytes as they are.
func (s *Session) putBare(ctx context.Context, p Piece, u *catalog.ItemUpload, a coldstore.NewArchive, t transfer.Options) error {
	k := s.newSink(ctx, u, a, t)
	m := &measured{w: k, hash: treehash.New()}
	err := p.Write(ctx, m)
	if err == nil {
		err = s.fill(p, u, m)
	}
	if err != nil || m.n == 0 {
		return errors.Join(err, k.Abort(ctx))
	}
	return k.Finish(ctx, nil)
}

// putCoded stores bytes compressed and encrypted.
func (s *Session) putCoded(ctx context.Context, p Piece, u *catalog.ItemUpload, a coldstore.NewArchive, t transfer.Options, large bool) error {
	o := volume.Options{
		Size: -1, Workers: s.o.Workers, NoVerify: s.o.NoVerify, Compress: s.o.Compress, Encrypt: s.o.Encrypt, FrameSize: frameSize(p), Name: "the archive",
		Open: func(ctx context.Context, _ int) (volume.Sink, error) { return s.newSink(ctx, u, a, t), nil },
	}
	if !large {
		o.Workers = 1
	}
	w := volume.NewWriter(ctx, o)
	m := &measured{w: w, hash: treehash.New()}
	err := p.Write(ctx, m)
	if err == nil {
		err = s.fill(p, u, m) // nothing finishes before Close
	}
	if err != nil {
		w.Abort()
		return err
	}
	return w.Close()
}

package faultstore

import (
	"context"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/treehash"
)

type store struct {
	*Faults
	inner coldstore.Store
}

type statStore struct {
	*store
	stater coldstore.Stater
}

var (
	_ coldstore.Store  = (*store)(nil)
	_ coldstore.Stater = (*statStore)(nil)
)

func (s *store) Traits() coldstore.Traits { return s.inner.Traits() }

func (s *store) List(ctx context.Context, fn func(coldstore.Archive) error) (asOf time.Time, err error) {
	v, err := s.begin("List", "archives")
	if err != nil {
		return asOf, err
	}
	asOf, err = s.inner.List(ctx, fn)
	if err = s.end(v, "List", "archives", err); err != nil {
		return time.Time{}, err
	}
	return asOf, nil
}

func (s *statStore) Stat(ctx context.Context, archive string) (coldstore.Archive, error) {
	v, err := s.begin("Stat", archive)
	if err != nil {
		return coldstore.Archive{}, err
	}
	a, err := s.stater.Stat(ctx, archive)
	if err = s.end(v, "Stat", archive, err); err != nil {
		return coldstore.Archive{}, err
	}
	return a, nil
}

func (s *store) RequestRetrieval(ctx context.Context, archive string, r coldstore.Range, o coldstore.RetrievalOptions) (coldstore.Retrieval, error) {
	v, err := s.begin("RequestRetrieval", archive)
	if err != nil {
		return coldstore.Retrieval{}, err
	}
	got, err := s.inner.RequestRetrieval(ctx, archive, r, o)
	if err = s.end(v, "RequestRetrieval", archive, err); err != nil {
		return coldstore.Retrieval{}, err
	}
	return got, nil
}

func (s *store) CheckRetrieval(ctx context.Context, token string) (coldstore.Retrieval, error) {
	v, err := s.begin("CheckRetrieval", token)
	if err != nil {
		return coldstore.Retrieval{}, err
	}
	got, err := s.inner.CheckRetrieval(ctx, token)
	if err = s.end(v, "CheckRetrieval", token, err); err != nil {
		return coldstore.Retrieval{}, err
	}
	return got, nil
}

func (s *store) OpenRetrieved(ctx context.Context, r coldstore.Retrieval, off, size int64) (io.ReadCloser, error) {
	v, err := s.begin("OpenRetrieved", r.Archive)
	if err != nil {
		return nil, err
	}
	rc, err := s.inner.OpenRetrieved(ctx, r, off, size)
	if lost := s.end(v, "OpenRetrieved", r.Archive, nil); lost != nil {
		if err == nil {
			rc.Close()
		}
		return nil, lost
	}
	if err != nil {
		return nil, err
	}
	w := &reader{f: s.Faults, inner: rc, archive: r.Archive, at: off, breakAt: -1}
	switch v {
	case breakRead:
		w.breakAt = off + size/2
	case flipRead:
		w.flips = append(w.flips, off+size/2)
	}
	s.mu.Lock()
	w.flips = append(w.flips, s.rot[r.Archive]...)
	s.mu.Unlock()
	return w, nil
}

func (s *store) CreateUpload(ctx context.Context, a coldstore.NewArchive, partSize int64) (coldstore.Upload, error) {
	v, err := s.begin("CreateUpload", a.Name)
	if err != nil {
		return coldstore.Upload{}, err
	}
	u, err := s.inner.CreateUpload(ctx, a, partSize)
	if err == nil {
		s.mu.Lock()
		s.names[u.ID] = a.Name
		s.mu.Unlock()
	}
	if err = s.end(v, "CreateUpload", a.Name, err); err != nil {
		return coldstore.Upload{}, err
	}
	return u, nil
}

func (s *store) PutPart(ctx context.Context, uploadID string, off int64, data []byte, hash treehash.Hash) error {
	v, err := s.begin("PutPart", uploadID)
	if err != nil {
		return err
	}
	err = s.inner.PutPart(ctx, uploadID, off, data, hash)
	if err == nil {
		s.mu.Lock()
		s.sent = append(s.sent, Sent{Upload: uploadID, Name: s.names[uploadID], Offset: off, Size: int64(len(data))})
		s.mu.Unlock()
	}
	return s.end(v, "PutPart", uploadID, err)
}

func (s *store) ListParts(ctx context.Context, uploadID string) ([]coldstore.Part, error) {
	v, err := s.begin("ListParts", uploadID)
	if err != nil {
		return nil, err
	}
	parts, err := s.inner.ListParts(ctx, uploadID)
	if err = s.end(v, "ListParts", uploadID, err); err != nil {
		return nil, err
	}
	return parts, nil
}

func (s *store) CompleteUpload(ctx context.Context, uploadID string, size int64, hash treehash.Hash) (coldstore.Archive, error) {
	v, err := s.begin("CompleteUpload", uploadID)
	if err != nil {
		return coldstore.Archive{}, err
	}
	a, err := s.inner.CompleteUpload(ctx, uploadID, size, hash)
	if err == nil {
		s.mu.Lock()
		if !slices.Contains(s.completed, a.ID) {
			s.completed = append(s.completed, a.ID)
		}
		s.mu.Unlock()
	}
	if err = s.end(v, "CompleteUpload", uploadID, err); err != nil {
		return coldstore.Archive{}, err
	}
	return a, nil
}

func (s *store) AbortUpload(ctx context.Context, uploadID string) error {
	v, err := s.begin("AbortUpload", uploadID)
	if err != nil {
		return err
	}
	return s.end(v, "AbortUpload", uploadID, s.inner.AbortUpload(ctx, uploadID))
}

func (s *store) ListUploads(ctx context.Context, fn func(coldstore.Upload) error) error {
	v, err := s.begin("ListUploads", "uploads")
	if err != nil {
		return err
	}
	return s.end(v, "ListUploads", "uploads", s.inner.ListUploads(ctx, fn))
}

func (s *store) Delete(ctx context.Context, archive string) error {
	v, err := s.begin("Delete", archive)
	if err != nil {
		return err
	}
	err = s.inner.Delete(ctx, archive)
	if err == nil {
		s.mu.Lock()
		s.completed = slices.DeleteFunc(s.completed, func(id string) bool { return id == archive })
		s.mu.Unlock()
	}
	return s.end(v, "Delete", archive, err)
}

// reader delivers what the store's own does, with the faults.
type reader struct {
	f       *Faults
	inner   io.ReadCloser
	archive string
	at      int64   // offset in the archive of the next byte
	breakAt int64   // where it breaks off; -1: nowhere
	flips   []int64 // bytes to flip a bit of
}

func (r *reader) Read(p []byte) (int, error) {
	r.f.mu.Lock()
	dead := r.f.dead
	r.f.mu.Unlock()
	if dead {
		return 0, fmt.Errorf("read %s: %w", r.archive, ErrDead)
	}
	if r.breakAt >= 0 {
		left := r.breakAt - r.at
		if left <= 0 && len(p) > 0 {
			kind := r.f.fault.Err
			if kind == nil {
				kind = io.ErrUnexpectedEOF
			}
			return 0, fmt.Errorf("read %s: %w: %w", r.archive, ErrLost, kind)
		}
		p = p[:min(int64(len(p)), left)]
	}
	n, err := r.inner.Read(p)
	for _, off := range r.flips {
		if i := off - r.at; i >= 0 && i < int64(n) {
			p[i] ^= 1
		}
	}
	r.at += int64(n)
	r.f.mu.Lock()
	r.f.read[r.archive] += int64(n)
	r.f.mu.Unlock()
	return n, err
}

func (r *reader) Close() error { return r.inner.Close() }

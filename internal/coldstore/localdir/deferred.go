package localdir

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"time"

	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/internal/durable"
	"github.com/firn-backup/firn/treehash"
)

// Waiting for the disk at every part takes a tenth of the time of a backup, which never goes on with
// the parts of an interrupted upload (docs/adr/0085). So its parts are written, the system is asked to
// bring them to the disk, and all are synced at once before the archive is completed.

// loose is what this process knows of parts that were put deferred.
type loose struct {
	// data stays open from the first deferred part to the flush: an error of the system's own writing is
	// told to those who had the file open then.
	data *os.File
	// direct is the same file, written to past the system's cache; nil: the file system does not do that.
	direct *durable.Direct
	parts  map[int64]coldstore.Part
	since  time.Time
}

// What is deferred is flushed now and then, so that what is known of it stays small, and so that
// Tidy of another process sees that the upload is worked at.
const (
	maxLoose   = 1024 // parts
	flushLoose = time.Hour
)

// PutPartDeferred is coldstore.PartDeferrer's.
func (s *Store) PutPartDeferred(ctx context.Context, uploadID string, off int64, data []byte) ([]treehash.Hash, error) {
	leaves := treehash.Leaves(data)
	full, err := s.putLoose(ctx, uploadID, coldstore.Part{Offset: off, Size: int64(len(data)), TreeHash: treehash.Combine(leaves)}, data)
	if err == nil && full {
		err = s.flush(ctx, uploadID)
	}
	if err != nil {
		return nil, fmt.Errorf("put part at %d of upload %s: %w", off, uploadID, err)
	}
	return leaves, nil
}

// putLoose writes a part and remembers it. full says that it is time for a flush.
func (s *Store) putLoose(ctx context.Context, id string, p coldstore.Part, data []byte) (full bool, err error) {
	if err := ctx.Err(); err != nil {
		return false, err
	}
	u, log, err := s.openUpload(ctx, id, durable.Shared)
	if err != nil {
		return false, err
	}
	defer log.Close()
	if err := u.checkPart(p.Offset, p.Size); err != nil {
		return false, err
	}
	u.use.RLock()
	defer u.use.RUnlock()
	one := u.lockPart(p.Offset)
	defer one.Unlock()
	if _, logged := u.part(p.Offset); logged { // what the log says of it must not become untrue
		return false, s.putLocked(u, log, p, data)
	}
	f, direct, err := s.looseData(u)
	if err != nil {
		return false, err
	}
	u.withdraw(p.Offset)
	if err := writeLoose(f, direct, data, p.Offset); err != nil {
		return false, err
	}
	s.at("deferred part in the cache")
	return u.remember(p, s.now()), nil
}

// writeLoose writes past the cache what can be written so, and the rest through it.
func writeLoose(f *os.File, direct *durable.Direct, data []byte, off int64) error {
	done := 0
	if direct != nil {
		var err error
		if done, err = direct.WriteAt(data, off); err != nil && !errors.Is(err, errors.ErrUnsupported) {
			return err
		}
	}
	if done == len(data) {
		return nil
	}
	rest, off := data[done:], off+int64(done)
	if _, err := f.WriteAt(rest, off); err != nil {
		return err
	}
	durable.BeginSync(f, off, int64(len(rest)))
	return nil
}

// looseData is the open data file of an upload's deferred parts, through the cache and, or nil, past it.
func (s *Store) looseData(u *upload) (*os.File, *durable.Direct, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.loose != nil {
		return u.loose.data, u.loose.direct, nil
	}
	name := s.uploadData(u.head.Upload)
	f, err := os.OpenFile(name, os.O_WRONLY, 0)
	if isAbsent(err) { // ended, or its completion has begun
		err = s.notFound()
	}
	if err != nil {
		return nil, nil, err
	}
	direct, err := durable.OpenDirect(name)
	if err != nil && !errors.Is(err, errors.ErrUnsupported) {
		f.Close()
		return nil, nil, err
	}
	u.loose = &loose{data: f, direct: direct, parts: map[int64]coldstore.Part{}, since: s.now()}
	return f, direct, nil
}

// remember notes a deferred part. full says that it is time for a flush.
func (u *upload) remember(p coldstore.Part, now time.Time) (full bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.loose == nil { // ended meanwhile, as the flush will say
		return true
	}
	u.loose.parts[p.Offset] = p
	return len(u.loose.parts) >= maxLoose || now.Sub(u.loose.since) >= flushLoose
}

// withdraw forgets a deferred part that is about to be overwritten.
func (u *upload) withdraw(off int64) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.loose != nil {
		delete(u.loose.parts, off)
	}
}

// deferring says that there are deferred parts.
func (u *upload) deferring() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.loose != nil
}

// drop closes what deferred parts have open, and forgets them.
func (u *upload) drop() {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.loose != nil {
		u.loose.data.Close() // what it holds is synced, or given up
		if u.loose.direct != nil {
			u.loose.direct.Close()
		}
		u.loose = nil
	}
}

// FlushParts is coldstore.PartDeferrer's.
func (s *Store) FlushParts(ctx context.Context, uploadID string) error {
	if err := s.flush(ctx, uploadID); err != nil {
		return fmt.Errorf("flush parts of upload %s: %w", uploadID, err)
	}
	return nil
}

// flush syncs the data and then tells the log of the parts in it: the order that all parts keep.
func (s *Store) flush(ctx context.Context, id string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	u, log, err := s.openUpload(ctx, id, durable.Shared)
	if err != nil {
		return err
	}
	defer log.Close()
	u.use.Lock() // no part is on its way
	defer u.use.Unlock()
	u.mu.Lock()
	l := u.loose
	u.mu.Unlock()
	if l == nil {
		return nil
	}
	if err := durable.SyncData(l.data); err != nil {
		// What the system could not write it may have dropped: no second try finds it.
		u.drop()
		return err
	}
	s.at("deferred parts synced")
	for _, off := range slices.Sorted(maps.Keys(l.parts)) {
		p := l.parts[off]
		if err := appendLine(log, logLine{Part: &off, Size: p.Size, Hash: p.TreeHash, At: s.now()}); err != nil {
			return err
		}
	}
	s.at("deferred parts in the log")
	u.drop()
	return u.refresh(log)
}

var _ coldstore.PartDeferrer = (*Store)(nil)

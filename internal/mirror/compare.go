package mirror

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/firn-backup/firn/internal/catalog"
	"github.com/firn-backup/firn/internal/itemstore"
	"github.com/firn-backup/firn/internal/snapshot"
	"github.com/firn-backup/firn/internal/source"
	"github.com/firn-backup/firn/treehash"
)

// local hashes a file that a strange archive may be of; ok is false where it cannot be.
func (r *run) local(ctx context.Context, name string, size int64) (h treehash.Hash, ok bool) {
	open := r.dir.Opener(name)
	if e, err := itemstore.StatFile(open); err != nil || e.Size != size {
		return h, false
	}
	h, _, _, err := itemstore.HashFile(ctx, open, itemstore.HashBuffer(), r.o.Items.Wall, r.o.Observe.Read)
	return h, err == nil
}

// rel is the path of an entry below the directory.
func (r *run) rel(path string) string {
	root := strings.TrimPrefix(r.o.Dir, "/")
	if root == "" {
		return path
	}
	if len(path) <= len(root) {
		return ""
	}
	return path[len(root)+1:]
}

// rows reads the current versions, one after the other.
func (r *run) rows(ctx context.Context) iter.Seq2[catalog.Item, error] {
	return func(yield func(catalog.Item, error) bool) {
		stop := errors.New("stop")
		err := r.stored(ctx, false, func(i catalog.Item) error {
			if !yield(i, nil) {
				return stop
			}
			return nil
		})
		if err != nil && !errors.Is(err, stop) {
			yield(catalog.Item{}, err)
		}
	}
}

// compare walks the directory beside the catalog, both in the order of paths.
func (r *run) compare(ctx context.Context) error {
	var st unix.Stat_t
	if err := unix.Stat(r.o.Dir, &st); err != nil {
		return fmt.Errorf("%s: %w", r.o.Dir, err)
	}
	r.device = placeOf(r.o.Dir, st.Dev, 0, place{device: st.Dev})
	next, stop := iter.Pull2(r.rows(ctx))
	defer stop()
	row, err, more := next()
	if err != nil {
		return err
	}
	group, gctx := errgroup.WithContext(ctx)
	group.SetLimit(r.o.Workers)
	buffers := sync.Pool{New: func() any { b := itemstore.HashBuffer(); return &b }}
	werr := r.o.Tree.Walk(gctx, func(items []source.Item) error {
		for k := range items {
			e := &items[k].Entry
			rel := r.rel(e.Path)
			if items[k].Err != nil {
				r.problem(e.Path, items[k].Err)
				r.blind = append(r.blind, rel)
				continue
			}
			for more && snapshot.ComparePaths(row.Path, rel) < 0 {
				r.missing(row)
				if row, err, more = next(); err != nil {
					return err
				}
			}
			switch e.Type {
			case snapshot.Dir:
				at := r.device
				if rel != "" {
					_, above := r.nearest(rel)
					at = placeOf("/"+e.Path, e.Dev, unix.AT_SYMLINK_NOFOLLOW, above)
				}
				r.bands[rel] = at
			case snapshot.File:
				var old *catalog.Item
				if more && row.Path == rel {
					mine := row
					old = &mine
				}
				if err := r.file(gctx, group, &buffers, *e, rel, old); err != nil {
					return err
				}
			default:
				r.res.Left++
			}
			if more && row.Path == rel {
				if e.Type != snapshot.File {
					r.missing(row)
				}
				if row, err, more = next(); err != nil {
					return err
				}
			}
		}
		r.o.Observe.Looking(r.res.Files)
		return nil
	})
	gerr := group.Wait()
	if err := errors.Join(werr, gerr); err != nil {
		return err
	}
	for more {
		r.missing(row)
		if row, err, more = next(); err != nil {
			return err
		}
	}
	slices.SortFunc(r.res.Upload, func(a, b Change) int { return snapshot.ComparePaths(a.Path, b.Path) })
	return r.remember(ctx, true)
}

// file decides about a file that is there.
func (r *run) file(ctx context.Context, group *errgroup.Group, buffers *sync.Pool, e snapshot.Entry, rel string, old *catalog.Item) error {
	r.res.Files++
	r.res.Bytes += e.Size
	c := Change{Kind: New, Path: rel, Size: e.Size, mount: r.mount(rel)}
	if old == nil {
		r.upload(c)
		return nil
	}
	r.count(*old, false)
	c.Kind = Changed
	if old.Mounted && !r.o.AllowShrunk {
		c.was = old.Mount
		_, c.hides = r.unmounted(Change{Path: rel, mount: c.was})
	}
	state := itemstore.FileState(&e, r.o.Items.Wall())
	switch {
	case !old.Deleted.IsZero():
		c.Kind = Lost
		r.upload(c)
		return nil
	case old.Plain == e.Size && state == old.State && state != [32]byte{} && !r.o.Checksum:
		if now := *old; now.Mounted != (c.mount != "") || now.Mount != c.mount {
			now.Mounted, now.Mount = c.mount != "", c.mount
			return r.unchanged(ctx, now, false)
		}
		r.mu.Lock()
		r.res.Unchanged++
		r.mu.Unlock()
		return nil
	case old.Plain != e.Size && !old.Bare:
		r.upload(c)
		return nil
	}
	group.Go(func() error {
		buf := buffers.Get().(*[]byte)
		defer buffers.Put(buf)
		return r.read(ctx, rel, *buf, *old, c)
	})
	return nil
}

// read compares a file by its tree hash.
func (r *run) read(ctx context.Context, rel string, buf []byte, old catalog.Item, c Change) error {
	h, now, at, err := itemstore.HashFile(ctx, r.dir.Opener(rel), buf, r.o.Items.Wall, r.o.Observe.Read)
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.Is(err, itemstore.ErrChanged):
		r.upload(c) // it is looked at again when it is stored
		return nil
	case err != nil:
		r.problem(rel, err)
		return nil
	}
	r.mu.Lock()
	r.res.Read++
	r.mu.Unlock()
	same, learn := h == old.PlainHash, old.Bare && old.Compress != "none"
	if learn { // only the archive's own hash is known
		if same, err = r.sameArchive(ctx, rel, old, c.Size); err != nil {
			return err
		}
	}
	if !same {
		r.upload(c)
		return nil
	}
	old.Plain, old.PlainHash = now.Size, h
	old.State, old.Bare = itemstore.FileState(&now, at), false
	old.Mode, old.UID, old.GID, old.MTime = now.Mode, now.UID, now.GID, now.MTime
	if r.o.Names != nil {
		old.User, old.Group = r.o.Names(old.UID, old.GID)
	}
	old.Mounted, old.Mount = c.mount != "", c.mount
	return r.unchanged(ctx, old, learn)
}

// unchanged notes a file whose contents are what is stored, and of which something else has changed. What is noted is written down
// as soon as it is much. learnt says that its hash was not known either.
func (r *run) unchanged(ctx context.Context, i catalog.Item, learnt bool) error {
	r.mu.Lock()
	r.res.Unchanged++
	if learnt {
		r.learnt = append(r.learnt, i)
	} else {
		r.seen = append(r.seen, i)
	}
	full := len(r.seen) >= pieceOfRows || len(r.learnt) >= pieceOfRows
	r.mu.Unlock()
	if full {
		return r.remember(ctx, false)
	}
	return nil
}

// sameArchive says whether a file would become the archive that is stored of it.
func (r *run) sameArchive(ctx context.Context, rel string, old catalog.Item, size int64) (bool, error) {
	p := itemstore.FilePiece(old, size, r.dir.Opener(rel), r.o.Items.Wall, nil, nil)
	same, err := itemstore.SameArchive(ctx, r.o.Items, p, old)
	switch {
	case ctx.Err() != nil:
		return false, context.Cause(ctx)
	case errors.Is(err, itemstore.ErrChanged), errors.Is(err, itemstore.ErrSource):
		return false, nil // it is looked at again when it is stored
	}
	return same, err
}

// pieceOfRows is how many rows are written down at a time.
const pieceOfRows = 1000

// remember writes down what was found unchanged under other metadata.
func (r *run) remember(ctx context.Context, all bool) error {
	r.mu.Lock()
	take := func(list *[]catalog.Item) (taken []catalog.Item) {
		if all || len(*list) >= pieceOfRows {
			taken, *list = *list, nil
		}
		return taken
	}
	seen, learnt := take(&r.seen), take(&r.learnt)
	r.mu.Unlock()
	if !r.o.Commit {
		return nil
	}
	if len(learnt) > 0 {
		if err := r.o.Items.Catalog.PutItems(ctx, learnt); err != nil {
			return err
		}
	}
	if len(seen) == 0 {
		return nil
	}
	return r.o.Items.Catalog.ItemsSeen(ctx, seen)
}

func (r *run) upload(c Change) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if c.hides && c.Kind == Changed {
		c.mount, c.mounted = c.was, true
		r.hidden = append(r.hidden, c)
		return
	}
	r.res.Upload = append(r.res.Upload, c)
}

// missing notes a file that is stored and was not met.
func (r *run) missing(i catalog.Item) {
	for _, b := range r.blind {
		if b == "" || snapshot.Below(i.Path, b) {
			return
		}
	}
	r.count(i, true)
	c := r.deletion(Gone, i)
	c.mount, c.mounted, c.bare, c.lost = i.Mount, i.Mounted, i.Bare, !i.Deleted.IsZero()
	r.gone = append(r.gone, c)
}

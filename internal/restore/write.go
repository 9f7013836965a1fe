package restore

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/firn-backup/firn/internal/catalog"
	"github.com/firn-backup/firn/internal/extract"
	"github.com/firn-backup/firn/internal/snapshot"
)

// write puts everything on disk: directories, then all that has no content, then files in
// the order in which they are stored, then the directories' own metadata.
func (r *run) write(ctx context.Context) error {
	if err := r.openRoot(true); err != nil {
		return err
	}
	parents, err := r.parents(ctx)
	if err != nil {
		return err
	}
	blocked, err := r.makeDirs(ctx, parents)
	if err != nil {
		return err
	}
	if err := r.writeContents(ctx); err != nil {
		return err
	}
	if err := r.finishDirs(ctx, parents, blocked); err != nil {
		return err
	}
	return r.root.Sync()
}

// parents are the directories above what was asked for, in path order, as
// far as the snapshot has them.
func (r *run) parents(ctx context.Context) ([]snapshot.Entry, error) {
	var paths []string
	for _, p := range r.sel.under() {
		for i := strings.LastIndexByte(p, '/'); i >= 0; i = strings.LastIndexByte(p, '/') {
			p = p[:i]
			paths = append(paths, p)
		}
	}
	slices.SortFunc(paths, snapshot.ComparePaths)
	var all []snapshot.Entry
	for _, p := range slices.Compact(paths) {
		e, err := r.first(ctx, p)
		if err != nil {
			return nil, err
		}
		if e != nil && e.Path == p && e.Type == snapshot.Dir {
			all = append(all, *e)
		}
	}
	return all, nil
}

// dir calls fn with e under its name on disk.
func (r *run) dir(e *snapshot.Entry, fn func(*snapshot.Entry) error) error {
	target, ok, err := r.sel.target(e)
	if err != nil || !ok {
		return err
	}
	there := *e
	there.Path = target
	return fn(&there)
}

// makeDirs makes the selected directories, and those above selected entries. blocked says that some could not be made.
func (r *run) makeDirs(ctx context.Context, parents []snapshot.Entry) (blocked bool, err error) {
	made := func(e *snapshot.Entry, fn func(*snapshot.Entry) error) error {
		err := r.dir(e, fn)
		if err == nil {
			return nil
		}
		blocked = true
		return r.failed(e.Path, err)
	}
	for i := range parents {
		if err := made(&parents[i], r.root.Parent); err != nil {
			return blocked, err
		}
	}
	var above []snapshot.Entry // unselected directories down to here, not made yet
	q := catalog.Query{Under: r.sel.under()}
	err = r.o.Catalog.Entries(ctx, r.snap.ID, q, func(e snapshot.Entry) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		for len(above) > 0 && !snapshot.Below(e.Path, above[len(above)-1].Path) {
			above = above[:len(above)-1]
		}
		if !r.sel.has(e.Path) {
			if e.Type == snapshot.Dir {
				above = append(above, e)
			}
			return nil
		}
		for i := range above {
			if err := made(&above[i], r.root.Parent); err != nil {
				return err
			}
		}
		above = above[:0]
		if e.Type == snapshot.Dir {
			return made(&e, r.root.Mkdir)
		}
		return nil
	})
	return blocked, err
}

// finishDirs gives the directories their metadata, those below before those above.
func (r *run) finishDirs(ctx context.Context, parents []snapshot.Entry, blocked bool) error {
	finish := func(e *snapshot.Entry, fn func(*snapshot.Entry) error) error {
		err := r.dir(e, fn)
		if err == nil || blocked && errors.Is(err, extract.ErrBlocked) {
			return nil // the latter was reported when it could not be made
		}
		return r.failed(e.Path, err)
	}
	last := "" // the selected path met last
	q := catalog.Query{Under: r.sel.under(), Order: catalog.ByPathDesc}
	err := r.o.Catalog.Entries(ctx, r.snap.ID, q, func(e snapshot.Entry) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		selected := r.sel.has(e.Path)
		if selected {
			last = e.Path
		}
		switch {
		case e.Type != snapshot.Dir:
			return nil
		case selected:
			if err := finish(&e, r.root.FinishDir); err != nil {
				return err
			}
			r.res.Dirs++
			r.o.Observe.Entry(e.Path, 0, false)
			return nil
		case last != "" && snapshot.Below(last, e.Path):
			return finish(&e, r.root.FinishParent)
		}
		return nil
	})
	if err != nil {
		return err
	}
	for i := range parents {
		if err := finish(&parents[len(parents)-1-i], r.root.FinishParent); err != nil {
			return err
		}
	}
	return nil
}

package verify

import (
	"context"
	"io"

	"github.com/firn-backup/firn/internal/catalog"
	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/internal/failure"
	"github.com/firn-backup/firn/internal/retrieval"
	"github.com/firn-backup/firn/treehash"
)

// expectItems gathers what the catalog knows of a set of single archives: every version that was not deleted, and the indexes.
func (r *run) expectItems(ctx context.Context, setID string) error {
	err := r.o.Catalog.ItemArchives(ctx, r.o.Vault, []string{setID}, func(i catalog.Item) error {
		r.put(i.Archive.Archive, expected{set: i.SetID, made: i.Stored, size: i.Archive.Size, hash: i.Archive.TreeHash, needed: true})
		if i.Until == 0 {
			r.res.Items++
		}
		return nil
	})
	if err != nil {
		return err
	}
	runs, err := r.o.Catalog.ItemRuns(ctx, setID)
	if err != nil {
		return err
	}
	for _, run := range runs {
		if run.Vault == r.o.Vault && run.Index.Archive != "" && !run.IndexGone {
			r.put(run.Index.Archive, expected{set: setID, snap: run.ID, made: run.At, size: run.Index.Size, hash: run.Index.TreeHash, needed: true})
		}
	}
	list, err := r.o.Catalog.ItemUploads(ctx, setID)
	for _, u := range list {
		r.put(u.Name, expected{set: setID, made: u.Begun, size: u.Size, hash: u.TreeHash})
	}
	return err
}

// eachItem calls fn for every single archive that is to be read back.
func (r *run) eachItem(ctx context.Context, fn func(i catalog.Item) error) error {
	for _, id := range r.sets {
		err := r.o.Catalog.ItemArchives(ctx, r.o.Vault, []string{id}, func(i catalog.Item) error {
			if !r.there(i.Archive.Archive) {
				return nil // reported
			}
			return fn(i)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// readItems reads single archives back, and compares the tree hash of what is in them.
func (r *run) readItems(ctx context.Context, desk *retrieval.Desk) error {
	return r.eachItem(ctx, func(i catalog.Item) error {
		err := r.readItem(ctx, desk, i)
		switch {
		case err == nil:
			r.o.Observe.Archive(i.Archive.Archive, i.Archive.Size, true)
			r.res.Files++
		case retrieval.IsDamage(err):
			r.found(Finding{Kind: Damaged, Archive: i.Archive.Archive, Set: i.SetID, Path: i.Path, Reason: retrieval.Reason(err)})
		default:
			return err
		}
		return nil
	})
}

func (r *run) readItem(ctx context.Context, desk *retrieval.Desk, i catalog.Item) error {
	rt, err := desk.Ask(ctx, i.Archive.Archive, coldstore.Range{})
	if err != nil {
		return err
	}
	size := i.Archive.Size
	if e := r.expected[i.Archive.Archive]; size == 0 && e != nil {
		size = e.size // of what another program stored, the listing tells it
	}
	rc, err := desk.OpenWhole(ctx, rt, size, i.Archive.TreeHash, i.Compress, i.Encrypt)
	if err != nil {
		return err
	}
	defer rc.Close()
	sum := treehash.New()
	if _, err := io.CopyBuffer(struct{ io.Writer }{sum}, struct{ io.Reader }{rc}, make([]byte, 1<<20)); err != nil {
		return err
	}
	if !i.PlainHash.IsZero() && (sum.Size() != i.Plain || sum.Sum() != i.PlainHash) {
		return failure.Errorf(failure.Damaged, "%d bytes of tree hash %s came out of it, and not %d of %s", sum.Size(), sum.Sum(), i.Plain, i.PlainHash)
	}
	return nil
}

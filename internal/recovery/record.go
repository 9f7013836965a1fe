package recovery

import (
	"context"
	"crypto/ed25519"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/firn-backup/firn/internal/catalog"
	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/internal/failure"
	"github.com/firn-backup/firn/internal/manifest"
)

// record reads a manifest into the catalog. A problem says why it was not
// recorded; an error ends the run. want, unless zero, is the hash it must have.
func (r *run) record(ctx context.Context, set *manifest.ListedSet, s *manifest.ListedSnapshot, a coldstore.Archive, want manifest.Hash) (*Problem, error) {
	err := r.tryRecord(ctx, set, s, a, want)
	if err == nil {
		r.res.Recovered++
		return nil, nil
	}
	k, ok := kindOf(err)
	if !ok || ctx.Err() != nil {
		return nil, fmt.Errorf("recover snapshot %s: %w", s.ID, err)
	}
	p := Problem{Kind: k}
	var f *refusal
	if errors.As(err, &f) {
		p = f.Problem
	}
	p.Archive, p.Set, p.Snapshot = a.ID, set.ID, s.ID
	p.Reason = fmt.Sprintf("manifest of snapshot %s: %v", s.ID, err)
	return &p, nil
}

func (r *run) tryRecord(ctx context.Context, set *manifest.ListedSet, s *manifest.ListedSnapshot, a coldstore.Archive, want manifest.Hash) error {
	m, c, err := r.open(ctx, a)
	if err != nil {
		return err
	}
	defer c.Close()
	h := m.Header()
	if err := checkPlace(&h, set, s, a); err != nil {
		return err
	}
	kept, made, err := r.putSet(ctx, &h)
	if err != nil {
		return err
	}
	others, err := r.adopt(ctx, kept, &h)
	var chain []uint64
	var base *catalog.Snapshot
	if err == nil {
		chain, base, err = r.checkBase(ctx, &h)
	}
	if err != nil {
		if cerr := r.takeBack(ctx, &h, made, others); cerr != nil {
			return fmt.Errorf("%w (after %v)", cerr, err)
		}
		return err
	}
	err = r.makeRoom(ctx, &h)
	if err == nil {
		err = r.o.Catalog.Begin(ctx, catalog.Snapshot{
			ID: h.Snap, SetID: h.SetID, N: h.N, Kind: h.Kind, Base: h.Base, At: h.At, Made: h.Made,
			State: catalog.Running, Header: h, Params: marker, Vault: r.o.Vault,
		})
	}
	if err == nil {
		err = r.fill(ctx, m, a, chain, base, want)
	}
	if err != nil {
		if cerr := r.takeBack(ctx, &h, made, others); cerr != nil {
			return fmt.Errorf("%w (after %v)", cerr, err)
		}
		return err
	}
	if made {
		if kept, err = r.takeName(ctx, kept, &h); err != nil {
			return err
		}
	}
	for _, id := range append(others, h.Snap) {
		snap, err := r.o.Catalog.Snapshot(ctx, id)
		if err != nil {
			return err
		}
		r.o.Observe.Recovered(kept, snap)
	}
	r.res.Recovered += len(others)
	return nil
}

// takeBack removes what an unsuccessful attempt left in the catalog.
func (r *run) takeBack(ctx context.Context, h *manifest.Header, madeSet bool, others []string) error {
	s, err := r.o.Catalog.Snapshot(ctx, h.Snap)
	if err == nil && s.State == catalog.Running && s.Params == marker {
		_, err = r.o.Catalog.Discard(ctx, h.Snap)
	}
	if err != nil && failure.KindOf(err) != failure.NotFound {
		return err
	}
	for _, id := range slices.Backward(others) {
		if err := r.o.Catalog.DropSnapshot(ctx, id); err != nil {
			return err
		}
	}
	if !madeSet {
		return nil
	}
	snaps, err := r.o.Catalog.Snapshots(ctx, h.SetID)
	if err != nil || len(snaps) > 0 {
		return err
	}
	return r.o.Catalog.RemoveSet(ctx, h.SetID)
}

// fill reads a manifest to its end into the attempt that was begun, and makes it a snapshot
// if signature, signer and all else are right.
func (r *run) fill(ctx context.Context, m *manifest.Reader, a coldstore.Archive, chain []uint64, base *catalog.Snapshot, want manifest.Hash) error {
	h := m.Header()
	w, err := r.o.Catalog.EntryWriter(ctx, h.Snap)
	if err != nil {
		return err
	}
	t := counting{r: r, base: base, stream: h.IsStream()}
	missing, err := r.records(ctx, m, w, &t, chain)
	if cerr := w.Close(ctx); err == nil {
		err = cerr
	}
	if err != nil {
		return err
	}
	signer := m.Signer()
	trusted := slices.ContainsFunc(r.o.Signers, func(k ed25519.PublicKey) bool { return k.Equal(signer) })
	switch {
	case !trusted && !r.o.TrustAny:
		return &refusal{Problem{Kind: Untrusted, Signer: signer, Reason: "it is signed by a key that is not trusted, " + hex.EncodeToString(signer)}}
	case want != (manifest.Hash{}) && m.Hash() != want:
		return refuse(other, "it is not the one that the next snapshot builds on")
	case t.volumes > 0 && t.gone == t.volumes:
		// A copy of its manifest was left behind, or is in a listing that is older than its deletion.
		return refuse(Unusable, "the vault has none of its %d volumes: it was deleted", t.volumes)
	}
	totals, err := t.totals(ctx, h.Snap, a.Size)
	if err != nil {
		return err
	}
	if !trusted {
		if err := r.o.Catalog.Trust(ctx, signer, "of manifests recovered from "+r.o.Vault); err != nil {
			return err
		}
	}
	ref := catalog.ArchiveRef{Archive: a.ID, Size: a.Size, TreeHash: a.TreeHash, Stored: a.Created.UTC()}
	if err := r.o.Catalog.FinishStored(ctx, h.Snap, m.Hash(), ref, totals); err != nil {
		return err
	}
	for _, p := range missing {
		r.problem(p)
	}
	return nil
}

// records puts all that a manifest says into the catalog. missing are volumes that are
// not in the vault as it says.
func (r *run) records(ctx context.Context, m *manifest.Reader, w *catalog.EntryWriter, t *counting, chain []uint64) (missing []Problem, err error) {
	h := m.Header()
	for {
		rec, err := m.Next()
		if err == io.EOF {
			return missing, nil
		}
		if err != nil {
			return nil, err
		}
		switch {
		case rec.Volume != nil:
			t.volume(rec.Volume)
			reason := r.checkVolume(rec.Volume)
			if _, ok := r.archives[rec.Volume.Archive]; !ok {
				t.gone++
			}
			if reason != "" && len(missing) < Sample {
				missing = append(missing, Problem{
					Kind: Missing, Archive: rec.Volume.Archive, Set: h.SetID, Snapshot: h.Snap,
					Reason: fmt.Sprintf("volume %d of snapshot %s, archive %s: %s", rec.Volume.N, h.Snap, rec.Volume.Archive, reason),
				})
			}
			err = r.o.Catalog.PutVolume(ctx, h.Snap, rec.Volume)
		case rec.Entry != nil:
			e := rec.Entry
			if n := e.Content.N; n != 0 && n != h.N && !slices.Contains(chain, n) {
				return nil, refuse(Damaged, "the content of %q is in a snapshot that is not of its chain", e.Path)
			}
			if err = t.put(ctx, e); err == nil {
				err = w.Put(ctx, e)
			}
		case rec.Deleted != nil:
			if err = t.delete(ctx, *rec.Deleted); err == nil {
				err = w.Delete(ctx, *rec.Deleted)
			}
		case rec.Problem != nil:
			t.t.Problems++
			err = w.Problem(ctx, *rec.Problem)
		}
		if err != nil {
			return nil, err
		}
	}
}

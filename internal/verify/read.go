package verify

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/firn-backup/firn/internal/catalog"
	"github.com/firn-backup/firn/internal/codec"
	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/internal/failure"
	"github.com/firn-backup/firn/internal/manifest"
	"github.com/firn-backup/firn/internal/retrieval"
	"github.com/firn-backup/firn/internal/snapshot"
	"github.com/firn-backup/firn/internal/units"
)

// readAll asks for everything, and reads it back, snapshot by snapshot.
func (r *run) readAll(ctx context.Context) error {
	desk := retrieval.New(retrieval.Options{
		Store: r.o.Store, Traits: r.o.Lister.Traits(), Journal: r.o.Catalog, Vault: r.o.Vault, Codecs: r.o.Codecs, Now: r.o.Now,
		Tier: r.o.Tier, Days: r.o.Days, Wait: r.o.Wait, Poll: r.o.Poll, Transfer: r.o.Transfer,
		Approve: r.o.Approve, Pace: r.o.Pace, Once: true,
		Read:    func(n int64) { r.read.Add(n); r.o.Observe.Read(n) },
		Waiting: r.o.Observe.Waiting,
		Damaged: r.read.Damage,
	})
	if !r.o.Lister.Traits().Warm {
		for _, s := range r.snaps {
			if err := r.ask(ctx, desk, s); err != nil {
				return err
			}
		}
		if err := r.eachItem(ctx, func(i catalog.Item) error {
			return desk.Want(ctx, i.Archive.Archive, coldstore.Range{}, i.Archive.Size)
		}); err != nil {
			return err
		}
		// What the vault does not have is met again when it is read.
		if err := desk.Order(ctx, func(string, error) error { return nil }); err != nil {
			return err
		}
		if err := desk.Ready(ctx); err != nil {
			return err
		}
	}
	for _, s := range r.snaps {
		if s.Adopted != "" {
			if err := r.readAdopted(ctx, desk, s); err != nil {
				return err
			}
			continue
		}
		if err := r.readManifest(ctx, desk, s); err != nil {
			return err
		}
		if err := r.readVolumes(ctx, desk, s); err != nil {
			return err
		}
	}
	return r.readItems(ctx, desk)
}

// there says whether an archive is to be asked for: it was in the listing, or is newer than that.
func (r *run) there(archive string) bool {
	e := r.expected[archive]
	return e != nil && (e.seen || e.unsure)
}

func (r *run) ask(ctx context.Context, desk *retrieval.Desk, s catalog.Snapshot) error {
	ask := func(archive string) error {
		if !r.there(archive) {
			return nil // reported
		}
		return desk.Want(ctx, archive, coldstore.Range{}, r.expected[archive].size)
	}
	if s.Adopted == "" {
		if err := ask(s.ManifestPart.Archive); err != nil {
			return err
		}
	}
	return r.eachVolume(ctx, s.ID, func(v *manifest.Volume) error { return ask(v.Archive) })
}

// readAdopted reads what another program stored, as far as that can be compared with anything.
func (r *run) readAdopted(ctx context.Context, desk *retrieval.Desk, s catalog.Snapshot) error {
	v, err := r.o.Catalog.Volume(ctx, s.ID, 1)
	if err != nil {
		return err
	}
	if !r.there(v.Archive) {
		return nil // reported
	}
	e := r.expected[v.Archive]
	if v.Size == 0 {
		v.Size = e.size
	}
	err = readChecked(ctx, desk, &v, &s)
	switch {
	case err == nil:
		r.o.Observe.Archive(v.Archive, v.Size, true)
		r.res.Files++
	case retrieval.IsDamage(err):
		r.found(Finding{Kind: Damaged, Archive: v.Archive, Set: s.SetID, Snapshot: s.ID, Volume: 1, Reason: retrieval.Reason(err)})
	default:
		return err
	}
	return nil
}

func readChecked(ctx context.Context, desk *retrieval.Desk, v *manifest.Volume, s *catalog.Snapshot) error {
	in, err := desk.OpenAdopted(ctx, v, &s.Header)
	if err != nil {
		return err
	}
	defer in.Close() // it was only read
	for {
		if _, err := in.Next(); err != nil {
			if err == io.EOF {
				return nil
			}
			return err
		}
	}
}

// readManifest reads a manifest, and compares its hash and signer.
func (r *run) readManifest(ctx context.Context, desk *retrieval.Desk, s catalog.Snapshot) error {
	if !r.there(s.ManifestPart.Archive) {
		return nil
	}
	err := r.checkManifest(ctx, desk, s)
	if err == nil {
		r.o.Observe.Archive(s.ManifestPart.Archive, s.ManifestPart.Size, true)
		return nil
	}
	if !retrieval.IsDamage(err) {
		return err
	}
	r.found(Finding{
		Kind: Damaged, Archive: s.ManifestPart.Archive, Set: s.SetID, Snapshot: s.ID, Reason: "the manifest: " + retrieval.Reason(err),
	})
	return nil
}

func (r *run) checkManifest(ctx context.Context, desk *retrieval.Desk, s catalog.Snapshot) error {
	rt, err := desk.Ask(ctx, s.ManifestPart.Archive, coldstore.Range{})
	if err != nil {
		return err
	}
	rc, err := desk.OpenWhole(ctx, rt, s.ManifestPart.Size, s.ManifestPart.TreeHash, s.Header.Compress, s.Header.Encrypt)
	if err != nil {
		return err
	}
	defer rc.Close()
	m, err := manifest.NewReader(rc)
	if err != nil {
		return err
	}
	for {
		_, err := m.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
	}
	switch {
	case m.Hash() != s.ManifestHash:
		return failure.Errorf(failure.Damaged, "it is another one than the catalog has")
	case len(r.o.Signers) > 0 && !slices.ContainsFunc(r.o.Signers, func(k ed25519.PublicKey) bool { return k.Equal(m.Signer()) }):
		return failure.Errorf(failure.Damaged, "it is signed by a key that is not trusted")
	}
	return nil
}

// volumes reads the volumes of one snapshot, one after the other.
type volumes struct {
	r      *run
	desk   *retrieval.Desk
	s      catalog.Snapshot
	opener retrieval.Opener

	n   int // at hand; 0: none
	v   manifest.Volume
	x   *retrieval.Volume
	bad error // why it cannot be read at all
}

// readVolumes reads the volumes of a snapshot, and compares the contents that it stored.
func (r *run) readVolumes(ctx context.Context, desk *retrieval.Desk, s catalog.Snapshot) error {
	opener, err := r.o.Codecs.Opener(&s.Header)
	if err != nil {
		return err
	}
	w := &volumes{r: r, desk: desk, s: s, opener: opener}
	defer w.close()
	var last snapshot.Content
	var fault error
	err = r.o.Catalog.Entries(ctx, s.ID, catalog.Query{Order: catalog.ByContent}, func(e snapshot.Entry) error {
		if e.Content.N != s.N {
			return nil
		}
		if e.Content != last {
			last = e.Content
			open := func(vol int) (*retrieval.Volume, int64, error) { return w.open(ctx, vol) }
			fault = retrieval.ReadContent(ctx, &e.Content, open, func([]byte) error { return nil })
			if fault != nil && !w.isDamage(fault) {
				return fault
			}
		}
		r.res.Files++
		if fault != nil {
			r.found(Finding{
				Kind: Damaged, Archive: w.v.Archive, Set: s.SetID, Snapshot: s.ID, Volume: w.n, Path: e.Path, Reason: retrieval.Reason(fault),
			})
		}
		return nil
	})
	if err != nil {
		return err
	}
	// To the end, volumes without any content too.
	for {
		_, _, err := w.open(ctx, w.n+1)
		if errors.Is(err, errNoVolume) {
			return w.leave()
		}
		if err != nil && !w.isDamage(err) {
			return err
		}
	}
}

// isDamage counts it as damage too that an archive which is seen to be damaged does not
// open with the keys at hand: its header is what is damaged.
func (w *volumes) isDamage(err error) bool {
	return retrieval.IsDamage(err) || errors.Is(err, codec.ErrNoKey) && w.r.read.DamagedIn(w.v.Archive)
}

var errNoVolume = fmt.Errorf("%w: the catalog has no such volume", codec.ErrDamaged)

// open goes on to a volume, through those before it. Going back opens it anew.
func (w *volumes) open(ctx context.Context, vol int) (*retrieval.Volume, int64, error) {
	for w.n != vol {
		next := w.n + 1
		if vol < w.n {
			next = vol
		}
		v, err := w.r.o.Catalog.Volume(ctx, w.s.ID, next)
		if failure.KindOf(err) == failure.NotFound {
			return nil, 0, errNoVolume
		}
		if err != nil {
			return nil, 0, err
		}
		if err := w.leave(); err != nil {
			return nil, 0, err
		}
		w.n, w.v = next, v
		w.x, w.bad = nil, fmt.Errorf("archive %s: %w", v.Archive, coldstore.ErrNotFound)
		if w.r.there(v.Archive) {
			w.x, w.bad = w.desk.Open(ctx, &w.v, retrieval.All(&w.v), w.opener)
		}
		if w.bad != nil && !retrieval.IsDamage(w.bad) {
			return nil, 0, w.bad
		}
	}
	return w.x, w.v.Raw, w.bad
}

// leave reads the volume at hand to its end, and reports what damage was seen in it.
func (w *volumes) leave() error {
	if w.n == 0 {
		return nil
	}
	fault := w.bad
	if w.x != nil {
		fault = w.x.Finish()
		if fault != nil && !w.isDamage(fault) {
			return fault
		}
		w.close()
	}
	f := Finding{Kind: Damaged, Archive: w.v.Archive, Set: w.s.SetID, Snapshot: w.s.ID, Volume: w.n}
	leaves, more := w.r.read.TakeDamages()
	switch {
	case len(leaves) > 0:
		d := leaves[0]
		f.Reason = fmt.Sprintf("bytes %d to %d do not have the hash that the manifest gives", d.Offset, d.Offset+d.Size-1)
		if n := len(leaves) - 1 + more; n > 0 {
			f.Reason += ", nor do " + units.Count(n, "more piece")
		}
		w.r.found(f)
	case fault != nil && w.r.there(w.v.Archive):
		f.Reason = retrieval.Reason(fault)
		w.r.found(f)
	case fault == nil:
		w.r.o.Observe.Archive(w.v.Archive, w.v.Size, true)
	}
	return nil
}

func (w *volumes) close() {
	if w.x != nil {
		w.x.Close()
		w.x = nil
	}
}

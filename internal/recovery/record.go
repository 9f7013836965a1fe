package recovery

import (
	"context"
	"crypto/ed25519"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/firn-backup/firn/internal/catalog"
	"github.com/firn-backup/firn/internal/codec"
	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/internal/failure"
	"github.com/firn-backup/firn/internal/manifest"
	"github.com/firn-backup/firn/internal/retrieval"
	"github.com/firn-backup/firn/internal/snapshot"
	"github.com/firn-backup/firn/treehash"
)

type run struct {
	o        Options
	desk     *retrieval.Desk
	archives map[string]coldstore.Archive // all of the vault's, by id
	wanted   int
	read     atomic.Int64
	res      Result
}

// refusal is why a manifest is not recorded, as opposed to errors that end the run.
type refusal struct {
	Problem
}

func (f *refusal) Error() string { return f.Reason }

func refuse(k Kind, format string, args ...any) error {
	return &refusal{Problem{Kind: k, Reason: fmt.Sprintf(format, args...)}}
}

// kindOf sorts an error of reading a manifest; ok is false for one that ends the run.
func kindOf(err error) (k Kind, ok bool) {
	var f *refusal
	switch {
	case errors.As(err, &f):
		return f.Kind, true
	case errors.Is(err, codec.ErrNoKey):
		return NoKey, true
	case retrieval.IsDamage(err):
		return Damaged, true
	case strings.Contains(err.Error(), "needs a newer Firn"):
		return Newer, true
	}
	return "", false
}

func (r *run) skippable(err error) bool {
	_, ok := kindOf(err)
	return ok
}

// open opens the manifest in an archive, as far as its header.
func (r *run) open(ctx context.Context, a coldstore.Archive) (*manifest.Reader, io.Closer, error) {
	compress, encrypt, err := codecsOf(a)
	if err != nil {
		return nil, nil, err
	}
	rt, err := r.desk.Ask(ctx, a.ID, coldstore.Range{})
	if err != nil {
		return nil, nil, err
	}
	if !rt.Ready {
		return nil, nil, fmt.Errorf("archive %s: %w", a.ID, coldstore.ErrNotReady)
	}
	rc, err := r.desk.OpenWhole(ctx, rt, a.Size, a.TreeHash, compress, encrypt)
	if err != nil {
		return nil, nil, err
	}
	m, err := manifest.NewReader(rc)
	if err != nil {
		rc.Close()
		return nil, nil, err
	}
	return m, rc, nil
}

// codecsOf tells how a manifest is packed: its description does, or else the endings of its name.
func codecsOf(a coldstore.Archive) (compress, encrypt string, err error) {
	compress, encrypt = "none", "none"
	if d, ok := manifest.ParseDescription(a.Description); ok && len(d.Codecs) > 0 {
		for _, c := range d.Codecs { // what does nothing is not among them
			switch c {
			case "none":
			case "zstd", "gzip", "bzip2":
				compress = c
			case "age", "openpgp":
				encrypt = c
			default:
				return "", "", refuse(Newer, "archive %s: how it is packed is not known: %s", a.ID, c)
			}
		}
		return compress, encrypt, nil
	}
	_, ends, _ := strings.Cut(a.ID[strings.LastIndexByte(a.ID, '/')+1:], ".jsonl")
	for end := range strings.SplitSeq(strings.TrimPrefix(ends, "."), ".") {
		switch end {
		case "":
		case "zst":
			compress = "zstd"
		case "gz":
			compress = "gzip"
		case "bz2":
			compress = "bzip2"
		case "age":
			encrypt = "age"
		case "gpg":
			encrypt = "openpgp"
		default:
			return "", "", refuse(Newer, "archive %s: how it is packed is not known", a.ID)
		}
	}
	return compress, encrypt, nil
}

// peek reads a manifest's header, which proves nothing yet.
func (r *run) peek(ctx context.Context, a coldstore.Archive) (manifest.Header, error) {
	m, c, err := r.open(ctx, a)
	if err != nil {
		return manifest.Header{}, err
	}
	defer c.Close()
	return m.Header(), nil
}

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

// checkPlace holds a header against where the manifest was found, so that one
// that is right cannot stand for another.
func checkPlace(h *manifest.Header, set *manifest.ListedSet, s *manifest.ListedSnapshot, a coldstore.Archive) error {
	if h.SetID != set.ID || h.Snap != s.ID || s.N != 0 && h.N != s.N {
		return refuse(Damaged, "it is that of snapshot %s, number %d of set %s, and stands in its place", h.Snap, h.N, h.SetID)
	}
	if d, ok := manifest.ParseDescription(a.Description); ok {
		if want := manifest.Describe(h, 0).String(); a.Description != want && (d.SetID != h.SetID || d.Snap != h.Snap ||
			d.N != h.N || d.Kind != h.Kind || d.Base != h.Base || !d.At.Equal(h.At)) {
			return refuse(Damaged, "it contradicts the description of its archive")
		}
	}
	if d, ok := manifest.ParseName(a.ID); ok && (d.SetID != h.SetID || d.Snap != h.Snap) {
		return refuse(Damaged, "it contradicts the name of its archive")
	}
	if h.Stream != "tar" && !h.IsStream() {
		return refuse(Newer, "its stream is of kind %q: it needs a newer Firn", h.Stream)
	}
	return nil
}

// checkBase finds the snapshots that a manifest builds on.
func (r *run) checkBase(ctx context.Context, h *manifest.Header) (chain []uint64, base *catalog.Snapshot, err error) {
	if h.Kind == snapshot.Full {
		return nil, nil, nil
	}
	b, err := r.o.Catalog.Snapshot(ctx, h.Base)
	switch {
	case failure.KindOf(err) == failure.NotFound || err == nil && b.State != catalog.Stored:
		return nil, nil, refuse(Unusable, "its base, snapshot %s, could not be recovered", h.Base)
	case err != nil:
		return nil, nil, err
	case b.SetID != h.SetID || b.N >= h.N && b.Adopted == "" || b.ManifestHash != h.BaseHash:
		return nil, nil, refuse(Damaged, "it builds on another version of its base, snapshot %s", h.Base)
	}
	all, err := r.o.Catalog.Snapshots(ctx, h.SetID)
	if err != nil {
		return nil, nil, err
	}
	for _, s := range all {
		if s.Chain != b.Chain || s.State != catalog.Stored {
			continue
		}
		if s.N > b.N && !h.IsStream() { // streams of one chain need not be in a row
			return nil, nil, refuse(Conflict, "the catalog has snapshot %s built on the same base", s.ID)
		}
		chain = append(chain, s.N)
	}
	return chain, &b, nil
}

// makeRoom looks for what stands in the way: the remains of an interrupted
// recovery are removed, all else stays.
func (r *run) makeRoom(ctx context.Context, h *manifest.Header) error {
	all, err := r.o.Catalog.Snapshots(ctx, h.SetID)
	if err != nil {
		return err
	}
	for _, s := range all {
		switch {
		case s.State == catalog.Running && s.Params == marker:
			if _, err := r.o.Catalog.Discard(ctx, s.ID); err != nil {
				return err
			}
		case s.State == catalog.Running:
			return refuse(Conflict, "an interrupted backup of the set is in the catalog: finish it first")
		case s.N == h.N && s.Adopted == "":
			return refuse(Conflict, "another snapshot of the set, %s, has the number %d too", s.ID, h.N)
		}
	}
	return nil
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

// checkVolume holds a volume against the vault's listing.
func (r *run) checkVolume(v *manifest.Volume) string {
	a, ok := r.archives[v.Archive]
	switch {
	case !ok:
		return "it is not in the vault"
	case a.Size != v.Size:
		return fmt.Sprintf("it has %d bytes and not %d", a.Size, v.Size)
	case !a.TreeHash.IsZero() && a.TreeHash != treehash.Hash(v.TreeHash):
		return "it has another tree hash"
	}
	return ""
}

// counting sums up what a snapshot holds. For an incremental, what changes is looked up in its
// base; when that is much, the whole tree is counted in the end instead.
type counting struct {
	r       *run
	base    *catalog.Snapshot // nil: a full one
	stream  bool              // a producer's: no entries, and as large as it is
	t       catalog.Totals
	lookups int
	count   bool // the tree at the end

	volumes, gone int // of the snapshot, and those that the vault does not have
}

// maxLookups is how many changes are looked up, at some milliseconds each at worst.
const maxLookups = 500

func (c *counting) volume(v *manifest.Volume) {
	c.volumes++
	c.t.Raw += v.Raw
	c.t.Stored += v.Size
}

func (c *counting) put(ctx context.Context, e *snapshot.Entry) error {
	c.t.Changed++
	c.t.Entries++
	c.t.Bytes += e.Size
	return c.without(ctx, e.Path)
}

func (c *counting) delete(ctx context.Context, path string) error {
	c.t.Deleted++
	return c.without(ctx, path)
}

var errFound = errors.New("found")

// without takes off what the base has at path.
func (c *counting) without(ctx context.Context, path string) error {
	if c.base == nil || c.count {
		return nil
	}
	if c.lookups++; c.lookups > maxLookups {
		c.count = true
		return nil
	}
	err := c.r.o.Catalog.Entries(ctx, c.base.ID, catalog.Query{Under: []string{path}}, func(e snapshot.Entry) error {
		if e.Path == path {
			c.t.Entries--
			c.t.Bytes -= e.Size
		}
		return errFound
	})
	if errors.Is(err, errFound) {
		return nil
	}
	return err
}

func (c *counting) totals(ctx context.Context, snap string, manifestSize int64) (catalog.Totals, error) {
	c.t.Stored += manifestSize
	switch {
	case c.stream:
		c.t.Bytes = c.t.Raw
	case c.base == nil:
	case !c.count:
		c.t.Entries += c.base.Totals.Entries
		c.t.Bytes += c.base.Totals.Bytes
	default:
		c.t.Entries, c.t.Bytes = 0, 0
		rows, err := c.r.o.Catalog.Rows(ctx, snap, "")
		if err != nil {
			return c.t, err
		}
		defer rows.Close()
		for {
			row, err := rows.Next(ctx)
			if err != nil || row == nil {
				return c.t, err
			}
			c.t.Entries++
			c.t.Bytes += row.Size
		}
	}
	return c.t, nil
}

package restore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/firn-backup/firn/internal/catalog"
	"github.com/firn-backup/firn/internal/codec"
	"github.com/firn-backup/firn/internal/failure"
	"github.com/firn-backup/firn/internal/manifest"
	"github.com/firn-backup/firn/internal/retrieval"
	"github.com/firn-backup/firn/internal/sendstream"
)

// StreamOptions say what stream to restore, and who takes it. Of the Options, those are used that say how the vault is
// asked; Paths, To, Strip, Overwrite, NumericOwner and Gap are not.
type StreamOptions struct {
	Options
	// Take gets the streams of the chain, the full one first and Snapshot's last, one call each. It reads r to io.EOF,
	// which comes only when every byte is what was stored: the last frame of a volume is held back until all of that volume is
	// compared. With any other error what it took is worth nothing.
	Take func(ctx context.Context, s *catalog.Snapshot, r io.Reader) error
}

// StreamResult is what came of it.
type StreamResult struct {
	Chain    []catalog.Snapshot // from the full one to the one that was asked for
	Archives int                // to be read
	ToRead   int64              // bytes of them
	Raw      int64              // bytes of the streams altogether
	Taken    int                // so many of Chain were taken
	Read     int64              // bytes read from the vault
}

// StreamChain are the snapshots that must be received one after the other to get one of all, the full one first.
func StreamChain(ctx context.Context, db *catalog.DB, id string) ([]catalog.Snapshot, error) {
	var chain []catalog.Snapshot
	for id != "" {
		s, err := db.Snapshot(ctx, id)
		if failure.KindOf(err) == failure.NotFound && len(chain) > 0 {
			return nil, failure.Errorf(failure.Damaged, "snapshot %s builds on snapshot %s, which the catalog does not have", chain[len(chain)-1].ID, id)
		}
		if err != nil {
			return nil, err
		}
		if slices.ContainsFunc(chain, func(x catalog.Snapshot) bool { return x.ID == s.ID }) {
			return nil, failure.Errorf(failure.Damaged, "snapshot %s builds on itself", s.ID)
		}
		if s.State != catalog.Stored {
			return nil, failure.Errorf(failure.NotFound, "snapshot %s is not stored", id)
		}
		// What another program stored has no order by number.
		if len(chain) > 0 && s.N >= chain[len(chain)-1].N && s.Adopted == "" {
			return nil, failure.Errorf(failure.Damaged, "snapshot %s builds on a later one, %s", chain[len(chain)-1].ID, s.ID)
		}
		chain = append(chain, s)
		id = s.Base
	}
	slices.Reverse(chain)
	return chain, nil
}

// RunStream restores a stream, through its whole chain. The result is good with every error, whose kinds are those of Run.
func RunStream(ctx context.Context, o StreamOptions) (StreamResult, error) {
	r := &streamRun{o: o}
	if o.Catalog == nil || o.Now == nil || !o.DryRun && (o.Store == nil || o.Take == nil) {
		return r.res, errors.New("restore: an option is missing")
	}
	if r.o.Observe == nil {
		r.o.Observe = silent{}
	}
	err := r.all(ctx)
	r.res.Read = r.read.Bytes()
	return r.res, retrieval.Explain(err)
}

type streamRun struct {
	o       StreamOptions
	res     StreamResult
	desk    *retrieval.Desk
	openers []retrieval.Opener // one a snapshot of the chain
	vols    [][]manifest.Volume
	read    retrieval.Tally
}

func (r *streamRun) all(ctx context.Context) error {
	if err := r.plan(ctx); err != nil || r.o.DryRun {
		return err
	}
	o := r.o
	r.desk = retrieval.New(retrieval.Options{
		Store: o.Store, Traits: o.Traits, Journal: o.Catalog, Vault: r.res.Chain[0].Vault, Codecs: o.Codecs, Now: o.Now,
		Tier: o.Tier, Days: o.Days, Wait: o.Wait, Poll: o.Poll, Transfer: o.Transfer,
		Approve: o.Approve, Pace: o.Pace,
		Read:    func(n int64) { r.read.Add(n); o.Observe.Read(n) },
		Waiting: o.Observe.Waiting,
		Damaged: r.read.Damage,
	})
	for i := range r.vols {
		for _, v := range r.vols[i] {
			if err := r.desk.Want(ctx, v.Archive, retrieval.Whole(retrieval.All(&v)[0].Range, v.Size), v.Size); err != nil {
				return err
			}
		}
	}
	if err := r.desk.Order(ctx, nil); err != nil {
		return err
	}
	if err := r.desk.Ready(ctx); err != nil {
		return err
	}
	for i := range r.res.Chain {
		if err := r.take(ctx, i); err != nil {
			return fmt.Errorf("snapshot %s: %w", r.res.Chain[i].ID, err)
		}
		r.res.Taken++
	}
	return nil
}

// plan finds the chain, what is to be read of it, and whether the keys at hand open it.
func (r *streamRun) plan(ctx context.Context) error {
	var err error
	if r.res.Chain, err = StreamChain(ctx, r.o.Catalog, r.o.Snapshot); err != nil {
		return err
	}
	for i := range r.res.Chain {
		s := &r.res.Chain[i]
		if !s.Header.IsStream() || s.Vault != r.res.Chain[0].Vault {
			return failure.Errorf(failure.Damaged, "snapshot %s does not belong to this chain", s.ID)
		}
		opener, err := r.o.Codecs.Opener(&s.Header)
		if err != nil {
			return err
		}
		vols, err := r.o.Catalog.Volumes(ctx, s.ID)
		if err != nil {
			return err
		}
		if len(vols) == 0 {
			return failure.Errorf(failure.Damaged, "snapshot %s has no volumes", s.ID)
		}
		for j := range vols {
			if _, err := opener.CanOpen(&vols[j]); err != nil && !r.o.DryRun {
				return failure.Wrap(failure.NoKey, err)
			}
			r.res.Archives++
			r.res.ToRead += vols[j].Size
			r.res.Raw += vols[j].Raw
			r.o.Observe.Range(vols[j].Archive, retrieval.All(&vols[j])[0].Range)
			// The rest, which may be long, is looked up when it is read.
			if s.Adopted != "" && vols[j].Size == 0 {
				return failure.Errorf(failure.Failed, "the size of archive %s is not known: firn vault sync %s asks the vault for it", vols[j].Archive, s.Vault)
			}
			vols[j] = manifest.Volume{N: vols[j].N, Archive: vols[j].Archive, Size: vols[j].Size, Raw: vols[j].Raw}
		}
		r.openers, r.vols = append(r.openers, opener), append(r.vols, vols)
	}
	r.o.Observe.Planned(Plan{Files: int64(len(r.res.Chain)), Bytes: r.res.Raw, Archives: r.res.Archives, Ranges: r.res.Archives, Read: r.res.ToRead})
	return nil
}

// take gives one stream to whoever takes it.
func (r *streamRun) take(ctx context.Context, i int) error {
	s := &r.res.Chain[i]
	in := &streamReader{ctx: ctx, r: r, i: i, check: sendstream.NewChecker(sendstream.Format(s.Header.Stream))}
	defer in.close()
	err := r.o.Take(ctx, s, in)
	switch {
	case in.err != nil && in.err != io.EOF:
		return in.err // what became of that elsewhere does not matter
	case err != nil:
		return err
	case in.err == nil:
		return errors.New("the stream was not read to its end")
	}
	r.o.Observe.Entry(s.ID, s.Totals.Raw, false)
	return nil
}

// streamReader reads the stream of one snapshot.
type streamReader struct {
	ctx   context.Context
	r     *streamRun
	i     int
	next  int // volume, into r.vols[i]
	v     manifest.Volume
	x     *retrieval.Volume // v's; nil: none is open
	off   int64
	buf   []byte // checked, and not read yet
	held  []byte // the memory of a volume's last frame
	check *sendstream.Checker
	err   error

	whole *retrieval.Checked // of what another program stored; nil: it is not open
}

func (s *streamReader) close() {
	if s.whole != nil {
		s.whole.Close()
		s.whole = nil
	}
	if s.x != nil {
		s.x.Close()
		s.x = nil
	}
}

func (s *streamReader) Read(p []byte) (int, error) {
	for len(s.buf) == 0 && s.err == nil {
		s.err = s.fill()
	}
	n := copy(p, s.buf)
	s.buf = s.buf[n:]
	if n > 0 {
		return n, nil
	}
	return 0, s.err
}

// fill gets the next frame.
func (s *streamReader) fill() error {
	if err := s.ctx.Err(); err != nil {
		return err
	}
	if s.r.res.Chain[s.i].Adopted != "" {
		return s.fillAdopted()
	}
	vols := s.r.vols[s.i]
	if s.x == nil {
		if s.next == len(vols) {
			return io.EOF
		}
		var err error
		// With its leaves, which the list has not.
		if s.v, err = s.r.o.Catalog.Volume(s.ctx, s.r.res.Chain[s.i].ID, vols[s.next].N); err != nil {
			return err
		}
		s.x, err = s.r.desk.Open(s.ctx, &s.v, retrieval.All(&s.v), s.r.openers[s.i])
		if err != nil {
			return err
		}
		s.next, s.off = s.next+1, 0
	}
	b, err := s.x.At(s.off)
	if err != nil {
		return err
	}
	s.off += int64(len(b))
	if s.off == s.v.Raw {
		s.held = append(s.held[:0], b...)
		b = s.held
		if err := s.endVolume(); err != nil {
			return err
		}
	}
	if _, err := s.check.Write(b); err != nil {
		return fmt.Errorf("archive %s: %w: %w", s.v.Archive, codec.ErrDamaged, err)
	}
	if s.x == nil && s.next == len(vols) {
		if err := s.check.End(); err != nil {
			return fmt.Errorf("archive %s: %w: %w", s.v.Archive, codec.ErrDamaged, err)
		}
	}
	s.buf = b
	return nil
}

// endVolume compares all of a volume, before its last bytes are let go.
func (s *streamReader) endVolume() error {
	err := s.x.Finish()
	s.close()
	if err == nil && s.r.read.DamagedIn(s.v.Archive) {
		err = fmt.Errorf("archive %s: %w: it does not have the hashes of the manifest", s.v.Archive, codec.ErrDamaged)
	}
	return err
}

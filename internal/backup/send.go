package backup

import (
	"bufio"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/firn-backup/firn/internal/catalog"
	"github.com/firn-backup/firn/internal/sendstream"
	"github.com/firn-backup/firn/internal/source"
	"github.com/firn-backup/firn/internal/volume"
)

// StreamOptions say what stream to back up. Source is needed, and of the Options what RunStream's comment says.
type StreamOptions struct {
	Options
	Source source.Stream

	// Base is the id of the stored snapshot to build on, any of the set. Empty: the newest, unless
	// Full or Incrementals say otherwise. Of a stream that names its base itself the two must agree.
	Base string
	At   time.Time // the data's date; zero: the point's

	// KeepLocal is how long the producer's own points stay; those that a coming incremental builds on stay anyway.
	KeepLocal time.Duration
	Notice    func(string) // what people should know; may be nil
}

// ErrEmptyStream says that a producer wrote nothing.
var ErrEmptyStream = errors.New("the stream is empty: nothing is stored")

// ErrWrongBase says that a stream does not build on what it was meant to.
var ErrWrongBase = errors.New("the stream does not fit what is stored")

// ErrOtherStream says that a stream which cannot be had again is not the one whose beginning is stored.
var ErrOtherStream = errors.New("this is not the stream whose beginning is stored: run it once more, and it is stored anew")

// sent is what the stream of an attempt is.
type sent struct {
	format         sendstream.Format
	point, pointID string
	at             time.Time
}

// streamEnded is the state of the checkpoint of the last volume of a stream that ended well.
const streamEnded = "ended"

// RunStream makes one snapshot of what a producer writes. Of o.Options, Tree, Paths, Readers, AllowEmpty and Checksum are not used.
//
// The snapshot exists only if the producer said that all went well and the stream has its end marker, where its
// format has one. A failure leaves an attempt in the catalog if a volume was stored: the next run has the producer send the same point
// again, and skips what is stored if it has the same SHA-256. What is different begins a new attempt.
//
// A result without a Snapshot and without an error says that there is nothing new: the newest point is stored already.
// Points of the producer's own are removed once a newer one is stored; that one of them could not be is told to Notice.
func RunStream(ctx context.Context, o StreamOptions) (Result, error) {
	if o.Source == nil || o.Signer == nil || o.Store == nil {
		return Result{}, errors.New("backup: an option is missing")
	}
	if err := o.checkAll(false); err != nil {
		return Result{}, err
	}
	if o.Notice == nil {
		o.Notice = func(string) {}
	}
	res, err := sendOnce(ctx, &o)
	if errors.Is(err, errOther) { // the attempt is abandoned
		next, nerr := sendOnce(ctx, &o)
		next.Orphans = append(res.Orphans, next.Orphans...)
		return next, nerr
	}
	if err != nil || !res.Resumed || !o.Source.Traits().Points {
		return res, err
	}
	// What was interrupted is stored as it was then. Now what is different since.
	o.Full, o.Incrementals, o.Base = false, 0, ""
	late, err := sendOnce(ctx, &o)
	if late.Snapshot.ID == "" && err == nil {
		return res, nil
	}
	late.Resumed = true
	late.Settled = append(res.Settled, res.Snapshot.ID)
	late.Orphans = append(res.Orphans, late.Orphans...)
	late.Volumes += res.Volumes
	late.Sent += res.Sent
	return late, err
}

// errOther ends a run whose producer does not write again what is stored.
var errOther = errors.New("the producer writes other bytes than before")

// sender is one run of sendOnce.
type sender struct {
	*run
	o      *StreamOptions
	snaps  []catalog.Snapshot
	points []source.Point
	point  source.Point
	made   bool // point was made by this run
	from   *source.Point
	info   sendstream.Info
	resume *catalog.Snapshot
	old    *catalog.Snapshot // the attempt that there is; nil: none
	params string
}

func sendOnce(ctx context.Context, o *StreamOptions) (Result, error) {
	s := &sender{run: &run{o: &o.Options}, o: o, params: o.Params}
	err := s.all(ctx)
	if err != nil && s.made && s.point.Own && !s.recorded(ctx) {
		// Nobody will ask for this point again.
		if rerr := o.Source.Release(context.WithoutCancel(ctx), s.point); rerr != nil {
			o.Notice(fmt.Sprintf("snapshot %s could not be removed: %v", s.point.Name, rerr))
		}
	}
	return s.res, err
}

// recorded says that the attempt at the point is in the catalog and stays there.
func (s *sender) recorded(ctx context.Context) bool {
	if s.snap.ID == "" {
		return false
	}
	ctx = context.WithoutCancel(ctx)
	vols, verr := s.o.Catalog.Volumes(ctx, s.snap.ID)
	pending, perr := s.o.Catalog.PendingOf(ctx, s.snap.ID)
	if verr != nil || perr != nil || len(vols)+len(pending) > 0 {
		return true
	}
	// An attempt that has stored nothing is not worth remembering.
	_, err := s.o.Catalog.Discard(ctx, s.snap.ID)
	return err != nil
}

func (s *sender) all(ctx context.Context) error {
	var err error
	if s.snaps, err = s.settleAll(ctx); err != nil {
		return err
	}
	if err := s.finishEnded(ctx); err != nil {
		return err
	}
	if i := slices.IndexFunc(s.snaps, func(x catalog.Snapshot) bool { return x.State == catalog.Running }); i >= 0 {
		s.old = &s.snaps[i]
	}
	if s.points, err = s.o.Source.Points(ctx); err != nil {
		return err
	}
	if s.o.Source.Traits().Points {
		if done, err := s.choosePoint(ctx); done || err != nil {
			return err
		}
	} else if s.point, err = s.o.Source.Make(ctx, s.o.Now()); err != nil {
		return err
	}
	if err := s.baseThere(ctx); err != nil {
		return err
	}
	rc, err := s.o.Source.Open(ctx, s.point, s.from)
	if err != nil {
		return err
	}
	defer rc.Close()
	in := bufio.NewReaderSize(rc, 256<<10)
	if err := s.inspect(in); err != nil {
		return err
	}
	if err := s.attempt(ctx); err != nil {
		return err
	}
	if err := s.copy(ctx, in); err != nil {
		if errors.Is(err, errOther) {
			if derr := s.discard(ctx, s.snap.ID); derr != nil {
				return derr
			}
			s.snap.ID = ""
			if !s.o.Source.Traits().Again {
				return ErrOtherStream
			}
		}
		return err
	}
	if err := s.storeManifest(ctx); err != nil {
		return err
	}
	s.tidy(ctx)
	return nil
}

// finishEnded stores the manifest of an attempt whose stream had ended well.
func (s *sender) finishEnded(ctx context.Context) error {
	for i := range s.snaps {
		x := &s.snaps[i]
		if x.State != catalog.Running || x.Vault != s.o.Set.Vault || !strings.HasPrefix(x.Params, s.o.Params) {
			continue
		}
		check, err := s.o.Catalog.CheckpointOf(ctx, x.ID)
		if err != nil {
			return err
		}
		if whole, err := s.attemptThere(ctx, x.ID); err != nil || !whole || string(check.State) != streamEnded {
			return err
		}
		f := &run{o: s.run.o, snap: *x}
		if err := f.goOnWith(ctx); err != nil {
			return err
		}
		if err := f.storeManifest(ctx); err != nil {
			return err
		}
		s.res.Settled = append(s.res.Settled, x.ID)
		*x = f.res.Snapshot
	}
	return nil
}

// goOnWith takes an attempt up again.
func (r *run) goOnWith(ctx context.Context) error {
	if err := r.resume(ctx); err != nil {
		return err
	}
	var err error
	r.w, err = r.o.Catalog.EntryWriter(ctx, r.snap.ID)
	return err
}

// attempt goes on with the attempt that there is, or begins one.
func (s *sender) attempt(ctx context.Context) error {
	if a := s.old; s.resume == nil && a != nil && !s.o.Source.Traits().Points {
		base := ""
		if s.base != nil {
			base = s.base.ID
		}
		whole, err := s.attemptThere(ctx, a.ID)
		if err != nil {
			return err
		}
		if whole && a.Params == s.params && a.Vault == s.o.Set.Vault && a.Base == base && (s.o.At.IsZero() || s.o.At.Equal(a.At)) {
			s.resume = a
		}
	}
	if s.old != nil && s.resume == nil {
		if err := s.discard(ctx, s.old.ID); err != nil {
			return err
		}
	}
	s.sent = &sent{format: s.info.Format, point: s.point.Name, pointID: s.point.ID, at: s.point.At.UTC()}
	if s.sent.pointID == "" {
		s.sent.pointID = s.info.ID
	}
	if !s.o.At.IsZero() {
		s.sent.at = s.o.At.UTC()
	}
	if s.resume != nil {
		s.snap = *s.resume
		if err := s.goOnWith(ctx); err != nil {
			return err
		}
	} else {
		var n uint64
		for _, x := range s.snaps {
			n = max(n, x.N)
		}
		params := s.run.o.Params
		s.run.o.Params = s.params
		err := s.begin(ctx, n+1)
		s.run.o.Params = params
		if err != nil {
			return err
		}
		if s.w, err = s.o.Catalog.EntryWriter(ctx, s.snap.ID); err != nil {
			return err
		}
	}
	s.res.Snapshot = s.snap
	return nil
}

// copy stores the stream, after what is stored of it already was met again.
func (s *sender) copy(ctx context.Context, in *bufio.Reader) error {
	check := sendstream.NewChecker(s.info.Format)
	if err := s.skip(ctx, in, check); err != nil {
		return err
	}
	cks := &checkpoints{}
	w := volume.NewWriter(ctx, volume.Options{
		Size: s.volumeSize(), FrameSize: s.o.FrameSize, First: s.check.Volume + 1, Workers: s.o.Workers, HashRaw: true,
		NoVerify: s.o.NoVerify, Compress: s.o.Compress, Encrypt: s.o.Encrypt,
		Open: s.openVolume(cks), OnCut: func(n int) { cks.put(n, catalog.Checkpoint{}) },
	})
	if err := s.pass(in, check, w); err != nil {
		w.Abort()
		return err
	}
	last, off := w.Pos()
	if off == 0 {
		last--
	}
	cks.put(last, catalog.Checkpoint{State: []byte(streamEnded)})
	return w.Close()
}

// skip reads what is stored already, and compares its SHA-256.
func (s *sender) skip(ctx context.Context, in io.Reader, check *sendstream.Checker) error {
	if s.check.Volume == 0 {
		return nil
	}
	vols, err := s.o.Catalog.Volumes(ctx, s.snap.ID)
	if err != nil {
		return err
	}
	for _, v := range vols {
		h := sha256.New()
		n, err := io.CopyN(io.MultiWriter(h, check), in, v.Raw)
		switch {
		case errors.Is(err, io.EOF) && n < v.Raw, errors.Is(err, sendstream.ErrMalformed):
			return errOther
		case err != nil:
			return err
		case v.RawSHA256 == nil || [32]byte(h.Sum(nil)) != *v.RawSHA256:
			return errOther
		}
		s.o.Observe.Read(n)
	}
	return nil
}

// pass reads the stream to its end, which it must have.
func (s *sender) pass(in io.Reader, check *sendstream.Checker, w *volume.Writer) error {
	buf := make([]byte, 256<<10)
	for {
		n, err := in.Read(buf)
		if n > 0 {
			if _, cerr := check.Write(buf[:n]); cerr != nil {
				return cerr
			}
			if _, werr := w.Write(buf[:n]); werr != nil {
				return werr
			}
			s.o.Observe.Read(int64(n))
		}
		if errors.Is(err, io.EOF) {
			return check.End()
		}
		if err != nil {
			return err
		}
	}
}

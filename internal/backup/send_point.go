package backup

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"path"
	"slices"
	"time"

	"github.com/firn-backup/firn/internal/catalog"
	"github.com/firn-backup/firn/internal/failure"
	"github.com/firn-backup/firn/internal/sendstream"
	"github.com/firn-backup/firn/internal/snapshot"
	"github.com/firn-backup/firn/internal/source"
)

// stored is the newest stored snapshot in the set's vault; nil: none.
func (s *sender) stored() *catalog.Snapshot {
	for i := range slices.Backward(s.snaps) {
		if x := &s.snaps[i]; x.State == catalog.Stored {
			if x.Vault != s.o.Set.Vault {
				return nil
			}
			return x
		}
	}
	return nil
}

func (s *sender) byID(id string) *catalog.Snapshot {
	for i := range s.snaps {
		if s.snaps[i].ID == id && s.snaps[i].State == catalog.Stored && s.snaps[i].Vault == s.o.Set.Vault {
			return &s.snaps[i]
		}
	}
	return nil
}

// local is the point that a snapshot was made of, if it is still there: a snapshot rather than a bookmark of one.
func (s *sender) local(x *catalog.Snapshot) *source.Point {
	if x != nil && x.Adopted != "" {
		return s.dated(x)
	}
	if x == nil || x.Header.PointID == "" {
		return nil
	}
	var found *source.Point
	for i := range s.points {
		if p := &s.points[i]; p.ID == x.Header.PointID && (found == nil || found.BaseOnly) {
			found = p
		}
	}
	return found
}

// dated is the point that another program's snapshot was made of: its date is all that is known of it, so that it must be called that, and have been
// made about then, wherever midnight was. One that was made anew later is another.
func (s *sender) dated(x *catalog.Snapshot) *source.Point {
	day, err := time.Parse(time.DateOnly, x.Header.Point)
	if err != nil {
		return nil
	}
	for i := range s.points {
		p := &s.points[i]
		if age := p.At.Sub(day); !p.Own && path.Base(p.Name) == x.Header.Point && age > -aroundDate && age < 24*time.Hour+aroundDate {
			return p
		}
	}
	return nil
}

// aroundDate is how far from midnight of UTC a day may begin or end.
const aroundDate = 14 * time.Hour

// isStored says that what a point is of is what the newest snapshot is of.
func (s *sender) isStored(newest *catalog.Snapshot, id string) bool {
	if newest == nil {
		return false
	}
	if newest.Adopted != "" {
		p := s.local(newest)
		return p != nil && p.ID == id
	}
	return newest.Header.PointID == id
}

// choosePoint decides what is sent and what it builds on, of a producer with points. done: there is nothing to send.
func (s *sender) choosePoint(ctx context.Context) (done bool, err error) {
	if s.oldGoesOn(ctx) {
		s.point, s.resume = *s.local(s.old), s.old
		if s.base = s.byID(s.old.Base); s.base != nil {
			s.from = s.local(s.base)
		}
		return false, ctx.Err()
	}
	if err := s.chooseBase(); err != nil {
		return false, err
	}
	p, err := s.o.Source.Make(ctx, s.o.Now())
	if err != nil {
		return false, err
	}
	if !p.Own && !s.o.Full && s.isStored(s.stored(), p.ID) {
		return true, nil
	}
	s.point, s.made = p, true
	return false, nil
}

// oldGoesOn says that the attempt that there is can go on, and is what is wanted.
func (s *sender) oldGoesOn(ctx context.Context) bool {
	a := s.old
	if a == nil || a.Params != s.params || a.Vault != s.o.Set.Vault || !s.o.At.IsZero() && !s.o.At.Equal(a.At) {
		return false
	}
	p := s.local(a)
	if p == nil || p.BaseOnly {
		return false
	}
	if a.Kind == snapshot.Incremental {
		if s.o.Full || s.o.Base != "" && s.o.Base != a.Base || s.local(s.byID(a.Base)) == nil {
			return false
		}
	}
	whole, err := s.attemptThere(ctx, a.ID)
	return err == nil && whole
}

// chooseBase decides what a new snapshot builds on.
func (s *sender) chooseBase() error {
	base := s.stored()
	if s.o.Base != "" {
		if base = s.byID(s.o.Base); base == nil {
			return failure.Errorf(failure.NotFound, "snapshot %s, to build on, is not in the vault of set %s", s.o.Base, s.o.Set.Name)
		}
	} else if base != nil && s.o.Incrementals > 0 && chainLength(s.snaps, base.ChainN) > s.o.Incrementals {
		base = nil
	}
	if base == nil || s.o.Full {
		return nil
	}
	if base.Header.Stream != string(s.o.Source.Traits().Format) {
		s.o.Notice(fmt.Sprintf("set %s: its last snapshot is of another kind, %s: a full snapshot is made", s.o.Set.Name, base.Header.Stream))
		return nil
	}
	if s.from = s.local(base); s.from == nil {
		s.o.Notice(fmt.Sprintf("set %s: %s, which the last backup (snapshot %s) was made of, is not on this machine any more: a full snapshot is made",
			s.o.Set.Name, base.Header.Point, base.ID))
		return nil
	}
	s.base = base
	return nil
}

// inspect looks at the beginning of the stream, and holds it against what it should be.
func (s *sender) inspect(in *bufio.Reader) error {
	head, err := in.Peek(sendstream.HeadSize)
	if err != nil && err != io.EOF {
		return err
	}
	if len(head) == 0 {
		return fmt.Errorf("set %s: %w", s.o.Set.Name, ErrEmptyStream)
	}
	if s.info, err = sendstream.Inspect(head); err != nil {
		return err
	}
	if s.o.Source.Traits().Points {
		return s.expected()
	}
	sum := sha256.Sum256(head)
	s.params += " head=" + hex.EncodeToString(sum[:])
	return s.baseOfStream()
}

// expected holds what a producer with points sends against what it was asked for.
func (s *sender) expected() error {
	x := s.info
	switch {
	case x.Format != s.o.Source.Traits().Format:
		return fmt.Errorf("%w: a %s stream was asked for, this is %s", ErrWrongBase, s.o.Source.Traits().Format, x.Format)
	case x.Incremental != (s.from != nil):
		return fmt.Errorf("%w: full or incremental is not as it was asked for", ErrWrongBase)
	case s.from != nil && x.BaseID != "" && x.BaseID != s.from.ID:
		return fmt.Errorf("%w: it builds on %s and not on %s", ErrWrongBase, x.BaseID, s.from.ID)
	case x.ID != "" && x.ID != s.point.ID:
		return fmt.Errorf("%w: it is of %s and not of %s", ErrWrongBase, x.ID, s.point.ID)
	}
	return nil
}

// baseOfStream finds what a stream builds on that somebody else produces: it says so itself,
// or the caller does.
func (s *sender) baseOfStream() error {
	switch x := s.info; {
	case x.Format == sendstream.Raw && s.o.Base == "":
		return nil
	case x.Format != sendstream.Raw && !x.Incremental:
		if s.o.Base != "" {
			return fmt.Errorf("%w: an incremental on snapshot %s was expected, and this is a full %s stream", ErrWrongBase, s.o.Base, x.Format)
		}
		return nil
	case s.o.Base == "" && s.o.Full:
		return fmt.Errorf("%w: a full stream was expected, and this %s stream is incremental", ErrWrongBase, x.Format)
	case s.o.Base != "":
		s.base = s.byID(s.o.Base)
		if s.base != nil && x.BaseID != "" && s.base.Header.PointID != "" && x.BaseID != s.base.Header.PointID {
			return fmt.Errorf("%w: it builds on %s, and snapshot %s is of %s", ErrWrongBase, x.BaseID, s.base.ID, s.base.Header.PointID)
		}
	default:
		for i := range s.snaps {
			if y := &s.snaps[i]; x.BaseID != "" && y.Header.PointID == x.BaseID && y.Header.Stream == string(x.Format) && s.byID(y.ID) != nil {
				s.base = y
			}
		}
	}
	if s.base != nil && s.base.Header.Stream != string(s.info.Format) {
		return fmt.Errorf("%w: this is a %s stream, and snapshot %s a %s stream", ErrWrongBase, s.info.Format, s.base.ID, s.base.Header.Stream)
	}
	if s.base == nil {
		return fmt.Errorf("%w: this %s stream is incremental, and what it builds on (%s) is not stored in this set; send a full one", ErrWrongBase, s.info.Format, s.info.BaseID)
	}
	return nil
}

// tidy keeps the point that the next incremental builds on, and gives up the others. The
// snapshot is stored: what goes wrong here is told, and tried again by the next run.
func (s *sender) tidy(ctx context.Context) {
	src := s.o.Source
	if !src.Traits().Points {
		return
	}
	if err := src.Keep(ctx, s.point); err != nil {
		s.o.Notice(fmt.Sprintf("snapshot %s: %v", s.point.Name, err))
	}
	points, err := src.Points(ctx)
	if err != nil {
		s.o.Notice(fmt.Sprintf("old snapshots are not looked for: %v", err))
		return
	}
	ReleasePoints(ctx, src, points, append(s.snaps, s.res.Snapshot), s.o.KeepLocal, s.o.Now(), s.o.Notice)
}

// ReleasePoints gives up the points that nothing needs: neither a coming incremental, which builds on the newest of snaps
// by number or by date, nor an attempt, nor whoever wants those of the time keepLocal. snaps are the set's.
func ReleasePoints(ctx context.Context, src source.Stream, points []source.Point, snaps []catalog.Snapshot,
	keepLocal time.Duration, now time.Time, notice func(string)) {
	needed := map[string]bool{}
	var byN, byDate *catalog.Snapshot
	for i := range snaps {
		x := &snaps[i]
		if x.State != catalog.Stored {
			needed[x.Header.PointID] = true
			continue
		}
		if x.Adopted != "" { // made of what is not this set's own
			continue
		}
		if byN == nil || x.N > byN.N {
			byN = x
		}
		if byDate == nil || !x.At.Before(byDate.At) {
			byDate = x
		}
	}
	for _, x := range []*catalog.Snapshot{byN, byDate} {
		if x != nil {
			needed[x.Header.PointID] = true
		}
	}
	for _, p := range points {
		switch {
		case needed[p.ID], !p.Own && !p.Held:
		case p.Own && !p.BaseOnly && keepLocal > 0 && now.Sub(p.At) < keepLocal:
		default:
			if err := src.Release(ctx, p); err != nil {
				notice(fmt.Sprintf("snapshot %s could not be given up: %v", p.Name, err))
			}
		}
	}
}

// StreamPlan is what RunStream would do.
type StreamPlan struct {
	Nothing bool   // the newest point is stored already
	Resumes bool   // an interrupted attempt would go on
	Base    string // id of the snapshot to build on; empty: a full one
}

// DryStream says what RunStream would do. It makes nothing and runs no producer but to ask it what there is.
func DryStream(ctx context.Context, o StreamOptions) (StreamPlan, error) {
	var p StreamPlan
	if o.Notice == nil {
		o.Notice = func(string) {}
	}
	if o.Catalog == nil || !o.Source.Traits().Points {
		return p, nil
	}
	s := &sender{run: &run{o: &o.Options}, o: &o, params: o.Params}
	var err error
	if s.snaps, err = o.Catalog.Snapshots(ctx, o.Set.ID); err != nil {
		return p, err
	}
	if s.points, err = o.Source.Points(ctx); err != nil {
		return p, err
	}
	for i := range s.snaps {
		if s.snaps[i].State == catalog.Running {
			s.old = &s.snaps[i]
		}
	}
	if s.oldGoesOn(ctx) {
		p.Resumes = true
		return p, nil
	}
	if err := s.chooseBase(); err != nil {
		return p, err
	}
	if s.base != nil {
		p.Base = s.base.ID
	}
	sendable := slices.DeleteFunc(s.points, func(x source.Point) bool { return x.BaseOnly })
	if n := len(sendable); n > 0 && !o.Full && !sendable[n-1].Own {
		p.Nothing = s.isStored(s.stored(), sendable[n-1].ID)
	}
	return p, nil
}

package prune_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/internal/coldstore/localdir"
	"github.com/firn-backup/firn/internal/plan"
	"github.com/firn-backup/firn/internal/prune"
)

// young is a vault with a minimum storage duration, and a listing that may lag.
type young struct {
	*localdir.Store
	days int
	lag  time.Duration
}

// locking is a vault whose archives are locked for so many days, of which its Traits tell or not.
type locking struct {
	*localdir.Store
	days  int
	until time.Time // zero: no lock
}

func (l locking) Traits() coldstore.Traits {
	tr := l.Store.Traits()
	tr.LockDays = l.days
	return tr
}

func (l locking) Delete(ctx context.Context, archive string) error {
	if !l.until.IsZero() {
		return &coldstore.LockedError{Until: l.until, Err: errors.New("denied")}
	}
	return l.Store.Delete(ctx, archive)
}

// Whatever one would pay: what is locked stays, in the catalog too; of a lock that shows itself only then, the archives stay on the list.
func TestLocks(t *testing.T) {
	t.Parallel()
	s := origin(t, 5) // chains at days 0/4, 8/12, 16; it is day 20
	ctx := context.Background()
	o := s.options(s.w.Set)
	l := locking{s.v, 90, time.Time{}}
	o.Open = func(context.Context, string) (prune.Store, error) { return l, nil }
	o.AllowEarly = true
	o.Approve = func([]plan.Expiry) error { t.Error("asked for a fee"); return nil }
	res, err := prune.Run(ctx, o)
	must(t, err)
	if len(res.Waiting) != 1 || len(res.Chains) != 0 || !res.Waiting[0].LockedUntil.After(s.now.Add(70*day)) {
		t.Fatalf("%+v", res)
	}
	s.w.DB = s.db
	if snaps, strays := s.whole(); len(snaps) != 5 || len(strays) != 0 {
		t.Errorf("%d snapshots", len(snaps))
	}
	l.days, l.until = 0, s.now.Add(100*day)
	for range 2 {
		res, err = prune.Run(ctx, o)
		must(t, err)
		if res.Left == 0 || !res.LeftUntil.Equal(l.until) || res.Archives != 0 {
			t.Fatalf("%+v", res)
		}
	}
	l.until = time.Time{}
	res, err = prune.Run(ctx, o)
	must(t, err)
	if res.Left != 0 || res.Archives == 0 {
		t.Fatalf("%+v", res)
	}
	s.done(3)
}

func (y young) Traits() coldstore.Traits {
	tr := y.Store.Traits()
	tr.MinDays, tr.ListLag = y.days, y.lag
	return tr
}

func TestMinimumDuration(t *testing.T) {
	t.Parallel()
	s := origin(t, 5) // chains at days 0/4, 8/12, 16; it is day 20
	ctx := context.Background()
	o := s.options(s.w.Set)
	o.Open = func(context.Context, string) (prune.Store, error) { return young{s.v, 90, 0}, nil }
	o.Rules.Fee = func(snaps []plan.Snapshot, _ time.Time) (int64, bool) { return int64(len(snaps)), true }
	res, err := prune.Run(ctx, o)
	must(t, err)
	if len(res.Waiting) != 1 || len(res.Chains) != 0 || res.Waiting[0].Fee != 2 || !res.Waiting[0].NotBefore.After(s.now.Add(70*day)) {
		t.Fatalf("%+v", res)
	}
	refused := errors.New("too dear")
	o.AllowEarly = true
	o.Approve = func(early []plan.Expiry) error {
		if len(early) != 1 {
			t.Errorf("%+v", early)
		}
		return refused
	}
	if _, err := prune.Run(ctx, o); !errors.Is(err, refused) {
		t.Error(err)
	}
	s.w.DB = s.db
	if snaps, strays := s.whole(); len(snaps) != 5 || len(strays) != 0 {
		t.Errorf("%d snapshots", len(snaps))
	}
	s.now = res.Waiting[0].NotBefore
	o.AllowEarly, o.Approve = false, func([]plan.Expiry) error { t.Error("asked"); return nil }
	res, err = prune.Run(ctx, o)
	must(t, err)
	if len(res.Chains) != 1 || len(res.Early) != 0 {
		t.Fatalf("%+v", res)
	}
	s.done(3)
}

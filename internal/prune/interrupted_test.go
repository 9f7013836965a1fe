package prune_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/firn-backup/firn/internal/catalog"
	"github.com/firn-backup/firn/internal/catalog/sqlite"
	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/internal/coldstore/faultstore"
	"github.com/firn-backup/firn/internal/coldstore/localdir"
	"github.com/firn-backup/firn/internal/failure"
	"github.com/firn-backup/firn/internal/plan"
	"github.com/firn-backup/firn/internal/prune"
)

// A fault at every call, in every way: whatever is left is whole, and the next run ends the work.
func TestFaultAtEveryCall(t *testing.T) {
	t.Parallel()
	from := origin(t, 5)
	must(t, from.db.Close())
	base := memory(t)
	for _, mode := range []faultstore.Mode{faultstore.LostBefore, faultstore.LostAfter, faultstore.DeadFrom, faultstore.DeadAfter} {
		for n := 0; ; n++ {
			dir := filepath.Join(base, fmt.Sprint(mode, n))
			must(t, os.Mkdir(dir, 0o700))
			s := from.copyTo(t, dir)
			f := faultstore.New(faultstore.Fault{Mode: mode, Call: n, Times: -1})
			o := s.options(s.w.Set)
			o.Open = func(context.Context, string) (prune.Store, error) { return f.Wrap(s.v), nil }
			_, err := prune.Run(context.Background(), o)
			if (err != nil) != f.Hit() {
				t.Fatalf("%v at call %d: %v", mode, n, err)
			}
			s.goesOn()
			must(t, os.RemoveAll(dir))
			if !f.Hit() {
				if n < 5 {
					t.Errorf("%v: %d calls", mode, n)
				}
				break
			}
			if t.Failed() {
				t.Fatalf("%v at call %d", mode, n)
			}
		}
	}
}

// killer is a vault that kills its process before or after a call.
type killer struct {
	*localdir.Store
	step func()
}

func (k killer) List(ctx context.Context, fn func(coldstore.Archive) error) (time.Time, error) {
	k.step()
	defer k.step()
	return k.Store.List(ctx, fn)
}

func (k killer) Delete(ctx context.Context, id string) error {
	k.step()
	defer k.step()
	return k.Store.Delete(ctx, id)
}

type killingObserver struct{ step func() }

func (k killingObserver) Forgot(plan.Expiry) { k.step() }

func (k killingObserver) Deleted(catalog.Doomed) { k.step() }

func (k killingObserver) Orphan(catalog.Doomed) { k.step() }

// TestKilledChild is not a test: it is what TestKill runs and kills.
func TestKilledChild(t *testing.T) {
	dir := os.Getenv("FIRN_TEST_PRUNE")
	if dir == "" {
		t.Skip("for TestKill")
	}
	left, err := strconv.Atoi(os.Getenv("FIRN_TEST_STEP"))
	must(t, err)
	now, err := time.Parse(time.RFC3339, os.Getenv("FIRN_TEST_NOW"))
	must(t, err)
	step := func() {
		if left--; left < 0 {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {}
		}
	}
	s := open(t, nil, dir, now)
	set, err := s.db.SetByID(context.Background(), os.Getenv("FIRN_TEST_SET"))
	must(t, err)
	o := s.options(set)
	o.Open = func(context.Context, string) (prune.Store, error) { return killer{s.v, step}, nil }
	o.Parallel, o.Observe = 1, killingObserver{step}
	_, err = prune.Run(context.Background(), o)
	must(t, err)
}

// TestKill: kill -9 at every step loses nothing and orphans nothing.
func TestKill(t *testing.T) {
	t.Parallel()
	from := origin(t, 5)
	must(t, from.db.Close())
	base := memory(t)
	for n := 0; ; n++ {
		dir := filepath.Join(base, strconv.Itoa(n))
		must(t, os.Mkdir(dir, 0o700))
		s := from.copyTo(t, dir)
		must(t, s.db.Close())
		cmd := exec.Command(os.Args[0], "-test.run=^TestKilledChild$")
		cmd.Env = append(os.Environ(), "FIRN_TEST_PRUNE="+dir, "FIRN_TEST_STEP="+strconv.Itoa(n),
			"FIRN_TEST_NOW="+from.now.Format(time.RFC3339), "FIRN_TEST_SET="+from.w.Set.ID)
		out, err := cmd.CombinedOutput()
		var exit *exec.ExitError
		killed := errors.As(err, &exit) && exit.Sys().(syscall.WaitStatus).Signal() == syscall.SIGKILL
		if err != nil && !killed {
			t.Fatalf("%v: %s", err, out)
		}
		s = open(t, from.w, dir, from.now)
		s.goesOn()
		must(t, os.RemoveAll(dir))
		if t.Failed() {
			t.Fatalf("killed at step %d", n)
		}
		if !killed {
			if n < 15 {
				t.Errorf("only %d steps", n)
			}
			return
		}
	}
}

// A recovery on the same machine, while deletions are still to be done, does not bring back what has expired.
func TestRecoverBetween(t *testing.T) {
	t.Parallel()
	s := origin(t, 5)
	ctx := context.Background()
	f := faultstore.New(faultstore.Fault{Mode: faultstore.DeadFrom, Method: "Delete"})
	o := s.options(s.w.Set)
	o.Open = func(context.Context, string) (prune.Store, error) { return f.Wrap(s.v), nil }
	if _, err := prune.Run(ctx, o); !errors.Is(err, faultstore.ErrDead) {
		t.Fatal(err)
	}
	res, err := s.recover(s.db)
	must(t, err)
	if res.Recovered != 0 || res.Kept != 3 {
		t.Errorf("%+v", res)
	}
	s.prune()
	s.done(3)
}

// A copy of a manifest that was left behind brings nothing back.
func TestManifestWithoutVolumes(t *testing.T) {
	t.Parallel()
	s := origin(t, 3)
	ctx := context.Background()
	snaps := s.snapshots()
	vols, err := s.db.Volumes(ctx, snaps[2].ID)
	must(t, err)
	for _, v := range vols {
		must(t, s.v.Delete(ctx, v.Archive))
	}
	other, err := sqlite.Open(ctx, filepath.Join(memory(t), "other.db"), sqlite.Options{})
	must(t, err)
	defer other.Close()
	_, err = s.recover(other)
	if failure.KindOf(err) != failure.Damaged || !strings.Contains(err.Error(), "it was deleted") {
		t.Error(err)
	}
	if _, err := other.Snapshot(ctx, snaps[2].ID); failure.KindOf(err) != failure.NotFound {
		t.Errorf("a snapshot of which nothing is left is in the catalog: %v", err)
	}
}

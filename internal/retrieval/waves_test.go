package retrieval_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/internal/cost"
	"github.com/firn-backup/firn/internal/failure"
	"github.com/firn-backup/firn/internal/retrieval"
)

// At a pace that lets the last request out days after the first has expired, everything is read all the same,
// and nothing is asked for twice: in one run that waits, and in many that do not.
func TestWaves(t *testing.T) {
	const all = 47
	pace := cost.Pace{Requests: 5, Per: 24 * time.Hour}
	for _, wait := range []bool{true, false} {
		v, j := &vault{now: time.Unix(1e9, 0), made: map[string]coldstore.Retrieval{}}, allOf{journal{}}
		read := map[int]bool{}
		bills, runs := 0, 0
		run := func() error {
			runs++
			d := desk(v, nil, func(o *retrieval.Options) {
				o.Journal = j
				o.Wait, o.Pace = wait, pace
				o.Approve = func(_ context.Context, b retrieval.Bill) error { bills += int(b.Requests); return nil }
			})
			for i := range all {
				if !read[i] {
					if err := d.Want(ctx, fmt.Sprint("a", i), coldstore.Range{}, 10); err != nil {
						return err
					}
				}
			}
			if err := d.Order(ctx, nil); err != nil {
				return err
			}
			if err := d.Ready(ctx); err != nil {
				return err
			}
			for i := range all {
				if read[i] {
					continue
				}
				rt, err := d.Ask(ctx, fmt.Sprint("a", i), coldstore.Range{})
				if err != nil {
					return err
				}
				if !rt.Ready || !v.now.Before(rt.Requested.Add(25*time.Hour)) {
					t.Fatalf("archive %d is read and is not readable: %+v", i, rt)
				}
				read[i] = true
				v.now = v.now.Add(10 * time.Minute)
			}
			return nil
		}
		err := run()
		for ; err != nil && runs < 500; err = run() {
			if wait || failure.KindOf(err) != failure.NotReady {
				t.Fatal(err)
			}
			v.now = v.now.Add(3 * time.Hour)
		}
		if err != nil || len(read) != all || len(v.asked) != all {
			t.Errorf("wait %v: %d of %d read, %d requests, %d runs: %v", wait, len(read), all, len(v.asked), runs, err)
		}
		if wait && bills != all {
			t.Errorf("%d requests were approved", bills)
		}
		for i := range int64(all) - pace.Requests {
			a, b := v.made[fmt.Sprint("t", i+1)], v.made[fmt.Sprint("t", i+1+pace.Requests)]
			if b.Requested.Sub(a.Requested) < pace.Per {
				t.Fatalf("requests %d to %d went out within %s", i, i+pace.Requests, b.Requested.Sub(a.Requested))
			}
		}
	}
}

// What is not there is told when it is come to, and does not stop the others; one bill for everything, and a refusal of it
// comes before anything is asked for.
func TestWavesGone(t *testing.T) {
	v, j := &vault{now: time.Unix(1e9, 0), made: map[string]coldstore.Retrieval{}}, journal{}
	pace := cost.Pace{Requests: 2, Per: 24 * time.Hour}
	names := []string{"a", "gone1", "b", "gone2", "c", "d"}
	want := func(d *retrieval.Desk) {
		for _, n := range names {
			if err := d.Want(ctx, n, coldstore.Range{}, 10); err != nil {
				t.Fatal(err)
			}
		}
	}
	dear := errors.New("too dear")
	d := desk(v, j, func(o *retrieval.Options) {
		o.Wait, o.Pace, o.Approve = true, pace, func(context.Context, retrieval.Bill) error { return dear }
	})
	if want(d); !errors.Is(d.Order(ctx, nil), dear) || len(v.asked) > 0 {
		t.Errorf("asked for %v", v.asked)
	}
	d = desk(v, j, func(o *retrieval.Options) { o.Wait, o.Pace = true, pace })
	if want(d); d.Order(ctx, nil) != nil || d.Ready(ctx) != nil {
		t.Error("refused")
	}
	for _, n := range names {
		rt, err := d.Ask(ctx, n, coldstore.Range{})
		if gone := n[0] == 'g'; gone != errors.Is(err, coldstore.ErrNotFound) || gone == rt.Ready {
			t.Errorf("%s: %v, %v", n, rt, err)
		}
	}
	d = desk(v, j, func(o *retrieval.Options) { o.Once, o.Pace = true, pace })
	if want(d); failure.KindOf(d.Order(ctx, nil)) != failure.Usage {
		t.Error("a run whose reading counts for itself only was begun and would never end")
	}
}

package retrieval_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/firn-backup/firn/internal/catalog"
	"github.com/firn-backup/firn/internal/codec"
	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/internal/cost"
	"github.com/firn-backup/firn/internal/failure"
	"github.com/firn-backup/firn/internal/retrieval"
	"github.com/firn-backup/firn/internal/transfer"
	"github.com/firn-backup/firn/treehash"
)

var ctx = context.Background()

// vault is a vault whose retrievals take an hour and last a day.
type vault struct {
	now   time.Time
	asked []string
	made  map[string]coldstore.Retrieval
	fail  []error // of the next calls
	lost  bool    // nothing is readable, whatever was said
}

func (v *vault) failing() error {
	if len(v.fail) == 0 {
		return nil
	}
	err := v.fail[0]
	v.fail = v.fail[1:]
	return err
}

func (v *vault) RequestRetrieval(_ context.Context, archive string, r coldstore.Range, o coldstore.RetrievalOptions) (coldstore.Retrieval, error) {
	if err := v.failing(); err != nil {
		return coldstore.Retrieval{}, err
	}
	if strings.HasPrefix(archive, "gone") {
		return coldstore.Retrieval{}, coldstore.ErrNotFound
	}
	v.asked = append(v.asked, fmt.Sprint(archive, r.Offset, r.Size, o.Tier))
	rt := coldstore.Retrieval{Token: fmt.Sprint("t", len(v.asked)), Archive: archive, Range: r, Tier: o.Tier, Requested: v.now}
	v.made[rt.Token] = rt
	return rt, nil
}

func (v *vault) CheckRetrieval(_ context.Context, token string) (coldstore.Retrieval, error) {
	if err := v.failing(); err != nil {
		return coldstore.Retrieval{}, err
	}
	rt, ok := v.made[token]
	ready := rt.Requested.Add(time.Hour)
	switch {
	case !ok || v.now.After(ready.Add(24*time.Hour)):
		return rt, coldstore.ErrExpired
	case !v.now.Before(ready):
		rt.Ready, rt.Expires = true, ready.Add(24*time.Hour)
	}
	return rt, nil
}

func (v *vault) OpenRetrieved(context.Context, coldstore.Retrieval, int64, int64) (io.ReadCloser, error) {
	if err := v.failing(); err != nil {
		return nil, err
	}
	if v.lost {
		return nil, coldstore.ErrExpired
	}
	return io.NopCloser(strings.NewReader("")), nil
}

// journal is a catalog's.
type journal map[string]coldstore.Retrieval

func (j journal) PutRetrieval(_ context.Context, r catalog.SavedRetrieval) error {
	j[r.Token] = r.Retrieval
	return nil
}

func (j journal) Retrievals(_ context.Context, _, archive string) ([]coldstore.Retrieval, error) {
	var all []coldstore.Retrieval
	for _, r := range j {
		if r.Archive == archive {
			all = append(all, r)
		}
	}
	return all, nil
}

func (j journal) DropRetrieval(_ context.Context, _, token string) error {
	delete(j, token)
	return nil
}

func desk(v *vault, j journal, change func(*retrieval.Options)) *retrieval.Desk {
	o := retrieval.Options{
		Store: v, Journal: j, Vault: "v", Now: func() time.Time { return v.now },
		Transfer: transfer.Options{Retries: 2, Sleep: func(_ context.Context, d time.Duration) error { v.now = v.now.Add(d); return nil }},
	}
	if change != nil {
		change(&o)
	}
	return retrieval.New(o)
}

func TestAsksOnceAndGoesOn(t *testing.T) {
	v, j := &vault{now: time.Unix(1e9, 0), made: map[string]coldstore.Retrieval{}}, journal{}
	r := func(off, size int64) coldstore.Range { return coldstore.Range{Offset: off, Size: size} }
	ask := func(archive string, want coldstore.Range, ready bool) {
		t.Helper()
		rt, err := desk(v, j, nil).Ask(ctx, archive, want) // each as if in another process
		if err != nil || rt.Ready != ready || rt.Archive != archive || !retrieval.Covers(rt.Range, want) {
			t.Errorf("%+v, %v", rt, err)
		}
	}
	ask("a", r(0, 100), false)
	ask("a", r(0, 100), false)
	ask("a", r(10, 20), false) // lies in it
	if len(v.asked) != 1 {
		t.Errorf("asked %q", v.asked)
	}
	ask("a", r(50, 100), false) // does not
	ask("a", coldstore.Range{}, false)
	ask("a", r(500, 1), false) // the whole has it
	if len(v.asked) != 3 {
		t.Errorf("asked %q", v.asked)
	}
	v.now = v.now.Add(2 * time.Hour)
	ask("a", r(0, 100), true)
	v.now = v.now.Add(23*time.Hour - 30*time.Second) // ready, but for half a minute: asked about
	ask("a", r(0, 100), true)
	if len(v.asked) != 3 {
		t.Errorf("asked %q", v.asked)
	}
	v.now = v.now.Add(time.Hour)
	ask("a", r(0, 100), false) // expired: anew
	if len(v.asked) != 4 || len(j) != 2 {
		t.Errorf("asked %q, journal %v", v.asked, j)
	}
	v.now = v.now.Add(500 * 24 * time.Hour)
	ask("a", r(1000, 1), false) // what fits nothing and is long over is forgotten
	if len(v.asked) != 5 || len(j) != 1 {
		t.Errorf("asked %q, journal %v", v.asked, j)
	}
}

// reads is a cipher of nothing.
type reads struct{ codec.Decryptor }

func (reads) Decrypt(src io.Reader) (io.Reader, error) {
	_, err := io.ReadAll(src)
	return src, err
}

// A copy that was not kept as long as the vault had said is asked for anew by the next run.
func TestKeptTooShort(t *testing.T) {
	v, j := &vault{now: time.Unix(1e9, 0), made: map[string]coldstore.Retrieval{}, lost: true}, journal{}
	for i, want := range []int{1, 1, 2} {
		d := desk(v, j, func(o *retrieval.Options) {
			o.Codecs.Decryptor = func(string) (codec.Decryptor, codec.Geometry, error) { return reads{}, codec.Geometry{}, nil }
		})
		rt, err := d.Ask(ctx, "a", coldstore.Range{})
		if err != nil || len(v.asked) != want {
			t.Fatalf("run %d: %v, asked %q", i, err, v.asked)
		}
		if v.now = v.now.Add(2 * time.Hour); !rt.Ready {
			continue
		}
		if _, err := d.OpenWhole(ctx, rt, 1, treehash.Hash{}, "none", "none"); !errors.Is(err, coldstore.ErrExpired) {
			t.Errorf("read: %v", err)
		}
	}
}

// What is to be tried once is asked for once, and read once.
func TestNoRetries(t *testing.T) {
	v, j := &vault{now: time.Unix(1e9, 0), made: map[string]coldstore.Retrieval{}}, journal{}
	once := func() *retrieval.Desk {
		return desk(v, j, func(o *retrieval.Options) {
			o.Transfer.Retries = -1
			o.Codecs.Decryptor = func(string) (codec.Decryptor, codec.Geometry, error) { return reads{}, codec.Geometry{}, nil }
		})
	}
	fails := func(what string, f func() error) {
		v.fail = []error{coldstore.ErrTemporary, coldstore.ErrTemporary, coldstore.ErrTemporary}
		if err := f(); !errors.Is(err, coldstore.ErrTemporary) || len(v.fail) != 2 {
			t.Errorf("%s: %d attempts, %v", what, 3-len(v.fail), err)
		}
		v.fail = nil
	}
	fails("ask", func() error { _, err := once().Ask(ctx, "a", coldstore.Range{}); return err })
	rt, err := once().Ask(ctx, "a", coldstore.Range{})
	if err != nil {
		t.Fatal(err)
	}
	fails("look", func() error { _, err := once().Ask(ctx, "a", coldstore.Range{}); return err })
	fails("read", func() error {
		_, err := once().OpenWhole(ctx, rt, 1, treehash.Hash{}, "none", "none")
		return err
	})
}

func TestReadyWaits(t *testing.T) {
	v, j := &vault{now: time.Unix(1e9, 0), made: map[string]coldstore.Retrieval{}}, journal{}
	d := desk(v, j, nil)
	for _, a := range []string{"a", "b"} {
		if _, err := d.Ask(ctx, a, coldstore.Range{}); err != nil {
			t.Fatal(err)
		}
	}
	err := d.Ready(ctx)
	if failure.KindOf(err) != failure.NotReady || !strings.Contains(err.Error(), "2 of 2") {
		t.Errorf("%v", err)
	}
	looks := 0
	d = desk(v, j, func(o *retrieval.Options) {
		o.Wait = true
		o.Waiting = func(ready, all int) {
			if looks++; looks == 3 {
				delete(v.made, "t2") // lost by the vault
			}
			if all != 2 {
				t.Errorf("%d of %d", ready, all)
			}
		}
	})
	for _, a := range []string{"a", "b"} {
		if _, err := d.Ask(ctx, a, coldstore.Range{}); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.Ready(ctx); err != nil {
		t.Error(err)
	}
	if len(v.asked) != 3 || looks < 5 || looks > 30 {
		t.Errorf("asked %q, looked %d times", v.asked, looks)
	}
	if err := d.Ready(ctx); err != nil {
		t.Error(err)
	}
}

func TestRetries(t *testing.T) {
	for _, c := range []struct {
		fail []error
		ok   bool
	}{
		{[]error{coldstore.ErrThrottled, coldstore.ErrTemporary}, true},
		{[]error{coldstore.ErrInDoubt}, true},
		{[]error{coldstore.ErrThrottled, coldstore.ErrThrottled, coldstore.ErrThrottled}, false},
		{[]error{coldstore.ErrInvalid}, false},
		{[]error{errors.New("other")}, false},
	} {
		v, j := &vault{now: time.Unix(1e9, 0), made: map[string]coldstore.Retrieval{}, fail: c.fail}, journal{}
		_, err := desk(v, j, nil).Ask(ctx, "a", coldstore.Range{})
		if (err == nil) != c.ok || err != nil && !errors.Is(err, c.fail[len(c.fail)-1]) {
			t.Errorf("%v: %v", c.fail, err)
		}
	}
	v := &vault{made: map[string]coldstore.Retrieval{}}
	if _, err := desk(v, journal{}, nil).Ask(ctx, "gone", coldstore.Range{}); !errors.Is(err, coldstore.ErrNotFound) || !retrieval.IsDamage(err) {
		t.Error(err)
	}
}

func TestExplain(t *testing.T) {
	for err, want := range map[error]failure.Kind{
		fmt.Errorf("x: %w", codec.ErrNoKey):         failure.NoKey,
		fmt.Errorf("x: %w", coldstore.ErrNotReady):  failure.NotReady,
		fmt.Errorf("x: %w", coldstore.ErrExpired):   failure.NotReady,
		fmt.Errorf("x: %w", codec.ErrDamaged):       failure.Damaged,
		fmt.Errorf("x: %w", coldstore.ErrIntegrity): failure.Damaged,
		errors.New("x"):                    failure.Failed,
		failure.Errorf(failure.Usage, "x"): failure.Usage,
		failure.Wrap(failure.NotReady, fmt.Errorf("%w", codec.ErrNoKey)): failure.NotReady,
	} {
		if got := failure.KindOf(retrieval.Explain(err)); got != want {
			t.Errorf("%v: kind %d, want %d", err, got, want)
		}
	}
	if retrieval.Explain(nil) != nil {
		t.Error("nil explained")
	}
}

func TestOrder(t *testing.T) {
	v, j := &vault{now: time.Unix(1e9, 0), made: map[string]coldstore.Retrieval{}}, journal{}
	var bills []retrieval.Bill
	var no error
	d := desk(v, j, func(o *retrieval.Options) {
		o.Tier = coldstore.Bulk
		o.Approve = func(_ context.Context, b retrieval.Bill) error { bills = append(bills, b); return no }
	})
	want := func(archive string, r coldstore.Range, size int64) {
		t.Helper()
		if err := d.Want(ctx, archive, r, size); err != nil {
			t.Fatal(err)
		}
	}
	no = errors.New("too dear")
	want("a", coldstore.Range{}, 100)
	if err := d.Order(ctx, nil); !errors.Is(err, no) || len(v.asked) != 0 {
		t.Errorf("%v, asked %q", err, v.asked)
	}
	no, bills = nil, nil
	want("a", coldstore.Range{}, 100)
	want("gone", coldstore.Range{}, 7)
	want("b", coldstore.Range{Offset: 10, Size: 5}, 5)
	want("b", coldstore.Range{Offset: 20, Size: 5}, 5)
	if len(v.asked) != 0 {
		t.Errorf("asked %q before the order", v.asked)
	}
	var gone []string
	if err := d.Order(ctx, func(a string, _ error) error { gone = append(gone, a); return nil }); err != nil {
		t.Fatal(err)
	}
	if len(v.asked) != 3 || len(gone) != 1 || gone[0] != "gone" {
		t.Errorf("asked %q, gone %q", v.asked, gone)
	}
	if len(bills) != 1 || bills[0] != (retrieval.Bill{Tier: coldstore.Bulk, Requests: 4, Bytes: 117}) {
		t.Errorf("bills %+v", bills)
	}
	if err := d.Ready(ctx); failure.KindOf(err) != failure.NotReady {
		t.Error(err)
	}
	want("a", coldstore.Range{}, 100)
	if err := d.Order(ctx, nil); err != nil || len(bills) != 1 || len(v.asked) != 3 {
		t.Errorf("%v: what is under way was billed again: %+v", err, bills)
	}
	// One that is asked for by itself is told of too.
	if _, err := d.Ask(ctx, "c", coldstore.Range{Offset: 1, Size: 9}); err != nil || len(bills) != 2 || bills[1].Bytes != 9 {
		t.Errorf("%v, %+v", err, bills)
	}
	d = desk(v, j, func(o *retrieval.Options) {
		o.Traits.Warm = true
		o.Approve = func(context.Context, retrieval.Bill) error { return errors.New("asked") }
	})
	want("z", coldstore.Range{}, 1)
	if err := d.Order(ctx, nil); err != nil {
		t.Error(err)
	}
}

func TestPace(t *testing.T) {
	v, j := &vault{now: time.Unix(1e9, 0), made: map[string]coldstore.Retrieval{}}, allOf{journal{}}
	run := func(wait bool, n int) (asked int, took time.Duration, err error) {
		t.Helper()
		d := desk(v, nil, func(o *retrieval.Options) {
			o.Journal = j
			o.Wait = wait
			o.Pace = cost.Pace{Requests: 3, Per: time.Hour}
		})
		for i := range n {
			if err := d.Want(ctx, fmt.Sprint("a", i), coldstore.Range{}, 1); err != nil {
				t.Fatal(err)
			}
		}
		before, begin := len(v.asked), v.now
		err = d.Order(ctx, nil)
		return len(v.asked) - before, v.now.Sub(begin), err
	}
	if n, took, err := run(false, 5); n != 3 || took != 0 || failure.KindOf(err) != failure.NotReady {
		t.Errorf("%d in %s, %v", n, took, err)
	}
	v.now = v.now.Add(30 * time.Minute)
	if n, _, err := run(false, 5); n != 0 || failure.KindOf(err) != failure.NotReady {
		t.Errorf("another run soon after: %d, %v", n, err)
	}
	if n, took, err := run(true, 5); n != 2 || took != 30*time.Minute || err != nil {
		t.Errorf("with waiting: %d in %s, %v", n, took, err)
	}
	v.now = v.now.Add(2 * time.Hour)
	if n, took, err := run(true, 12); n != 7 || took != 2*time.Hour || err != nil {
		t.Errorf("seven more: %d in %s, %v", n, took, err)
	}
}

// allOf is a journal that lists a whole vault too, as the catalog does.
type allOf struct{ journal }

func (a allOf) Retrievals(ctx context.Context, vault, archive string) ([]coldstore.Retrieval, error) {
	if archive != "" {
		return a.journal.Retrievals(ctx, vault, archive)
	}
	var all []coldstore.Retrieval
	for _, r := range a.journal {
		all = append(all, r)
	}
	slices.SortFunc(all, func(x, y coldstore.Retrieval) int { return x.Requested.Compare(y.Requested) })
	return all, nil
}

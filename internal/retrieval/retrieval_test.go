package retrieval_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/firn-backup/firn/internal/catalog"
	"github.com/firn-backup/firn/internal/codec"
	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/internal/failure"
	"github.com/firn-backup/firn/internal/retrieval"
	"github.com/firn-backup/firn/internal/transfer"
)

var ctx = context.Background()

// vault is a vault whose retrievals take an hour and last a day.
type vault struct {
	now   time.Time
	asked []string
	made  map[string]coldstore.Retrieval
	fail  []error // of the next calls
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

package catalogtest

import (
	"crypto/ed25519"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/firn-backup/firn/internal/catalog"
	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/internal/failure"
)

func testRetrievals(t *testing.T, target Target) {
	d := openDB(t, target)
	full := filled[catalog.SavedRetrieval](t)
	full.Tier = coldstore.Bulk
	full.Vault, full.Archive = "dir:/v", "x"
	bare := catalog.SavedRetrieval{Vault: "dir:/v", Retrieval: coldstore.Retrieval{Token: "t2", Archive: "y"}}
	other := catalog.SavedRetrieval{Vault: "dir:/w", Retrieval: coldstore.Retrieval{Token: "t2", Archive: "y"}}
	for _, r := range []catalog.SavedRetrieval{full, bare, other} {
		d.ok(d.PutRetrieval(d.ctx, r))
	}
	bare.Ready = true
	d.ok(d.PutRetrieval(d.ctx, bare))
	check := func(vault, archive string, want ...coldstore.Retrieval) {
		t.Helper()
		got, err := d.Retrievals(d.ctx, vault, archive)
		d.ok(err)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("retrievals of %s %s (-want +got):\n%s", vault, archive, diff)
		}
	}
	check("dir:/v", "x", full.Retrieval)
	check("dir:/v", "y", bare.Retrieval)
	check("dir:/v", "", bare.Retrieval, full.Retrieval)
	check("dir:/v", "z")
	d.ok(d.DropRetrieval(d.ctx, "dir:/v", "t2"))
	d.ok(d.DropRetrieval(d.ctx, "dir:/v", "t2"))
	check("dir:/v", "y")
	check("dir:/w", "y", other.Retrieval)
}

func testTrust(t *testing.T, target Target) {
	d := openDB(t, target)
	a, b := make(ed25519.PublicKey, 32), make(ed25519.PublicKey, 32)
	b[0] = 1
	d.ok(d.Trust(d.ctx, b, "note"))
	d.ok(d.Trust(d.ctx, a, ""))
	d.ok(d.Trust(d.ctx, a, "again"))
	got, err := d.Trusted(d.ctx)
	d.ok(err)
	if diff := cmp.Diff([]ed25519.PublicKey{a, b}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	d.kind(failure.Usage, d.Trust(d.ctx, a[:31], ""))
}

func testRuns(t *testing.T, target Target) {
	d := openDB(t, target)
	var all []catalog.Run
	for i := range 5 {
		r := filled[catalog.Run](t)
		r.ID = fmt.Sprint("r", i)
		r.Set = []string{"", "s\xff", "t"}[i%3]
		r.Started = epoch().Add(time.Duration(i/2) * time.Hour) // two at a time
		if i == 4 {
			r.Ended = time.Time{}
		}
		d.ok(d.PutRun(d.ctx, r))
		r.Exit = i
		d.ok(d.PutRun(d.ctx, r))
		all = append([]catalog.Run{r}, all...)
	}
	check := func(set string, limit int, want ...catalog.Run) {
		t.Helper()
		got, err := d.Runs(d.ctx, set, limit)
		d.ok(err)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("runs of %q, %d (-want +got):\n%s", set, limit, diff)
		}
	}
	check("", 0, all...)
	check("", 2, all[:2]...)
	check("s\xff", 0, all[0], all[3])
	check("s\xff", 1, all[0])
	check("u", 0)
}

func testLease(t *testing.T, target Target) {
	d := openDB(t, target)
	now := epoch()
	take := func(holder string, at time.Duration, want bool) {
		t.Helper()
		got, err := d.Lease(d.ctx, "A", holder, time.Minute, now.Add(at))
		d.ok(err)
		if got != want {
			t.Errorf("lease of %s at %v: %v, want %v", holder, at, got, want)
		}
	}
	take("me", 0, true)
	take("you", 0, false)
	take("me", 30*time.Second, true) // renews, until 90 s
	take("you", 70*time.Second, false)
	take("you", 90*time.Second, true) // has run out
	take("me", 90*time.Second, false)
	d.ok(d.Unlease(d.ctx, "A", "me")) // not mine
	take("me", 90*time.Second, false)
	d.ok(d.Unlease(d.ctx, "A", "you"))
	take("me", 90*time.Second, true)
	got, err := d.Lease(d.ctx, "B", "you", time.Minute, now)
	d.ok(err)
	if !got {
		t.Error("the lease of another set is not free")
	}
}

func testLeaseRace(t *testing.T, target Target) {
	open := target(t)
	var won atomic.Int32
	var wg sync.WaitGroup
	for i := range 4 {
		d := &db{open(0), t, t.Context()}
		wg.Go(func() {
			ok, err := d.Lease(d.ctx, "A", fmt.Sprint(i), time.Minute, epoch())
			if err != nil {
				t.Error(err)
			}
			if ok {
				won.Add(1)
			}
		})
	}
	wg.Wait()
	if won.Load() != 1 {
		t.Errorf("%d hold the lease", won.Load())
	}
}

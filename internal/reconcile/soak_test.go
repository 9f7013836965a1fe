package reconcile_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"testing"
	"time"

	"github.com/firn-backup/firn/internal/catalog/sqlite"
	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/internal/reconcile"
)

// crowd is a vault of very many archives, which it makes up as it lists them.
type crowd struct {
	n    int
	asOf time.Time
	peak uint64
}

func (c *crowd) Traits() coldstore.Traits { return coldstore.Traits{ListLag: 48 * time.Hour} }

func (c *crowd) List(_ context.Context, fn func(coldstore.Archive) error) (time.Time, error) {
	for i := range c.n {
		h := uint64(i) * 0x9e3779b97f4a7c15 // ids in no order
		a := coldstore.Archive{ID: fmt.Sprintf("%016x%0122d", h, i), Description: "a description of some length", Size: 10, Created: day(0)}
		a.TreeHash[0], a.TreeHash[1] = byte(i), byte(i>>8)
		if err := fn(a); err != nil {
			return time.Time{}, err
		}
		if i%100_000 == 0 {
			c.look()
		}
	}
	return c.asOf, nil
}

func (c *crowd) look() {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	c.peak = max(c.peak, m.HeapInuse+m.StackInuse)
}

// TestManyArchives: memory does not grow with the vault. FIRN_SOAK=N takes N million
// archives instead; 7 are the largest vault known.
func TestManyArchives(t *testing.T) {
	t.Parallel()
	n := 20_000
	if s := os.Getenv("FIRN_SOAK"); s != "" {
		millions, err := strconv.Atoi(s)
		ok(t, err)
		n = millions * 1_000_000
	}
	d, err := sqlite.Open(t.Context(), filepath.Join(t.TempDir(), "catalog.db"), sqlite.Options{})
	ok(t, err)
	defer d.Close()
	c := &crowd{n: n, asOf: day(1)}
	for round := range 2 {
		began := time.Now()
		c.asOf = c.asOf.AddDate(0, 0, 1)
		res, err := reconcile.Sync(t.Context(), reconcile.Options{Catalog: d, Store: c, Vault: vault, Now: func() time.Time { return day(9) }})
		ok(t, err)
		c.look()
		if res.Archives != int64(n) || res.New != int64(n*(1-round)) {
			t.Errorf("%+v", res)
		}
		t.Logf("sync %d of %d archives: %v, %d MiB of heap at most", round+1, n, time.Since(began).Round(time.Millisecond), c.peak>>20)
	}
	if c.peak > 150<<20 {
		t.Errorf("%d MiB of heap", c.peak>>20)
	}
}

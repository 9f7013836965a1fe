package localdir

import (
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/internal/coldstore/storetest"
)

// clock is a clock that stands still until it is moved.
type clock struct {
	mu sync.Mutex
	t  time.Time
}

func newClock() *clock {
	return &clock{t: time.Date(2026, 11, 22, 2, 0, 0, 123456789, time.UTC)}
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t
}

func (c *clock) Advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(d)
}

// memDir is a directory in memory, where there is one: for tests that make many vaults and
// do not depend on the file system.
func memDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "firn-test-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func newStoreT(t testing.TB, o Options) *Store {
	t.Helper()
	return newStoreIn(t, memDir(t), o)
}

func newStoreIn(t testing.TB, dir string, o Options) *Store {
	t.Helper()
	s, err := Create(filepath.Join(dir, "vault"), o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func reopen(t testing.TB, s *Store) *Store {
	t.Helper()
	again, err := Open(s.root, s.o)
	if err != nil {
		t.Fatal(err)
	}
	return again
}

func TestConformance(t *testing.T) {
	for name, o := range map[string]Options{
		"Warm":    {},
		"Delayed": {Delay: 4 * time.Hour},
		"Odd":     {Delay: 90 * time.Minute, Expiry: 150 * time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			storetest.Run(t, func(t testing.TB) storetest.Harness {
				c := newClock()
				o := o
				o.Now = c.Now
				dir := memDir(t)
				if name == "Warm" { // one of them on a real disk is enough
					dir = t.TempDir()
				}
				s := newStoreIn(t, dir, o)
				return storetest.Harness{
					Store:   s,
					Reopen:  func(t testing.TB) coldstore.Store { return reopen(t, s) },
					Advance: c.Advance,
				}
			})
		})
	}
}

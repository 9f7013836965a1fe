package localdir

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/internal/coldstore/storetest"
)

func newClock() *storetest.Clock {
	return storetest.NewClock(time.Date(2026, 11, 22, 2, 0, 0, 123456789, time.UTC))
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

package transfer

import (
	"context"
	"io"
	"sync"
	"testing"
	"time"

	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/internal/units"
	"github.com/firn-backup/firn/treehash"
)

// slow is a clock that goes on only while somebody waits.
type slow struct {
	mu  sync.Mutex
	now time.Time
}

func (s *slow) time() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.now
}

func (s *slow) sleep(ctx context.Context, d time.Duration) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.now = s.now.Add(d)
	return ctx.Err()
}

func limiter(t *testing.T, c *slow, rates ...string) *Limiter {
	t.Helper()
	all, err := units.ParseDayRates(rates)
	if err != nil {
		t.Fatal(err)
	}
	return NewLimiter(all, c.time, c.sleep)
}

var noon = time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)

func TestLimit(t *testing.T) {
	t.Parallel()
	for rate, want := range map[string]time.Duration{"1MiB": 10 * time.Second, "100KiB": 102400 * time.Millisecond, "2KiB": 5120 * time.Second, "1GiB": 10 * time.Second / 1024} {
		c := &slow{now: noon}
		l := limiter(t, c, rate)
		for range 10 {
			if err := l.Wait(t.Context(), mib); err != nil {
				t.Fatal(err)
			}
		}
		took := c.now.Sub(noon)
		if took < want*99/100 || took > want*101/100 {
			t.Errorf("10 MiB at %s: %s, want %s", rate, took, want)
		}
	}
	var none *Limiter
	if err := none.Wait(t.Context(), 1<<40); err != nil {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := limiter(t, &slow{now: noon}, "1").Wait(ctx, 100); err == nil {
		t.Error("waited after the end")
	}
}

func TestLimitByTimeOfDay(t *testing.T) {
	t.Parallel()
	c := &slow{now: noon.Add(5*time.Hour + 59*time.Minute)} // a minute before six
	l := limiter(t, c, "08:00-18:00 1MiB", "18:00-20:00 0", "2MiB")
	for range 60 {
		if err := l.Wait(t.Context(), mib); err != nil {
			t.Fatal(err)
		}
	}
	if at := c.now.Sub(noon); at < 6*time.Hour-time.Second || at > 6*time.Hour+time.Second {
		t.Errorf("a minute at 1 MiB/s ended at %s", at)
	}
	c.now = noon.Add(6 * time.Hour)
	if err := l.Wait(t.Context(), 1<<30); err != nil || c.now != noon.Add(6*time.Hour) {
		t.Errorf("a limit where there is none: %s", c.now)
	}
	c.now = noon.Add(9 * time.Hour)
	for range 60 {
		if err := l.Wait(t.Context(), mib); err != nil {
			t.Fatal(err)
		}
	}
	if took := c.now.Sub(noon.Add(9 * time.Hour)); took < 29*time.Second || took > 31*time.Second {
		t.Errorf("60 MiB at 2 MiB/s: %s", took)
	}
}

// Uploads and reads that share a limiter share the rate.
func TestLimitIsShared(t *testing.T) {
	t.Parallel()
	c := &slow{now: noon}
	o := Options{PartSize: mib, Limit: limiter(t, c, "1MiB")}
	m := newMemStore()
	m.archives["old"] = noise(1, 5*mib)
	u := NewUpload(t.Context(), m, coldstore.NewArchive{Name: "new"}, o)
	if _, err := u.Write(noise(2, 10*mib)); err != nil {
		t.Fatal(err)
	}
	if _, err := u.Complete(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	st := Stream(t.Context(), m, coldstore.Retrieval{Archive: "old"}, 5*mib, treehash.Sum(m.archives["old"]), o)
	if _, err := io.Copy(io.Discard, st); err != nil {
		t.Fatal(err)
	}
	if took := c.now.Sub(noon); took < 14*time.Second || took > 16*time.Second {
		t.Errorf("15 MiB at 1 MiB/s: %s", took)
	}
}

// pacedStore sends as it is let.
type pacedStore struct {
	*memStore
	pieces int
}

func (p *pacedStore) PutPartPaced(ctx context.Context, id string, off int64, data []byte, hash treehash.Hash, wait func(int) error) error {
	for left := len(data); left > 0; left -= min(left, 1000) {
		p.pieces++
		if err := wait(min(left, 1000)); err != nil {
			return err
		}
	}
	return p.PutPart(ctx, id, off, data, hash)
}

func TestLimitOfPacedStore(t *testing.T) {
	t.Parallel()
	c := &slow{now: noon}
	p := &pacedStore{memStore: newMemStore()}
	u := NewUpload(t.Context(), p, coldstore.NewArchive{Name: "a"}, Options{Parallel: 1, Limit: limiter(t, c, "100KB")})
	if _, err := u.Write(noise(2, 1_000_000)); err != nil {
		t.Fatal(err)
	}
	if _, err := u.Complete(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	if took := c.now.Sub(noon); p.pieces != 1000 || took < 9900*time.Millisecond || took > 10100*time.Millisecond {
		t.Errorf("%d pieces in %s", p.pieces, took)
	}
}

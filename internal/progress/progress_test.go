package progress

import (
	"sync"
	"testing"
	"time"
)

type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) Add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

func TestRateAndETA(t *testing.T) {
	t.Parallel()
	c := &clock{now: time.Unix(1000, 0)}
	m := New(c.Now)
	if r := m.Report(); r.Rate != 0 || r.ETA >= 0 || r.Fraction() >= 0 {
		t.Errorf("at the start: %+v", r)
	}
	m.SetTotals(1000, 10)
	for range 10 { // 10 bytes a second for 10 s
		c.Add(time.Second)
		m.AddBytes(10)
		m.AddFiles(1)
		m.Report()
	}
	r := m.Report()
	if r.Rate != 10 || r.ETA != 90*time.Second || r.Elapsed != 10*time.Second || r.Fraction() != 0.1 || r.Files != 10 {
		t.Errorf("after 10 s: %+v", r)
	}
	// Ten times faster for longer than the window: the old rate is forgotten.
	for range 5 {
		c.Add(5 * time.Second)
		m.AddBytes(500)
		r = m.Report()
	}
	if r.Rate != 100 || r.ETA != 0 || r.Fraction() != 1 {
		t.Errorf("after the window: %+v", r)
	}
	// A stall shows: the rate falls to nothing within a window.
	m.SetTotals(1e6, 10)
	for range 5 {
		c.Add(5 * time.Second)
		r = m.Report()
	}
	if r.Rate != 0 || r.ETA >= 0 {
		t.Errorf("after a stall: %+v", r)
	}
}

// A clock that is set back must not make rates negative.
func TestClockSetBack(t *testing.T) {
	t.Parallel()
	c := &clock{now: time.Unix(1000, 0)}
	m := New(c.Now)
	m.AddBytes(5)
	m.SetTotals(10, 1)
	c.Add(-time.Hour)
	if r := m.Report(); r.Rate < 0 || r.Elapsed < 0 {
		t.Errorf("%+v", r)
	}
}

func TestConcurrentUse(t *testing.T) {
	t.Parallel()
	m := New(nil)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 1000 {
				m.AddBytes(3)
				m.AddFiles(1)
				m.AddSent(2)
				m.Report()
			}
		})
	}
	wg.Wait()
	if r := m.Report(); r.Bytes != 24000 || r.Files != 8000 || r.Sent != 16000 {
		t.Errorf("%+v", r)
	}
	if len(m.samples) > int(Window/(100*time.Millisecond))+2 {
		t.Errorf("%d samples kept", len(m.samples))
	}
}

func TestNil(t *testing.T) {
	t.Parallel()
	var m *Meter
	m.AddBytes(1)
	m.AddFiles(1)
	m.AddSent(1)
	m.SetTotals(1, 1)
	if r := m.Report(); r.Bytes != 0 || r.ETA >= 0 {
		t.Errorf("%+v", r)
	}
	Watcher(nil).Tell(Event{})
}

func TestFractionOfFiles(t *testing.T) {
	t.Parallel()
	if f := (Report{TotalsKnown: true, TotalFiles: 4, Files: 1}).Fraction(); f != 0.25 {
		t.Error(f)
	}
	if f := (Report{TotalsKnown: true}).Fraction(); f != 1 {
		t.Error(f)
	}
}

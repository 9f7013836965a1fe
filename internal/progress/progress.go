// Package progress is the vocabulary in which long work tells how far it is:
// counters that workers add to, reports that a surface draws, and the events
// that are worth a line. It knows nothing of terminals or JSON, and of no
// command in particular.
package progress

import (
	"sync"
	"sync/atomic"
	"time"
)

// Meter counts what was done. All methods are safe for concurrent use; adding
// is a single atomic operation. A nil *Meter counts nothing, so that callers
// need not ask whether anybody watches.
type Meter struct {
	clock func() time.Time
	start time.Time

	bytes, files           atomic.Int64
	sent                   atomic.Int64
	totalBytes, totalFiles atomic.Int64
	totalsKnown            atomic.Bool

	mu      sync.Mutex
	samples []sample // oldest first, of the last Window
}

type sample struct {
	at    time.Time
	bytes int64
}

// Window is how far back the rate looks.
const Window = 20 * time.Second

// New returns a meter that starts now. A nil clock is time.Now.
func New(clock func() time.Time) *Meter {
	if clock == nil {
		clock = time.Now
	}
	now := clock()
	return &Meter{clock: clock, start: now, samples: []sample{{at: now}}}
}

// AddBytes counts n bytes of data worked off.
func (m *Meter) AddBytes(n int64) {
	if m != nil {
		m.bytes.Add(n)
	}
}

// AddFiles counts n files worked off.
func (m *Meter) AddFiles(n int64) {
	if m != nil {
		m.files.Add(n)
	}
}

// AddSent counts n bytes that went over the line (compressed, encrypted).
func (m *Meter) AddSent(n int64) {
	if m != nil {
		m.sent.Add(n)
	}
}

// SetTotals says how much there is to do. It may be called again when more is
// known; before the first call there is neither a total nor an ETA.
func (m *Meter) SetTotals(bytes, files int64) {
	if m != nil {
		m.totalBytes.Store(bytes)
		m.totalFiles.Store(files)
		m.totalsKnown.Store(true)
	}
}

// Report is how far the work is.
type Report struct {
	Bytes, Files           int64
	Sent                   int64 // bytes over the line
	TotalsKnown            bool
	TotalBytes, TotalFiles int64         // meaningful if TotalsKnown
	Elapsed                time.Duration // since New
	Rate                   float64       // bytes a second over the last Window; 0 while unknown
	ETA                    time.Duration // until TotalBytes at Rate; negative: unknown
}

// Report tells how far the work is now. The rate is that since the oldest
// earlier Report (or New) of the last Window; it is meant to be called a few
// times a second.
func (m *Meter) Report() Report {
	if m == nil {
		return Report{ETA: -1}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	now := m.clock()
	r := Report{
		Bytes: m.bytes.Load(), Files: m.files.Load(), Sent: m.sent.Load(),
		TotalsKnown: m.totalsKnown.Load(),
		TotalBytes:  m.totalBytes.Load(), TotalFiles: m.totalFiles.Load(),
		Elapsed: max(now.Sub(m.start), 0),
		ETA:     -1,
	}
	// The newest sample at least a window old stays: it is where the window begins.
	for len(m.samples) > 1 && now.Sub(m.samples[1].at) >= Window {
		m.samples = m.samples[1:]
	}
	from := m.samples[0]
	if dt := now.Sub(from.at).Seconds(); dt > 0 {
		r.Rate = max(float64(r.Bytes-from.bytes)/dt, 0)
	}
	// One sample in 100 ms is enough, whatever the drawing rate.
	if last := m.samples[len(m.samples)-1]; now.Sub(last.at) >= 100*time.Millisecond {
		m.samples = append(m.samples, sample{now, r.Bytes})
	}
	if r.TotalsKnown {
		left := r.TotalBytes - r.Bytes
		switch {
		case left <= 0:
			r.ETA = 0
		case r.Rate > 0:
			if s := float64(left) / r.Rate; s < (1 << 33) { // 270 years
				r.ETA = time.Duration(s * float64(time.Second))
			}
		}
	}
	return r
}

// Fraction is how much of the work is done, 0 to 1; negative: unknown. Bytes
// count where there are any, else files.
func (r Report) Fraction() float64 {
	switch {
	case !r.TotalsKnown:
		return -1
	case r.TotalBytes > 0:
		return min(float64(r.Bytes)/float64(r.TotalBytes), 1)
	case r.TotalFiles > 0:
		return min(float64(r.Files)/float64(r.TotalFiles), 1)
	}
	return 1
}

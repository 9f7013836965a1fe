package restore

import (
	"slices"
	"sync"

	"github.com/firn-backup/firn/internal/extract"
	"github.com/firn-backup/firn/internal/transfer"
)

// states remembers for each file with content, in the order of contents, how what is there
// compares with it: two bits each. It stays empty when nothing was there.
type states struct {
	bits []byte
	n    int
}

func (s *states) add(v extract.State) {
	if s.n%4 == 0 {
		s.bits = append(s.bits, 0)
	}
	s.bits[s.n/4] |= byte(v) << (s.n % 4 * 2)
	s.n++
}

func (s *states) get(i int) extract.State {
	if i >= s.n {
		return extract.Absent
	}
	return extract.State(s.bits[i/4] >> (i % 4 * 2) & 3)
}

// counter takes what comes from other goroutines.
type counter struct {
	mu      sync.Mutex
	n       int64
	damages []transfer.Damage
	more    int
}

// maxDamages bounds what is kept of damaged leaves between two looks at them.
const maxDamages = 1000

func (c *counter) add(n int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.n += n
}

func (c *counter) bytes() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.n
}

func (c *counter) damage(d transfer.Damage) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.damages) < maxDamages {
		c.damages = append(c.damages, d)
	} else {
		c.more++
	}
}

// damagedIn says whether damage to an archive was seen and not taken yet.
func (c *counter) damagedIn(archive string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.ContainsFunc(c.damages, func(d transfer.Damage) bool { return d.Archive == archive })
}

func (c *counter) takeDamages() (ds []transfer.Damage, more int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	ds, more, c.damages, c.more = c.damages, c.more, nil, 0
	return ds, more
}

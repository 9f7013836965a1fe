package retrieval

import (
	"slices"
	"sync"

	"github.com/firn-backup/firn/internal/transfer"
)

// maxDamages bounds what a Tally keeps of damaged leaves between two looks at them.
const maxDamages = 1000

// Tally takes what a Desk tells from other goroutines: bytes read, and damaged
// leaves, until somebody looks. The zero value is empty. Safe for concurrent use.
type Tally struct {
	mu      sync.Mutex
	n       int64
	damages []transfer.Damage
	more    int
}

// Add counts n bytes read.
func (c *Tally) Add(n int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.n += n
}

// Bytes is how many were read.
func (c *Tally) Bytes() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.n
}

// Damage notes a damaged leaf.
func (c *Tally) Damage(d transfer.Damage) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.damages) < maxDamages {
		c.damages = append(c.damages, d)
	} else {
		c.more++
	}
}

// DamagedIn says whether damage to an archive was noted and not taken yet.
func (c *Tally) DamagedIn(archive string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.ContainsFunc(c.damages, func(d transfer.Damage) bool { return d.Archive == archive })
}

// TakeDamages returns what was noted since the last time, and how much more there was than is kept.
func (c *Tally) TakeDamages() (ds []transfer.Damage, more int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	ds, more, c.damages, c.more = c.damages, c.more, nil, 0
	return ds, more
}

package plan

import (
	"cmp"
	"slices"
	"time"
)

// chain is a full snapshot and all that is based on it; or what is based on one that is not there.
type chain struct {
	snaps  []Snapshot // in order, the root first, or those without a base that is there
	whole  bool       // it has its root, and all its snapshots are complete
	usable int        // so many of its snapshots can be restored
	newest Snapshot   // of the usable ones, in order; the zero one where there is none
	going  bool       // an attempt builds on it
}

func (c *chain) first() Snapshot { return c.snaps[0] }
func (c *chain) tip() Snapshot   { return c.newest }

// latest is the newest date in the chain.
func (c *chain) latest() time.Time {
	var t time.Time
	for _, s := range c.snaps {
		if s.At.After(t) {
			t = s.At
		}
	}
	return t
}

// forest is the chains of a set, in the order of their first snapshots.
type forest struct {
	order  func(a, b Snapshot) int
	chains []*chain
}

// grow sorts snapshots into chains. Those that are not complete and that no complete one is based on are
// left out: attempts.
func grow(h []Snapshot, byDate bool) *forest {
	f := &forest{order: func(a, b Snapshot) int { return cmp.Or(cmp.Compare(a.N, b.N), cmp.Compare(a.ID, b.ID)) }}
	if byDate {
		byN := f.order
		f.order = func(a, b Snapshot) int { return cmp.Or(a.At.Compare(b.At), byN(a, b)) }
	}
	byID := make(map[string]*Snapshot, len(h))
	for i := range h {
		byID[h[i].ID] = &h[i]
	}
	based := map[string]bool{}
	for _, s := range h {
		if s.Complete && s.Base != "" {
			based[s.Base] = true
		}
	}
	roots := map[string]*chain{}
	var attempts []string // what they go on
	good := map[string]bool{}
	for i := range h {
		s := &h[i]
		root, ok := rootOf(s, byID)
		if !s.Complete && !based[s.ID] {
			attempts = append(attempts, root)
			continue
		}
		good[s.ID] = ok
		c := roots[root]
		if c == nil {
			c = &chain{whole: true}
			roots[root] = c
			f.chains = append(f.chains, c)
		}
		c.snaps = append(c.snaps, *s)
	}
	for _, root := range attempts {
		if c := roots[root]; c != nil {
			c.going = true
		}
	}
	for _, c := range f.chains {
		slices.SortFunc(c.snaps, f.order)
		for _, s := range c.snaps {
			c.whole = c.whole && good[s.ID]
			if good[s.ID] {
				c.usable++
				c.newest = s
			}
		}
		c.rootFirst()
	}
	slices.SortFunc(f.chains, func(a, b *chain) int { return f.order(a.first(), b.first()) })
	return f
}

// rootFirst puts the full snapshot first, where there is one: by date something filed later may come before it.
func (c *chain) rootFirst() {
	if i := slices.IndexFunc(c.snaps, func(s Snapshot) bool { return s.Base == "" }); i > 0 {
		root := c.snaps[i]
		c.snaps = slices.Insert(slices.Delete(c.snaps, i, i+1), 0, root)
	}
}

// rootOf is the snapshot, or the missing base, that s stands on in the end, and whether s can be
// restored: all the way down is there and complete.
func rootOf(s *Snapshot, byID map[string]*Snapshot) (root string, ok bool) {
	ok = true
	for steps := 0; ; steps++ {
		ok = ok && s.Complete
		if s.Base == "" {
			return s.ID, ok
		}
		base := byID[s.Base]
		if base == nil || steps > len(byID) { // no root, or a circle
			return s.Base, false
		}
		s = base
	}
}

// newestUsable is the chain that a new snapshot would go on: of those that have their root, the one with the newest root. Nil: none.
func (f *forest) newestUsable() *chain {
	for _, c := range slices.Backward(f.chains) {
		if c.usable > 0 {
			return c
		}
	}
	return nil
}

// lastBefore is the snapshot with the newest date up to now. One of the future was made by a clock that was wrong:
// it must not keep others from being made.
func (f *forest) lastBefore(now time.Time) (last Snapshot, any bool) {
	for _, c := range f.chains {
		for _, s := range c.snaps {
			if s.Complete && !s.At.After(now) && (!any || s.At.After(last.At)) {
				last, any = s, true
			}
		}
	}
	return last, any
}

// deletionOrder are the ids of a chain, each before what it is based on.
func (c *chain) deletionOrder() []string {
	depth := map[string]int{}
	byID := map[string]*Snapshot{}
	for i := range c.snaps {
		byID[c.snaps[i].ID] = &c.snaps[i]
	}
	for _, s := range c.snaps {
		id, n := s.ID, 0
		for s.Base != "" && byID[s.Base] != nil && n <= len(c.snaps) {
			s = *byID[s.Base]
			n++
		}
		depth[id] = n
	}
	list := slices.Clone(c.snaps)
	slices.Reverse(list)
	slices.SortStableFunc(list, func(a, b Snapshot) int { return depth[b.ID] - depth[a.ID] })
	ids := make([]string, len(list))
	for i, s := range list {
		ids[i] = s.ID
	}
	return ids
}

package restore

import (
	"github.com/firn-backup/firn/internal/extract"
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

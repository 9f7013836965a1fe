package plan

import (
	"testing"

	"github.com/firn-backup/firn/internal/snapshot"
)

// TestBefore: where another program's last snapshot is known, a set that has none of its own is due when that program would have
// made the next, and begins with a full one.
func TestBefore(t *testing.T) {
	p := btrsend(t)
	for _, tt := range []struct {
		before, now string
		due         bool
	}{
		{"", "2023-01-08", true}, {"2023-01-07", "2023-01-08", false}, {"2023-01-07", "2023-01-07", false}, {"2023-01-07", "2023-01-14", true},
		{"2023-01-01", "2023-01-14", true}, {"2031-01-01", "2023-01-08", true},
	} {
		if p.Before = date(t, "0001-01-01"); tt.before != "" {
			p.Before = date(t, tt.before)
		}
		d := Decide(date(t, tt.now), p, nil, Rules{})
		if d.Due != tt.due || d.Kind != snapshot.Full {
			t.Errorf("last %q, now %s: due %v, %v (%s)", tt.before, tt.now, d.Due, d.Kind, d.Reason)
		}
	}
}

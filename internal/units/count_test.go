package units_test

import (
	"testing"

	"github.com/firn-backup/firn/internal/units"
)

func TestCount(t *testing.T) {
	t.Parallel()
	for _, x := range []struct {
		n    int64
		one  string
		want string
	}{{0, "archive", "0 archives"}, {1, "archive", "1 archive"}, {2, "entry", "2 entries"}, {1, "entry", "1 entry"}, {1234, "problem", "1234 problems"}} {
		if got := units.Count(x.n, x.one); got != x.want {
			t.Errorf("%d %s: %q", x.n, x.one, got)
		}
	}
}

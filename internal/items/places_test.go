package items

import (
	"testing"
	"time"

	"github.com/firn-backup/firn/internal/catalog"
)

// Of a file and what is below it the one that was stored last comes back, also where one run seems to have stored both.
func TestPlacesInOneRun(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		file, below time.Duration
		want        string
	}{{0, time.Minute, "d/x"}, {time.Minute, 0, "d"}} {
		r := &restorer{o: RestoreOptions{Observe: silentRestore{}}}
		kept := r.places([]wanted{
			{Item: catalog.Item{Path: "d", N: 1, Stored: at.Add(c.file)}},
			{Item: catalog.Item{Path: "d/x", N: 1, Stored: at.Add(c.below)}},
		})
		if len(kept) != 1 || kept[0].Path != c.want {
			t.Errorf("%+v, not %s", kept, c.want)
		}
	}
}

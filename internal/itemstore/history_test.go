package itemstore

import (
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/firn-backup/firn/internal/catalog"
)

// As of any time that is in no run, the versions that runs tell of are those that had been stored last by then; and what runs
// have are those versions.
func TestHistory(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
		first := rapid.Uint64Range(0, 3).Draw(t, "first")
		lists := make([][]catalog.Item, rapid.IntRange(1, 6).Draw(t, "paths"))
		for l := range lists {
			for range rapid.IntRange(1, 5).Draw(t, "versions") {
				at := start.Add(time.Duration(rapid.IntRange(0, 400).Draw(t, "minutes")) * time.Minute)
				lists[l] = append(lists[l], catalog.Item{Path: string(rune('a' + l)), Stored: at, Plain: int64(len(lists[l]) + 1)})
			}
			slices.SortStableFunc(lists[l], func(a, b catalog.Item) int { return a.Stored.Compare(b.Stored) })
		}
		times := History(first, lists)
		runs := make([]catalog.ItemRun, len(times))
		for k, at := range times {
			runs[k] = catalog.ItemRun{N: first + uint64(k) + 1, At: at}
			if k > 0 && at.Before(times[k-1]) {
				t.Fatalf("run %d is older than the one before", k)
			}
		}
		all := slices.Concat(lists...)
		Totals(runs, all)
		for k, run := range runs {
			var items, bytes int64
			for _, list := range lists {
				var want *catalog.Item
				for i := range list {
					if list[i].N <= run.N {
						want = &list[i]
					}
					if list[i].N <= first || i > 0 && (list[i].N <= list[i-1].N || list[i-1].Until != list[i].N) {
						t.Fatalf("numbers of %+v", list)
					}
				}
				if want == nil {
					continue
				}
				items++
				bytes += want.Plain
				for i := range list {
					if list[i].Stored.Before(run.At) && list[i].N > run.N || list[i].Stored.After(run.At) && list[i].N <= run.N {
						t.Fatalf("as of run %d, %s: %+v", k, run.At, list)
					}
				}
			}
			if run.Items != items || run.Bytes != bytes {
				t.Fatalf("run %+v has %d items of %d bytes", run, items, bytes)
			}
		}
	})
}

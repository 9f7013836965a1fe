package itemstore

import (
	"cmp"
	"io"
	"slices"
	"time"

	"github.com/firn-backup/firn/internal/catalog"
	"github.com/firn-backup/firn/internal/snapshot"
)

// runGap is how far apart in time archives may be that one run stored one after the other. Too short a gap makes more runs of one,
// which does no harm; too long a one would make one of several, whose times then cannot be told apart.
const runGap = 10 * time.Minute

// History gives versions of which nothing is known but when they were stored the runs that may have stored them: N, from first+1 on, Until
// and Listed are set. Each list is of one path, its oldest version first; a list's order counts where times say otherwise. What was stored as of any time
// between two runs is then told rightly. It returns the times of the runs, the last one's version of each path being the current one.
func History(first uint64, lists [][]catalog.Item) []time.Time {
	type version struct {
		at      time.Time
		list, k int
	}
	var all []version
	for l, list := range lists {
		var at time.Time
		for k, i := range list {
			if i.Stored.After(at) {
				at = i.Stored
			}
			all = append(all, version{at, l, k})
		}
	}
	slices.SortFunc(all, func(a, b version) int {
		return cmp.Or(a.at.Compare(b.at), cmp.Compare(a.k, b.k), cmp.Compare(a.list, b.list))
	})
	var runs []time.Time
	for _, v := range all {
		list := lists[v.list]
		taken := v.k > 0 && len(runs) > 0 && list[v.k-1].N == first+uint64(len(runs))
		if len(runs) == 0 || taken || v.at.Sub(runs[len(runs)-1]) > runGap {
			runs = append(runs, v.at)
		}
		runs[len(runs)-1] = v.at
		i := &list[v.k]
		i.N, i.Until = first+uint64(len(runs)), 0
		i.Listed = i.N
		if v.k > 0 {
			list[v.k-1].Until = i.N
		}
	}
	return runs
}

// Totals fills in what runs stored, and what there was after each of them. The runs are in the order of their numbers.
func Totals(runs []catalog.ItemRun, items []catalog.Item) {
	type change struct{ items, bytes int64 }
	at := func(n uint64) int { // the first run of that number or a later one
		k, _ := slices.BinarySearchFunc(runs, n, func(r catalog.ItemRun, n uint64) int { return cmp.Compare(r.N, n) })
		return k
	}
	changes := make([]change, len(runs)+1)
	for k := range items {
		i := &items[k]
		from := at(i.N)
		if from < len(runs) && runs[from].N == i.N {
			runs[from].New++
			runs[from].Sent += i.Archive.Size
		}
		changes[from].items++
		changes[from].bytes += i.Size()
		if i.Until != 0 {
			until := max(from, at(i.Until))
			changes[until].items--
			changes[until].bytes -= i.Size()
		}
	}
	var now change
	for k := range runs {
		now.items += changes[k].items
		now.bytes += changes[k].bytes
		runs[k].Items, runs[k].Bytes = now.items, now.bytes
	}
}

// historyRuns are runs with the numbers after first, of those times.
func (o *Options) historyRuns(first uint64, times []time.Time) ([]catalog.ItemRun, error) {
	runs := make([]catalog.ItemRun, len(times))
	for k, at := range times {
		id, err := runID(at, o.Now(), o.Rand)
		if err != nil {
			return nil, err
		}
		runs[k] = catalog.ItemRun{SetID: o.Set.ID, N: first + uint64(k) + 1, ID: id, Vault: o.Vault, At: at}
	}
	return runs, nil
}

// runID is the id of a run of some time in the past.
func runID(at, now time.Time, rand io.Reader) (string, error) {
	if at.Unix() <= 0 {
		at = now
	}
	return snapshot.NewID(at, rand)
}

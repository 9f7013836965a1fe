package items

import (
	"cmp"
	"fmt"

	"github.com/firn-backup/firn/internal/snapshot"
)

// places leaves out what cannot be on disk together: a file and files below it. That is stored of a mirror where a directory became a file, or a
// file a directory, and what was there is not believed to be gone (mirror.Withheld). What was stored last comes back, and the rest is told
// of. The list is in the order of paths.
func (r *restorer) places(list []wanted) []wanted {
	drop := make([]bool, len(list))
	for k, file := range list {
		end, newer := k+1, false
		for ; end < len(list) && snapshot.Below(list[end].Path, file.Path); end++ {
			// Runs that were made up of archives' times may have stored both.
			newer = newer || cmp.Or(cmp.Compare(list[end].N, file.N), list[end].Stored.Compare(file.Stored)) > 0
		}
		if end == k+1 {
			continue
		}
		if newer {
			drop[k] = true
			r.problem(file.Path, fmt.Errorf("it is a directory in newer versions, which are restored; SET@WHEN of before has it"))
			continue
		}
		for below := k + 1; below < end; below++ {
			if !drop[below] {
				drop[below] = true
				r.problem(list[below].Path, fmt.Errorf("%s is a file in a newer version, which is restored; SET@WHEN of before has this", file.Path))
			}
		}
	}
	kept := list[:0]
	for k, w := range list {
		if !drop[k] {
			kept = append(kept, w)
		}
	}
	return kept
}

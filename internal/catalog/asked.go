package catalog

import (
	"cmp"
	"slices"
	"sync"

	"github.com/firn-backup/firn/internal/coldstore"
)

// askedFor are the changes of retrievals that a catalog which is read-only remembers while it is
// open: a restore from it asks for nothing twice. What a later run does not know it asks the
// vault for again, which answers with what is under way.
type askedFor struct {
	mu  sync.Mutex
	now map[askedKey]*coldstore.Retrieval // nil: dropped
}

type askedKey struct{ vault, token string }

func (a *askedFor) put(r SavedRetrieval) {
	a.set(askedKey{r.Vault, r.Token}, &r.Retrieval)
}

func (a *askedFor) drop(vault, token string) { a.set(askedKey{vault, token}, nil) }

func (a *askedFor) set(k askedKey, r *coldstore.Retrieval) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.now == nil {
		a.now = map[askedKey]*coldstore.Retrieval{}
	}
	a.now[k] = r
}

// over is list, which is of a vault, and of an archive of it unless that is empty, with the changes made.
func (a *askedFor) over(list []coldstore.Retrieval, vault, archive string) []coldstore.Retrieval {
	a.mu.Lock()
	defer a.mu.Unlock()
	list = slices.DeleteFunc(list, func(r coldstore.Retrieval) bool {
		_, changed := a.now[askedKey{vault, r.Token}]
		return changed
	})
	for k, r := range a.now {
		if k.vault == vault && r != nil && (archive == "" || r.Archive == archive) {
			list = append(list, *r)
		}
	}
	slices.SortFunc(list, func(x, y coldstore.Retrieval) int {
		return cmp.Or(x.Requested.Compare(y.Requested), cmp.Compare(x.Token, y.Token))
	})
	return list
}

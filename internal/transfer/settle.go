package transfer

import (
	"context"
	"errors"
	"fmt"

	"github.com/firn-backup/firn/internal/coldstore"
)

// Settle finishes an upload of which an earlier process wrote down Pending: it repeats
// the completion. coldstore.ErrNotFound: it never happened and cannot any more.
//
// A store forgets a completed upload after a while. So when it does not know
// the upload, the archive itself is looked for: by its name where names are
// kept, otherwise by its tree hash in the listing, if s can tell of archives
// (coldstore.Stater, coldstore.Lister). Where the listing lags, ErrNotFound is
// true of the listing only; an archive that turns up later is a stray.
func Settle(ctx context.Context, s coldstore.Uploader, p Pending, o Options) (coldstore.Archive, error) {
	o = o.withDefaults()
	a, err := complete(ctx, s, p, o)
	if errors.Is(err, coldstore.ErrNotFound) {
		a, err = find(ctx, s, p, o, err)
	}
	if err != nil {
		return coldstore.Archive{}, err // it names the upload or the archive
	}
	return a, nil
}

// find looks for the archive that p became. notFound is returned when there is none.
func find(ctx context.Context, s coldstore.Uploader, p Pending, o Options, notFound error) (coldstore.Archive, error) {
	var found coldstore.Archive
	var err error
	l, ok := s.(coldstore.Lister)
	if !ok {
		return found, notFound
	}
	named := l.Traits().NamesKept && p.Name != ""
	if st, ok := s.(coldstore.Stater); ok && named {
		err = retry(ctx, o, func() (err error) {
			found, err = st.Stat(ctx, p.Name)
			return err
		})
		if errors.Is(err, coldstore.ErrNotFound) {
			return found, notFound
		}
	} else {
		err = retry(ctx, o, func() error {
			found = coldstore.Archive{}
			_, err := l.List(ctx, func(a coldstore.Archive) error {
				if (named && a.ID == p.Name) || (!named && a.TreeHash == p.TreeHash && a.Size == p.Size) {
					found = a
				}
				return nil
			})
			return err
		})
		if err == nil && found.ID == "" || errors.Is(err, coldstore.ErrNotReady) {
			return found, notFound
		}
	}
	switch {
	case err != nil:
		return found, err
	case found.Size != p.Size || !found.TreeHash.IsZero() && found.TreeHash != p.TreeHash:
		return found, fmt.Errorf("archive %s is there with %d bytes of tree hash %s, and %d of %s were sent: %w",
			found.ID, found.Size, found.TreeHash, p.Size, p.TreeHash, coldstore.ErrIntegrity)
	}
	found.TreeHash = p.TreeHash
	return found, nil
}

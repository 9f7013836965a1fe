package glacierserver

import (
	"context"
	"crypto/rand"
	"errors"
	"math/bits"
	"net/http"

	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/internal/coldstore/localdir"
	"github.com/firn-backup/firn/internal/snapshot"
	"github.com/firn-backup/firn/treehash"
)

const (
	minPart        = 1 << 20
	maxPart        = 4 << 30
	maxDescription = 1024
)

func (q *request) description() (string, error) {
	d := q.r.Header.Get("X-Amz-Archive-Description")
	return d, checkText("x-amz-archive-description", d)
}

// checkText holds descriptions to printable ASCII of at most 1,024 characters.
func checkText(what, d string) error {
	if len(d) > maxDescription {
		return invalid("Invalid %s: it has %d characters, of at most %d", what, len(d), maxDescription)
	}
	for i := range len(d) {
		if d[i] < 0x20 || d[i] > 0x7e {
			return invalid("Invalid %s: it is not printable ASCII", what)
		}
	}
	return nil
}

func (q *request) uploadArchive() error {
	a, err := q.storeArchive()
	if err != nil {
		return err
	}
	return q.stored(a)
}

// stored answers with a new archive.
func (q *request) stored(a coldstore.Archive) error {
	id := q.v.wire(a.ID)
	q.header("Location", q.location("/archives/"+id))
	q.header("x-amz-sha256-tree-hash", a.TreeHash.String())
	q.header("x-amz-archive-id", id)
	return q.empty(http.StatusCreated)
}

// storeArchive stores the body as an archive: an upload of one part in the store.
func (q *request) storeArchive() (coldstore.Archive, error) {
	var none coldstore.Archive
	description, err := q.description()
	if err != nil {
		return none, err
	}
	data, size, hash, err := q.data()
	if err != nil {
		return none, err
	}
	name, err := snapshot.NewID(q.now, rand.Reader)
	if err != nil {
		return none, err
	}
	if err := q.v.touch(); err != nil {
		return none, err
	}
	// From here on a client that goes away no longer matters to what is written, only to what is read.
	ctx := context.WithoutCancel(q.r.Context())
	partSize := int64(max(minPart, 1<<bits.Len64(uint64(size-1))))
	u, err := q.v.store.CreateUpload(ctx, coldstore.NewArchive{Name: name, Description: description}, partSize)
	if err != nil {
		return none, err
	}
	if err := q.v.store.PutPartFrom(ctx, u.ID, 0, data, size, hash); err != nil {
		return none, errors.Join(mismatch(err), q.v.store.AbortUpload(ctx, u.ID))
	}
	return q.v.complete(ctx, u.ID, size, hash)
}

// complete makes an upload an archive, unless the vault is being deleted.
func (v *vault) complete(ctx context.Context, upload string, size int64, hash treehash.Hash) (coldstore.Archive, error) {
	v.use.RLock()
	defer v.use.RUnlock()
	if v.deleted {
		return coldstore.Archive{}, notFound("The vault was deleted: %s", v.name)
	}
	a, err := v.store.CompleteUpload(ctx, upload, size, hash)
	if err != nil {
		return a, err
	}
	return a, v.touch() // an inventory may have been made meanwhile
}

// mismatch says a wrong tree hash in the API's words.
func mismatch(err error) error {
	var h *localdir.HashMismatch
	if errors.As(err, &h) {
		return invalid("Checksum mismatch: expected %s, computed %s", h.Want, h.Got)
	}
	return cold(err)
}

func (q *request) deleteArchive() error {
	name, err := q.v.archive(q.r.Context(), q.arg)
	switch {
	case errors.Is(err, errBadID):
		return invalid("Invalid vault name: %s", q.arn(q.vaultName))
	case errors.Is(err, coldstore.ErrNotFound):
		return q.empty(http.StatusNoContent)
	case err != nil:
		return err
	}
	a, err := q.v.store.Stat(q.r.Context(), name)
	switch {
	case errors.Is(err, coldstore.ErrNotFound):
		return q.empty(http.StatusNoContent)
	case err != nil && !errors.Is(err, coldstore.ErrIntegrity):
		return err
	}
	if err := q.authorize(&a); err != nil {
		return err
	}
	if err := q.v.touch(); err != nil {
		return err
	}
	ctx := context.WithoutCancel(q.r.Context())
	if err := q.v.settleJobs(name, q.now); err != nil {
		return err
	}
	if err := q.v.store.Delete(ctx, name); err != nil && !errors.Is(err, coldstore.ErrNotFound) {
		return err
	}
	if err := q.v.touch(); err != nil {
		return err
	}
	return q.empty(http.StatusNoContent)
}

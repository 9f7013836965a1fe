// Package transfer moves bytes between memory and a vault: multipart uploads
// with parallel parts and bounded memory, verified ranged reads, retries with
// backoff. It knows parts and hashes and nothing of what is in them.
package transfer

import (
	"context"
	"io"
	"time"

	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/internal/manifest"
	"github.com/firn-backup/firn/treehash"
)

// Options say how to move. The zero value works.
type Options struct {
	PartSize int64 // bytes, a power of two of MiBs: 16 MiB
	Parallel int   // parts in flight: 2. Memory: (Parallel + 1) × PartSize
	Retries  int   // attempts after the first of a part, a completion or a read: 5
	// Sleep waits between attempts; tests replace it. Nil: a timer.
	Sleep func(ctx context.Context, d time.Duration) error
	// Sent, if set, is called after each acknowledged part with its bytes, from several goroutines.
	Sent func(bytes int64)
}

// Pending is an upload whose parts are all there and which is about to be
// completed: what must be written down before, so that a kill at that instant loses nothing.
type Pending struct {
	UploadID string
	Name     string
	Size     int64
	TreeHash treehash.Hash
	Leaves   []treehash.Hash
}

// Upload is one archive being uploaded. One goroutine writes.
type Upload struct{}

// NewUpload begins an upload; nothing is sent before the first bytes.
func NewUpload(ctx context.Context, s coldstore.Uploader, a coldstore.NewArchive, o Options) *Upload {
	panic("not yet")
}

func (u *Upload) Write(p []byte) (int, error) { panic("not yet") }

// Complete sends the last part, calls before (if not nil) with what is about to be completed, and
// completes. The archive is stored when it returns without error.
func (u *Upload) Complete(ctx context.Context, before func(Pending) error) (coldstore.Archive, error) {
	panic("not yet")
}

// Abort gives the upload up.
func (u *Upload) Abort(ctx context.Context) error { panic("not yet") }

// Settle finishes an upload of which an earlier process wrote down Pending: it repeats
// the completion. coldstore.ErrNotFound: it never happened and cannot any more.
func Settle(ctx context.Context, s coldstore.Store, p Pending, o Options) (coldstore.Archive, error) {
	panic("not yet")
}

// Damage tells of a MiB whose bytes do not have the hash that the manifest gives.
type Damage struct {
	Archive string
	Offset  int64
	Size    int64
}

// NewReaderAt reads a volume's archive through retrievals that are ready,
// serving header and tail from v where they were not retrieved. Leaves are checked where
// v has them; a leaf that is wrong twice is reported to damaged (may be nil) and served as it
// is, so that what is whole of it can still be used. It reads ahead for
// sequential use, with at most 8 MiB in memory, and is safe for concurrent use.
func NewReaderAt(ctx context.Context, s coldstore.Retriever, v *manifest.Volume, rs []coldstore.Retrieval, o Options, damaged func(Damage)) io.ReaderAt {
	panic("not yet")
}

// Stream reads a whole archive in order through a retrieval that covers it, with
// retries that go on where the last one broke off. Size and hash are checked at the end
// (coldstore.ErrIntegrity instead of io.EOF) when hash is not zero.
func Stream(ctx context.Context, s coldstore.Retriever, r coldstore.Retrieval, size int64, hash treehash.Hash, o Options) io.ReadCloser {
	panic("not yet")
}

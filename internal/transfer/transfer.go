// Package transfer moves bytes between memory and a vault: multipart uploads
// with parallel parts and bounded memory, verified ranged reads, retries with
// backoff. It knows parts and hashes and nothing of what is in them.
package transfer

import (
	"context"
	"time"

	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/treehash"
)

const (
	// DefaultPartSize is the size of parts in bytes where nothing asks for another.
	DefaultPartSize = 16 << 20
	// DefaultParallel is how many parts are in flight.
	DefaultParallel = 2
	// DefaultRetries is the number of attempts after the first.
	DefaultRetries = 5

	mib = 1 << 20
)

// Options say how to move. The zero value works.
type Options struct {
	// PartSize is a power of two of MiBs, in bytes. 0: 16 MiB, or what the store's Traits allow that is
	// nearest to it, doubled until Expect fits into the number of parts that the store takes.
	PartSize int64
	Parallel int // parts in flight: 2. Memory: (Parallel + 1) × PartSize
	Retries  int // attempts after the first of a part, a completion or a read: 5; negative: none

	// Expect is the size in bytes that an archive may come to, when PartSize is
	// 0. It does not limit anything. 0: not known.
	Expect int64
	// Pool is where part buffers come from. Uploads that follow one another should share
	// one, and so stay within the memory of one. Nil: a pool for each upload.
	Pool *Pool

	// Continue is an upload that an earlier run began, to go on with, and Have what ListParts tells of it: a
	// part of the same bytes is not sent again, and one of others is ErrOtherParts. Nil: begin one.
	Continue *coldstore.Upload
	Have     []coldstore.Part
	// Begun, if set, is told of an upload when it was begun, before any of its parts is sent; its error ends the upload.
	Begun func(coldstore.Upload) error

	// Deferred says that nobody will go on with the parts if the upload is interrupted: a store that takes
	// them faster then (coldstore.PartDeferrer) makes them last all at once, before the completion.
	Deferred bool

	// Limit holds everything that shares it to a rate. Nil: no limit.
	Limit *Limiter

	// Sleep waits between attempts; tests replace it. Nil: a timer.
	Sleep func(ctx context.Context, d time.Duration) error
	// Sent, if set, is called after each acknowledged part with its bytes, from several goroutines.
	Sent func(bytes int64)
}

func (o Options) withDefaults() Options {
	if o.Parallel <= 0 {
		o.Parallel = DefaultParallel
	}
	switch {
	case o.Retries == 0:
		o.Retries = DefaultRetries
	case o.Retries < 0:
		o.Retries = 0
	}
	if o.Sleep == nil {
		o.Sleep = Sleep
	}
	return o
}

// Sleep waits by the real clock, unless ctx is done before: then it returns why.
func Sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
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

// Damage tells of bytes that do not have the hash that the manifest gives for
// their MiB, in two readings.
type Damage struct {
	Archive string
	Offset  int64
	Size    int64
}

// A Pool lends part buffers. It makes them when they are needed and keeps them for
// the next upload. It is safe for concurrent use, but uploads that share it at
// the same time must be fewer than its buffers.
type Pool struct {
	tokens chan struct{} // one for each buffer that may be lent
	idle   chan []byte
}

// NewPool returns a pool of n buffers: Options.Parallel + 1 for one upload at a
// time. It takes no memory yet.
func NewPool(n int) *Pool {
	n = max(n, 2)
	return &Pool{tokens: make(chan struct{}, n), idle: make(chan []byte, n)}
}

// get waits for an empty buffer; it grows as it is filled.
func (p *Pool) get(ctx context.Context) ([]byte, error) {
	select {
	case p.tokens <- struct{}{}:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	select {
	case b := <-p.idle:
		return b[:0], nil
	default:
		return nil, nil
	}
}

func (p *Pool) put(b []byte) {
	p.idle <- b // never blocks: there is room for every buffer
	<-p.tokens
}

// fill appends to b as much of p as fits into size bytes. Buffers grow in few steps and
// never beyond size, so that a small archive takes little memory and a large one no more than it must.
func fill(b, p []byte, size int64) ([]byte, int) {
	n := int(min(int64(len(p)), size-int64(len(b))))
	if need := int64(len(b) + n); need > int64(cap(b)) {
		grown := int64(max(cap(b), mib/4))
		for grown < need {
			grown *= 4
		}
		c := make([]byte, len(b), min(grown, size))
		copy(c, b)
		b = c
	}
	return append(b, p[:n]...), n
}

package transfer

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/treehash"
)

// ReadError is an archive that could not be read; its text names the archive.
type ReadError struct{ Err error }

func (e *ReadError) Error() string { return e.Err.Error() }
func (e *ReadError) Unwrap() error { return e.Err }

// A cursor reads a stretch of an archive in order. When the connection breaks it
// opens another where the last one broke off.
type cursor struct {
	s     coldstore.Retriever
	r     coldstore.Retrieval
	o     Options
	rc    io.ReadCloser // nil: not open
	off   int64         // of the next byte
	end   int64
	retry retrier
	since int64 // bytes since the last failure
}

func newCursor(s coldstore.Retriever, r coldstore.Retrieval, off, end int64, o Options) *cursor {
	return &cursor{s: s, r: r, o: o, off: off, end: end, retry: retrier{o: o}}
}

// Read reads up to end and returns io.EOF there.
func (c *cursor) read(ctx context.Context, p []byte) (int, error) {
	for {
		if c.off >= c.end {
			return 0, io.EOF
		}
		n, err := c.try(ctx, p)
		if n > 0 {
			// The error, if any, comes again with the next call.
			c.off += int64(n)
			if c.since += int64(n); c.since >= mib {
				c.retry.tries = 0 // it gets on: a new failure has its own attempts
			}
			if err != nil {
				c.close()
			}
			return n, nil
		}
		if err == nil {
			continue
		}
		c.close()
		c.since = 0
		if err := c.retry.again(ctx, err); err != nil {
			return 0, &ReadError{err}
		}
	}
}

func (c *cursor) try(ctx context.Context, p []byte) (int, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	if c.rc == nil {
		rc, err := c.s.OpenRetrieved(ctx, c.r, c.off, c.end-c.off)
		if err != nil {
			return 0, err
		}
		c.rc = rc
	}
	p = p[:min(int64(len(p)), c.end-c.off)]
	if step := c.o.Limit.step(); step > 0 {
		p = p[:min(len(p), step)]
	}
	n, err := c.rc.Read(p)
	if err != nil && !errors.Is(err, io.EOF) { // where it was opened, it names the archive itself
		err = fmt.Errorf("read archive %s at byte %d: %w", c.r.Archive, c.off+int64(n), err)
	}
	if n > 0 {
		// What has come has come: the next read waits for it.
		if werr := c.o.Limit.Wait(ctx, n); werr != nil {
			return 0, werr
		}
	}
	if errors.Is(err, io.EOF) {
		err = nil
		if n == 0 {
			err = fmt.Errorf("read archive %s at byte %d: %w", c.r.Archive, c.off, io.ErrUnexpectedEOF) // fewer bytes than were asked for
		}
	}
	return n, err
}

func (c *cursor) close() {
	if c.rc != nil {
		_ = c.rc.Close() // nothing of a reader is lost by that
		c.rc = nil
	}
}

// Stream reads a whole archive in order through a retrieval that covers it, with
// retries that go on where the last one broke off. Size and hash are checked when hash is not zero:
// coldstore.ErrIntegrity comes instead of the last bytes, so that nobody can have them all and miss it. It is opened by the first Read.
func Stream(ctx context.Context, s coldstore.Retriever, r coldstore.Retrieval, size int64, hash treehash.Hash, o Options) io.ReadCloser {
	st := &stream{ctx: ctx, c: newCursor(s, r, 0, size, o.withDefaults()), hash: hash}
	if !hash.IsZero() {
		st.sum = treehash.New()
	}
	return st
}

type stream struct {
	ctx  context.Context
	c    *cursor
	hash treehash.Hash
	sum  *treehash.Hasher // nil: not checked
	err  error
}

var errStreamClosed = errors.New("stream is closed")

func (st *stream) Read(p []byte) (int, error) {
	if st.err != nil {
		return 0, st.err
	}
	if len(p) == 0 {
		return 0, nil
	}
	n, err := st.c.read(st.ctx, p)
	if st.sum != nil {
		st.sum.Write(p[:n])
		if st.c.off >= st.c.end { // also where there are no bytes at all
			if got := st.sum.Sum(); got != st.hash {
				n, err = 0, fmt.Errorf("archive %s has tree hash %s and not %s: %w", st.c.r.Archive, got, st.hash, coldstore.ErrIntegrity)
			}
			st.sum = nil
		}
	}
	if err != nil {
		st.err = err
		st.c.close()
	}
	return n, err
}

// Close ends the reading, wherever it is.
func (st *stream) Close() error {
	st.c.close()
	if st.err == nil {
		st.err = errStreamClosed
	}
	return nil
}

// Section reads size bytes at offset off of an archive in order, through a retrieval that covers them, with
// retries that go on where the last one broke off. It checks no hash: that is the caller's to do. It is opened by the first Read.
func Section(ctx context.Context, s coldstore.Retriever, r coldstore.Retrieval, off, size int64, o Options) io.ReadCloser {
	return &stream{ctx: ctx, c: newCursor(s, r, off, off+size, o.withDefaults())}
}

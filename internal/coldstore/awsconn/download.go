package awsconn

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/firn-backup/firn/internal/coldstore"
)

// Download reads exactly the bytes of an answer that were asked for: io.ErrUnexpectedEOF rather than fewer, and
// coldstore.ErrTemporary when the connection breaks.
type Download struct {
	rc   io.ReadCloser
	left int64
	err  error
}

// NewDownload reads size bytes of rc, which it closes when it is closed.
func NewDownload(rc io.ReadCloser, size int64) *Download { return &Download{rc: rc, left: size} }

func (b *Download) Read(p []byte) (int, error) {
	if b.err != nil {
		return 0, b.err
	}
	if len(p) == 0 {
		return 0, nil
	}
	if b.left == 0 {
		b.err = io.EOF
		return 0, b.err
	}
	n, err := b.rc.Read(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	switch {
	case err == nil || b.left == 0:
		return n, nil
	case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
		b.err = fmt.Errorf("%d bytes are missing: %w", b.left, io.ErrUnexpectedEOF)
	case errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded):
		b.err = err
	default:
		b.err = &Error{Text: "the connection broke: " + OneLine(RootText(err)), Kinds: []error{coldstore.ErrTemporary, err}}
	}
	return n, b.err
}

func (b *Download) Close() error { return b.rc.Close() }

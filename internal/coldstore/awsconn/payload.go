package awsconn

import (
	"bytes"
	"context"
	"encoding/hex"
	"io"

	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/smithy-go/middleware"
	smithyhttp "github.com/aws/smithy-go/transport/http"
)

// payloadHash gives the SDK the hash of a body for the signature, so that it does not read the body for it.
type payloadHash string

func (payloadHash) ID() string { return "Firn:PayloadHash" }

func (h payloadHash) HandleFinalize(ctx context.Context, in middleware.FinalizeInput, next middleware.FinalizeHandler) (
	middleware.FinalizeOutput, middleware.Metadata, error,
) {
	if req, ok := in.Request.(*smithyhttp.Request); ok {
		req.Header.Set("X-Amz-Content-Sha256", string(h))
	}
	return next.HandleFinalize(v4.SetPayloadHash(ctx, string(h)), in)
}

// SignAs puts the SHA-256 of a body before the SDK's own computation of it, which then does nothing:
// left alone, the SDK makes up to three passes over every part.
func SignAs(sum [32]byte) func(*middleware.Stack) error {
	return signAs(hex.EncodeToString(sum[:]))
}

// SignUnhashed signs a request without its body, for a service that allows it on an encrypted connection.
func SignUnhashed() func(*middleware.Stack) error { return signAs("UNSIGNED-PAYLOAD") }

func signAs(text string) func(*middleware.Stack) error {
	return func(stack *middleware.Stack) error {
		return stack.Finalize.Insert(payloadHash(text), (*v4.ComputePayloadSHA256)(nil).ID(), middleware.Before)
	}
}

// NewBody reads data, and calls wait, unless it is nil, before each piece of at most 64 KiB.
func NewBody(data []byte, wait func(n int) error) io.ReadSeeker {
	r := bytes.NewReader(data)
	if wait == nil {
		return r
	}
	return &pacedBody{r, wait}
}

// NewSection is NewBody of what r has, read as it is sent.
func NewSection(r *io.SectionReader, wait func(n int) error) io.ReadSeeker {
	if wait == nil {
		wait = func(int) error { return nil }
	}
	return &pacedSection{r, wait}
}

// pacedSection has no WriteTo either.
type pacedSection struct {
	r    *io.SectionReader
	wait func(n int) error
}

func (b *pacedSection) Read(p []byte) (int, error) {
	at, err := b.r.Seek(0, io.SeekCurrent)
	if err != nil {
		return 0, err
	}
	n := int(min(int64(len(p)), b.r.Size()-at, pacedPiece))
	if n > 0 {
		if err := b.wait(n); err != nil {
			return 0, err
		}
	}
	return b.r.Read(p[:n:n])
}

func (b *pacedSection) Seek(off int64, whence int) (int64, error) { return b.r.Seek(off, whence) }

// pacedBody has no WriteTo, which would pass all of it on at once.
type pacedBody struct {
	r    *bytes.Reader
	wait func(n int) error
}

const pacedPiece = 64 << 10

func (b *pacedBody) Read(p []byte) (int, error) {
	n := min(len(p), b.r.Len(), pacedPiece)
	if n > 0 {
		if err := b.wait(n); err != nil {
			return 0, err
		}
	}
	return b.r.Read(p[:n:n])
}

func (b *pacedBody) Seek(off int64, whence int) (int64, error) { return b.r.Seek(off, whence) }

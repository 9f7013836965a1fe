package glaciervault

import (
	"bytes"
	"context"
	"encoding/hex"
	"io"

	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/service/glacier"
	"github.com/aws/smithy-go/middleware"
	smithyhttp "github.com/aws/smithy-go/transport/http"
)

// payloadHash gives the SDK the SHA-256 of a body, for the signature and for
// the header that the service wants, so that it does not read the body for it:
// left alone it makes three passes over every part (tree hash, content, signature). The
// tree hash it leaves out because the input has one.
type payloadHash [32]byte

func (payloadHash) ID() string { return "Firn:PayloadHash" }

func (h payloadHash) HandleFinalize(ctx context.Context, in middleware.FinalizeInput, next middleware.FinalizeHandler) (
	middleware.FinalizeOutput, middleware.Metadata, error,
) {
	digits := hex.EncodeToString(h[:])
	if req, ok := in.Request.(*smithyhttp.Request); ok {
		req.Header.Set("X-Amz-Content-Sha256", digits)
	}
	return next.HandleFinalize(v4.SetPayloadHash(ctx, digits), in)
}

// withPayloadHash puts it before the SDK's own computation, which then does nothing.
func withPayloadHash(sum [32]byte) func(*glacier.Options) {
	return func(o *glacier.Options) {
		o.APIOptions = append(o.APIOptions, func(stack *middleware.Stack) error {
			return stack.Finalize.Insert(payloadHash(sum), (*v4.ComputePayloadSHA256)(nil).ID(), middleware.Before)
		})
	}
}

// newPartBody reads data, and calls wait, unless it is nil, before each piece.
func newPartBody(data []byte, wait func(n int) error) io.ReadSeeker {
	r := bytes.NewReader(data)
	if wait == nil {
		return r
	}
	return &pacedBody{r, wait}
}

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

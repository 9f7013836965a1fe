package glaciervault

import (
	"context"
	"encoding/hex"

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

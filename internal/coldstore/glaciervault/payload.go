package glaciervault

import (
	"github.com/aws/aws-sdk-go-v2/service/glacier"

	"github.com/firn-backup/firn/internal/coldstore/awsconn"
)

// withPayloadHash gives the SDK the SHA-256 of a body, for the signature and for the header that the
// service wants: left alone it makes three passes over every part (tree hash, content, signature). The
// tree hash it leaves out because the input has one.
func withPayloadHash(sum [32]byte) func(*glacier.Options) {
	return func(o *glacier.Options) { o.APIOptions = append(o.APIOptions, awsconn.SignAs(sum)) }
}

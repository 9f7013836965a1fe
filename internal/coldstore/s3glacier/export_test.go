package s3glacier

import (
	"context"

	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials"
)

// OpenTest is Open with keys of its own.
func OpenTest(ctx context.Context, url string, o Options, key, secret string) (*Store, error) {
	return open(ctx, url, o, &testSeam{load: []func(*config.LoadOptions) error{
		config.WithCredentialsProvider(credentials.NewStaticCredentialsProvider(key, secret, "")),
		config.WithSharedConfigFiles([]string{}), config.WithSharedCredentialsFiles([]string{}),
	}})
}

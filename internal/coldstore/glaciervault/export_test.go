package glaciervault

import (
	"context"
	"net/http"

	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/glacier"
)

// What tests sign with.
const (
	testKey, testSecret, testToken          = "AKIDTEST", "shhh-secret", "session-token-shhh"
	KeyForTest, SecretForTest, TokenForTest = testKey, testSecret, testToken
)

func static(client *http.Client) *testSeam {
	return &testSeam{
		load: []func(*config.LoadOptions) error{
			config.WithCredentialsProvider(credentials.NewStaticCredentialsProvider(testKey, testSecret, testToken)),
			config.WithSharedConfigFiles([]string{}), config.WithSharedCredentialsFiles([]string{}),
		},
		client: func(o *glacier.Options) {
			if client != nil {
				o.HTTPClient = client
			}
		},
	}
}

// OpenTest and CreateTest are Open and Create with keys of their own; client may be nil.
func OpenTest(ctx context.Context, url string, o Options, client *http.Client) (*Store, error) {
	return open(ctx, url, o, static(client))
}

func CreateTest(ctx context.Context, url string, o Options, client *http.Client) (*Store, error) {
	return create(ctx, url, o, static(client))
}

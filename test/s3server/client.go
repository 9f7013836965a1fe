package s3server

import (
	"context"
	"crypto/rand"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
)

// Client is AWS's own client of a server, or of a proxy before it where url is not empty.
func (s *Server) Client(url string) *s3.Client {
	if url == "" {
		url = s.URL
	}
	return s3.New(s3.Options{
		BaseEndpoint: aws.String(url), Region: Region, UsePathStyle: true,
		Credentials: credentials.NewStaticCredentialsProvider(s.AccessKey, s.SecretKey, ""),
	})
}

// Bucket makes a new bucket with a name that nobody else has.
func (s *Server) Bucket(ctx context.Context) (string, error) {
	name := "firn-" + strings.ToLower(rand.Text())
	_, err := s.Client("").CreateBucket(ctx, &s3.CreateBucketInput{Bucket: aws.String(name)})
	return name, err
}

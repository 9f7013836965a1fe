// Package awsconn is what the vaults of AWS share: where credentials come
// from, connections that break when they stand still, bodies that are read
// once, and what an error of the SDK means in one line. It knows neither
// Amazon Glacier nor S3: what an answer says is its callers' affair.
//
// Credentials are the AWS SDK's own (environment, profiles, SSO, roles, web identity); none is
// ever part of an error.
package awsconn

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials/processcreds"
	"github.com/aws/aws-sdk-go-v2/credentials/ssocreds"
	"github.com/aws/smithy-go"
	"github.com/aws/smithy-go/logging"
)

// StallTimeout is how long a connection may stand still, in both directions, before it
// counts as broken. A service may think for a while about completing 10,000 parts.
const StallTimeout = 5 * time.Minute

// Options say how to reach a service.
type Options struct {
	Region  string // empty: that of the environment or the profile, if any
	Profile string // empty: AWS_PROFILE, or the default one
	Load    []func(*config.LoadOptions) error
	// Notice is told, in one line, what is being waited for when nothing has moved for 15 s; nil: nobody. It is called from
	// any goroutine.
	Notice func(text string)
}

// Load reads the AWS configuration. Its credentials' errors are *CredentialsError, and it does not retry.
func Load(ctx context.Context, o Options) (aws.Config, error) {
	began, moves := time.Now(), &activity{}
	load := []func(*config.LoadOptions) error{
		config.WithHTTPClient(newHTTPClient(began, moves)),
		config.WithLogger(logging.Nop{}), // the SDK would write to stderr, past all that watches what is said
	}
	if o.Region != "" {
		load = append(load, config.WithRegion(o.Region))
	}
	if o.Profile != "" {
		load = append(load, config.WithSharedConfigProfile(o.Profile))
	}
	cfg, err := config.LoadDefaultConfig(ctx, append(load, o.Load...)...)
	if err != nil {
		return cfg, err
	}
	cfg.Credentials = namedCredentials{cfg.Credentials, o.Profile}
	if o.Notice == nil {
		o.Notice = func(string) {}
	}
	// Not before: the SDK puts AWS_CA_BUNDLE into a client that it knows.
	cfg.HTTPClient = &attentive{cfg.HTTPClient, moves, began, o.Notice, noticeAfter, AnswerTimeout}
	return cfg, nil
}

func newHTTPClient(began time.Time, moves *activity) *awshttp.BuildableClient {
	return awshttp.NewBuildableClient().WithTransportOptions(func(t *http.Transport) {
		dial := t.DialContext
		t.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
			c, err := dial(ctx, network, addr)
			if err != nil {
				return nil, err
			}
			return &movingConn{&liveConn{c, StallTimeout}, moves, began}, nil
		}
		t.MaxIdleConnsPerHost = 64   // as many as parts may be in flight
		t.WriteBufferSize = 64 << 10 // parts are large: fewer system calls
		t.ReadBufferSize = 64 << 10
		t.ForceAttemptHTTP2 = false     // one connection for each part is faster
		t.IdleConnTimeout = time.Minute // below StallTimeout
	})
}

// liveConn is a connection that breaks when nothing moves on it. While a large part is being written nothing is
// read, so that what moves in one direction counts for both.
type liveConn struct {
	net.Conn
	timeout time.Duration
}

func (c *liveConn) Read(p []byte) (int, error) {
	_ = c.Conn.SetDeadline(time.Now().Add(c.timeout)) // a connection that takes none reads and writes without
	return c.Conn.Read(p)
}

func (c *liveConn) Write(p []byte) (int, error) {
	_ = c.Conn.SetDeadline(time.Now().Add(c.timeout))
	return c.Conn.Write(p)
}

// namedCredentials are the SDK's, with errors that can be told from the service's and say what to do.
type namedCredentials struct {
	aws.CredentialsProvider
	profile string
}

func (n namedCredentials) Retrieve(ctx context.Context) (aws.Credentials, error) {
	if n.CredentialsProvider == nil {
		return aws.Credentials{}, &CredentialsError{text: noCredentials, none: true}
	}
	c, err := n.CredentialsProvider.Retrieve(ctx)
	if err != nil {
		return c, explainCredentials(err, n.profile)
	}
	return c, nil
}

const noCredentials = "there are no AWS credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, " +
	"or AWS_PROFILE to a profile that has some (aws configure, aws sso login)"

// CredentialsError says why there are no credentials. It does not carry the error of the SDK,
// in which may stand what a program for credentials has printed.
type CredentialsError struct {
	text string
	none bool // there are none at all
}

func (e *CredentialsError) Error() string { return e.text }

// Is makes the want of credentials ErrNoCredentials.
func (e *CredentialsError) Is(target error) bool { return e.none && target == ErrNoCredentials }

// ErrNoCredentials says that the SDK has found no credentials.
var ErrNoCredentials = errors.New(noCredentials)

func explainCredentials(err error, profile string) error {
	login := "aws sso login"
	if profile != "" {
		login += " --profile " + profile
	}
	var sso *ssocreds.InvalidTokenError
	var process *processcreds.ProviderError
	var api smithy.APIError
	var op *smithy.OperationError
	switch {
	case errors.As(err, &sso):
		return &CredentialsError{text: "the SSO session has expired: run " + login}
	case errors.As(err, &api) && (api.ErrorCode() == "UnauthorizedException" || api.ErrorCode() == "ForbiddenException"):
		return &CredentialsError{text: "the SSO session is no longer valid: run " + login}
	case errors.As(err, &api):
		return &CredentialsError{text: fmt.Sprintf("AWS gave no credentials: %s (%s); see AWS_PROFILE and ~/.aws/config", OneLine(api.ErrorMessage()), api.ErrorCode())}
	case errors.As(err, &process):
		return &CredentialsError{text: "the credential_process of ~/.aws/config failed: run it by hand to see why"}
	case errors.As(err, &op) && op.ServiceID != "ec2imds": // that one is asked last, on every machine
		return &CredentialsError{text: "AWS " + op.ServiceID + " could not be reached for credentials"}
	case strings.Contains(err.Error(), "SSO token"):
		return &CredentialsError{text: "there is no SSO session: run " + login} // the SDK has no type for it
	}
	return &CredentialsError{text: noCredentials, none: true}
}

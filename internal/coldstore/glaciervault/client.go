package glaciervault

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
	"github.com/aws/aws-sdk-go-v2/service/glacier"
	"github.com/aws/smithy-go"
)

// stallTimeout is how long a connection may stand still, in both directions, before it
// counts as broken. The service may think for a while about completing 10,000 parts.
const stallTimeout = 5 * time.Minute

// testSeam replaces what tests cannot have from outside.
type testSeam struct {
	load   []func(*config.LoadOptions) error
	client func(*glacier.Options)
}

func openAccount(ctx context.Context, l location, o Options, t *testSeam) (*Account, error) {
	load := []func(*config.LoadOptions) error{config.WithRegion(l.region), config.WithHTTPClient(newHTTPClient())}
	if l.profile != "" {
		load = append(load, config.WithSharedConfigProfile(l.profile))
	}
	if t != nil {
		load = append(load, t.load...)
	}
	cfg, err := config.LoadDefaultConfig(ctx, load...)
	if err != nil {
		return nil, fmt.Errorf("read the AWS configuration for %s: %w", l, err)
	}
	cfg.Credentials = namedCredentials{cfg.Credentials, l.profile}
	c := glacier.NewFromConfig(cfg, func(g *glacier.Options) {
		g.Retryer = aws.NopRetryer{} // package transfer retries
		if l.endpoint != "" {
			g.BaseEndpoint = &l.endpoint
		}
		if t != nil && t.client != nil {
			t.client(g)
		}
	})
	id := l.account
	if id == "" {
		id = "-"
	}
	return &Account{c: c, id: id, o: o}, nil
}

func newHTTPClient() *awshttp.BuildableClient {
	return awshttp.NewBuildableClient().WithTransportOptions(func(t *http.Transport) {
		dial := t.DialContext
		t.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
			c, err := dial(ctx, network, addr)
			if err != nil {
				return nil, err
			}
			return &liveConn{c, stallTimeout}, nil
		}
		t.MaxIdleConnsPerHost = 64   // as many as parts may be in flight
		t.WriteBufferSize = 64 << 10 // parts are large: fewer system calls
		t.ReadBufferSize = 64 << 10
		t.ForceAttemptHTTP2 = false     // one connection for each part is faster
		t.IdleConnTimeout = time.Minute // below stallTimeout
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
		return aws.Credentials{}, &credentialsError{text: noCredentials, none: true}
	}
	c, err := n.CredentialsProvider.Retrieve(ctx)
	if err != nil {
		return c, explainCredentials(err, n.profile)
	}
	return c, nil
}

const noCredentials = "there are no AWS credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, " +
	"or AWS_PROFILE to a profile that has some (aws configure, aws sso login)"

// credentialsError says why there are no credentials. It does not carry the error of the SDK,
// in which may stand what a program for credentials has printed.
type credentialsError struct {
	text string
	none bool // there are none at all
}

func (e *credentialsError) Error() string { return e.text }

// Is makes the want of credentials ErrNoCredentials.
func (e *credentialsError) Is(target error) bool { return e.none && target == ErrNoCredentials }

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
		return &credentialsError{text: "the SSO session has expired: run " + login}
	case errors.As(err, &api) && (api.ErrorCode() == "UnauthorizedException" || api.ErrorCode() == "ForbiddenException"):
		return &credentialsError{text: "the SSO session is no longer valid: run " + login}
	case errors.As(err, &api):
		return &credentialsError{text: fmt.Sprintf("AWS gave no credentials: %s (%s); see AWS_PROFILE and ~/.aws/config", oneLine(api.ErrorMessage()), api.ErrorCode())}
	case errors.As(err, &process):
		return &credentialsError{text: "the credential_process of ~/.aws/config failed: run it by hand to see why"}
	case errors.As(err, &op) && op.ServiceID != "ec2imds": // that one is asked last, on every machine
		return &credentialsError{text: "AWS " + op.ServiceID + " could not be reached for credentials"}
	case strings.Contains(err.Error(), "SSO token"):
		return &credentialsError{text: "there is no SSO session: run " + login} // the SDK has no type for it
	}
	return &credentialsError{text: noCredentials, none: true}
}

package awsconn

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/credentials/processcreds"
	"github.com/aws/aws-sdk-go-v2/credentials/ssocreds"
	"github.com/aws/smithy-go"
)

// Secrets that no error may tell.
const testSecret, testToken = "shhh-secret", "session-token-shhh"

// What the SDK says when it has no credentials becomes one line that says what to do, without what a program printed.
func TestExplainCredentials(t *testing.T) {
	t.Parallel()
	offline := &smithy.OperationError{ServiceID: "STS", OperationName: "AssumeRole", Err: errors.New("dial tcp: no such host")}
	for want, err := range map[string]error{
		"run aws sso login --profile me":                &ssocreds.InvalidTokenError{Err: errors.New(testToken)},
		"no longer valid: run aws sso login":            fmt.Errorf("get: %w", &smithy.GenericAPIError{Code: "UnauthorizedException", Message: testToken}),
		"not authorized to perform: sts:AssumeRole":     &smithy.GenericAPIError{Code: "AccessDenied", Message: "User: x is not authorized to perform: sts:AssumeRole"},
		"credential_process":                            &processcreds.ProviderError{Err: errors.New("printed " + testSecret)},
		"AWS STS could not be reached":                  offline,
		"there are no AWS credentials: set AWS_ACCESS":  &smithy.OperationError{ServiceID: "ec2imds", Err: errors.New("connection refused")},
		"there is no SSO session: run aws sso login --": errors.New("failed to read cached SSO token file, open /home/me/.aws/sso/x: no such file"),
	} {
		got := explainCredentials(err, "me").Error()
		if !strings.Contains(got, want) || strings.Contains(got, testSecret) || strings.Contains(got, testToken) || strings.Contains(got, "\n") {
			t.Errorf("%v is told as %q; want %q", err, got, want)
		}
	}
}

// A connection on which nothing moves breaks.
func TestStalledConnection(t *testing.T) {
	t.Parallel()
	a, b := net.Pipe()
	defer b.Close()
	c := &liveConn{a, 10 * time.Millisecond}
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("Read: %v", err)
	}
	if _, err := c.Write([]byte("x")); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("Write: %v", err)
	}
	// What moves in one direction keeps the other alive.
	c.timeout = time.Minute
	done := make(chan error)
	go func() { _, err := c.Read(make([]byte, 1)); done <- err }()
	go func() { _, _ = b.Read(make([]byte, 1)) }()
	if _, err := c.Write([]byte("x")); err != nil {
		t.Error(err)
	}
	if _, err := b.Write([]byte("y")); err != nil {
		t.Error(err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

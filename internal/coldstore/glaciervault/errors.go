package glaciervault

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/aws/smithy-go"

	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/internal/coldstore/awsconn"
)

// fail makes the error of an operation: what failed, on which object, and why.
func fail(ctx context.Context, what string, err error) error {
	return fmt.Errorf("%s: %w", what, classify(ctx, err))
}

// classify finds out what an error of the SDK means. What this package made itself comes back as it is.
func classify(ctx context.Context, err error) error { return awsconn.Classify(ctx, err, ofAnswer) }

func ofAnswer(a awsconn.Answer) *awsconn.Error {
	if a.API == nil {
		return ofStatus(a.Status)
	}
	return ofService(a.API, a.Status, a.RequestID)
}

// ofService is an error that the service told in its own form.
func ofService(api smithy.APIError, status int, request string) *awsconn.Error {
	code := api.ErrorCode()
	e := &awsconn.Error{Code: code}
	tail := " (" + code
	if request != "" {
		tail += ", request " + awsconn.OneLine(request)
	}
	tail += ")"
	e.Text = awsconn.OneLine(api.ErrorMessage()) + tail
	switch code {
	case "ResourceNotFoundException":
		e.Kinds = []error{coldstore.ErrNotFound}
	case "InvalidParameterValueException", "MissingParameterValueException", "BadRequest", "SerializationException":
		e.Kinds = []error{coldstore.ErrInvalid}
	case "ThrottlingException", "Throttling", "RequestLimitExceeded", "TooManyRequestsException", "RequestThrottled", "SlowDown":
		e.Kinds = []error{coldstore.ErrThrottled}
	case "RequestTimeoutException", "RequestTimeout":
		e.Kinds, e.Lost = []error{coldstore.ErrTemporary}, true
	case "PolicyEnforcedException":
		e.Text = "the account's data retrieval policy refuses it: too many bytes an hour for this tier; " +
			"wait, ask for the Bulk tier, or change the policy" + tail
	case "InsufficientCapacityException":
		e.Text = "Amazon Glacier has no capacity for Expedited retrievals now: ask for the Standard tier, " +
			"try again later, or buy provisioned capacity" + tail
	case "NoLongerSupportedException":
		e.Text = "this account cannot use Amazon Glacier vaults: they were closed to new customers on 2025-12-15; " +
			"the same storage is in the S3 Glacier classes, as s3://BUCKET?class=DEEP_ARCHIVE" + tail
		e.Kinds = []error{coldstore.ErrUnsupported}
	case "ExpiredTokenException", "ExpiredToken":
		e.Text = "the AWS credentials have expired: renew them (aws sso login, or a new session token)" + tail
	case "UnrecognizedClientException", "InvalidClientTokenId", "MissingAuthenticationTokenException":
		e.Text = "the AWS access key is not known: look at AWS_ACCESS_KEY_ID, AWS_PROFILE and ~/.aws/credentials" + tail
	case "InvalidSignatureException", "SignatureDoesNotMatch", "IncompleteSignatureException", "RequestExpired", "RequestTimeTooSkewed":
		// The service's own message repeats the signed request, session token included.
		e.Text = "the signature was refused: the secret access key is wrong, or this machine's clock is" + tail
		if strings.Contains(api.ErrorMessage(), "x-amz-content-sha256") {
			e.Text = "the data did not arrive as it was sent" + tail
			e.Kinds = []error{coldstore.ErrTemporary}
		}
	default:
		if byStatus := ofStatus(status); byStatus.Kinds != nil {
			e.Kinds, e.Lost = byStatus.Kinds, byStatus.Lost
		}
	}
	return e
}

func ofStatus(status int) *awsconn.Error {
	return awsconn.OfStatus(status, fmt.Sprintf("answered with status %d and nothing that Amazon Glacier says", status))
}

// notFoundAs gives ErrNotFound another meaning.
func notFoundAs(err, kind error) error {
	var se *awsconn.Error
	if errors.As(err, &se) && errors.Is(err, coldstore.ErrNotFound) {
		return &awsconn.Error{Text: se.Text, Code: se.Code, Kinds: []error{kind}}
	}
	return err
}

// absent looks closer at ErrNotFound from an operation on something in the vault: when it
// is the vault itself that is not there, nobody may conclude that an archive or an upload was lost.
func (s *Store) absent(ctx context.Context, err error) error {
	var se *awsconn.Error
	if !errors.As(err, &se) || !errors.Is(err, coldstore.ErrNotFound) {
		return err
	}
	_, verr := s.describe(ctx)
	switch {
	case verr == nil:
		return err
	case errors.Is(verr, coldstore.ErrNotFound):
		return &awsconn.Error{Text: "the vault itself is not there: " + se.Text, Code: se.Code}
	case errors.Is(verr, coldstore.ErrTemporary) || errors.Is(verr, coldstore.ErrThrottled) || ctx.Err() != nil:
		return verr // not known: ask again
	}
	return err
}

// refused says that the service did not like what it was told.
func refused(err error) bool {
	var se *awsconn.Error
	return errors.As(err, &se) && errors.Is(err, coldstore.ErrInvalid)
}

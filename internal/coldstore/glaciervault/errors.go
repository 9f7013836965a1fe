package glaciervault

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"

	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"

	"github.com/firn-backup/firn/internal/coldstore"
)

// serviceError is an answer of the service, or its absence, put into one line.
type serviceError struct {
	text  string
	code  string // of the service; empty where it did not answer
	kinds []error
	lost  bool // the request may have taken effect: the answer did not come, or was a fault of the server
}

func (e *serviceError) Error() string   { return e.text }
func (e *serviceError) Unwrap() []error { return e.kinds }

// fail makes the error of an operation: what failed, on which object, and why.
func fail(ctx context.Context, what string, err error) error {
	return fmt.Errorf("%s: %w", what, classify(ctx, err))
}

// classify finds out what an error of the SDK means. What this package made itself comes back as it is.
func classify(ctx context.Context, err error) error {
	var mine *serviceError
	if errors.As(err, &mine) {
		return err
	}
	if cerr := ctx.Err(); cerr != nil {
		return &serviceError{text: context.Cause(ctx).Error(), kinds: []error{cerr, context.Cause(ctx)}, lost: true}
	}
	var creds *credentialsError
	if errors.As(err, &creds) {
		return &serviceError{text: creds.text, kinds: []error{creds}}
	}
	status := 0
	var resp *smithyhttp.ResponseError
	if errors.As(err, &resp) {
		status = resp.HTTPStatusCode()
	}
	var api smithy.APIError
	if errors.As(err, &api) && (api.ErrorCode() != "UnknownError" || status != 0) {
		return ofService(api, status, requestID(err))
	}
	if status != 0 {
		return ofStatus(status)
	}
	return ofConnection(err)
}

func requestID(err error) string {
	var r *awshttp.ResponseError
	if errors.As(err, &r) {
		return r.ServiceRequestID()
	}
	return ""
}

// ofService is an error that the service told in its own form.
func ofService(api smithy.APIError, status int, request string) *serviceError {
	code := api.ErrorCode()
	e := &serviceError{code: code}
	tail := " (" + code
	if request != "" {
		tail += ", request " + oneLine(request)
	}
	tail += ")"
	e.text = oneLine(api.ErrorMessage()) + tail
	switch code {
	case "ResourceNotFoundException":
		e.kinds = []error{coldstore.ErrNotFound}
	case "InvalidParameterValueException", "MissingParameterValueException", "BadRequest", "SerializationException":
		e.kinds = []error{coldstore.ErrInvalid}
	case "ThrottlingException", "Throttling", "RequestLimitExceeded", "TooManyRequestsException", "RequestThrottled", "SlowDown":
		e.kinds = []error{coldstore.ErrThrottled}
	case "RequestTimeoutException", "RequestTimeout":
		e.kinds, e.lost = []error{coldstore.ErrTemporary}, true
	case "PolicyEnforcedException":
		e.text = "the account's data retrieval policy refuses it: too many bytes an hour for this tier; " +
			"wait, ask for the Bulk tier, or change the policy" + tail
	case "InsufficientCapacityException":
		e.text = "Amazon Glacier has no capacity for Expedited retrievals now: ask for the Standard tier, " +
			"try again later, or buy provisioned capacity" + tail
	case "NoLongerSupportedException":
		e.text = "this account cannot use Amazon Glacier vaults: they were closed to new customers on 2025-12-15; " +
			"the same storage is in the S3 Glacier classes, as s3://BUCKET?class=DEEP_ARCHIVE" + tail
		e.kinds = []error{coldstore.ErrUnsupported}
	case "ExpiredTokenException", "ExpiredToken":
		e.text = "the AWS credentials have expired: renew them (aws sso login, or a new session token)" + tail
	case "UnrecognizedClientException", "InvalidClientTokenId", "MissingAuthenticationTokenException":
		e.text = "the AWS access key is not known: look at AWS_ACCESS_KEY_ID, AWS_PROFILE and ~/.aws/credentials" + tail
	case "InvalidSignatureException", "SignatureDoesNotMatch", "IncompleteSignatureException", "RequestExpired", "RequestTimeTooSkewed":
		// The service's own message repeats the signed request, session token included.
		e.text = "the signature was refused: the secret access key is wrong, or this machine's clock is" + tail
		if strings.Contains(api.ErrorMessage(), "x-amz-content-sha256") {
			e.text = "the data did not arrive as it was sent" + tail
			e.kinds = []error{coldstore.ErrTemporary}
		}
	default:
		if byStatus := ofStatus(status); byStatus.kinds != nil {
			e.kinds, e.lost = byStatus.kinds, byStatus.lost
		}
	}
	return e
}

// ofStatus is an answer that is not in the service's form, such as a proxy's.
func ofStatus(status int) *serviceError {
	e := &serviceError{text: fmt.Sprintf("answered with status %d and nothing that Amazon Glacier says", status)}
	switch {
	case status == http.StatusTooManyRequests:
		e.kinds = []error{coldstore.ErrThrottled}
	case status == http.StatusRequestTimeout, status >= 500:
		e.kinds, e.lost = []error{coldstore.ErrTemporary}, true
	case status >= 200 && status < 300:
		e.text = "the answer was cut short"
		e.kinds, e.lost = []error{coldstore.ErrTemporary}, true
	}
	return e
}

// ofConnection is a request that was not answered.
func ofConnection(err error) error {
	var (
		send     *smithyhttp.RequestSendError
		cert     *tls.CertificateVerificationError
		unknown  x509.UnknownAuthorityError
		hostname x509.HostnameError
	)
	switch {
	case errors.As(err, &cert), errors.As(err, &unknown), errors.As(err, &hostname):
		return &serviceError{text: "the server's certificate is not trusted: " + oneLine(rootText(err))}
	case errors.As(err, &send):
		var op *net.OpError
		dialed := !errors.As(err, &op) || op.Op != "dial"
		return &serviceError{text: "no answer: " + oneLine(rootText(send.Err)), kinds: []error{coldstore.ErrTemporary, send.Err}, lost: dialed}
	}
	var de *smithy.DeserializationError
	if errors.As(err, &de) {
		return &serviceError{text: "the answer was cut short", kinds: []error{coldstore.ErrTemporary}, lost: true}
	}
	return err
}

// rootText leaves out the URL, which is of no use to people.
func rootText(err error) string {
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err.Error()
	}
	return err.Error()
}

// oneLine bounds a text from outside.
func oneLine(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, s)
	const most = 400
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "") + "…"
	}
	return s
}

// notFoundAs gives ErrNotFound another meaning.
func notFoundAs(err, kind error) error {
	var se *serviceError
	if errors.As(err, &se) && errors.Is(err, coldstore.ErrNotFound) {
		return &serviceError{text: se.text, code: se.code, kinds: []error{kind}}
	}
	return err
}

// absent looks closer at ErrNotFound from an operation on something in the vault: when it
// is the vault itself that is not there, nobody may conclude that an archive or an upload was lost.
func (s *Store) absent(ctx context.Context, err error) error {
	var se *serviceError
	if !errors.As(err, &se) || !errors.Is(err, coldstore.ErrNotFound) {
		return err
	}
	_, verr := s.describe(ctx)
	switch {
	case verr == nil:
		return err
	case errors.Is(verr, coldstore.ErrNotFound):
		return &serviceError{text: "the vault itself is not there: " + se.text, code: se.code}
	case errors.Is(verr, coldstore.ErrTemporary) || errors.Is(verr, coldstore.ErrThrottled) || ctx.Err() != nil:
		return verr // not known: ask again
	}
	return err
}

// refused says that the service did not like what it was told.
func refused(err error) bool {
	var se *serviceError
	return errors.As(err, &se) && errors.Is(err, coldstore.ErrInvalid)
}

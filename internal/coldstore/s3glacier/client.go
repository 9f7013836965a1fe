package s3glacier

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/smithy-go/middleware"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/internal/coldstore/awsconn"
)

// testSeam replaces what tests cannot have from outside.
type testSeam struct {
	load   []func(*config.LoadOptions) error
	client func(*s3.Options)
}

// fallbackRegion is asked where nobody names a region: it knows where every bucket is.
const fallbackRegion = "us-east-1"

// newClient makes a client for a region; empty: that of the environment or the profile, else fallbackRegion.
func newClient(ctx context.Context, l location, region string, opts Options, t *testSeam) (*s3.Client, string, error) {
	from := awsconn.Options{Region: region, Profile: l.profile, Notice: opts.Notice}
	if t != nil {
		from.Load = t.load
	}
	cfg, err := awsconn.Load(ctx, from)
	if err != nil {
		return nil, "", fmt.Errorf("read the AWS configuration for %s: %w", l, err)
	}
	if cfg.Region == "" {
		cfg.Region = fallbackRegion
	}
	c := s3.NewFromConfig(cfg, func(o *s3.Options) {
		o.Retryer = aws.NopRetryer{} // package transfer retries
		// Checksums are this package's: the SDK would read every body once more.
		o.RequestChecksumCalculation = aws.RequestChecksumCalculationWhenRequired
		o.ResponseChecksumValidation = aws.ResponseChecksumValidationWhenRequired
		o.DisableLogOutputChecksumValidationSkipped = true
		if l.endpoint != "" {
			o.BaseEndpoint = &l.endpoint
		}
		o.UsePathStyle = l.style == "true" || l.style == "" && o.BaseEndpoint != nil
		if t != nil && t.client != nil {
			t.client(o)
		}
	})
	return c, cfg.Region, nil
}

// needsHash says whether bodies must be hashed for the signature. An encrypted connection keeps them
// from being changed on the way, and so does one that does not leave this machine; CRC64NVME finds accidents.
func needsHash(c *s3.Client, l location) bool {
	if l.checksum == "none" {
		return true
	}
	base := c.Options().BaseEndpoint
	if base == nil {
		return false
	}
	u, err := url.Parse(*base)
	if err != nil {
		return true
	}
	ip, err := netip.ParseAddr(u.Hostname())
	return u.Scheme != "https" && !(err == nil && ip.IsLoopback())
}

// sign sets how a request with that body is signed.
func sign(stack func(*middleware.Stack) error) func(*s3.Options) {
	return func(o *s3.Options) { o.APIOptions = append(o.APIOptions, stack) }
}

// answerHeader keeps the header of an answer, of a refusal too.
type answerHeader struct {
	h      http.Header
	status int
}

func (a *answerHeader) catch(o *s3.Options) {
	o.APIOptions = append(o.APIOptions, func(stack *middleware.Stack) error {
		return stack.Deserialize.Add(middleware.DeserializeMiddlewareFunc("Firn:AnswerHeader", func(
			ctx context.Context, in middleware.DeserializeInput, next middleware.DeserializeHandler,
		) (middleware.DeserializeOutput, middleware.Metadata, error) {
			out, meta, err := next.HandleDeserialize(ctx, in)
			if r, ok := out.RawResponse.(*smithyhttp.Response); ok && r != nil && r.Response != nil {
				a.h, a.status = r.Header, r.StatusCode
			}
			return out, meta, err
		}), middleware.After)
	})
}

func (a *answerHeader) region() string { return a.h.Get("X-Amz-Bucket-Region") }

// classify finds out what an error of the SDK means; action is the permission that the request needs.
func (s *Store) classify(ctx context.Context, action string, err error) error {
	return awsconn.Classify(ctx, err, func(a awsconn.Answer) *awsconn.Error { return s.ofAnswer(action, a) })
}

// fail makes the error of an operation: what failed, on which object, and why.
func (s *Store) fail(ctx context.Context, action, what string, err error) error {
	return fmt.Errorf("%s: %w", what, s.classify(ctx, action, err))
}

func codeOf(err error) string {
	var e *awsconn.Error
	if errors.As(err, &e) {
		return e.Code
	}
	return ""
}

// regionIn reads the region out of a message such as "the region 'us-east-1' is wrong; expecting 'eu-west-1'".
func regionIn(message string) string {
	_, rest, ok := strings.Cut(message, "expecting '")
	r, _, end := strings.Cut(rest, "'")
	if !ok || !end || !awsconn.Matches(`^[a-z0-9-]{1,40}$`, r) {
		return ""
	}
	return r
}

func wrongRegion(code string) bool {
	switch code {
	case "PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException", "IncorrectEndpoint", "TemporaryRedirect":
		return true
	}
	return false
}

// ofAnswer says what an answer of the service means.
func (s *Store) ofAnswer(action string, a awsconn.Answer) *awsconn.Error {
	code, message := "", ""
	if a.API != nil {
		code, message = a.API.ErrorCode(), a.API.ErrorMessage()
	}
	if code == "" || code == "UnknownError" || code == "BadRequest" || code == "Forbidden" || code == "MovedPermanently" {
		return s.ofStatus(action, a)
	}
	e := &awsconn.Error{Code: code}
	tail := " (" + code
	if a.RequestID != "" {
		tail += ", request " + awsconn.OneLine(a.RequestID)
	}
	tail += ")"
	e.Text = awsconn.OneLine(message) + tail
	if message == "" {
		e.Text = "the service says " + code
	}
	if s.explain(e, action, message, tail, a) {
		return e
	}
	if byStatus := awsconn.OfStatus(a.Status, ""); byStatus.Kinds != nil {
		e.Kinds, e.Lost = byStatus.Kinds, byStatus.Lost
	}
	return e
}

// explain fills in what a code means; false: it is not known.
func (s *Store) explain(e *awsconn.Error, action, message, tail string, a awsconn.Answer) bool {
	kind := func(k ...error) bool { e.Kinds = k; return true }
	say := func(format string, args ...any) bool { e.Text = fmt.Sprintf(format, args...) + tail; return true }
	switch code := e.Code; code {
	case "NoSuchKey", "NotFound", "NoSuchUpload", "NoSuchVersion", "NoSuchLifecycleConfiguration", "ObjectLockConfigurationNotFoundError":
		return kind(coldstore.ErrNotFound)
	case "NoSuchBucket":
		return say("there is no bucket %s any more, or not in this account's sight", s.l.bucket)
	case "AccessDenied", "AllAccessDisabled", "AccountProblem", "UnauthorizedAccess":
		if strings.HasPrefix(message, "Request has expired") {
			return say("the signature was refused: this machine's clock is wrong")
		}
		return say("denied: these credentials may not do %s on %s; have the policy allow it (least policies: firn vault create)", action, s.arn(action))
	case "ExpiredToken", "TokenRefreshRequired", "ExpiredTokenException":
		return say("the AWS credentials have expired: renew them (aws sso login, or a new session token)")
	case "InvalidAccessKeyId", "XAdminUserNotFound", "InvalidToken", "InvalidClientTokenId", "UnrecognizedClientException":
		return say("the AWS access key is not known: look at AWS_ACCESS_KEY_ID, AWS_SESSION_TOKEN, AWS_PROFILE and ~/.aws/credentials")
	case "SignatureDoesNotMatch", "RequestTimeTooSkewed", "RequestExpired", "InvalidSignature":
		return say("the signature was refused: the secret access key is wrong, or this machine's clock is")
	case "SlowDown", "Throttling", "ThrottlingException", "RequestLimitExceeded", "TooManyRequests", "TooManyRequestsException", "BandwidthLimitExceeded", "SlowDownRead", "SlowDownWrite":
		return kind(coldstore.ErrThrottled)
	case "RequestTimeout", "InternalError", "ServiceUnavailable", "Busy":
		e.Lost = true
		return kind(coldstore.ErrTemporary)
	case "OperationAborted", "ConditionalRequestConflict", "BadDigest", "XAmzContentSHA256Mismatch", "XAmzContentChecksumMismatch", "IncompleteBody":
		return kind(coldstore.ErrTemporary)
	case "PreconditionFailed":
		return kind(coldstore.ErrExists)
	case "EntityTooSmall", "EntityTooLarge", "InvalidPart", "InvalidPartOrder", "MalformedXML", "InvalidArgument", "InvalidRequest", "KeyTooLongError", "InvalidDigest", "InvalidRange":
		if s.l.lock != "" && strings.Contains(strings.ReplaceAll(message, " ", ""), "missingObjectLockConfiguration") {
			say("bucket %s has no Object Lock, and what is stored is to be locked: turn it on (it needs versions), or take lock= out of the URL and object-lock from the set", s.l.bucket)
		}
		return kind(coldstore.ErrInvalid)
	case "InvalidStorageClass":
		say("the endpoint does not know storage class %s: name one that it knows (class=STANDARD)", s.l.class)
		return kind(coldstore.ErrUnsupported)
	case "NotImplemented", "MethodNotAllowed":
		return kind(coldstore.ErrUnsupported)
	case "GlacierExpeditedRetrievalNotAvailable":
		return say("AWS has no capacity for Expedited retrievals now: ask for the Standard tier, try again later, or buy provisioned capacity")
	case "QuotaExceeded", "XMinioStorageFull", "InsufficientStorage", "XMinioAdminBucketQuotaExceeded", "NoSpaceLeftOnDevice":
		return say("the server has not enough space left: make some, or raise its quota")
	case "RestoreAlreadyInProgress", "ObjectAlreadyInActiveTierError", "ObjectNotInActiveTierError":
		return true
	case "InvalidObjectState":
		return kind(coldstore.ErrNotReady)
	case "KMS.DisabledException", "KMS.NotFoundException", "KMS.InvalidStateException", "KMS.KMSInvalidStateException", "KMS.AccessDeniedException":
		return say("the KMS key cannot be used: see that it exists, is enabled, and that these credentials may do kms:GenerateDataKey and kms:Decrypt")
	default:
		if wrongRegion(code) {
			return s.sayRegion(e, message, tail, a)
		}
	}
	return false
}

// sayRegion says in which region the bucket is.
func (s *Store) sayRegion(e *awsconn.Error, message, tail string, a awsconn.Answer) bool {
	there := a.Header.Get("X-Amz-Bucket-Region")
	if there == "" {
		there = regionIn(message)
	}
	if there != "" {
		e.Text = fmt.Sprintf("bucket %s is in region %s and not in %s: write region=%s in the vault's URL", s.l.bucket, there, s.region, there) + tail
	} else {
		e.Text = fmt.Sprintf("bucket %s is in another region than %s: correct region= in the vault's URL", s.l.bucket, s.region) + tail
	}
	return true
}

// ofStatus is an answer without a code: that of a HEAD, or of a proxy.
func (s *Store) ofStatus(action string, a awsconn.Answer) *awsconn.Error {
	e := awsconn.OfStatus(a.Status, fmt.Sprintf("answered with status %d and nothing that S3 says", a.Status))
	switch a.Status {
	case http.StatusNotFound:
		e.Kinds, e.Code = []error{coldstore.ErrNotFound}, "NotFound"
	case http.StatusForbidden:
		e.Code = "AccessDenied"
		s.explain(e, action, "", " (status 403)", a)
	case http.StatusMovedPermanently, http.StatusTemporaryRedirect:
		e.Code = "PermanentRedirect"
		s.sayRegion(e, "", "", a)
	case http.StatusServiceUnavailable:
		e.Kinds = []error{coldstore.ErrThrottled, coldstore.ErrTemporary}
	case http.StatusPreconditionFailed:
		e.Kinds, e.Code = []error{coldstore.ErrExists}, "PreconditionFailed"
	case http.StatusNotImplemented:
		e.Kinds, e.Lost = []error{coldstore.ErrUnsupported}, false
	case http.StatusInsufficientStorage:
		e.Text, e.Kinds, e.Lost = "the server has not enough space left: make some, or raise its quota", nil, false
	}
	return e
}

// arn names what an action is done on, for a policy.
func (s *Store) arn(action string) string {
	arn := "arn:aws:s3:::" + s.l.bucket
	if strings.Contains(action, "Bucket") || strings.HasSuffix(action, "Configuration") {
		return arn
	}
	return arn + "/" + s.l.root() + "*"
}

package awsconn

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/http"
	"net/url"
	"strings"

	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/firn-backup/firn/internal/coldstore"
)

// Error is an answer of a service, or its absence, put into one line.
type Error struct {
	Text  string
	Code  string // of the service; empty where it did not answer
	Kinds []error
	Lost  bool // the request may have taken effect: the answer did not come, or was a fault of the server
}

func (e *Error) Error() string   { return e.Text }
func (e *Error) Unwrap() []error { return e.Kinds }

// Answer is what a service said.
type Answer struct {
	API       smithy.APIError // nil: nothing in the service's own form
	Status    int             // of HTTP; 0: not known
	RequestID string
	Header    http.Header // may be nil
}

// Classify finds out what an error of the SDK means; of is asked where the service
// answered. What is an *Error already comes back as it is.
func Classify(ctx context.Context, err error, of func(Answer) *Error) error {
	var mine *Error
	if errors.As(err, &mine) {
		return err
	}
	if cerr := ctx.Err(); cerr != nil {
		return &Error{Text: context.Cause(ctx).Error(), Kinds: []error{cerr, context.Cause(ctx)}, Lost: true}
	}
	var creds *CredentialsError
	if errors.As(err, &creds) {
		return &Error{Text: creds.text, Kinds: []error{creds}}
	}
	var a Answer
	var resp *smithyhttp.ResponseError
	if errors.As(err, &resp) {
		a.Status = resp.HTTPStatusCode()
		if resp.Response != nil && resp.Response.Response != nil {
			a.Header = resp.Response.Header
		}
	}
	var r *awshttp.ResponseError
	if errors.As(err, &r) {
		a.RequestID = r.ServiceRequestID()
	}
	if api := smithy.APIError(nil); errors.As(err, &api) && (api.ErrorCode() != "UnknownError" || a.Status != 0) {
		a.API = api
	}
	if a.API == nil && a.Status == 0 {
		return ofConnection(err)
	}
	return of(a)
}

// OfStatus is an answer that is not in the service's form, such as a proxy's. text is for a status that says nothing.
func OfStatus(status int, text string) *Error {
	e := &Error{Text: text}
	switch {
	case status == http.StatusTooManyRequests:
		e.Kinds = []error{coldstore.ErrThrottled}
	case status == http.StatusRequestTimeout, status >= 500:
		e.Kinds, e.Lost = []error{coldstore.ErrTemporary}, true
	case status >= 200 && status < 300:
		e.Text = "the answer was cut short"
		e.Kinds, e.Lost = []error{coldstore.ErrTemporary}, true
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
		return &Error{Text: "the server's certificate is not trusted: " + OneLine(RootText(err))}
	case errors.As(err, &send):
		var op *net.OpError
		dialed := !errors.As(err, &op) || op.Op != "dial"
		return &Error{Text: "no answer: " + OneLine(RootText(send.Err)), Kinds: []error{coldstore.ErrTemporary, send.Err}, Lost: dialed}
	}
	var de *smithy.DeserializationError
	if errors.As(err, &de) {
		return &Error{Text: "the answer was cut short", Kinds: []error{coldstore.ErrTemporary}, Lost: true}
	}
	return err
}

// RootText leaves out the URL, which is of no use to people.
func RootText(err error) string {
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err.Error()
	}
	return err.Error()
}

// OneLine bounds a text from outside.
func OneLine(s string) string {
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

package glacierserver

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"sort"
	"strconv"
	"strings"
	"time"
)

// Signature Version 4, verified as the AWS General Reference and the Glacier Developer
// Guide ("Signing Requests") describe it: the server computes the signature that the
// request should have, with the key that it names, and compares.

const (
	algorithm = "AWS4-HMAC-SHA256"
	// maxSkew is how far a request's time may be from the server's.
	maxSkew = 15 * time.Minute
	isoTime = "20060102T150405Z"
)

// authorization is the header of that name, taken apart.
type authorization struct {
	key, date, region, service string
	signed                     []string
	signature                  string
}

func parseAuthorization(h string) (authorization, error) {
	var a authorization
	rest, ok := strings.CutPrefix(strings.TrimSpace(h), algorithm)
	if !ok {
		return a, &apiError{http.StatusBadRequest, "IncompleteSignatureException", "The Authorization header does not begin with " + algorithm}
	}
	var credential string
	for part := range strings.SplitSeq(rest, ",") {
		name, value, _ := strings.Cut(strings.TrimSpace(part), "=")
		switch name {
		case "Credential":
			credential = value
		case "SignedHeaders":
			a.signed = strings.Split(value, ";")
		case "Signature":
			a.signature = value
		}
	}
	scope := strings.Split(credential, "/")
	n := len(scope)
	if n < 5 || scope[n-1] != "aws4_request" || len(a.signed) == 0 || a.signature == "" {
		return a, &apiError{http.StatusBadRequest, "IncompleteSignatureException", "The Authorization header lacks Credential, SignedHeaders or Signature"}
	}
	a.key = strings.Join(scope[:n-4], "/")
	a.date, a.region, a.service = scope[n-4], scope[n-3], scope[n-2]
	return a, nil
}

// authenticate says who sent the request. Of those that hold no data in their body the whole is checked here; of the
// others the body is, against the hash that was signed, as it is read.
func (q *request) authenticate() error {
	header := q.r.Header.Get("Authorization")
	if header == "" {
		return &apiError{http.StatusBadRequest, "MissingAuthenticationTokenException", "Request is missing Authentication Token"}
	}
	a, err := parseAuthorization(header)
	if err == nil {
		q.key = a.key
		if regionPattern(a.region) {
			q.region = a.region
		}
	}
	if len(q.keys) > 0 {
		if err != nil {
			return err
		}
		if err := q.verify(a); err != nil {
			return err
		}
	}
	stated := q.r.Header.Get("X-Amz-Content-Sha256")
	if stated == "" || q.op != nil && q.op.stream {
		return nil
	}
	if got := hexSum(q.body); got != stated {
		return wrongPayload(got, stated)
	}
	return nil
}

func regionPattern(s string) bool {
	return s != "" && len(s) <= 32 && strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789-") == ""
}

func wrongPayload(got, stated string) error {
	return refused("The value passed in as x-amz-content-sha256 does not match the computed payload hash. Computed digest: %s expected hash: %s", got, stated)
}

func refused(format string, args ...any) error {
	return &apiError{http.StatusForbidden, "InvalidSignatureException", fmt.Sprintf(format, args...)}
}

func unrecognized() error {
	return &apiError{http.StatusBadRequest, "UnrecognizedClientException", "The security token included in the request is invalid."}
}

func (q *request) verify(a authorization) error {
	key, ok := q.keys[a.key]
	if !ok || key.Token != q.r.Header.Get("X-Amz-Security-Token") {
		return unrecognized()
	}
	q.user = key.Profile
	at, err := requestTime(q.r.Header)
	if err != nil {
		return err
	}
	now := q.o.WallTime().UTC()
	switch {
	case at.Before(now.Add(-maxSkew)):
		return refused("Signature expired: %s is now earlier than %s (%s - 15 min.)", at.Format(isoTime), now.Add(-maxSkew).Format(isoTime), now.Format(isoTime))
	case at.After(now.Add(maxSkew)):
		return refused("Signature not yet current: %s is still later than %s (%s + 15 min.)", at.Format(isoTime), now.Add(maxSkew).Format(isoTime), now.Format(isoTime))
	case a.date != at.Format("20060102"):
		return refused("Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP: '%s' != '%s'", a.date, at.Format("20060102"))
	case a.service != "glacier":
		return refused("Credential should be scoped to correct service: 'glacier'.")
	case !regionPattern(a.region):
		return refused("Credential should be scoped to a valid region, not '%s'.", a.region)
	}
	for _, must := range q.mustSign() {
		if !slices.Contains(a.signed, must) {
			return refused("'%s' must be a 'SignedHeader' in the AWS Authorization.", must)
		}
	}
	payload := hexSum(q.body)
	if q.op != nil && q.op.stream {
		payload = q.r.Header.Get("X-Amz-Content-Sha256")
		if payload == "" {
			return missing("Required parameter missing: x-amz-content-sha256")
		}
	}
	for _, path := range canonicalPaths(q.r.URL) {
		want := sign(key.Secret, a, at, canonicalRequest(q.r, path, a.signed, payload))
		if hmac.Equal([]byte(want), []byte(a.signature)) {
			return nil
		}
	}
	return refused("The request signature we calculated does not match the signature you provided. Check your AWS Secret Access Key and signing method. Consult the service documentation for details.")
}

// mustSign are the headers that a signature must cover.
func (q *request) mustSign() []string {
	must := []string{"host"}
	if q.r.Header.Get("X-Amz-Date") != "" {
		must = append(must, "x-amz-date")
	} else {
		must = append(must, "date")
	}
	return must
}

// requestTime is when a request was signed: X-Amz-Date, else Date.
func requestTime(h http.Header) (time.Time, error) {
	text := h.Get("X-Amz-Date")
	if text == "" {
		text = h.Get("Date")
	}
	if text == "" {
		return time.Time{}, &apiError{http.StatusBadRequest, "IncompleteSignatureException", "The request has neither X-Amz-Date nor Date"}
	}
	for _, layout := range []string{isoTime, time.RFC1123, time.RFC1123Z, time.RFC850, time.ANSIC} {
		if at, err := time.Parse(layout, text); err == nil {
			return at.UTC(), nil
		}
	}
	return time.Time{}, &apiError{http.StatusBadRequest, "IncompleteSignatureException", fmt.Sprintf("Date must be in ISO-8601 'basic format'. Got '%s'.", text)}
}

func sign(secret string, a authorization, at time.Time, canonical string) string {
	scope := strings.Join([]string{a.date, a.region, a.service, "aws4_request"}, "/")
	text := strings.Join([]string{algorithm, at.Format(isoTime), scope, hexSum([]byte(canonical))}, "\n")
	key := []byte("AWS4" + secret)
	for _, s := range []string{a.date, a.region, a.service, "aws4_request", text} {
		mac := hmac.New(sha256.New, key)
		mac.Write([]byte(s))
		key = mac.Sum(nil)
	}
	return hex.EncodeToString(key)
}

func canonicalRequest(r *http.Request, path string, signed []string, payload string) string {
	var b strings.Builder
	b.WriteString(r.Method + "\n" + path + "\n" + canonicalQuery(r.URL.RawQuery) + "\n")
	for _, name := range signed {
		b.WriteString(name + ":" + headerValue(r, name) + "\n")
	}
	b.WriteString("\n" + strings.Join(signed, ";") + "\n" + payload)
	return b.String()
}

func headerValue(r *http.Request, name string) string {
	var values []string
	switch name {
	case "host":
		values = []string{r.Host}
	case "content-length": // which net/http may have taken out
		values = []string{strconv.FormatInt(max(r.ContentLength, 0), 10)}
	default:
		values = r.Header.Values(name)
	}
	trimmed := make([]string, len(values))
	for i, v := range values {
		trimmed[i] = strings.Join(strings.Fields(v), " ")
	}
	return strings.Join(trimmed, ",")
}

// canonicalPaths are the forms in which clients sign a path: every segment
// encoded once more, as the specification says; and, as some do, as it was sent.
func canonicalPaths(u *url.URL) []string {
	sent := u.EscapedPath()
	if sent == "" {
		sent = "/"
	}
	plain := encode(sent, true)
	decoded := encode(u.Path, true)
	list := []string{plain}
	for _, p := range []string{sent, decoded} {
		if !slices.Contains(list, p) {
			list = append(list, p)
		}
	}
	return list
}

// canonicalQuery is a query with its parameters encoded in one way and sorted.
func canonicalQuery(raw string) string {
	if raw == "" {
		return ""
	}
	var pairs [][2]string
	for part := range strings.SplitSeq(raw, "&") {
		if part == "" {
			continue
		}
		name, value, _ := strings.Cut(part, "=")
		pairs = append(pairs, [2]string{encode(unescape(name), false), encode(unescape(value), false)})
	}
	sort.Slice(pairs, func(i, j int) bool {
		if pairs[i][0] != pairs[j][0] {
			return pairs[i][0] < pairs[j][0]
		}
		return pairs[i][1] < pairs[j][1]
	})
	parts := make([]string, len(pairs))
	for i, p := range pairs {
		parts[i] = p[0] + "=" + p[1]
	}
	return strings.Join(parts, "&")
}

func unescape(s string) string {
	plain, err := url.PathUnescape(s) // unlike QueryUnescape it leaves "+" alone, as signers do
	if err != nil {
		return s
	}
	return plain
}

// encode percent-encodes all but the unreserved characters of RFC 3986, and slashes if they are to stay.
func encode(s string, slashes bool) string {
	var b strings.Builder
	for i := range len(s) {
		c := s[i]
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9',
			c == '-', c == '_', c == '.', c == '~', slashes && c == '/':
			b.WriteByte(c)
		default:
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}

func hexSum(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

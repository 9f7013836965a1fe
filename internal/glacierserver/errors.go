package glacierserver

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
)

// apiError is an error as the API tells it.
type apiError struct {
	status  int
	code    string
	message string
}

func (e *apiError) Error() string { return e.code + ": " + e.message }

func invalid(format string, args ...any) error {
	return &apiError{http.StatusBadRequest, "InvalidParameterValueException", fmt.Sprintf(format, args...)}
}

func missing(format string, args ...any) error {
	return &apiError{http.StatusBadRequest, "MissingParameterValueException", fmt.Sprintf(format, args...)}
}

func notFound(format string, args ...any) error {
	return &apiError{http.StatusNotFound, "ResourceNotFoundException", fmt.Sprintf(format, args...)}
}

func denied(format string, args ...any) error {
	return &apiError{http.StatusForbidden, "AccessDeniedException", fmt.Sprintf(format, args...)}
}

func limitExceeded(format string, args ...any) error {
	return &apiError{http.StatusBadRequest, "LimitExceededException", fmt.Sprintf(format, args...)}
}

func badRequest(format string, args ...any) error {
	return &apiError{http.StatusBadRequest, "BadRequest", fmt.Sprintf(format, args...)}
}

// errTimedOut is what a client is told whose body does not come.
var errTimedOut = &apiError{http.StatusRequestTimeout, "RequestTimeoutException", "Request timed out."}

// fail answers with an error; what is no apiError is the server's own trouble, of which only the log
// tells more. It returns false when an answer has begun already: then the connection must be cut.
func (q *request) fail(err error) bool {
	if q.status != 0 {
		return false
	}
	var e *apiError
	if !errors.As(err, &e) {
		e = &apiError{http.StatusInternalServerError, "ServiceUnavailableException", "Service is not available; the server's log tells why."}
	}
	side := "Client"
	if e.status >= 500 {
		side = "Server"
	}
	q.json(e.status, struct {
		Code    string `json:"code"`
		Message string `json:"message"`
		Type    string `json:"type"`
	}{e.code, e.message, side})
	return true
}

// json answers with a JSON document.
func (q *request) json(status int, v any) {
	text, err := json.Marshal(v)
	if err != nil { // of our own structs and strings: it cannot be
		panic(err)
	}
	if q.unread {
		q.header("Connection", "close") // or net/http would wait for the rest, for ever
	}
	q.w.Header().Set("Content-Type", "application/json")
	q.w.Header().Set("Content-Length", strconv.Itoa(len(text)))
	q.w.WriteHeader(status)
	q.status = status
	n, _ := q.w.Write(text) // the client may have gone
	q.sent += int64(n)
}

// empty answers without a body.
func (q *request) empty(status int) error {
	if status != http.StatusNoContent {
		q.w.Header().Set("Content-Length", "0")
	}
	q.w.WriteHeader(status)
	q.status = status
	return nil
}

// header sets a header of the answer.
func (q *request) header(name, value string) { q.w.Header()[name] = []string{value} }

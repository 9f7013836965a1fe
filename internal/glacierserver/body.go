package glacierserver

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"hash"
	"io"
	"net/http"
	"os"
	"time"

	"github.com/firn-backup/firn/treehash"
)

const (
	maxJSON  = 1 << 20   // bytes of a JSON body
	maxDrain = 128 << 20 // bytes of data that are read, and thrown away, so that the client hears why
)

// bodyReader reads a body as it comes: with a deadline that moves with every byte, and at the end with
// the check of its SHA-256.
type bodyReader struct {
	q      *request
	size   int64
	read   int64
	sum    hash.Hash
	stated string // "" when nothing was stated
	err    error
}

func (b *bodyReader) Read(p []byte) (int, error) {
	if b.err != nil {
		return 0, b.err
	}
	b.q.readWithin(b.q.o.BodyTimeout)
	n, err := b.q.r.Body.Read(p)
	b.sum.Write(p[:n])
	b.read += int64(n)
	b.q.received += int64(n)
	switch {
	case errors.Is(err, io.EOF):
		b.err = b.atEnd()
	case errors.Is(err, os.ErrDeadlineExceeded):
		b.err = errTimedOut
	case err != nil: // the client has gone; nobody will read the answer
		b.err = errTimedOut
	}
	if n > 0 && b.err != nil && !errors.Is(b.err, io.EOF) {
		return n, nil // the error comes next
	}
	return n, b.err
}

func (b *bodyReader) atEnd() error {
	b.q.readWithin(0)
	b.q.unread = false
	if b.size >= 0 && b.read != b.size {
		return errTimedOut
	}
	if got := hex.EncodeToString(b.sum.Sum(nil)); b.stated != "" && got != b.stated {
		return wrongPayload(got, b.stated)
	}
	return io.EOF
}

// readWithin moves the deadline of reading; 0: none.
func (q *request) readWithin(d time.Duration) {
	at := time.Time{}
	if d > 0 {
		at = time.Now().Add(d) // the connection's clock is the real one
	}
	_ = q.rc.SetReadDeadline(at) // not every http.ResponseWriter has deadlines
}

func (q *request) writeWithin(d time.Duration) { _ = q.rc.SetWriteDeadline(time.Now().Add(d)) }

// data is the body of an upload, whose headers are checked here: its size and the tree hash that was stated.
func (q *request) data() (io.Reader, int64, treehash.Hash, error) {
	var none treehash.Hash
	size := q.r.ContentLength
	if size < 0 {
		return nil, 0, none, missing("Required parameter missing: Content-Length (a chunked body is not accepted)")
	}
	stated := q.r.Header.Get("X-Amz-Content-Sha256")
	if stated == "" {
		return nil, 0, none, missing("Required parameter missing: x-amz-content-sha256")
	}
	if raw, err := hex.DecodeString(stated); err != nil || len(raw) != sha256.Size {
		return nil, 0, none, invalid("Invalid x-amz-content-sha256: %s", stated)
	}
	want, err := q.treeHash()
	if err != nil {
		return nil, 0, none, err
	}
	if size < 1 || size > maxPart {
		return nil, 0, none, invalid("Invalid Content-Length: %d", size)
	}
	return &bodyReader{q: q, size: size, sum: sha256.New(), stated: stated}, size, want, nil
}

// treeHash is the tree hash that a request states.
func (q *request) treeHash() (treehash.Hash, error) {
	text := q.r.Header.Get("X-Amz-Sha256-Tree-Hash")
	if text == "" {
		return treehash.Hash{}, missing("Required parameter missing: x-amz-sha256-tree-hash")
	}
	h, err := treehash.Parse(text)
	if err != nil {
		return h, invalid("Invalid x-amz-sha256-tree-hash: %s", text)
	}
	return h, nil
}

// readBody reads the whole of a body that is not data.
func (q *request) readBody() error {
	q.readWithin(q.o.BodyTimeout)
	body, err := io.ReadAll(http.MaxBytesReader(q.w, q.r.Body, maxJSON))
	q.received += int64(len(body))
	q.body = body
	var tooLong *http.MaxBytesError
	switch {
	case errors.As(err, &tooLong):
		return badRequest("The body is longer than %d bytes", maxJSON)
	case err != nil:
		q.unread = true
		return errTimedOut
	}
	q.readWithin(0)
	return nil
}

// drain reads what a client still wants to send, within limits: while it sends, it does not
// hear the answer. A client that waits for leave to send is not given it, and one that stood still already is not
// waited for once more.
func (q *request) drain(why error) {
	if !q.unread || q.r.Header.Get("Expect") != "" && q.received == 0 || q.r.ContentLength > maxDrain ||
		errors.Is(why, errTimedOut) {
		return
	}
	q.readWithin(q.o.BodyTimeout)
	n, err := io.Copy(io.Discard, io.LimitReader(q.r.Body, maxDrain))
	q.received += n
	if err == nil && (q.r.ContentLength < 0 && n < maxDrain || q.received >= q.r.ContentLength) {
		q.unread = false
		q.readWithin(0)
	}
}

// parse reads a JSON body into v. Members it does not know and nulls are ignored; an empty body is an empty object.
func (q *request) parse(v any) error {
	if len(q.body) == 0 {
		return nil
	}
	if err := json.Unmarshal(q.body, v); err != nil {
		return &apiError{http.StatusBadRequest, "SerializationException", "The body cannot be read as JSON: " + err.Error()}
	}
	return nil
}

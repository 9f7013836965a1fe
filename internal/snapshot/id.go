package snapshot

import (
	"io"
	"time"

	"github.com/oklog/ulid/v2"
)

// NewID makes an identifier for a set, a snapshot or an attempt: a ULID of 26
// characters of Crockford's base 32, whose first ten tell the time now to the
// millisecond. rand must be crypto/rand.Reader outside tests.
func NewID(now time.Time, rand io.Reader) (string, error) {
	id, err := ulid.New(ulid.Timestamp(now), rand)
	if err != nil {
		return "", err
	}
	return id.String(), nil
}

// ValidID says whether s is an identifier as NewID makes them.
func ValidID(s string) bool {
	_, err := ulid.ParseStrict(s)
	return err == nil
}

package coldstore

import "fmt"

// URLError says what is wrong with a vault's URL. It is ErrInvalid, without its words: no vault has been asked yet.
type URLError struct {
	URL string // as it may be shown: without secrets
	Why string
}

var _ error = (*URLError)(nil)

func (e *URLError) Error() string { return fmt.Sprintf("vault URL %q: %s", e.URL, e.Why) }

// Is makes it ErrInvalid.
func (e *URLError) Is(target error) bool { return target == ErrInvalid }

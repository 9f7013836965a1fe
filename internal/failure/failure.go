// Package failure names the ways in which Firn fails that a caller, or a
// script, must be able to tell apart. It owns the kinds and nothing else: the
// exit codes that belong to them, and every hint for people, are made in the
// command line.
package failure

import (
	"errors"
	"fmt"
)

// Kind says what sort of failure an error is. The zero value is Failed.
type Kind int

const (
	Failed      Kind = iota // anything that has no kind of its own
	Partial                 // done, but not all of it (some files unreadable or changing)
	NotFound                // no such vault, set or snapshot
	Locked                  // another run holds the set
	NoKey                   // no key decrypts
	Damaged                 // damaged or untrusted data
	Usage                   // wrong usage, a bad date too
	NotReady                // requested from the vault, not ready yet
	Interrupted             // stopped by the user
)

type failure struct {
	kind Kind
	err  error
}

func (f *failure) Error() string { return f.err.Error() }
func (f *failure) Unwrap() error { return f.err }

// Wrap gives err a kind. Wrap(k, nil) is nil. The outermost kind counts.
func Wrap(k Kind, err error) error {
	if err == nil {
		return nil
	}
	return &failure{k, err}
}

// Errorf makes an error of a kind; the format is that of fmt.Errorf, %w included.
func Errorf(k Kind, format string, args ...any) error {
	return &failure{k, fmt.Errorf(format, args...)}
}

// KindOf returns the kind of the outermost error in err's chain that has one,
// and Failed when none has.
func KindOf(err error) Kind {
	var f *failure
	if errors.As(err, &f) {
		return f.kind
	}
	return Failed
}

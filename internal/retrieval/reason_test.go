package retrieval_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/internal/retrieval"
)

// What a file's damage is told as names the archive nowhere; the file that holds it may be named.
func TestReason(t *testing.T) {
	t.Parallel()
	for _, x := range []struct {
		err  error
		want string
	}{
		{fmt.Errorf("archive a/b: volume 1, frame 0: age: read: read archive a/b at byte 7: read 5 bytes at 7 of archive a/b: %w",
			coldstore.Damagef("its data /v/archives/a/b is missing")), "volume 1, frame 0: age: read: its data /v/archives/a/b is missing"},
		{fmt.Errorf("request archive x: request retrieval of archive x: %w", coldstore.ErrNotFound), "it is not in the vault"},
		{fmt.Errorf("archive x: %w", fmt.Errorf("the archive has 3 bytes: %w", coldstore.ErrInvalid)), "the archive has 3 bytes: refused by the vault's rules"},
		{errors.New("archive x"), "archive x"},
	} {
		if got := retrieval.Reason(x.err); got != x.want {
			t.Errorf("%v\n%q, want\n%q", x.err, got, x.want)
		}
	}
}

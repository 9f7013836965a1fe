package restore

import (
	"fmt"
	"syscall"
	"testing"

	"github.com/firn-backup/firn/internal/extract"
)

// What this user cannot make is missing, and so is a problem: a restore without it is not a whole one.
func TestUnsupportedIsAProblem(t *testing.T) {
	t.Parallel()
	r := &run{o: Options{Observe: silent{}}}
	if err := r.failed("dev/sda", fmt.Errorf("create dev/sda: %w: %w", extract.ErrUnsupported, syscall.EPERM)); err != nil {
		t.Fatal(err)
	}
	if r.res.Problems != 1 {
		t.Errorf("%d problems", r.res.Problems)
	}
}

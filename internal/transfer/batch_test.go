package transfer_test

import (
	"errors"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/firn-backup/firn/internal/transfer"
)

// Everything is noted once, in order, in batches that are not too large, whatever note says.
func TestInBatches(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		n, room, most := rapid.IntRange(0, 50).Draw(t, "n"), rapid.IntRange(0, 20).Draw(t, "room"), rapid.IntRange(1, 9).Draw(t, "most")
		fails := rapid.IntRange(-1, 49).Draw(t, "fails")
		done := make(chan int, room)
		go func() {
			defer close(done)
			for k := range n {
				done <- k
			}
		}()
		bad := errors.New("bad")
		var got, want []int
		err := transfer.InBatches(done, most, func(batch []int) error {
			if len(batch) == 0 || len(batch) > most {
				t.Fatalf("a batch of %d", len(batch))
			}
			got = append(got, batch...)
			if slices.Contains(batch, fails) {
				return bad
			}
			return nil
		})
		for k := range n {
			want = append(want, k)
		}
		if !slices.Equal(got, want) || errors.Is(err, bad) != (fails >= 0 && fails < n) {
			t.Fatalf("%v, %v", got, err)
		}
	})
}

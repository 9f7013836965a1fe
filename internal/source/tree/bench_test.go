package tree

import (
	"context"
	"os"
	"testing"

	"github.com/firn-backup/firn/internal/source"
)

// BenchmarkWalk walks FIRN_BENCH_TREE, or /usr.
func BenchmarkWalk(b *testing.B) {
	dir := os.Getenv("FIRN_BENCH_TREE")
	if dir == "" {
		dir = "/usr"
	}
	t, err := New(Options{Paths: []string{dir}})
	if err != nil {
		b.Fatal(err)
	}
	n := 0
	b.ReportAllocs()
	for b.Loop() {
		err := t.Walk(context.Background(), func(items []source.Item) error {
			n += len(items)
			return nil
		})
		if err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "entries/s")
}

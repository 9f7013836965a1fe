package tree

import (
	"testing"

	"github.com/firn-backup/firn/internal/source"
	"github.com/firn-backup/firn/internal/source/sourcetest"
)

func open(t testing.TB, o Options) *Tree {
	t.Helper()
	tree, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tree.Close() })
	return tree
}

func TestSuite(t *testing.T) {
	t.Parallel()
	sourcetest.Suite(t, func(t testing.TB, paths ...string) source.Tree { return open(t, Options{Paths: paths}) })
}

// TestSuiteWithoutOpenat2 is for kernels, and containers, that have none.
func TestSuiteWithoutOpenat2(t *testing.T) {
	t.Parallel()
	sourcetest.Suite(t, func(t testing.TB, paths ...string) source.Tree {
		tree := open(t, Options{Paths: paths, Workers: 1})
		tree.opener = opener{}
		return tree
	})
}

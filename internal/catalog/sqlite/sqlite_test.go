package sqlite_test

import (
	"path/filepath"
	"testing"

	"github.com/firn-backup/firn/internal/catalog"
	"github.com/firn-backup/firn/internal/catalog/catalogtest"
	"github.com/firn-backup/firn/internal/catalog/sqlite"
)

// target makes catalogs in directories of their own.
func target(t testing.TB) func(int) *catalog.DB {
	path := filepath.Join(t.TempDir(), "state", "catalog.db")
	return func(pageRows int) *catalog.DB { return open(t, path, pageRows) }
}

func open(t testing.TB, path string, pageRows int) *catalog.DB {
	t.Helper()
	d, err := sqlite.Open(t.Context(), path, sqlite.Options{PageRows: pageRows})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return d
}

func TestSuite(t *testing.T) {
	catalogtest.Run(t, target)
}

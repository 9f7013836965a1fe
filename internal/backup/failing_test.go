package backup_test

import (
	"github.com/firn-backup/firn/internal/snapshot"
	"github.com/firn-backup/firn/internal/source"
	"golang.org/x/sys/unix"
)

// failing is a tree some of whose files cannot be opened.
type failing struct {
	source.Tree
	paths map[string]bool
}

func (f failing) Open(e *snapshot.Entry) (source.File, error) {
	if f.paths[e.Path] {
		return nil, unix.EIO
	}
	return f.Tree.Open(e)
}

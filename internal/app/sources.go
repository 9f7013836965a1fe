package app

import (
	"path/filepath"

	"github.com/firn-backup/firn/internal/codec"
	"github.com/firn-backup/firn/internal/codec/compress"
	"github.com/firn-backup/firn/internal/config"
	"github.com/firn-backup/firn/internal/source/tree"
)

// OpenTree is the tree that a set backs up, without Firn's own files; vault is
// the directory of the set's own vault, if it has one. warn is
// told of what is left out although nothing excludes it; it may be nil.
func (a *App) OpenTree(s *config.Set, vault string, warn func(path, reason string)) (*tree.Tree, error) {
	skip := a.Own()
	if vault != "" {
		skip = append(skip, vault)
		if real, err := filepath.EvalSymlinks(vault); err == nil {
			skip = append(skip, real)
		}
	}
	return tree.New(tree.Options{
		Paths:            s.Paths,
		Exclude:          s.Exclude,
		ExcludeIfPresent: s.ExcludeIfPresent,
		OneFileSystem:    s.OneFileSystem,
		RequireMount:     s.RequireMount,
		Skip:             skip,
		Warn:             warn,
	})
}

// Compressor is the one that a set asks for.
func (a *App) Compressor(s *config.Set) (codec.Compressor, error) {
	spec := s.Compress
	if spec == "" {
		spec = compress.Zstd
	}
	return compress.New(spec)
}

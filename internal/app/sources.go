package app

import (
	"cmp"
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
	base := ""
	if s.Kind == config.KindItems {
		base = s.Path // of which each root is a child
	}
	return tree.New(tree.Options{
		Paths:            s.Paths,
		Exclude:          s.Exclude,
		ExcludeBase:      base,
		ExcludeIfPresent: s.ExcludeIfPresent,
		OneFileSystem:    s.OneFileSystem,
		RequireMount:     s.RequireMount,
		Skip:             skip,
		Warn:             warn,
	})
}

// Compressor is the one that a set asks for whose vault has that URL; without a word of the set's zstd, and of zstd, where
// no level is given, the one that suits the vault (docs/adr/0216): level 1 in a directory, where the processor is what one waits
// for, and otherwise level 3, which keeps up with any line.
func (a *App) Compressor(s *config.Set, vaultURL string) (codec.Compressor, error) {
	spec := cmp.Or(s.Compress, compress.Zstd)
	if spec == compress.Zstd && vaultDir(vaultURL) != "" {
		spec = compress.Zstd + ":1"
	}
	return compress.New(spec)
}

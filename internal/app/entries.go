package app

import (
	"context"
	"errors"
	"path/filepath"
	"strings"

	"github.com/firn-backup/firn/internal/catalog"
	"github.com/firn-backup/firn/internal/failure"
	"github.com/firn-backup/firn/internal/restore"
	"github.com/firn-backup/firn/internal/snapshot"
)

// EntryPath turns a path as a user writes it into one as a snapshot's entries
// have it: absolute, with or without the slash at its beginning; below one of
// the paths that the set names; or, with ./ or ../ at its beginning, from the working
// directory. The first of these that the snapshot has is taken; "/" is the
// root, "". failure.NotFound: it has none.
func (a *App) EntryPath(ctx context.Context, snap catalog.Snapshot, arg string) (string, error) {
	db, err := a.Catalog(ctx, false)
	if err != nil {
		return "", err
	}
	var tries []string
	switch {
	case arg == "":
		return "", failure.Errorf(failure.Usage, "an empty path")
	case arg == "." || arg == ".." || strings.HasPrefix(arg, "./") || strings.HasPrefix(arg, "../"):
		tries = []string{a.abs(arg)}
	case filepath.IsAbs(arg):
		tries = []string{filepath.Clean(arg)}
	default:
		tries = []string{filepath.Clean("/" + arg)}
		for _, root := range snap.Header.Paths {
			tries = append(tries, filepath.Join("/", root, arg))
		}
	}
	for _, p := range tries {
		p = strings.TrimPrefix(p, "/")
		if p == "" {
			return "", nil
		}
		ok, err := hasPath(ctx, db, snap.ID, p)
		if err != nil {
			return "", err
		}
		if ok {
			return p, nil
		}
	}
	return "", failure.Errorf(failure.NotFound, "%s: %w", arg, restore.ErrNotThere)
}

// errFound ends a search.
var errFound = errors.New("found")

// hasPath says whether a snapshot has path or something below it.
func hasPath(ctx context.Context, db *catalog.DB, snap, path string) (bool, error) {
	err := db.Entries(ctx, snap, catalog.Query{Under: []string{path}}, func(snapshot.Entry) error { return errFound })
	if errors.Is(err, errFound) {
		return true, nil
	}
	return false, err
}

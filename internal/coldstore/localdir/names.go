package localdir

import (
	"fmt"
	"path/filepath"
	"strings"

	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/internal/durable"
)

const (
	maxName        = 900  // bytes of an archive's id
	maxElement     = 240  // bytes of one element: with ".json" it must be a file name (255)
	maxDescription = 1024 // characters

	metaSuffix = ".json"
)

// checkName says whether an archive may be called id: as coldstore.NewArchive.Name says.
// So no id leads out of its tree, and none is a temporary file's.
func checkName(id string) error {
	if id == "" || len(id) > maxName {
		return fmt.Errorf("name %q has not between 1 and %d bytes: %w", id, maxName, coldstore.ErrInvalid)
	}
	for element := range strings.SplitSeq(id, "/") {
		switch {
		case element == "" || element == "." || element == "..":
			return fmt.Errorf("name %q has an element %q: %w", id, element, coldstore.ErrInvalid)
		case len(element) > maxElement:
			return fmt.Errorf("name %q has an element of more than %d bytes: %w", id, maxElement, coldstore.ErrInvalid)
		}
		for i := range len(element) {
			if !nameByte(element[i]) {
				return fmt.Errorf("name %q has a character outside A-Za-z0-9._=-: %w", id, coldstore.ErrInvalid)
			}
		}
	}
	return nil
}

func nameByte(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' ||
		c == '.' || c == '_' || c == '=' || c == '-'
}

func checkDescription(d string) error {
	if len(d) > maxDescription {
		return fmt.Errorf("the description has %d characters, of at most %d: %w", len(d), maxDescription, coldstore.ErrInvalid)
	}
	for i := range len(d) {
		if d[i] < 0x20 || d[i] > 0x7e {
			return fmt.Errorf("the description is not printable ASCII (byte %#x at %d): %w", d[i], i, coldstore.ErrInvalid)
		}
	}
	return nil
}

func isTemp(name string) bool { return strings.HasPrefix(name, durable.TempMark) }

func (s *Store) archivePath(id string) string {
	return filepath.Join(s.root, archivesDir, filepath.FromSlash(id))
}

func (s *Store) metaPath(id string) string {
	return filepath.Join(s.root, metaDir, filepath.FromSlash(id)+metaSuffix)
}

func (s *Store) uploadDir(id string) string { return filepath.Join(s.root, uploadsDir, id) }
func (s *Store) uploadLog(id string) string {
	return filepath.Join(s.root, uploadsDir, id, "upload.jsonl")
}
func (s *Store) uploadData(id string) string { return filepath.Join(s.root, uploadsDir, id, "data") }

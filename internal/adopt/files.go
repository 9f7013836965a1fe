package adopt

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"syscall"

	"github.com/firn-backup/firn/internal/failure"
)

// maxConfig is how long a configuration may be, in bytes.
const maxConfig = 1 << 20

// withoutCompanions leaves out the files that SQLite keeps beside a database while it is in use, or where its program was interrupted: it reads them
// with the database, and a shell's * names them too.
func withoutCompanions(files []string) []string {
	return slices.DeleteFunc(slices.Clone(files), func(file string) bool {
		for _, end := range []string{"-wal", "-shm", "-journal"} {
			if db, ok := strings.CutSuffix(file, end); ok && slices.Contains(files, db) {
				return true
			}
		}
		return false
	})
}

// regular says whether there is such a file, and that it is one: a pipe or a device may have no end, or never begin.
func regular(file string) error {
	info, err := os.Stat(file)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return failure.Errorf(failure.NotFound, "there is no file %s", file)
	case err != nil:
		return err
	case !info.Mode().IsRegular():
		return failure.Errorf(failure.Usage, "%s is not a regular file", file)
	}
	return nil
}

// isEmpty says of a file that is there whether it has no bytes.
func isEmpty(file string) bool {
	info, err := os.Stat(file)
	return err == nil && info.Mode().IsRegular() && info.Size() == 0
}

// readSmall reads a file of at most so many bytes; it may be a pipe that has its writer, as a shell's <(…) has.
func readSmall(file string, most int64) ([]byte, error) {
	f, err := os.OpenFile(file, os.O_RDONLY|syscall.O_NONBLOCK, 0) // of a pipe that nobody writes into there is nothing to wait for
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, failure.Errorf(failure.NotFound, "there is no file %s", file)
	case err != nil:
		return nil, err
	}
	defer f.Close() // it was only read
	data, err := io.ReadAll(io.LimitReader(f, most+1))
	if err != nil {
		return nil, err
	}
	if int64(len(data)) > most {
		return nil, failure.Errorf(failure.Usage, "%s is longer than %d bytes, and not what it should be", file, most)
	}
	return data, nil
}

// sort of a file, by its beginning.
type sort int

const (
	sortText sort = iota
	sortSQLite
	sortPickle
	sortJSON
)

func sortOf(file string) (sort, error) {
	f, err := os.Open(file)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return 0, failure.Errorf(failure.NotFound, "there is no file %s", file)
	case err != nil:
		return 0, err
	}
	defer f.Close() // it was only read
	head := make([]byte, 64)
	n, err := io.ReadFull(f, head)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
		if errors.Is(err, io.EOF) {
			return 0, failure.Errorf(failure.Damaged, "%s is empty: the run that wrote it was interrupted", file)
		}
		return 0, fmt.Errorf("read %s: %w", file, err)
	}
	head = head[:n]
	trimmed := bytes.TrimLeft(head, " \t\r\n\ufeff")
	switch {
	case bytes.HasPrefix(head, []byte("SQLite format 3\x00")):
		return sortSQLite, nil
	case head[0] == 0x80 || bytes.HasPrefix(head, []byte("(dp")) || bytes.HasPrefix(head, []byte("(d.")) || head[0] == '}':
		return sortPickle, nil
	case bytes.HasPrefix(trimmed, []byte("{")), bytes.HasPrefix(trimmed, []byte("[{")), bytes.HasPrefix(trimmed, []byte("[]")),
		bytes.HasPrefix(trimmed, []byte("[\n")), bytes.HasPrefix(trimmed, []byte("[ {")):
		return sortJSON, nil
	}
	return sortText, nil
}

// unquote takes the quotes away that the sample configurations of some tools have around values, though the tools themselves take them
// for a part of the value.
func unquote(s string) string {
	if len(s) >= 2 && s[0] == s[len(s)-1] && (s[0] == '\'' || s[0] == '"') {
		return s[1 : len(s)-1]
	}
	return s
}

// oneLine is a text that a stranger wrote, within a message.
func oneLine(s string) string { return strings.ToValidUTF8(s[:min(len(s), 200)], "?") }

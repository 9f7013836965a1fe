package app

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/firn-backup/firn/internal/durable"
)

// overdueAgain is how long nobody is told again that a set is overdue.
const overdueAgain = 24 * time.Hour

// OverdueToTell says whether somebody is to be told that a set is overdue: when it has become so, and
// each day after. It remembers that in the state directory.
func (a *App) OverdueToTell(set string, overdue bool) (bool, error) {
	path := filepath.Join(a.Paths.State, "overdue", set)
	text, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, fmt.Errorf("set %s: %w", set, err)
	}
	told, perr := time.Parse(time.RFC3339, strings.TrimSpace(string(text)))
	now := a.Now()
	switch {
	case !overdue && err != nil:
		return false, nil
	case !overdue:
		return false, os.Remove(path)
	case err == nil && perr == nil && !now.Before(told) && now.Sub(told) < overdueAgain:
		return false, nil // a clock that was set back tells once more
	}
	if err := durable.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return true, fmt.Errorf("set %s: %w", set, err)
	}
	return true, durable.WriteFile(path, []byte(now.UTC().Format(time.RFC3339)+"\n"), 0o600)
}

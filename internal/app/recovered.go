package app

import (
	"context"
	"fmt"
	"slices"
)

// RecoverCommand is the command under which a recovery from a vault is in the list of runs.
func RecoverCommand(vault string) string { return "recover " + vault }

// CheckRecovered returns an error when the newest recovery from a vault did not come to
// its end: then the catalog may not know the vault's newest snapshots, and a
// backup would make another one of their numbers.
func (a *App) CheckRecovered(ctx context.Context, vault string) error {
	db, err := a.Catalog(ctx, true)
	if err != nil {
		return err
	}
	runs, err := db.Runs(ctx, "", keptRuns)
	if err != nil {
		return err
	}
	for _, r := range runs { // newest first
		if r.Command != RecoverCommand(vault) {
			continue
		}
		if r.Ended.IsZero() || !slices.Contains([]int{0, 3, 13}, r.Exit) {
			return fmt.Errorf("the last recovery from %s did not come to its end, so the catalog may not know what is there", vault)
		}
		return nil
	}
	return nil
}

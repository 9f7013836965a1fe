package cli

import (
	"context"

	"github.com/firn-backup/firn/internal/app"
	"github.com/firn-backup/firn/internal/config"
	"github.com/firn-backup/firn/internal/failure"
)

// backupKind backs up one set. This is the one list of what is done for which kind of set.
func (c *command) backupKind(ctx context.Context, a *app.App, t app.Target, f backupFlags) error {
	if err := c.checkBeforeKey(ctx, a, t, f); err != nil {
		return err
	}
	switch kind := t.Config.KindOf(); kind {
	case config.KindTree:
		return c.backupTree(ctx, a, t, f)
	case config.KindZFS, config.KindBtrfs, config.KindCommand, config.KindStream:
		return c.backupStream(ctx, a, t, f)
	case config.KindItems:
		return c.backupItems(ctx, a, t, f)
	case config.KindMirror:
		return c.backupMirror(ctx, a, t, f)
	default:
		return failure.Errorf(failure.Usage, "set %s: sets of kind %s cannot be backed up by this command", t.Set.Name, kind)
	}
}

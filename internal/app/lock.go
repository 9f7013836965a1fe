package app

import (
	"fmt"
	"time"

	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/internal/config"
	"github.com/firn-backup/firn/internal/failure"
)

// retention is the lock that the set's object-lock asks for; nil: that of the vault, if it has one.
func (t Target) retention() *coldstore.Retention {
	if t.Config == nil || t.Config.ObjectLock <= 0 {
		return nil
	}
	const day = 24 * time.Hour
	return &coldstore.Retention{
		Days:       int((t.Config.ObjectLock + day - 1) / day),
		Compliance: t.Config.ObjectLockMode == config.LockCompliance,
	}
}

// lock is a store that locks what it stores as the set has it. failure.Usage: the vault has no locks, and the set wants one.
func (t Target) lock(s coldstore.Store) (coldstore.Store, error) {
	r := t.retention()
	if r == nil {
		return s, nil
	}
	k, ok := s.(coldstore.Retainer)
	if !ok {
		return nil, failure.Wrap(failure.Usage, fmt.Errorf("set %s: object-lock: vault %s cannot lock archives: %w", t.Set.Name, t.Set.Vault, coldstore.ErrUnsupported))
	}
	return k.Retaining(*r), nil
}

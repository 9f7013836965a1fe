package app

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/firn-backup/firn/internal/durable"
)

// VaultLockBegun is what is kept of the locking of a vault between its two steps: the
// service tells the id once only.
type VaultLockBegun struct {
	Vault string    `json:"vault"` // URL
	ID    string    `json:"id"`
	At    time.Time `json:"at"`
}

func (a *App) vaultLockFile(url string) string {
	return filepath.Join(a.Paths.State, "vault-locks", vaultKey(url)+".json")
}

// KeepVaultLock keeps the id of a lock begun.
func (a *App) KeepVaultLock(l VaultLockBegun) error {
	file := a.vaultLockFile(l.Vault)
	text, err := json.Marshal(l)
	if err == nil {
		err = durable.MkdirAll(filepath.Dir(file), 0o700)
	}
	if err == nil {
		err = durable.WriteFile(file, append(text, '\n'), 0o600)
	}
	if err != nil {
		return fmt.Errorf("keep the id of the lock: %w", err)
	}
	return nil
}

// VaultLockKept is the lock of a vault that was begun here; its ID is empty where there is none.
func (a *App) VaultLockKept(url string) (VaultLockBegun, error) {
	var l VaultLockBegun
	text, err := os.ReadFile(a.vaultLockFile(url))
	if errors.Is(err, fs.ErrNotExist) {
		return l, nil
	}
	if err == nil {
		err = json.Unmarshal(text, &l)
	}
	if err != nil {
		return l, fmt.Errorf("read the id of the lock: %w", err)
	}
	return l, nil
}

// DropVaultLock forgets the lock of a vault that was begun here.
func (a *App) DropVaultLock(url string) error {
	err := os.Remove(a.vaultLockFile(url))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

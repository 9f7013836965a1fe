package app

import (
	"fmt"
	"os/user"
	"path/filepath"
)

// Paths are where Firn's own files lie: by the XDG base directories. All are
// absolute.
type Paths struct {
	Home string // the user's; empty: there is none

	Config       string // config file
	Key          string // key file
	Catalog      string // catalog file
	DefaultVault string // directory of the vault that is used where none is named
	State        string // directory of what this machine remembers
	Runs         string // directory of the logs of runs
	Locks        string // directory of the locks of sets
	Cache        string // directory of what can be made again
}

func findPaths(env func(string) (string, bool)) (Paths, error) {
	home, _ := env("HOME")
	if !filepath.IsAbs(home) { // a service without one
		home = ""
		if u, err := user.Current(); err == nil && filepath.IsAbs(u.HomeDir) {
			home = u.HomeDir
		}
	}
	missing := ""
	base := func(name, fallback string) string {
		// The specification: what is not absolute is to be ignored.
		if dir, _ := env(name); filepath.IsAbs(dir) {
			return filepath.Join(dir, "firn")
		}
		if home == "" {
			missing = name
		}
		return filepath.Join(home, fallback, "firn")
	}
	confDir := base("XDG_CONFIG_HOME", ".config")
	dataDir := base("XDG_DATA_HOME", ".local/share")
	stateDir := base("XDG_STATE_HOME", ".local/state")
	cacheDir := base("XDG_CACHE_HOME", ".cache")
	if missing != "" {
		return Paths{}, fmt.Errorf("there is no home directory: neither HOME nor %s is set", missing)
	}
	if home != "" {
		home = filepath.Clean(home)
	}
	return Paths{
		Home:         home,
		Config:       filepath.Join(confDir, "config.toml"),
		Key:          filepath.Join(confDir, "key.txt"),
		Catalog:      filepath.Join(stateDir, "catalog.db"),
		DefaultVault: filepath.Join(dataDir, "vault"),
		State:        stateDir,
		Runs:         filepath.Join(stateDir, "runs"),
		Locks:        filepath.Join(stateDir, "locks"),
		Cache:        cacheDir,
	}, nil
}

// abs makes a path from the command line absolute and clean.
func (a *App) abs(path string) string {
	if !filepath.IsAbs(path) {
		path = filepath.Join(a.o.WorkingDir, path)
	}
	return filepath.Clean(path)
}

// Own are the absolute paths of Firn's own files: vaults in directories,
// catalog, state and cache. They are never backed up: a vault that holds itself
// grows without end.
func (a *App) Own() []string {
	own := []string{a.Paths.State, a.Paths.Cache, a.Paths.DefaultVault,
		a.Paths.Catalog, a.Paths.Catalog + "-wal", a.Paths.Catalog + "-shm", a.Paths.Catalog + "-journal"}
	for _, v := range a.Config.Vaults {
		if dir := vaultDir(v.URL); dir != "" && !v.IsTemplate() {
			own = append(own, dir)
		}
	}
	own = append(own, a.templateDirs()...)
	// Walks meet real names: where one of ours is reached through a link, both count.
	for _, p := range own {
		if real, err := filepath.EvalSymlinks(p); err == nil && real != p {
			own = append(own, real)
		}
	}
	return own
}

// Package app puts Firn together: it knows which adapters there are, where
// files lie on this machine, and how names on a command line become sets,
// snapshots, vaults and keys. It owns the locks and logs of runs. It prints
// nothing and knows no flags; what people must be told goes through Options.
package app

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"
	"time"

	"github.com/firn-backup/firn/internal/catalog"
	"github.com/firn-backup/firn/internal/catalog/sqlite"
	"github.com/firn-backup/firn/internal/config"
	"github.com/firn-backup/firn/internal/failure"
)

// Options are what the surface knows. The zero value of each field works.
type Options struct {
	Config     string // config file, which must exist; empty: the default, which need not
	NoConfig   bool   // no config file at all
	Catalog    string // catalog file; empty: what the config says, or the default
	LogFile    *string
	LogLevel   string
	LookupEnv  func(string) (string, bool) // nil: os.LookupEnv
	Now        func() time.Time            // the time snapshots are made at; nil: time.Now
	WorkingDir string                      // what relative paths are relative to; empty: the process's

	// Notice shows a line to the user. Nil: nobody.
	Notice func(string)
	// Warn shows a line about something that is not as it should be. Nil: nobody.
	Warn func(string)
	// Waiting shows what is being waited for when a vault's service is silent. It is called from any goroutine. Nil: nobody.
	Waiting func(string)
	// Ask asks the user for a passphrase. Nil: there is nobody to ask.
	Ask func(prompt string) ([]byte, error)
}

// App is Firn put together. Its methods are safe for concurrent use. Close it.
type App struct {
	Config *config.Config
	Paths  Paths
	Host   string // this machine's name
	Now    func() time.Time

	o  Options
	mu sync.Mutex
	db *catalog.DB

	reminded string // the signing key of which it was said that it is to be kept
}

// New reads the config file and finds out where things lie. It writes nothing.
func New(o Options) (*App, error) {
	if o.LookupEnv == nil {
		o.LookupEnv = os.LookupEnv
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Notice == nil {
		o.Notice = func(string) {}
	}
	if o.Warn == nil {
		o.Warn = func(string) {}
	}
	if o.WorkingDir == "" {
		wd, err := os.Getwd()
		if err != nil {
			return nil, fmt.Errorf("working directory: %w", err)
		}
		o.WorkingDir = wd
	}
	paths, err := findPaths(o.LookupEnv)
	if err != nil {
		return nil, err
	}
	a := &App{Paths: paths, Now: o.Now, o: o, Config: &config.Config{}}
	file := paths.Config
	if o.Config != "" {
		file = a.abs(o.Config)
	}
	if !o.NoConfig {
		a.Config, err = config.Load(file, config.Options{Home: paths.Home, Must: o.Config != "", CheckVault: canonicalURL})
		if err != nil {
			return nil, err
		}
	}
	switch {
	case o.Catalog != "":
		a.Paths.Catalog = a.abs(o.Catalog)
	case a.Config.Catalog != "":
		a.Paths.Catalog = a.Config.Catalog
	}
	if _, err := a.logLevel(); err != nil {
		return nil, err
	}
	a.Host = a.Config.Host
	if a.Host == "" {
		if a.Host, err = os.Hostname(); err != nil {
			return nil, fmt.Errorf("host name: %w", err)
		}
	}
	return a, nil
}

// Close closes what was opened.
func (a *App) Close() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.db == nil {
		return nil
	}
	err := a.db.Close()
	a.db = nil
	return err
}

// ErrNoCatalog says that there is no catalog yet.
var ErrNoCatalog = errors.New("there is no catalog yet")

// CatalogError is a catalog that could not be opened; its text names it.
type CatalogError struct{ Err error }

func (e *CatalogError) Error() string { return e.Err.Error() }
func (e *CatalogError) Unwrap() error { return e.Err }

// Catalog opens the catalog, once. Where there is none it is made if create is
// set, and is ErrNoCatalog, of kind failure.NotFound, otherwise. What keeps it from being opened is a CatalogError.
func (a *App) Catalog(ctx context.Context, create bool) (*catalog.DB, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.db != nil {
		return a.db, nil
	}
	switch _, err := os.Stat(a.Paths.Catalog); {
	case errors.Is(err, fs.ErrNotExist) && !create:
		return nil, failure.Errorf(failure.NotFound, "catalog %s: %w", a.Paths.Catalog, ErrNoCatalog)
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return nil, &CatalogError{fmt.Errorf("open catalog: %w", err)}
	}
	db, err := sqlite.Open(ctx, a.Paths.Catalog, sqlite.Options{})
	if err != nil {
		return nil, &CatalogError{err}
	}
	if why := db.ReadOnlyReason(); why != "" {
		a.o.Warn("the catalog can only be read: " + why)
	}
	a.db = db
	return db, nil
}

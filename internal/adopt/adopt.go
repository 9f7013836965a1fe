// Package adopt is the use case of taking over what other programs left: it reads their state and
// records it in the catalog, so that nothing is uploaded again and what is stored is found. One file
// a program; it owns their formats and knows nothing of how vaults are reached.
package adopt

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/firn-backup/firn/internal/catalog"
	"github.com/firn-backup/firn/internal/failure"
)

// Tool is a program whose state can be taken over.
type Tool struct {
	Name  string // on the command line
	Short string // for help
	Long  string
	File  string // what its files are, in capitals for help
	Most  int    // files; 0: one
	None  bool   // it may have no file: then what listings of the vault told is taken over
	// Flags are those that it wants of the command line, of the names in Options.
	Flags []string
	// Read reads files and tells what it found. It changes nothing.
	Read func(ctx context.Context, files []string, o Options) (Found, error)
}

// Names of flags.
const (
	FlagRegion  = "region"
	FlagAccount = "account"
	FlagKey     = "key"
	FlagVault   = "vault"
	FlagSet     = "set"
)

// Tools are all that there are: a new one gets a line here.
func Tools() []Tool {
	return []Tool{
		glacierCLI(),
		glacierCmd(),
		glacierBackupPy(),
		btrsend(),
		hopkiw(),
		mtAWS(),
	}
}

// Options are what the command line said.
type Options struct {
	Known Known
	Now   time.Time
	Rand  io.Reader // of ids

	Keys []string       // access keys whose records are wanted; empty: the only one
	Zone *time.Location // that times without one are in; nil: the local one
	Set  string         // that goes on with it; empty: the only one of the config file that can, or a new one
	// VaultURL is the URL, as in the catalog, of a vault that the program knows.
	VaultURL func(ctx context.Context, p Place) (string, error)
	// archives are those that the catalog knows of a vault.
	archives func(ctx context.Context, vault string, fn func(catalog.ArchiveRecord) error) error
}

// Place is what a program knows of a vault. What it does not know is empty.
type Place struct{ Name, Region, Account string }

// Found is what a program knew.
type Found struct {
	Archives []catalog.ArchiveRecord
	Sets     []Set
	Notices  []string // for people
}

// Result says what became of what was found.
type Result struct {
	Archives int64 // found
	Deleted  int64 // of them, deleted already
	Added    int64 // not known before
	Vaults   []string
	Sets     []Set // with their names; without items
	Items    int64 // of the sets, not known before
	// Snapshots of the sets, not known before.
	Snapshots int64
	Config    string // what is to be appended to the config file; empty: nothing
	Notices   []string
}

// Run takes over what a program left in a file. It may be repeated. With dry nothing is recorded.
func Run(ctx context.Context, t Tool, files []string, o Options, db *catalog.DB, dry bool) (Result, error) {
	var res Result
	if db == nil || o.VaultURL == nil {
		return res, errors.New("adopt: an option is missing")
	}
	if o.Zone == nil {
		o.Zone = time.Local
	}
	o.archives = func(ctx context.Context, vault string, fn func(catalog.ArchiveRecord) error) error {
		return db.FindArchives(ctx, vault, func(r catalog.ArchiveRecord) bool { return r.DeletedAt.IsZero() }, fn)
	}
	for _, file := range files {
		if err := regular(file); err != nil {
			return res, err
		}
	}
	files = withoutCompanions(files)
	f, err := t.Read(ctx, files, o)
	if err != nil {
		return res, err
	}
	found := int64(len(f.Archives))
	if err := f.dropGone(ctx, db); err != nil {
		return res, err
	}
	res.Notices, res.Archives = f.Notices, found
	seen := map[string]bool{}
	for _, r := range f.Archives {
		if !r.DeletedAt.IsZero() {
			res.Deleted++
		}
		if !seen[r.Vault] {
			seen[r.Vault] = true
			res.Vaults = append(res.Vaults, r.Vault)
		}
	}
	if !dry {
		if res.Added, err = db.AdoptArchives(ctx, f.Archives); err != nil {
			return res, err
		}
	}
	return res, res.sets(ctx, f.Sets, &recorder{db: db, known: o.Known, now: o.Now, rand: o.Rand, zone: o.Zone, wanted: o.Set}, dry)
}

// sets names and records sets.
func (res *Result) sets(ctx context.Context, sets []Set, r *recorder, dry bool) error {
	all, err := r.db.Sets(ctx)
	if err != nil {
		return err
	}
	used := map[string]bool{}
	for i := range sets {
		mine := r.name(&sets[i], all, used)
		if r.wanted != "" && sets[i].Name != r.wanted {
			return failure.Errorf(failure.Usage, "set %s is another: of another kind, vault or path", r.wanted)
		}
		if dry {
			continue
		}
		n, snaps, err := r.set(ctx, &sets[i], mine)
		if err != nil {
			return fmt.Errorf("set %s: %w", sets[i].Name, err)
		}
		res.Items += n
		res.Snapshots += snaps
	}
	res.Sets, res.Config = sets, configText(sets, r.known)
	res.Notices = append(res.Notices, r.notices...)
	return nil
}

// inVault says of an error which vault it is about, where its name is known.
func inVault(name string, err error) error {
	if name == "" {
		return err
	}
	return fmt.Errorf("vault %s: %w", name, err)
}

// unixTime is a time of so many seconds, with a fraction perhaps; zero where there is none.
func unixTime(s float64) time.Time {
	if !(s > 0 && s < 1e11) {
		return time.Time{}
	}
	return time.UnixMilli(int64(s * 1000)).UTC()
}

func (f *Found) notice(format string, args ...any) {
	f.Notices = append(f.Notices, fmt.Sprintf(format, args...))
}

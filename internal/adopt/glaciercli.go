package adopt

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"strings"

	"github.com/firn-backup/firn/internal/catalog"
	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/internal/failure"
	"github.com/firn-backup/firn/treehash"
)

// glacierCLI is glacier-cli, and its fork, which keeps hashes too: one table in SQLite.
func glacierCLI() Tool {
	return Tool{
		Name:  "glacier-cli",
		Short: "Take over the cache of glacier-cli, or of its fork",
		Long: `Take over the cache database of glacier-cli, ~/.cache/glacier-cli/db, or of its fork
by vbourachot: the archives that it knows become known here, with their names. The
cache says neither in which region its vaults are nor how large archives are: --region
tells the first, and the vault itself the second when it is asked.`,
		File:  "FILE",
		Flags: []string{FlagRegion, FlagAccount, FlagKey, FlagVault},
		Read:  readGlacierCLI,
	}
}

func readGlacierCLI(ctx context.Context, files []string, o Options) (Found, error) {
	var f Found
	file := files[0]
	db, err := openForeign(ctx, file)
	if err != nil {
		return f, err
	}
	defer db.Close() // it was only read
	columns, err := columnsOf(ctx, db, "archive")
	if err == nil {
		for _, c := range []string{"id", "name", "vault", "key", "last_seen_upstream", "created_here", "deleted_here"} {
			if !slices.Contains(columns, c) {
				err = failure.Errorf(failure.Usage, "there is no table archive with a column %s: this is not the cache of glacier-cli", c)
				break
			}
		}
	}
	if err == nil {
		f, err = cachedArchives(ctx, db, slices.Contains(columns, "hash"), o)
	}
	if err != nil {
		return f, fmt.Errorf("read %s: %w", file, err)
	}
	return f, nil
}

// emptyHash is what the fork stored for every archive of archive upload: the SHA-256 of nothing.
const emptyHash = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

// cacheRow is a row of the table archive. Times are REAL or INTEGER, whatever the column's type.
type cacheRow struct {
	id, name, vault, key, hash sql.NullString
	seen, created, deleted     number
}

func cachedArchives(ctx context.Context, db *foreignDB, hashes bool, o Options) (Found, error) {
	var f Found
	hash := "NULL"
	if hashes {
		hash = "hash"
	}
	rows, err := db.QueryContext(ctx, `SELECT id, name, vault, key, `+hash+`, +last_seen_upstream, +created_here, +deleted_here
		FROM archive ORDER BY key, vault, id`)
	if err != nil {
		return f, sqliteFault(err)
	}
	defer rows.Close() // after an error; else it is at its end
	byKey := map[string][]cacheRow{}
	var keys []string
	for rows.Next() {
		var r cacheRow
		if err := rows.Scan(&r.id, &r.name, &r.vault, &r.key, &r.hash, &r.seen, &r.created, &r.deleted); err != nil {
			return f, err
		}
		for _, t := range []struct {
			column string
			number
		}{{"last_seen_upstream", r.seen}, {"created_here", r.created}, {"deleted_here", r.deleted}} {
			if t.bad != "" {
				return f, failure.Errorf(failure.Usage, "the row of archive %q has %s in its column %s, which is no time", oneLine(r.id.String), t.bad, t.column)
			}
		}
		if r.id.String == "" || r.vault.String == "" {
			return f, failure.Errorf(failure.Damaged, "a row without an archive id or a vault")
		}
		if byKey[r.key.String] == nil {
			keys = append(keys, r.key.String)
		}
		byKey[r.key.String] = append(byKey[r.key.String], r)
	}
	if err := sqliteFault(rows.Err()); err != nil {
		return f, err
	}
	wanted := o.Keys
	switch {
	case len(wanted) == 0 && len(keys) > 1:
		return f, failure.Errorf(failure.Usage, "it has archives of several access keys, which may be of several accounts (%s): say with --key which are meant, once for each",
			strings.Join(keys, ", "))
	case len(wanted) == 0:
		wanted = keys
	}
	urls := map[string]string{}
	for _, key := range wanted {
		if byKey[key] == nil {
			return f, failure.Errorf(failure.NotFound, "it has no archives of access key %s", key)
		}
		for _, r := range byKey[key] {
			name := r.vault.String
			if urls[name] == "" {
				if urls[name], err = o.VaultURL(ctx, Place{Name: name}); err != nil {
					return f, inVault(name, err)
				}
			}
			a, notice := r.record(urls[name])
			f.Archives = append(f.Archives, a)
			if notice != "" {
				f.Notices = append(f.Notices, notice)
			}
		}
	}
	return f, nil
}

// record is what a row says. Rows learnt from an inventory have a created_here too, which is when they were
// learnt: the archive is not younger than that.
func (r *cacheRow) record(vault string) (catalog.ArchiveRecord, string) {
	notice := ""
	a := catalog.ArchiveRecord{
		Vault: vault, SeenAsOf: unixTime(r.seen.value), DeletedAt: unixTime(r.deleted.value),
		Archive: coldstore.Archive{ID: r.id.String, Description: r.name.String, Created: unixTime(r.created.value)},
	}
	if a.SeenAsOf.IsZero() {
		a.UploadedAt = a.Created
	}
	if text := r.hash.String; text != "" && text != emptyHash {
		h, err := treehash.Parse(text)
		if err != nil {
			notice = fmt.Sprintf("archive %s: its hash %q is not a tree hash and was left out", r.id.String, text)
		}
		a.TreeHash = h
	}
	return a, notice
}

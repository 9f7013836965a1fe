package adopt

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/firn-backup/firn/internal/catalog"
	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/internal/failure"
)

// btrsend is btrsend.rkt: a table in SQLite of the archives that there are now.
func btrsend() Tool {
	return Tool{
		Name:  "btrsend",
		Short: "Take over the database of btrsend",
		Long: `Take over the database of btrsend, .btrsend.db in the home of its user: the archives of
its chains become known here by date and by what each builds on. They lie in a vault called Backup in us-east-1.`,
		File:  "FILE",
		Flags: []string{FlagRegion, FlagAccount, FlagVault},
		Read:  readBtrsend,
	}
}

// The vault that is written in the program.
const btrsendVault, btrsendRegion = "Backup", "us-east-1"

type btrsendRow struct {
	arn, date, parent string
	size              int64
}

func readBtrsend(ctx context.Context, files []string, o Options) (Found, error) {
	var f Found
	rows, err := btrsendRows(ctx, files[0])
	if err != nil {
		return f, fmt.Errorf("read %s: %w", files[0], err)
	}
	if len(rows) == 0 {
		return f, nil
	}
	url, err := o.VaultURL(ctx, Place{Name: btrsendVault, Region: btrsendRegion})
	if err != nil {
		return f, err
	}
	there := map[string]int{}
	for _, r := range rows {
		there[r.date]++
	}
	told := map[string]bool{}
	for _, r := range rows {
		at, err := time.Parse(time.DateOnly, r.date)
		if err != nil {
			return f, failure.Errorf(failure.Damaged, "read %s: archive %s has the date %q", files[0], oneLine(r.arn), oneLine(r.date))
		}
		desc := "btrsend backup for " + r.date + " (complete)"
		if r.parent != "" {
			desc = "btrsend backup for " + r.date + " (parent = " + r.parent + ")"
		}
		f.Archives = append(f.Archives, catalog.ArchiveRecord{
			Vault: url, Archive: coldstore.Archive{ID: r.arn, Description: desc, Size: max(r.size, 0), Created: at},
		})
		switch {
		case r.size <= 0:
			f.notice("the archive of %s has %d bytes: encrypting it failed, and it cannot be restored", r.date, r.size)
		case there[r.date] > 1 && !told[r.date]:
			told[r.date] = true
			f.notice("there are %d archives of %s: two runs at once made them, and each can be restored", there[r.date], r.date)
		}
		if r.parent != "" && there[r.parent] == 0 {
			f.notice("the archive of %s builds on %s, which was deleted: it cannot be restored", r.date, r.parent)
		}
	}
	f.Sets = []Set{{Name: "btrsend", Kind: kindStream, Vault: url, Keys: []Key{{"policy", text("btrsend")}}}}
	return f, nil
}

func btrsendRows(ctx context.Context, file string) ([]btrsendRow, error) {
	db, err := openForeign(file)
	if err != nil {
		return nil, err
	}
	defer db.Close() // it was only read
	columns, err := columnsOf(ctx, db, "btrsend")
	if err != nil {
		return nil, err
	}
	for _, c := range []string{"arn", "date", "size", "parent"} {
		if !slices.Contains(columns, c) {
			return nil, failure.Errorf(failure.Usage, "there is no table btrsend with a column %s: this is not the database of btrsend", c)
		}
	}
	// The driver makes a time of what a column of that type holds, unless it is told otherwise.
	rows, err := db.QueryContext(ctx, `SELECT COALESCE(CAST(arn AS TEXT), ''), COALESCE(CAST(date AS TEXT), ''), CAST(COALESCE(size, 0) AS INTEGER), COALESCE(CAST(parent AS TEXT), '')
		FROM btrsend ORDER BY date, id`)
	if err != nil {
		return nil, err
	}
	defer rows.Close() // after an error; else it is at its end
	var list []btrsendRow
	for rows.Next() {
		var r btrsendRow
		if err := rows.Scan(&r.arn, &r.date, &r.size, &r.parent); err != nil {
			return nil, err
		}
		if r.arn == "" {
			return nil, failure.Errorf(failure.Damaged, "the row of %q has no archive id", oneLine(r.date))
		}
		list = append(list, r)
	}
	return list, rows.Err()
}

package adopt

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/firn-backup/firn/internal/adopted"
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
its chains become snapshots of a set, which goes on where btrsend stopped. They lie in a vault called Backup in us-east-1.
Without the database, what the descriptions of the vault's archives tell is taken over: firn vault sync VAULT asks for them.`,
		File:  "[FILE]",
		None:  true,
		Flags: []string{FlagRegion, FlagAccount, FlagVault, FlagSet},
		Read:  readBtrsend,
	}
}

// The vault that is written in the program.
const btrsendVault, btrsendRegion = "Backup", "us-east-1"

// maxBtrsend is how many archives there may be: btrsend has four a month, and deletes what is older than some months.
const maxBtrsend = 10_000

type btrsendRow struct {
	arn, date, parent string
	size              number
}

func readBtrsend(ctx context.Context, files []string, o Options) (Found, error) {
	var f Found
	var rows []btrsendRow
	var err error
	if len(files) > 0 {
		if rows, err = btrsendRows(ctx, files[0]); err != nil {
			return f, fmt.Errorf("read %s: %w", files[0], err)
		}
		if len(rows) == 0 {
			return f, nil
		}
	}
	url, err := o.VaultURL(ctx, Place{Name: btrsendVault, Region: btrsendRegion})
	if err != nil {
		return f, err
	}
	set := btrsendSet(url, o)
	if len(files) == 0 {
		if err := btrsendListed(ctx, &f, &set, o); err != nil {
			return f, err
		}
		if len(set.Rows) == 0 {
			return f, failure.Errorf(failure.NotFound, "no archive of btrsend is known in %s: firn vault sync asks the vault what it has", url)
		}
	}
	for _, r := range rows {
		for _, date := range []string{r.date, r.parent} {
			if _, err := time.Parse(time.DateOnly, date); err != nil && date != "" || r.date == "" {
				return f, failure.Errorf(failure.Damaged, "read %s: archive %s has the date %q", files[0], oneLine(r.arn), oneLine(date))
			}
		}
		desc := "btrsend backup for " + r.date + " (complete)"
		if r.parent != "" {
			desc = "btrsend backup for " + r.date + " (parent = " + r.parent + ")"
		}
		a := coldstore.Archive{ID: r.arn, Description: desc, Size: int64(r.size.value)}
		switch {
		case a.Size <= 0:
			a.Size = 0
			f.notice("the archive of %s has %d bytes: encrypting it failed, and it cannot be restored", r.date, int64(r.size.value))
		case adopted.Midnight(r.date, time.UTC).After(o.Now.Add(2 * clockSkew)): // of a clock that was wrong: all that comes would be older than it
			f.notice("the archive of %s is of a day yet to come: it is no snapshot, and nothing is built on it", r.date)
		default:
			set.Rows = append(set.Rows, adopted.Row{Archive: a, Date: r.date, Parent: r.parent})
		}
		a.Created = adopted.Midnight(r.date, time.UTC)
		f.Archives = append(f.Archives, catalog.ArchiveRecord{Vault: url, Archive: a})
	}
	tellRows(&f, set.Rows)
	f.Sets = []Set{set}
	return f, nil
}

// tellRows tells of what is strange.
func tellRows(f *Found, rows []adopted.Row) {
	there := map[string]int{}
	for _, r := range rows {
		there[r.Date]++
	}
	told := map[string]bool{}
	for _, r := range rows {
		if there[r.Date] > 1 && !told[r.Date] {
			told[r.Date] = true
			f.notice("there are %d archives of %s: two runs at once made them, and each can be restored", there[r.Date], r.Date)
		}
		if r.Parent != "" && there[r.Parent] == 0 {
			f.notice("the archive of %s builds on %s, which was deleted: it cannot be restored", r.Date, r.Parent)
		}
	}
}

// btrsendSet is the set that goes on with it: that which the user names, or the only one of the config file with btrsend's policy in that vault, or
// a new one.
func btrsendSet(url string, o Options) Set {
	set := Set{Name: cmp.Or(o.Set, "btrsend"), Kind: kindStream, Vault: url, Keys: []Key{{"policy", text("btrsend")}}}
	var fit []string
	for name, s := range o.Known.Sets {
		if isStream(s.Kind) && s.Vault == url && s.Policy == "btrsend" {
			fit = append(fit, name)
		}
	}
	if o.Set == "" && len(fit) == 1 {
		set.Name = fit[0]
	}
	if s, ok := o.Known.Sets[set.Name]; ok && isStream(s.Kind) {
		set.Kind = s.Kind
	}
	return set
}

// btrsendListed are the archives of a vault that btrsend described.
func btrsendListed(ctx context.Context, f *Found, set *Set, o Options) error {
	return o.archives(ctx, set.Vault, func(r catalog.ArchiveRecord) error {
		if row, ok := adopted.RowOf(r.Archive); ok && (r.Size > 0 || r.SeenAsOf.IsZero()) {
			if r.SeenAsOf.IsZero() {
				row.Archive.Created = time.Time{} // it is what the database said, a date
			} else if day := adopted.Midnight(row.Date, time.UTC); day.After(r.Created.AddDate(0, 0, 2)) {
				f.notice("an archive of %s was stored on %s already: it is left out", row.Date, r.Created.UTC().Format(time.DateOnly))
				return nil
			}
			set.Rows = append(set.Rows, row)
			f.Archives = append(f.Archives, r)
		}
		if len(set.Rows) > maxBtrsend {
			return failure.Errorf(failure.Usage, "more than %d archives in %s are described as btrsend's", maxBtrsend, set.Vault)
		}
		return nil
	})
}

func btrsendRows(ctx context.Context, file string) ([]btrsendRow, error) {
	db, err := openForeign(ctx, file)
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
	rows, err := db.QueryContext(ctx, `SELECT COALESCE(CAST(arn AS TEXT), ''), COALESCE(CAST(date AS TEXT), ''), +size, COALESCE(CAST(parent AS TEXT), '')
		FROM btrsend ORDER BY date, id`)
	if err != nil {
		return nil, sqliteFault(err)
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
		if r.size.bad != "" {
			return nil, failure.Errorf(failure.Usage, "the row of %q has %s in its column size, which is no size", oneLine(r.date), r.size.bad)
		}
		if list = append(list, r); len(list) > maxBtrsend {
			return nil, failure.Errorf(failure.Usage, "it has more than %d rows: this is not the database of btrsend", maxBtrsend)
		}
	}
	return list, sqliteFault(rows.Err())
}

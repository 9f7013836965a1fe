package adopt

import (
	"bufio"
	"cmp"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/firn-backup/firn/internal/catalog"
	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/internal/failure"
)

// hopkiw is hopkiw's glacier-backup: an INI file, a table in SQLite for each vault, and a log.
func hopkiw() Tool {
	return Tool{
		Name:  "hopkiw",
		Short: "Take over the configuration, the database and the log of hopkiw's glacier-backup",
		Long: `Take over what hopkiw's glacier-backup left in ~/.config/glacier_backup:
glacier_backup.conf, the databases glacier.VAULT.sqlite3, and glacier_backup.log, which is the only place where
the released version wrote down what it had uploaded. Give all of them at once.`,
		File:  "FILE…",
		Most:  100,
		Flags: []string{FlagRegion, FlagAccount, FlagVault},
		Read:  readHopkiw,
	}
}

// hopkiwRow is one upload.
type hopkiwRow struct {
	vault, account       string // empty vault: as the configuration says
	path, name, id, from string
	at                   time.Time // zero: not known
}

const (
	hopkiwMain         = "main"
	hopkiwDefaultVault = "default"
)

func readHopkiw(ctx context.Context, files []string, o Options) (Found, error) {
	var f Found
	var rows []hopkiwRow
	var conf *HopkiwConfig
	var empty []string
	for _, file := range files {
		// The released version leaves a database of no bytes behind, since it never makes its table; and it writes a log where there is one only,
		// which users therefore began with no bytes.
		if base := filepath.Base(file); isEmpty(file) && (strings.HasSuffix(base, ".sqlite3") || strings.HasSuffix(base, ".log")) {
			empty = append(empty, file)
			continue
		}
		kind, err := sortOf(file)
		var more []hopkiwRow
		switch {
		case err != nil:
		case kind == sortSQLite:
			more, err = hopkiwRows(ctx, file)
		case isHopkiwLog(file):
			more, err = hopkiwLog(file, o.Zone)
		case conf != nil:
			err = failure.Errorf(failure.Usage, "there are two configurations: adopt them one by one")
		default:
			conf, err = ReadHopkiwConfig(file)
		}
		if err != nil {
			return f, err
		}
		rows = append(rows, more...)
	}
	if len(empty) > 0 && len(rows) == 0 {
		f.notice("%s is empty, as the released version leaves it: what was uploaded is in glacier_backup.log, if that was kept, and in the vault's listing", empty[0])
	}
	if err := f.addHopkiw(ctx, rows, conf, o); err != nil || conf == nil {
		return f, err
	}
	sets, err := HopkiwSets(ctx, conf, o)
	if err != nil {
		return f, err
	}
	f.Sets = sets
	before := f.Archives
	if o.archives != nil && len(sets) > 0 { // of an earlier adoption, without the configuration or with another
		known, archives, err := hopkiwKnown(ctx, sets[0].Vault, o.archives) // which has one vault
		if err != nil {
			return f, err
		}
		rows, before = slices.Concat(rows, known), slices.Concat(before, archives)
	}
	for i := range f.Sets {
		f.Sets[i].hopkiwItems(rows, before)
	}
	return f, nil
}

// hopkiwKnown are the uploads of this program's that the catalog knows of a vault: by the paths that they are called by, and their descriptions.
func hopkiwKnown(ctx context.Context, vault string, each func(context.Context, string, func(catalog.ArchiveRecord) error) error) ([]hopkiwRow, []catalog.ArchiveRecord, error) {
	var rows []hopkiwRow
	var archives []catalog.ArchiveRecord
	err := each(ctx, vault, func(r catalog.ArchiveRecord) error {
		base := filepath.Base(r.Name)
		switch {
		case !filepath.IsAbs(r.Name) || !r.DeletedAt.IsZero() || !r.UploadedAt.IsZero():
			return nil
		case r.Description == base, r.Description == strings.ReplaceAll(base, " ", "_")+".tar":
		case r.Description == "": // its log does not tell a file's; another program's archives of directories may have none
			if info, err := os.Stat(r.Name); err != nil || !info.Mode().IsRegular() {
				return nil
			}
		default:
			return nil
		}
		rows = append(rows, hopkiwRow{path: r.Name, name: r.Description, id: r.ID, at: r.Created})
		archives = append(archives, r)
		return nil
	})
	return rows, archives, err
}

// hopkiwUploads are the uploads that the catalog knows of vaults, by the paths that were uploaded and by their directories.
type hopkiwUploads struct {
	db     *catalog.DB
	vaults map[string]map[string][]hopkiwUpload
}

type hopkiwUpload struct {
	row     hopkiwRow
	archive catalog.ArchiveRecord
}

// fill finds the items of a set that is new.
func (u *hopkiwUploads) fill(ctx context.Context, s *Set) error {
	if _, known := u.vaults[s.Vault]; !known {
		rows, archives, err := hopkiwKnown(ctx, s.Vault, func(ctx context.Context, vault string, fn func(catalog.ArchiveRecord) error) error {
			return u.db.FindArchives(ctx, vault, nil, fn)
		})
		if err != nil {
			return err
		}
		paths := map[string][]hopkiwUpload{}
		for i := range rows {
			p := filepath.Clean(rows[i].path)
			paths[p] = append(paths[p], hopkiwUpload{rows[i], archives[i]})
			paths[filepath.Dir(p)+"/"] = append(paths[filepath.Dir(p)+"/"], hopkiwUpload{rows[i], archives[i]})
		}
		if u.vaults == nil {
			u.vaults = map[string]map[string][]hopkiwUpload{}
		}
		u.vaults[s.Vault] = paths
	}
	var rows []hopkiwRow
	var archives []catalog.ArchiveRecord
	for _, p := range []string{s.Path, s.Path + "/"} {
		for _, up := range u.vaults[s.Vault][p] {
			rows, archives = append(rows, up.row), append(archives, up.archive)
		}
	}
	s.hopkiwItems(rows, archives)
	return nil
}

// HopkiwSets are the sections of a configuration as sets.
func HopkiwSets(ctx context.Context, conf *HopkiwConfig, o Options) ([]Set, error) {
	url, err := o.VaultURL(ctx, Place{Name: conf.Vault, Account: conf.Account})
	if err != nil {
		return nil, inVault(conf.Vault, err)
	}
	var sets []Set
	for _, p := range conf.Paths {
		what := p.what()
		if what == "" {
			continue // a section that asks for nothing
		}
		s := Set{Name: setName(p.Path), Kind: kindItems, Vault: url, Path: p.Path, Keys: []Key{
			{"what", text(what)}, {"store", text(map[bool]string{true: "changed", false: "once"}[p.IfChanged])},
			{"compress", text("none")}, {"encrypt", text("none")},
		}}
		if len(p.Exclude) > 0 && what != whatSelf {
			var patterns []string
			for _, prefix := range p.Exclude {
				patterns = append(patterns, "/"+glob(prefix))
			}
			s.Keys = append(s.Keys, Key{"exclude", texts(patterns...)})
		}
		sets = append(sets, s)
	}
	return sets, nil
}

// hopkiwItems are what was uploaded of a set: of its path, or of its direct children. A row without a date counts as none, as there.
func (s *Set) hopkiwItems(rows []hopkiwRow, archives []catalog.ArchiveRecord) {
	self := slices.Contains(s.Keys, Key{"what", text(whatSelf)})
	there := map[string]bool{}
	for _, a := range archives {
		if a.Vault == s.Vault {
			there[a.ID] = true
		}
	}
	seen := map[string]bool{}
	for _, r := range rows {
		p := filepath.Clean(r.path)
		name, ok := relative(s.Path, p)
		if self {
			name, ok = filepath.Base(p), p == s.Path
		}
		if !ok || strings.Contains(name, "/") || r.id == "" || r.at.IsZero() || !there[r.id] || seen[r.id] {
			continue
		}
		seen[r.id] = true
		dir := strings.HasSuffix(r.name, ".tar") && r.name != filepath.Base(p)
		if info, err := os.Stat(p); err == nil {
			dir = info.IsDir()
		}
		s.Items = append(s.Items, catalog.Item{
			Path: name, Stored: r.at, Archive: catalog.ArchiveRef{Archive: r.id},
			ItemMore: catalog.ItemMore{Dir: dir, Name: r.path, Desc: r.name, Compress: "none", Encrypt: "none", Dated: true},
		})
	}
}

// addHopkiw adds what was uploaded. The log tells of what the databases have too: an archive counts once.
func (f *Found) addHopkiw(ctx context.Context, rows []hopkiwRow, conf *HopkiwConfig, o Options) error {
	only := "" // of the databases' vaults; of several, none: the log does not say of which it is
	for _, r := range rows {
		if r.vault != "" && only == "" {
			only = r.vault
		} else if r.vault != "" && r.vault != only {
			only = ""
			break
		}
	}
	seen := map[string]bool{}
	for _, r := range rows {
		if r.id == "" {
			f.notice("%s: %s has no archive id and was left out", r.from, oneLine(r.path))
			continue
		}
		if seen[r.id] {
			continue
		}
		seen[r.id] = true
		p := Place{Name: unquote(r.vault), Account: r.account}
		if conf != nil {
			if p.Name == "" {
				p.Name = conf.Vault
			}
			if p.Account == "" {
				p.Account = conf.Account
			}
		}
		if p.Name == "" {
			p.Name = cmp.Or(unquote(only), hopkiwDefaultVault)
		}
		if p.Account == "-" {
			p.Account = ""
		}
		url, err := o.VaultURL(ctx, p)
		if err != nil {
			return inVault(p.Name, err)
		}
		f.Archives = append(f.Archives, catalog.ArchiveRecord{
			Vault: url, Name: r.path, Archive: coldstore.Archive{ID: r.id, Description: r.name, Created: r.at},
		})
	}
	return nil
}

// hopkiwRows reads a database. Its name tells the vault: glacier.VAULT.sqlite3.
func hopkiwRows(ctx context.Context, file string) ([]hopkiwRow, error) {
	wrap := func(err error) error { return fmt.Errorf("read %s: %w", file, err) }
	base := filepath.Base(file)
	vault, ok1 := strings.CutPrefix(base, "glacier.")
	vault, ok2 := strings.CutSuffix(vault, ".sqlite3")
	if !ok1 || !ok2 {
		vault = ""
	}
	db, err := openForeign(ctx, file)
	if err != nil {
		return nil, err
	}
	defer db.Close() // it was only read
	columns, err := columnsOf(ctx, db, "uploads")
	if err != nil {
		return nil, wrap(err)
	}
	if len(columns) == 0 {
		// The released version never made the table; what it uploaded is in the log only.
		var tables int
		err := db.QueryRowContext(ctx, `SELECT COUNT(*) FROM sqlite_master`).Scan(&tables)
		if err == nil && tables > 0 {
			err = failure.Errorf(failure.Usage, "this is not a database of hopkiw's glacier-backup")
		}
		if err != nil {
			return nil, wrap(err)
		}
		return nil, nil
	}
	for _, c := range []string{"path", "name", "archive_id", "uploaded_date"} {
		if !slices.Contains(columns, c) {
			return nil, wrap(failure.Errorf(failure.Usage, "the table uploads has no column %s: this is not a database of hopkiw's glacier-backup", c))
		}
	}
	rows, err := db.QueryContext(ctx, `SELECT COALESCE(CAST(path AS TEXT), ''), COALESCE(CAST(name AS TEXT), ''), COALESCE(CAST(archive_id AS TEXT), ''),
		+uploaded_date FROM uploads ORDER BY rowid`)
	if err != nil {
		return nil, wrap(sqliteFault(err))
	}
	defer rows.Close() // after an error; else it is at its end
	var list []hopkiwRow
	for rows.Next() {
		r := hopkiwRow{vault: vault, from: base}
		var at number
		if err := rows.Scan(&r.path, &r.name, &r.id, &at); err != nil {
			return nil, wrap(err)
		}
		if at.bad != "" {
			return nil, wrap(failure.Errorf(failure.Usage, "the row of %q has %s in its column uploaded_date, which is no time", oneLine(r.path), at.bad))
		}
		r.at = unixTime(at.value)
		list = append(list, r)
	}
	if err := sqliteFault(rows.Err()); err != nil {
		return nil, wrap(err)
	}
	return list, nil
}

// The log's lines are "2021-03-20 01:02:03,456 - LOGGER - LEVEL - MESSAGE".
const hopkiwStamp = "2006-01-02 15:04:05,000"

func splitHopkiwLine(line string) (stamp, message string, ok bool) {
	f := strings.SplitN(line, " - ", 4)
	if len(f) != 4 || len(f[0]) != len(hopkiwStamp) {
		return "", "", false
	}
	_, err := time.Parse(hopkiwStamp, f[0])
	return f[0], f[3], err == nil
}

func isHopkiwLog(file string) bool {
	f, err := os.Open(file)
	if err != nil {
		return false
	}
	defer f.Close() // it was only read
	s := bufio.NewScanner(f)
	for n := 0; n < 20 && s.Scan(); n++ {
		if _, _, ok := splitHopkiwLine(s.Text()); ok {
			return true
		}
	}
	return false
}

// hopkiwLog reads the uploads that a log tells of: the path of the one before each "archive id is".
func hopkiwLog(file string, zone *time.Location) ([]hopkiwRow, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close() // it was only read
	var list []hopkiwRow
	path, name := "", ""
	s := bufio.NewScanner(f)
	s.Buffer(make([]byte, 64<<10), maxConfig)
	for s.Scan() {
		stamp, message, ok := splitHopkiwLine(s.Text())
		if !ok {
			continue // of a traceback
		}
		if p, ok := strings.CutPrefix(message, "Starting backup for path "); ok {
			path, name = p, ""
			continue
		}
		// Sic. A directory's archive is called as its tar is.
		if p, ok := strings.CutPrefix(message, "creating tar achive for "); ok && p == path {
			name = strings.ReplaceAll(filepath.Base(p), " ", "_") + ".tar"
			continue
		}
		if p, ok := strings.CutPrefix(message, "starting upload for "); ok && path == "" {
			path = p
			continue
		}
		_, id, ok := strings.Cut(message, " is complete, archive id is ")
		if !ok || !strings.HasPrefix(message, "upload ") || path == "" {
			continue
		}
		at, err := time.ParseInLocation(hopkiwStamp, stamp, zone)
		if err != nil {
			continue // it was one when the line was split
		}
		list = append(list, hopkiwRow{path: path, name: name, id: strings.TrimSpace(id), from: filepath.Base(file), at: at})
		path, name = "", ""
	}
	if err := s.Err(); err != nil {
		return nil, fmt.Errorf("read %s: %w", file, err)
	}
	return list, nil
}

package adopt

import (
	"context"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/firn-backup/firn/internal/catalog"
	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/internal/failure"
	"github.com/firn-backup/firn/treehash"
)

// glacierBackupPy is glacier-backup.py: an INI file, and a pickle with the last archive of each directory.
func glacierBackupPy() Tool {
	return Tool{
		Name:  "glacier-backup.py",
		Short: "Take over the database and the configuration of glacier-backup.py",
		Long: `Take over the database of glacier-backup.py, backup.db in its cache directory, and its
configuration, ~/.config/glacier-backup/config.ini: the archive of each directory becomes known here. The
database is a pickle; nothing of it is executed.`,
		File:  "FILE…",
		Most:  2,
		Flags: []string{FlagRegion, FlagAccount, FlagVault},
		Read:  readGlacierBackupPy,
	}
}

// pyState is what its files say.
type pyState struct {
	conf    *ini
	last    map[string]time.Time
	archive map[string]pyArchive
}

type pyArchive struct {
	id, account, vault string
	hash               treehash.Hash
}

const pySection = "default"

func readGlacierBackupPy(ctx context.Context, files []string, o Options) (Found, error) {
	var f Found
	var s pyState
	had := false
	for _, file := range files {
		kind, err := sortOf(file)
		if err == nil && kind == sortPickle {
			had = true
			err = s.readPickle(file, o.Zone, &f)
		} else if err == nil {
			err = s.readConfig(file)
		}
		if err != nil {
			return f, err
		}
	}
	if !had {
		f.notice("a configuration alone does not say which directories there are: give backup.db too")
	}
	for _, dir := range slices.Sorted(maps.Keys(s.archive)) {
		a := s.archive[dir]
		if a.vault == "" && s.conf != nil {
			a.vault, _ = s.conf.get(pySection, "vault_name")
		}
		url, err := o.VaultURL(ctx, Place{Name: a.vault, Account: a.account})
		if err != nil {
			return f, inVault(a.vault, err)
		}
		at := s.last[dir]
		if at.IsZero() {
			f.notice("it does not say when %s was backed up: a run was interrupted while it wrote that down", oneLine(dir))
		}
		f.Archives = append(f.Archives, catalog.ArchiveRecord{
			Vault: url, Name: dir, Archive: coldstore.Archive{ID: a.id, TreeHash: a.hash, Created: at},
		})
	}
	for _, dir := range slices.Sorted(maps.Keys(s.last)) {
		if _, ok := s.archive[dir]; !ok {
			f.notice("it does not say in which archive %s is: a run was interrupted while it wrote that down; the vault's listing tells it", oneLine(dir))
		}
	}
	return f, s.sets(&f)
}

// sets makes a set of each directory. Without the configuration nobody knows to whom to encrypt.
func (s *pyState) sets(f *Found) error {
	if s.conf == nil {
		return nil
	}
	keys, err := s.keys()
	if err != nil {
		return err
	}
	if keys == nil {
		f.notice("the configuration has no gpg_key_name: no sets were made of its directories")
		return nil
	}
	for _, r := range f.Archives {
		if !filepath.IsAbs(r.Name) {
			f.notice("%s is not an absolute path: no set was made of it", oneLine(r.Name))
			continue
		}
		dir := filepath.Clean(r.Name)
		tar, err := s.tarKeys(f, dir)
		if err != nil {
			return err
		}
		set := Set{Name: setName(dir), Kind: kindItems, Vault: r.Vault, Path: dir, Keys: append(slices.Clone(keys), tar...)}
		if !r.Created.IsZero() {
			set.Items = []catalog.Item{{Path: filepath.Base(dir), Stored: r.Created, Archive: catalog.ArchiveRef{Archive: r.ID, TreeHash: r.TreeHash},
				ItemMore: catalog.ItemMore{Dir: true, Name: r.Name, Compress: "none", Encrypt: "openpgp", Dated: true}}}
		}
		f.Sets = append(f.Sets, set)
	}
	return nil
}

// keys are the configuration as keys of a set; nil without a recipient.
func (s *pyState) keys() ([]Key, error) {
	recipient, _ := s.conf.get(pySection, "gpg_key_name")
	if recipient == "" {
		return nil, nil
	}
	compress, err := s.tarCompress()
	if err != nil {
		return nil, err
	}
	list := []Key{{"what", text(whatSelf)}, {"compress", text(compress)}, {"encrypt", text("openpgp")}, {"recipients", texts(recipient)}}
	// A backup must be older than so many whole days there: one more than the number.
	if age, ok := s.conf.get(pySection, "min_age"); ok {
		n, err := strconv.Atoi(age)
		if err != nil || n < 0 || n > 36500 {
			return nil, failure.Errorf(failure.Usage, "[%s] min_age: %q is not a number of days", pySection, oneLine(age))
		}
		list = append(list, Key{"min-interval", text(fmt.Sprintf("%dd", n+1))})
	}
	return append(list, Key{"replace", "true"}), nil
}

func (s *pyState) readConfig(file string) error {
	data, err := readSmall(file, maxConfig)
	if err != nil {
		return err
	}
	if s.conf, err = parseINI(string(data)); err != nil {
		return fmt.Errorf("read %s: %w", file, err)
	}
	if !s.conf.has(pySection) {
		return failure.Errorf(failure.Usage, "read %s: there is no section [%s]: this is not the configuration of glacier-backup.py", file, pySection)
	}
	return nil
}

func (s *pyState) readPickle(file string, zone *time.Location, f *Found) error {
	data, err := readSmall(file, maxPickle)
	if err != nil {
		return err
	}
	v, err := unpickle(data, zone)
	if err != nil {
		return failure.Wrap(failure.Damaged, fmt.Errorf("read %s: %w", file, err))
	}
	top, ok := v.(pickleDict)
	last, ok1 := top["last backup"].(pickleDict)
	meta, ok2 := top["glacier metadata"].(pickleDict)
	if !ok || !ok1 || !ok2 {
		return failure.Errorf(failure.Usage, "read %s: this is not the database of glacier-backup.py", file)
	}
	s.last, s.archive = map[string]time.Time{}, map[string]pyArchive{}
	for _, dir := range slices.Sorted(maps.Keys(last)) {
		t, ok := last[dir].(time.Time)
		if !ok {
			return failure.Errorf(failure.Damaged, "read %s: the time of %s is none", file, oneLine(dir))
		}
		s.last[dir] = t
	}
	for _, dir := range slices.Sorted(maps.Keys(meta)) {
		d, _ := meta[dir].(pickleDict)
		a, err := parsePyArchive(d)
		if err != nil {
			return failure.Wrap(failure.Damaged, fmt.Errorf("read %s: the archive of %s: %w", file, oneLine(dir), err))
		}
		if !a.hash.IsZero() || d["checksum"] == nil {
			s.archive[dir] = a
			continue
		}
		f.notice("the checksum of %s is not a tree hash and was left out", oneLine(dir))
		s.archive[dir] = a
	}
	return nil
}

// parsePyArchive reads the AWS CLI's answer to an upload: archiveId, checksum, and location, which is
// /ACCOUNT/vaults/VAULT/archives/ID.
func parsePyArchive(d pickleDict) (pyArchive, error) {
	var a pyArchive
	a.id, _ = d["archiveId"].(string)
	location, _ := d["location"].(string)
	part := strings.Split(location, "/")
	if len(part) == 6 && part[0] == "" && part[2] == "vaults" && part[4] == "archives" {
		a.account, a.vault = part[1], part[3]
		if a.id == "" {
			a.id = part[5]
		}
	}
	if a.id == "" {
		return a, failure.Errorf(failure.Damaged, "there is no id")
	}
	if a.account == "-" {
		a.account = ""
	}
	if sum, ok := d["checksum"].(string); ok {
		if h, err := treehash.Parse(sum); err == nil {
			a.hash = h
		}
	}
	return a, nil
}

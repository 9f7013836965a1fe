package adopt

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/firn-backup/firn/internal/catalog"
	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/internal/failure"
	"github.com/firn-backup/firn/internal/foreign"
	"github.com/firn-backup/firn/internal/snapshot"
	"github.com/firn-backup/firn/treehash"
)

// mtAWS is mt-aws-glacier: journals, lines of what happened, and a configuration of KEY=VALUE.
func mtAWS() Tool {
	return Tool{
		Name:  "mt-aws-glacier",
		Short: "Take over the journal and the configuration of mt-aws-glacier",
		Long: `Take over a journal of mt-aws-glacier, and with it the configuration that tells its region, vault and
directory. Secrets in the configuration are not looked at.`,
		File:  "FILE…",
		Most:  2,
		Flags: []string{FlagRegion, FlagAccount, FlagVault},
		Read:  readMTAWS,
	}
}

// mtConfig is what of a configuration is of use.
type mtConfig struct{ region, vault, dir string }

// mtArchive is one archive of a journal.
type mtArchive struct {
	catalog.ArchiveRecord
	name  string
	mtime snapshot.Time // zero: not known
}

func readMTAWS(ctx context.Context, files []string, o Options) (Found, error) {
	var f Found
	var conf mtConfig
	var journal []mtArchive
	had := false
	for _, file := range files {
		is, err := isJournal(file)
		switch {
		case err != nil:
		case is && had:
			err = failure.Errorf(failure.Usage, "there are two journals: adopt them one by one, each with its configuration")
		case is:
			had = true
			journal, err = readJournal(file, &f)
		default:
			conf, err = readMTConfig(file)
		}
		if err != nil {
			return f, err
		}
	}
	if !had {
		return f, failure.Errorf(failure.Usage, "none of the files is a journal of mt-aws-glacier")
	}
	if len(journal) == 0 {
		return f, nil
	}
	url, err := o.VaultURL(ctx, Place{Name: conf.vault, Region: conf.region})
	if err != nil {
		return f, err
	}
	set := Set{Name: setName(conf.dir), Kind: kindMirror, Vault: url, Path: filepath.Clean(conf.dir), Keys: []Key{{"compress", text("none")}, {"encrypt", text("none")}}}
	for _, a := range journal {
		a.Vault = url
		f.Archives = append(f.Archives, a.ArchiveRecord)
		if a.Name == "" || !a.DeletedAt.IsZero() {
			continue
		}
		set.Items = append(set.Items, catalog.Item{
			Path: a.name, Stored: a.Created, Archive: catalog.ArchiveRef{Archive: a.ID, Size: a.Size, TreeHash: a.TreeHash}, Plain: a.Size, PlainHash: a.TreeHash,
			ItemMore: catalog.ItemMore{Name: a.name, Desc: a.Description, Self: a.Description != "", Compress: "none", Encrypt: "none", MTime: a.mtime, Bare: true},
		})
	}
	switch {
	case conf.dir == "":
	case !filepath.IsAbs(conf.dir):
		f.notice("its directory, %s, is not an absolute path: no set was made of it", oneLine(conf.dir))
	default:
		f.Sets = []Set{set}
	}
	return f, nil
}

// journalLine are the words of a line, and its version: '0', 'A', 'B' or 'C'. ok is false for what is no line of a journal.
func journalLine(line string) (version byte, words []string, ok bool) {
	if len(line) > 2 && line[1] == '\t' && line[0] >= 'A' && line[0] <= 'C' {
		words = strings.Split(line, "\t")
		version, words = line[0], words[1:]
	} else {
		version, words = '0', strings.Split(line, " ")
	}
	if len(words) < 3 {
		return 0, nil, false
	}
	if _, err := strconv.ParseInt(words[0], 10, 64); err != nil {
		return 0, nil, false
	}
	return version, words, words[1] == "CREATED" || words[1] == "DELETED" || words[1] == "RETRIEVE_JOB"
}

func isJournal(file string) (bool, error) {
	data, err := head(file)
	if err != nil {
		return false, err
	}
	line, _, _ := bytes.Cut(data, []byte("\n"))
	_, _, ok := journalLine(strings.TrimRight(string(line), "\r"))
	return ok, nil
}

// head is the beginning of a file.
func head(file string) ([]byte, error) {
	if _, err := sortOf(file); err != nil {
		return nil, err
	}
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close() // it was only read
	buf := make([]byte, 16<<10)
	n, err := f.Read(buf)
	return buf[:n], err
}

// maxJournalLine is how long a line may be, in bytes: a name has 4,096 at most.
const maxJournalLine = 64 << 10

// readJournal reads what was created, without what was deleted later. Where a line cannot be read it stops, as the tool itself
// does: what follows may delete what came before.
func readJournal(file string, f *Found) ([]mtArchive, error) {
	in, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer in.Close() // it was only read
	var order []string
	byID := map[string]mtArchive{}
	s := bufio.NewScanner(in)
	s.Buffer(make([]byte, maxJournalLine), maxJournalLine)
	s.Split(wholeLines)
	n := 0
	for s.Scan() {
		n++
		text := s.Text()
		line, whole := strings.CutSuffix(text, "\n")
		if !whole { // the tool was killed while it wrote the line
			f.notice("%s: its last line, %d, is cut off and was left out; the vault's listing tells whether there is an archive", filepath.Base(file), n)
			break
		}
		version, words, ok := journalLine(strings.TrimRight(line, "\r"))
		if !ok {
			return nil, failure.Errorf(failure.Damaged, "read %s: line %d is none of a journal", file, n)
		}
		switch words[1] {
		case "CREATED":
			a, err := journalArchive(version, words)
			if err != nil {
				return nil, failure.Wrap(failure.Damaged, fmt.Errorf("read %s: line %d: %w", file, n, err))
			}
			if _, known := byID[a.ID]; !known {
				order = append(order, a.ID)
			}
			byID[a.ID] = a
		case "DELETED":
			at, _ := strconv.ParseInt(words[0], 10, 64) // journalLine has seen to it
			if a, known := byID[words[2]]; known {
				a.DeletedAt = unixTime(float64(at))
				byID[words[2]] = a
			}
		}
	}
	if err := s.Err(); err != nil {
		return nil, failure.Wrap(failure.Damaged, fmt.Errorf("read %s: line %d: %w", file, n+1, err))
	}
	var list []mtArchive
	for _, id := range order {
		list = append(list, byID[id])
	}
	return list, nil
}

// wholeLines splits into lines with their ends: the last one may have none.
func wholeLines(data []byte, atEOF bool) (int, []byte, error) {
	if i := bytes.IndexByte(data, '\n'); i >= 0 {
		return i + 1, data[:i+1], nil
	}
	if atEOF && len(data) > 0 {
		return len(data), data, nil
	}
	return 0, nil, nil
}

// journalArchive reads TIME CREATED ID SIZE [MTIME] HASH NAME.
func journalArchive(version byte, w []string) (mtArchive, error) {
	var a mtArchive
	at := 4
	if version != '0' {
		at = 5
	}
	if len(w) < at+2 {
		return a, failure.Errorf(failure.Damaged, "words are missing")
	}
	sep := "\t"
	if version == '0' {
		sep = " "
	}
	a.name = strings.Join(w[at+1:], sep)
	if a.name == "" || filepath.IsAbs(a.name) || foreign.SafeName(a.name) != a.name && strings.Contains("/"+a.name+"/", "/../") {
		return a, failure.Errorf(failure.Damaged, "the name %q is not a relative path", oneLine(a.name))
	}
	size, err := strconv.ParseInt(w[3], 10, 64)
	if err != nil || size < 0 || w[2] == "" {
		return a, failure.Errorf(failure.Damaged, "%q is not a size", oneLine(w[3]))
	}
	hash, err := treehash.Parse(w[at])
	if err != nil {
		return a, err
	}
	sec, _ := strconv.ParseInt(w[0], 10, 64) // journalLine has seen to it
	a.Archive = coldstore.Archive{ID: w[2], Size: size, TreeHash: hash, Created: unixTime(float64(sec))}
	a.Name = a.name
	foreignArchive := a.name == a.ID // one that the tool found in the vault and did not make
	if foreignArchive {
		a.Name = ""
		return a, nil
	}
	if version != '0' && w[4] != "NONE" {
		if m, err := strconv.ParseInt(w[4], 10, 64); err == nil {
			a.mtime = snapshot.TimeOf(time.Unix(m, 0))
			if d, ok := foreign.EncodeMT2(a.name, time.Unix(m, 0)); ok {
				a.Description = d
			}
		}
	}
	return a, nil
}

// readMTConfig reads KEY=VALUE. https://github.com/vsespb/mt-aws-glacier#configuration-file-formatting
func readMTConfig(file string) (mtConfig, error) {
	var c mtConfig
	data, err := readSmall(file, maxConfig)
	if err != nil {
		return c, err
	}
	known := false
	for line := range strings.SplitSeq(string(data), "\n") {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		key, value, ok := strings.Cut(line, "=")
		if !ok && !strings.Contains(line, "=") { // a flag
			continue
		}
		key, value = strings.TrimSpace(key), strings.TrimSpace(value)
		switch key {
		case "region":
			c.region, known = value, true
		case "vault":
			c.vault, known = value, true
		case "dir":
			c.dir, known = value, true
		case "key", "secret", "protocol", "journal":
			known = true
		}
	}
	if !known {
		return c, failure.Errorf(failure.Usage, "%s is neither a journal nor a configuration of mt-aws-glacier", file)
	}
	return c, nil
}

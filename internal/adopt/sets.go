package adopt

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/firn-backup/firn/internal/adopted"
	"github.com/firn-backup/firn/internal/catalog"
	"github.com/firn-backup/firn/internal/failure"
	"github.com/firn-backup/firn/internal/itemstore"
	"github.com/firn-backup/firn/internal/snapshot"
)

// Kinds of sets, as the config file has them.
const (
	kindItems  = "items"
	kindMirror = "mirror"
	kindStream = "stream"
	kindBtrfs  = "btrfs"
)

// Set is what a program did, as a set of the config file, with what it has stored of it.
type Set struct {
	Name  string // as wished for; Run makes it one that is free
	Kind  string
	Vault string // URL
	Path  string // absolute; empty: it has none
	Keys  []Key  // further ones, in order
	Items []catalog.Item
	Rows  []adopted.Row // of a stream: its snapshots

	Policy string // of one of the config file
}

// isStream says whether a kind of set has streams as its snapshots; which producer's, the config file may say otherwise at any time.
func isStream(kind string) bool { return kind == kindStream || kind == kindBtrfs }

// Key is a line of a set.
type Key struct{ Name, Value string }

// text is a value of TOML: JSON's escapes are a part of TOML's.
func text(s string) string {
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(strings.ToValidUTF8(s, "\ufffd")); err != nil {
		return `""`
	}
	return strings.ReplaceAll(strings.TrimSuffix(b.String(), "\n"), "\x7f", `\u007f`)
}

func texts(list ...string) string {
	for i, s := range list {
		list[i] = text(s)
	}
	return "[" + strings.Join(list, ", ") + "]"
}

// section is the name of a table: bare where that is allowed.
func section(kind, name string) string {
	if name != "" && strings.Trim(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-") == "" {
		return "[" + kind + "." + name + "]"
	}
	return "[" + kind + "." + text(name) + "]"
}

// Known is what the config file has already, by names.
type Known struct {
	Host   string
	Vaults map[string]string // URLs
	Sets   map[string]Set    // Kind, Vault, Path and Policy
}

// setName makes the name of a set of a path.
func setName(p string) string {
	name := strings.Map(func(r rune) rune {
		if r < 0x20 || r == 0x7f || r == '@' || r == '/' || r == '\ufffd' {
			return '_'
		}
		return r
	}, filepath.Base(p))
	if name == "_" || name == "." {
		return "root"
	}
	if strings.HasPrefix(name, "-") {
		name = "_" + name[1:]
	}
	return strings.TrimSpace(strings.ToValidUTF8(name[:min(len(name), 90)], ""))
}

// label tells sets of other directories apart that have the same name: a directory's whole path, or much of it and a hash.
// It is the label of sets that are made here, which the catalog keeps where it has no path.
func label(s *Set) string {
	if s.Path == "" {
		return s.Name
	}
	clean := strings.Trim(filepath.Clean(s.Path), "/")
	var b strings.Builder
	for _, c := range []byte(clean) {
		switch {
		case c == '/':
			b.WriteByte('+')
		case c <= ' ' || c >= 0x7f || strings.IndexByte("+%@", c) >= 0:
			fmt.Fprintf(&b, "%%%02X", c)
		default:
			b.WriteByte(c)
		}
	}
	text := cmp.Or(b.String(), "root")
	if len(text) > 90 {
		sum := sha256.Sum256([]byte(clean))
		text = text[len(text)-50:] + "+" + hex.EncodeToString(sum[:12])
	}
	return text
}

// configText is what is to be appended to the config file so that it has the sets. It gives vaults their names,
// and leaves out what is there.
func configText(sets []Set, known Known) string {
	var b strings.Builder
	vaults := map[string]string{} // URL to name
	for name, url := range known.Vaults {
		if old, ok := vaults[url]; !ok || name < old {
			vaults[url] = name
		}
	}
	for i := range sets {
		s := &sets[i]
		if _, there := known.Sets[s.Name]; there {
			continue
		}
		if vaults[s.Vault] == "" {
			name := free(vaultName(s.Vault), func(n string) bool {
				_, taken := known.Vaults[n]
				return taken || slices.Contains(slices.Collect(maps.Values(vaults)), n)
			})
			vaults[s.Vault] = name
			fmt.Fprintf(&b, "%s\nurl = %s\n\n", section("vault", name), text(s.Vault))
		}
		fmt.Fprintf(&b, "%s\nkind = %s\n", section("set", s.Name), text(s.Kind))
		if s.Path != "" {
			fmt.Fprintf(&b, "path = %s\n", text(s.Path))
		}
		fmt.Fprintf(&b, "vault = %s\n", text(vaults[s.Vault]))
		for _, k := range s.Keys {
			fmt.Fprintf(&b, "%s = %s\n", k.Name, k.Value)
		}
		b.WriteByte('\n')
	}
	return strings.TrimSuffix(b.String(), "\n")
}

func vaultName(url string) string {
	url, _, _ = strings.Cut(url, "?")
	return setName(url)
}

// free is a name that is not taken: with a number where it must be.
func free(name string, taken func(string) bool) string {
	for n, try := 2, name; ; n++ {
		if !taken(try) {
			return try
		}
		try = fmt.Sprintf("%s-%d", name, n)
	}
}

// Named gives sets the names that they have in the catalog, or that are free, and returns a config file of all known vaults and of
// the sets that are not known; so that a configuration of another program can be run as it is. The sets are recorded, unless db is
// nil or record is not set; one that is new begins with what the catalog knows that the program had stored of it, and that is recorded in any case.
func Named(ctx context.Context, db *catalog.DB, sets []Set, known Known, now time.Time, rand io.Reader, record bool) (config string, err error) {
	var all []catalog.Set
	if db != nil {
		if all, err = db.Sets(ctx); err != nil {
			return "", err
		}
	}
	r := recorder{db: db, known: known, now: now, rand: rand}
	used := map[string]bool{}
	uploads := hopkiwUploads{db: db}
	for i := range sets {
		mine := r.name(&sets[i], all, used)
		if db != nil && mine.ID == "" {
			if err := uploads.fill(ctx, &sets[i]); err != nil {
				return "", err
			}
		}
		if db == nil || !record && len(sets[i].Items) == 0 {
			continue
		}
		if _, _, err := r.set(ctx, &sets[i], mine); err != nil {
			return "", err
		}
	}
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(known.Vaults)) {
		fmt.Fprintf(&b, "%s\nurl = %s\n\n", section("vault", name), text(known.Vaults[name]))
	}
	return b.String() + configText(sets, known), nil
}

// recorder writes sets into the catalog.
type recorder struct {
	db      *catalog.DB
	known   Known
	now     time.Time
	rand    io.Reader
	zone    *time.Location
	wanted  string // the name of the set that the user gave
	notices []string
}

// name gives a set its name, and its record where there is one. A set of that kind, path and vault that is there already is the same.
func (r *recorder) name(s *Set, all []catalog.Set, used map[string]bool) catalog.Set {
	var mine catalog.Set
	s.Name = free(s.Name, func(n string) bool {
		if used[n] {
			return true
		}
		c, configured := r.known.Sets[n]
		if configured && (!sameKind(c.Kind, s.Kind) || c.Vault != s.Vault || c.Path != s.Path) {
			return true
		}
		i := slices.IndexFunc(all, func(x catalog.Set) bool { return x.Host == r.known.Host && x.Name == n })
		if i < 0 {
			mine = catalog.Set{}
			return false
		}
		mine = all[i]
		// Without a config file that says its path, a set of that name may be another directory's.
		return !sameKind(mine.Kind, s.Kind) || mine.Vault != s.Vault || mine.Root != "" || !configured && mine.Label != label(s)
	})
	used[s.Name] = true
	return mine
}

func sameKind(a, b string) bool { return a == b || isStream(a) && isStream(b) }

// set records one set and its items. What the catalog has of it already stays.
func (r *recorder) set(ctx context.Context, s *Set, mine catalog.Set) (items, snaps int64, err error) {
	if mine.ID == "" {
		id, err := snapshot.NewID(r.now, r.rand)
		if err != nil {
			return 0, 0, err
		}
		mine = catalog.Set{ID: id, Name: s.Name, Label: label(s), Host: r.known.Host, Kind: s.Kind, Vault: s.Vault, Created: r.now}
		if err := r.db.PutSet(ctx, mine); err != nil {
			return 0, 0, err
		}
	}
	if len(s.Rows) > 0 {
		snaps, err = r.snapshots(ctx, s, mine)
		return 0, snaps, err
	}
	items, err = r.items(ctx, s, mine)
	return items, 0, err
}

// clockSkew is how far in the future a time may be that is one of now: programs write local times without their zone.
const clockSkew = 24 * time.Hour

// items records the items of a set.
func (r *recorder) items(ctx context.Context, s *Set, mine catalog.Set) (added int64, err error) {
	has := map[string]bool{}
	if err := r.db.Items(ctx, mine.ID, catalog.ItemQuery{All: true}, func(i catalog.Item) error {
		has[i.Path] = true
		return nil
	}); err != nil {
		return 0, err
	}
	runs, err := r.db.ItemRuns(ctx, mine.ID)
	if err != nil {
		return 0, err
	}
	if len(runs) > 0 && len(has) > 0 { // runs of its own, or an earlier adoption: older versions cannot come after them
		s.Items = nil
	}
	versions := map[string][]catalog.Item{}
	for _, i := range s.Items {
		if i.Stored.After(r.now) {
			// A clock was wrong, or a zone is another. What is known by its date only would not be seen to change until that day.
			if i.Dated && i.Stored.After(r.now.Add(clockSkew)) {
				r.notices = append(r.notices, fmt.Sprintf("%s is said to be stored on %s, which is yet to come: it will be stored again", oneLine(i.Name), i.Stored.UTC().Format(time.DateOnly)))
				continue
			}
			i.Stored = r.now
		}
		if !has[i.Path] {
			i.SetID, i.Vault = mine.ID, mine.Vault
			if err := r.fill(ctx, &i); err != nil {
				return 0, err
			}
			versions[i.Path] = append(versions[i.Path], i)
		}
	}
	if len(versions) == 0 {
		return 0, nil
	}
	var lists [][]catalog.Item
	for _, p := range slices.Sorted(maps.Keys(versions)) {
		v := versions[p]
		slices.SortStableFunc(v, func(a, b catalog.Item) int { return a.Stored.Compare(b.Stored) })
		if n := currentOf(v, s.Path); n >= 0 { // the order of a list counts, not its times
			v = append(slices.Delete(slices.Clone(v), n, n+1), v[n])
		}
		lists = append(lists, v)
	}
	// Nothing has to be stored to tell of them: the program's own files do.
	times := itemstore.History(0, lists)
	list := slices.Concat(lists...)
	made := make([]catalog.ItemRun, len(times))
	for n, at := range times {
		id, err := snapshot.NewID(cmp.Or(at, r.now), r.rand)
		if err != nil {
			return 0, err
		}
		made[n] = catalog.ItemRun{SetID: mine.ID, N: uint64(n + 1), ID: id, Vault: mine.Vault, At: cmp.Or(at, r.now)}
	}
	itemstore.Totals(made, list)
	for _, run := range made {
		run.Sent = 0 // not by Firn
		if err := r.db.PutItemRun(ctx, run); err != nil {
			return 0, err
		}
	}
	if err := r.db.PutItems(ctx, list); err != nil { // all or nothing: a set that has some is not taken over again
		return 0, err
	}
	return int64(len(list)), nil
}

// currentOf is which of several versions of a path, in the order in which they were stored, is the current one: that which is there now by time of
// change and size; else, as mt-aws-glacier takes it, the one that was changed last, or stored last where that is not known. -1: the last, as always.
func currentOf(v []catalog.Item, dir string) int {
	if len(v) < 2 || !slices.ContainsFunc(v, func(i catalog.Item) bool { return i.MTime != snapshot.Time{} }) {
		return -1
	}
	if info, err := os.Stat(filepath.Join(dir, filepath.FromSlash(v[0].Path))); err == nil && info.Mode().IsRegular() {
		for n := len(v) - 1; n >= 0; n-- {
			if v[n].MTime.Sec == info.ModTime().Unix() && v[n].Plain == info.Size() {
				return n
			}
		}
	}
	best := 0
	for n := range v {
		if changed(&v[n]).Compare(changed(&v[best])) >= 0 {
			best = n
		}
	}
	return best
}

// changed is when a version's file was changed, or else stored.
func changed(i *catalog.Item) time.Time {
	if i.MTime == (snapshot.Time{}) {
		return i.Stored
	}
	return i.MTime.Time()
}

// fill puts into an item what the catalog knows of its archive.
func (r *recorder) fill(ctx context.Context, i *catalog.Item) error {
	if i.Archive.Size > 0 && i.Archive.TreeHash != [32]byte{} {
		return nil
	}
	a, err := r.db.ArchiveByID(ctx, i.Vault, i.Archive.Archive)
	if err != nil && failure.KindOf(err) != failure.NotFound {
		return err
	}
	if err == nil {
		if i.Archive.Size == 0 {
			i.Archive.Size = a.Size
		}
		if i.Archive.TreeHash == [32]byte{} {
			i.Archive.TreeHash = a.TreeHash
		}
	}
	// What is neither compressed nor encrypted is what the archive is.
	if i.Compress == "none" && i.Encrypt == "none" && i.Archive.Size > 0 && i.Archive.TreeHash != [32]byte{} {
		i.Plain, i.PlainHash = i.Archive.Size, i.Archive.TreeHash
		i.Dated = i.Dir
		i.Bare = !i.Dir
	}
	return nil
}

// relative is the path of an item within a set; ok is false for one outside.
func relative(dir, p string) (string, bool) {
	rel, err := filepath.Rel(dir, p)
	if err != nil || rel == "." || strings.HasPrefix(rel, "../") || rel == ".." {
		return "", false
	}
	return path.Clean(filepath.ToSlash(rel)), true
}

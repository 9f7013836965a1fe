// Package adopted makes snapshots of what another program stored: it owns their ids, their hashes and what each builds on, so
// that whoever makes them of the same archives, from a program's own records or from the descriptions in a vault, makes the same
// ones. It is pure, and knows neither those records nor vaults (docs/adr/0200).
package adopted

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/firn-backup/firn/internal/catalog"
	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/internal/foreign"
	"github.com/firn-backup/firn/internal/sendstream"
	"github.com/firn-backup/firn/internal/snapshot"
)

// Btrsend is the program whose archives are snapshots: what catalog.Snapshot.Adopted says of them.
const Btrsend = string(foreign.Btrsend)

// Row is one archive of btrsend.
type Row struct {
	Archive coldstore.Archive // a zero size, tree hash or time of creation is not known
	Date    string            // of the snapshot, 2006-01-02, as it is called on the machine that it was made on
	Parent  string            // date of the one that it builds on; empty: it is complete
}

// RowOf reads what an archive's description tells.
func RowOf(a coldstore.Archive) (Row, bool) {
	f, ok := foreign.Decode(a.Description)
	if !ok || f.Tool != foreign.Btrsend {
		return Row{}, false
	}
	return Row{Archive: a, Date: f.ModTime.Format(time.DateOnly), Parent: f.Parent}, true
}

// Chain makes snapshots of a set of rows, each after its base; dates begin in zone. One whose base is not among them names one that
// does not exist, and cannot be restored. Of several of one date the first that can be restored is what others build on. A
// row with a date that is none is an error.
func Chain(set catalog.Set, zone *time.Location, rows []Row) ([]catalog.Adopted, error) {
	rows = slices.Clone(rows)
	slices.SortStableFunc(rows, func(a, b Row) int {
		return cmp.Or(cmp.Compare(a.Date, b.Date), cmp.Compare(a.Archive.ID, b.Archive.ID))
	})
	var list []catalog.Adopted
	byDate := map[string]*catalog.Adopted{}
	stuck := false
	for len(rows) > 0 {
		var rest []Row
		left := map[string]bool{}
		for _, r := range rows {
			left[r.Date] = true
		}
		for i, r := range rows {
			base := byDate[r.Parent]
			// What it builds on is not there; of a circle, the first goes without.
			alone := stuck && (!left[r.Parent] || i == 0 && !anyAlone(rows, left))
			if r.Parent != "" && base == nil && !alone {
				rest = append(rest, r)
				continue
			}
			x, err := one(set, zone, r, base)
			if err != nil {
				return nil, err
			}
			list = append(list, x)
			if byDate[r.Date] == nil {
				byDate[r.Date] = &x
			}
		}
		stuck = len(rest) == len(rows)
		rows = rest
	}
	return list, nil
}

// anyAlone says whether one of the rows builds on what is not among them.
func anyAlone(rows []Row, left map[string]bool) bool {
	return slices.ContainsFunc(rows, func(r Row) bool { return !left[r.Parent] })
}

// one makes one snapshot.
func one(set catalog.Set, zone *time.Location, r Row, base *catalog.Adopted) (catalog.Adopted, error) {
	day, err := time.Parse(time.DateOnly, r.Date)
	if err != nil || r.Archive.ID == "" {
		return catalog.Adopted{}, fmt.Errorf("archive %q has the date %q", r.Archive.ID, r.Date)
	}
	var x catalog.Adopted
	if x.ID, err = id(day, "snapshot", set.ID, r.Archive.ID, r.Date); err != nil {
		return x, err
	}
	x.Kind = snapshot.Full
	switch {
	case r.Parent == "":
	case base == nil:
		missing, err := time.Parse(time.DateOnly, r.Parent)
		if err != nil {
			return x, fmt.Errorf("archive %q builds on the date %q", r.Archive.ID, r.Parent)
		}
		x.Kind = snapshot.Incremental
		if x.Base, err = id(missing, "missing", set.ID, r.Parent); err != nil {
			return x, err
		}
	default:
		x.Kind, x.Base = snapshot.Incremental, base.ID
		x.Header.BaseHash = base.ManifestHash
	}
	x.SetID, x.Vault, x.Adopted, x.State = set.ID, set.Vault, Btrsend, catalog.Stored
	x.At = Midnight(r.Date, zone)
	x.Made = x.At
	// Of the whole chain, down to its first archive: whoever signs this one has signed those.
	x.ManifestHash = sum("manifest", set.ID, r.Archive.ID, r.Date, r.Parent, hex.EncodeToString(x.Header.BaseHash[:]))
	h := &x.Header
	h.SetID, h.Set, h.Label, h.Host, h.Snap, h.At, h.Made, h.Kind, h.Base = set.ID, set.Name, set.Label, set.Host, x.ID, x.At, x.Made, x.Kind, x.Base
	h.Stream, h.Point, h.Compress, h.Encrypt = string(sendstream.Btrfs), r.Date, "gzip", "openpgp"
	x.Archive = catalog.ArchiveRef{Archive: r.Archive.ID, Size: r.Archive.Size, TreeHash: r.Archive.TreeHash, Stored: r.Archive.Created}
	if x.Archive.Stored.IsZero() {
		x.Archive.Stored = x.At.AddDate(0, 0, 1) // not long after midnight; what is deleted before that is paid for
	}
	return x, nil
}

// Midnight is when a date begins; zero for what is no date.
func Midnight(date string, zone *time.Location) time.Time {
	if zone == nil {
		zone = time.Local
	}
	t, err := time.ParseInLocation(time.DateOnly, date, zone)
	if err != nil {
		return time.Time{}
	}
	return t
}

// sum is a SHA-256 of texts, none of which has a line's end.
func sum(parts ...string) [32]byte {
	return sha256.Sum256([]byte("firn-adopted btrsend\n" + strings.Join(parts, "\n") + "\n"))
}

// id is a snapshot's id: its time is that of the date, and the rest depends on nothing but the parts.
func id(day time.Time, parts ...string) (string, error) {
	h := sum(parts...)
	return snapshot.NewID(day, bytes.NewReader(h[:]))
}

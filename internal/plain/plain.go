// Package plain is the use case of single archives: files and streams that are stored as they
// are, in no format of Firn's, so that any other program can read them. It owns how they are named and
// found again, how an interrupted upload or download goes on, and what must not be deleted. It knows nothing of snapshots but which
// archives they need.
package plain

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/firn-backup/firn/internal/catalog"
	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/internal/failure"
	"github.com/firn-backup/firn/internal/foreign"
	"github.com/firn-backup/firn/internal/transfer"
	"github.com/firn-backup/firn/internal/units"
)

const (
	mib = 1 << 20
	gib = 1 << 30

	// StreamPart is the size of the parts of a stream of which nobody says how long it is: an archive has 10,000
	// parts at most, so that it can have 625 GiB.
	StreamPart = 64 << 20
	// Above this size of parts one is sent at a time, so that memory stays within two.
	manyParts = 32 << 20

	maxDescription = 1024
)

// Vault is where archives lie. All fields are needed.
type Vault struct {
	Store   coldstore.Store
	Catalog *catalog.DB
	URL     string // as in the catalog
	Now     func() time.Time
}

func (v *Vault) check() error {
	if v.Store == nil || v.Catalog == nil || v.URL == "" || v.Now == nil {
		return errors.New("plain: an option is missing")
	}
	return nil
}

// NearText is what UploadOptions.Near has to say.
func NearText(name string, come, most, partSize int64) string {
	return fmt.Sprintf("%s: %s have come, and %s are all that fit into an archive with parts of %s: if more come, nothing is stored. "+
		"A larger --expected-size from the start makes room", name, units.Size(come), units.ExactSize(most), units.ExactSize(partSize))
}

// Called says that an archive goes by a name: it has that name or, where it has none, its description says so.
func Called(r catalog.ArchiveRecord, name string) bool {
	if r.Name != "" {
		return r.Name == name
	}
	return r.Description == name || name != "" && (NameOf(r.Description) == name || foreign.Name(r.Description) == name)
}

// AnnexSize is the size that the key of git-annex in a name tells: SHA256E-s123456--0a1b….ext. ok is
// false where there is none.
func AnnexSize(name string) (size int64, ok bool) {
	name = name[strings.LastIndexByte(name, '/')+1:]
	fields, _, found := strings.Cut(name, "--")
	if !found {
		return 0, false
	}
	backend, rest, _ := strings.Cut(fields, "-")
	if backend == "" || strings.ToUpper(backend) != backend {
		return 0, false
	}
	for f := range strings.SplitSeq(rest, "-") {
		if digits, is := strings.CutPrefix(f, "s"); is {
			n, err := strconv.ParseInt(digits, 10, 64)
			return n, err == nil && n >= 0
		}
	}
	return 0, false
}

// limit is how many bytes an archive of such parts can have in a store.
func limit(partSize int64, t coldstore.Traits) int64 {
	most := int64(1<<63 - 1)
	if t.MaxParts > 0 {
		most, _ = t.PartAt(partSize, t.MaxParts)
	}
	if t.MaxArchive > 0 {
		most = min(most, t.MaxArchive)
	}
	return most
}

// options are those of the transfer of an archive that may come to expect bytes.
func options(o transfer.Options, part, expect int64, t coldstore.Traits) (transfer.Options, error) {
	o.PartSize, o.Expect = part, expect
	size, err := transfer.PartSize(o, t)
	if err != nil {
		return o, failure.Wrap(failure.Usage, err)
	}
	o.PartSize = size
	if o.Parallel == 0 && size > manyParts {
		o.Parallel = 1
	}
	return o, nil
}

// ErrNotKnown says that neither the catalog nor, where it can be asked, the vault knows of an archive.
var ErrNotKnown = errors.New("no such archive is known")

// Each calls fn for every archive that is known to be in the vault: where its listing is exact, of
// that, with the names that the catalog has; else of the catalog.
func (v *Vault) Each(ctx context.Context, fn func(catalog.ArchiveRecord) error) error {
	if err := v.check(); err != nil {
		return err
	}
	if v.Store.Traits().ListLag == 0 {
		return v.eachListed(ctx, fn)
	}
	there := func(r catalog.ArchiveRecord) bool { return r.DeletedAt.IsZero() }
	return v.Catalog.FindArchives(ctx, v.URL, there, fn)
}

func (v *Vault) eachListed(ctx context.Context, fn func(catalog.ArchiveRecord) error) error {
	var all []coldstore.Archive
	asOf := v.Now()
	err := transfer.Retry(ctx, transfer.Options{}, func() error {
		all = all[:0]
		at, err := v.Store.List(ctx, func(a coldstore.Archive) error { all = append(all, a); return nil })
		if !at.IsZero() {
			asOf = at
		}
		return err
	})
	if err != nil && !(errors.Is(err, coldstore.ErrIntegrity) && len(all) > 0) {
		return err
	}
	for _, a := range all {
		r, err := v.Catalog.ArchiveByID(ctx, v.URL, a.ID)
		if err != nil && failure.KindOf(err) != failure.NotFound {
			return err
		}
		hash := r.TreeHash
		r.Vault, r.Archive, r.SeenAsOf = v.URL, a, asOf
		if r.TreeHash.IsZero() {
			r.TreeHash = hash
		}
		if err := fn(r); err != nil {
			return err
		}
	}
	return nil
}

// Found is an archive that a name stands for.
type Found struct {
	catalog.ArchiveRecord
	Same int // how many others have that name, too
}

// Find finds what ref stands for: id:ID, name:NAME, or what is an id or else a name. Of several archives of one
// name the newest counts. ErrNotKnown, of kind failure.NotFound.
func (v *Vault) Find(ctx context.Context, ref string) (Found, error) {
	if err := v.check(); err != nil {
		return Found{}, err
	}
	id, isID := strings.CutPrefix(ref, "id:")
	name, isName := strings.CutPrefix(ref, "name:")
	var byID, byName Found
	var foundID, foundName bool
	if !isName {
		r, err := v.Catalog.ArchiveByID(ctx, v.URL, id)
		switch {
		case err == nil && r.DeletedAt.IsZero() && r.Size > 0:
			return Found{ArchiveRecord: r}, nil
		case err != nil && failure.KindOf(err) != failure.NotFound:
			return byID, err
		}
	}
	err := v.Each(ctx, func(r catalog.ArchiveRecord) error {
		if !isName && r.ID == id {
			byID.ArchiveRecord, foundID = r, true
		}
		if !isID && Called(r, name) {
			if foundName {
				byName.Same++
			}
			if !foundName || !r.Created.Before(byName.Created) {
				byName.ArchiveRecord, foundName = r, true
			}
		}
		return nil
	})
	switch {
	case err != nil:
		return byID, err
	case foundID:
		return byID, nil
	case foundName:
		return byName, nil
	}
	return Found{}, failure.Wrap(failure.NotFound, fmt.Errorf("archive %s: %w", ref, ErrNotKnown))
}

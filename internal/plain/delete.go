package plain

import (
	"context"
	"fmt"
	"time"

	"github.com/firn-backup/firn/internal/catalog"
	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/internal/failure"
	"github.com/firn-backup/firn/internal/manifest"
	"github.com/firn-backup/firn/internal/transfer"
)

// DeleteOptions say what may be deleted. The zero value is the careful one.
type DeleteOptions struct {
	Force      bool // also what a snapshot of the catalog needs
	AllowEarly bool // also before the vault's minimum storage duration is over
	Transfer   transfer.Options
}

// TooYoung says that an archive's minimum storage duration is not over, so that deleting it costs the
// rest of it.
type TooYoung struct {
	Archive catalog.ArchiveRecord
	Until   time.Time // zero: its age is not known
	Days    int       // the vault's minimum
}

func (e *TooYoung) Error() string {
	if e.Until.IsZero() {
		return fmt.Sprintf("archive %s: its age is not known, and the vault charges for %d days at least", Title(e.Archive), e.Days)
	}
	return fmt.Sprintf("archive %s was stored on %s, and the vault charges for %d days, until %s, in any case",
		Title(e.Archive), e.Archive.Created.UTC().Format(time.DateOnly), e.Days, e.Until.UTC().Format(time.DateOnly))
}

// Delete deletes archives, and records that. Before the first is deleted all are looked at: *TooYoung, and
// failure.Usage for one that a snapshot needs. deleted, if not nil, is told of each.
func (v *Vault) Delete(ctx context.Context, list []catalog.ArchiveRecord, o DeleteOptions, deleted func(catalog.ArchiveRecord)) error {
	if err := v.check(); err != nil {
		return err
	}
	if !o.Force {
		if err := v.notNeeded(ctx, list); err != nil {
			return err
		}
	}
	if days := v.Store.Traits().MinDays; days > 0 && !o.AllowEarly {
		for _, r := range list {
			until := r.Created.Add(time.Duration(days) * 24 * time.Hour)
			switch {
			case r.Created.IsZero():
				return &TooYoung{Archive: r, Days: days}
			case v.Now().Before(until):
				return &TooYoung{r, until, days}
			}
		}
	}
	for _, r := range list {
		err := transfer.Retry(ctx, o.Transfer, func() error { return v.Store.Delete(ctx, r.ID) })
		if err != nil {
			return explain(titled(r, err))
		}
		if err := v.Catalog.ArchiveDeleted(ctx, v.URL, r.ID, v.Now()); err != nil {
			return err
		}
		if deleted != nil {
			deleted(r)
		}
	}
	return nil
}

// notNeeded returns an error for the first archive that a snapshot needs, or one that is being made.
func (v *Vault) notNeeded(ctx context.Context, list []catalog.ArchiveRecord) error {
	return v.eachNeeded(ctx, list, func(_ catalog.ArchiveRecord, why error) error { return why })
}

// Free are those archives of a list that may be deleted: no snapshot, item or attempt of the catalog needs them (needed counts the others), they are
// not Firn's own, and their minimum storage durations are over unless early is set (young counts the others).
func (v *Vault) Free(ctx context.Context, list []catalog.ArchiveRecord, early bool) (free []catalog.ArchiveRecord, needed, young int, err error) {
	if err := v.check(); err != nil {
		return nil, 0, 0, err
	}
	keep := map[string]bool{}
	if err := v.eachNeeded(ctx, list, func(r catalog.ArchiveRecord, _ error) error {
		keep[r.ID] = true
		return nil
	}); err != nil {
		return nil, 0, 0, err
	}
	days := v.Store.Traits().KeptDays(early)
	for _, r := range list {
		_, described := manifest.ParseDescription(r.Description)
		_, named := manifest.ParseName(r.ID)
		switch {
		case keep[r.ID], described, named:
			needed++
		case days > 0 && (r.Created.IsZero() || v.Now().Before(r.Created.Add(time.Duration(days)*24*time.Hour))):
			young++
		default:
			free = append(free, r)
		}
	}
	return free, needed, young, nil
}

// eachNeeded calls fn for archives of a list that something in the catalog needs, with what that is; for some more than once. It stops at fn's
// first error and returns it.
func (v *Vault) eachNeeded(ctx context.Context, list []catalog.ArchiveRecord, fn func(r catalog.ArchiveRecord, why error) error) error {
	wanted := map[string]catalog.ArchiveRecord{}
	for _, r := range list {
		wanted[r.ID] = r
	}
	err := v.Catalog.ItemArchives(ctx, v.URL, nil, func(i catalog.Item) error {
		if r, ok := wanted[i.Archive.Archive]; ok && i.Until == 0 {
			return fn(r, failure.Errorf(failure.Usage, "archive %s is the current version of %s of a set", Title(r), i.Path))
		}
		return nil
	})
	if err != nil {
		return err
	}
	sets, err := v.Catalog.Sets(ctx)
	if err != nil {
		return err
	}
	for _, set := range sets {
		runs, err := v.Catalog.ItemRuns(ctx, set.ID)
		if err != nil {
			return err
		}
		for _, run := range runs {
			if r, ok := wanted[run.Index.Archive]; ok && run.Index.Archive != "" && !run.IndexGone && run.Vault == v.URL {
				if err := fn(r, failure.Errorf(failure.Usage, "archive %s tells what is in the archives of set %s", Title(r), set.Name)); err != nil {
					return err
				}
			}
		}
		snaps, err := v.Catalog.Snapshots(ctx, set.ID)
		if err != nil {
			return err
		}
		for _, s := range snaps {
			if s.Vault != v.URL {
				continue
			}
			refuse := func(archive string) error {
				r, ok := wanted[archive]
				if !ok {
					return nil
				}
				return fn(r, failure.Errorf(failure.Usage, "archive %s is needed by snapshot %s of set %s", Title(r), s.ID, set.Name))
			}
			if s.Adopted == "" {
				if err := refuse(s.ManifestPart.Archive); err != nil {
					return err
				}
			}
			if err := v.eachVolume(ctx, s.ID, func(m *manifest.Volume) error { return refuse(m.Archive) }); err != nil {
				return err
			}
		}
	}
	return nil
}

func (v *Vault) eachVolume(ctx context.Context, snap string, fn func(*manifest.Volume) error) error {
	for n := 1; ; n++ {
		m, err := v.Catalog.Volume(ctx, snap, n)
		if failure.KindOf(err) == failure.NotFound {
			return nil
		}
		if err != nil {
			return err
		}
		if err := fn(&m); err != nil {
			return err
		}
	}
}

// Uploads calls fn for every unfinished upload of the vault, with what the catalog knows of it; the
// zero FileUpload where that is nothing.
func (v *Vault) Uploads(ctx context.Context, fn func(coldstore.Upload, catalog.FileUpload) error) error {
	if err := v.check(); err != nil {
		return err
	}
	known := map[string]catalog.FileUpload{}
	list, err := v.Catalog.FileUploads(ctx, v.URL, "")
	if err != nil {
		return err
	}
	for _, u := range list {
		known[u.UploadID] = u
	}
	var all []coldstore.Upload
	err = transfer.Retry(ctx, transfer.Options{}, func() error {
		all = all[:0]
		return v.Store.ListUploads(ctx, func(u coldstore.Upload) error { all = append(all, u); return nil })
	})
	if err != nil {
		return err
	}
	for _, u := range all {
		if err := fn(u, known[u.ID]); err != nil {
			return err
		}
	}
	return nil
}

// AbortUpload gives an unfinished upload up. failure.NotFound: there is none of that id.
func (v *Vault) AbortUpload(ctx context.Context, id string) error {
	found := false
	err := v.Uploads(ctx, func(u coldstore.Upload, _ catalog.FileUpload) error {
		found = found || u.ID == id
		return nil
	})
	if err != nil {
		return err
	}
	if !found {
		return failure.Errorf(failure.NotFound, "there is no unfinished upload %s", id)
	}
	return v.giveUp(ctx, id, transfer.Options{})
}

// Sent is how many bytes of an unfinished upload the vault has.
func (v *Vault) Sent(ctx context.Context, id string) (int64, error) {
	var n int64
	err := transfer.Retry(ctx, transfer.Options{}, func() error {
		n = 0
		parts, err := v.Store.ListParts(ctx, id)
		for _, p := range parts {
			n += p.Size
		}
		return err
	})
	return n, err
}

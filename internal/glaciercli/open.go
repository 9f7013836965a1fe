package glaciercli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/firn-backup/firn/internal/app"
	"github.com/firn-backup/firn/internal/catalog"
	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/internal/failure"
	"github.com/firn-backup/firn/internal/plain"
)

// vault is one that a command names. What the catalog alone can tell costs no request: the vault is opened
// when it is needed.
type vault struct {
	s     *session
	app   *app.App
	name  string
	url   string // as in the catalog
	lists bool   // it tells at once what it has; else the catalog does
	db    *catalog.DB
	plain *plain.Vault // nil until open
}

// vault finds the vault of that name: of the config file, else of the service in the region.
func (s *session) vault(ctx context.Context, name string) (*vault, error) {
	a, err := s.open()
	if err != nil {
		return nil, err
	}
	url := ""
	if v := a.Config.Vaults[name]; v != nil {
		url = v.URL
	} else {
		url, err = a.AccountURL(ctx, s.region, name)
		if err != nil && !errors.Is(err, coldstore.ErrNotFound) {
			if known := s.onlyKnown(ctx, a, name); known != "" && !app.IsNoCredentials(err) {
				url, err = known, nil // the service cannot be asked, and there is no doubt
			}
		}
	}
	if err != nil {
		return nil, noVault(name, err)
	}
	db, err := a.Catalog(ctx, true)
	if err != nil {
		return nil, err
	}
	return &vault{s: s, app: a, name: name, url: url, lists: !app.ListsLate(url), db: db}, nil
}

// onlyKnown is the URL of the one vault of that name that the catalog knows in the region; empty: there is none, or several.
func (s *session) onlyKnown(ctx context.Context, a *app.App, name string) string {
	db, err := a.Catalog(ctx, false)
	if err != nil {
		return ""
	}
	all, err := db.Vaults(ctx)
	if err != nil {
		return ""
	}
	all = slices.DeleteFunc(all, func(url string) bool {
		return !strings.HasPrefix(url, app.RegionURL(s.region, name)+"?account=")
	})
	if len(all) != 1 {
		return ""
	}
	return all[0]
}

func noVault(name string, err error) error {
	if errors.Is(err, coldstore.ErrNotFound) || failure.KindOf(err) == failure.NotFound {
		return fmt.Errorf("vault %s not found: %w", repr(name), err)
	}
	return fmt.Errorf("vault %s: %w", repr(name), err)
}

// open opens the vault itself.
func (v *vault) open(ctx context.Context) (*plain.Vault, error) {
	if v.plain != nil {
		return v.plain, nil
	}
	store, err := v.app.OpenStore(ctx, v.url, false)
	if err != nil {
		return nil, noVault(v.name, err)
	}
	v.plain = &plain.Vault{Store: store, Catalog: v.db, URL: v.url, Now: v.app.Now}
	return v.plain, nil
}

// each calls fn for every archive that is known to be in the vault.
func (v *vault) each(ctx context.Context, fn func(catalog.ArchiveRecord) error) error {
	if !v.lists {
		there := func(r catalog.ArchiveRecord) bool { return r.DeletedAt.IsZero() }
		return v.db.FindArchives(ctx, v.url, there, fn)
	}
	p, err := v.open(ctx)
	if err != nil {
		return err
	}
	return p.Each(ctx, fn)
}

// named are the archives of a name, deleted ones included, the oldest first. Where none is, the
// text may be the description of one as another program wrote it.
func (v *vault) named(ctx context.Context, name string) ([]catalog.ArchiveRecord, error) {
	var all []catalog.ArchiveRecord
	var err error
	if v.lists {
		err = v.each(ctx, func(r catalog.ArchiveRecord) error {
			if plain.Name(r) == name || r.Description == name {
				all = append(all, r)
			}
			return nil
		})
	} else {
		all, err = v.db.ArchivesCalled(ctx, v.url, name, plain.Describe(name), name)
	}
	if err != nil {
		return nil, err
	}
	var exact []catalog.ArchiveRecord
	for _, r := range all {
		if plain.Name(r) == name {
			exact = append(exact, r)
		}
	}
	if len(exact) > 0 {
		all = exact
	}
	return all, v.sortByAge(ctx, name, all)
}

// sortByAge sorts archives of one name, the oldest first; those of one instant as they were recorded here.
func (v *vault) sortByAge(ctx context.Context, name string, list []catalog.ArchiveRecord) error {
	if len(list) < 2 {
		return nil
	}
	known, err := v.db.ArchivesCalled(ctx, v.url, name, plain.Describe(name), name)
	rank := map[string]int{}
	for i, r := range known {
		rank[r.ID] = i
	}
	slices.SortStableFunc(list, func(a, b catalog.ArchiveRecord) int {
		return cmp.Or(a.Created.Compare(b.Created), cmp.Compare(rank[a.ID], rank[b.ID]))
	})
	return err
}

// references are the records that a reference may mean, deleted ones included: id:ID, name:NAME or NAME.
func (v *vault) references(ctx context.Context, ref string) ([]catalog.ArchiveRecord, error) {
	id, isID := strings.CutPrefix(ref, "id:")
	if !isID {
		return v.named(ctx, strings.TrimPrefix(ref, "name:"))
	}
	var all []catalog.ArchiveRecord
	if v.lists {
		err := v.each(ctx, func(r catalog.ArchiveRecord) error {
			if r.ID == id {
				all = append(all, r)
			}
			return nil
		})
		return all, err
	}
	r, err := v.db.ArchiveByID(ctx, v.url, id)
	if failure.KindOf(err) == failure.NotFound {
		return nil, nil
	}
	return append(all, r), err
}

func alive(list []catalog.ArchiveRecord) []catalog.ArchiveRecord {
	return slices.DeleteFunc(slices.Clone(list), func(r catalog.ArchiveRecord) bool { return !r.DeletedAt.IsZero() })
}

// notFound says that nothing is known of an archive.
func notFound(ref string) error {
	return failure.Errorf(failure.NotFound, "archive %s not found", repr(ref))
}

// resolve finds the archive that a reference means: of several of one name the newest.
func (v *vault) resolve(ctx context.Context, ref string) (catalog.ArchiveRecord, error) {
	all, err := v.references(ctx, ref)
	if err != nil {
		return catalog.ArchiveRecord{}, err
	}
	if all = alive(all); len(all) == 0 {
		return catalog.ArchiveRecord{}, notFound(ref)
	}
	return v.newest(ref, all), nil
}

// newest is the last of several archives that a reference may mean; of the others a line tells.
func (v *vault) newest(ref string, all []catalog.ArchiveRecord) catalog.ArchiveRecord {
	newest := all[len(all)-1]
	if len(all) > 1 {
		var others []string
		for _, r := range all[:len(all)-1] {
			others = append(others, "id:"+r.ID)
		}
		v.s.info("%d archives are called %s; this is the newest, id:%s; the others: %s", len(all), repr(ref), newest.ID, strings.Join(others, " "))
	}
	return newest
}

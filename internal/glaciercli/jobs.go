package glaciercli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/firn-backup/firn/internal/app"
	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/internal/failure"
)

// jobList prints the jobs of all vaults: those of the region and of the config file; without --region, those of all
// regions in which the catalog knows vaults.
func jobList(ctx context.Context, s *session) error {
	a, err := s.open()
	if err != nil {
		return err
	}
	regions := []string{s.region}
	if !s.given {
		if regions, err = s.regions(ctx, a); err != nil {
			return err
		}
	}
	var failed error // of the service: the vaults of the config file are told of all the same
	for _, region := range regions {
		names, err := s.serviceVaults(ctx, a, region)
		if failed = errors.Join(failed, err); err != nil {
			continue
		}
		s.region = region
		for _, name := range names {
			if a.Config.Vaults[name] == nil {
				if err := s.jobsOf(ctx, name); err != nil {
					return err
				}
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(a.Config.Vaults)) {
		if err := s.jobsOf(ctx, name); err != nil {
			return errors.Join(failed, err)
		}
	}
	return failed
}

// regions are the default one and those of the vaults that the catalog knows.
func (s *session) regions(ctx context.Context, a *app.App) ([]string, error) {
	list := []string{defaultRegion}
	db, err := a.Catalog(ctx, true)
	if err != nil {
		return nil, err
	}
	urls, err := db.Vaults(ctx)
	for _, text := range urls {
		if u, err := url.Parse(text); err == nil && app.ListsLate(text) && u.Query().Get("endpoint") == "" {
			list = append(list, u.Host)
		}
	}
	slices.Sort(list)
	return slices.Compact(list), err
}

func (s *session) jobsOf(ctx context.Context, name string) error {
	v, err := s.vault(ctx, name)
	if err != nil {
		return err
	}
	p, err := v.open(ctx)
	if errors.Is(err, coldstore.ErrNotFound) || failure.KindOf(err) == failure.NotFound {
		return nil // configured and not made, or gone meanwhile
	}
	if err != nil {
		return err
	}
	jobs, err := p.Jobs(ctx)
	if err != nil {
		return fmt.Errorf("vault %s: %w", repr(name), err)
	}
	for _, j := range jobs {
		line, err := v.jobLine(ctx, j)
		if err != nil {
			return err
		}
		s.line(line)
	}
	return nil
}

// jobLine is X/Y DATE VAULT NAME.
func (v *vault) jobLine(ctx context.Context, j coldstore.Job) (string, error) {
	kind, name := "i", ""
	if j.Kind == coldstore.JobRetrieval {
		r, err := v.db.ArchiveByID(ctx, v.url, j.Archive)
		if err != nil && failure.KindOf(err) != failure.NotFound {
			return "", err
		}
		kind, name = "a", "id:"+j.Archive
		if err == nil && r.DeletedAt.IsZero() {
			name = cmp.Or(lineName(r), name)
		}
	}
	state := map[coldstore.JobState]string{coldstore.JobRunning: "p", coldstore.JobDone: "d", coldstore.JobFailed: "e"}[j.State]
	at := j.Completed
	if at.IsZero() {
		at = j.Requested
	}
	date := at.UTC().Format("2006-01-02T15:04:05.000Z")
	if at.IsZero() {
		date = time.Unix(0, 0).UTC().Format("2006-01-02T15:04:05.000Z")
	}
	return strings.Join([]string{kind + "/" + state, date, fmt.Sprintf("%-10s", v.name), name}, " "), nil
}

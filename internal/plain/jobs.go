package plain

import (
	"cmp"
	"context"
	"fmt"

	"github.com/firn-backup/firn/internal/catalog"
	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/internal/failure"
	"github.com/firn-backup/firn/internal/retrieval"
	"github.com/firn-backup/firn/internal/transfer"
	"github.com/firn-backup/firn/treehash"
)

// Jobs are those that the vault knows, whoever began them; of a vault without jobs, the retrievals that the
// catalog knows, as they stand now.
func (v *Vault) Jobs(ctx context.Context) ([]coldstore.Job, error) {
	if err := v.check(); err != nil {
		return nil, err
	}
	l, ok := v.Store.(coldstore.JobLister)
	if !ok {
		return v.catalogJobs(ctx)
	}
	var jobs []coldstore.Job
	err := transfer.Retry(ctx, transfer.Options{}, func() error {
		jobs = nil
		return l.ListJobs(ctx, func(j coldstore.Job) error {
			jobs = append(jobs, j)
			return nil
		})
	})
	return jobs, err
}

func (v *Vault) catalogJobs(ctx context.Context) ([]coldstore.Job, error) {
	saved, err := v.Catalog.Retrievals(ctx, v.URL, "")
	if err != nil {
		return nil, err
	}
	var jobs []coldstore.Job
	for _, r := range saved {
		j := coldstore.Job{ID: r.Token, Kind: coldstore.JobRetrieval, State: coldstore.JobRunning, Requested: r.Requested,
			Expires: r.Expires, Archive: r.Archive, Range: r.Range, Tier: r.Tier}
		now, err := v.Store.CheckRetrieval(ctx, r.Token)
		switch {
		case err != nil:
			j.State, j.Message = coldstore.JobFailed, err.Error()
		case now.Ready:
			j.State, j.Expires = coldstore.JobDone, now.Expires
		}
		jobs = append(jobs, j)
	}
	return jobs, nil
}

// learn finds out the sizes of archives that another program has told of without, and records them: a job
// of the archive tells, one that is begun for it if there is none.
func (v *Vault) learn(ctx context.Context, targets []Target, o RetrieveOptions) error {
	for i := range targets {
		t := &targets[i]
		if t.Archive.Size > 0 {
			continue
		}
		size, err := v.sizeOf(ctx, t.Archive, o)
		if err != nil {
			return err
		}
		t.Archive.Size = size.Size
		if t.Archive.TreeHash.IsZero() {
			t.Archive.TreeHash = size.TreeHash
		}
		r, err := v.Catalog.ArchiveByID(ctx, v.URL, t.Archive.ID)
		if failure.KindOf(err) == failure.NotFound {
			continue // a listing will tell more of it
		}
		if err != nil {
			return err
		}
		r.Size, r.TreeHash = t.Archive.Size, t.Archive.TreeHash
		if err := v.Catalog.PutArchive(ctx, r); err != nil {
			return err
		}
	}
	return nil
}

func (v *Vault) sizeOf(ctx context.Context, r catalog.ArchiveRecord, o RetrieveOptions) (coldstore.Archive, error) {
	a, ok, err := v.toldByJob(ctx, r.ID)
	if ok || err != nil {
		return a, err
	}
	if f := o.Retrieval.Approve; f != nil {
		if err := f(ctx, retrieval.Bill{Tier: o.Retrieval.Tier, Requests: 1, Days: o.Retrieval.Days, Unknown: 1}); err != nil {
			return a, err
		}
	}
	var rt coldstore.Retrieval
	err = transfer.Retry(ctx, o.Retrieval.Transfer, func() (err error) {
		rt, err = v.Store.RequestRetrieval(ctx, r.ID, coldstore.Range{}, coldstore.RetrievalOptions{Tier: o.Retrieval.Tier, Days: o.Retrieval.Days})
		return err
	})
	if err != nil {
		return a, titled(r, err)
	}
	rt.Archive = cmp.Or(rt.Archive, r.ID)
	if err := v.Catalog.PutRetrieval(ctx, catalog.SavedRetrieval{Vault: v.URL, Retrieval: rt}); err != nil {
		return a, err
	}
	if o.Retrieval.Asked != nil {
		o.Retrieval.Asked(rt)
	}
	if a, ok, err = v.toldByJob(ctx, r.ID); ok || err != nil {
		return a, err
	}
	return a, fmt.Errorf("archive %s: nobody tells how large it is; a listing of the vault may (vault sync)", Title(r))
}

// toldByJob looks for a job that tells of an archive.
func (v *Vault) toldByJob(ctx context.Context, id string) (a coldstore.Archive, ok bool, err error) {
	if s, is := v.Store.(coldstore.Stater); is {
		err = transfer.Retry(ctx, transfer.Options{}, func() (err error) {
			a, err = s.Stat(ctx, id)
			return err
		})
		return a, err == nil, err
	}
	if _, is := v.Store.(coldstore.JobLister); !is {
		return a, false, nil
	}
	jobs, err := v.Jobs(ctx)
	for _, j := range jobs {
		if j.Archive != id || j.State == coldstore.JobFailed || j.Size == 0 || !j.Range.IsWhole() {
			continue
		}
		a.ID, a.Size, ok = id, j.Size, true
		if h, err := treehash.Parse(j.TreeHash); err == nil {
			a.TreeHash = h
		}
	}
	return a, ok, err
}

package glaciervault

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/glacier"
	"github.com/aws/aws-sdk-go-v2/service/glacier/types"

	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/internal/coldstore/awsconn"
)

// cacheLife is how long the list of jobs is taken to be true. Jobs begun by
// this process are added to it; ones begun by others meanwhile cost, at worst, a second job.
const cacheLife = 10 * time.Minute

// jobCache remembers which retrievals there are, so that asking for thousands
// of archives does not read a list of thousands of jobs for each. It holds about 400 bytes for each job.
type jobCache struct {
	mu     sync.Mutex
	loaded time.Time // zero: not, or not true any more
	jobs   map[string][]coldstore.Job
}

func (c *jobCache) add(j coldstore.Job) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.jobs != nil {
		c.jobs[j.Archive] = append(c.jobs[j.Archive], j)
	}
}

func (c *jobCache) drop(archive, id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.jobs[archive] = slices.DeleteFunc(c.jobs[archive], func(j coldstore.Job) bool { return j.ID == id })
}

func (c *jobCache) forget(archive string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.jobs, archive)
}

// stale makes the next question read the list again: a job may have been begun that is not known here.
func (c *jobCache) stale() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.loaded = time.Time{}
}

// of returns the retrievals of an archive that had not failed when they were last seen.
func (c *jobCache) of(ctx context.Context, s *Store, archive string) ([]coldstore.Job, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := s.o.Now()
	if age := now.Sub(c.loaded); c.loaded.IsZero() || age < 0 || age > cacheLife {
		all := map[string][]coldstore.Job{}
		err := s.listJobs(ctx, func(j coldstore.Job) error {
			if j.Kind == coldstore.JobRetrieval && j.State != coldstore.JobFailed {
				all[j.Archive] = append(all[j.Archive], j)
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
		c.jobs, c.loaded = all, now
	}
	return slices.Clone(c.jobs[archive]), nil
}

// ListJobs calls fn for every job that the service lists: those of at least the last day.
func (s *Store) ListJobs(ctx context.Context, fn func(coldstore.Job) error) error {
	var stop error
	err := s.listJobs(ctx, func(j coldstore.Job) error {
		stop = fn(j)
		return stop
	})
	if err != nil && (stop == nil || !errors.Is(err, stop)) {
		return fail(ctx, "list jobs of vault "+s.vault, err)
	}
	return err
}

func (s *Store) listJobs(ctx context.Context, fn func(coldstore.Job) error) error {
	return s.listAllJobs(ctx, func(d *types.GlacierJobDescription) error { return fn(jobOf(d)) })
}

func (s *Store) listAllJobs(ctx context.Context, fn func(*types.GlacierJobDescription) error) error {
	in := &glacier.ListJobsInput{AccountId: &s.id, VaultName: &s.vault}
	for {
		out, err := s.c.ListJobs(ctx, in)
		if err != nil {
			return classify(ctx, err)
		}
		for i := range out.JobList {
			if err := fn(&out.JobList[i]); err != nil {
				return err
			}
		}
		if text(out.Marker) == "" {
			return nil
		}
		if in.Marker != nil && *in.Marker == *out.Marker {
			return errSamePage
		}
		in.Marker = out.Marker
	}
}

// DescribeJob asks for one job. ErrNotFound: the service knows it not, or not any more.
func (s *Store) DescribeJob(ctx context.Context, id string) (coldstore.Job, error) {
	j, err := s.job(ctx, id)
	if err != nil {
		return coldstore.Job{}, fail(ctx, "describe job "+id, err)
	}
	return j, nil
}

func (s *Store) job(ctx context.Context, id string) (coldstore.Job, error) {
	if !validID(id) {
		return coldstore.Job{}, fmt.Errorf("no job has such an id: %w", coldstore.ErrNotFound)
	}
	out, err := s.c.DescribeJob(ctx, &glacier.DescribeJobInput{AccountId: &s.id, VaultName: &s.vault, JobId: &id})
	if err != nil {
		return coldstore.Job{}, classify(ctx, err)
	}
	j := jobOf(&types.GlacierJobDescription{
		Action: out.Action, ArchiveId: out.ArchiveId, ArchiveSizeInBytes: out.ArchiveSizeInBytes, Completed: out.Completed,
		CompletionDate: out.CompletionDate, CreationDate: out.CreationDate, InventorySizeInBytes: out.InventorySizeInBytes,
		InventoryRetrievalParameters: out.InventoryRetrievalParameters, JobDescription: out.JobDescription, JobId: &id,
		RetrievalByteRange: out.RetrievalByteRange, SHA256TreeHash: out.SHA256TreeHash, StatusCode: out.StatusCode,
		StatusMessage: out.StatusMessage, Tier: out.Tier,
	})
	return j, nil
}

// jobOf turns the service's words into the contract's.
func jobOf(d *types.GlacierJobDescription) coldstore.Job {
	j := coldstore.Job{
		ID:          text(d.JobId),
		Message:     awsconn.OneLine(text(d.StatusMessage)),
		Description: text(d.JobDescription),
		Requested:   parseTime(d.CreationDate),
	}
	switch d.StatusCode {
	case types.StatusCodeSucceeded:
		j.State = coldstore.JobDone
	case types.StatusCodeFailed:
		j.State = coldstore.JobFailed
	default:
		j.State = coldstore.JobRunning
	}
	if j.State != coldstore.JobRunning {
		if j.Completed = parseTime(d.CompletionDate); !j.Completed.IsZero() {
			j.Expires = j.Completed.Add(jobLife)
		}
	}
	if d.Action == types.ActionCodeInventoryRetrieval {
		j.Kind = coldstore.JobInventory
		if d.InventorySizeInBytes != nil {
			j.InventorySize = *d.InventorySizeInBytes
		}
		return j
	}
	j.Kind = coldstore.JobRetrieval
	j.Archive, j.Tier, j.TreeHash = text(d.ArchiveId), coldstore.Tier(text(d.Tier)), text(d.SHA256TreeHash)
	if d.ArchiveSizeInBytes != nil {
		j.Size = *d.ArchiveSizeInBytes
	}
	if first, last, ok := parseSpan(text(d.RetrievalByteRange)); ok && (first > 0 || last != j.Size-1) {
		j.Range = coldstore.Range{Offset: first, Size: last - first + 1}
	}
	return j
}

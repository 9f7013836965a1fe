package glacierserver

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/internal/durable"
	"github.com/firn-backup/firn/internal/snapshot"
	"github.com/firn-backup/firn/treehash"
)

// jobLife is how long a job's output can be read after its completion.
const jobLife = 24 * time.Hour

// Delays are how long jobs take, in simulated time, by tier. What is not in it takes no time.
type Delays struct {
	Expedited, Standard, Bulk time.Duration
	Inventory                 time.Duration
}

// RealDelays are the service's: about the middle of what its documentation promises.
func RealDelays() Delays {
	return Delays{Expedited: 3 * time.Minute, Standard: 4 * time.Hour, Bulk: 8 * time.Hour, Inventory: 4 * time.Hour}
}

func (d Delays) of(tier string) time.Duration {
	switch tier {
	case "Expedited":
		return d.Expedited
	case "Bulk":
		return d.Bulk
	}
	return d.Standard
}

const (
	archiveRetrieval   = "ArchiveRetrieval"
	inventoryRetrieval = "InventoryRetrieval"
)

// job is the file jobs/ID.json. Beside it may lie jobs/ID.out: an inventory's output, or another name of an archive's
// data that has been deleted since the job was done. Everything that a job will ever tell is
// decided when it is initiated, except that its archive may be deleted.
type job struct {
	ID          string    `json:"id"`
	Seq         int64     `json:"seq"` // order of initiation
	Action      string    `json:"action"`
	ARN         string    `json:"arn"`
	Description string    `json:"description,omitempty"`
	Topic       string    `json:"topic,omitempty"`
	Created     time.Time `json:"created"`
	Ready       time.Time `json:"ready"`
	Failed      string    `json:"failed,omitempty"` // why; Ready is when
	Kept        bool      `json:"kept,omitempty"`   // the archive's data is in ID.out
	OutputSize  int64     `json:"output_size"`      // bytes

	Archive            string         `json:"archive,omitempty"` // the store's name
	ArchiveDescription string         `json:"archive_description,omitempty"`
	ArchiveSize        int64          `json:"archive_size,omitempty"`
	ArchiveHash        *treehash.Hash `json:"archive_hash,omitempty"`
	Offset             int64          `json:"offset,omitempty"`     // of what is retrieved
	RangeHash          *treehash.Hash `json:"range_hash,omitempty"` // of it, if it is aligned
	Tier               string         `json:"tier,omitempty"`

	Inventory *inventoryJob `json:"inventory,omitempty"`
}

type inventoryJob struct {
	Format string    `json:"format"`
	Start  time.Time `json:"start,omitzero"`
	End    time.Time `json:"end,omitzero"`
	Limit  int64     `json:"limit,omitempty"`
	Marker string    `json:"marker,omitempty"` // where it began
	Next   string    `json:"next,omitempty"`   // where the next one goes on
}

// whole says that a job is for all of an archive.
func (j *job) whole() bool { return j.Offset == 0 && j.OutputSize == j.ArchiveSize }

func (j *job) done(now time.Time) bool { return !now.Before(j.Ready) }

func (j *job) gone(now time.Time) bool { return !now.Before(j.Ready.Add(jobLife)) }

func (v *vault) jobPath(j *job, ext string) string {
	return filepath.Join(v.dir, "jobs", j.ID+ext)
}

// loadJobs reads all jobs, and removes what is none's.
func (v *vault) loadJobs() error {
	dir := filepath.Join(v.dir, "jobs")
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	v.jobs = nil
	have := map[string]bool{}
	for _, e := range entries {
		if id, is := strings.CutSuffix(e.Name(), ".json"); is && snapshot.ValidID(id) {
			j := &job{}
			if _, err := loadJSON(filepath.Join(dir, e.Name()), j); err != nil {
				return err
			}
			v.jobs = append(v.jobs, j)
			v.st.Jobs = max(v.st.Jobs, j.Seq)
			have[id] = true
		}
	}
	for _, e := range entries {
		if id, ext, _ := strings.Cut(e.Name(), "."); !have[id] || ext != "json" && ext != "out" {
			if err := os.Remove(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	slices.SortFunc(v.jobs, func(a, b *job) int { return cmp.Compare(a.Seq, b.Seq) })
	return nil
}

// addJob keeps a new job, whose output, if it has one, is on disk already.
func (v *vault) addJob(j *job) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.st.Jobs++
	j.Seq = v.st.Jobs
	if err := saveJSON(v.jobPath(j, ".json"), j); err != nil {
		return err
	}
	v.jobs = append(v.jobs, j)
	return nil
}

// jobsNow are copies of all jobs that have not expired, by initiation. Those that have are removed.
func (v *vault) jobsNow(now time.Time) ([]job, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if err := v.expireJobs(now); err != nil {
		return nil, err
	}
	list := make([]job, len(v.jobs))
	for i, j := range v.jobs {
		list[i] = *j
	}
	return list, nil
}

func (v *vault) expireJobs(now time.Time) error {
	keep := make([]*job, 0, len(v.jobs))
	for i, j := range v.jobs {
		if !j.gone(now) {
			keep = append(keep, j)
			continue
		}
		for _, ext := range []string{".json", ".out"} {
			if err := os.Remove(v.jobPath(j, ext)); err != nil && !errors.Is(err, fs.ErrNotExist) {
				v.jobs = append(keep, v.jobs[i:]...)
				return err
			}
		}
	}
	v.jobs = keep
	return nil
}

// job is the job of the request.
func (q *request) job() (job, error) {
	id, _, err := parseID(q.v.store.VaultID(), jobID, q.arg)
	if err == nil {
		list, err := q.v.jobsNow(q.now)
		if err != nil {
			return job{}, err
		}
		if i := slices.IndexFunc(list, func(j job) bool { return j.ID == id }); i >= 0 {
			return q.v.checked(q.r.Context(), list[i], q.now)
		}
	}
	return job{}, notFound("The job ID was not found: %s", q.arg)
}

// checked lets a job fail whose archive was deleted without the server, before the job was done.
func (v *vault) checked(ctx context.Context, j job, now time.Time) (job, error) {
	if j.Action != archiveRetrieval || j.Kept || j.Failed != "" || j.done(now) {
		return j, nil
	}
	_, err := v.store.Stat(ctx, j.Archive)
	if errors.Is(err, coldstore.ErrNotFound) {
		v.mu.Lock()
		defer v.mu.Unlock()
		for _, mine := range v.jobs {
			if mine.ID == j.ID {
				return *mine, v.failJob(mine, now)
			}
		}
	}
	if err != nil && !errors.Is(err, coldstore.ErrIntegrity) && !errors.Is(err, coldstore.ErrNotFound) {
		return j, err
	}
	return j, nil
}

// failJob notes that a job's archive is gone. v.mu is held.
func (v *vault) failJob(j *job, now time.Time) error {
	failed := *j
	failed.Failed, failed.Ready = "The archive was deleted", now
	if err := saveJSON(v.jobPath(j, ".json"), failed); err != nil {
		return err
	}
	*j = failed
	return nil
}

// settleJobs is called before an archive is deleted: its jobs that are not done fail; of those that are,
// the output can still be read.
func (v *vault) settleJobs(archive string, now time.Time) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if err := v.expireJobs(now); err != nil {
		return err
	}
	for _, j := range v.jobs {
		if j.Archive != archive || j.Action != archiveRetrieval || j.Kept || j.Failed != "" {
			continue
		}
		if !j.done(now) {
			if err := v.failJob(j, now); err != nil {
				return err
			}
			continue
		}
		if err := v.keepOutput(j); err != nil {
			return err
		}
	}
	return nil
}

// keepOutput gives an archive's data another name.
func (v *vault) keepOutput(j *job) error {
	path := v.jobPath(j, ".out")
	if err := v.store.LinkData(j.Archive, path); err != nil && !errors.Is(err, fs.ErrExist) {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // the data is gone already, and with it the output
		}
		if err := v.copyData(j, path); err != nil { // another file system, or one without hard links
			return err
		}
	}
	kept := *j
	kept.Kept = true
	if err := saveJSON(v.jobPath(j, ".json"), kept); err != nil {
		return err
	}
	*j = kept
	return nil
}

func (v *vault) copyData(j *job, path string) error {
	from, err := v.openData(context.Background(), j.Archive, 0, j.ArchiveSize)
	if err != nil {
		return err
	}
	defer from.Close()
	temp := filepath.Join(filepath.Dir(path), durable.TempMark+rand.Text())
	to, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, filePerm)
	if err != nil {
		return err
	}
	_, err = to.ReadFrom(from)
	if err == nil {
		err = to.Sync()
	}
	if err = errors.Join(err, to.Close()); err == nil {
		err = durable.Rename(temp, path)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("keep the output of a job: %w", err), os.Remove(temp))
	}
	return nil
}

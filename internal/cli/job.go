package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/firn-backup/firn/internal/app"
	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/internal/failure"
	"github.com/firn-backup/firn/internal/plain"
	"github.com/firn-backup/firn/internal/units"
)

func newJob(c *command) *cobra.Command {
	return parent("job", "Look at what vaults are asked for", "Look at the jobs of a vault: archives that are being made readable, and listings that are being made.", newJobList(c), newJobShow(c))
}

func newJobList(c *command) *cobra.Command {
	return &cobra.Command{
		Use:         "list [VAULT]",
		Annotations: lists(),
		Short:       "List a vault's jobs",
		Long: `List the jobs that a vault knows, whoever began them; of vaults without jobs, the
retrievals that the catalog knows. Without a vault, the default one.`,
		Example: example("firn job list glacier://eu-west-1/photos"),
		Args:    args(0, 1, "one vault at most"),
		RunE: func(cmd *cobra.Command, args []string) error {
			a, url, store, err := c.openVault(cmd, append(args, "")[0])
			if err != nil {
				return err
			}
			return c.listJobs(cmd.Context(), a, url, store)
		},
	}
}

func newJobShow(c *command) *cobra.Command {
	return &cobra.Command{
		Use:   "show VAULT JOB",
		Short: "Show all that a vault tells of one job",
		Long: `Show all that a vault tells of one job, by its id: what it is for, how it stands, until when its
result can be read. An id that begins with - is written id:ID.`,
		Example: example("firn job show glacier://eu-west-1/photos HkF9p6o7yjhFx…"),
		Args:    args(2, 2, "a vault and a job's id"),
		RunE: func(cmd *cobra.Command, args []string) error {
			a, url, store, err := c.openVault(cmd, args[0])
			if err != nil {
				return err
			}
			id := strings.TrimPrefix(args[1], "id:") // by which one that begins with - is no flag
			if id == "" {
				return usage("the job's id is empty")
			}
			j, err := oneJob(cmd.Context(), a, url, store, id)
			if err != nil {
				return err
			}
			out := jobJSON(&j)
			if c.json {
				return c.document(out)
			}
			t := &table{right: make([]bool, 2)}
			for _, r := range [][2]string{
				{"job", j.ID}, {"kind", out.Kind}, {"state", out.State}, {"message", j.Message}, {"description", j.Description},
				{"requested", c.stamp(j.Requested)}, {"completed", c.stamp(j.Completed)}, {"readable until", c.stamp(j.Expires)},
				{"archive", j.Archive}, {"size", units.Size(out.Size)}, {"range", rangeText(j.Range)}, {"tier", out.Tier}, {"tree hash", j.TreeHash},
			} {
				if r[1] != "" && r[1] != "-" {
					t.row(r[0], clean(r[1]))
				}
			}
			t.print(c.output)
			return nil
		},
	}
}

func rangeText(r coldstore.Range) string {
	if r.IsWhole() {
		return ""
	}
	return fmt.Sprintf("%d-%d", r.Offset, r.Offset+r.Size-1)
}

// oneJob is a job by its id.
func oneJob(ctx context.Context, a *app.App, url string, store coldstore.Store, id string) (coldstore.Job, error) {
	if l, ok := store.(coldstore.JobLister); ok {
		var j coldstore.Job
		err := administer(ctx, func() (err error) { j, err = l.DescribeJob(ctx, id); return err })
		if errors.Is(err, coldstore.ErrNotFound) {
			err = failure.Wrap(failure.NotFound, fmt.Errorf("%s has no job %s", url, id))
		}
		return j, err
	}
	jobs, err := vaultJobs(ctx, a, url, store)
	for _, j := range jobs {
		if j.ID == id {
			return j, nil
		}
	}
	if err == nil {
		err = failure.Errorf(failure.NotFound, "the catalog knows of no retrieval %s from %s", id, url)
	}
	return coldstore.Job{}, err
}

// jsonJob is one job. docs/reference/vault-commands.md.
type jsonJob struct {
	ID          string  `json:"id"`
	Kind        string  `json:"kind"`
	State       string  `json:"state"`
	Message     string  `json:"message,omitempty"`
	Description string  `json:"description,omitempty"`
	Requested   *string `json:"requested,omitempty"`
	Completed   *string `json:"completed,omitempty"`
	Expires     *string `json:"expires,omitempty"`
	Archive     string  `json:"archive,omitempty"`
	Size        int64   `json:"size,omitempty"`
	RangeOffset *int64  `json:"range_offset,omitempty"`
	RangeSize   *int64  `json:"range_size,omitempty"`
	Tier        string  `json:"tier,omitempty"`
	TreeHash    string  `json:"tree_hash,omitempty"`
}

func (c *command) listJobs(ctx context.Context, a *app.App, url string, store coldstore.Store) error {
	jobs, err := vaultJobs(ctx, a, url, store)
	if err != nil {
		return err
	}
	list := []jsonJob{}
	t := newTable("REQUESTED", "KIND", "TIER", "STATE", "READY UNTIL", ">SIZE", "ARCHIVE", "JOB")
	for i := range jobs {
		j := &jobs[i]
		list = append(list, jobJSON(j))
		size := "-"
		switch {
		case j.Kind == coldstore.JobInventory && j.InventorySize > 0:
			size = units.Size(j.InventorySize)
		case j.Kind == coldstore.JobRetrieval && !j.Range.IsWhole():
			size = units.Size(j.Range.Size)
		case j.Kind == coldstore.JobRetrieval && j.Size > 0:
			size = units.Size(j.Size)
		}
		state := string(j.State)
		if j.State == coldstore.JobFailed && j.Message != "" {
			state += ": " + j.Message
		}
		t.row(c.stamp(j.Requested), string(j.Kind), dash(string(j.Tier)), clean(state), c.stamp(j.Expires), size, dash(clean(j.Archive)), clean(j.ID))
	}
	if c.json {
		return c.document(list)
	}
	t.print(c.output)
	return nil
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func jobJSON(j *coldstore.Job) jsonJob {
	out := jsonJob{ID: j.ID, Kind: string(j.Kind), State: string(j.State), Message: j.Message, Description: j.Description,
		Requested: stampJSON(j.Requested), Completed: stampJSON(j.Completed), Expires: stampJSON(j.Expires),
		Archive: j.Archive, Size: j.Size, Tier: string(j.Tier), TreeHash: j.TreeHash}
	if j.Kind == coldstore.JobInventory {
		out.Size = j.InventorySize
	}
	if !j.Range.IsWhole() {
		out.RangeOffset, out.RangeSize = &j.Range.Offset, &j.Range.Size
	}
	return out
}

// vaultJobs are the jobs of a vault; of one without jobs, the retrievals of the catalog.
func vaultJobs(ctx context.Context, a *app.App, url string, store coldstore.Store) ([]coldstore.Job, error) {
	db, err := a.Catalog(ctx, true)
	if err != nil {
		return nil, err
	}
	jobs, err := (&plain.Vault{Store: store, Catalog: db, URL: url, Now: a.Now}).Jobs(ctx)
	return jobs, adminError(err)
}

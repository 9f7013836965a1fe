package glaciervault

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/glacier"
	"github.com/aws/aws-sdk-go-v2/service/glacier/types"

	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/internal/coldstore/awsconn"
	"github.com/firn-backup/firn/treehash"
)

// List reads the vault's inventory: of a job that ended at most Options.MaxAge ago, of one
// that is running (ErrNotReady until it is done), else of one that is begun now. The time of the list is that
// at which the service made the inventory, about once a day and only when
// something has changed.
//
// The list is read as it comes, one archive at a time, whatever its size.
func (s *Store) List(ctx context.Context, fn func(coldstore.Archive) error) (time.Time, error) {
	return s.ListWithin(ctx, s.o.MaxAge, fn)
}

// ListWithin is List with another age; see coldstore.LaggingLister.
func (s *Store) ListWithin(ctx context.Context, maxAge time.Duration, fn func(coldstore.Archive) error) (time.Time, error) {
	if maxAge <= 0 {
		maxAge = s.o.MaxAge
	}
	what := "list vault " + s.vault
	if err := ctx.Err(); err != nil {
		return time.Time{}, fail(ctx, what, err)
	}
	j, found, err := s.inventoryJob(ctx, maxAge)
	if err == nil && !found {
		j, err = s.beginInventory(ctx)
		if errors.Is(err, errNoInventory) {
			asOf, err := s.neverListed(ctx)
			if err != nil {
				return time.Time{}, fail(ctx, what, err)
			}
			return asOf, nil
		}
	}
	if err != nil {
		return time.Time{}, fail(ctx, what, s.absent(ctx, err))
	}
	if j.State != coldstore.JobDone {
		return time.Time{}, fmt.Errorf("%s: the inventory was asked for at %s and takes hours: %w", what, j.Requested.Format(time.RFC3339), coldstore.ErrNotReady)
	}
	var stop error
	asOf, err := s.readInventory(ctx, j.ID, func(a coldstore.Archive) error {
		stop = fn(a)
		return stop
	})
	switch {
	case stop != nil:
		return time.Time{}, stop
	case err != nil:
		return time.Time{}, fail(ctx, what, err)
	}
	return asOf, nil
}

// inventoryJob chooses among the inventory jobs that others, or earlier runs, began: the
// newest one that is done and young enough, else the newest that is running.
func (s *Store) inventoryJob(ctx context.Context, maxAge time.Duration) (best coldstore.Job, found bool, err error) {
	now := s.o.Now()
	err = s.listAllJobs(ctx, func(d *types.GlacierJobDescription) error {
		j := jobOf(d)
		if j.Kind != coldstore.JobInventory || j.State == coldstore.JobFailed || !wholeInventory(d.InventoryRetrievalParameters) {
			return nil
		}
		if j.State == coldstore.JobDone && (now.Sub(j.Completed) > maxAge || !now.Add(spareLife).Before(j.Expires)) {
			return nil
		}
		if !found || better(j, best) {
			best, found = j, true
		}
		return nil
	})
	return best, found, err
}

// wholeInventory says that a job lists everything, and in the form that is read here.
func wholeInventory(p *types.InventoryRetrievalJobDescription) bool {
	return p == nil || text(p.StartDate) == "" && text(p.EndDate) == "" && text(p.Limit) == "" && text(p.Marker) == "" &&
		(text(p.Format) == "" || text(p.Format) == "JSON")
}

// errNoInventory says that the service has none of this vault yet.
var errNoInventory = errors.New("there is no inventory yet")

// beginInventory asks for the list. Where it is refused since there was none, and there is one by the time the vault is looked at, it is
// asked for again.
func (s *Store) beginInventory(ctx context.Context) (coldstore.Job, error) {
	kind, format := "inventory-retrieval", "JSON"
	for again := true; ; again = false {
		id, err := s.begin(ctx, &types.JobParameters{Type: &kind, Format: &format, SNSTopic: optional(s.topic)})
		if err == nil {
			return s.job(ctx, id)
		}
		if !errors.Is(err, coldstore.ErrNotFound) && !refused(err) {
			return coldstore.Job{}, err
		}
		// By what code the service says that there is no inventory is not written anywhere.
		v, derr := s.describe(ctx)
		switch {
		case derr != nil || !again && !v.Inventory.IsZero():
			return coldstore.Job{}, err
		case v.Inventory.IsZero():
			return coldstore.Job{}, errNoInventory
		}
	}
}

// neverListed is the listing of a vault of which there is no inventory. The first one is made within a day or two of
// the first upload. So a vault that is older and has none was empty until listLag ago.
func (s *Store) neverListed(ctx context.Context) (asOf time.Time, err error) {
	v, err := s.describe(ctx)
	if err != nil {
		return time.Time{}, err
	}
	if asOf := s.o.Now().Add(-listLag).UTC(); v.Created.Before(asOf) {
		return asOf, nil
	}
	return time.Time{}, fmt.Errorf("the vault was made at %s, and its first inventory comes about a day after the first upload: %w",
		v.Created.Format(time.RFC3339), coldstore.ErrNotReady)
}

func (s *Store) readInventory(ctx context.Context, job string, fn func(coldstore.Archive) error) (time.Time, error) {
	out, err := s.c.GetJobOutput(ctx, &glacier.GetJobOutputInput{AccountId: &s.id, VaultName: &s.vault, JobId: &job})
	if err != nil {
		return time.Time{}, notFoundAs(classify(ctx, err), coldstore.ErrNotReady) // gone since it was listed: ask anew
	}
	defer out.Body.Close()
	asOf, err := parseInventory(out.Body, fn)
	if err != nil {
		return time.Time{}, fmt.Errorf("inventory of job %s: %w", job, ofReading(ctx, err))
	}
	return asOf, nil
}

// ofReading tells a list that came broken from one that is wrong.
func ofReading(ctx context.Context, err error) error {
	var syntax *json.SyntaxError
	var kind *json.UnmarshalTypeError
	switch {
	case errors.As(err, &syntax) || errors.As(err, &kind) || errors.Is(err, coldstore.ErrIntegrity):
		return fmt.Errorf("%s: %w", awsconn.OneLine(err.Error()), coldstore.ErrIntegrity)
	case ctx.Err() != nil:
		return classify(ctx, err)
	}
	return &awsconn.Error{Text: "it broke off: " + awsconn.OneLine(awsconn.RootText(err)), Kinds: []error{coldstore.ErrTemporary, err}}
}

// inventoried is one archive of an inventory.
type inventoried struct {
	ArchiveId          string
	ArchiveDescription string
	CreationDate       string
	Size               int64
	SHA256TreeHash     string
}

// parseInventory reads {"VaultARN":…,"InventoryDate":…,"ArchiveList":[{…},…]} in whatever
// order, holding one archive at a time.
func parseInventory(r io.Reader, fn func(coldstore.Archive) error) (asOf time.Time, err error) {
	d := json.NewDecoder(r)
	if err := expect(d, '{'); err != nil {
		return asOf, err
	}
	listed := false
	for d.More() {
		key, err := d.Token()
		if err != nil {
			return asOf, whole(err)
		}
		switch key {
		case "InventoryDate":
			var s *string
			if err := d.Decode(&s); err != nil {
				return asOf, whole(err)
			}
			asOf = parseTime(s)
		case "ArchiveList":
			if listed {
				return asOf, fmt.Errorf("two lists of archives: %w", coldstore.ErrIntegrity)
			}
			listed = true
			if err := parseArchives(d, fn); err != nil {
				return asOf, err
			}
		default:
			var skipped json.RawMessage
			if err := d.Decode(&skipped); err != nil {
				return asOf, whole(err)
			}
		}
	}
	if err := expect(d, '}'); err != nil {
		return asOf, err
	}
	if !listed || asOf.IsZero() {
		return asOf, fmt.Errorf("no date, or no list of archives: %w", coldstore.ErrIntegrity)
	}
	return asOf, nil
}

func parseArchives(d *json.Decoder, fn func(coldstore.Archive) error) error {
	if err := expect(d, '['); err != nil {
		return err
	}
	for d.More() {
		var e inventoried
		if err := d.Decode(&e); err != nil {
			return whole(err)
		}
		if e.ArchiveId == "" || e.Size < 0 {
			return fmt.Errorf("an archive %q of %d bytes: %w", awsconn.OneLine(e.ArchiveId), e.Size, coldstore.ErrIntegrity)
		}
		hash, err := treehash.Parse(e.SHA256TreeHash)
		if err != nil {
			hash = treehash.Hash{} // as where the listing does not tell
		}
		if err := fn(coldstore.Archive{
			ID: e.ArchiveId, Description: e.ArchiveDescription, Size: e.Size, TreeHash: hash, Created: parseTime(&e.CreationDate),
		}); err != nil {
			return err
		}
	}
	return expect(d, ']')
}

func expect(d *json.Decoder, want json.Delim) error {
	t, err := d.Token()
	switch {
	case err != nil:
		return whole(err)
	case t != want:
		return fmt.Errorf("%v where %v is due: %w", t, want, coldstore.ErrIntegrity)
	}
	return nil
}

// whole makes the end of the data an error wherever it comes too early.
func whole(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

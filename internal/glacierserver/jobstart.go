package glacierserver

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/internal/snapshot"
	"github.com/firn-backup/firn/treehash"
)

// maxRangeHash is the largest range, in bytes, whose tree hash is computed when a job for it is
// initiated, so that the answer comes before a client has given up. Of whole archives it is known.
const maxRangeHash = 16 << 30

// jobParameters is the body of InitiateJob: bare, or below a name as one page of the guide shows it.
type jobParameters struct {
	Format, Type, ArchiveId, Description, SNSTopic, RetrievalByteRange, Tier *string
	InventoryRetrievalParameters                                             *struct {
		StartDate, EndDate, Marker *string
		Limit                      json.RawMessage // a string; some clients send a number
	}
	SelectParameters, OutputLocation json.RawMessage

	Wrapped *jobParameters `json:"jobParameters"`
}

func str(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

func (q *request) initiateJob() error {
	var p jobParameters
	if err := q.parse(&p); err != nil {
		return err
	}
	if p.Type == nil && p.Wrapped != nil {
		p = *p.Wrapped
	}
	if err := checkText("job description", str(p.Description)); err != nil {
		return err
	}
	id, err := snapshot.NewID(q.now, rand.Reader)
	if err != nil {
		return err
	}
	j := &job{ID: id, ARN: q.arn(q.vaultName), Description: str(p.Description), Topic: str(p.SNSTopic), Created: q.now}
	switch strings.ToLower(str(p.Type)) {
	case "archive-retrieval":
		err = q.archiveJob(j, p)
	case "inventory-retrieval":
		err = q.inventoryJob(j, p)
	case "":
		err = missing("Required parameter missing: Type")
	case "select":
		err = invalid("Invalid job type: select. It is no longer supported.")
	default:
		err = invalid("Invalid job type: %s", str(p.Type))
	}
	if err != nil {
		return err
	}
	wire := wireID(q.v.store.VaultID(), jobID, j.ID)
	q.header("Location", q.location("/jobs/"+wire))
	q.header("x-amz-job-id", wire)
	return q.empty(http.StatusAccepted)
}

func (q *request) archiveJob(j *job, p jobParameters) error {
	ctx := q.r.Context()
	switch {
	case str(p.ArchiveId) == "":
		return missing("Required parameter missing: ArchiveId")
	case str(p.Format) != "":
		return invalid("Format is for inventory-retrieval jobs only")
	case p.InventoryRetrievalParameters != nil:
		return invalid("InventoryRetrievalParameters are for inventory-retrieval jobs only")
	}
	var err error
	if j.Tier, err = tier(str(p.Tier)); err != nil {
		return err
	}
	name, err := q.v.archive(ctx, *p.ArchiveId)
	var a coldstore.Archive
	if err == nil {
		a, err = q.v.store.Stat(ctx, name)
	}
	if errors.Is(err, errBadID) || errors.Is(err, coldstore.ErrNotFound) {
		return notFound("The archive ID was not found: %s", *p.ArchiveId)
	}
	if err != nil {
		return err
	}
	if err := q.authorize(&a); err != nil {
		return err
	}
	j.Action, j.Archive, j.ArchiveDescription = archiveRetrieval, a.ID, a.Description
	j.ArchiveSize, j.ArchiveHash = a.Size, &a.TreeHash
	if j.Offset, j.OutputSize, err = byteRange(str(p.RetrievalByteRange), a.Size); err != nil {
		return err
	}
	j.Ready = q.now.Add(q.o.Delays.of(j.Tier))
	switch {
	case j.whole():
		j.RangeHash = &a.TreeHash
	case treehash.Aligned(j.Offset, j.OutputSize, a.Size) && j.OutputSize <= maxRangeHash:
		if j.RangeHash, err = q.v.rangeHash(ctx, a.ID, j.Offset, j.OutputSize); err != nil {
			return err
		}
	}
	return q.account.admit(q.Server, q.now, j, func() error { return q.v.addJob(j) })
}

func tier(text string) (string, error) {
	for _, t := range []string{"Expedited", "Standard", "Bulk"} {
		if strings.EqualFold(text, t) {
			return t, nil
		}
	}
	if text == "" {
		return "Standard", nil
	}
	return "", invalid("Invalid tier: %s", text)
}

// byteRange reads a RetrievalByteRange; "" is the whole archive.
func byteRange(text string, size int64) (off, n int64, err error) {
	if text == "" {
		return 0, size, nil
	}
	m := regexp.MustCompile(`^([0-9]+)-([0-9]+)$`).FindStringSubmatch(strings.TrimSpace(text))
	if m == nil {
		return 0, 0, invalid("Invalid retrieval byte range: %s", text)
	}
	first, err1 := strconv.ParseInt(m[1], 10, 64)
	last, err2 := strconv.ParseInt(m[2], 10, 64)
	if err1 != nil || err2 != nil || !treehash.MegabyteAligned(first, last-first+1, size) {
		return 0, 0, invalid("Invalid retrieval byte range: %s. It must lie in the archive, of %d bytes, begin at a multiple of 1048576, and end before one or at the archive's end.", text, size)
	}
	return first, last - first + 1, nil
}

// rangeHash reads a range of an archive for its tree hash.
func (v *vault) rangeHash(ctx context.Context, archive string, off, size int64) (*treehash.Hash, error) {
	r, err := v.openData(ctx, archive, off, size)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return hashOf(r)
}

func hashOf(r io.Reader) (*treehash.Hash, error) {
	h := treehash.New()
	if _, err := io.CopyBuffer(struct{ io.Writer }{h}, r, make([]byte, 4*treehash.LeafSize)); err != nil {
		return nil, err
	}
	sum := h.Sum()
	return &sum, nil
}

// openData reads a range of an archive.
func (v *vault) openData(ctx context.Context, archive string, off, size int64) (io.ReadCloser, error) {
	r, err := v.store.RequestRetrieval(ctx, archive, coldstore.Range{}, coldstore.RetrievalOptions{})
	if err != nil {
		return nil, err
	}
	return v.store.OpenRetrieved(ctx, r, off, size)
}

func (q *request) inventoryJob(j *job, p jobParameters) error {
	switch {
	case str(p.ArchiveId) != "":
		return invalid("ArchiveId is not for inventory-retrieval jobs")
	case str(p.RetrievalByteRange) != "":
		return invalid("RetrievalByteRange is not for inventory-retrieval jobs")
	}
	in := &inventoryJob{Format: "JSON"}
	if f := str(p.Format); f != "" {
		in.Format = strings.ToUpper(f)
		if in.Format != "JSON" && in.Format != "CSV" {
			return invalid("Invalid format: %s", f)
		}
	}
	if _, err := tier(str(p.Tier)); err != nil {
		return err
	}
	if x := p.InventoryRetrievalParameters; x != nil {
		var err error
		if in.Start, err = date("StartDate", str(x.StartDate)); err != nil {
			return err
		}
		if in.End, err = date("EndDate", str(x.EndDate)); err != nil {
			return err
		}
		if text := strings.Trim(string(x.Limit), `"`); text != "" && text != "null" {
			if in.Limit, err = strconv.ParseInt(text, 10, 64); err != nil || in.Limit < 1 {
				return invalid("Invalid limit: %s", text)
			}
		}
		in.Marker = str(x.Marker)
	}
	j.Action, j.Inventory = inventoryRetrieval, in
	j.Ready = q.now.Add(q.o.Delays.Inventory)
	if err := q.v.writeInventoryOutput(j); err != nil {
		return err
	}
	return q.v.addJob(j)
}

func date(name, text string) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	for _, layout := range []string{time.RFC3339Nano, "20060102T150405Z", "2006-01-02T15:04Z", "2006-01-02T15:04:05", "2006-01-02"} {
		if t, err := time.Parse(layout, text); err == nil {
			return t.UTC(), nil
		}
	}
	return time.Time{}, invalid("Invalid %s: %s", name, text)
}

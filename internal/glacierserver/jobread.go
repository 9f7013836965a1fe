package glacierserver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"regexp"
	"strconv"
	"time"

	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/treehash"
)

// jobInfo is what DescribeJob and ListJobs tell.
type jobInfo struct {
	JobId                        string
	JobDescription               *string
	Action                       string
	ArchiveId                    *string
	VaultARN                     string
	CreationDate                 string
	Completed                    bool
	StatusCode                   string
	StatusMessage                *string
	ArchiveSizeInBytes           *int64
	InventorySizeInBytes         *int64
	SNSTopic                     *string
	CompletionDate               *string
	SHA256TreeHash               *treehash.Hash
	ArchiveSHA256TreeHash        *treehash.Hash
	RetrievalByteRange           *string
	Tier                         *string
	InventoryRetrievalParameters *inventoryInfo
	JobOutputPath                *string
	SelectParameters             *string
	OutputLocation               *string
}

type inventoryInfo struct {
	Format    string
	StartDate *string
	EndDate   *string
	Limit     *string
	Marker    *string
}

func (j *job) status(now time.Time) string {
	switch {
	case j.Failed != "":
		return "Failed"
	case j.done(now):
		return "Succeeded"
	}
	return "InProgress"
}

func (q *request) jobInfo(j job) jobInfo {
	status := j.status(q.now)
	i := jobInfo{
		JobId: wireID(q.v.store.VaultID(), jobID, j.ID), JobDescription: orNull(j.Description), Action: j.Action,
		VaultARN: j.ARN, CreationDate: stamp(j.Created), Completed: status != "InProgress", StatusCode: status,
		SNSTopic: orNull(j.Topic), Tier: orNull(j.Tier),
	}
	switch status {
	case "Failed":
		i.StatusMessage = &j.Failed
	case "Succeeded":
		i.StatusMessage = orNull("Succeeded")
	}
	if i.Completed {
		i.CompletionDate = orNull(stamp(j.Ready))
	}
	if j.Action == archiveRetrieval {
		i.ArchiveId, i.ArchiveSizeInBytes = orNull(q.v.wire(j.Archive)), &j.ArchiveSize
		i.ArchiveSHA256TreeHash, i.SHA256TreeHash = j.ArchiveHash, j.RangeHash
		i.RetrievalByteRange = orNull(fmt.Sprintf("%d-%d", j.Offset, j.Offset+j.OutputSize-1))
		return i
	}
	in := j.Inventory
	info := &inventoryInfo{
		Format: in.Format, StartDate: stampOrNull(in.Start), EndDate: stampOrNull(in.End), Marker: orNull(in.Marker),
	}
	if in.Limit > 0 {
		info.Limit = orNull(strconv.FormatInt(in.Limit, 10))
	}
	if status == "Succeeded" {
		i.InventorySizeInBytes, info.Marker = &j.OutputSize, orNull(in.Next)
	}
	i.InventoryRetrievalParameters = info
	return i
}

func (q *request) describeJob() error {
	j, err := q.job()
	if err != nil {
		return err
	}
	q.json(http.StatusOK, q.jobInfo(j))
	return nil
}

func (q *request) listJobs() error {
	limit, err := q.limit(50)
	if err != nil {
		return err
	}
	query := q.r.URL.Query()
	status, completed := query.Get("statuscode"), query.Get("completed")
	switch status {
	case "", "InProgress", "Succeeded", "Failed":
	default:
		return invalid("The job status code is not valid: %s", status)
	}
	switch completed {
	case "", "true", "false":
	default:
		return invalid("Invalid value for completed: %s", completed)
	}
	from := int64(0)
	if marker := query.Get("marker"); marker != "" {
		if from, err = strconv.ParseInt(marker, 10, 64); err != nil || from < 1 {
			return invalid("Invalid marker: %s", marker)
		}
	}
	list, err := q.v.jobsNow(q.now)
	if err != nil {
		return err
	}
	out := struct {
		JobList []jobInfo
		Marker  *string
	}{JobList: []jobInfo{}}
	for _, j := range list {
		if j.Seq < from {
			continue
		}
		if j, err = q.v.checked(q.r.Context(), j, q.now); err != nil {
			return err
		}
		s := j.status(q.now)
		if status != "" && s != status || completed != "" && (completed == "true") != (s != "InProgress") {
			continue
		}
		if len(out.JobList) == limit {
			out.Marker = orNull(strconv.FormatInt(j.Seq, 10))
			break
		}
		out.JobList = append(out.JobList, q.jobInfo(j))
	}
	q.json(http.StatusOK, out)
	return nil
}

func (q *request) getJobOutput() error {
	j, err := q.job()
	if err != nil {
		return err
	}
	if j.status(q.now) != "Succeeded" {
		return invalid("The job is not currently available for download: %s", q.arg)
	}
	off, size, ranged, err := q.outputRange(j.OutputSize)
	if err != nil {
		return err
	}
	contentType := "application/octet-stream"
	switch {
	case j.Action == archiveRetrieval:
		hash, err := q.outputHash(j, off, size)
		if err != nil {
			return err
		}
		if hash != nil {
			q.header("x-amz-sha256-tree-hash", hash.String())
		}
		if j.ArchiveDescription != "" {
			q.header("x-amz-archive-description", j.ArchiveDescription)
		}
	case j.Inventory.Format == "CSV":
		contentType = "text/csv"
	default:
		contentType = "application/json"
	}
	data, err := q.v.openOutput(q.r.Context(), j, off, size)
	if errors.Is(err, coldstore.ErrNotFound) {
		return notFound("The job ID was not found: %s", q.arg) // the archive was deleted, and not through the server
	}
	if err != nil {
		return err
	}
	defer data.Close()
	q.header("Accept-Ranges", "bytes")
	q.header("Content-Type", contentType)
	q.header("Content-Length", strconv.FormatInt(size, 10))
	q.status = http.StatusOK
	if ranged {
		q.status = http.StatusPartialContent
		q.header("Content-Range", fmt.Sprintf("bytes %d-%d/%d", off, off+size-1, j.OutputSize))
	}
	q.w.WriteHeader(q.status)
	return q.send(data, size)
}

// send writes size bytes of data, giving up on a client that takes none of it.
func (q *request) send(data io.Reader, size int64) error {
	buf := make([]byte, min(size, 1<<20))
	for q.sent < size {
		n, err := io.ReadFull(data, buf[:min(int64(len(buf)), size-q.sent)])
		if n > 0 {
			q.writeWithin(q.o.BodyTimeout)
			w, writeErr := q.w.Write(buf[:n])
			q.sent += int64(w)
			if writeErr != nil {
				return writeErr
			}
		}
		if err != nil {
			return fmt.Errorf("read the output of job %s: %w", q.arg, err)
		}
	}
	_ = q.rc.SetWriteDeadline(time.Time{}) // as for reading
	return nil
}

// outputRange reads the Range header: bytes of the job's output.
func (q *request) outputRange(size int64) (off, n int64, ranged bool, err error) {
	text := q.r.Header.Get("Range")
	if text == "" {
		return 0, size, false, nil
	}
	m := regexp.MustCompile(`^bytes=([0-9]+)-([0-9]*)$`).FindStringSubmatch(text)
	if m == nil {
		return 0, 0, false, invalid("Invalid range: %s", text)
	}
	first, err1 := strconv.ParseInt(m[1], 10, 64)
	last := size - 1
	var err2 error
	if m[2] != "" {
		last, err2 = strconv.ParseInt(m[2], 10, 64)
	}
	if err1 != nil || err2 != nil || last < first || last >= size {
		return 0, 0, false, invalid("Invalid range: %s. The output has %d bytes.", text, size)
	}
	return first, last - first + 1, true, nil
}

// outputHash is the tree hash of size bytes at off of a job's output, if the service would tell it.
func (q *request) outputHash(j job, off, size int64) (*treehash.Hash, error) {
	switch {
	case !treehash.Aligned(j.Offset, j.OutputSize, j.ArchiveSize):
		return nil, nil
	case off == 0 && size == j.OutputSize:
		return j.RangeHash, nil
	case !treehash.Aligned(off, size, j.OutputSize) || size > maxRangeHash:
		return nil, nil
	}
	r, err := q.v.openOutput(q.r.Context(), j, off, size)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return hashOf(r)
}

// openOutput reads size bytes at off of a job's output. ErrNotFound: it is gone.
func (v *vault) openOutput(ctx context.Context, j job, off, size int64) (io.ReadCloser, error) {
	if j.Action == archiveRetrieval {
		off += j.Offset
		r, err := v.openData(ctx, j.Archive, off, size)
		if err == nil || !errors.Is(err, coldstore.ErrNotFound) {
			return r, err
		}
		// Deleted, perhaps a moment ago: then the data has got another name before.
	}
	f, err := os.Open(v.jobPath(&j, ".out"))
	if errors.Is(err, os.ErrNotExist) {
		return nil, coldstore.ErrNotFound
	}
	if err != nil {
		return nil, err
	}
	return section{io.NewSectionReader(f, off, size), f}, nil
}

type section struct {
	*io.SectionReader
	f *os.File
}

func (s section) Close() error { return s.f.Close() }

package glaciervault

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/glacier"
	"github.com/aws/aws-sdk-go-v2/service/glacier/types"

	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/internal/coldstore/awsconn"
	"github.com/firn-backup/firn/treehash"
)

// token says what a retrieval is, so that reading needs no question: JOB.OFFSET.SIZE.TOTAL.ARCHIVE,
// where SIZE 0 is the whole archive and TOTAL the archive's size. None of its parts can hold a dot.
type token struct {
	job     string
	span    coldstore.Range
	total   int64
	archive string
}

func (t token) String() string {
	return fmt.Sprintf("%s.%d.%d.%d.%s", t.job, t.span.Offset, t.span.Size, t.total, t.archive)
}

func parseToken(s string) (token, error) {
	var t token
	f := strings.Split(s, ".")
	if len(f) != 5 {
		return t, fmt.Errorf("unknown token: %w", coldstore.ErrExpired)
	}
	t.job, t.archive = f[0], f[4]
	ok := validID(t.job) && validID(t.archive)
	for i, n := range []*int64{&t.span.Offset, &t.span.Size, &t.total} {
		v, err := strconv.ParseInt(f[i+1], 10, 64)
		ok = ok && err == nil && v >= 0 && v <= maxArchive && strconv.FormatInt(v, 10) == f[i+1]
		*n = v
	}
	if !ok || t.total < 1 || t.span.Offset+t.span.Size > t.total || t.span.Size == 0 && t.span.Offset != 0 {
		return token{}, fmt.Errorf("unknown token: %w", coldstore.ErrExpired)
	}
	return t, nil
}

// bounds is what was retrieved, in bytes of the archive.
func (t token) bounds() coldstore.Range {
	if t.span.IsWhole() {
		return coldstore.Range{Size: t.total}
	}
	return t.span
}

func retrievalOf(j coldstore.Job) coldstore.Retrieval {
	r := coldstore.Retrieval{
		Token:   token{j.ID, j.Range, j.Size, j.Archive}.String(),
		Archive: j.Archive, Range: j.Range, Tier: j.Tier, Ready: j.State == coldstore.JobDone, Requested: j.Requested,
	}
	if r.Ready {
		r.Expires = j.Expires
	}
	return r
}

// RequestRetrieval answers with a retrieval that covers r, of whatever tier, if one is
// running or is readable for another hour: a readable one first, then the newest. Else it begins a job. Days is not the
// service's to choose: a day at least.
func (s *Store) RequestRetrieval(ctx context.Context, archive string, r coldstore.Range, o coldstore.RetrievalOptions) (coldstore.Retrieval, error) {
	j, err := s.request(ctx, archive, r, o)
	if err != nil {
		return coldstore.Retrieval{}, fail(ctx, "request retrieval of archive "+archive, s.absent(ctx, err))
	}
	return retrievalOf(j), nil
}

func (s *Store) request(ctx context.Context, archive string, r coldstore.Range, o coldstore.RetrievalOptions) (coldstore.Job, error) {
	var none coldstore.Job
	if err := ctx.Err(); err != nil {
		return none, err
	}
	if err := checkRequest(archive, r, o); err != nil {
		return none, err
	}
	h := fnv.New32a()
	h.Write([]byte(archive))
	lock := &s.asking[int(h.Sum32())%len(s.asking)]
	lock.Lock()
	defer lock.Unlock()
	have, err := s.jobs.of(ctx, s, archive)
	if err != nil {
		return none, err
	}
	if j, ok, err := s.fitting(ctx, have, r); ok || err != nil {
		return j, err
	}
	kind := "archive-retrieval"
	in := &types.JobParameters{Type: &kind, ArchiveId: &archive, SNSTopic: optional(s.topic), Tier: optional(string(o.Tier))}
	if !r.IsWhole() {
		in.RetrievalByteRange = optional(fmt.Sprintf("%d-%d", r.Offset, r.Offset+r.Size-1))
	}
	id, err := s.begin(ctx, in)
	if err != nil {
		return none, err
	}
	j, err := s.job(ctx, id)
	if err != nil {
		s.jobs.stale() // the job runs: it is to be found when this is repeated
		return none, err
	}
	s.jobs.add(j)
	return j, nil
}

func checkRequest(archive string, r coldstore.Range, o coldstore.RetrievalOptions) error {
	switch o.Tier {
	case "", coldstore.Expedited, coldstore.Standard, coldstore.Bulk:
	default:
		return fmt.Errorf("tier %q is unknown: %w", o.Tier, coldstore.ErrInvalid)
	}
	switch {
	case o.Days < 0:
		return fmt.Errorf("%d days: %w", o.Days, coldstore.ErrInvalid)
	case !validID(archive):
		return fmt.Errorf("no archive has such an id: %w", coldstore.ErrNotFound)
	case !r.IsWhole() && (r.Offset < 0 || r.Size < 1 || r.Offset%mib != 0 || r.Size > maxArchive || r.Offset > maxArchive-r.Size):
		return fmt.Errorf("range of %d bytes at %d is not megabyte aligned: %w", r.Size, r.Offset, coldstore.ErrInvalid)
	}
	return nil
}

// begin begins a job.
func (s *Store) begin(ctx context.Context, in *types.JobParameters) (id string, err error) {
	out, err := s.c.InitiateJob(ctx, &glacier.InitiateJobInput{AccountId: &s.id, VaultName: &s.vault, JobParameters: in})
	if err != nil {
		err = classify(ctx, err)
		var se *awsconn.Error
		if !errors.As(err, &se) || se.Lost {
			s.jobs.stale()
		}
		return "", err
	}
	if id = text(out.JobId); !validID(id) {
		return "", fmt.Errorf("the service gave the job %q as id", awsconn.OneLine(id))
	}
	return id, nil
}

// fitting chooses one of the jobs of an archive and asks how it stands.
func (s *Store) fitting(ctx context.Context, have []coldstore.Job, r coldstore.Range) (coldstore.Job, bool, error) {
	for len(have) > 0 {
		best := -1
		for i, j := range have {
			if covers(j, r) && (best < 0 || better(j, have[best])) {
				best = i
			}
		}
		if best < 0 {
			break
		}
		was := have[best]
		have = append(have[:best:best], have[best+1:]...)
		j, err := s.job(ctx, was.ID)
		switch {
		case errors.Is(err, coldstore.ErrNotFound):
		case err != nil:
			return j, false, err
		case j.State == coldstore.JobRunning, j.State == coldstore.JobDone && s.o.Now().Add(spareLife).Before(j.Expires):
			return j, true, nil
		}
		s.jobs.drop(was.Archive, was.ID)
	}
	return coldstore.Job{}, false, nil
}

// better says that a is to be used before b.
func better(a, b coldstore.Job) bool {
	if a.State != b.State {
		return a.State == coldstore.JobDone
	}
	return a.Requested.After(b.Requested)
}

// covers says whether r lies in what a job makes readable. Of a range that ends beyond the archive it says no, so that
// the service is asked and refuses it.
func covers(j coldstore.Job, r coldstore.Range) bool {
	if r.IsWhole() {
		r.Size = max(j.Size, 1)
	}
	if (r.Offset+r.Size)%mib != 0 && r.Offset+r.Size != j.Size {
		return false
	}
	have := j.Range
	if have.IsWhole() {
		have.Size = j.Size
	}
	return r.Offset >= have.Offset && r.Offset+r.Size <= have.Offset+have.Size
}

// CheckRetrieval asks how the job stands that a token names. One that failed is told as expired, with the reason.
func (s *Store) CheckRetrieval(ctx context.Context, tok string) (coldstore.Retrieval, error) {
	what := "check retrieval " + tok
	if err := ctx.Err(); err != nil {
		return coldstore.Retrieval{}, fail(ctx, what, err)
	}
	t, err := parseToken(tok)
	if err != nil {
		return coldstore.Retrieval{}, fmt.Errorf("%s: %w", what, err)
	}
	j, err := s.check(ctx, t)
	if err != nil {
		return coldstore.Retrieval{}, fail(ctx, what, err)
	}
	r := retrievalOf(j)
	r.Token = tok
	return r, nil
}

func (s *Store) check(ctx context.Context, t token) (coldstore.Job, error) {
	j, err := s.job(ctx, t.job)
	switch {
	case err != nil:
		return j, notFoundAs(s.absent(ctx, err), coldstore.ErrExpired)
	case j.Kind != coldstore.JobRetrieval || j.Archive != t.archive || j.Range != t.span || j.Size != t.total:
		return j, fmt.Errorf("the service has another job of that id: %w", coldstore.ErrExpired)
	case j.State == coldstore.JobFailed:
		return j, fmt.Errorf("the service could not do it: %s: %w", j.Message, coldstore.ErrExpired)
	}
	return j, nil
}

// OpenRetrieved reads what was retrieved, with one request. Where the service tells the tree hash of
// what it sends, it is checked: ErrIntegrity instead of the end.
func (s *Store) OpenRetrieved(ctx context.Context, r coldstore.Retrieval, off, size int64) (io.ReadCloser, error) {
	rc, err := s.read(ctx, r, off, size)
	if err != nil {
		return nil, fail(ctx, fmt.Sprintf("read %d bytes at %d of archive %s", size, off, r.Archive), err)
	}
	return rc, nil
}

func (s *Store) read(ctx context.Context, r coldstore.Retrieval, off, size int64) (io.ReadCloser, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	t, err := parseToken(r.Token)
	if err != nil {
		return nil, err
	}
	have := t.bounds()
	switch {
	case r.Archive != "" && r.Archive != t.archive:
		return nil, fmt.Errorf("the retrieval is one of archive %s: %w", t.archive, coldstore.ErrInvalid)
	case off < 0 || size < 1 || off > t.total || size > t.total-off:
		return nil, fmt.Errorf("the archive has %d bytes: %w", t.total, coldstore.ErrInvalid)
	case off < have.Offset || off+size > have.Offset+have.Size:
		return nil, fmt.Errorf("only %d bytes at %d were retrieved: %w", have.Size, have.Offset, coldstore.ErrInvalid)
	}
	in := &glacier.GetJobOutputInput{AccountId: &s.id, VaultName: &s.vault, JobId: &t.job}
	first := off - have.Offset
	if size != have.Size {
		in.Range = optional(fmt.Sprintf("bytes=%d-%d", first, first+size-1))
	}
	out, err := s.c.GetJobOutput(ctx, in)
	if err != nil {
		return nil, s.notRead(ctx, t, classify(ctx, err))
	}
	if in.Range != nil && (out.Status != http.StatusPartialContent || !sameSpan(text(out.ContentRange), first, size)) {
		_ = out.Body.Close() // nothing of it is wanted
		return nil, fmt.Errorf("asked for %s, the service answered with status %d and range %q", *in.Range, out.Status, awsconn.OneLine(text(out.ContentRange)))
	}
	return newBody(out.Body, size, text(out.Checksum)), nil
}

// notRead finds out why output is not to be had.
func (s *Store) notRead(ctx context.Context, t token, err error) error {
	if !refused(err) {
		return notFoundAs(s.absent(ctx, err), coldstore.ErrExpired)
	}
	j, jerr := s.check(ctx, t)
	switch {
	case jerr != nil:
		return jerr
	case j.State == coldstore.JobRunning:
		return fmt.Errorf("asked for at %s: %w", j.Requested.Format(time.RFC3339), coldstore.ErrNotReady)
	}
	return err
}

// sameSpan reads "bytes 0-9/100".
func sameSpan(header string, first, size int64) bool {
	span, ok := strings.CutPrefix(header, "bytes ")
	span, _, _ = strings.Cut(span, "/")
	a, b, valid := parseSpan(span)
	return ok && valid && a == first && b == first+size-1
}

// body reads exactly what was asked for. What has come last is handed out only when the hash is right: who reads as many bytes as
// were asked for and never meets the end (io.ReadFull) is told as well.
type body struct {
	*awsconn.Download
	left int64
	sum  *treehash.Hasher // nil: nothing to check against
	want string
	err  error
}

func newBody(rc io.ReadCloser, size int64, want string) *body {
	b := &body{Download: awsconn.NewDownload(rc, size), left: size, want: want}
	if want != "" {
		b.sum = treehash.New()
	}
	return b
}

func (b *body) Read(p []byte) (int, error) {
	if b.err != nil {
		return 0, b.err
	}
	n, err := b.Download.Read(p)
	if b.sum != nil && n > 0 {
		b.sum.Write(p[:n])
		if b.left -= int64(n); b.left == 0 {
			if got := b.sum.Sum().String(); !strings.EqualFold(got, b.want) {
				n, err = 0, fmt.Errorf("the bytes have tree hash %s, and the service says %s: %w", got, awsconn.OneLine(b.want), coldstore.ErrIntegrity)
			}
		}
	}
	b.err = err
	return n, err
}

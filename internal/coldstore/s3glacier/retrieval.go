package s3glacier

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/internal/coldstore/awsconn"
)

// token says what was asked for, so that reading needs no question: REQUESTED.TIER.SIZE:ARCHIVE, where REQUESTED is in
// nanoseconds and TIER may be empty.
type token struct {
	requested int64
	tier      coldstore.Tier
	size      int64
	archive   string
}

func (t token) String() string {
	return fmt.Sprintf("%d.%s.%d:%s", t.requested, t.tier, t.size, t.archive)
}

func parseToken(s string) (token, error) {
	var t token
	head, name, ok := strings.Cut(s, ":")
	f := strings.Split(head, ".")
	if !ok || len(f) != 3 || !validName(name) {
		return t, fmt.Errorf("unknown token: %w", coldstore.ErrExpired)
	}
	t.tier, t.archive = coldstore.Tier(f[1]), name
	var err1, err2 error
	t.requested, err1 = strconv.ParseInt(f[0], 10, 64)
	t.size, err2 = strconv.ParseInt(f[2], 10, 64)
	if err1 != nil || err2 != nil || t.size < 1 || t.String() != s {
		return token{}, fmt.Errorf("unknown token: %w", coldstore.ErrExpired)
	}
	return t, nil
}

// RequestRetrieval asks for a whole archive. One that can be read at once is ready at once. A
// restored copy that is there for another hour, or is being made, is the answer, whoever asked for it.
func (s *Store) RequestRetrieval(ctx context.Context, archive string, r coldstore.Range, o coldstore.RetrievalOptions) (coldstore.Retrieval, error) {
	got, err := s.request(ctx, archive, r, o)
	if err != nil {
		return coldstore.Retrieval{}, s.fail(ctx, "s3:RestoreObject", "request retrieval of archive "+archive, err)
	}
	return got, nil
}

func (s *Store) request(ctx context.Context, archive string, r coldstore.Range, o coldstore.RetrievalOptions) (coldstore.Retrieval, error) {
	var none coldstore.Retrieval
	if err := ctx.Err(); err != nil {
		return none, err
	}
	switch o.Tier {
	case "", coldstore.Expedited, coldstore.Standard, coldstore.Bulk:
	default:
		return none, fmt.Errorf("tier %q is unknown: %w", o.Tier, coldstore.ErrInvalid)
	}
	switch {
	case o.Days < 0:
		return none, fmt.Errorf("%d days: %w", o.Days, coldstore.ErrInvalid)
	case !validName(archive):
		return none, fmt.Errorf("no archive has such a name: %w", coldstore.ErrNotFound)
	}
	h := fnv.New32a()
	h.Write([]byte(archive))
	lock := &s.asking[int(h.Sum32())%len(s.asking)]
	lock.Lock()
	defer lock.Unlock()
	at, err := s.standing(ctx, archive)
	if err != nil {
		return none, err
	}
	if !r.IsWhole() && (r.Offset < 0 || r.Size < 1 || r.Offset > at.size || r.Size > at.size-r.Offset) {
		return none, fmt.Errorf("range of %d bytes at %d, and it has %d bytes: %w", r.Size, r.Offset, at.size, coldstore.ErrInvalid)
	}
	t := token{requested: s.o.Now().UnixNano(), tier: o.Tier, size: at.size, archive: archive}
	if got := s.retrieval(t, at); got.Ready || at.restore.running && !o.Faster {
		return got, nil
	}
	return s.restore(ctx, t, at, o)
}

// ReadableNow looks at an archive's class.
func (s *Store) ReadableNow(ctx context.Context, archive string) (bool, error) {
	if !validName(archive) {
		return false, fmt.Errorf("look at archive %s: no archive has such a name: %w", archive, coldstore.ErrNotFound)
	}
	o, err := s.look(ctx, archive)
	if err != nil {
		return false, fmt.Errorf("look at archive %s: %w", archive, err)
	}
	return o.class == "" || o.class == types.ObjectStorageClassStandard, nil
}

// retrieval is what a token stands for as an archive stands now.
func (s *Store) retrieval(t token, at object) coldstore.Retrieval {
	r := coldstore.Retrieval{Token: t.String(), Archive: t.archive, Tier: t.tier, Requested: time.Unix(0, t.requested).UTC()}
	switch {
	case at.class == types.ObjectStorageClassIntelligentTiering:
		// Only a HEAD tells; it makes the class another one where the archive can be read.
	case !archived(at.class):
		r.Ready = true
	case !at.restore.running && s.o.Now().Add(spareLife).Before(at.restore.until):
		r.Ready, r.Expires = true, at.restore.until
	}
	return r
}

// restore sends the request, and understands the answer.
func (s *Store) restore(ctx context.Context, t token, at object, o coldstore.RetrievalOptions) (coldstore.Retrieval, error) {
	days := int32(o.Days)
	if days == 0 {
		days = DefaultDays
	}
	req := &types.RestoreRequest{Days: &days}
	if o.Tier != "" {
		req.GlacierJobParameters = &types.GlacierJobParameters{Tier: types.Tier(o.Tier)}
	}
	if at.class == types.ObjectStorageClassIntelligentTiering {
		req.Days = nil // it moves back for good
	}
	var head answerHeader
	_, err := s.c.RestoreObject(ctx, &s3.RestoreObjectInput{
		Bucket: &s.l.bucket, Key: s.key(t.archive), RequestPayer: s.payer(), RestoreRequest: req,
	}, head.catch)
	s.status.forget(t.archive)
	running := coldstore.Retrieval{Token: t.String(), Archive: t.archive, Tier: t.tier, Requested: time.Unix(0, t.requested).UTC()}
	if err == nil {
		if head.status == 202 {
			s.learnLists(ctx, t.archive)
			return running, nil
		}
		// 200: there is a copy already, and it is kept longer now.
		now, err := s.standing(ctx, t.archive)
		if err != nil {
			return running, nil // it is ready: a later look will say so
		}
		return s.retrieval(t, now), nil
	}
	err = s.classify(ctx, "s3:RestoreObject", err)
	switch codeOf(err) {
	case "RestoreAlreadyInProgress":
		if o.Faster {
			return running, nil // it is as fast already
		}
		running.Tier = "" // another's request: nobody tells of which tier
		t.tier = ""
		running.Token = t.String()
		return running, nil
	case "InvalidObjectState", "ObjectAlreadyInActiveTierError":
		// It is not archived: its class was changed, or the server has none.
		running.Ready = true
		return running, nil
	case "InvalidArgument", "MalformedXML":
		if o.Tier != "" {
			return running, fmt.Errorf("tier %s is not to be had for class %s: %w", o.Tier, at.class, err)
		}
	case "NoSuchKey", "NotFound":
		return running, err
	}
	var e *awsconn.Error
	if errors.As(err, &e) && errors.Is(err, coldstore.ErrUnsupported) {
		e.Text = "the server knows no RestoreObject, and cannot give back what it keeps in class " + string(at.class) + ": " + e.Text
	}
	return running, err
}

// learnLists finds out, once, whether listings tell of restores, with an archive that is being restored.
func (s *Store) learnLists(ctx context.Context, archive string) {
	if s.lists.Load() != listsUnknown {
		return
	}
	if o, err := s.find(ctx, archive); err == nil && archived(o.class) && !o.restore.told {
		if h, err := s.head(ctx, archive); err == nil && h.restore.told {
			s.lists.Store(listsSilent)
		}
	}
}

// CheckRetrieval looks how the archive stands.
func (s *Store) CheckRetrieval(ctx context.Context, tok string) (coldstore.Retrieval, error) {
	what := "check retrieval " + tok
	if err := ctx.Err(); err != nil {
		return coldstore.Retrieval{}, s.fail(ctx, "", what, err)
	}
	t, err := parseToken(tok)
	if err != nil {
		return coldstore.Retrieval{}, fmt.Errorf("%s: %w", what, err)
	}
	r, err := s.check(ctx, t)
	if err != nil {
		return coldstore.Retrieval{}, fmt.Errorf("%s: %w", what, err)
	}
	return r, nil
}

func (s *Store) check(ctx context.Context, t token) (coldstore.Retrieval, error) {
	at, err := s.standing(ctx, t.archive)
	switch {
	case errors.Is(err, coldstore.ErrNotFound):
		return coldstore.Retrieval{}, &awsconn.Error{Text: "the archive is not there any more", Kinds: []error{coldstore.ErrExpired}}
	case err != nil:
		return coldstore.Retrieval{}, err
	case at.size != t.size:
		return coldstore.Retrieval{}, fmt.Errorf("the archive has another size now: %w", coldstore.ErrExpired)
	}
	r := coldstore.Retrieval{Token: t.String(), Archive: t.archive, Tier: t.tier, Requested: time.Unix(0, t.requested).UTC()}
	switch {
	case !archived(at.class) && at.class != types.ObjectStorageClassIntelligentTiering:
		r.Ready = true
	case at.restore.running, at.class == types.ObjectStorageClassIntelligentTiering && at.restore.told:
	case s.o.Now().Before(at.restore.until):
		r.Ready, r.Expires = true, at.restore.until
	default:
		s.status.forget(t.archive)
		return r, fmt.Errorf("there is no restored copy: %w", coldstore.ErrExpired)
	}
	return r, nil
}

// OpenRetrieved reads with one request.
func (s *Store) OpenRetrieved(ctx context.Context, r coldstore.Retrieval, off, size int64) (io.ReadCloser, error) {
	what := fmt.Sprintf("read %d bytes at %d of archive %s", size, off, r.Archive)
	if err := ctx.Err(); err != nil {
		return nil, s.fail(ctx, "", what, err)
	}
	rc, err := s.read(ctx, r, off, size)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	return rc, nil
}

func (s *Store) read(ctx context.Context, r coldstore.Retrieval, off, size int64) (io.ReadCloser, error) {
	t, err := parseToken(r.Token)
	if err != nil {
		return nil, err
	}
	switch {
	case r.Archive != "" && r.Archive != t.archive:
		return nil, fmt.Errorf("the retrieval is one of archive %s: %w", t.archive, coldstore.ErrInvalid)
	case off < 0 || size < 1 || off > t.size || size > t.size-off:
		return nil, fmt.Errorf("the archive has %d bytes: %w", t.size, coldstore.ErrInvalid)
	}
	in := &s3.GetObjectInput{Bucket: &s.l.bucket, Key: s.key(t.archive), RequestPayer: s.payer()}
	if size != t.size {
		in.Range = optional(fmt.Sprintf("bytes=%d-%d", off, off+size-1))
	}
	out, err := s.c.GetObject(ctx, in)
	if err != nil {
		return nil, s.notRead(ctx, t, s.classify(ctx, "s3:GetObject", err))
	}
	if got := number(out.ContentLength); got != size || in.Range != nil && !sameSpan(text(out.ContentRange), off, size) {
		_ = out.Body.Close() // nothing of it is wanted
		return nil, fmt.Errorf("asked for %d bytes at %d, the service answered with %d, range %q", size, off, got, awsconn.OneLine(text(out.ContentRange)))
	}
	return awsconn.NewDownload(out.Body, size), nil
}

// notRead finds out why an archive is not to be read.
func (s *Store) notRead(ctx context.Context, t token, err error) error {
	switch codeOf(err) {
	case "InvalidObjectState":
		s.status.forget(t.archive)
		r, cerr := s.check(ctx, t)
		switch {
		case cerr != nil:
			return cerr
		case !r.Ready:
			return fmt.Errorf("asked for at %s: %w", r.Requested.Format(time.RFC3339), coldstore.ErrNotReady)
		}
	case "NoSuchKey", "NotFound":
		return &awsconn.Error{Text: "the archive is not there any more", Code: codeOf(err), Kinds: []error{coldstore.ErrExpired}}
	}
	return err
}

// sameSpan reads "bytes 0-9/100".
func sameSpan(header string, first, size int64) bool {
	span, ok := strings.CutPrefix(header, "bytes ")
	span, _, _ = strings.Cut(span, "/")
	return ok && span == fmt.Sprintf("%d-%d", first, first+size-1)
}

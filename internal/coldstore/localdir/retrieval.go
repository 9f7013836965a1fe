package localdir

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/internal/durable"
	"github.com/firn-backup/firn/internal/snapshot"
	"github.com/firn-backup/firn/treehash"
)

// Tokens. A warm vault's says everything itself: warm:OFFSET:SIZE:ARCHIVE. One of a vault
// that plays a delay names a file: DIRECTORY.ULID, where the directory is for
// one archive, so that asking again looks at that archive's retrievals only.
const warmPrefix = "warm:"

// retrieval is the file of a delayed retrieval.
type retrieval struct {
	Archive   string         `json:"archive"`
	Offset    int64          `json:"offset"`
	Size      int64          `json:"size"` // with Offset both 0: the whole archive
	Tier      coldstore.Tier `json:"tier,omitempty"`
	Requested time.Time      `json:"requested"`
	Ready     time.Time      `json:"ready"`
	Expires   time.Time      `json:"expires"`
}

func (r *retrieval) span() coldstore.Range {
	return coldstore.Range{Offset: r.Offset, Size: r.Size}
}

func (r *retrieval) tell(token string, now time.Time) coldstore.Retrieval {
	return coldstore.Retrieval{
		Token: token, Archive: r.Archive, Range: r.span(), Tier: r.Tier,
		Ready: !now.Before(r.Ready), Requested: r.Requested, Expires: r.Expires,
	}
}

// RequestRetrieval makes an archive, or a megabyte-aligned range of it, readable: at
// once, or after the delay that is played. There is one price and one speed, so the
// tier is only remembered; Days is not the vault's to choose, as in the vault API.
func (s *Store) RequestRetrieval(ctx context.Context, archive string, r coldstore.Range, o coldstore.RetrievalOptions) (coldstore.Retrieval, error) {
	got, err := s.request(ctx, archive, r, o)
	if err != nil {
		return coldstore.Retrieval{}, fmt.Errorf("request retrieval of archive %s: %w", archive, err)
	}
	return got, nil
}

func (s *Store) request(ctx context.Context, archive string, r coldstore.Range, o coldstore.RetrievalOptions) (coldstore.Retrieval, error) {
	var none coldstore.Retrieval
	switch o.Tier {
	case "", coldstore.Expedited, coldstore.Standard, coldstore.Bulk:
	default:
		return none, fmt.Errorf("tier %q is unknown: %w", o.Tier, coldstore.ErrInvalid)
	}
	if o.Days < 0 {
		return none, fmt.Errorf("%d days: %w", o.Days, coldstore.ErrInvalid)
	}
	a, err := s.stat(ctx, archive)
	if err != nil && !errors.Is(err, coldstore.ErrIntegrity) {
		return none, err
	}
	if err != nil { // damaged: what is left of it can still be read
		m, metaErr := s.readable(archive)
		if metaErr != nil {
			return none, metaErr
		}
		a = m.archive()
	}
	if !r.IsWhole() && !treehash.MegabyteAligned(r.Offset, r.Size, a.Size) {
		return none, fmt.Errorf("range of %d bytes at %d of %d is not megabyte aligned: %w", r.Size, r.Offset, a.Size, coldstore.ErrInvalid)
	}
	now := s.now()
	if s.o.Delay == 0 {
		token := fmt.Sprintf("%s%d:%d:%s", warmPrefix, r.Offset, r.Size, archive)
		return coldstore.Retrieval{
			Token: token, Archive: archive, Range: r, Tier: o.Tier, Ready: true, Requested: now,
		}, nil
	}
	unlock, err := s.lock(ctx)
	if err != nil {
		return none, err
	}
	defer unlock()
	token, found, err := s.fitting(archive, r, a.Size, now)
	if err != nil || found != nil {
		if err != nil {
			return none, err
		}
		return found.tell(token, now), nil
	}
	ready := now.Add(s.o.Delay)
	made := &retrieval{
		Archive: archive, Offset: r.Offset, Size: r.Size, Tier: o.Tier,
		Requested: now, Ready: ready, Expires: ready.Add(s.o.Expiry),
	}
	if token, err = s.keepRetrieval(made); err != nil {
		return none, err
	}
	return made.tell(token, now), nil
}

func (s *Store) keepRetrieval(r *retrieval) (token string, err error) {
	id, err := snapshot.NewID(r.Requested, rand.Reader)
	if err != nil {
		return "", err
	}
	token = retrievalsOf(r.Archive) + "." + id
	path, _ := s.retrievalPath(token)
	if err := durable.MkdirAll(filepath.Dir(path), dirPerm); err != nil {
		return "", err
	}
	text, err := encode(r)
	if err != nil {
		return "", err
	}
	return token, durable.WriteFile(path, text, filePerm)
}

// fitting looks for a retrieval, running or ready, that makes r readable: of several the
// one that is ready first.
func (s *Store) fitting(archive string, r coldstore.Range, size int64, now time.Time) (token string, best *retrieval, err error) {
	dir := retrievalsOf(archive)
	entries, err := os.ReadDir(filepath.Join(s.root, retrievalsDir, dir))
	if isAbsent(err) {
		return "", nil, nil
	}
	if err != nil {
		return "", nil, err
	}
	for _, e := range entries {
		id, is := strings.CutSuffix(e.Name(), metaSuffix)
		if !is || isTemp(id) {
			continue
		}
		t := dir + "." + id
		have, err := s.readRetrieval(t)
		if err != nil || have.Archive != archive || !now.Before(have.Expires) || !covers(have.span(), r, size) {
			continue // one that cannot be read is as good as none: the data is here
		}
		if best == nil || have.Ready.Before(best.Ready) {
			token, best = t, have
		}
	}
	return token, best, nil
}

// covers says whether inner lies in outer, of an archive of size bytes.
func covers(outer, inner coldstore.Range, size int64) bool {
	if outer.IsWhole() {
		return true
	}
	if inner.IsWhole() {
		inner.Size = size
	}
	return inner.Offset >= outer.Offset && inner.Offset+inner.Size <= outer.Offset+outer.Size
}

// retrievalsOf is the directory of an archive's retrievals: a name may be
// longer than a directory's may be, so it is a hash.
func retrievalsOf(archive string) string {
	sum := sha256.Sum256([]byte(archive))
	return hex.EncodeToString(sum[:16])
}

// retrievalPath is the file that a token names; ok is false for what is no token.
func (s *Store) retrievalPath(token string) (path string, ok bool) {
	dir, id, found := strings.Cut(token, ".")
	raw, err := hex.DecodeString(dir)
	if !found || err != nil || len(raw) != 16 || !snapshot.ValidID(id) {
		return "", false
	}
	return filepath.Join(s.root, retrievalsDir, dir, id+metaSuffix), true
}

// readRetrieval reads a delayed retrieval. One that is not there (any more), or is damaged, has expired: it
// costs nothing to ask for it anew.
func (s *Store) readRetrieval(token string) (*retrieval, error) {
	path, ok := s.retrievalPath(token)
	if !ok {
		return nil, fmt.Errorf("unknown token: %w", coldstore.ErrExpired)
	}
	text, err := os.ReadFile(path)
	if isAbsent(err) {
		if err := s.notFound(); !errors.Is(err, coldstore.ErrNotFound) {
			return nil, err
		}
		return nil, fmt.Errorf("unknown token: %w", coldstore.ErrExpired)
	}
	if err != nil {
		return nil, err
	}
	var r retrieval
	if err := json.Unmarshal(text, &r); err != nil || checkName(r.Archive) != nil {
		return nil, fmt.Errorf("%s is damaged: %w", path, coldstore.ErrExpired)
	}
	return &r, nil
}

// CheckRetrieval tells how a retrieval stands. Tokens of the time when the vault's URL
// said otherwise (warm, or delayed) have expired.
func (s *Store) CheckRetrieval(ctx context.Context, token string) (coldstore.Retrieval, error) {
	r, err := s.check(ctx, token)
	if err != nil {
		return coldstore.Retrieval{}, fmt.Errorf("check retrieval %s: %w", token, err)
	}
	return r, nil
}

func (s *Store) check(ctx context.Context, token string) (coldstore.Retrieval, error) {
	var none coldstore.Retrieval
	if err := ctx.Err(); err != nil {
		return none, err
	}
	now := s.now()
	if rest, is := strings.CutPrefix(token, warmPrefix); is {
		return s.checkWarm(token, rest, now)
	}
	r, err := s.readRetrieval(token)
	if err != nil {
		return none, err
	}
	if !now.Before(r.Expires) {
		return none, fmt.Errorf("it was readable until %s: %w", r.Expires.Format(time.RFC3339), coldstore.ErrExpired)
	}
	return r.tell(token, now), nil
}

func (s *Store) checkWarm(token, rest string, now time.Time) (coldstore.Retrieval, error) {
	offset, rest, _ := strings.Cut(rest, ":")
	size, archive, _ := strings.Cut(rest, ":")
	off, err1 := strconv.ParseInt(offset, 10, 64)
	n, err2 := strconv.ParseInt(size, 10, 64)
	if s.o.Delay != 0 || err1 != nil || err2 != nil || off < 0 || n < 0 || checkName(archive) != nil {
		return coldstore.Retrieval{}, fmt.Errorf("unknown token: %w", coldstore.ErrExpired)
	}
	return coldstore.Retrieval{
		Token: token, Archive: archive, Range: coldstore.Range{Offset: off, Size: n}, Ready: true, Requested: now,
	}, nil
}

// OpenRetrieved reads what was retrieved. The token decides what that is, whatever
// else r says. Data that is shorter than it should be is read as far as it goes.
func (s *Store) OpenRetrieved(ctx context.Context, r coldstore.Retrieval, off, size int64) (io.ReadCloser, error) {
	f, err := s.openRetrieved(ctx, r, off, size)
	if err != nil {
		return nil, fmt.Errorf("read %d bytes at %d of archive %s: %w", size, off, r.Archive, err)
	}
	return f, nil
}

func (s *Store) openRetrieved(ctx context.Context, r coldstore.Retrieval, off, size int64) (io.ReadCloser, error) {
	have, err := s.check(ctx, r.Token)
	if err != nil {
		return nil, err
	}
	if r.Archive != "" && r.Archive != have.Archive {
		return nil, fmt.Errorf("the retrieval is one of archive %s: %w", have.Archive, coldstore.ErrInvalid)
	}
	if !have.Ready {
		return nil, coldstore.ErrNotReady
	}
	m, err := s.readable(have.Archive)
	if err != nil {
		return nil, err
	}
	switch {
	case off < 0 || size < 1 || off > m.Size || size > m.Size-off:
		return nil, fmt.Errorf("the archive has %d bytes: %w", m.Size, coldstore.ErrInvalid)
	case !covers(have.Range, coldstore.Range{Offset: off, Size: size}, m.Size):
		return nil, fmt.Errorf("only %d bytes at %d were retrieved: %w", have.Range.Size, have.Range.Offset, coldstore.ErrInvalid)
	}
	f, err := os.Open(s.archivePath(have.Archive))
	if isAbsent(err) {
		return nil, coldstore.Damagef("its data %s is missing", s.archivePath(have.Archive))
	}
	if err != nil {
		return nil, unreadable(err)
	}
	return &reader{f: f, off: off, left: size}, nil
}

// unreadable makes it ErrIntegrity when the medium, or the file system on it, is broken at this
// place: what lies there is lost, as if it had changed, and what lies elsewhere is not.
func unreadable(err error) error {
	for _, broken := range []syscall.Errno{syscall.EIO, syscall.ENODATA, syscall.EUCLEAN, syscall.EBADMSG, syscall.EILSEQ, syscall.EISDIR, syscall.EREMOTEIO} {
		if errors.Is(err, broken) {
			return fmt.Errorf("%w (%w)", err, coldstore.ErrIntegrity)
		}
	}
	return err
}

// reader reads a stretch of a file, and says ErrUnexpectedEOF where the file ends before it.
type reader struct {
	f         *os.File
	off, left int64
}

func (r *reader) Read(p []byte) (int, error) {
	if r.left == 0 {
		return 0, io.EOF
	}
	if len(p) == 0 {
		return 0, nil
	}
	if int64(len(p)) > r.left {
		p = p[:r.left]
	}
	n, err := r.f.ReadAt(p, r.off)
	r.off += int64(n)
	r.left -= int64(n)
	switch {
	case errors.Is(err, io.EOF) && n < len(p):
		return n, fmt.Errorf("read %s: %w", r.f.Name(), io.ErrUnexpectedEOF)
	case err != nil && n < len(p):
		return n, unreadable(err)
	}
	return n, nil
}

func (r *reader) Close() error { return r.f.Close() }

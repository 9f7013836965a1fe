package manifest

import (
	"bufio"
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"

	"github.com/firn-backup/firn/internal/failure"
	"github.com/firn-backup/firn/internal/snapshot"
)

// Record is one line of a manifest: exactly one field is set. It is the
// caller's to keep.
type Record struct {
	Volume  *Volume
	Entry   *snapshot.Entry
	Deleted *string
	Problem *snapshot.Problem
}

// Reader reads one manifest. It is strict: unknown must-understand keys, wrong
// order, wrong totals, paths that are not clean, addresses out of range are errors of
// kind failure.Damaged (or of kind Failed with "needs a newer Firn"); errors of the
// reader below are handed on. Memory is bounded by the longest line, at
// most MaxLine, and 8 bytes a volume. Not safe for concurrent use.
type Reader struct {
	r      *bufio.Reader
	long   []byte // a line longer than r's buffer
	number int64  // of the line, from 1
	hash   hash.Hash
	header Header
	st     state
	stage  stage
	names  names
	signer ed25519.PublicKey
	sum    Hash
	err    error
}

// NewReader reads the header.
func NewReader(r io.Reader) (*Reader, error) {
	mr := &Reader{r: bufio.NewReaderSize(r, 256<<10), hash: sha256.New(), names: names{}}
	line, err := mr.readLine()
	if err != nil {
		return nil, err
	}
	if err := checkVersion(line); err != nil {
		return nil, fmt.Errorf("read manifest: %w", err)
	}
	mr.header, err = parseHeader(line)
	if err == nil {
		err = checkHeader(&mr.header)
	}
	if err != nil {
		return nil, mr.damaged(err)
	}
	mr.hash.Write(line)
	mr.st = newState(&mr.header)
	return mr, nil
}

// Header is the first line. Like every record it must not be trusted before
// Next has returned io.EOF.
func (r *Reader) Header() Header { return r.header }

// Next returns the next record, io.EOF after the last, when totals and
// signature have been read and the signature verified against the key in the
// manifest. What was returned before must not be trusted until then, and not
// unless Signer is trusted.
func (r *Reader) Next() (Record, error) {
	for r.err == nil {
		line, err := r.readLine()
		if err != nil {
			r.err = err
			break
		}
		rec, known, err := r.parse(line)
		if err != nil {
			r.err = r.damaged(err)
			break
		}
		r.hash.Write(line)
		if r.stage == atEnd {
			r.err = r.finish()
			break
		}
		if known {
			return rec, nil
		}
	}
	return Record{}, r.err
}

// Signer is the key that the manifest is signed with; nil before io.EOF.
func (r *Reader) Signer() ed25519.PublicKey { return r.signer }

// Hash is the manifest's hash; zero before io.EOF.
func (r *Reader) Hash() Hash { return r.sum }

func (r *Reader) damaged(err error) error {
	return failure.Errorf(failure.Damaged, "read manifest: line %d: %w", r.number, err)
}

// readLine returns the next line with its line feed, valid until the next call.
func (r *Reader) readLine() ([]byte, error) {
	r.number++
	line, err := r.r.ReadSlice('\n')
	if err == nil {
		return line, nil
	}
	r.long = r.long[:0]
	for errors.Is(err, bufio.ErrBufferFull) {
		r.long = append(r.long, line...)
		if len(r.long) > MaxLine {
			return nil, r.damaged(errors.New("the line is too long"))
		}
		line, err = r.r.ReadSlice('\n')
	}
	r.long = append(r.long, line...)
	switch {
	case err == nil && len(r.long) > MaxLine:
		return nil, r.damaged(errors.New("the line is too long"))
	case err == nil:
		return r.long, nil
	case !errors.Is(err, io.EOF):
		return nil, fmt.Errorf("read manifest: %w", err)
	case len(r.long) == 0 && r.stage == inSignature:
		return nil, r.damaged(errors.New("the manifest is unsigned"))
	default:
		return nil, r.damaged(errors.New("the manifest is cut short"))
	}
}

// parse reads one line after the header. known is false for a line of a kind
// that this version does not know, which is ignored.
func (r *Reader) parse(line []byte) (rec Record, known bool, err error) {
	s := &scanner{b: line}
	key := s.first()
	if s.err != nil {
		return rec, false, s.err
	}
	kind := string(key)
	want, known := stageOf(kind)
	switch {
	case !known && r.stage < inTotals:
		s.skip()
		s.skipRest()
		return rec, false, s.err
	case !known:
		return rec, false, fmt.Errorf("a line beginning with %q after the totals", kind)
	case r.stage == inSignature && want != inSignature:
		return rec, false, errors.New("lines go on after the totals")
	case want < r.stage || want == inSignature && r.stage != inSignature:
		return rec, false, fmt.Errorf("a line beginning with %q in the wrong place", kind)
	}
	r.stage = want
	switch want {
	case inVolumes:
		rec.Volume, err = parseVolume(s)
		if err == nil {
			err = r.st.volume(rec.Volume)
		}
	case inEntries:
		err = r.parsePath(s, kind, &rec)
	case inProblems:
		rec.Problem, err = parseProblem(s, kind)
		if err == nil {
			err = r.st.problem(rec.Problem)
		}
	case inTotals:
		err = r.parseTotals(s)
	case inSignature:
		err = r.parseSignature(s)
	}
	return rec, want < inTotals, err
}

func stageOf(key string) (stage, bool) {
	switch key {
	case "volume":
		return inVolumes, true
	case "path", "path64", "deleted", "deleted64":
		return inEntries, true
	case "problem", "problem64":
		return inProblems, true
	case "totals":
		return inTotals, true
	case "signature":
		return inSignature, true
	}
	return 0, false
}

// parsePath reads an entry or a deletion.
func (r *Reader) parsePath(s *scanner, kind string, rec *Record) error {
	if kind == "path" || kind == "path64" {
		e := new(snapshot.Entry)
		if err := parseEntry(s, kind, e, r.st.n, r.names); err != nil {
			return err
		}
		rec.Entry = e
		return r.st.entry(e)
	}
	path := s.text(kind == "deleted64")
	s.skipRest()
	if s.err != nil {
		return s.err
	}
	rec.Deleted = &path
	return r.st.deleted(path)
}

func (r *Reader) parseTotals(s *scanner) error {
	t, err := parseTotals(s)
	if err != nil {
		return err
	}
	if t != r.st.totals {
		return fmt.Errorf("totals say %+v, but there are %+v", t, r.st.totals)
	}
	r.stage = inSignature
	return nil
}

func (r *Reader) parseSignature(s *scanner) error {
	key, sig, err := parseSignature(s)
	if err != nil {
		return err
	}
	if !ed25519.Verify(key, signedText(r.hash.Sum(nil)), sig) {
		return errors.New("the signature does not fit: the manifest was changed")
	}
	r.signer = key
	r.stage = atEnd
	return nil
}

// finish makes sure that nothing follows the signature.
func (r *Reader) finish() error {
	signer := r.signer
	r.signer = nil
	_, err := r.r.ReadByte()
	switch {
	case err == nil:
		return r.damaged(errors.New("something follows the signature"))
	case !errors.Is(err, io.EOF):
		return fmt.Errorf("read manifest: %w", err)
	}
	r.signer = signer
	r.sum = Hash(r.hash.Sum(nil))
	return io.EOF
}

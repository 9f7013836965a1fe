package glaciervault

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/aws/aws-sdk-go-v2/service/glacier"

	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/internal/coldstore/awsconn"
	"github.com/firn-backup/firn/treehash"
)

// CreateUpload begins a multipart upload. The name is not kept. Spaces around a description are
// not kept either: the service drops them. It is two requests, the
// second of which asks when the upload began; it does no harm when that fails.
func (s *Store) CreateUpload(ctx context.Context, a coldstore.NewArchive, partSize int64) (coldstore.Upload, error) {
	what := "begin upload of " + nameOf(a)
	if err := checkNew(a, partSize); err != nil {
		return coldstore.Upload{}, fmt.Errorf("%s: %w", what, err)
	}
	a.Description = strings.Trim(a.Description, " ")
	size := strconv.FormatInt(partSize, 10)
	out, err := s.c.InitiateMultipartUpload(ctx, &glacier.InitiateMultipartUploadInput{
		AccountId: &s.id, VaultName: &s.vault, PartSize: &size, ArchiveDescription: optional(a.Description),
	})
	if err != nil {
		return coldstore.Upload{}, fail(ctx, what, s.absent(ctx, classify(ctx, err)))
	}
	id := text(out.UploadId)
	if !validID(id) {
		return coldstore.Upload{}, fmt.Errorf("%s: the service gave it %q as id", what, awsconn.OneLine(id))
	}
	u := coldstore.Upload{ID: id, PartSize: partSize, NewArchive: a, Created: s.o.Now().UTC()}
	if told, err := s.upload(ctx, id); err == nil {
		u.Created = told.Created
	}
	s.uploads.Put(id, u)
	return u, nil
}

func nameOf(a coldstore.NewArchive) string {
	if a.Name != "" {
		return a.Name
	}
	return fmt.Sprintf("%q", a.Description)
}

func checkNew(a coldstore.NewArchive, partSize int64) error {
	if partSize < mib || partSize > maxPart || partSize&(partSize-1) != 0 {
		return fmt.Errorf("part size of %d bytes is not a power of two of MiBs, up to 4 GiB: %w", partSize, coldstore.ErrInvalid)
	}
	if len(a.Description) > 1024 {
		return fmt.Errorf("the description has %d characters, and 1,024 are allowed: %w", len(a.Description), coldstore.ErrInvalid)
	}
	for _, c := range []byte(a.Description) {
		if c < 0x20 || c > 0x7e {
			return fmt.Errorf("the description has characters that are not printable ASCII: %w", coldstore.ErrInvalid)
		}
	}
	return nil
}

// upload asks what the service knows of an upload.
func (s *Store) upload(ctx context.Context, id string) (coldstore.Upload, error) {
	one := int32(1)
	out, err := s.c.ListParts(ctx, &glacier.ListPartsInput{AccountId: &s.id, VaultName: &s.vault, UploadId: &id, Limit: &one})
	if err != nil {
		return coldstore.Upload{}, classify(ctx, err)
	}
	u := coldstore.Upload{ID: id, PartSize: out.PartSizeInBytes, Created: parseTime(out.CreationDate)}
	u.Description = text(out.ArchiveDescription)
	return u, nil
}

// PutPart sends one part. The data is hashed once here, for the signature; its tree hash the service
// checks against the one given. The service's answer is compared.
func (s *Store) PutPart(ctx context.Context, uploadID string, off int64, data []byte, hash treehash.Hash) error {
	return s.PutPartPaced(ctx, uploadID, off, data, hash, nil)
}

// PutPartPaced is PutPart; wait, unless it is nil, is called before each piece that goes over the line.
func (s *Store) PutPartPaced(ctx context.Context, uploadID string, off int64, data []byte, hash treehash.Hash, wait func(n int) error) error {
	return s.putPart(ctx, part{uploadID, off, int64(len(data)), hash, func() [32]byte { return sha256.Sum256(data) },
		func() io.ReadSeeker { return awsconn.NewBody(data, wait) }})
}

// PutPartSection is coldstore.SectionUploader's.
func (s *Store) PutPartSection(ctx context.Context, uploadID string, off int64, r *io.SectionReader, hash treehash.Hash, sum [32]byte, wait func(n int) error) error {
	return s.putPart(ctx, part{uploadID, off, r.Size(), hash, func() [32]byte { return sum },
		func() io.ReadSeeker { return awsconn.NewSection(io.NewSectionReader(r, 0, r.Size()), wait) }})
}

// part is one part to be sent.
type part struct {
	upload string
	off    int64
	size   int64
	hash   treehash.Hash
	sum    func() [32]byte      // its SHA-256
	body   func() io.ReadSeeker // all of it, from the beginning
}

func (s *Store) putPart(ctx context.Context, p part) error {
	what := fmt.Sprintf("put %d bytes at %d of upload %s", p.size, p.off, p.upload)
	if err := ctx.Err(); err != nil {
		return fail(ctx, what, err)
	}
	if err := s.checkPart(p.upload, p.off, p.size); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	sum := p.sum()
	if p.size <= treehash.LeafSize && treehash.Hash(sum) != p.hash {
		return fmt.Errorf("%s: it has tree hash %s and not %s: %w", what, treehash.Hash(sum), p.hash, coldstore.ErrIntegrity)
	}
	span := fmt.Sprintf("bytes %d-%d/*", p.off, p.off+p.size-1)
	digits := p.hash.String()
	out, err := s.c.UploadMultipartPart(ctx, &glacier.UploadMultipartPartInput{
		AccountId: &s.id, VaultName: &s.vault, UploadId: &p.upload, Range: &span, Checksum: &digits, Body: p.body(),
	}, withPayloadHash(sum))
	if err != nil {
		err = s.absent(ctx, classify(ctx, err))
		if refused(err) || forbidden(err) {
			if got, rerr := hashOf(p.body()); rerr == nil && got != p.hash {
				return fmt.Errorf("%s: it has tree hash %s and not %s: %w", what, got, p.hash, coldstore.ErrIntegrity)
			}
		}
		return fmt.Errorf("%s: %w", what, err)
	}
	if got := text(out.Checksum); got != "" && !strings.EqualFold(got, digits) {
		return fmt.Errorf("%s: the service has tree hash %q of it, and %s was sent: %w", what, awsconn.OneLine(got), digits, coldstore.ErrIntegrity)
	}
	return nil
}

// forbidden says that the service found the request to be another one than was signed: the bytes changed on the way.
func forbidden(err error) bool {
	var se *awsconn.Error
	return errors.As(err, &se) && se.Code == "InvalidSignatureException"
}

func hashOf(r io.Reader) (treehash.Hash, error) {
	h := treehash.New()
	_, err := io.CopyBuffer(struct{ io.Writer }{h}, struct{ io.Reader }{r}, make([]byte, mib))
	return h.Sum(), err
}

func (s *Store) checkPart(uploadID string, off, size int64) error {
	if !validID(uploadID) {
		return fmt.Errorf("no upload has such an id: %w", coldstore.ErrNotFound)
	}
	partSize := int64(maxPart)
	u, known := s.uploads.Get(uploadID)
	if known {
		partSize = u.PartSize
	}
	switch {
	case size < 1 || size > partSize:
		return fmt.Errorf("a part has 1 to %d bytes: %w", partSize, coldstore.ErrInvalid)
	case off < 0 || off%mib != 0 || known && off%partSize != 0:
		return fmt.Errorf("a part begins at a multiple of the part size: %w", coldstore.ErrInvalid)
	case off > maxArchive-size || known && off/partSize >= maxParts:
		return fmt.Errorf("an archive has at most %d parts: %w", maxParts, coldstore.ErrInvalid)
	}
	return nil
}

// ListParts asks for all pages of the service's list.
func (s *Store) ListParts(ctx context.Context, uploadID string) ([]coldstore.Part, error) {
	parts, err := s.parts(ctx, uploadID)
	if err != nil {
		return nil, fail(ctx, "list parts of upload "+uploadID, err)
	}
	return parts, nil
}

func (s *Store) parts(ctx context.Context, uploadID string) ([]coldstore.Part, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if !validID(uploadID) {
		return nil, fmt.Errorf("no upload has such an id: %w", coldstore.ErrNotFound)
	}
	var parts []coldstore.Part
	in := &glacier.ListPartsInput{AccountId: &s.id, VaultName: &s.vault, UploadId: &uploadID}
	for {
		out, err := s.c.ListParts(ctx, in)
		if err != nil {
			return nil, s.absent(ctx, classify(ctx, err))
		}
		for _, p := range out.Parts {
			first, last, ok := parseSpan(text(p.RangeInBytes))
			hash, err := treehash.Parse(text(p.SHA256TreeHash))
			if !ok || err != nil {
				return nil, fmt.Errorf("the service lists a part %q with tree hash %q", awsconn.OneLine(text(p.RangeInBytes)), awsconn.OneLine(text(p.SHA256TreeHash)))
			}
			parts = append(parts, coldstore.Part{Offset: first, Size: last - first + 1, TreeHash: hash})
		}
		if text(out.Marker) == "" {
			return parts, nil
		}
		if in.Marker != nil && *in.Marker == *out.Marker {
			return nil, errSamePage
		}
		in.Marker = out.Marker
	}
}

// errSamePage keeps a service that is wrong from being asked for ever.
var errSamePage = errors.New("the service gives the same page again and again")

// parseSpan reads "0-1048575", first and last byte.
func parseSpan(s string) (first, last int64, ok bool) {
	a, b, found := strings.Cut(s, "-")
	first, err1 := strconv.ParseInt(a, 10, 64)
	last, err2 := strconv.ParseInt(b, 10, 64)
	return first, last, found && err1 == nil && err2 == nil && first >= 0 && last >= first && last < maxArchive
}

// CompleteUpload makes the archive. The service does not tell what it wrote down of it, so that Created
// is the time at which the answer came; of an upload that another process completed the description is not known any more.
func (s *Store) CompleteUpload(ctx context.Context, uploadID string, size int64, hash treehash.Hash) (coldstore.Archive, error) {
	a, err := s.complete(ctx, uploadID, size, hash)
	if err != nil {
		return coldstore.Archive{}, fmt.Errorf("complete upload %s: %w", uploadID, err)
	}
	return a, nil
}

func (s *Store) complete(ctx context.Context, uploadID string, size int64, hash treehash.Hash) (coldstore.Archive, error) {
	var none coldstore.Archive
	switch {
	case ctx.Err() != nil:
		return none, classify(ctx, ctx.Err())
	case !validID(uploadID):
		return none, fmt.Errorf("no upload has such an id: %w", coldstore.ErrNotFound)
	case size < 1 || size > maxArchive:
		return none, fmt.Errorf("an archive has 1 to %d bytes, and not %d: %w", int64(maxArchive), size, coldstore.ErrInvalid)
	}
	u, known := s.uploads.Get(uploadID)
	if !known {
		var err error
		u, err = s.upload(ctx, uploadID)
		// One that is not there may have been completed.
		if err != nil && !errors.Is(err, coldstore.ErrNotFound) {
			return none, err
		}
	}
	digits, total := hash.String(), strconv.FormatInt(size, 10)
	out, err := s.c.CompleteMultipartUpload(ctx, &glacier.CompleteMultipartUploadInput{
		AccountId: &s.id, VaultName: &s.vault, UploadId: &uploadID, ArchiveSize: &total, Checksum: &digits,
	})
	if err != nil {
		return none, s.notCompleted(ctx, uploadID, size, hash, classify(ctx, err))
	}
	id := text(out.ArchiveId)
	if !validID(id) {
		return none, fmt.Errorf("the service gave the archive %q as id: %w", awsconn.OneLine(id), coldstore.ErrInDoubt)
	}
	if got := text(out.Checksum); got != "" && !strings.EqualFold(got, digits) {
		return none, fmt.Errorf("archive %s has tree hash %q, and %s was sent: %w", id, awsconn.OneLine(got), digits, coldstore.ErrIntegrity)
	}
	if before, is := s.finished.Get(uploadID); is && before.ID == id {
		return before, nil
	}
	a := coldstore.Archive{ID: id, Description: u.Description, Size: size, TreeHash: hash, Created: s.o.Now().UTC()}
	s.finished.Put(uploadID, a)
	return a, nil
}

// notCompleted finds out what a refused or lost completion means.
func (s *Store) notCompleted(ctx context.Context, uploadID string, size int64, hash treehash.Hash, err error) error {
	var se *awsconn.Error
	if errors.As(err, &se) && se.Lost {
		return &awsconn.Error{Text: se.Text, Code: se.Code, Kinds: append([]error{coldstore.ErrInDoubt}, se.Kinds...), Lost: true}
	}
	if !refused(err) {
		return s.absent(ctx, err)
	}
	// The service tells a wrong hash and missing parts by the same code.
	parts, perr := s.parts(ctx, uploadID)
	if perr != nil {
		return err
	}
	var end int64
	hashes := make([]treehash.Hash, 0, len(parts))
	for i, p := range parts {
		if p.Offset != end || i > 0 && i < len(parts)-1 && p.Size != parts[0].Size {
			return fmt.Errorf("bytes from %d on are missing: %w", end, err)
		}
		end += p.Size
		hashes = append(hashes, p.TreeHash)
	}
	if end != size {
		return fmt.Errorf("its parts have %d bytes, and not %d: %w", end, size, err)
	}
	if got := treehash.Combine(hashes); got != hash {
		return fmt.Errorf("its parts have tree hash %s, and not %s: %w", got, hash, coldstore.ErrIntegrity)
	}
	return err
}

// AbortUpload gives an upload up. That of a completed one is refused by the service.
func (s *Store) AbortUpload(ctx context.Context, uploadID string) error {
	what := "abort upload " + uploadID
	if err := ctx.Err(); err != nil {
		return fail(ctx, what, err)
	}
	if !validID(uploadID) {
		return nil
	}
	_, err := s.c.AbortMultipartUpload(ctx, &glacier.AbortMultipartUploadInput{AccountId: &s.id, VaultName: &s.vault, UploadId: &uploadID})
	if err != nil {
		if err = s.absent(ctx, classify(ctx, err)); !errors.Is(err, coldstore.ErrNotFound) {
			return fmt.Errorf("%s: %w", what, err)
		}
	}
	return nil
}

// ListUploads asks for all pages of the service's list.
func (s *Store) ListUploads(ctx context.Context, fn func(coldstore.Upload) error) error {
	what := "list uploads of vault " + s.vault
	in := &glacier.ListMultipartUploadsInput{AccountId: &s.id, VaultName: &s.vault}
	for {
		out, err := s.c.ListMultipartUploads(ctx, in)
		if err != nil {
			return fail(ctx, what, s.absent(ctx, classify(ctx, err)))
		}
		for _, e := range out.UploadsList {
			u := coldstore.Upload{ID: text(e.MultipartUploadId), PartSize: e.PartSizeInBytes, Created: parseTime(e.CreationDate)}
			u.Description = text(e.ArchiveDescription)
			if err := fn(u); err != nil {
				return err
			}
		}
		if text(out.Marker) == "" {
			return nil
		}
		if in.Marker != nil && *in.Marker == *out.Marker {
			return fmt.Errorf("%s: %w", what, errSamePage)
		}
		in.Marker = out.Marker
	}
}

// Delete deletes an archive. The service does not tell whether it was there: deleting
// what is not succeeds, mostly.
func (s *Store) Delete(ctx context.Context, archive string) error {
	what := "delete archive " + archive
	if err := ctx.Err(); err != nil {
		return fail(ctx, what, err)
	}
	if !validID(archive) {
		return fmt.Errorf("%s: no archive has such an id: %w", what, coldstore.ErrNotFound)
	}
	_, err := s.c.DeleteArchive(ctx, &glacier.DeleteArchiveInput{AccountId: &s.id, VaultName: &s.vault, ArchiveId: &archive})
	if err != nil {
		return fail(ctx, what, s.absent(ctx, classify(ctx, err)))
	}
	s.jobs.forget(archive)
	return nil
}

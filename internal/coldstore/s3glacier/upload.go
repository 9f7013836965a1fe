package s3glacier

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"

	"crypto/sha256"

	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/minio/crc64nvme"

	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/internal/coldstore/awsconn"
	"github.com/firn-backup/firn/treehash"
)

// upload is what this process knows of an upload.
type upload struct {
	coldstore.Upload
	mine bool // begun here: parts are all that there are

	mu    sync.Mutex
	parts map[int32]part
	ended bool
}

// part is one that is stored.
type part struct {
	size int64
	etag string
	crc  *uint64
	hash treehash.Hash // zero: not known
}

// uploadID names an upload in the contract: the archive's name, which cannot have a colon, and the service's id.
func uploadID(name, id string) string { return name + ":" + id }

func parseUploadID(s string) (name, id string, err error) {
	name, id, ok := strings.Cut(s, ":")
	if !ok || !validName(name) || id == "" || len(id) > 1024 {
		return "", "", fmt.Errorf("no upload has such an id: %w", coldstore.ErrNotFound)
	}
	return name, id, nil
}

// The names of our metadata.
const (
	metaDescription = "firn-description"
	metaTreeHash    = "firn-tree-hash"
	metaSHA256      = "firn-sha256"
	metaPartSize    = "firn-part-size"
)

// CreateUpload begins a multipart upload. Its description is kept with the object.
func (s *Store) CreateUpload(ctx context.Context, a coldstore.NewArchive, partSize int64) (coldstore.Upload, error) {
	what := "begin upload of " + nameOf(a)
	if err := checkNew(a); err != nil {
		return coldstore.Upload{}, fmt.Errorf("%s: %w", what, err)
	}
	if partSize < minPart || partSize > maxPart || partSize&(partSize-1) != 0 {
		return coldstore.Upload{}, fmt.Errorf("%s: part size of %d bytes is not a power of two of MiBs, 8 MiB to 4 GiB: %w", what, partSize, coldstore.ErrInvalid)
	}
	now := s.o.Now().UTC()
	name := a.Name
	if name == "" {
		name = madeName(now.Format("20060102T150405Z"))
	}
	in := &s3.CreateMultipartUploadInput{
		Bucket: &s.l.bucket, Key: s.key(name), StorageClass: s.class(a), RequestPayer: s.payer(),
		ServerSideEncryption: s.l.sse, SSEKMSKeyId: optional(s.l.kmsKey),
		ObjectLockMode: s.l.lock, ObjectLockRetainUntilDate: s.l.retain(now),
		Metadata: metadata(a, metaPartSize, strconv.FormatInt(partSize, 10)),
	}
	if !s.plain() {
		in.ChecksumAlgorithm, in.ChecksumType = types.ChecksumAlgorithmCrc64nvme, types.ChecksumTypeFullObject
	}
	out, err := s.c.CreateMultipartUpload(ctx, in)
	if err != nil {
		return coldstore.Upload{}, s.fail(ctx, "s3:PutObject", what, err)
	}
	if text(out.UploadId) == "" {
		return coldstore.Upload{}, fmt.Errorf("%s: the service gave it no id", what)
	}
	id := uploadID(name, *out.UploadId)
	a.Name = name
	u := coldstore.Upload{ID: id, PartSize: partSize, NewArchive: a, Created: now}
	s.uploads.Put(id, &upload{Upload: u, mine: true, parts: map[int32]part{}})
	return u, nil
}

// madeName is one for an archive that was given none.
func madeName(when string) string {
	var b [10]byte
	_, _ = rand.Read(b[:]) // never fails
	return "archives/" + when + "-" + hex.EncodeToString(b[:])
}

// metadata is what lies with an object: pairs of a name and a value beside the description.
func metadata(a coldstore.NewArchive, pairs ...string) map[string]string {
	m := map[string]string{}
	if a.Description != "" {
		m[metaDescription] = a.Description
	}
	for i := 0; i < len(pairs); i += 2 {
		m[pairs[i]] = pairs[i+1]
	}
	return m
}

// plain says that the endpoint knows nothing of checksums.
func (s *Store) plain() bool { return s.l.checksum == "none" }

func nameOf(a coldstore.NewArchive) string {
	if a.Name != "" {
		return a.Name
	}
	return fmt.Sprintf("%q", a.Description)
}

// LearnUpload tells of an upload that another process began.
func (s *Store) LearnUpload(u coldstore.Upload) {
	if _, is := s.uploads.Get(u.ID); !is && u.PartSize > 0 {
		s.uploads.Put(u.ID, &upload{Upload: u, parts: map[int32]part{}})
	}
}

// PutPart sends one part, after it has seen that the data have that tree hash, which the service does not.
func (s *Store) PutPart(ctx context.Context, id string, off int64, data []byte, hash treehash.Hash) error {
	return s.PutPartPaced(ctx, id, off, data, hash, nil)
}

// PutPartPaced is PutPart; wait, unless it is nil, is called before each piece that goes over the line.
func (s *Store) PutPartPaced(ctx context.Context, id string, off int64, data []byte, hash treehash.Hash, wait func(n int) error) error {
	_, err := s.putPart(ctx, id, off, data, wait, &hash)
	return err
}

// PutPartHashing is PutPart, but computes the hash itself.
func (s *Store) PutPartHashing(ctx context.Context, id string, off int64, data []byte) ([]treehash.Hash, error) {
	return s.putPart(ctx, id, off, data, nil, nil)
}

func (s *Store) putPart(ctx context.Context, id string, off int64, data []byte, wait func(n int) error, want *treehash.Hash) ([]treehash.Hash, error) {
	what := fmt.Sprintf("put %d bytes at %d of upload %s", len(data), off, id)
	if err := ctx.Err(); err != nil {
		return nil, s.fail(ctx, "", what, err)
	}
	u, name, native, err := s.known(ctx, id)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	if err := checkPart(u.PartSize, off, int64(len(data))); err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	leaves := treehash.Leaves(data)
	hash := treehash.Combine(leaves)
	if want != nil && hash != *want {
		return nil, fmt.Errorf("%s: it has tree hash %s and not %s: %w", what, hash, *want, coldstore.ErrIntegrity)
	}
	i, _ := growth().PartIndex(u.PartSize, off)
	n := int32(i) + 1
	in := &s3.UploadPartInput{
		Bucket: &s.l.bucket, Key: s.key(name), UploadId: &native, PartNumber: &n, RequestPayer: s.payer(),
		Body: awsconn.NewBody(data, wait), ContentLength: size64(data),
	}
	p := part{size: int64(len(data)), hash: hash}
	if !s.plain() {
		sum := crc64nvme.Checksum(data)
		p.crc, in.ChecksumCRC64NVME, in.ChecksumAlgorithm = &sum, crcText(sum), types.ChecksumAlgorithmCrc64nvme
	} else if s.l.lock != "" {
		in.ContentMD5 = md5Text(data)
	}
	out, err := s.c.UploadPart(ctx, in, s.signing(data, hash))
	if err != nil {
		err = s.classify(ctx, "s3:PutObject", err)
		if !u.mine && errors.Is(err, coldstore.ErrTemporary) {
			// There are servers that fail at an upload that they do not know any more.
			if _, perr := s.parts(ctx, name, native); errors.Is(perr, coldstore.ErrNotFound) {
				err = perr
			}
		}
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	if got := text(out.ChecksumCRC64NVME); got != "" && p.crc != nil && got != *crcText(*p.crc) {
		return nil, fmt.Errorf("%s: the service has checksum %q of it, and %s was sent: %w", what, awsconn.OneLine(got), *crcText(*p.crc), coldstore.ErrIntegrity)
	}
	p.etag = text(out.ETag)
	u.mu.Lock()
	u.parts[n] = p
	u.mu.Unlock()
	return leaves, nil
}

// known is what there is to know of an upload. One that nobody told of, and that is there, is ErrInvalid.
func (s *Store) known(ctx context.Context, id string) (u *upload, name, native string, err error) {
	name, native, err = parseUploadID(id)
	if err != nil {
		return nil, name, native, err
	}
	u, ok := s.uploads.Get(id)
	if ok {
		u.mu.Lock()
		ended := u.ended
		u.mu.Unlock()
		if ended {
			return nil, name, native, fmt.Errorf("the upload has ended: %w", coldstore.ErrNotFound)
		}
		return u, name, native, nil
	}
	if _, err := s.parts(ctx, name, native); err != nil {
		return nil, name, native, err
	}
	return nil, name, native, fmt.Errorf("the part size of an upload that another process began is not known: %w", coldstore.ErrInvalid)
}

func checkPart(partSize, off, size int64) error {
	i, ok := growth().PartIndex(partSize, off)
	if !ok {
		return fmt.Errorf("no part begins at byte %d: %w", off, coldstore.ErrInvalid)
	}
	_, most := growth().PartAt(partSize, i)
	switch {
	case size < 1 || size > most:
		return fmt.Errorf("a part has 1 to %d bytes: %w", most, coldstore.ErrInvalid)
	case off > maxArchive-size || i >= maxParts:
		return fmt.Errorf("an archive has at most %d parts: %w", maxParts, coldstore.ErrInvalid)
	}
	return nil
}

// signing says how a body is signed.
func (s *Store) signing(data []byte, hash treehash.Hash) func(*s3.Options) {
	switch {
	case !s.signed:
		return sign(awsconn.SignUnhashed())
	case len(data) <= treehash.LeafSize:
		return sign(awsconn.SignAs(hash)) // the hash of one leaf is that of its bytes
	}
	return sign(awsconn.SignAs(sha256.Sum256(data)))
}

func size64(data []byte) *int64 {
	n := int64(len(data))
	return &n
}

// crcText is a checksum as S3 writes it.
func crcText(sum uint64) *string {
	t := base64.StdEncoding.EncodeToString(binary.BigEndian.AppendUint64(nil, sum))
	return &t
}

func parseCRC(t *string) *uint64 {
	b, err := base64.StdEncoding.DecodeString(text(t))
	if err != nil || len(b) != 8 {
		return nil
	}
	sum := binary.BigEndian.Uint64(b)
	return &sum
}

// ListParts asks for all pages of the service's list. Of parts that another process put it does not know the tree hash.
func (s *Store) ListParts(ctx context.Context, id string) ([]coldstore.Part, error) {
	what := "list parts of upload " + id
	if err := ctx.Err(); err != nil {
		return nil, s.fail(ctx, "", what, err)
	}
	name, native, err := parseUploadID(id)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	have, err := s.parts(ctx, name, native)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	partSize := int64(0)
	if u, ok := s.uploads.Get(id); ok {
		partSize = u.PartSize
		s.recall(u, have)
	} else if len(have) > 0 {
		partSize = have[slices.Min(numbers(have))].size // right unless it is the last
	}
	list := make([]coldstore.Part, 0, len(have))
	for _, n := range numbers(have) {
		p := have[n]
		sum := ""
		if p.crc != nil {
			sum = *crcText(*p.crc)
		}
		off, _ := growth().PartAt(partSize, int(n-1))
		list = append(list, coldstore.Part{Offset: off, Size: p.size, TreeHash: p.hash, Sum: sum})
	}
	return list, nil
}

// SumPart is the CRC64NVME of data.
func (s *Store) SumPart(data []byte) string { return *crcText(crc64nvme.Checksum(data)) }

func numbers(have map[int32]part) []int32 {
	all := make([]int32, 0, len(have))
	for n := range have {
		all = append(all, n)
	}
	slices.Sort(all)
	return all
}

// recall fills in the tree hashes of parts that this process put.
func (s *Store) recall(u *upload, have map[int32]part) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for n, p := range have {
		mine, is := u.parts[n]
		if is && mine.size == p.size && (mine.etag == p.etag || mine.crc != nil && p.crc != nil && *mine.crc == *p.crc) {
			p.hash = mine.hash
			if p.crc == nil {
				p.crc = mine.crc
			}
			have[n] = p
		}
	}
}

// parts are those that the service has.
func (s *Store) parts(ctx context.Context, name, native string) (map[int32]part, error) {
	have := map[int32]part{}
	in := &s3.ListPartsInput{Bucket: &s.l.bucket, Key: s.key(name), UploadId: &native, RequestPayer: s.payer()}
	for {
		out, err := s.c.ListParts(ctx, in)
		if err != nil {
			return nil, s.classify(ctx, "s3:ListMultipartUploadParts", err)
		}
		for _, p := range out.Parts {
			have[number(p.PartNumber)] = part{size: number(p.Size), etag: text(p.ETag), crc: parseCRC(p.ChecksumCRC64NVME)}
		}
		next := text(out.NextPartNumberMarker)
		if !yes(out.IsTruncated) || next == "" {
			return have, nil
		}
		if text(in.PartNumberMarker) == next {
			return nil, errSamePage
		}
		in.PartNumberMarker = &next
	}
}

// errSamePage keeps a service that is wrong from being asked for ever.
var errSamePage = errors.New("the service gives the same page again and again")

// AbortUpload throws the parts away.
func (s *Store) AbortUpload(ctx context.Context, id string) error {
	what := "abort upload " + id
	if err := ctx.Err(); err != nil {
		return s.fail(ctx, "", what, err)
	}
	name, native, err := parseUploadID(id)
	if err != nil {
		return nil // there is no such thing
	}
	_, err = s.c.AbortMultipartUpload(ctx, &s3.AbortMultipartUploadInput{Bucket: &s.l.bucket, Key: s.key(name), UploadId: &native, RequestPayer: s.payer()})
	if err != nil {
		if err = s.classify(ctx, "s3:AbortMultipartUpload", err); !errors.Is(err, coldstore.ErrNotFound) {
			return fmt.Errorf("%s: %w", what, err)
		}
	}
	s.uploads.Forget(id)
	return nil
}

// ListUploads asks for all pages of the service's list. Part sizes and descriptions are those of this process's uploads only.
func (s *Store) ListUploads(ctx context.Context, fn func(coldstore.Upload) error) error {
	what := "list uploads in " + s.l.where()
	root := s.l.root()
	in := &s3.ListMultipartUploadsInput{Bucket: &s.l.bucket, Prefix: optional(root), RequestPayer: s.payer()}
	for {
		out, err := s.c.ListMultipartUploads(ctx, in)
		if err != nil {
			return s.fail(ctx, "s3:ListBucketMultipartUploads", what, err)
		}
		for _, e := range out.Uploads {
			name, ours := strings.CutPrefix(text(e.Key), root)
			if !ours || !validName(name) {
				continue
			}
			u := coldstore.Upload{ID: uploadID(name, text(e.UploadId)), Created: moment(e.Initiated)}
			u.Name = name
			if mine, ok := s.uploads.Get(u.ID); ok {
				u = mine.Upload
			}
			if err := fn(u); err != nil {
				return err
			}
		}
		if !yes(out.IsTruncated) || text(out.NextKeyMarker) == "" {
			return nil
		}
		if text(in.KeyMarker) == text(out.NextKeyMarker) && text(in.UploadIdMarker) == text(out.NextUploadIdMarker) {
			return fmt.Errorf("%s: %w", what, errSamePage)
		}
		in.KeyMarker, in.UploadIdMarker = out.NextKeyMarker, out.NextUploadIdMarker
	}
}

package s3glacier

import (
	"context"
	"crypto/md5" // S3's ETag is one
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/minio/crc64nvme"

	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/internal/coldstore/awsconn"
	"github.com/firn-backup/firn/treehash"
)

// MaxWhole is how much PutWhole takes.
func (s *Store) MaxWhole() int64 { return maxWhole }

// PutWhole stores an archive with one PUT, unless there is one of that name. Tree hash, SHA-256 and description are kept with it.
func (s *Store) PutWhole(ctx context.Context, a coldstore.NewArchive, data []byte, hash treehash.Hash, wait func(n int) error) (coldstore.Archive, error) {
	var none coldstore.Archive
	what := fmt.Sprintf("put %d bytes as %s", len(data), nameOf(a))
	if err := ctx.Err(); err != nil {
		return none, s.fail(ctx, "", what, err)
	}
	if err := checkNew(a); err != nil {
		return none, fmt.Errorf("%s: %w", what, err)
	}
	switch got := treehash.Sum(data); {
	case a.Name == "":
		return none, fmt.Errorf("%s: it needs a name: %w", what, coldstore.ErrInvalid)
	case len(data) < 1 || len(data) > maxWhole:
		return none, fmt.Errorf("%s: 1 to %d bytes can be: %w", what, maxWhole, coldstore.ErrInvalid)
	case got != hash:
		return none, fmt.Errorf("%s: it has tree hash %s and not %s: %w", what, got, hash, coldstore.ErrIntegrity)
	}
	now := s.o.Now().UTC()
	sum := sha256.Sum256(data)
	star := "*"
	in := &s3.PutObjectInput{
		Bucket: &s.l.bucket, Key: s.key(a.Name), StorageClass: s.class(a), RequestPayer: s.payer(), IfNoneMatch: &star,
		ServerSideEncryption: s.l.sse, SSEKMSKeyId: optional(s.l.kmsKey),
		ObjectLockMode: s.l.lock, ObjectLockRetainUntilDate: s.l.retain(now),
		Metadata: metadata(a, metaTreeHash, hash.String(), metaSHA256, hex.EncodeToString(sum[:])),
		Body:     awsconn.NewBody(data, wait), ContentLength: size64(data),
	}
	crc := crcText(crc64nvme.Checksum(data))
	if !s.plain() {
		in.ChecksumCRC64NVME, in.ChecksumAlgorithm = crc, types.ChecksumAlgorithmCrc64nvme
	} else if s.l.lock != "" {
		in.ContentMD5 = md5Text(data) // which is what locks want without a checksum
	}
	signed := sign(awsconn.SignAs(sum))
	out, err := s.c.PutObject(ctx, in, signed)
	if err != nil {
		created, err := s.notPut(ctx, a.Name, data, s.classify(ctx, "s3:PutObject", err))
		if err != nil {
			return none, fmt.Errorf("%s: %w", what, err)
		}
		return coldstore.Archive{ID: a.Name, Description: a.Description, Size: int64(len(data)), TreeHash: hash, Created: created.modified}, nil
	}
	if got := text(out.ChecksumCRC64NVME); got != "" && got != *crc {
		return none, fmt.Errorf("%s: the service has checksum %q of it, and %s was sent: %w", what, awsconn.OneLine(got), *crc, coldstore.ErrIntegrity)
	}
	s.status.forget(a.Name)
	return coldstore.Archive{ID: a.Name, Description: a.Description, Size: int64(len(data)), TreeHash: hash, Created: now}, nil
}

func md5Text(data []byte) *string {
	sum := md5.Sum(data)
	t := base64.StdEncoding.EncodeToString(sum[:])
	return &t
}

// notPut finds out whether what was refused is there already, of the same bytes, and whose answer was lost.
func (s *Store) notPut(ctx context.Context, name string, data []byte, err error) (object, error) {
	var e *awsconn.Error
	if errors.As(err, &e) && e.Lost {
		s.lost.Put(name, struct{}{})
		return object{}, &awsconn.Error{Text: e.Text, Code: e.Code, Kinds: append([]error{coldstore.ErrInDoubt}, e.Kinds...), Lost: true}
	}
	if !errors.Is(err, coldstore.ErrExists) {
		return object{}, err
	}
	o, ferr := s.find(ctx, name)
	switch {
	case errors.Is(ferr, coldstore.ErrNotFound):
		return o, fmt.Errorf("archive %s: %w", name, err)
	case ferr != nil:
		return o, ferr
	}
	sum := md5.Sum(data)
	_, lost := s.lost.Get(name)
	switch etag := strings.Trim(o.etag, `"`); {
	case o.size == int64(len(data)) && etag == hex.EncodeToString(sum[:]):
		return o, nil
	case o.size == int64(len(data)) && lost:
		return o, nil // name and size are all that can be known
	}
	return o, fmt.Errorf("archive %s: %w", name, err)
}

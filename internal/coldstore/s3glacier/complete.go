package s3glacier

import (
	"context"
	"errors"
	"fmt"

	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/internal/coldstore/awsconn"
	"github.com/firn-backup/firn/treehash"
)

// CompleteUpload makes the archive, unless there is one of that name. The service compares the checksum of all of it;
// the tree hash is compared here, as far as this process put the parts. A completion whose answer was lost is
// found out by a listing: an object of that name and size, of an upload that is no more, is the archive.
func (s *Store) CompleteUpload(ctx context.Context, id string, size int64, hash treehash.Hash) (coldstore.Archive, error) {
	a, err := s.complete(ctx, id, size, hash)
	if err != nil {
		return coldstore.Archive{}, fmt.Errorf("complete upload %s: %w", id, err)
	}
	return a, nil
}

func (s *Store) complete(ctx context.Context, id string, size int64, hash treehash.Hash) (coldstore.Archive, error) {
	var none coldstore.Archive
	if err := ctx.Err(); err != nil {
		return none, s.classify(ctx, "", err)
	}
	name, native, err := parseUploadID(id)
	if err != nil {
		return none, err
	}
	if size < 1 || size > maxArchive {
		return none, fmt.Errorf("an archive has 1 to %d bytes, and not %d: %w", int64(maxArchive), size, coldstore.ErrInvalid)
	}
	if _, is := s.finished.Get(id); is {
		return s.settle(ctx, id, name, size, hash)
	}
	u, have, err := s.inventory(ctx, id, name, native)
	switch {
	case errors.Is(err, coldstore.ErrNotFound):
		return s.settle(ctx, id, name, size, hash)
	case err != nil:
		return none, err
	}
	err = s.completeWith(ctx, name, native, size, hash, have)
	if codeOf(err) == "InvalidPart" && u != nil && u.mine {
		// A part that was sent twice may have come twice, the first one last.
		if have, err = s.parts(ctx, name, native); err == nil {
			s.recall(u, have)
			err = s.completeWith(ctx, name, native, size, hash, have)
		}
	}
	var e *awsconn.Error
	switch {
	case err == nil:
		a := coldstore.Archive{ID: name, Size: size, TreeHash: hash, Created: s.o.Now().UTC()}
		if u != nil {
			a.Description = u.Description
		}
		s.end(id, u, a)
		return a, nil
	case errors.Is(err, coldstore.ErrExists):
		// Ours, of which the answer was lost, or another's? Ours is no upload any more.
		if _, perr := s.parts(ctx, name, native); errors.Is(perr, coldstore.ErrNotFound) {
			return s.settle(ctx, id, name, size, hash)
		}
		return none, fmt.Errorf("archive %s: %w", name, err)
	case errors.Is(err, coldstore.ErrNotFound):
		return s.settle(ctx, id, name, size, hash)
	case errors.As(err, &e) && e.Lost:
		return none, &awsconn.Error{Text: e.Text, Code: e.Code, Kinds: append([]error{coldstore.ErrInDoubt}, e.Kinds...), Lost: true}
	}
	return none, err
}

// end forgets an upload's parts, and remembers what it became.
func (s *Store) end(id string, u *upload, a coldstore.Archive) {
	s.finished.Put(id, a)
	if u != nil {
		u.mu.Lock()
		u.ended, u.parts = true, nil
		u.mu.Unlock()
	}
	s.status.forget(a.ID)
}

// inventory is what parts there are: as this process put them, if it put all, else as the service lists them.
func (s *Store) inventory(ctx context.Context, id, name, native string) (*upload, map[int32]part, error) {
	u, ok := s.uploads.Get(id)
	if ok && u.mine {
		u.mu.Lock()
		defer u.mu.Unlock()
		have := make(map[int32]part, len(u.parts))
		for n, p := range u.parts {
			have[n] = p
		}
		return u, have, nil
	}
	have, err := s.parts(ctx, name, native)
	if err != nil {
		return u, nil, err
	}
	if ok {
		s.recall(u, have)
	}
	return u, have, nil
}

// completeWith checks the parts against what the archive is to be, and has the service make one of them.
func (s *Store) completeWith(ctx context.Context, name, native string, size int64, hash treehash.Hash, have map[int32]part) error {
	order := numbers(have)
	var (
		end    int64
		list   = make([]types.CompletedPart, 0, len(order))
		hashes = make([]treehash.Hash, 0, len(order))
		crc    = new(uint64)
	)
	first := have[1].size
	for i, n := range order {
		p := have[n]
		_, full := growth().PartAt(first, i)
		if n != int32(i)+1 || i < len(order)-1 && p.size != full || p.size > full {
			return fmt.Errorf("bytes from %d on are missing: %w", end, coldstore.ErrInvalid)
		}
		end += p.size
		if !p.hash.IsZero() {
			hashes = append(hashes, p.hash)
		}
		done := types.CompletedPart{PartNumber: &n, ETag: optional(p.etag)}
		if p.crc == nil || crc == nil {
			crc = nil
		} else {
			done.ChecksumCRC64NVME = crcText(*p.crc)
			*crc = combineCRC(*crc, *p.crc, p.size)
		}
		list = append(list, done)
	}
	switch {
	case end != size:
		return fmt.Errorf("its parts have %d bytes, and not %d: %w", end, size, coldstore.ErrInvalid)
	case len(order) > 1 && (first < mib || first&(first-1) != 0):
		return fmt.Errorf("its first part has %d bytes: %w", first, coldstore.ErrInvalid)
	case len(hashes) == len(order) && combineParts(hashes, growth(), first) != hash:
		return fmt.Errorf("its parts have tree hash %s, and not %s: %w", combineParts(hashes, growth(), first), hash, coldstore.ErrIntegrity)
	}
	star := "*"
	in := &s3.CompleteMultipartUploadInput{
		Bucket: &s.l.bucket, Key: s.key(name), UploadId: &native, IfNoneMatch: &star, RequestPayer: s.payer(),
		MpuObjectSize: &size, MultipartUpload: &types.CompletedMultipartUpload{Parts: list},
	}
	if crc != nil && !s.plain() {
		in.ChecksumCRC64NVME, in.ChecksumType = crcText(*crc), types.ChecksumTypeFullObject
	}
	out, err := s.c.CompleteMultipartUpload(ctx, in)
	if err != nil {
		return s.classify(ctx, "s3:PutObject", err)
	}
	got := text(out.ChecksumCRC64NVME)
	if crc != nil && got != "" && out.ChecksumType == types.ChecksumTypeFullObject && got != *crcText(*crc) {
		return fmt.Errorf("archive %s has checksum %q, and %s was sent: %w", name, awsconn.OneLine(got), *crcText(*crc), coldstore.ErrIntegrity)
	}
	return nil
}

// settle looks whether an upload that is no more became its archive.
func (s *Store) settle(ctx context.Context, id, name string, size int64, hash treehash.Hash) (coldstore.Archive, error) {
	o, err := s.find(ctx, name)
	if err != nil {
		return coldstore.Archive{}, err
	}
	if o.size != size {
		return coldstore.Archive{}, fmt.Errorf("archive %s is there with %d bytes, and not %d: %w", name, o.size, size, coldstore.ErrExists)
	}
	if a, is := s.finished.Get(id); is {
		if a.TreeHash != hash {
			return coldstore.Archive{}, fmt.Errorf("archive %s has tree hash %s, and not %s: %w", name, a.TreeHash, hash, coldstore.ErrIntegrity)
		}
		return a, nil
	}
	a := coldstore.Archive{ID: name, Size: size, TreeHash: hash, Created: o.modified}
	u, ok := s.uploads.Get(id)
	if ok {
		a.Description = u.Description
	}
	s.end(id, u, a)
	return a, nil
}

// combineParts is the tree hash of parts that lie as t has it: where their size doubles, which it does after an even
// number of them, the nodes before are paired until they are as large as the next. size is that of the first part.
func combineParts(hashes []treehash.Hash, t coldstore.Traits, size int64) treehash.Hash {
	n := min(t.GrowEvery, len(hashes))
	nodes, rest := hashes[:n:n], hashes[n:]
	for len(rest) > 0 {
		if size *= 2; size > t.MaxPart {
			return treehash.Combine(append(nodes, rest...))
		}
		paired := make([]treehash.Hash, 0, len(nodes)/2+t.GrowEvery)
		for i := 0; i < len(nodes); i += 2 {
			paired = append(paired, treehash.Combine(nodes[i:i+2]))
		}
		n := min(t.GrowEvery, len(rest))
		nodes, rest = append(paired, rest[:n]...), rest[n:]
	}
	return treehash.Combine(nodes)
}

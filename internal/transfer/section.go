package transfer

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"

	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/treehash"
)

// SendFrom is Write for the size bytes of r, in place of any other call of it: each part is read where it lies, once for
// its hashes and once as it is sent, so that memory does not grow with parts. done is false, and nothing was
// begun, where the store cannot do that (coldstore.SectionUploader). read, if not nil, is told of bytes as they are hashed.
func (u *Upload) SendFrom(r io.ReaderAt, size int64, read func(n int64)) (done bool, err error) {
	s, ok := u.s.(coldstore.SectionUploader)
	if !ok || u.ended || u.partSize != 0 {
		return false, nil
	}
	if err := u.prepare(); err != nil {
		u.cancel(err)
		return true, err
	}
	if u.id == "" { // it could have been one request
		if err := u.create(); err != nil {
			u.cancel(err)
			return true, err
		}
	}
	for u.size < size {
		if err := u.room(); err != nil {
			return true, err
		}
		p := io.NewSectionReader(r, u.size, min(u.partSize, size-u.size))
		select {
		case u.slots <- struct{}{}:
		case <-u.ctx.Done():
			return true, context.Cause(u.ctx)
		}
		off := u.size
		u.size += p.Size()
		u.wg.Go(func() {
			defer func() { <-u.slots }()
			if err := u.putSection(s, off, p, read); err != nil {
				u.cancel(err)
			}
		})
	}
	return true, nil
}

// putSection stores one part of SendFrom.
func (u *Upload) putSection(s coldstore.SectionUploader, off int64, p *io.SectionReader, read func(n int64)) error {
	leaves, sum, err := hashSection(u.ctx, p, read)
	if err != nil {
		return fmt.Errorf("read part at byte %d of %s: %w", off, u.what(), err)
	}
	hash := treehash.Combine(leaves)
	have, there := u.have[off]
	if there = there && !have.TreeHash.IsZero(); there {
		if have.Size != p.Size() || have.TreeHash != hash {
			return u.named(fmt.Errorf("part at byte %d: %w", off, ErrOtherParts))
		}
	} else {
		var wait func(n int) error
		if u.o.Limit != nil {
			wait = func(n int) error { return u.o.Limit.Wait(u.ctx, n) }
		}
		err := retry(u.ctx, u.o, func() error {
			if err := s.PutPartSection(u.ctx, u.id, off, p, hash, sum, wait); err != nil {
				return u.named(err)
			}
			return nil
		})
		if err != nil {
			return err
		}
		if u.o.Sent != nil {
			u.o.Sent(p.Size())
		}
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	i := int(off / u.partSize)
	for len(u.leaves) <= i {
		u.leaves = append(u.leaves, nil)
	}
	u.leaves[i] = leaves
	return nil
}

// hashSection reads all of p, for its leaf hashes and its SHA-256.
func hashSection(ctx context.Context, p *io.SectionReader, read func(n int64)) (leaves []treehash.Hash, sum [32]byte, err error) {
	whole := sha256.New()
	buf := make([]byte, treehash.LeafSize)
	for at := int64(0); at < p.Size(); at += int64(len(buf)) {
		if err := ctx.Err(); err != nil {
			return nil, sum, context.Cause(ctx)
		}
		buf = buf[:min(treehash.LeafSize, p.Size()-at)]
		if n, err := p.ReadAt(buf, at); n < len(buf) {
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return nil, sum, err
		}
		whole.Write(buf)
		leaves = append(leaves, sha256.Sum256(buf))
		if read != nil {
			read(int64(len(buf)))
		}
	}
	return leaves, [32]byte(whole.Sum(nil)), nil
}

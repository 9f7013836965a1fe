package transfer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"syscall"

	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/internal/manifest"
	"github.com/firn-backup/firn/treehash"
)

const (
	// At most maxBlocks blocks of a MiB are in memory: those read ahead, the
	// one being read and those that were used last.
	maxBlocks = 8
	ahead     = 4

	// A retrieval of a whole archive is read in requests that grow while reading
	// is sequential, so that a look into the middle does not ask for the rest.
	maxRequest = 64 << 20
)

// ReaderAt reads a volume's archive through retrievals; see NewReaderAt.
type ReaderAt struct {
	ctx     context.Context
	cancel  context.CancelFunc
	s       coldstore.Retriever
	v       *manifest.Volume
	rs      []coldstore.Retrieval // their ranges filled in
	o       Options
	damaged func(Damage)

	// mu guards what is in memory. It is never held while the store is read.
	mu       sync.Mutex
	blocks   []*block // used longest ago first
	spare    [][]byte
	seen     map[int64]bool // of the first and the last leaf: was read
	touched  blockID        // used last
	fetching bool           // a goroutine reads ahead
	noAhead  bool           // it failed: wait for a read that succeeds
	closed   bool

	// fetch guards the connection, and is held while the store is read.
	fetch    sync.Mutex
	cur      *cursor
	curID    blockID        // what cur gives next
	request  int64          // bytes of the next request, of a whole archive
	reported map[int64]bool // leaves
	wg       sync.WaitGroup
}

// A blockID names what one leaf and one retrieval have in common.
type blockID struct {
	r    int // of rs
	leaf int64
}

type block struct {
	blockID
	off  int64
	data []byte
}

// NewReaderAt reads a volume's archive through retrievals that are ready,
// serving header and tail from v, retrieved or not. Leaves are checked where
// v has them and a retrieval has the whole of them; a leaf that is wrong twice is reported once to damaged (may be nil; called
// from any goroutine, one at a time; it must not read) and served as it
// is, so that what is whole of it can still be used. The leaves of header and tail are read and checked too, on the
// first use, where they were retrieved.
//
// It reads ahead for
// sequential use, with at most 8 MiB in memory, and is safe for concurrent use.
// What no retrieval has is an error that says so; bytes before it are returned with it. It goes on until
// ctx is done; Close ends it before.
func NewReaderAt(ctx context.Context, s coldstore.Retriever, v *manifest.Volume, rs []coldstore.Retrieval, o Options, damaged func(Damage)) *ReaderAt {
	r := &ReaderAt{
		s: s, v: v, o: o.withDefaults(), damaged: damaged,
		seen:     map[int64]bool{},
		touched:  blockID{-1, -1},
		reported: map[int64]bool{},
	}
	r.ctx, r.cancel = context.WithCancel(ctx)
	for _, rt := range rs {
		if rt.Range.IsWhole() {
			rt.Range = coldstore.Range{Size: v.Size}
		}
		rt.Range.Size = min(rt.Range.Size, v.Size-rt.Range.Offset)
		r.rs = append(r.rs, rt)
	}
	// A connection must not outlive the context, and nobody need call Close.
	context.AfterFunc(r.ctx, func() {
		r.fetch.Lock()
		defer r.fetch.Unlock()
		if r.cur != nil {
			r.cur.close()
			r.cur = nil
		}
	})
	return r
}

var errReaderClosed = errors.New("reader is closed")

// Close ends the connection and what is being read ahead, and waits for it.
func (r *ReaderAt) Close() error {
	r.mu.Lock()
	r.closed = true
	r.mu.Unlock()
	r.cancel()
	r.wg.Wait()
	r.fetch.Lock()
	defer r.fetch.Unlock()
	if r.cur != nil {
		r.cur.close()
		r.cur = nil
	}
	return nil
}

// ReadAt is io.ReaderAt over the whole archive.
func (r *ReaderAt) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, fmt.Errorf("read archive %s: negative offset %d", r.v.Archive, off)
	}
	n := 0
	for n < len(p) {
		at := off + int64(n)
		if at >= r.v.Size {
			return n, io.EOF
		}
		if err := r.ctx.Err(); err != nil {
			if r.isClosed() {
				err = errReaderClosed
			}
			return n, err
		}
		k, err := r.piece(p[n:], at)
		n += k
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

func (r *ReaderAt) isClosed() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.closed
}

// piece reads some bytes at off, at least one.
func (r *ReaderAt) piece(p []byte, off int64) (int, error) {
	tail := r.v.Size - int64(len(r.v.Tail))
	var kept []byte
	switch {
	case off < int64(len(r.v.Header)):
		kept = r.v.Header[off:]
	case off >= tail:
		kept = r.v.Tail[off-tail:]
	default:
		if off < tail {
			p = p[:min(int64(len(p)), tail-off)]
		}
		id, ok := r.find(off)
		if !ok {
			return 0, fmt.Errorf("read archive %s: byte %d was not retrieved", r.v.Archive, off)
		}
		return r.block(id, p, off)
	}
	// It is at hand, whole, in v. Where the archive's own is at hand too it is
	// looked at, so that damage to it is known; v's serves either way.
	if id, ok := r.find(off); ok && !r.wasSeen(id.leaf) {
		var one [1]byte
		if _, err := r.block(id, one[:], off); err != nil && r.ctx.Err() != nil {
			return 0, err
		}
		r.mu.Lock()
		r.seen[id.leaf] = true
		r.mu.Unlock()
	}
	return copy(p, kept), nil
}

func (r *ReaderAt) wasSeen(leaf int64) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.seen[leaf]
}

// find tells in which block off lies. Of several retrievals that have it, one that has the whole leaf is best.
func (r *ReaderAt) find(off int64) (blockID, bool) {
	found, ok := blockID{}, false
	leaf := off / treehash.LeafSize
	for i, rt := range r.rs {
		if off < rt.Range.Offset || off-rt.Range.Offset >= rt.Range.Size {
			continue
		}
		if start, end := r.bounds(blockID{i, leaf}); r.wholeLeaf(leaf, start, end) {
			return blockID{i, leaf}, true
		}
		if !ok {
			found, ok = blockID{i, leaf}, true
		}
	}
	return found, ok
}

// bounds is what a block has of the archive.
func (r *ReaderAt) bounds(id blockID) (start, end int64) {
	rg := r.rs[id.r].Range
	start = max(id.leaf*treehash.LeafSize, rg.Offset)
	end = min((id.leaf+1)*treehash.LeafSize, rg.Offset+rg.Size)
	return start, end
}

func (r *ReaderAt) wholeLeaf(leaf, start, end int64) bool {
	return start == leaf*treehash.LeafSize && (end-start == treehash.LeafSize || end == r.v.Size)
}

// block copies from a block to p, reading it if it is not in memory.
func (r *ReaderAt) block(id blockID, p []byte, off int64) (int, error) {
	if n, ok := r.cached(id, p, off); ok {
		return n, nil
	}
	r.fetch.Lock()
	defer r.fetch.Unlock()
	// Meanwhile the one before may have read it.
	if n, ok := r.cached(id, p, off); ok {
		return n, nil
	}
	if err := r.load(id); err != nil {
		return 0, err
	}
	r.mu.Lock()
	r.noAhead = false
	r.mu.Unlock()
	n, _ := r.cached(id, p, off) // it is there: only load pushes blocks out
	return n, nil
}

// cached copies from a block in memory, and sees to it that those which follow are
// read ahead.
func (r *ReaderAt) cached(id blockID, p []byte, off int64) (int, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	i := r.index(id)
	if i < 0 {
		return 0, false
	}
	b := r.blocks[i]
	r.blocks = append(append(r.blocks[:i], r.blocks[i+1:]...), b)
	if id != r.touched {
		follows := id.r == r.touched.r && id.leaf == r.touched.leaf+1
		r.touched = id
		// What was retrieved in part was retrieved because it is wanted.
		if follows || !r.whole(id.r) {
			r.readAhead(id)
		}
	}
	return copy(p, b.data[off-b.off:]), true
}

func (r *ReaderAt) whole(i int) bool {
	return r.rs[i].Range == coldstore.Range{Size: r.v.Size}
}

// index finds a block in memory. mu is held.
func (r *ReaderAt) index(id blockID) int {
	for i, b := range r.blocks {
		if b.blockID == id {
			return i
		}
	}
	return -1
}

// readAhead starts to read what follows id. mu is held.
func (r *ReaderAt) readAhead(id blockID) {
	if r.fetching || r.noAhead || r.closed {
		return
	}
	if _, ok := r.next(id); !ok {
		return
	}
	r.fetching = true
	r.wg.Go(func() {
		for r.loadNext() {
		}
	})
}

// loadNext loads the next block ahead of what is being used, and says whether
// to go on.
func (r *ReaderAt) loadNext() bool {
	r.fetch.Lock()
	defer r.fetch.Unlock()
	r.mu.Lock()
	// Only now: while this waited, the user may have overtaken it.
	id, ok := r.next(r.touched)
	ok = ok && r.ctx.Err() == nil
	r.fetching = ok
	r.mu.Unlock()
	if !ok {
		return false
	}
	if err := r.load(id); err != nil {
		// Whoever needs the block meets the error.
		r.mu.Lock()
		r.noAhead, r.fetching = true, false
		r.mu.Unlock()
		return false
	}
	return true
}

// next is the first block after id, as far as is read ahead, that is not in memory. mu is held.
func (r *ReaderAt) next(id blockID) (blockID, bool) {
	if id.r < 0 {
		return id, false
	}
	rg := r.rs[id.r].Range
	for range ahead {
		id.leaf++
		if id.leaf*treehash.LeafSize >= rg.Offset+rg.Size {
			return id, false
		}
		if r.index(id) < 0 {
			return id, true
		}
	}
	return id, false
}

// load reads a block into memory and checks it. fetch is held.
func (r *ReaderAt) load(id blockID) error {
	start, end := r.bounds(id)
	b := &block{blockID: id, off: start, data: r.buffer()[:end-start]}
	err := r.readBlock(b, r.connect(id, start))
	if err != nil && !errors.Is(err, coldstore.ErrIntegrity) {
		r.giveBack(b.data)
		return err
	}
	r.curID.leaf++
	if err != nil || !r.right(b) {
		// Once more, on a connection of its own: it may have gone wrong on the way. And where the store holds the hash of
		// all of a request against the service's, it may be another block that is wrong.
		c := newCursor(r.s, r.rs[id.r], start, end, r.o)
		err = r.readBlock(b, c)
		c.close()
		if errors.Is(err, coldstore.ErrIntegrity) && !errors.As(err, new(syscall.Errno)) && r.judged(b) {
			err = r.readHalves(b, err)
		}
		if err != nil {
			r.giveBack(b.data)
			return err
		}
		if !r.right(b) && !r.reported[id.leaf] {
			r.reported[id.leaf] = true
			if r.damaged != nil {
				r.damaged(Damage{Archive: r.v.Archive, Offset: start, Size: end - start})
			}
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.blocks = append(r.blocks, b)
	if last := (r.v.Size - 1) / treehash.LeafSize; id.leaf == 0 || id.leaf == last {
		r.seen[id.leaf] = true
	}
	return nil
}

func (r *ReaderAt) readBlock(b *block, c *cursor) error {
	for n := 0; n < len(b.data); {
		k, err := c.read(r.ctx, b.data[n:])
		n += k
		if err != nil && n < len(b.data) {
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			if c == r.cur {
				c.close()
				r.cur = nil
			}
			return err
		}
	}
	return nil
}

// readHalves reads a block that the store withholds because it is not what was stored: of a part of a leaf no store has a hash. What
// is around the damage is worth having, and the manifest's hash tells that there is some. why is what is wrong with the block.
func (r *ReaderAt) readHalves(b *block, why error) error {
	half := len(b.data) / 2
	if half == 0 {
		return why
	}
	from := b.off
	for _, data := range [][]byte{b.data[:half], b.data[half:]} {
		c := newCursor(r.s, r.rs[b.r], from, from+int64(len(data)), r.o)
		err := r.readBlock(&block{data: data}, c)
		c.close()
		if err != nil {
			return err
		}
		from += int64(len(data))
	}
	return nil
}

// judged says that the manifest gives a block's hash.
func (r *ReaderAt) judged(b *block) bool {
	return b.leaf < int64(len(r.v.Leaves)) && r.wholeLeaf(b.leaf, b.off, b.off+int64(len(b.data)))
}

// right says that a block has the hash that the manifest gives, if it gives one.
func (r *ReaderAt) right(b *block) bool {
	return !r.judged(b) || treehash.Sum(b.data) == r.v.Leaves[b.leaf]
}

// connect returns a cursor that stands at start of block id: the open one, if it does.
func (r *ReaderAt) connect(id blockID, start int64) *cursor {
	rg := r.rs[id.r].Range
	sequential := r.curID == id && start > rg.Offset
	if r.cur != nil && sequential && r.cur.off == start && r.cur.off < r.cur.end {
		return r.cur
	}
	if r.cur != nil {
		r.cur.close()
	}
	end := rg.Offset + rg.Size
	if r.whole(id.r) {
		if sequential {
			r.request = min(r.request*2, maxRequest)
		} else {
			r.request = treehash.LeafSize
		}
		end = min(end, start+r.request)
	}
	r.cur = newCursor(r.s, r.rs[id.r], start, end, r.o)
	r.curID = id
	return r.cur
}

// buffer returns room for a block; the block used longest ago makes it when there are enough.
// fetch is held, so at most one buffer is in no block.
func (r *ReaderAt) buffer() []byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	if n := len(r.spare); n > 0 {
		b := r.spare[n-1]
		r.spare = r.spare[:n-1]
		return b
	}
	if len(r.blocks) >= maxBlocks {
		b := r.blocks[0].data
		r.blocks = append(r.blocks[:0], r.blocks[1:]...)
		return b[:cap(b)]
	}
	return make([]byte, min(treehash.LeafSize, max(r.v.Size, 1)))
}

func (r *ReaderAt) giveBack(b []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.spare = append(r.spare, b[:cap(b)])
}

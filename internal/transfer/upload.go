package transfer

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"

	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/treehash"
)

var (
	errEnded   = errors.New("upload was ended already")
	errGivenUp = errors.New("upload was given up")

	// ErrOtherParts says that an upload that was to go on (Options.Continue) has other bytes than those that come.
	ErrOtherParts = errors.New("the upload's parts have other bytes")
)

// Upload is one archive being uploaded. One goroutine writes.
type Upload struct {
	s    coldstore.Uploader
	a    coldstore.NewArchive
	o    Options
	pool *Pool

	ctx    context.Context // of the parts; its cause is the first error
	cancel context.CancelCauseFunc
	wg     sync.WaitGroup
	slots  chan struct{} // one for each part in flight

	id       string                  // empty until the upload is begun
	whole    coldstore.WholeUploader // set while one request may do; nil: parts are sent
	partSize int64
	maxParts int64
	traits   coldstore.Traits
	parts    int    // sent on their way
	part     []byte // being filled
	lent     bool   // part is the pool's
	size     int64  // of the parts sent on their way
	ended    bool   // nothing more is taken: Complete or Abort was called
	settled  bool   // Abort has nothing to do in the store: completed, given up, or perhaps completed

	have map[int64]coldstore.Part // by offset: what is there of an upload that goes on

	mu     sync.Mutex
	leaves [][]treehash.Hash // by part
}

// NewUpload begins an upload; nothing is sent before the first bytes. ctx is that of
// the parts. Complete or Abort must be called once, or ctx be done.
//
// If s tells Traits (as every store does), part sizes and the number of parts are held
// against them.
func NewUpload(ctx context.Context, s coldstore.Uploader, a coldstore.NewArchive, o Options) *Upload {
	u := &Upload{s: s, a: a, o: o.withDefaults(), pool: o.Pool}
	if u.pool == nil {
		u.pool = NewPool(u.o.Parallel + 1)
	}
	u.slots = make(chan struct{}, u.o.Parallel)
	u.ctx, u.cancel = context.WithCancelCause(ctx)
	return u
}

// Write adds bytes to the archive. It blocks while as many parts are in flight as
// may be, and returns the first error of any part.
func (u *Upload) Write(p []byte) (int, error) {
	if u.ended {
		return 0, errEnded
	}
	written := 0
	for len(p) > 0 {
		if err := u.err(); err != nil {
			return written, err
		}
		if u.partSize == 0 {
			if err := u.prepare(); err != nil {
				u.cancel(err)
				return written, err
			}
		}
		if !u.lent {
			if err := u.room(); err != nil {
				return written, err
			}
			b, err := u.pool.get(u.ctx)
			if err != nil {
				return written, err
			}
			u.part, u.lent = b, true
		}
		var n int
		_, full := u.traits.PartAt(u.partSize, u.parts)
		u.part, n = fill(u.part, p, full)
		p = p[n:]
		written += n
		if int64(len(u.part)) == full {
			if err := u.send(); err != nil {
				return written, err
			}
		}
	}
	return written, nil
}

func (u *Upload) err() error {
	if u.ctx.Err() == nil {
		return nil
	}
	return context.Cause(u.ctx)
}

// prepare finds out the size of parts, and begins the upload in the store, unless it may come to be one request.
func (u *Upload) prepare() error {
	var t coldstore.Traits
	if l, ok := u.s.(interface{ Traits() coldstore.Traits }); ok {
		t = l.Traits()
	}
	var err error
	u.traits = t
	if u.partSize, err = partSize(u.o, t); err != nil {
		return u.named(err)
	}
	u.maxParts = math.MaxInt64
	if t.MaxParts > 0 {
		u.maxParts = int64(t.MaxParts)
	}
	if up := u.o.Continue; up != nil {
		Learn(u.s, *up)
		u.id, u.partSize, u.have = up.ID, up.PartSize, map[int64]coldstore.Part{}
		for _, p := range u.o.Have {
			u.have[p.Offset] = p
		}
		return nil
	}
	if w, ok := u.s.(coldstore.WholeUploader); ok && u.a.Name != "" && u.o.Begun == nil {
		u.whole = w
		return nil
	}
	return u.create()
}

// Learn tells a store of an upload that another process began and that is going on, where the store needs to be told.
func Learn(s coldstore.Uploader, u coldstore.Upload) {
	if l, ok := s.(coldstore.UploadLearner); ok {
		l.LearnUpload(u)
	}
}

// create begins the upload in the store.
func (u *Upload) create() error {
	return retry(u.ctx, u.o, func() error {
		up, err := u.s.CreateUpload(u.ctx, u.a, u.partSize)
		if err != nil {
			return err // which names what was to be begun
		}
		if up.ID == "" {
			return fmt.Errorf("begin upload of %s: the store gave the upload no id", u.what())
		}
		u.id = up.ID
		if u.o.Begun != nil {
			up.PartSize, up.NewArchive = u.partSize, u.a
			return u.o.Begun(up)
		}
		return nil
	})
}

// room says whether one more part may begin.
func (u *Upload) room() error {
	if int64(u.parts) < u.maxParts {
		return nil
	}
	err := fmt.Errorf("upload %s: more than %d parts of %d bytes, which is all the store takes; use larger parts (Options.PartSize): %w",
		u.what(), u.maxParts, u.partSize, coldstore.ErrInvalid)
	u.cancel(err)
	return err
}

// PartSize is the size of parts, in bytes, that an upload with o to a store with t has. coldstore.ErrInvalid: the store
// does not take o.PartSize.
func PartSize(o Options, t coldstore.Traits) (int64, error) { return partSize(o, t) }

// partSize finds the size of parts, in bytes.
func partSize(o Options, t coldstore.Traits) (int64, error) {
	most := int64(4 << 30)
	if t.MaxPart > 0 {
		most = t.MaxPart
	}
	if size := o.PartSize; size != 0 {
		if size < mib || size&(size-1) != 0 {
			return 0, fmt.Errorf("part size of %d bytes is not a power of two of MiBs (Options.PartSize): %w", size, coldstore.ErrInvalid)
		}
		if size < t.MinPart || size > most {
			return 0, fmt.Errorf("part size of %d bytes, and the store takes %d to %d (Options.PartSize): %w", size, t.MinPart, most, coldstore.ErrInvalid)
		}
		return size, nil
	}
	size := int64(DefaultPartSize)
	for size < t.MinPart || (t.MaxParts > 0 && (o.Expect-1)/size+1 > int64(t.MaxParts) && size*2 <= most) {
		size *= 2
	}
	for size > most && size > mib {
		size /= 2
	}
	return size, nil
}

// what names the archive in errors.
func (u *Upload) what() string {
	if u.a.Name != "" {
		return u.a.Name
	}
	return fmt.Sprintf("%q", u.a.Description)
}

// named says which archive an error concerns. A store's errors say what was asked of it, and of which upload; an
// upload's id tells people nothing.
func (u *Upload) named(err error) error { return fmt.Errorf("upload %s: %w", u.what(), err) }

// send sends the part that is filled on its way. It waits for a slot.
func (u *Upload) send() error {
	if u.id == "" {
		if err := u.create(); err != nil {
			u.cancel(err)
			return err
		}
	}
	select {
	case u.slots <- struct{}{}:
	case <-u.ctx.Done():
		return context.Cause(u.ctx)
	}
	data, off, i := u.part, u.size, u.parts
	u.parts++
	u.part, u.lent = nil, false
	u.size += int64(len(data))
	u.wg.Go(func() {
		defer func() {
			u.pool.put(data)
			<-u.slots
		}()
		if err := u.put(i, off, data); err != nil {
			u.cancel(err)
		}
	})
	return nil
}

// put stores part i.
func (u *Upload) put(i int, off int64, data []byte) error {
	var leaves []treehash.Hash
	var send func() error
	have, there := u.have[off]
	if there = there && u.comparable(have); there {
		leaves = treehash.Leaves(data)
		send = func() error {
			if have.Size != int64(len(data)) || !u.same(have, data, leaves) {
				return ErrOtherParts
			}
			return nil
		}
	} else if hashing := u.hashing(); hashing != nil {
		send = func() (err error) {
			if err := u.o.Limit.Wait(u.ctx, len(data)); err != nil {
				return err
			}
			leaves, err = hashing(u.ctx, u.id, off, data)
			return err
		}
	} else {
		leaves = treehash.Leaves(data)
		hash := treehash.Combine(leaves)
		send = func() error { return putPart(u.ctx, u.s, u.id, off, data, hash, u.o.Limit) }
	}
	err := retry(u.ctx, u.o, func() error {
		if err := send(); err != nil {
			return u.named(err)
		}
		return nil
	})
	if err != nil {
		return err
	}
	u.mu.Lock()
	for len(u.leaves) <= i {
		u.leaves = append(u.leaves, nil)
	}
	u.leaves[i] = leaves
	u.mu.Unlock()
	if u.o.Sent != nil && !there {
		u.o.Sent(int64(len(data)))
	}
	return nil
}

// comparable says whether a part that is there tells enough of itself; one that does not is sent again.
func (u *Upload) comparable(have coldstore.Part) bool {
	_, ok := u.s.(coldstore.PartSummer)
	return !have.TreeHash.IsZero() || ok && have.Sum != ""
}

// same says that a part that is there has those bytes.
func (u *Upload) same(have coldstore.Part, data []byte, leaves []treehash.Hash) bool {
	if !have.TreeHash.IsZero() {
		return have.TreeHash == treehash.Combine(leaves)
	}
	return have.Sum == u.s.(coldstore.PartSummer).SumPart(data)
}

// hashing is how the store puts a part that it hashes itself; nil: it does not.
func (u *Upload) hashing() func(context.Context, string, int64, []byte) ([]treehash.Hash, error) {
	if d, ok := u.s.(coldstore.PartDeferrer); ok && u.o.Deferred {
		return d.PutPartDeferred
	}
	if h, ok := u.s.(coldstore.PartHasher); ok {
		return h.PutPartHashing
	}
	return nil
}

// flush makes the parts last that were put as they need not each.
func (u *Upload) flush(ctx context.Context) error {
	d, ok := u.s.(coldstore.PartDeferrer)
	if !ok || !u.o.Deferred {
		return nil
	}
	return retry(ctx, u.o, func() error {
		if err := d.FlushParts(ctx, u.id); err != nil {
			return u.named(err)
		}
		return nil
	})
}

// Complete sends the last part, calls before (if not nil) with what is about to be completed, and
// completes. The archive is stored when it returns without error. When it fails, Abort gives the parts up, but not when
// completion was tried and may have happened (coldstore.ErrInDoubt and the like): then before has what Settle needs.
func (u *Upload) Complete(ctx context.Context, before func(Pending) error) (coldstore.Archive, error) {
	if u.ended {
		return coldstore.Archive{}, errEnded
	}
	defer u.end(errEnded)
	if u.whole != nil && u.id == "" && len(u.part) > 0 && int64(len(u.part)) <= u.whole.MaxWhole() {
		return u.putWhole(ctx, before)
	}
	p, err := u.sendLast(ctx)
	if err != nil {
		return coldstore.Archive{}, err
	}
	if before != nil {
		if err := before(p); err != nil {
			return coldstore.Archive{}, err
		}
	}
	a, err := complete(ctx, u.s, p, u.o)
	if err != nil {
		u.settled = unsettled(ctx, err)
		return coldstore.Archive{}, u.named(err)
	}
	u.settled = true
	return a, nil
}

// putWhole stores what there is with one request. An upload it is not, so that Settle finds it by its name.
func (u *Upload) putWhole(ctx context.Context, before func(Pending) error) (coldstore.Archive, error) {
	if err := u.err(); err != nil {
		return coldstore.Archive{}, err
	}
	p := Pending{Name: u.a.Name, Size: int64(len(u.part)), Leaves: treehash.Leaves(u.part)}
	p.TreeHash = treehash.Combine(p.Leaves)
	if before != nil {
		if err := before(p); err != nil {
			return coldstore.Archive{}, err
		}
	}
	var wait func(int) error
	if u.o.Limit != nil {
		wait = func(n int) error { return u.o.Limit.Wait(ctx, n) }
	}
	var a coldstore.Archive
	err := retry(ctx, u.o, func() (err error) {
		a, err = u.whole.PutWhole(ctx, u.a, u.part, p.TreeHash, wait)
		return err
	})
	if err != nil {
		return coldstore.Archive{}, err // it names the archive
	}
	if u.o.Sent != nil {
		u.o.Sent(p.Size)
	}
	return a, nil
}

// sendLast sends the last part and waits for all.
func (u *Upload) sendLast(ctx context.Context) (Pending, error) {
	if err := u.err(); err != nil {
		return Pending{}, err
	}
	// The parts still to come belong to ctx as well.
	stop := context.AfterFunc(ctx, func() { u.cancel(context.Cause(ctx)) })
	defer stop()
	if len(u.part) > 0 {
		if err := u.send(); err != nil {
			return Pending{}, err
		}
	}
	if u.size == 0 {
		return Pending{}, fmt.Errorf("upload %s: no bytes came: %w", u.what(), coldstore.ErrInvalid)
	}
	u.wg.Wait()
	if err := u.err(); err != nil {
		return Pending{}, err
	}
	if err := u.flush(u.ctx); err != nil {
		return Pending{}, err
	}
	p := Pending{UploadID: u.id, Name: u.a.Name, Size: u.size}
	for _, l := range u.leaves {
		p.Leaves = append(p.Leaves, l...)
	}
	p.TreeHash = treehash.Combine(p.Leaves)
	return p, nil
}

// unsettled says that a completion that ended with err may have happened.
func unsettled(ctx context.Context, err error) bool {
	return ctx.Err() != nil || Transient(err)
}

// complete completes p, and again until the answer is known.
func complete(ctx context.Context, s coldstore.Uploader, p Pending, o Options) (coldstore.Archive, error) {
	var a coldstore.Archive
	err := retry(ctx, o, func() (err error) {
		a, err = s.CompleteUpload(ctx, p.UploadID, p.Size, p.TreeHash)
		return err
	})
	if err != nil {
		return coldstore.Archive{}, err
	}
	if a.Size != p.Size || a.TreeHash != p.TreeHash {
		return coldstore.Archive{}, fmt.Errorf("the store has %d bytes of tree hash %s as archive %s, and %d of %s were sent: %w",
			a.Size, a.TreeHash, a.ID, p.Size, p.TreeHash, coldstore.ErrIntegrity)
	}
	return a, nil
}

// Abort gives the upload up. It returns when no part is on its way any more. It may be
// called at any time, also by defer: after a Complete that succeeded, or that may have, the store is left alone.
func (u *Upload) Abort(ctx context.Context) error {
	u.end(errGivenUp)
	if u.id == "" || u.settled {
		return nil
	}
	err := retry(ctx, u.o, func() error { return u.s.AbortUpload(ctx, u.id) })
	if err != nil {
		return u.named(err)
	}
	u.settled = true
	return nil
}

// Leave ends the upload and leaves its parts in the store, for a later one to go on with (Options.Continue).
func (u *Upload) Leave() { u.end(errGivenUp) }

// end stops what is on its way and gives all buffers back.
func (u *Upload) end(err error) {
	u.ended = true
	u.cancel(err)
	u.wg.Wait()
	if u.lent {
		u.pool.put(u.part)
		u.part, u.lent = nil, false
	}
}

// putPart stores a part at the limiter's rate: as it goes over the line where the store can do that, else before.
func putPart(ctx context.Context, s coldstore.Uploader, id string, off int64, data []byte, hash treehash.Hash, l *Limiter) error {
	if p, ok := s.(coldstore.PacedUploader); ok && l != nil {
		return p.PutPartPaced(ctx, id, off, data, hash, func(n int) error { return l.Wait(ctx, n) })
	}
	if err := l.Wait(ctx, len(data)); err != nil {
		return err
	}
	return s.PutPart(ctx, id, off, data, hash)
}

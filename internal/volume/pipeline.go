package volume

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"hash"
	"sync"
	"sync/atomic"

	"github.com/firn-backup/firn/internal/codec"
)

// A job is one frame on its way. Its buffers are used again.
type job struct {
	raw    []byte
	packed []byte
	done   chan struct{} // gets one value when packed is ready; room for one
	users  atomic.Int32  // stages that still need the buffers
}

// A step is what the stages that work in order get: a frame, or, with a nil
// job, the end of a volume.
type step struct {
	job *job
	sum chan [sha256.Size]byte // of the volume's end when the raw bytes are hashed; room for one
}

// A pipeline carries frames from the writing goroutine through the workers,
// any order, to the output goroutine, in order again. What is in flight is
// bounded by the number of jobs; whoever needs one waits for it.
type pipeline struct {
	o      Options
	parent context.Context
	ctx    context.Context // done when a stage has failed; its cause is the first error
	fail   context.CancelCauseFunc

	// Of the writing goroutine.
	jobs    int // made so far
	workers int // started so far

	free  chan *job
	work  chan *job
	order chan step
	sums  chan step // nil unless raw bytes are hashed
	wg    sync.WaitGroup

	complete bool // set by the output goroutine: every volume is stored
}

// Beside the frames that the workers have, one is being filled, one is being
// sent, and one waits so that neither stops the workers.
const spareJobs = 3

func newPipeline(parent context.Context, o Options) *pipeline {
	p := &pipeline{o: o, parent: parent}
	p.ctx, p.fail = context.WithCancelCause(parent)
	limit := o.Workers + spareJobs
	p.free = make(chan *job, limit)
	p.work = make(chan *job, limit)
	p.order = make(chan step, 2*limit)
	if o.HashRaw {
		p.sums = make(chan step, 2*limit)
	}
	return p
}

// err is the first error of any stage.
func (p *pipeline) err() error {
	if p.ctx.Err() == nil {
		return nil
	}
	return context.Cause(p.ctx)
}

// take waits for a job with empty buffers.
func (p *pipeline) take() (*job, error) {
	select {
	case j := <-p.free:
		return j, nil
	default:
	}
	if p.jobs < p.o.Workers+spareJobs {
		p.jobs++
		// What does not compress takes a little more than it had; a buffer that grows is copied each time.
		return &job{
			raw: make([]byte, 0, p.o.FrameSize), packed: make([]byte, 0, p.o.FrameSize+p.o.FrameSize/128+4<<10),
			done: make(chan struct{}, 1),
		}, nil
	}
	select {
	case j := <-p.free:
		return j, nil
	case <-p.ctx.Done():
		return nil, context.Cause(p.ctx)
	}
}

// release gives a job back when its last user is done with it.
func (p *pipeline) release(j *job) {
	if j.users.Add(-1) > 0 {
		return
	}
	j.raw, j.packed = j.raw[:0], j.packed[:0]
	p.free <- j // never blocks: there is room for every job
}

// submit sends a filled job to the workers and puts it in order.
func (p *pipeline) submit(j *job) error {
	p.start()
	users := int32(1)
	if p.sums != nil {
		users++
	}
	j.users.Store(users)
	select {
	case p.work <- j:
	case <-p.ctx.Done():
		return context.Cause(p.ctx)
	}
	return p.send(step{job: j})
}

func (p *pipeline) endVolume() error {
	s := step{}
	if p.sums != nil {
		s.sum = make(chan [sha256.Size]byte, 1)
	}
	return p.send(s)
}

func (p *pipeline) send(s step) error {
	if p.sums != nil {
		select {
		case p.sums <- s:
		case <-p.ctx.Done():
			return context.Cause(p.ctx)
		}
	}
	select {
	case p.order <- s:
		return nil
	case <-p.ctx.Done():
		return context.Cause(p.ctx)
	}
}

// start starts the stages with the first frame, and one worker more with each
// frame up to their number, so that little data needs few coders.
func (p *pipeline) start() {
	if p.workers == 0 {
		p.wg.Go(p.output)
		if p.sums != nil {
			p.wg.Go(p.hash)
		}
	}
	if p.workers < p.o.Workers {
		p.workers++
		p.wg.Go(p.worker)
	}
}

// wait ends the pipeline: with a nil err when what was submitted is stored,
// otherwise by stopping all stages. It returns the first error.
func (p *pipeline) wait(err error) error {
	if err != nil {
		p.fail(err)
	}
	close(p.work)
	close(p.order)
	if p.sums != nil {
		close(p.sums)
	}
	p.wg.Wait()
	first := p.err()
	p.fail(nil) // releases the context; nothing is left to stop
	if p.complete {
		return nil // what came too late to stop it does not count
	}
	return first
}

// worker compresses frames, and decodes and compares them.
func (p *pipeline) worker() {
	w := &packer{p: p}
	defer w.close()
	for {
		select {
		case j, ok := <-p.work:
			if !ok {
				return
			}
			if err := w.pack(j); err != nil {
				p.fail(fmt.Errorf("compress a frame with %s: %w", p.o.Compress.Name(), err))
				return
			}
			j.done <- struct{}{}
		case <-p.ctx.Done():
			return
		}
	}
}

// A packer is one worker's coders.
type packer struct {
	p       *pipeline
	enc     codec.FrameEncoder
	dec     codec.FrameDecoder
	scratch []byte
}

func (w *packer) pack(j *job) (err error) {
	if w.enc == nil {
		if w.enc, err = w.p.o.Compress.NewEncoder(); err != nil {
			return err
		}
	}
	if j.packed, err = w.enc.EncodeFrame(j.packed[:0], j.raw); err != nil {
		return err
	}
	if w.p.o.NoVerify {
		return nil
	}
	if w.dec == nil {
		if w.dec, err = w.p.o.Compress.NewDecoder(); err != nil {
			return err
		}
	}
	if w.scratch, err = w.dec.DecodeFrame(w.scratch[:0], j.packed, int64(len(j.raw))); err != nil {
		return fmt.Errorf("what it made does not decode: %w", err)
	}
	if !bytes.Equal(w.scratch, j.raw) {
		return fmt.Errorf("what it made decodes to other bytes: %w", codec.ErrDamaged)
	}
	return nil
}

// close releases the coders. Their errors do not matter: each frame that was
// sent had been returned whole.
func (w *packer) close() {
	if w.enc != nil {
		_ = w.enc.Close()
	}
	if w.dec != nil {
		_ = w.dec.Close()
	}
}

// hash computes the volumes' raw SHA-256.
func (p *pipeline) hash() {
	var h hash.Hash = sha256.New()
	for {
		select {
		case s, ok := <-p.sums:
			switch {
			case !ok:
				return
			case s.job == nil:
				s.sum <- [sha256.Size]byte(h.Sum(nil))
				h.Reset()
			default:
				h.Write(s.job.raw)
				p.release(s.job)
			}
		case <-p.ctx.Done():
			return
		}
	}
}

// output encrypts frames in order into the volumes' sinks.
func (p *pipeline) output() {
	n := p.o.First
	var out *outlet
	defer func() {
		if out != nil {
			out.abort(p.parent)
		}
	}()
	for {
		var s step
		var ok bool
		select {
		case s, ok = <-p.order:
			if !ok {
				p.complete = out == nil
				return
			}
		case <-p.ctx.Done():
			return
		}
		var err error
		if s.job != nil {
			if out == nil {
				out, err = openOutlet(p.ctx, p.o, n)
			}
			if err == nil {
				err = p.outputFrame(out, s.job)
			}
		} else {
			full := out
			out, n = nil, n+1
			err = p.finish(full, s)
		}
		if err != nil {
			p.fail(err)
			return
		}
	}
}

func (p *pipeline) outputFrame(out *outlet, j *job) error {
	select {
	case <-j.done:
	case <-p.ctx.Done():
		return context.Cause(p.ctx)
	}
	err := out.frame(j)
	p.release(j)
	return err
}

func (p *pipeline) finish(out *outlet, s step) error {
	if s.sum != nil {
		select {
		case sum := <-s.sum:
			out.v.RawSHA256 = (*[32]byte)(&sum)
		case <-p.ctx.Done():
			out.abort(p.parent)
			return context.Cause(p.ctx)
		}
	}
	return out.finish(p.ctx, p.parent)
}

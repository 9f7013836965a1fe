package backup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"sync/atomic"

	"github.com/firn-backup/firn/internal/catalog"
	"github.com/firn-backup/firn/internal/snapshot"
	"github.com/firn-backup/firn/internal/source"
	"github.com/firn-backup/firn/internal/tarstream"
	"github.com/firn-backup/firn/internal/volume"
)

// recorder is where entries are recorded: the catalog, or nowhere in a dry run.
type recorder interface {
	Put(context.Context, *snapshot.Entry) error
	Refresh(context.Context, *snapshot.Entry) error
	Delete(context.Context, string) error
	Problem(context.Context, snapshot.Problem) error
}

// stats are the sums of a run; those of the writing goroutine need no lock.
type stats struct {
	counts   Counts
	problems int64
	tree     tally
	sent     atomic.Int64
	raw      atomic.Int64
	volumes  atomic.Int64
}

// stream stores the volumes: all that is new or changed.
func (r *run) stream(ctx context.Context) error {
	st, err := decodeState(r.check)
	if err != nil {
		return err
	}
	if st.Ended {
		return nil
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	cks := &checkpoints{}
	em := &emitter{r: r, ctx: ctx, rec: r.rec, size: r.volumeSize(), n: r.snap.N, cks: cks, links: newLinks(r)}
	em.lastPath, em.started = r.check.Path, r.check.Started
	em.w = volume.NewWriter(ctx, volume.Options{
		Size: r.o.VolumeSize, FrameSize: r.o.FrameSize, First: r.check.Volume + 1, Workers: r.o.Workers,
		NoVerify: r.o.NoVerify, Compress: r.o.Compress, Encrypt: r.o.Encrypt,
		Open: r.openVolume(cks), OnCut: em.cut,
	})
	em.wrote = r.check.Volume > 0
	if err := r.produce(ctx, cancel, em, st); err != nil {
		em.w.Abort()
		return err
	}
	if err := em.end(); err != nil {
		em.w.Abort()
		return err
	}
	return em.w.Close()
}

// produce walks, compares, reads and emits.
func (r *run) produce(ctx context.Context, cancel context.CancelCauseFunc, em *emitter, st fileState) error {
	l := newLoader(r.o.Tree, r.o.Wall, r.o.Readers)
	em.load = l
	jobs := make(chan *job, aheadJobs)
	m := &merger{checksum: r.o.Checksum, emit: func(ctx context.Context, j *job) error {
		if j.kind == jobStore {
			if err := l.add(ctx, j); err != nil {
				return err
			}
		}
		select {
		case jobs <- j:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}}
	m.from, m.started, m.inFile = r.check.Path, r.check.Started, r.check.InFile
	m.pass = func(t tally) { r.o.Observe.Entry(Unchanged, "", t.entries, t.bytes) }
	walked := make(chan error, 1)
	go func() {
		err := r.compareAll(ctx, m)
		close(jobs)
		walked <- err
	}()
	err := em.run(jobs, st)
	if err != nil {
		cancel(err)
		for j := range jobs {
			if j.done != nil {
				<-j.done
			}
		}
	}
	werr := <-walked
	l.stop()
	if err == nil {
		err = werr
	}
	if err == nil && r.base != nil {
		r.res.Shrunk = shrunk(m.seen, r.base.Totals)
	}
	r.stats.tree = m.seen
	r.stats.counts.Unchanged = m.same.entries
	return err
}

// compareAll runs the walk through the merger.
func (r *run) compareAll(ctx context.Context, m *merger) error {
	if r.base != nil {
		rows, err := r.o.Catalog.Rows(ctx, r.base.ID, r.check.Path)
		if err != nil {
			return err
		}
		defer rows.Close()
		m.rows = rows
	}
	if err := m.start(ctx); err != nil {
		return err
	}
	for _, p := range r.o.Paths {
		m.bare = append(m.bare, strings.TrimPrefix(p, "/"))
	}
	err := r.o.Tree.Walk(ctx, func(items []source.Item) error { return m.batch(ctx, items) })
	if err == nil {
		err = r.emptied(ctx, m.bare)
	}
	if err != nil {
		return err
	}
	return m.finish(ctx)
}

// ErrEmptied says that a directory that a set names is empty and was not when
// it was backed up last: what a file system that is not mounted looks like.
var ErrEmptied = errors.New("is empty, and was not at the last snapshot: is it not mounted?")

// emptied finds, among the roots below which there is nothing, one below which the base has something.
func (r *run) emptied(ctx context.Context, bare []string) error {
	if r.base == nil || r.o.AllowEmpty {
		return nil
	}
	for _, root := range bare {
		err := r.o.Catalog.Entries(ctx, r.base.ID, catalog.Query{Under: []string{root}}, func(e snapshot.Entry) error {
			if e.Path != root {
				return fmt.Errorf("/%s %w", root, ErrEmptied)
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func shrunk(now tally, was catalog.Totals) bool {
	return was.Entries >= 10 && now.entries < was.Entries/2 || was.Bytes >= 1<<20 && now.bytes < was.Bytes/2
}

// emitter writes the stream, in one goroutine, and records entries as their
// stream is written.
type emitter struct {
	r     *run
	ctx   context.Context
	rec   recorder
	w     *volume.Writer
	load  *loader
	links *links
	size  int64 // raw bytes a volume; negative: never cut
	n     uint64
	cks   *checkpoints

	lastPath string // all up to it is recorded
	started  bool
	wrote    bool // the stream has bytes
	member   *member
	redo     *fileState // a path whose copy was filled up and that has yet to be dealt with
	header   []byte
}

func (em *emitter) run(jobs <-chan *job, st fileState) error {
	if st.InFile {
		first, ok := <-jobs
		// A problem or a deletion may come before the file, or the file may be gone.
		took, err := em.goOn(first, ok, st)
		if err != nil {
			return err
		}
		if ok && !took {
			if err := em.job(first); err != nil {
				return err
			}
		}
	}
	for j := range jobs {
		if err := em.job(j); err != nil {
			return err
		}
	}
	return nil
}

func (em *emitter) job(j *job) error {
	if j.done != nil {
		select {
		case <-j.done:
		case <-em.ctx.Done():
			<-j.done
			return context.Cause(em.ctx)
		}
		defer em.load.release(j)
	}
	if err := em.one(j); err != nil {
		return err
	}
	if !em.started || snapshot.ComparePaths(j.entry.Path, em.lastPath) > 0 {
		em.lastPath, em.started = j.entry.Path, true
	}
	em.redo = nil
	return nil
}

func (em *emitter) one(j *job) error {
	switch {
	case j.kind == jobDelete:
		em.count(Deleted, &j.entry)
		return em.rec.Delete(em.ctx, j.entry.Path)
	case j.kind == jobProblem:
		return em.problem(j.entry.Path, j.reason)
	case j.err != nil:
		return em.failed(j)
	case j.entry.Type == snapshot.File:
		return em.file(j)
	default:
		return em.special(j)
	}
}

// failed records an entry that could not be read: what the base has of it stays, unless it is gone.
func (em *emitter) failed(j *job) error {
	if errors.Is(j.err, fs.ErrNotExist) && j.old != nil {
		if err := em.rec.Delete(em.ctx, j.entry.Path); err != nil {
			return err
		}
		em.count(Deleted, &j.entry)
	}
	return em.problem(j.entry.Path, reason(j.err))
}

func (em *emitter) problem(path, why string) error {
	p := snapshot.Problem{Path: path, Reason: why}
	em.r.stats.problems++
	em.r.o.Observe.Problem(p)
	return em.rec.Problem(em.ctx, p)
}

// special emits what has no content: directories, links, devices.
func (em *emitter) special(j *job) error {
	e := &j.entry
	if j.old != nil && sameEntry(e, j.old) {
		em.count(Unchanged, e)
		return em.rec.Refresh(em.ctx, e)
	}
	linkTo := ""
	if lead, ok, err := em.links.leader(em.ctx, e); err != nil {
		return err
	} else if ok {
		linkTo = lead.path
	}
	if err := em.begin(e, 0, false, linkTo); err != nil {
		return err
	}
	em.member = nil
	if linkTo == "" {
		em.links.add(e)
	}
	action := j.action
	if action == Changed {
		action = Metadata
	}
	em.count(action, e)
	return em.rec.Put(em.ctx, e)
}

func (em *emitter) count(a Action, e *snapshot.Entry) {
	c := &em.r.stats.counts
	switch a {
	case New:
		c.New++
		c.Bytes += e.Size
	case Changed:
		c.Changed++
		c.Bytes += e.Size
	case Metadata:
		c.Metadata++
	case Deleted:
		c.Deleted++
	}
	em.r.o.Observe.Entry(a, e.Path, 1, e.Size)
}

// end closes the tar stream, if it has any members, and sets the last volume's checkpoint.
func (em *emitter) end() error {
	k := catalog.Checkpoint{Path: em.lastPath, Started: em.started, State: encodeState(fileState{Ended: true})}
	if !em.wrote {
		return nil
	}
	if err := em.w.Boundary(int64(len(tarstream.Trailer))); err != nil {
		return err
	}
	if err := em.raw(tarstream.Trailer[:]); err != nil {
		return err
	}
	last, off := em.w.Pos()
	if off == 0 {
		last-- // the trailer filled its volume
	}
	em.cks.put(last, k)
	return nil
}

// raw writes to the stream without ever crossing a volume's end within one
// Write, so that a cut always finds the emitter's state up to date.
func (em *emitter) raw(p []byte) error {
	for len(p) > 0 {
		n := len(p)
		if em.size > 0 {
			_, off := em.w.Pos()
			n = int(min(int64(n), em.size-off))
		}
		if _, err := em.w.Write(p[:n]); err != nil {
			return err
		}
		em.passed(n)
		p = p[n:]
	}
	return nil
}

// passed counts n bytes that are in the stream.
func (em *emitter) passed(n int) {
	em.wrote = true
	if em.member != nil {
		em.member.written += int64(n)
	}
	em.r.o.Observe.Read(int64(n))
}

// begin writes a member's header.
func (em *emitter) begin(e *snapshot.Entry, stored int64, sparse bool, linkTo string) error {
	var err error
	em.header, err = tarstream.AppendHeader(em.header[:0], e, stored, sparse, linkTo)
	if err != nil {
		return fmt.Errorf("tar header of %s: %w", e.Path, err)
	}
	if err := em.w.Boundary(int64(len(em.header)) + stored + int64(tarstream.Padding(stored))); err != nil {
		return err
	}
	em.member = &member{entry: e, stored: stored, sparse: sparse, head: em.header}
	return em.raw(em.header)
}

package backup

import (
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"io/fs"
	"sync"
	"syscall"
	"time"

	"github.com/firn-backup/firn/internal/snapshot"
	"github.com/firn-backup/firn/internal/source"
	"golang.org/x/sync/semaphore"
)

const (
	// smallFile is the greatest stored size, in bytes, of files that are read ahead whole.
	smallFile = 1 << 20
	// aheadBytes bounds the memory of what is read ahead.
	aheadBytes = 8 << 20
	// aheadJobs bounds how many entries are under way between comparison and stream.
	aheadJobs = 512
	// racy is how young a change may be for a later one not to show in the times.
	racy = 50 * time.Millisecond
)

type jobKind int

const (
	jobStore jobKind = iota // new, or changed as far as its times tell
	jobDelete
	jobProblem
)

// job is one entry on its way from comparison to stream.
type job struct {
	kind   jobKind
	action Action
	entry  snapshot.Entry
	old    *snapshot.Entry // what the base has under this path
	reason string          // of a problem

	// The loader fills in:
	done   chan struct{} // closed when loaded; nil: nothing to load
	err    error         // why the entry cannot be stored
	buf    []byte        // what data lies in, to be used again
	data   []byte
	sparse bool
	sum    [32]byte
	same   bool  // the content is that of old
	warn   error // what is wrong with data
	weight int64
}

// loader reads entries ahead, several at a time, in bounded memory; what is
// loaded is used in order.
type loader struct {
	tree    source.Tree
	wall    func() time.Time
	work    chan *job
	ahead   *semaphore.Weighted
	idle    [len(bufferSizes)]chan []byte // buffers not in use, by size
	workers sync.WaitGroup
}

// bufferSizes are the sizes in bytes of the buffers that small files are read
// into. (A sync.Pool would lose them at every collection, of which there are many when memory is scarce.)
var bufferSizes = [...]int64{64 << 10, 256 << 10, smallFile}

// bufferClass is the class of buffers for size bytes; -1: there is none so large.
func bufferClass(size int64) int {
	for i, n := range bufferSizes {
		if size <= n {
			return i
		}
	}
	return -1
}

func newLoader(tree source.Tree, wall func() time.Time, n int) *loader {
	l := &loader{tree: tree, wall: wall, work: make(chan *job, aheadJobs), ahead: semaphore.NewWeighted(aheadBytes)}
	for i, n := range bufferSizes {
		l.idle[i] = make(chan []byte, aheadBytes/n)
	}
	for range n {
		l.workers.Go(func() {
			for j := range l.work {
				l.load(j)
				close(j.done)
			}
		})
	}
	return l
}

// add queues j. It must be called in stream order, by one goroutine.
func (l *loader) add(ctx context.Context, j *job) error {
	j.weight = 512
	if class := bufferClass(j.entry.Size); j.entry.Type == snapshot.File && class >= 0 {
		j.weight = bufferSizes[class]
	}
	if err := l.ahead.Acquire(ctx, j.weight); err != nil {
		return err
	}
	j.done = make(chan struct{})
	select {
	case l.work <- j:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// release gives back what a loaded job holds.
func (l *loader) release(j *job) {
	if j.buf != nil {
		select {
		case l.idle[bufferClass(int64(len(j.buf)))] <- j.buf:
		default:
		}
		j.buf, j.data = nil, nil
	}
	l.ahead.Release(j.weight)
}

func (l *loader) stop() {
	close(l.work)
	l.workers.Wait()
}

func (l *loader) load(j *job) {
	e := &j.entry
	if e.Type != snapshot.File {
		j.err = l.tree.Load(e)
		return
	}
	if err := l.loadFile(j); err != nil {
		j.err = err
	}
}

// loadFile reads a small file whole, and finds out, for one that may have the
// content it had, whether it does.
func (l *loader) loadFile(j *job) error {
	e := &j.entry
	for try := 0; ; try++ {
		now := l.wall()
		f, err := l.tree.Open(e)
		if err != nil {
			return err
		}
		err = l.readFile(j, f)
		if err2 := f.Close(); err == nil {
			err = err2
		}
		if err != nil {
			return err
		}
		if kept(j) {
			return j.warn
		}
		if j.warn != nil && j.data != nil && try < 2 {
			// It changed under our hands: a small file is soon read again.
			continue
		}
		markRacy(e, now)
		return nil
	}
}

func (l *loader) readFile(j *job, f source.File) error {
	e := &j.entry
	j.warn, j.data, j.same = nil, nil, false
	stored := f.Stored()
	j.sparse = f.Sparse()
	candidate := j.old != nil && j.old.Type == snapshot.File && j.old.Size == e.Size &&
		j.old.Content.Stored == stored && j.old.Content.Sparse == j.sparse
	switch {
	case stored == 0:
		j.sum = sha256.Sum256(nil)
		j.data = []byte{}
		j.warn = f.Check()
		j.same = candidate && (j.warn == nil || j.old.Torn)
		return nil
	case stored <= j.weight && j.weight >= bufferSizes[0]:
		if j.buf == nil {
			j.buf = l.buffer(j.weight)
		}
		j.data = j.buf[:stored]
		if _, err := io.ReadFull(f, j.data); err != nil {
			return err
		}
		j.sum = sha256.Sum256(j.data)
		j.warn = f.Check()
	case candidate:
		h := sha256.New()
		if _, err := io.CopyBuffer(onlyWriter{h}, onlyReader{f}, make([]byte, 256<<10)); err != nil {
			return err
		}
		h.Sum(j.sum[:0])
		if j.warn = f.Check(); kept(j) {
			return nil
		}
		if j.warn != nil && (!j.old.Torn || j.sum != j.old.Content.SHA256) {
			j.warn = nil
			return nil // it will be read again, and judged then
		}
	default:
		return nil // read when its turn comes
	}
	// What cannot be read right now as little as then is not stored again.
	j.same = candidate && (j.warn == nil || j.old.Torn) && j.sum == j.old.Content.SHA256
	return nil
}

// kept says that a file that was read only to be sure could not be read, and is what it was as far as its inode tells:
// what the base has of it is better than what the disk gives now.
func kept(j *job) bool {
	var no syscall.Errno
	return errors.As(j.warn, &no) && j.old != nil && !j.old.Torn && sameFile(&j.entry, j.old)
}

// buffer returns a buffer of weight bytes, which is one of bufferSizes.
func (l *loader) buffer(weight int64) []byte {
	select {
	case b := <-l.idle[bufferClass(weight)]:
		return b
	default:
		return make([]byte, weight)
	}
}

type onlyReader struct{ io.Reader }
type onlyWriter struct{ io.Writer }

// markRacy spoils the change time kept of a file that changed so shortly before it
// was read that another change might leave the same times: the next run then
// looks at its content.
func markRacy(e *snapshot.Entry, read time.Time) {
	if read.Sub(e.CTime.Time()) < racy {
		e.CTime.Nsec = -1
	}
}

// markTorn notes that the stored bytes are not the file's, and spoils the change time kept: an error of the disk leaves
// no trace in the times, and the next run is to read it again.
func markTorn(e *snapshot.Entry) {
	e.Torn = true
	e.CTime.Nsec = -1
}

// reason is an error as a problem's line: without the operation and the path,
// which stand beside it.
func reason(err error) string {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		err = pe.Err
	}
	if errors.Is(err, fs.ErrNotExist) {
		return "vanished during the backup"
	}
	var no syscall.Errno
	if errors.As(err, &no) {
		return no.Error()
	}
	return err.Error()
}

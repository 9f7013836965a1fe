package plain

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/firn-backup/firn/internal/catalog"
	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/internal/durable"
	"github.com/firn-backup/firn/internal/failure"
	"github.com/firn-backup/firn/internal/retrieval"
	"github.com/firn-backup/firn/internal/transfer"
	"github.com/firn-backup/firn/treehash"
)

// Span is a range of an archive, in bytes. The zero Span is all of it.
type Span struct {
	First int64
	End   int64 // not included; 0: to the archive's end
}

// bytes is the range within an archive of that size.
func (s Span) bytes(size int64) (coldstore.Range, error) {
	if s.End == 0 || s.End > size {
		s.End = size
	}
	if s.First < 0 || s.First >= s.End {
		return coldstore.Range{}, failure.Errorf(failure.Usage, "there are no bytes from %d on: it has %d", s.First, size)
	}
	return coldstore.Range{Offset: s.First, Size: s.End - s.First}, nil
}

// asked is the range to ask the vault for: r with what is around it up to the vault's granularity; the zero Range
// where that is everything.
func asked(r coldstore.Range, size int64, t coldstore.Traits) coldstore.Range {
	g := max(t.Granularity, 1)
	from, to := r.Offset/g*g, (r.Offset+r.Size+g-1)/g*g
	if to = min(to, size); from == 0 && to == size || t.WholeOnly {
		return coldstore.Range{}
	}
	return coldstore.Range{Offset: from, Size: to - from}
}

// Target is an archive to be retrieved, and what becomes of it.
type Target struct {
	Archive catalog.ArchiveRecord
	Span    Span
	File    string    // to be made; it must not exist
	Replace bool      // File may exist: unless it is the archive, it is replaced once that is whole
	Again   bool      // with Replace: it is replaced even by the same
	Out     io.Writer // instead of File
}

// RetrieveOptions say how. The zero value works.
type RetrieveOptions struct {
	Retrieval retrieval.Options // Store, Traits, Journal, Vault and Now are filled in
	Read      func(bytes int64) // bytes got; may be nil
	Done      func(t Target, resumed int64)
}

// Retrieve gets archives. All are asked for at once. What is ready is fetched, and then failure.NotReady returned for
// the others unless RetrieveOptions.Retrieval.Wait is set; the same call goes on later. A whole archive is compared with its tree hash
// (failure.Damaged) before its file gets its name; until then it is FILE.ID.part, from whose end an interrupted
// retrieval goes on. Of a range only that it came as the vault sent it is known. A file that is there
// already counts as retrieved if it is the archive's; another is failure.Usage, unless Target.Replace is set.
func (v *Vault) Retrieve(ctx context.Context, targets []Target, o RetrieveOptions) error {
	if err := v.check(); err != nil {
		return err
	}
	o.Retrieval.Store, o.Retrieval.Traits, o.Retrieval.Journal = v.Store, v.Store.Traits(), v.Catalog
	o.Retrieval.Vault, o.Retrieval.Now = v.URL, v.Now
	if err := v.learn(ctx, targets, o); err != nil {
		return explain(err)
	}
	desk := retrieval.New(o.Retrieval)
	all, err := v.missing(ctx, targets, o)
	if err != nil {
		return err
	}
	// What is readable now may not be so when the rest is.
	var late []order
	for _, t := range all {
		r, ok, err := desk.Held(ctx, t.Archive.ID, t.ask)
		if err == nil && ok {
			out := &tally{w: t.Out}
			if t.Out != nil {
				t.Out = out
			}
			if err = v.fetch(ctx, t, r, o); errors.Is(err, coldstore.ErrExpired) && out.n == 0 {
				// The vault did not keep it as long as it had said.
				ok, err = false, v.Catalog.DropRetrieval(ctx, v.URL, r.Token)
			}
		}
		if err != nil {
			return explain(err)
		}
		if !ok {
			late = append(late, t)
		}
	}
	for _, t := range late {
		size := t.ask.Size
		if t.ask.IsWhole() {
			size = t.Archive.Size
		}
		if err := desk.Want(ctx, t.Archive.ID, t.ask, size); err != nil {
			return explain(err)
		}
	}
	if err := desk.Order(ctx, nil); err != nil {
		return explain(err)
	}
	if err := desk.Ready(ctx); err != nil {
		return explain(err)
	}
	for _, t := range late {
		r, err := desk.Ask(ctx, t.Archive.ID, t.ask)
		if err == nil && !r.Ready {
			err = fmt.Errorf("archive %s: %w", Title(t.Archive), coldstore.ErrNotReady)
		}
		if err == nil {
			err = v.fetch(ctx, t, r, o)
		}
		if err != nil {
			return explain(err)
		}
	}
	return nil
}

// tally counts what was written.
type tally struct {
	w io.Writer
	n int64
}

func (t *tally) Write(p []byte) (int, error) {
	n, err := t.w.Write(p)
	t.n += int64(n)
	return n, err
}

// order is a target that is to be fetched.
type order struct {
	Target
	span coldstore.Range // what is wanted
	ask  coldstore.Range // of the vault; zero: everything
}

// missing are the targets that are not there yet.
func (v *Vault) missing(ctx context.Context, targets []Target, o RetrieveOptions) ([]order, error) {
	var all []order
	for _, t := range targets {
		span, err := t.Span.bytes(t.Archive.Size)
		if err != nil {
			return nil, fmt.Errorf("archive %s: %w", Title(t.Archive), err)
		}
		if t.Out == nil && !t.Again {
			there, err := isThere(ctx, t, span)
			if t.Replace && failure.KindOf(err) == failure.Usage {
				err = nil
			}
			if err != nil {
				return nil, err
			}
			if there {
				if o.Done != nil {
					o.Done(t, span.Size)
				}
				continue
			}
		}
		all = append(all, order{t, span, asked(span, t.Archive.Size, v.Store.Traits())})
	}
	return all, nil
}

// isThere says whether a target's file is the archive. One that is something else is failure.Usage.
func isThere(ctx context.Context, t Target, span coldstore.Range) (bool, error) {
	info, err := os.Lstat(t.File)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	other := failure.Errorf(failure.Usage, "%s exists already, and is something else", t.File)
	if !info.Mode().IsRegular() || info.Size() != t.Archive.Size || span.Size != t.Archive.Size || t.Archive.TreeHash.IsZero() {
		return false, other
	}
	f, err := os.Open(t.File)
	if err != nil {
		return false, err
	}
	defer f.Close() // it was only read
	sum := &check{hasher: treehash.New(), want: t.Archive.TreeHash}
	if _, err := sum.resume(f, span.Size); err != nil {
		return false, fmt.Errorf("read %s: %w", t.File, err)
	}
	if sum.verdict(t) != nil {
		return false, other
	}
	return true, ctx.Err()
}

func explain(err error) error {
	if errors.Is(err, coldstore.ErrNotFound) && failure.KindOf(err) == failure.Failed {
		return failure.Wrap(failure.NotFound, err)
	}
	return retrieval.Explain(err)
}

// fetch gets one archive and tells of it.
func (v *Vault) fetch(ctx context.Context, t order, r coldstore.Retrieval, o RetrieveOptions) error {
	resumed, err := v.get(ctx, t.Target, r, t.span, o)
	if err == nil && o.Done != nil {
		o.Done(t.Target, resumed)
	}
	return err
}

func (v *Vault) get(ctx context.Context, t Target, r coldstore.Retrieval, span coldstore.Range, o RetrieveOptions) (resumed int64, err error) {
	sum := &check{}
	if span.Size == t.Archive.Size && !t.Archive.TreeHash.IsZero() {
		sum.hasher, sum.want = treehash.New(), t.Archive.TreeHash
	}
	if t.Out != nil {
		if err := v.read(ctx, t, r, span, 0, t.Out, sum, o); err != nil {
			return 0, err
		}
		return 0, sum.verdict(t)
	}
	part := partName(t, span)
	f, err := os.OpenFile(part, os.O_RDWR|os.O_CREATE, 0o666)
	if err != nil {
		return 0, err
	}
	defer f.Close() // after an error; else it is closed below
	if resumed, err = sum.resume(f, span.Size); err != nil {
		return 0, fmt.Errorf("read %s: %w", part, err)
	}
	if err := v.read(ctx, t, r, span, resumed, f, sum, o); err != nil {
		if errors.Is(err, coldstore.ErrIntegrity) && !errors.As(err, new(syscall.Errno)) {
			// Some of what was written is wrong, and nobody knows which; what a broken medium refuses to read was not written.
			err = errors.Join(err, os.Remove(part))
		}
		return resumed, err
	}
	if err := sum.verdict(t); err != nil {
		// Whatever is wrong with it, going on from it makes no sense.
		return resumed, errors.Join(err, os.Remove(part))
	}
	if err := f.Sync(); err != nil {
		return resumed, err
	}
	if err := f.Close(); err != nil {
		return resumed, err
	}
	if _, err := os.Lstat(t.File); !t.Replace && !errors.Is(err, fs.ErrNotExist) {
		return resumed, failure.Errorf(failure.Usage, "%s exists now; what was retrieved is %s", t.File, part)
	}
	return resumed, durable.Rename(part, t.File)
}

// partName is the file's name until it is whole.
func partName(t Target, span coldstore.Range) string {
	id := t.Archive.ID
	id = strings.Map(func(r rune) rune {
		if r == '/' || r == filepath.Separator {
			return '_'
		}
		return r
	}, id[:min(len(id), 16)])
	if span.Size != t.Archive.Size {
		id += fmt.Sprintf(".%d-%d", span.Offset, span.Offset+span.Size-1)
	}
	return t.File + "." + id + ".part"
}

// read reads what is left of a span to w.
func (v *Vault) read(ctx context.Context, t Target, r coldstore.Retrieval, span coldstore.Range, from int64, w io.Writer, sum *check, o RetrieveOptions) error {
	if from == span.Size {
		return nil
	}
	src := transfer.Section(ctx, v.Store, r, span.Offset+from, span.Size-from, o.Retrieval.Transfer)
	defer src.Close()
	out := w
	if sum.hasher != nil {
		out = io.MultiWriter(w, sum.hasher)
	}
	n, err := io.CopyBuffer(struct{ io.Writer }{out}, counting{src, o.Read}, make([]byte, mib))
	if err != nil {
		return titled(t.Archive, err)
	}
	if n != span.Size-from {
		return fmt.Errorf("archive %s: %d bytes came instead of %d: %w", Title(t.Archive), n, span.Size-from, io.ErrUnexpectedEOF)
	}
	return nil
}

// check compares the tree hash of a whole archive.
type check struct {
	hasher *treehash.Hasher // nil: there is nothing to compare with
	want   treehash.Hash
}

// resume reads what an earlier run has written, and leaves f at its end.
func (c *check) resume(f *os.File, size int64) (int64, error) {
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	if info.Size() > size {
		return 0, f.Truncate(0)
	}
	if c.hasher == nil {
		return f.Seek(0, io.SeekEnd)
	}
	return io.CopyBuffer(struct{ io.Writer }{c.hasher}, struct{ io.Reader }{f}, make([]byte, mib))
}

func (c *check) verdict(t Target) error {
	if c.hasher == nil {
		return nil
	}
	if got := c.hasher.Sum(); got != c.want {
		return failure.Errorf(failure.Damaged, "archive %s came with tree hash %s, and it should have %s", Title(t.Archive), got, c.want)
	}
	return nil
}

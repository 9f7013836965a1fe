package restore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/firn-backup/firn/internal/catalog"
	"github.com/firn-backup/firn/internal/codec"
	"github.com/firn-backup/firn/internal/extract"
	"github.com/firn-backup/firn/internal/failure"
	"github.com/firn-backup/firn/internal/manifest"
	"github.com/firn-backup/firn/internal/retrieval"
	"github.com/firn-backup/firn/internal/snapshot"
	"github.com/firn-backup/firn/internal/transfer"
	"github.com/firn-backup/firn/internal/units"
)

// contents restores all that is not a directory, in the order of contents.
type contents struct {
	r *run
	grouper
	ordinal int // of files with content

	src *extract.File // the content of the group, whole, for copies; nil: not read yet
	bad error         // why the content of the group cannot be had

	at  int               // into r.volumes
	vol *retrieval.Volume // of r.volumes[at]; nil: not open

	// Of what has no content: the names of one inode.
	zeroGroup, zeroLeader string
	zeroType              snapshot.Type
}

func (r *run) writeContents(ctx context.Context) error {
	c := &contents{r: r}
	defer c.close()
	err := r.entries(ctx, catalog.ByContent, func(e *snapshot.Entry) error {
		if e.Type == snapshot.Dir {
			return nil
		}
		target, ok, err := r.sel.target(e)
		if err != nil || !ok {
			return err
		}
		there := *e
		there.Path = target
		if e.Content.IsZero() {
			return c.empty(e, &there)
		}
		return c.file(ctx, e, &there)
	})
	if err != nil {
		return err
	}
	return c.leave(ctx, len(r.volumes))
}

func (c *contents) close() {
	c.closeSource()
	if c.vol != nil {
		c.vol.Close()
	}
}

func (c *contents) closeSource() {
	if c.src != nil {
		c.src.Close()
		c.src = nil
	}
}

// empty restores what has no content.
func (c *contents) empty(e, there *snapshot.Entry) error {
	root := c.r.root
	if e.LinkGroup != c.zeroGroup || e.Type != c.zeroType {
		c.zeroGroup, c.zeroType, c.zeroLeader = e.LinkGroup, e.Type, ""
	}
	var err error
	kept := false
	switch {
	case e.LinkGroup != "" && c.zeroLeader != "":
		err = root.HardLink(c.zeroLeader, there)
	case e.Type == snapshot.Symlink:
		err = root.Symlink(there)
	case e.Type == snapshot.Fifo:
		err = root.Fifo(there)
	case e.Type == snapshot.CharDev || e.Type == snapshot.BlkDev:
		err = root.Device(there)
	case e.Type == snapshot.File && e.Size == 0:
		if !root.Fresh() {
			if state, _ := root.Existing(there); state == extract.Same {
				err, kept = root.Again(there), true
				break
			}
		}
		var f *extract.File
		if f, err = root.File(there); err == nil {
			err = f.Commit()
			f.Close()
		}
	case e.Type == snapshot.File:
		err = failure.Errorf(failure.Damaged, "%s: the catalog does not say where its content is", e.Path)
		c.r.problem(Problem{Kind: Damaged, Path: e.Path, Reason: err.Error()})
		return nil
	default:
		err = fmt.Errorf("%s: unknown type %q", e.Path, e.Type)
	}
	if err == nil || errors.Is(err, extract.ErrMetadata) {
		if c.zeroLeader == "" {
			c.zeroLeader = there.Path
		}
	}
	if err != nil {
		return c.r.failed(e.Path, err)
	}
	c.done(e, kept)
	return nil
}

// done counts an entry that is in place.
func (c *contents) done(e *snapshot.Entry, kept bool) {
	switch {
	case kept:
		c.r.res.Kept++
	case e.Type == snapshot.File:
		c.r.res.Files++
		c.r.res.Bytes += e.Size
	default:
		c.r.res.Others++
	}
	c.r.o.Observe.Entry(e.Path, e.Size, kept)
}

// file restores a file with content. there is e under its name on disk.
func (c *contents) file(ctx context.Context, e, there *snapshot.Entry) error {
	state := c.r.states.get(c.ordinal)
	c.ordinal++
	if c.begin(e) {
		c.closeSource()
		c.bad = nil
	}
	var err error
	kept := false
	switch c.action(state, c.r.o.Overwrite) {
	case hardlink:
		err = c.r.root.HardLink(c.leader, there)
		if errors.Is(err, extract.ErrTooManyLinks) {
			c.leader = ""
			return c.obtain(ctx, e, there)
		}
		if err == nil {
			c.r.res.Others++
			c.r.o.Observe.Entry(e.Path, 0, false)
			return nil
		}
		return c.r.failed(e.Path, err)
	case keep:
		err, kept = c.r.root.Again(there), true
	case refuse:
		return c.r.failed(e.Path, fmt.Errorf("%w, with other content", extract.ErrExists))
	case obtain:
		return c.obtain(ctx, e, there)
	}
	return c.settle(e, there, err, kept)
}

// settle ends a file after err of its last step.
func (c *contents) settle(e, there *snapshot.Entry, err error, kept bool) error {
	if err == nil || errors.Is(err, extract.ErrMetadata) {
		c.placed(there.Path)
	}
	if err != nil {
		return c.r.failed(e.Path, err)
	}
	c.done(e, kept)
	return nil
}

// obtain writes a file from the vault, or from the one before if it has the same content.
func (c *contents) obtain(ctx context.Context, e, there *snapshot.Entry) error {
	if c.src != nil {
		return c.settle(e, there, c.r.root.Copy(c.src, there), false)
	}
	if c.bad != nil {
		c.damaged(e, c.bad)
		return nil
	}
	f, err := c.r.root.File(there)
	if err != nil {
		return c.r.failed(e.Path, err)
	}
	if err := c.stream(ctx, e, f); err != nil {
		f.Close()
		if c.r.desk.Stuck(err) && c.r.res.Files == 0 && !c.r.o.Wait {
			return failure.Errorf(failure.Usage, "%s lies in more archives than are readable at one time at the rate of %s: "+
				"read them as they come, in one run (--wait), or let more out", e.Path, c.r.o.Pace)
		}
		var disk *diskError
		switch {
		case errors.As(err, &disk):
			return c.r.failed(e.Path, disk.err)
		case isDamage(err):
			c.bad = err
			c.damaged(e, err)
			return nil
		}
		return err
	}
	err = f.Commit()
	if err != nil && extract.Fatal(err) {
		f.Close()
		return c.r.failed(e.Path, err)
	}
	c.src = f
	return c.settle(e, there, err, false)
}

// isDamage counts it as damage too that an archive does not open with keys that
// were tried on its like before: its header is damaged.
func isDamage(err error) bool { return retrieval.IsDamage(err) || errors.Is(err, codec.ErrNoKey) }

// diskError is an error of the target, as opposed to those of the vault.
type diskError struct{ err error }

func (d *diskError) Error() string { return d.err.Error() }
func (d *diskError) Unwrap() error { return d.err }

// stream reads a content from the vault into w, and compares its SHA-256.
func (c *contents) stream(ctx context.Context, e *snapshot.Entry, w io.Writer) error {
	open := func(vol int) (*retrieval.Volume, int64, error) { return c.volume(ctx, e.Content.N, vol) }
	return retrieval.ReadContent(ctx, &e.Content, open, func(b []byte) error {
		if _, err := w.Write(b); err != nil {
			return &diskError{err}
		}
		return nil
	})
}

func (c *contents) damaged(e *snapshot.Entry, err error) {
	c.r.problem(Problem{Kind: Damaged, Path: e.Path, Archive: c.blame(e, err), Reason: retrieval.Reason(err)})
}

// blame names the archive that is at fault for the damage of a file, if that can be told.
func (c *contents) blame(e *snapshot.Entry, err error) string {
	if c.at >= len(c.r.volumes) {
		return ""
	}
	v := &c.r.volumes[c.at]
	if v.n != e.Content.N || v.vol < e.Content.Volume {
		return ""
	}
	if !errors.Is(err, retrieval.ErrHash) || v.vol == e.Content.Volume {
		return c.r.archive(v) // the one at which reading ended, or the only one
	}
	// One of several: that in which damage was seen.
	for i := c.at; i >= 0; i-- {
		v := &c.r.volumes[i]
		if v.n != e.Content.N || v.vol < e.Content.Volume {
			break
		}
		if a := c.r.archive(v); slices.Contains(c.r.lost, a) || c.r.read.DamagedIn(a) {
			return a
		}
	}
	return ""
}

// archive is the name of a planned volume's archive.
func (r *run) archive(p *volumePlan) string {
	v, err := r.volume(context.Background(), r.chain[p.n], p.vol)
	if err != nil {
		return ""
	}
	return v.Archive
}

// volume opens a volume, and leaves the ones before it. raw is the size of its stream.
func (c *contents) volume(ctx context.Context, n uint64, vol int) (x *retrieval.Volume, raw int64, err error) {
	i, ok := slices.BinarySearchFunc(c.r.volumes, volumePlan{n: n, vol: vol}, func(a, b volumePlan) int {
		return comparePlace(a.n, a.vol, b.n, b.vol)
	})
	if !ok {
		return nil, 0, c.unplanned(ctx, n, vol)
	}
	if i != c.at {
		if err := c.leave(ctx, i); err != nil {
			return nil, 0, err
		}
	}
	p := &c.r.volumes[i]
	if p.lost != nil {
		return nil, 0, p.lost
	}
	l := c.r.chain[n]
	v, err := c.r.volume(ctx, l, vol)
	if err != nil {
		return nil, 0, err
	}
	if c.vol == nil {
		c.vol, err = c.open(ctx, v, i)
		if err != nil && retrieval.IsDamage(err) {
			p.lost = err
		}
		if err != nil {
			return nil, 0, err
		}
	}
	return c.vol, v.Raw, nil
}

// open opens the volume at an index, or takes it as it was left when keys were tried on it.
func (c *contents) open(ctx context.Context, v *manifest.Volume, i int) (*retrieval.Volume, error) {
	if x := c.r.tried; x != nil && i == 0 {
		c.r.tried = nil
		return x, nil
	}
	p := &c.r.volumes[i]
	return c.r.desk.Open(ctx, v, p.reads, c.r.chain[p.n].opener)
}

// unplanned says why a volume was not planned.
func (c *contents) unplanned(ctx context.Context, n uint64, vol int) error {
	if l := c.r.chain[n]; l != nil {
		_, err := c.r.volume(ctx, l, vol)
		if err == nil {
			return &diskError{errors.New("the target changed meanwhile: restore again")}
		}
		if failure.KindOf(err) != failure.NotFound {
			return err
		}
	}
	return fmt.Errorf("%w: volume %d of snapshot %d of the set is not in the catalog", codec.ErrDamaged, vol, n)
}

// leave ends the reading of the volume at hand and goes to the one at index to.
// Those in between that are to be read as a whole are read on the way.
func (c *contents) leave(ctx context.Context, to int) error {
	for c.at < to {
		p := &c.r.volumes[c.at]
		var fault error
		if p.all && p.lost == nil {
			l := c.r.chain[p.n]
			if c.vol == nil {
				v, err := c.r.volume(ctx, l, p.vol)
				if err != nil {
					return err
				}
				if c.vol, err = c.open(ctx, v, c.at); err != nil {
					c.vol, fault = nil, err
				}
			}
			if c.vol != nil {
				fault = c.vol.Finish()
			}
			if fault != nil && !isDamage(fault) {
				return fault
			}
		}
		if c.vol != nil {
			c.vol.Close()
			c.vol = nil
		}
		c.report(p, fault)
		c.at++
	}
	if c.at > to { // backwards: an address out of order
		if c.vol != nil {
			c.vol.Close()
			c.vol = nil
		}
		c.at = to
	}
	return nil
}

// report reports the damage that was seen in a volume, whichever entries it touches.
func (c *contents) report(p *volumePlan, fault error) {
	leaves, more := c.r.read.TakeDamages()
	if p.lost != nil {
		fault = p.lost
	}
	if len(leaves) == 0 && fault == nil {
		return
	}
	problem := Problem{Kind: Damaged, Archive: c.r.archive(p)}
	if len(leaves) > 0 {
		problem.Reason = describeDamage(leaves, more)
	} else {
		problem.Reason = retrieval.Reason(fault)
	}
	c.r.problem(problem)
}

func describeDamage(leaves []transfer.Damage, more int) string {
	d := leaves[0]
	s := fmt.Sprintf("bytes %d to %d do not have the hash that the manifest gives", d.Offset, d.Offset+d.Size-1)
	if n := len(leaves) - 1 + more; n > 0 {
		s += ", nor do " + units.Count(n, "more piece")
	}
	return s
}

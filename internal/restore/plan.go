package restore

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/firn-backup/firn/internal/catalog"
	"github.com/firn-backup/firn/internal/codec"
	"github.com/firn-backup/firn/internal/extract"
	"github.com/firn-backup/firn/internal/failure"
	"github.com/firn-backup/firn/internal/manifest"
	"github.com/firn-backup/firn/internal/restoreplan"
	"github.com/firn-backup/firn/internal/retrieval"
	"github.com/firn-backup/firn/internal/snapshot"
)

// volumePlan is what is to be read of one volume.
type volumePlan struct {
	n     uint64 // snapshot
	vol   int
	reads []restoreplan.Read
	all   bool  // every byte, so that all of it gets checked
	lost  error // why nothing can be read of it
}

// joinSpans is the gap in bytes below which files' stretches of the stream are
// taken as one: a few headers, and far less than a frame.
const joinSpans = 64 << 10

// plan walks the selected files in the order of their contents, compares them
// with what is there, and plans what to read.
func (r *run) plan(ctx context.Context) error {
	p := planner{r: r, whole: r.sel.everything && (r.root == nil || r.root.Fresh())}
	var g grouper
	err := r.entries(ctx, catalog.ByContent, func(e *snapshot.Entry) error {
		target, ok, err := r.sel.target(e)
		if err != nil || !ok {
			return err
		}
		r.res.Plan.Entries++
		if e.Type != snapshot.File {
			return nil
		}
		r.res.Plan.Files++
		r.res.Plan.Bytes += e.Size
		if e.Content.IsZero() {
			return nil
		}
		state := extract.Absent
		fresh := g.begin(e)
		if r.root != nil && !r.root.Fresh() {
			if state = extract.Unknown; !g.links() {
				there := *e
				there.Path = target
				if state, err = r.root.Existing(&there); err != nil && extract.Fatal(err) {
					return err
				}
			}
			r.states.add(state)
		}
		switch g.action(state, r.o.Overwrite) {
		case keep:
			r.res.Plan.Kept++
		case refuse:
			r.res.Plan.Taken++
			return nil
		case obtain:
			if fresh || !g.planned {
				g.planned = true
				if err := p.add(ctx, &e.Content); err != nil {
					return err
				}
			}
		case hardlink:
			return nil
		}
		g.placed(target)
		return nil
	})
	if err != nil {
		return err
	}
	if err := p.end(ctx); err != nil {
		return err
	}
	if err := r.sel.unmet(); err != nil {
		return err
	}
	r.o.Observe.Planned(r.res.Plan)
	return nil
}

// entries calls fn with each selected entry.
func (r *run) entries(ctx context.Context, order catalog.Order, fn func(e *snapshot.Entry) error) error {
	return r.o.Catalog.Entries(ctx, r.snap.ID, catalog.Query{Under: r.sel.under(), Order: order}, func(e snapshot.Entry) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		if !r.sel.has(e.Path) {
			return nil
		}
		return fn(&e)
	})
}

var errEnough = errors.New("enough")

// first returns the first entry at or below path, nil if there is none.
func (r *run) first(ctx context.Context, path string) (*snapshot.Entry, error) {
	var found *snapshot.Entry
	err := r.o.Catalog.Entries(ctx, r.snap.ID, catalog.Query{Under: []string{path}}, func(e snapshot.Entry) error {
		found = &e
		return errEnough
	})
	if err != nil && !errors.Is(err, errEnough) {
		return nil, err
	}
	return found, nil
}

// action is what becomes of a file.
type action int

const (
	obtain   action = iota // write its content
	hardlink               // link it to the name before
	keep                   // it is there
	refuse                 // something else is there
)

// grouper goes along the files in the order of their contents, and decides the
// same for the same file whenever it is asked: when planning and when restoring.
// Files with one content follow one another, and so do, among them, the names of one inode.
type grouper struct {
	n       uint64
	vol     int
	off     int64
	group   string // link group
	leader  string // where the first of its names is, once it is in place
	planned bool   // the content is going to be read
}

// begin takes up the next file; fresh says that its content is another one than the one before.
func (g *grouper) begin(e *snapshot.Entry) (fresh bool) {
	c := &e.Content
	fresh = g.n != c.N || g.vol != c.Volume || g.off != c.Offset
	if fresh {
		g.n, g.vol, g.off, g.planned = c.N, c.Volume, c.Offset, false
	}
	if fresh || e.LinkGroup != g.group {
		g.group, g.leader = e.LinkGroup, ""
	}
	return fresh
}

// links says that the file is another name of one that is in place.
func (g *grouper) links() bool { return g.group != "" && g.leader != "" }

func (g *grouper) action(s extract.State, o extract.Overwrite) action {
	switch {
	case g.links():
		return hardlink
	case s == extract.Same:
		return keep
	case s == extract.Differs && o == extract.Never:
		return refuse
	}
	return obtain
}

// placed says that the file is in place.
func (g *grouper) placed(target string) {
	if g.group != "" {
		g.leader = target
	}
}

// planner gathers the stretches of the volumes' streams that are needed. They come in
// order, so that only those of the last few volumes are in memory.
type planner struct {
	r     *run
	whole bool // all of the snapshot's own volumes are to be read, and so checked
	open  []volumeSpans
}

type volumeSpans struct {
	n     uint64
	vol   int
	spans []restoreplan.Span
}

// add takes a content up.
func (p *planner) add(ctx context.Context, c *snapshot.Content) error {
	if err := p.flush(ctx, func(v *volumeSpans) bool { return v.n < c.N || v.n == c.N && v.vol < c.Volume }); err != nil {
		return err
	}
	l := p.r.chain[c.N]
	if l == nil {
		return nil // is found again, and reported, when restoring
	}
	if l.err != nil {
		return l.err
	}
	vol, off, left := c.Volume, c.Offset, c.Stored
	for left > 0 {
		v, err := p.r.volume(ctx, l, vol)
		if failure.KindOf(err) == failure.NotFound {
			return nil // as above
		}
		if err != nil {
			return err
		}
		n := min(left, v.Raw-off)
		if n < 0 {
			return nil // as above
		}
		p.span(c.N, vol, off, n)
		vol, off, left = vol+1, 0, left-n
	}
	return nil
}

func (p *planner) span(n uint64, vol int, off, size int64) {
	i := slices.IndexFunc(p.open, func(v volumeSpans) bool { return v.n == n && v.vol == vol })
	if i < 0 {
		i = len(p.open)
		p.open = append(p.open, volumeSpans{n: n, vol: vol})
	}
	v := &p.open[i]
	if k := len(v.spans) - 1; k >= 0 {
		last := &v.spans[k]
		if off >= last.Offset && off <= last.Offset+last.Size+joinSpans {
			last.Size = max(last.Size, off+size-last.Offset)
			return
		}
	}
	v.spans = append(v.spans, restoreplan.Span{Offset: off, Size: size})
}

// flush plans the volumes of which nothing more is to come.
func (p *planner) flush(ctx context.Context, done func(*volumeSpans) bool) error {
	for len(p.open) > 0 && done(&p.open[0]) {
		v := p.open[0]
		p.open = p.open[1:]
		if err := p.volume(ctx, v.n, v.vol, v.spans); err != nil {
			return err
		}
	}
	return nil
}

// end plans what is left, and what has no file's content in it but is to be read all the same.
func (p *planner) end(ctx context.Context) error {
	if err := p.flush(ctx, func(*volumeSpans) bool { return true }); err != nil {
		return err
	}
	l := p.r.chain[p.r.snap.N]
	if !p.whole || l == nil || l.err != nil {
		return nil
	}
	planned := map[int]bool{}
	for _, v := range p.r.volumes {
		if v.n == p.r.snap.N {
			planned[v.vol] = true
		}
	}
	for vol := 1; ; vol++ {
		if planned[vol] {
			continue
		}
		_, err := p.r.volume(ctx, l, vol)
		if failure.KindOf(err) == failure.NotFound {
			break
		}
		if err != nil {
			return err
		}
		if err := p.volume(ctx, p.r.snap.N, vol, nil); err != nil {
			return err
		}
	}
	slices.SortFunc(p.r.volumes, func(a, b volumePlan) int { return comparePlace(a.n, a.vol, b.n, b.vol) })
	return nil
}

func comparePlace(an uint64, av int, bn uint64, bv int) int {
	switch {
	case an < bn || an == bn && av < bv:
		return -1
	case an > bn || av > bv:
		return 1
	}
	return 0
}

// volume plans one volume, and tries the keys on it where that costs nothing.
func (p *planner) volume(ctx context.Context, n uint64, vol int, spans []restoreplan.Span) error {
	l := p.r.chain[n]
	v, err := p.r.volume(ctx, l, vol)
	if err != nil {
		return err
	}
	known, err := l.opener.CanOpen(v)
	if err != nil && !p.r.o.DryRun {
		return failure.Wrap(failure.NoKey, err)
	}
	l.untried = l.untried || !known
	plan := volumePlan{n: n, vol: vol}
	if len(spans) > 0 {
		plan.reads, plan.lost = restoreplan.Volume(v, spans, l.opener.Geometry, p.r.o.Traits, p.r.o.Gap)
	}
	if plan.lost != nil {
		plan.lost = fmt.Errorf("archive %s: %w: %w", v.Archive, codec.ErrDamaged, plan.lost)
		p.r.volumes = append(p.r.volumes, plan)
		return nil
	}
	// Of a volume that is needed for the most part all is read, and so checked.
	if p.whole && n == p.r.snap.N || sum(plan.reads)*4 >= v.Size*3 {
		plan.reads = retrieval.All(v)
		plan.all = true
	}
	p.r.res.Plan.Archives++
	p.r.res.Plan.Ranges += len(plan.reads)
	p.r.res.Plan.Read += sum(plan.reads)
	for _, read := range plan.reads {
		p.r.o.Observe.Range(v.Archive, read.Range)
	}
	p.r.volumes = append(p.r.volumes, plan)
	return nil
}

func sum(reads []restoreplan.Read) int64 {
	var n int64
	for _, r := range reads {
		n += r.Range.Size
	}
	return n
}

// cachedVolume is a volume's record. Two are kept: a file may go on from one to the next.
type cachedVolume struct {
	id  string
	vol int
	v   *manifest.Volume
}

// volume looks a volume up. failure.NotFound: the snapshot has none of that number.
func (r *run) volume(ctx context.Context, l *link, vol int) (*manifest.Volume, error) {
	for i := range r.cached {
		if r.cached[i].id == l.id && r.cached[i].vol == vol {
			return r.cached[i].v, nil
		}
	}
	v, err := r.o.Catalog.Volume(ctx, l.id, vol)
	if err != nil {
		return nil, err
	}
	r.cached[0] = r.cached[1]
	r.cached[1] = cachedVolume{l.id, vol, &v}
	return &v, nil
}

// request asks the vault for all that is to be read.
func (r *run) request(ctx context.Context) error {
	if r.o.Traits.Warm {
		return nil // is asked when it is read
	}
	for i := range r.volumes {
		p := &r.volumes[i]
		if p.lost != nil {
			continue
		}
		v, err := r.volume(ctx, r.chain[p.n], p.vol)
		if err != nil {
			return err
		}
		for _, read := range p.reads {
			if err := r.desk.Want(ctx, v.Archive, retrieval.Whole(read.Range, v.Size), read.Range.Size); err != nil {
				return err
			}
		}
	}
	lost := map[string]error{}
	err := r.desk.Order(ctx, func(archive string, err error) error { lost[archive] = err; return nil })
	if err != nil {
		return err
	}
	for i := range r.volumes {
		p := &r.volumes[i]
		if p.lost != nil || len(lost) == 0 {
			continue
		}
		v, err := r.volume(ctx, r.chain[p.n], p.vol)
		if err != nil {
			return err
		}
		p.lost = lost[v.Archive]
	}
	return r.desk.Ready(ctx)
}

// tryKeys reads one frame of each snapshot whose volumes only reading can tell
// whether the keys at hand open them. Where the archive itself is damaged that tells nothing,
// and the next one is tried. What was read of the first volume is what is wanted of it: it stays open.
func (r *run) tryKeys(ctx context.Context) error {
	for i := range r.volumes {
		p := &r.volumes[i]
		l := r.chain[p.n]
		if !l.untried || p.lost != nil || len(p.reads) == 0 {
			continue
		}
		v, err := r.volume(ctx, l, p.vol)
		if err != nil {
			return err
		}
		x, err := r.desk.Open(ctx, v, p.reads, l.opener)
		if err != nil {
			if retrieval.IsDamage(err) {
				r.forgetTried()
				continue
			}
			return err
		}
		var off int64
		for _, f := range v.Frames[:p.reads[0].First] {
			off += f.Raw
		}
		_, err = x.At(off)
		damaged := r.read.DamagedIn(v.Archive) || retrieval.IsDamage(err)
		if i == 0 && err == nil && !damaged {
			r.tried = x // and what it notes of damage from here on is not forgotten
		} else {
			x.Close()
		}
		switch {
		case damaged:
			r.forgetTried()
			continue
		case err != nil:
			return err
		}
		l.untried = false
	}
	return nil
}

// forgetTried has what was noted of damage so far met again, that of the volume which is still open included.
func (r *run) forgetTried() {
	if r.tried != nil {
		r.tried.Close()
		r.tried = nil
	}
	r.read.TakeDamages()
}

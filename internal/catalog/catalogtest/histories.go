package catalogtest

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/firn-backup/firn/internal/catalog"
	"github.com/firn-backup/firn/internal/manifest"
	"github.com/firn-backup/firn/internal/snapshot"
)

// testHistories drives random histories of several chains and compares all
// that can be asked with a model that keeps every tree whole.
func testHistories(t *testing.T, target Target) {
	open := target(t)
	d := &db{open(3), t, t.Context()} // three rows a page and a batch: all seams are met
	sets := 0
	rapid.Check(t, func(rt *rapid.T) {
		sets++
		m := &model{db: &db{d.DB, rt, d.ctx}, set: fmt.Sprint("set", sets)}
		m.db.set(m.set)
		rt.Repeat(map[string]func(*rapid.T){
			"begin":   m.begin,
			"begin2":  m.begin,
			"begin3":  m.begin,
			"put":     m.put,
			"put2":    m.put,
			"put3":    m.put,
			"refresh": m.refresh,
			"delete":  m.delete,
			"delete2": m.delete,
			"problem": m.problem,
			"flush":   m.flush,
			"volume":  m.volume,
			"rewind":  m.rewind,
			"finish":  m.finish,
			"finish2": m.finish,
			"discard": m.discard,
			"drop":    m.drop,
			"":        m.check,
		})
	})
}

// tree is a whole tree. Trees of one chain share the entries that did not change, as the rows do.
type tree map[string]*snapshot.Entry

type modelSnap struct {
	id    string
	n     uint64
	chain *modelSnap
	base  *modelSnap // nil: full
	tree  tree
}

type model struct {
	db     *db
	set    string
	n      uint64
	stored []*modelSnap // by n

	now      *modelSnap // the attempt, nil: none is running
	w        *catalog.EntryWriter
	problems []snapshot.Problem
	volumes  int
	check_   catalog.Checkpoint
}

func drawPath(t *rapid.T, label string) string {
	name := rapid.SampledFrom([]string{"a", "b", "a-", "a\x01", "\xff"})
	path := name.Draw(t, label)
	for range rapid.IntRange(0, 2).Draw(t, "depth") {
		path += "/" + name.Draw(t, label)
	}
	return path
}

func (m *model) begin(t *rapid.T) {
	if m.now != nil {
		t.Skip("one is running")
	}
	m.n += rapid.Uint64Range(1, 3).Draw(t, "skip")
	s := &modelSnap{id: fmt.Sprint(m.set, "-", m.n), n: m.n, tree: tree{}}
	s.chain = s
	base := ""
	if len(m.stored) > 0 && rapid.IntRange(0, 3).Draw(t, "incremental") > 0 {
		// The last of any chain may be gone on with.
		b := rapid.SampledFrom(m.stored).Draw(t, "chain")
		for _, o := range m.stored {
			if o.chain == b.chain {
				b = o
			}
		}
		s.base, s.chain, s.tree, base = b, b.chain, maps.Clone(b.tree), b.id
	}
	m.db.begin(m.set, s.id, s.n, base)
	m.now, m.w, m.problems, m.volumes, m.check_ = s, m.db.writer(s.id), nil, 0, catalog.Checkpoint{}
}

func (m *model) running(t *rapid.T) {
	if m.now == nil {
		t.Skip("none is running")
	}
}

func (m *model) put(t *rapid.T) {
	m.running(t)
	for range rapid.IntRange(1, 6).Draw(t, "entries") {
		e := file(drawPath(t, "path"), rapid.Int64Range(0, 99).Draw(t, "size"))
		e.Ino = rapid.Uint64Range(0, 9).Draw(t, "ino")
		e.User = rapid.SampledFrom([]string{"", "root", "me"}).Draw(t, "user")
		e.LinkGroup = rapid.SampledFrom([]string{"", "g1", "g2"}).Draw(t, "group")
		if rapid.Bool().Draw(t, "content") {
			e.Content = drawContent(t)
		}
		m.db.ok(m.w.Put(m.db.ctx, e))
		m.now.tree[e.Path] = e
	}
}

func (m *model) refresh(t *rapid.T) {
	m.running(t)
	e := file(drawPath(t, "path"), 0)
	e.Ino, e.CTime = rapid.Uint64Range(10, 99).Draw(t, "ino"), snapshot.Time{Sec: 1}
	m.db.ok(m.w.Refresh(m.db.ctx, e))
	if old := m.now.tree[e.Path]; old != nil {
		old.Ino, old.CTime, old.Dev = e.Ino, e.CTime, e.Dev // in all trees that share it
	}
}

func (m *model) delete(t *rapid.T) {
	m.running(t)
	p := drawPath(t, "path")
	m.db.ok(m.w.Delete(m.db.ctx, p))
	delete(m.now.tree, p)
}

func (m *model) problem(t *rapid.T) {
	m.running(t)
	p := snapshot.Problem{Path: drawPath(t, "path"), Reason: "reason"}
	m.db.ok(m.w.Problem(m.db.ctx, p))
	m.problems = append(m.problems, p)
}

func (m *model) flush(t *rapid.T) {
	m.running(t)
	m.db.ok(m.w.Flush(m.db.ctx))
}

func (m *model) volume(t *rapid.T) {
	m.running(t)
	m.volumes++
	c := catalog.Checkpoint{Volume: m.volumes, Started: rapid.IntRange(0, 4).Draw(t, "started") > 0}
	if c.Started {
		c.Path, c.InFile = drawPath(t, "checkpoint"), rapid.Bool().Draw(t, "in file")
	}
	p := catalog.Pending{Snap: m.now.id, Volume: manifest.Volume{N: m.volumes}, Check: c}
	m.db.ok(m.w.PutPending(m.db.ctx, p))
	m.db.ok(m.db.VolumeStored(m.db.ctx, m.now.id, m.volumes, "archive"))
	m.check_ = c
}

// after says whether a path is after the checkpoint.
func (m *model) after(path string) bool {
	c := snapshot.ComparePaths(path, m.check_.Path)
	return !m.check_.Started || c > 0 || c == 0 && m.check_.InFile
}

func (m *model) rewind(t *rapid.T) {
	m.running(t)
	m.db.ok(m.w.Flush(m.db.ctx))
	m.db.ok(m.db.Rewind(m.db.ctx, m.now.id))
	before := tree{}
	if m.now.base != nil {
		before = m.now.base.tree
	}
	for _, p := range slices.Concat(slices.Collect(maps.Keys(m.now.tree)), slices.Collect(maps.Keys(before))) {
		if !m.after(p) {
			continue
		}
		if old := before[p]; old != nil {
			m.now.tree[p] = old
		} else {
			delete(m.now.tree, p)
		}
	}
	m.problems = slices.DeleteFunc(m.problems, func(p snapshot.Problem) bool { return m.after(p.Path) })
}

func (m *model) finish(t *rapid.T) {
	m.running(t)
	m.db.ok(m.w.Flush(m.db.ctx))
	m.db.finish(m.now.id)
	m.stored = append(m.stored, m.now)
	m.now = nil
}

func (m *model) discard(t *rapid.T) {
	m.running(t)
	m.db.ok(m.w.Flush(m.db.ctx))
	vols, err := m.db.Discard(m.db.ctx, m.now.id)
	m.db.ok(err)
	if len(vols) != m.volumes {
		t.Fatalf("%d orphans, want %d", len(vols), m.volumes)
	}
	m.now = nil
}

func (m *model) drop(t *rapid.T) {
	if m.now != nil || len(m.stored) == 0 {
		t.Skip("nothing to drop")
	}
	last := rapid.SampledFrom(m.stored).Draw(t, "chain")
	for _, s := range m.stored {
		if s.chain == last.chain {
			last = s
		}
	}
	m.db.ok(m.db.DropSnapshot(m.db.ctx, last.id))
	m.stored = slices.DeleteFunc(m.stored, func(s *modelSnap) bool { return s == last })
}

// check compares everything.
func (m *model) check(t *rapid.T) {
	m.db.t = t
	if rapid.IntRange(0, 2).Draw(t, "look") > 0 {
		return // looking after every step would take most of the time
	}
	all := m.stored
	if m.now != nil {
		m.db.ok(m.w.Flush(m.db.ctx))
		all = append(slices.Clone(all), m.now)
		m.same(t, "problems", sortedProblems(m.problems), must(m.db.Problems(m.db.ctx, m.now.id)))
	}
	under := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) string { return drawPath(t, "under") }), 0, 2).Draw(t, "under")
	after := ""
	if rapid.Bool().Draw(t, "from the middle") {
		after = drawPath(t, "after")
	}
	for _, s := range all {
		m.checkTree(t, s, under, after)
		m.same(t, "changes of "+s.id, s.changes(), m.db.changes(s.id))
	}
	m.same(t, "found", m.found(), m.db.find(m.set, func(p string) bool { return p != "a/a" }))
}

func (m *model) checkTree(t *rapid.T, s *modelSnap, under []string, after string) {
	var want []snapshot.Entry
	for _, p := range slices.SortedFunc(maps.Keys(s.tree), snapshot.ComparePaths) {
		if len(under) == 0 || slices.ContainsFunc(under, func(d string) bool { return snapshot.Below(p, d) }) {
			want = append(want, *s.tree[p])
		}
	}
	m.same(t, s.id+" by path", want, m.db.entries(s.id, catalog.Query{Under: under}))
	slices.Reverse(want)
	m.same(t, s.id+" descending", want, m.db.entries(s.id, catalog.Query{Under: under, Order: catalog.ByPathDesc}))
	slices.SortFunc(want, compareContent)
	m.same(t, s.id+" by content", want, m.db.entries(s.id, catalog.Query{Under: under, Order: catalog.ByContent}))
	rows := []string{}
	for _, p := range slices.SortedFunc(maps.Keys(s.tree), snapshot.ComparePaths) {
		if after == "" || snapshot.ComparePaths(p, after) > 0 {
			rows = append(rows, p)
		}
	}
	m.same(t, s.id+" rows", rows, m.db.rows(s.id, after))
}

func (m *model) same(t *rapid.T, what string, want, got any) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatalf("%s (-want +got):\n%s", what, diff)
	}
}

// changes are those against the base. An entry put again as it was counts as changed: it is another one.
func (s *modelSnap) changes() []change {
	before := tree{}
	if s.base != nil {
		before = s.base.tree
	}
	paths := map[string]bool{}
	for p, e := range s.tree {
		if before[p] != e {
			paths[p] = true
		}
	}
	for p := range before {
		if s.tree[p] == nil {
			paths[p] = true
		}
	}
	var list []change
	for _, p := range slices.SortedFunc(maps.Keys(paths), snapshot.ComparePaths) {
		list = append(list, change{p, s.tree[p]})
	}
	return list
}

// found is what Find should find.
func (m *model) found() []found {
	var list []found
	for _, chain := range m.stored {
		if chain.base != nil {
			continue
		}
		type key struct {
			path string
			e    *snapshot.Entry
		}
		index := map[key]int{}
		var of []found
		for _, s := range m.stored {
			if s.chain != chain {
				continue
			}
			for p, e := range s.tree {
				if p == "a/a" {
					continue
				}
				if i, ok := index[key{p, e}]; ok {
					of[i].Last = s.n
					continue
				}
				index[key{p, e}] = len(of)
				of = append(of, found{*e, chain.id, s.n, s.n})
			}
		}
		slices.SortFunc(of, func(a, b found) int {
			if c := snapshot.ComparePaths(a.Entry.Path, b.Entry.Path); c != 0 {
				return c
			}
			return int(a.First) - int(b.First)
		})
		list = append(list, of...)
	}
	return list
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func sortedProblems(list []snapshot.Problem) []snapshot.Problem {
	if len(list) == 0 {
		return nil
	}
	list = slices.Clone(list)
	slices.SortStableFunc(list, func(a, b snapshot.Problem) int { return snapshot.ComparePaths(a.Path, b.Path) })
	return list
}

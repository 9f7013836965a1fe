package backup_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/firn-backup/firn/internal/backup"
	"github.com/firn-backup/firn/internal/catalog"
	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/internal/coldstore/faultstore"
	"github.com/firn-backup/firn/internal/manifest"
	"github.com/firn-backup/firn/internal/sendstream"
	"github.com/firn-backup/firn/internal/snapshot"
	"github.com/firn-backup/firn/internal/source"
	"github.com/firn-backup/firn/internal/source/command"
)

// zfsStream is a stream as zfs send writes it: a beginning, data, an end.
func zfsStream(to, from uint64, data []byte) []byte {
	le := binary.LittleEndian
	begin := make([]byte, 312)
	le.PutUint64(begin[8:], 0x2F5bacbac)
	le.PutUint64(begin[16:], 1)
	le.PutUint64(begin[40:], to)
	le.PutUint64(begin[48:], from)
	write := make([]byte, 312)
	le.PutUint32(write, 3)
	le.PutUint64(write[32:], uint64(len(data)))
	end := make([]byte, 312)
	le.PutUint32(end, 5)
	return slices.Concat(begin, write, data, end)
}

// pool is a producer of such streams, with snapshots.
type pool struct {
	points  []source.Point
	data    map[string][]byte // of what was there at a point, by id
	size    int
	opens   int
	broken  func(r io.Reader) io.Reader // what becomes of the next stream
	noAgain bool
}

var _ source.Stream = (*pool)(nil)

func newPool() *pool { return &pool{data: map[string][]byte{}, size: 900_000} }

func (p *pool) Traits() source.StreamTraits {
	return source.StreamTraits{Format: sendstream.ZFS, Points: true, Again: !p.noAgain}
}

func (p *pool) Make(_ context.Context, at time.Time) (source.Point, error) {
	id := strconv.Itoa(1000 + len(p.data))
	p.data[id] = noise(byte(len(p.data)), p.size)
	x := source.Point{Name: "pool@" + id, ID: id, At: at, Own: true}
	p.points = append(p.points, x)
	return x, nil
}

func (p *pool) Points(context.Context) ([]source.Point, error) { return slices.Clone(p.points), nil }

func (p *pool) stream(to, from string) []byte {
	n := func(s string) uint64 { x, _ := strconv.ParseUint(s, 10, 64); return x }
	data := p.data[to]
	if from != "" {
		data = data[:300_000]
	}
	return zfsStream(n(to), n(from), data)
}

func (p *pool) Open(_ context.Context, to source.Point, base *source.Point) (io.ReadCloser, error) {
	p.opens++
	from := ""
	if base != nil {
		from = base.ID
	}
	var r io.Reader = bytes.NewReader(p.stream(to.ID, from))
	if p.broken != nil {
		r, p.broken = p.broken(r), nil
	}
	return io.NopCloser(r), nil
}

func (p *pool) Keep(context.Context, source.Point) error { return nil }

func (p *pool) Release(_ context.Context, x source.Point) error {
	p.points = slices.DeleteFunc(p.points, func(y source.Point) bool { return y.ID == x.ID })
	return nil
}

func (w *world) send(src source.Stream, store coldstore.Uploader, change ...func(*backup.StreamOptions)) (backup.Result, error) {
	o := backup.StreamOptions{Options: w.options(store), Source: src}
	o.Tree = nil
	for _, f := range change {
		f(&o)
	}
	return backup.RunStream(context.Background(), o)
}

func (w *world) mustSend(src source.Stream, change ...func(*backup.StreamOptions)) backup.Result {
	w.t.Helper()
	res, err := w.send(src, w.vault, change...)
	must(w.t, err)
	return res
}

// holds says that a snapshot's volumes have these bytes, by their own hashes too.
func (w *world) holds(id string, want []byte) {
	w.t.Helper()
	raw := w.raw(id)
	var got []byte
	for n := 1; n <= len(raw); n++ {
		got = append(got, raw[n]...)
	}
	if !bytes.Equal(got, want) {
		w.t.Errorf("snapshot %s has %d bytes, and not the %d that were sent", id, len(got), len(want))
	}
	vols, err := w.db.Volumes(context.Background(), id)
	must(w.t, err)
	for _, v := range vols {
		if v.RawSHA256 == nil {
			w.t.Errorf("snapshot %s, volume %d: no SHA-256", id, v.N)
		}
	}
}

func (w *world) storedSnaps() []catalog.Snapshot {
	w.t.Helper()
	all, err := w.db.Snapshots(context.Background(), w.set.ID)
	must(w.t, err)
	return slices.DeleteFunc(all, func(s catalog.Snapshot) bool { return s.State != catalog.Stored })
}

// An incremental builds on the newest, or on any that the caller names.
func TestStreamChain(t *testing.T) {
	t.Parallel()
	w, p := newWorld(t), newPool()
	keep := func(o *backup.StreamOptions) { o.KeepLocal = 1000 * time.Hour }
	a := w.mustSend(p, keep).Snapshot
	b := w.mustSend(p, keep).Snapshot
	c := w.mustSend(p, keep, func(o *backup.StreamOptions) { o.Base = a.ID }).Snapshot
	d := w.mustSend(p).Snapshot
	if a.Kind != snapshot.Full || b.Base != a.ID || c.Base != a.ID || d.Base != c.ID || d.Chain != a.ID {
		t.Errorf("bases %q %q %q %q", a.Base, b.Base, c.Base, d.Base)
	}
	for _, s := range []catalog.Snapshot{a, b, c, d} {
		from := ""
		for _, x := range []catalog.Snapshot{a, b, c} {
			if x.ID == s.Base {
				from = x.Header.PointID
			}
		}
		w.holds(s.ID, p.stream(s.Header.PointID, from))
		m := w.readManifest(s)
		if h := m; h.Stream != "zfs" || h.PointID != s.Header.PointID || h.Point != "pool@"+h.PointID {
			t.Errorf("manifest: %+v", h)
		}
	}
	if len(p.points) != 1 || p.points[0].ID != d.Header.PointID {
		t.Errorf("points left: %v", p.points)
	}
	// After so many incrementals, or when it is asked for, or without the base's point: a full one.
	if s := w.mustSend(p, func(o *backup.StreamOptions) { o.Incrementals = 3 }).Snapshot; s.Kind != snapshot.Full {
		t.Errorf("after three incrementals another one")
	}
	p.points = nil
	told := ""
	if s := w.mustSend(p, func(o *backup.StreamOptions) { o.Notice = func(s string) { told = s } }).Snapshot; s.Kind != snapshot.Full || told == "" {
		t.Errorf("%s without a base, told %q", s.Kind, told)
	}
	if _, err := w.send(p, w.vault, func(o *backup.StreamOptions) { o.Base = "01JD9ZK3V7Q4W8X2M5N6P7R8S9" }); err == nil {
		t.Error("built on a snapshot that there is not")
	}
}

func (w *world) readManifest(s catalog.Snapshot) manifest.Header {
	w.t.Helper()
	got, err := w.db.Snapshot(context.Background(), s.ID)
	must(w.t, err)
	return got.Header
}

// cutting fails, or just ends, after n bytes.
type cutting struct {
	r   io.Reader
	n   int
	err error
}

func (f *cutting) Read(b []byte) (int, error) {
	if f.n == 0 {
		return 0, f.err
	}
	n, err := f.r.Read(b[:min(len(b), f.n)])
	f.n -= n
	return n, err
}

var errDied = errors.New("the producer died")

// A stream that is cut, empty or that its producer did not finish is never a snapshot, wherever that happens.
func TestStreamBroken(t *testing.T) {
	t.Parallel()
	w, p := newWorld(t), newPool()
	whole := len(p.data) + p.size + 3*312
	for _, n := range []int{0, 1, 100, 311, 312, 500, 200_000, 600_000, whole - 312, whole - 1} {
		for _, end := range []error{io.EOF, errDied} {
			p.broken = func(r io.Reader) io.Reader { return &cutting{r, n, end} }
			res, err := w.send(p, w.vault, func(o *backup.StreamOptions) { o.Full = true })
			if err == nil {
				t.Fatalf("%d bytes and %v: stored as %s", n, end, res.Snapshot.ID)
			}
			if end == io.EOF && n == 0 && !errors.Is(err, backup.ErrEmptyStream) || end == errDied && !errors.Is(err, errDied) {
				t.Errorf("%d bytes and %v: %v", n, end, err)
			}
			if got := w.storedSnaps(); len(got) > 0 {
				t.Fatalf("%d bytes and %v: snapshot %s", n, end, got[0].ID)
			}
			if len(p.points) > 1 {
				t.Errorf("%d bytes and %v: %d points left", n, end, len(p.points))
			}
		}
	}
	res := w.mustSend(p)
	for _, s := range w.storedSnaps() {
		if s.Kind == snapshot.Full {
			w.holds(s.ID, p.stream(s.Header.PointID, ""))
		}
	}
	if len(p.points) != 1 || p.points[0].ID != res.Snapshot.Header.PointID {
		t.Errorf("points left: %v", p.points)
	}
}

// Whatever call of the vault fails, the next run stores the point that was begun, once, and all of it.
func TestStreamFaults(t *testing.T) {
	t.Parallel()
	for _, mode := range []faultstore.Mode{faultstore.LostBefore, faultstore.LostAfter, faultstore.DeadFrom, faultstore.DeadAfter} {
		for call := 0; ; call += 2 {
			w, p := newWorld(t), newPool()
			f := faultstore.New(faultstore.Fault{Mode: mode, Call: call})
			first, err := w.send(p, f.Wrap(w.vault))
			again := w.mustSend(p)
			if err != nil && again.Resumed && len(again.Settled) == 0 {
				t.Errorf("%s %d: what was interrupted was completed, and what is new since was not stored", mode, call)
			}
			snaps := w.storedSnaps()
			for i, s := range snaps {
				from := ""
				if i > 0 {
					from = snaps[i-1].Header.PointID
				}
				w.holds(s.ID, p.stream(s.Header.PointID, from))
			}
			if len(p.points) != 1 || p.points[0].ID != snaps[len(snaps)-1].Header.PointID {
				t.Errorf("%s %d: points left: %v", mode, call, p.points)
			}
			if err == nil && first.Snapshot.ID != snaps[0].ID {
				t.Errorf("%s %d: %s is not the first", mode, call, first.Snapshot.ID)
			}
			if !f.Hit() {
				break
			}
		}
	}
}

// stalls gives n bytes, waits until so many volumes are stored, and fails.
type stalls struct {
	cutting
	stored chan struct{}
	wait   int
}

func (s *stalls) Read(b []byte) (int, error) {
	if s.n == 0 {
		for range s.wait {
			<-s.stored
		}
		s.wait = 0
	}
	return s.cutting.Read(b)
}

type storedObserver struct {
	backup.Observer
	stored chan struct{}
}

func (o storedObserver) Entry(backup.Action, string, int64, int64) {}
func (o storedObserver) Read(int64)                                {}
func (o storedObserver) Sent(int64)                                {}
func (o storedObserver) Problem(snapshot.Problem)                  {}
func (o storedObserver) Resumed(string, int)                       {}
func (o storedObserver) Volume(int, string, int64)                 { o.stored <- struct{}{} }

// breakAfter makes the producer fail when two volumes are stored.
func breakAfter(p *pool, o *backup.StreamOptions) {
	ch := make(chan struct{}, 100)
	p.broken = func(r io.Reader) io.Reader {
		return &stalls{cutting: cutting{r, 500_000, errDied}, stored: ch, wait: 2}
	}
	o.Observe = storedObserver{stored: ch}
}

// What is stored is not stored again: the point is sent once more, and what comes is compared.
func TestStreamResumes(t *testing.T) {
	t.Parallel()
	w, p := newWorld(t), newPool()
	if _, err := w.send(p, w.vault, func(o *backup.StreamOptions) { breakAfter(p, o) }); !errors.Is(err, errDied) {
		t.Fatal(err)
	}
	begun := p.points[0].ID
	res := w.mustSend(p)
	snaps := w.storedSnaps()
	if !res.Resumed || len(snaps) != 2 || snaps[0].Header.PointID != begun || snaps[1].Kind != snapshot.Incremental {
		t.Fatalf("%+v, %d snapshots", res, len(snaps))
	}
	w.holds(snaps[0].ID, p.stream(begun, ""))
	if vols, err := w.db.Volumes(context.Background(), snaps[0].ID); err != nil || len(vols) != 5 {
		t.Errorf("%d volumes, %v", len(vols), err)
	}
	if len(res.Orphans) != 0 || res.Volumes != 3+2 {
		t.Errorf("%d volumes stored by the second run, orphans %v", res.Volumes, res.Orphans)
	}

	// A point that is gone cannot be sent again, and one that is sent otherwise is another stream.
	for _, spoil := range []func(id string){
		func(string) { p.points = p.points[:len(p.points)-1] },
		func(id string) { p.data[id][150_000] ^= 1 },
	} {
		if _, err := w.send(p, w.vault, func(o *backup.StreamOptions) { o.Full = true; breakAfter(p, o) }); !errors.Is(err, errDied) {
			t.Fatal(err)
		}
		spoil(p.points[len(p.points)-1].ID)
		res := w.mustSend(p, func(o *backup.StreamOptions) { o.Full = true })
		if res.Resumed || len(res.Orphans) != 2 {
			t.Errorf("%+v", res)
		}
		w.holds(res.Snapshot.ID, p.stream(res.Snapshot.Header.PointID, ""))
	}
}

// A pipe cannot be read again: another stream begins anew at once if its first bytes are others, and otherwise the next time.
func TestStreamFromPipe(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	data := noise(9, 700_000)
	pipe := func(b []byte, err error) source.Stream {
		return command.NewPipe("pipe", &cutting{bytes.NewReader(b), len(b), err})
	}
	interrupt := func() {
		t.Helper()
		ch := make(chan struct{}, 100)
		r := &stalls{cutting: cutting{bytes.NewReader(data), 500_000, errDied}, stored: ch, wait: 2}
		_, err := w.send(command.NewPipe("pipe", r), w.vault, func(o *backup.StreamOptions) { o.Observe = storedObserver{stored: ch} })
		if !errors.Is(err, errDied) {
			t.Fatal(err)
		}
	}
	interrupt()
	if res := w.mustSend(pipe(data, io.EOF)); !res.Resumed || res.Volumes != 2 {
		t.Errorf("the same stream: %+v", res)
	}
	interrupt()
	other := slices.Concat([]byte("other"), data)
	if res := w.mustSend(pipe(other, io.EOF)); res.Resumed || len(res.Orphans) != 2 {
		t.Errorf("another stream: %+v", res)
	}
	interrupt()
	late := slices.Clone(data)
	late[100_000] ^= 1
	if _, err := w.send(pipe(late, io.EOF), w.vault); !errors.Is(err, backup.ErrOtherStream) {
		t.Errorf("a stream that differs later: %v", err)
	}
	res := w.mustSend(pipe(late, io.EOF))
	w.holds(res.Snapshot.ID, late)
	for i, want := range [][]byte{data, other, late} {
		w.holds(w.storedSnaps()[i].ID, want)
	}
}

// A stream that names its base builds on that, and is refused where it is not there, or another one was asked for.
func TestStreamNamesItsBase(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	pipe := func(to, from uint64) source.Stream {
		return command.NewPipe("pipe", bytes.NewReader(zfsStream(to, from, noise(byte(to), 1000))))
	}
	a := w.mustSend(pipe(1, 0)).Snapshot
	b := w.mustSend(pipe(2, 1)).Snapshot
	c := w.mustSend(pipe(3, 1)).Snapshot
	if a.Kind != snapshot.Full || b.Base != a.ID || c.Base != a.ID || c.Header.PointID != "3" {
		t.Errorf("%+v %+v %+v", a, b, c)
	}
	base := func(id string) func(*backup.StreamOptions) { return func(o *backup.StreamOptions) { o.Base = id } }
	for name, f := range map[string]func() error{
		"unknown base":    func() error { _, err := w.send(pipe(9, 8), w.vault); return err },
		"other base":      func() error { _, err := w.send(pipe(9, 1), w.vault, base(c.ID)); return err },
		"full for a base": func() error { _, err := w.send(pipe(9, 0), w.vault, base(c.ID)); return err },
		"a base, but full": func() error {
			_, err := w.send(pipe(9, 3), w.vault, func(o *backup.StreamOptions) { o.Full = true })
			return err
		},
		"raw on zfs": func() error {
			_, err := w.send(command.NewPipe("pipe", bytes.NewReader([]byte("x"))), w.vault, base(c.ID))
			return err
		},
	} {
		if err := f(); !errors.Is(err, backup.ErrWrongBase) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if n := len(w.storedSnaps()); n != 3 {
		t.Errorf("%d snapshots", n)
	}
	at := time.Date(2023, 1, 2, 0, 0, 0, 0, time.UTC)
	if s := w.mustSend(pipe(4, 3), base(c.ID), func(o *backup.StreamOptions) { o.At = at }).Snapshot; !s.At.Equal(at) || s.Base != c.ID {
		t.Errorf("%+v", s)
	}
}

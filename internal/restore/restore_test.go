package restore_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"filippo.io/age"

	"github.com/firn-backup/firn/internal/backup"
	"github.com/firn-backup/firn/internal/catalog"
	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/internal/coldstore/faultstore"
	"github.com/firn-backup/firn/internal/extract"
	"github.com/firn-backup/firn/internal/failure"
	"github.com/firn-backup/firn/internal/mustrun"
	"github.com/firn-backup/firn/internal/restore"
	"github.com/firn-backup/firn/internal/restore/restoretest"
	"github.com/firn-backup/firn/internal/source/sourcetest"
)

var ctx = context.Background()

func run(t *testing.T, o restore.Options) restore.Result {
	t.Helper()
	res, err := restore.Run(ctx, o)
	if err != nil {
		t.Fatalf("%v\n%v", err, res.Sample)
	}
	return res
}

func wantKind(t *testing.T, err error, kind failure.Kind) {
	t.Helper()
	if err == nil || failure.KindOf(err) != kind {
		t.Fatalf("got error %v of kind %d, want kind %d", err, failure.KindOf(err), kind)
	}
	if strings.Contains(err.Error(), "\n") {
		t.Errorf("error of several lines: %q", err)
	}
}

// copyTree keeps a copy of a tree as it is now.
func copyTree(t *testing.T, w *restoretest.World) string {
	t.Helper()
	dir, err := os.MkdirTemp(w.Dir, "copy-")
	w.Must(err)
	if out, err := exec.Command("cp", "-a", w.Tree, dir+"/tree").CombinedOutput(); err != nil {
		t.Fatalf("cp: %v\n%s", err, out)
	}
	return dir + "/tree"
}

func TestChainComesBack(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ compression, cipher string }{{"zstd:1", "age"}, {"gzip:1", "none"}, {"none", "age"}, {"none", "none"}} {
		t.Run(c.compression+","+c.cipher, func(t *testing.T) {
			t.Parallel()
			w := restoretest.New(t, c.compression, c.cipher, 0)
			w.Fill()
			type point struct {
				snap catalog.Snapshot
				tree string
			}
			var points []point
			keep := func(change ...func(*backup.Options)) {
				points = append(points, point{w.Backup(change...), copyTree(t, w)})
			}
			keep()
			w.Write("d0/new", restoretest.Noise(200, 50_000))
			w.Write("d1/small04", restoretest.Noise(201, 400_000))
			w.Must(os.Remove(filepath.Join(w.Tree, "d2/small05")))
			w.Must(os.RemoveAll(filepath.Join(w.Tree, "void")))
			keep()
			keep()
			w.Must(os.Remove(filepath.Join(w.Tree, "d0/to-big")))
			w.Write("d0/to-big", []byte("a file now"))
			// The names of one inode part, but their content stays one.
			w.Must(os.Rename(filepath.Join(w.Tree, "d2/linked"), filepath.Join(w.Tree, "d2/x")))
			data, err := os.ReadFile(filepath.Join(w.Tree, "d2/x"))
			w.Must(err)
			w.Must(os.Remove(filepath.Join(w.Tree, "d2/x")))
			w.Write("d2/x", data)
			keep()
			keep(func(o *backup.Options) { o.Full = true })
			for i, p := range points {
				to := filepath.Join(w.Dir, fmt.Sprintf("to%d", i))
				res := run(t, w.RestoreOptions(p.snap, to))
				sourcetest.Diff(t, p.tree, to)
				if res.Problems != 0 || res.Files == 0 || res.Read == 0 {
					t.Errorf("%+v", res)
				}
				// Again: everything is there, and nothing is read.
				res = run(t, w.RestoreOptions(p.snap, to))
				sourcetest.Diff(t, p.tree, to)
				if res.Read != 0 || res.Plan.Read != 0 || res.Plan.Kept == 0 {
					t.Errorf("again: %+v", res)
				}
			}
		})
	}
}

func TestHostileTreeComesBack(t *testing.T) {
	mustrun.Root(t)
	mustrun.Tool(t, "rsync")
	t.Parallel()
	w := restoretest.New(t, "zstd:1", "age", 0)
	w.Must(os.Remove(w.Tree))
	sourcetest.Hostile(t, w.Tree)
	first := w.Backup()
	to := filepath.Join(w.Dir, "to")
	run(t, w.RestoreOptions(first, to))
	sourcetest.Diff(t, w.Tree, to)
	sourcetest.Mutate(t, w.Tree)
	second := w.Backup()
	to = filepath.Join(w.Dir, "to2")
	run(t, w.RestoreOptions(second, to))
	sourcetest.Diff(t, w.Tree, to)
	out, err := exec.Command("rsync", "-aHAXn", "--checksum", "--delete", "-i", "--exclude=/deep", w.Tree+"/", to+"/").CombinedOutput()
	if err != nil || len(out) > 0 {
		t.Errorf("rsync: %v\n%s", err, out)
	}
	// The second over the first: allowed to replace, it is brought up to the second.
	o := w.RestoreOptions(second, filepath.Join(w.Dir, "to"))
	o.Overwrite = extract.Always
	_, err = restore.Run(ctx, o)
	if err != nil && failure.KindOf(err) != failure.Partial {
		t.Error(err)
	}
}

func nothingAt(t *testing.T, path string) {
	t.Helper()
	if _, err := os.Lstat(path); err == nil {
		t.Errorf("%s was made", path)
	}
}

func TestWrongKey(t *testing.T) {
	t.Parallel()
	w := restoretest.New(t, "zstd:1", "age", 0)
	w.Fill()
	snap := w.Backup()
	other, err := age.GenerateX25519Identity()
	w.Must(err)
	for _, ids := range [][]age.Identity{nil, {other}} {
		f := faultstore.New(faultstore.Fault{})
		o := w.RestoreOptions(snap, filepath.Join(w.Dir, "to"))
		o.Codecs, o.Store = restoretest.Codecs(ids...), f.Wrap(w.Vault)
		_, err := restore.Run(ctx, o)
		wantKind(t, err, failure.NoKey)
		nothingAt(t, o.To)
		if f.Count("RequestRetrieval") != 0 {
			t.Error("something was asked for that cannot be opened")
		}
	}
}

// watch is an observer that keeps everything.
type watch struct {
	problems []restore.Problem
	asked    int
	ready    int
}

func (w *watch) Planned(restore.Plan)          {}
func (w *watch) Range(string, coldstore.Range) {}
func (w *watch) Waiting(ready, all int)        { w.ready, w.asked = ready, all }
func (w *watch) Entry(string, int64, bool)     {}
func (w *watch) Read(int64)                    {}
func (w *watch) Problem(p restore.Problem)     { w.problems = append(w.problems, p) }
func (w *watch) Warning(extract.Warning)       {}

func TestSlowVault(t *testing.T) {
	t.Parallel()
	w := restoretest.New(t, "zstd:1", "age", 4*time.Hour)
	w.Fill()
	snap := w.Backup()
	obs := &watch{}
	f := faultstore.New(faultstore.Fault{})
	o := w.RestoreOptions(snap, filepath.Join(w.Dir, "to"))
	o.Store, o.Observe = f.Wrap(w.Vault), obs
	for range 3 {
		_, err := restore.Run(ctx, o)
		wantKind(t, err, failure.NotReady)
		nothingAt(t, o.To)
	}
	asked := f.Count("RequestRetrieval")
	if asked == 0 || asked != obs.asked || obs.ready != 0 {
		t.Errorf("asked %d times; observer saw %d ready of %d", asked, obs.ready, obs.asked)
	}
	w.Advance(5 * time.Hour)
	run(t, o)
	sourcetest.Diff(t, w.Tree, o.To)
	if n := f.Count("RequestRetrieval"); n != asked {
		t.Errorf("asked %d times more", n-asked)
	}

	// Long after, what was retrieved has expired; waiting gets it anew.
	w.Advance(1000 * time.Hour)
	o.To += "2"
	_, err := restore.Run(ctx, o)
	wantKind(t, err, failure.NotReady)
	o.Wait = true
	run(t, o)
	sourcetest.Diff(t, w.Tree, o.To)
}

// TestInterrupted ends restores at many points, as a kill does, and goes on.
func TestInterrupted(t *testing.T) {
	t.Parallel()
	w := restoretest.New(t, "zstd:1", "age", 0)
	w.Fill()
	snap := w.Backup()
	to := filepath.Join(w.Dir, "to")
	o := w.RestoreOptions(snap, to)
	for n := 0; ; n += 3 {
		ctx, stop := context.WithCancel(ctx)
		o.Observe = &stopper{after: n, stop: stop}
		_, err := restore.Run(ctx, o)
		stop()
		if err == nil {
			break
		}
		if n > 200 {
			t.Fatal(err)
		}
	}
	sourcetest.Diff(t, w.Tree, to)
}

type stopper struct {
	watch
	after int
	stop  func()
}

func (s *stopper) Entry(string, int64, bool) {
	if s.after--; s.after == 0 {
		s.stop()
	}
}

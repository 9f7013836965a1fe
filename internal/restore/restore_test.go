package restore_test

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"filippo.io/age"
	"golang.org/x/sys/unix"

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

func TestPathsAndGlobs(t *testing.T) {
	t.Parallel()
	w := restoretest.New(t, "zstd:1", "age", 0)
	w.Fill()
	w.Write("odd/[x]*", []byte("literal"))
	w.Write("odd/x1", []byte("x1"))
	w.Write("odd/sub/deep/y.jpg", []byte("y"))
	w.Write("odd/sub/z.txt", []byte("z"))
	w.Write("odd/\xff\xfe", []byte("bytes"))
	w.Must(os.Chmod(filepath.Join(w.Tree, "odd/sub"), 0o711))
	w.Must(os.Chtimes(filepath.Join(w.Tree, "odd/sub"), time.Unix(5, 0), time.Unix(5, 0)))
	snap := w.Backup()
	for i, c := range []struct {
		paths []string
		want  string // files and links
	}{
		{[]string{"zz-last"}, "zz-last"},
		{[]string{"/zz-last/", "empty"}, "empty zz-last"},
		{[]string{"odd/[x]*"}, "odd/[x]*"},
		{[]string{"odd/[x]?"}, "odd/x1"},
		{[]string{"odd/sub"}, "odd/sub/deep/y.jpg odd/sub/z.txt"},
		{[]string{"**/*.jpg"}, "odd/sub/deep/y.jpg"},
		{[]string{"o*/s*"}, "odd/sub/deep/y.jpg odd/sub/z.txt"},
		{[]string{"odd/{x1,sub/*.txt}"}, "odd/sub/z.txt odd/x1"},
		{[]string{"odd/??"}, "odd/x1 odd/\xff\xfe"},
		{[]string{"d2/linked"}, "d2/linked"},
		{[]string{"d1/small01", "d2/linked"}, "d1/small01 d2/linked"},
		{[]string{"void"}, ""},
		{[]string{"odd", "odd/sub", "odd/x1"}, "odd/[x]* odd/sub/deep/y.jpg odd/sub/z.txt odd/x1 odd/\xff\xfe"},
	} {
		o := w.RestoreOptions(snap, filepath.Join(w.Dir, fmt.Sprintf("to%d", i)))
		for _, p := range c.paths {
			o.Paths = append(o.Paths, w.Tree+"/"+strings.TrimPrefix(p, "/"))
		}
		o.Paths[0] = strings.TrimPrefix(o.Paths[0], "/") // both ways
		if strings.HasPrefix(c.paths[0], "**") {
			o.Paths[0] = c.paths[0]
		}
		if c.want == "" {
			run(t, o)
			continue
		}
		res := run(t, o)
		var got []string
		w.Must(filepath.WalkDir(o.To, func(path string, d fs.DirEntry, err error) error {
			if err == nil && !d.IsDir() {
				got = append(got, path[len(o.To)+1:])
			}
			return err
		}))
		slices.Sort(got)
		if strings.Join(got, " ") != c.want {
			t.Errorf("%q gives %q, want %q", c.paths, got, c.want)
		}
		for _, name := range got {
			a, err := os.ReadFile(filepath.Join(w.Tree, name))
			w.Must(err)
			b, err := os.ReadFile(filepath.Join(o.To, name))
			w.Must(err)
			if string(a) != string(b) {
				t.Errorf("%s differs", name)
			}
		}
		if res.Plan.Archives == 0 {
			t.Errorf("%q: %+v", c.paths, res.Plan)
		}
		if strings.Contains(c.want, "odd/sub/") { // a directory above has its metadata too
			fi, err := os.Stat(filepath.Join(o.To, "odd/sub"))
			w.Must(err)
			if fi.Mode().Perm() != 0o711 || !fi.ModTime().Equal(time.Unix(5, 0)) {
				t.Errorf("%q: odd/sub is %v %v", c.paths, fi.Mode(), fi.ModTime())
			}
		}
	}

	// Without Strip names are whole, and so are directories above.
	o := w.RestoreOptions(snap, filepath.Join(w.Dir, "whole"))
	o.Strip, o.Paths = "", []string{w.Tree + "/d1/small01"}
	run(t, o)
	if _, err := os.Stat(filepath.Join(o.To, w.Tree, "d1/small01")); err != nil {
		t.Error(err)
	}

	for _, paths := range [][]string{{"nowhere"}, {w.Tree + "/zz-last", "no/where"}, {"**/*.none"}, {w.Tree + "/zz"}} {
		o := w.RestoreOptions(snap, filepath.Join(w.Dir, "none"))
		o.Paths = paths
		_, err := restore.Run(ctx, o)
		wantKind(t, err, failure.NotFound)
		nothingAt(t, o.To)
	}
	o = w.RestoreOptions(snap, filepath.Join(w.Dir, "none"))
	o.Paths = []string{"a/[x"}
	_, err := restore.Run(ctx, o)
	wantKind(t, err, failure.Usage)
	o.Paths, o.Strip = nil, w.Tree+"/d1"
	_, err = restore.Run(ctx, o)
	wantKind(t, err, failure.Usage)
	nothingAt(t, o.To)
}

func nothingAt(t *testing.T, path string) {
	t.Helper()
	if _, err := os.Lstat(path); err == nil {
		t.Errorf("%s was made", path)
	}
}

func TestDryRunTouchesNothing(t *testing.T) {
	t.Parallel()
	w := restoretest.New(t, "zstd:1", "age", 0)
	w.Fill()
	snap := w.Backup()
	o := w.RestoreOptions(snap, filepath.Join(w.Dir, "to"))
	o.DryRun, o.Store = true, nil
	res := run(t, o)
	nothingAt(t, o.To)
	if res.Plan.Archives < 4 || res.Plan.Read < 700_000 || res.Plan.Files != 28 {
		t.Errorf("%+v", res.Plan)
	}
	o.Paths = []string{w.Tree + "/zz-last"}
	if part := run(t, o).Plan; part.Archives != 1 || part.Read >= res.Plan.Read/2 {
		t.Errorf("%+v", part)
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

func TestNeverReplaces(t *testing.T) {
	t.Parallel()
	w := restoretest.New(t, "zstd:1", "age", 0)
	w.Fill()
	snap := w.Backup()
	to := filepath.Join(w.Dir, "to")
	o := w.RestoreOptions(snap, to)
	run(t, o)
	w.Must(os.WriteFile(to+"/d0/small00", []byte("mine"), 0o600))
	w.Must(os.WriteFile(to+"/zz-last", []byte("THE LAST ONE\n"), 0o600))
	w.Must(os.RemoveAll(to + "/d1"))
	w.Must(os.WriteFile(to+"/d1", []byte("a file in the way"), 0o600))
	obs := &watch{}
	o.Observe = obs
	res, err := restore.Run(ctx, o)
	wantKind(t, err, failure.Partial)
	for _, p := range obs.problems {
		if p.Kind != restore.Taken {
			t.Errorf("%+v", p)
		}
	}
	if res.Problems != 2+1+8 || res.Taken != res.Problems {
		t.Errorf("%d problems: %v", res.Problems, obs.problems)
	}
	for path, want := range map[string]string{"d0/small00": "mine", "zz-last": "THE LAST ONE\n", "d1": "a file in the way"} {
		got, err := os.ReadFile(filepath.Join(to, path))
		if err != nil || string(got) != want {
			t.Errorf("%s: %q, %v", path, got, err)
		}
	}
	o.Overwrite = extract.Always
	run(t, o)
	sourcetest.Diff(t, w.Tree, to)
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

// TestOneFlippedBit flips a bit at many places of every volume, one at a time: each is
// named, and costs at most the files in its frame.
// sameBut compares all files but the lost ones, which must not be there.
// TestOpenPGP: a cipher that cannot be entered in the middle. Damage costs what follows it in its volume.
// TestOneFileIsCheap: a file of 1 MiB out of a large snapshot.
func TestOneFileIsCheap(t *testing.T) {
	t.Parallel()
	w := restoretest.New(t, "zstd:1", "age", 0)
	for i := range 64 {
		w.Write(fmt.Sprintf("f%02d", i), restoretest.Noise(byte(i), 1<<20))
	}
	snap := w.Backup(func(o *backup.Options) { o.VolumeSize, o.FrameSize = 0, 0 })
	for i := 0; i < 64; i += 5 {
		to := filepath.Join(w.Dir, fmt.Sprint("to", i))
		o := w.RestoreOptions(snap, to)
		o.Paths = []string{fmt.Sprintf("%s/f%02d", w.Tree, i)}
		if res := run(t, o); res.Read >= 4<<20 {
			t.Errorf("file %d: read %d bytes", i, res.Read)
		}
	}
}

// TestNothingIsReadTwice: that the keys open a small archive, whose end the manifest does not keep, is known from its header.
func TestNothingIsReadTwice(t *testing.T) {
	t.Parallel()
	w := restoretest.New(t, "zstd:1", "age", 0)
	for i := range 3 {
		w.Write(fmt.Sprintf("f%d", i), restoretest.Noise(byte(i), 10_000))
	}
	whole := func(o *backup.Options) { o.VolumeSize, o.FrameSize = 0, 0 }
	var sizes []int64 // of the volumes of both snapshots
	snap := w.Backup(whole)
	for range 2 {
		vols, err := w.DB.Volumes(ctx, snap.ID)
		w.Must(err)
		sizes = append(sizes, vols[0].Size)
		if len(sizes) < 2 {
			w.Write("new", restoretest.Noise(9, 10_000))
			snap = w.Backup(whole)
		}
	}
	for i, tc := range []struct {
		paths []string
		most  int64
	}{{nil, sizes[0] + sizes[1]}, {[]string{w.Tree + "/f1"}, sizes[0]}} {
		o := w.RestoreOptions(snap, filepath.Join(w.Dir, fmt.Sprint("to", i)))
		o.Paths = tc.paths
		if res := run(t, o); res.Read > tc.most {
			t.Errorf("%d bytes were read of %d", res.Read, tc.most)
		}
	}
}

func TestFullDisk(t *testing.T) {
	mustrun.Root(t)
	w := restoretest.New(t, "zstd:1", "age", 0)
	w.Fill()
	snap := w.Backup()
	to := filepath.Join(w.Dir, "small")
	w.Must(os.Mkdir(to, 0o755))
	if err := unix.Mount("firn", to, "tmpfs", 0, "size=512k"); err != nil {
		mustrun.Skip(t, "cannot mount: "+err.Error())
	}
	defer unix.Unmount(to, unix.MNT_DETACH)
	o := w.RestoreOptions(snap, to)
	_, err := restore.Run(ctx, o)
	wantKind(t, err, failure.Failed)
	if !strings.Contains(err.Error(), "no space left") {
		t.Error(err)
	}
	w.Must(unix.Mount("", to, "", unix.MS_REMOUNT, "size=8m"))
	run(t, o)
	w.Must(unix.Mount("", to, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""))
	_, err = restore.Run(ctx, o)
	wantKind(t, err, failure.Failed)
	if !strings.Contains(err.Error(), "read-only") {
		t.Error(err)
	}
}

func TestTargetFaults(t *testing.T) {
	t.Parallel()
	w := restoretest.New(t, "zstd:1", "age", 0)
	w.Fill()
	snap := w.Backup()
	w.Must(os.WriteFile(filepath.Join(w.Dir, "file"), nil, 0o600))
	_, err := restore.Run(ctx, w.RestoreOptions(snap, filepath.Join(w.Dir, "file")))
	wantKind(t, err, failure.Failed)
	o := w.RestoreOptions(snap, "")
	_, err = restore.Run(ctx, o)
	wantKind(t, err, failure.Usage)
	o = w.RestoreOptions(snap, filepath.Join(w.Dir, "to"))
	o.Snapshot = "01J00000000000000000000000"
	_, err = restore.Run(ctx, o)
	wantKind(t, err, failure.NotFound)
}

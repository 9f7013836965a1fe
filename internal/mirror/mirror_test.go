package mirror_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/internal/coldstore/faultstore"
	"github.com/firn-backup/firn/internal/failure"
	"github.com/firn-backup/firn/internal/items/itemstest"
	"github.com/firn-backup/firn/internal/mirror"
	"github.com/firn-backup/firn/internal/snapshot"
	"github.com/firn-backup/firn/internal/source/tree"
)

func must(t *testing.T, err error) {
	t.Helper()
	itemstest.Must(t, err)
}

// world is a machine with a directory, a catalog and a vault.
type world struct {
	*itemstest.World
	read atomic.Int64 // bytes read to be compared
}

func newWorld(t *testing.T, encrypted bool) *world {
	t.Helper()
	w := &world{World: itemstest.New(t, "mirror", encrypted)}
	must(t, os.MkdirAll(filepath.Join(w.Dir, "bands"), 0o755))
	return w
}

func (w *world) options(store coldstore.Store) mirror.Options {
	tr, err := tree.New(tree.Options{Paths: []string{w.Dir}})
	itemstest.Must(w.T, err)
	w.T.Cleanup(func() { tr.Close() })
	return mirror.Options{Items: w.Options(store), Tree: tr, Dir: w.Dir, Commit: true, Delete: true, Observe: counter{&w.read}}
}

type counter struct{ n *atomic.Int64 }

func (counter) Looking(int64)            {}
func (c counter) Read(n int64)           { c.n.Add(n) }
func (counter) Sending(int64)            {}
func (counter) Stored(mirror.Change)     {}
func (counter) Deleted(mirror.Change)    {}
func (counter) Problem(snapshot.Problem) {}

func (w *world) run(store coldstore.Store, change ...func(*mirror.Options)) (mirror.Result, error) {
	o := w.options(store)
	for _, c := range change {
		c(&o)
	}
	return mirror.Run(context.Background(), o)
}

// Every call of the vault fails once, before and after it took effect, and so does the process itself; the next run
// leaves every file stored once and nothing else.
func TestFaults(t *testing.T) {
	t.Parallel()
	for _, encrypted := range []bool{false, true} {
		for _, mode := range []faultstore.Mode{faultstore.LostBefore, faultstore.LostAfter, faultstore.DeadFrom, faultstore.DeadAfter} {
			if !encrypted && mode != faultstore.DeadAfter {
				continue // the same calls, without the index
			}
			t.Run(fmt.Sprint(encrypted, mode), func(t *testing.T) {
				t.Parallel()
				for call := 0; ; call++ {
					w := newWorld(t, encrypted)
					for k := range 3 {
						w.Write(fmt.Sprint("bands/", k), fmt.Sprint("band ", k))
					}
					w.Write("token", "")
					_, err := w.run(w.Vault)
					must(t, err)
					w.Write("bands/0", "changed")
					w.Write("bands/3", "new")
					must(t, os.Remove(filepath.Join(w.Dir, "bands/2")))
					f := faultstore.New(faultstore.Fault{Mode: mode, Call: call})
					_, err = w.run(f.Wrap(w.Vault), func(o *mirror.Options) { o.Items.Parallel = 1 })
					hit := f.Hit()
					if err != nil && !hit {
						t.Fatal(err)
					}
					_, err = w.run(w.Vault)
					must(t, err)
					w.Check()
					if !hit {
						break
					}
					if call > 200 {
						t.Fatal("no end")
					}
				}
			})
		}
	}
}

// Nothing is deleted before what takes its place is stored and told of.
func TestUploadsFirst(t *testing.T) {
	t.Parallel()
	w := newWorld(t, true)
	w.Write("bands/0", "one")
	_, err := w.run(w.Vault)
	must(t, err)
	w.Write("bands/0", "other")
	f := faultstore.New(faultstore.Fault{Mode: faultstore.DeadFrom, Method: "CompleteUpload", Call: 1}) // the index
	_, err = w.run(f.Wrap(w.Vault))
	if err == nil || f.Count("Delete") != 0 {
		t.Errorf("error %v, %d deletions", err, f.Count("Delete"))
	}
	_, err = w.run(w.Vault)
	must(t, err)
	w.Check()
}

func TestScale(t *testing.T) {
	t.Parallel()
	n := 2000
	if os.Getenv("FIRN_SOAK") != "" {
		n = 20_000
	}
	w := newWorld(t, false)
	size := 2 << 10
	if n == 20_000 {
		size = 128 << 10
	}
	band := make([]byte, size)
	for k := range n {
		copy(band, fmt.Sprint(k))
		must(t, os.WriteFile(filepath.Join(w.Dir, "bands", fmt.Sprintf("%x", k)), band[:size], 0o644))
	}
	f := faultstore.New(faultstore.Fault{})
	res, err := w.run(f.Wrap(w.Vault))
	must(t, err)
	if res.Stored != int64(n) || f.Count("CompleteUpload") != n {
		t.Fatalf("%d stored by %d uploads", res.Stored, f.Count("CompleteUpload"))
	}
	// By metadata no band is read.
	w.read.Store(0)
	begun := time.Now()
	res, err = w.run(w.Vault)
	must(t, err)
	t.Logf("%d bands without a change: %v", n, time.Since(begun))
	if w.read.Load() != 0 || res.Read != 0 || res.Unchanged != int64(n) || len(res.Upload)+len(res.Delete) != 0 {
		t.Errorf("%d bytes read, %+v", w.read.Load(), res)
	}
	// A hundred changed bands are a hundred uploads.
	for k := range 100 {
		w.Write(fmt.Sprintf("bands/%x", k*7), "changed")
	}
	f = faultstore.New(faultstore.Fault{})
	res, err = w.run(f.Wrap(w.Vault))
	must(t, err)
	if res.Stored != 100 || f.Count("CreateUpload") != 100 || f.Count("CompleteUpload") != 100 || res.Deleted != 100 {
		t.Errorf("%d stored, %d begun, %d completed, %d deleted", res.Stored, f.Count("CreateUpload"), f.Count("CompleteUpload"), res.Deleted)
	}
	// All are read with checksum, and nothing is sent.
	w.read.Store(0)
	f = faultstore.New(faultstore.Fault{})
	res, err = w.run(f.Wrap(w.Vault), func(o *mirror.Options) { o.Checksum = true })
	must(t, err)
	if res.Read != int64(n) || f.Count("CreateUpload") != 0 {
		t.Errorf("%d read, %d uploads", res.Read, f.Count("CreateUpload"))
	}
}

// A lost catalog costs nothing without encryption: what the vault tells is enough.
func TestLostCatalog(t *testing.T) {
	t.Parallel()
	w := newWorld(t, false)
	for k := range 5 {
		w.Write(fmt.Sprint("bands/", k), fmt.Sprint("band ", k))
	}
	_, err := w.run(w.Vault)
	must(t, err)
	old := w.Set.ID
	w.LoseCatalog()
	f := faultstore.New(faultstore.Fault{})
	res, err := w.run(f.Wrap(w.Vault))
	must(t, err)
	if res.Known != 5 || f.Count("CreateUpload")+f.Count("Delete") != 0 || old == w.Set.ID {
		t.Errorf("%+v", res)
	}
	w.Check()
	// What is stored after that replaces what was found.
	w.LoseCatalog()
	w.Write("bands/0", "changed")
	if res, err = w.run(w.Vault); err != nil || res.Known != 5 || res.Stored != 1 || res.Deleted != 1 {
		t.Errorf("%v, %+v", err, res)
	}
	w.Check()
	// Another set does not take what is this one's.
	other := newWorld(t, false)
	other.Set.Name = "n"
	must(t, other.DB.PutSet(context.Background(), other.Set))
	other.Write("bands/0", "band 0")
	other.Vault = w.Vault
	res, err = other.run(w.Vault)
	must(t, err)
	if res.Known != 0 || res.Stored != 1 {
		t.Errorf("%+v", res)
	}
}

// What is not believed to be gone.
func TestWithheld(t *testing.T) {
	t.Parallel()
	make := func(t *testing.T) *world {
		w := newWorld(t, false)
		must(t, os.Mkdir(filepath.Join(w.Dir, "sub"), 0o755))
		for k := range 12 {
			w.Write(fmt.Sprint("bands/", k), fmt.Sprint("band ", k))
		}
		for k := range 20 {
			w.Write(fmt.Sprint("sub/", k), fmt.Sprint("sub ", k))
		}
		_, err := w.run(w.Vault)
		must(t, err)
		return w
	}
	remove := func(w *world, names ...string) {
		for _, n := range names {
			itemstest.Must(w.T, os.RemoveAll(filepath.Join(w.Dir, n)))
		}
	}
	t.Run("directory", func(t *testing.T) {
		w := make(t)
		remove(w, "bands", "sub/1")
		res, err := w.run(w.Vault)
		if failure.KindOf(err) != failure.Partial || len(res.Withheld) != 1 || res.Withheld[0].Dir != "bands" || res.Deleted != 1 {
			t.Errorf("%v, %+v", err, res)
		}
		res, err = w.run(w.Vault, func(o *mirror.Options) { o.AllowShrunk = true })
		if err != nil || res.Deleted != 12 {
			t.Errorf("%v, %+v", err, res)
		}
	})
	t.Run("everything", func(t *testing.T) {
		w := make(t)
		remove(w, "bands", "sub")
		if _, err := w.run(w.Vault); !errors.Is(err, mirror.ErrEmptied) {
			t.Error(err)
		}
		remove(w, "")
		if _, err := w.run(w.Vault); err == nil {
			t.Error("the directory is not there")
		}
	})
	t.Run("few", func(t *testing.T) {
		w := make(t)
		remove(w, "sub/1", "sub/2", "bands/3")
		res, err := w.run(w.Vault)
		if err != nil || res.Deleted != 3 {
			t.Errorf("%v, %+v", err, res)
		}
		w.Check()
	})
	t.Run("unreadable", func(t *testing.T) {
		if asNobody(t, "TestWithheld/unreadable") {
			return
		}
		w := make(t)
		must(t, os.Chmod(filepath.Join(w.Dir, "sub"), 0))
		defer os.Chmod(filepath.Join(w.Dir, "sub"), 0o755)
		res, err := w.run(w.Vault)
		if failure.KindOf(err) != failure.Partial || res.Deleted != 0 || len(res.Withheld) != 0 {
			t.Errorf("%v, %+v", err, res)
		}
	})
}

// asNobody runs a test in a child without privileges where they are those of root, who reads everything, and says whether it did.
func asNobody(t *testing.T, name string) bool {
	t.Helper()
	if os.Geteuid() != 0 {
		return false
	}
	self, err := os.Open("/proc/self/exe") // the file itself may lie where nobody may look
	must(t, err)
	defer self.Close()
	dir := t.TempDir()
	must(t, os.Chmod(dir, 0o777))
	must(t, os.Chmod(filepath.Dir(dir), 0o755))
	program := filepath.Join(dir, "test")
	out, err := os.OpenFile(program, os.O_CREATE|os.O_WRONLY, 0o755)
	must(t, err)
	_, err = io.Copy(out, self)
	must(t, errors.Join(err, out.Close()))
	c := exec.Command(program, "-test.run", "^"+strings.ReplaceAll(name, "/", "$/^")+"$", "-test.v")
	c.Dir, c.Env = dir, append(os.Environ(), "TMPDIR="+dir, "HOME="+dir)
	c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	text, err := c.CombinedOutput()
	if err != nil || !strings.Contains(string(text), "--- PASS: "+name) {
		t.Errorf("%v\n%s", err, text)
	}
	return true
}

// Archives that are too young are kept until they are old enough.
func TestMinimumAge(t *testing.T) {
	t.Parallel()
	w := newWorld(t, false)
	w.Write("bands/0", "one")
	w.Write("bands/1", "one more")
	old := young{w.Vault}
	_, err := w.run(old)
	must(t, err)
	w.Write("bands/0", "other")
	res, err := w.run(old)
	must(t, err)
	if res.Stored != 1 || res.Deleted != 0 || len(res.Delete) != 1 || res.Delete[0].Due.IsZero() {
		t.Errorf("%+v", res)
	}
	w.Clock = w.Clock.AddDate(0, 0, 89)
	if res, err = w.run(old); err != nil || res.Deleted != 0 {
		t.Errorf("%v, %+v", err, res)
	}
	w.Clock = w.Clock.AddDate(0, 0, 1)
	if res, err = w.run(old); err != nil || res.Deleted != 1 {
		t.Errorf("%v, %+v", err, res)
	}
	w.Check()
}

// young is a vault with a minimum storage duration.
type young struct{ coldstore.Store }

func (y young) Traits() coldstore.Traits {
	t := y.Store.Traits()
	t.MinDays = 90
	return t
}

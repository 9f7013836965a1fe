package backup_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/firn-backup/firn/internal/backup"
	"github.com/firn-backup/firn/internal/catalog"
	"github.com/firn-backup/firn/internal/failure"
	"github.com/firn-backup/firn/internal/snapshot"
	"github.com/firn-backup/firn/internal/source/tree"
)

func TestFullThenIncrementals(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.fill()
	first := w.mustRun()
	w.check(first.Snapshot.ID)
	if first.Snapshot.Kind != snapshot.Full || first.Volumes < 4 {
		t.Errorf("first run: %s with %d volumes", first.Snapshot.Kind, first.Volumes)
	}

	none := w.mustRun()
	w.check(none.Snapshot.ID)
	if none.Snapshot.Kind != snapshot.Incremental || none.Volumes != 0 || none.Counts.Changed+none.Counts.New+none.Counts.Metadata+none.Counts.Deleted != 0 {
		t.Errorf("run without changes: %+v", none)
	}
	if none.Sent > 4096 {
		t.Errorf("run without changes sent %d bytes", none.Sent)
	}

	w.write("d0/new", noise(200, 50_000))
	w.write("d1/small04", noise(201, 400_000))
	must(t, os.Chmod(w.path("big"), 0o600))
	must(t, os.Remove(w.path("d2/small05")))
	must(t, os.RemoveAll(w.path("void")))
	must(t, os.Remove(w.path("d0/to-big")))
	w.write("d0/to-big", []byte("a file now"))
	must(t, os.Rename(w.path("zz-last"), w.path("aa-first")))
	third := w.mustRun()
	w.check(third.Snapshot.ID)
	if third.Sent > 500_000 {
		t.Errorf("the third run sent %d bytes; chmod of a file of 700,000 bytes must cost an entry only", third.Sent)
	}
	// What was before is as it was.
	if n := w.entries(first.Snapshot.ID); n != w.entries(none.Snapshot.ID) {
		t.Errorf("the first two snapshots have %d and %d entries", n, w.entries(none.Snapshot.ID))
	}

	full := w.mustRun(func(o *backup.Options) { o.Full = true })
	w.check(full.Snapshot.ID)
	if full.Snapshot.Kind != snapshot.Full || full.Snapshot.Chain != full.Snapshot.ID {
		t.Errorf("--full made %+v", full.Snapshot)
	}
}

func (w *world) entries(id string) int {
	w.t.Helper()
	n := 0
	must(w.t, w.db.Entries(context.Background(), id, catalog.Query{}, func(snapshot.Entry) error { n++; return nil }))
	return n
}

func TestIncrementalsThenANewFull(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.write("f", []byte("x"))
	var kinds string
	for range 6 {
		r := w.mustRun(func(o *backup.Options) { o.Incrementals = 2 })
		kinds += string(r.Snapshot.Kind[0])
	}
	if kinds != "fiifii" {
		t.Errorf("kinds %s", kinds)
	}
}

// Touching, moving to another inode and back: the content is hashed, found the
// same, and not sent.
func TestSameContentIsNotSent(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.fill()
	w.mustRun()
	data := noise(77, 700_000)
	must(t, os.Remove(w.path("big")))
	w.write("big", data)
	must(t, os.Chtimes(w.path("d0/small00"), time.Unix(1, 5), time.Unix(1, 5)))
	r := w.mustRun()
	w.check(r.Snapshot.ID)
	if r.Volumes > 1 || r.Sent > 20_000 {
		t.Errorf("sent %d bytes in %d volumes", r.Sent, r.Volumes)
	}
	again := w.mustRun()
	if again.Counts.Metadata+again.Counts.Changed+again.Counts.New != 0 {
		t.Errorf("the next run found changes: %+v", again.Counts)
	}
}

func TestChecksumFindsWhatTimesHide(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.write("f", []byte("one"))
	first := w.mustRun()
	// As if the file system had kept all times: the catalog's idea of the file is made to fit.
	w.write("f", []byte("two"))
	info, err := os.Stat(w.path("f"))
	must(t, err)
	_ = info
	r := w.mustRun(func(o *backup.Options) { o.Checksum = true })
	w.check(r.Snapshot.ID)
	if r.Counts.Changed != 1 {
		t.Errorf("after %s: %+v", first.Snapshot.ID, r.Counts)
	}
	again := w.mustRun(func(o *backup.Options) { o.Checksum = true })
	if again.Counts.Changed+again.Counts.Metadata != 0 {
		t.Errorf("--checksum without changes: %+v", again.Counts)
	}
}

// A file younger than the clock's tick may change again without showing it.
func TestYoungFilesAreLookedIntoAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.write("f", []byte("one"))
	young := func(o *backup.Options) { o.Wall = func() time.Time { return time.Unix(0, 0) } }
	w.mustRun(young)
	rows, err := w.db.Rows(context.Background(), w.last().ID, "")
	must(t, err)
	defer rows.Close()
	for {
		r, err := rows.Next(context.Background())
		must(t, err)
		if r == nil {
			break
		}
		if r.Type == snapshot.File && r.CTime.Nsec >= 0 {
			t.Errorf("%s: change time %v is trusted", r.Path, r.CTime)
		}
	}
	r := w.mustRun()
	w.check(r.Snapshot.ID)
	if r.Counts.Changed+r.Counts.Metadata+r.Counts.New != 0 {
		t.Errorf("nothing changed, but %+v", r.Counts)
	}
}

func (w *world) last() catalog.Snapshot {
	w.t.Helper()
	all, err := w.db.Snapshots(context.Background(), w.set.ID)
	must(w.t, err)
	return all[len(all)-1]
}

func TestUnreadableIsReportedAndKept(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.fill()
	w.mustRun()
	broken := map[string]bool{w.path("d1/small04")[1:]: true, w.path("big")[1:]: true}
	r, err := w.run(func(o *backup.Options) { o.Tree = failing{o.Tree, broken}; o.Checksum = true })
	if failure.KindOf(err) != failure.Partial {
		t.Fatalf("error %v", err)
	}
	if r.Problems != 2 {
		t.Errorf("%d problems", r.Problems)
	}
	w.check(r.Snapshot.ID) // both are there as the first run stored them
	ps, err := w.db.Problems(context.Background(), r.Snapshot.ID)
	must(t, err)
	if len(ps) != 2 || !broken[ps[0].Path] || ps[0].Reason == "" {
		t.Errorf("problems: %+v", ps)
	}
}

func TestMissingSourceIsNoSnapshot(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.fill()
	w.mustRun()
	before := w.last()
	must(t, os.Rename(w.tree, w.tree+".away"))
	_, err := w.run(func(o *backup.Options) {})
	if err == nil {
		t.Fatal("a missing source is a success")
	}
	must(t, os.Rename(w.tree+".away", w.tree))
	r := w.mustRun()
	w.check(r.Snapshot.ID)
	if r.Snapshot.Base != before.ID {
		t.Errorf("base %s, want %s", r.Snapshot.Base, before.ID)
	}
}

// What is not mounted is an empty directory.
func TestEmptiedIsNoSnapshot(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.fill()
	w.mustRun()
	before := w.last()
	must(t, os.Rename(w.tree, w.tree+".away"))
	must(t, os.Mkdir(w.tree, 0o755))
	for range 2 {
		if _, err := w.run(); !errors.Is(err, backup.ErrEmptied) {
			t.Fatalf("an emptied tree: %v", err)
		}
	}
	if _, err := backup.DryRun(context.Background(), w.options(nil), false); !errors.Is(err, backup.ErrEmptied) {
		t.Errorf("a dry run of an emptied tree: %v", err)
	}
	must(t, os.Remove(w.tree))
	must(t, os.Rename(w.tree+".away", w.tree))
	r := w.mustRun()
	w.check(r.Snapshot.ID)
	if r.Snapshot.Base != before.ID || r.Counts.Deleted+r.Counts.New != 0 {
		t.Errorf("after it came back: %+v", r)
	}
	must(t, os.RemoveAll(w.tree))
	must(t, os.Mkdir(w.tree, 0o755))
	r = w.mustRun(func(o *backup.Options) { o.AllowEmpty = true })
	w.check(r.Snapshot.ID)
	w.mustRun() // empty as before
}

func TestShrunkIsSaid(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.fill()
	w.mustRun()
	for _, d := range []string{"d0", "d1"} {
		must(t, os.RemoveAll(w.path(d)))
	}
	must(t, os.Remove(w.path("big")))
	r := w.mustRun()
	w.check(r.Snapshot.ID)
	if !r.Shrunk {
		t.Error("not said")
	}
}

func TestDryRunChangesNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.fill()
	plan, err := backup.DryRun(context.Background(), w.options(nil), false)
	must(t, err)
	if plan.Counts.New == 0 || plan.Snapshot.Kind != snapshot.Full {
		t.Errorf("plan %+v", plan)
	}
	read, err := backup.DryRun(context.Background(), w.options(nil), true)
	must(t, err)
	if read.Volumes < 4 || read.Counts != plan.Counts {
		t.Errorf("read %+v, planned %+v", read, plan)
	}
	all, err := w.db.Snapshots(context.Background(), w.set.ID)
	must(t, err)
	names, err := filepath.Glob(filepath.Join(w.vault.Root(), "archives", "*"))
	must(t, err)
	if len(all) != 0 || len(names) != 0 {
		t.Errorf("left behind: %v, %v", all, names)
	}
	w.mustRun()
	w.write("more", []byte("more"))
	plan, err = backup.DryRun(context.Background(), w.options(nil), false)
	must(t, err)
	if plan.Counts.New != 1 || plan.Snapshot.Kind != snapshot.Incremental {
		t.Errorf("plan %+v", plan)
	}
}

func TestHardLinksMadeLater(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.write("m", noise(1, 100_000))
	w.write("x/keep", []byte("k"))
	w.mustRun()
	must(t, os.Link(w.path("m"), w.path("z")))
	must(t, os.Link(w.path("m"), w.path("a")))
	r := w.mustRun()
	w.check(r.Snapshot.ID)
	w.sameAddress(r.Snapshot.ID, "a", "m", "z")
	if r.Sent > 120_000 {
		t.Errorf("sent %d bytes: more than one copy", r.Sent)
	}
	must(t, os.Remove(w.path("a")))
	r = w.mustRun()
	w.check(r.Snapshot.ID)
	w.sameAddress(r.Snapshot.ID, "m", "z")
	if r.Volumes > 1 || r.Sent > 5_000 {
		t.Errorf("sent %d bytes for a removed name", r.Sent)
	}
}

func (w *world) sameAddress(id string, names ...string) {
	w.t.Helper()
	var first snapshot.Entry
	for i, n := range names {
		var e snapshot.Entry
		must(w.t, w.db.Entries(context.Background(), id, catalog.Query{Under: []string{w.path(n)[1:]}}, func(x snapshot.Entry) error { e = x; return nil }))
		if i == 0 {
			first = e
		}
		if e.Content != first.Content || e.LinkGroup != first.LinkGroup || e.LinkGroup == "" {
			w.t.Errorf("%s and %s are no names of one file: %+v, %+v", names[0], n, first, e)
		}
	}
}

func TestExcludedLaterIsGone(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.fill()
	w.mustRun()
	r := w.mustRun(func(o *backup.Options) {
		var err error
		o.Tree, err = tree.New(tree.Options{Paths: []string{w.tree}, Exclude: []string{"big", "d1/"}})
		must(t, err)
	})
	must(t, os.Remove(w.path("big")))
	must(t, os.RemoveAll(w.path("d1")))
	got := w.entries(r.Snapshot.ID)
	last := w.mustRun()
	w.check(last.Snapshot.ID)
	if n := w.entries(last.Snapshot.ID); n != got {
		t.Errorf("%d entries with excludes, %d without the files", got, n)
	}
}

package backup_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/firn-backup/firn/internal/backup"
	"github.com/firn-backup/firn/internal/catalog"
	"github.com/firn-backup/firn/internal/coldstore/faultstore"
	"github.com/firn-backup/firn/internal/coldstore/localdir"
	"github.com/firn-backup/firn/internal/failure"
	"github.com/firn-backup/firn/internal/snapshot"
)

// kill runs a backup that ends before its nth archive is begun.
func (w *world) kill(n int, change ...func(*backup.Options)) {
	w.t.Helper()
	_, err := w.through(faultstore.New(faultstore.Fault{Mode: faultstore.DeadFrom, Method: "CreateUpload", Call: n}), change...)
	if err == nil {
		w.t.Fatal("the run was not interrupted")
	}
}

func (w *world) snapshots() []catalog.Snapshot {
	w.t.Helper()
	snaps, err := w.db.Snapshots(context.Background(), w.set.ID)
	must(w.t, err)
	return snaps
}

// What changed between an interruption and the run that goes on is in the newest
// snapshot, whether or not it was read before; and where nothing did there is one snapshot only.
func TestChangesBetweenTheRuns(t *testing.T) {
	t.Parallel()
	probe := newWorld(t)
	probe.fill()
	count := faultstore.New(faultstore.Fault{})
	_, err := probe.through(count)
	must(t, err)
	manifest := count.Count("CreateUpload") - 1

	for _, at := range []int{1, 4, 5, manifest} {
		for name, change := range map[string]func(*world){
			"nothing": func(*world) {},
			"changed": func(w *world) { w.write("d0/small00", noise(200, 999)) },
			"new":     func(w *world) { w.write("a/new", []byte("new")) },
			"deleted": func(w *world) { must(t, os.Remove(w.path("d0/small03"))) },
			"mode":    func(w *world) { must(t, os.Chmod(w.path("d0/small06"), 0o600)) },
			"linked":  func(w *world) { must(t, os.Link(w.path("d0/small06"), w.path("d0/again"))) },
		} {
			w := newWorld(t)
			w.fill()
			w.kill(at)
			change(w)
			res := w.mustRun()
			w.check(w.last().ID)
			w.noOrphans()
			snaps := w.snapshots()
			if want := 2; name == "nothing" {
				want = 1
				if len(snaps) != want || len(res.Settled) != 0 {
					t.Errorf("%s at %d: %d snapshots, settled %v", name, at, len(snaps), res.Settled)
				}
			} else if len(snaps) > want || res.Snapshot.ID != w.last().ID {
				t.Errorf("%s at %d: %d snapshots, the result is %s", name, at, len(snaps), res.Snapshot.ID)
			} else if len(snaps) == want && (len(res.Settled) != 1 || res.Settled[0] != snaps[0].ID || snaps[1].Kind != snapshot.Incremental) {
				t.Errorf("%s at %d: settled %v", name, at, res.Settled)
			}
			if !res.Resumed {
				t.Errorf("%s at %d: not resumed", name, at)
			}
			// The sums are those of the tree, however much of it was read before.
			var entries, bytes int64
			must(t, w.db.Entries(context.Background(), w.last().ID, catalog.Query{}, func(e snapshot.Entry) error {
				entries++
				bytes += e.Size
				return nil
			}))
			if got := w.last().Totals; got.Entries != entries || got.Bytes != bytes || got.Entries == 0 {
				t.Errorf("%s at %d: totals %+v, and there are %d entries of %d bytes", name, at, got, entries, bytes)
			}
			if res := w.mustRun(); res.Counts.New+res.Counts.Changed+res.Counts.Metadata+res.Counts.Deleted != 0 {
				t.Errorf("%s at %d: the run after it found %+v", name, at, res.Counts)
			}
		}
	}
}

// The names of an inode that changed between the runs are names of one inode again in the newest snapshot, although the
// attempt has one as it was before and one as it was after.
func TestLinksOfWhatChangedBetweenTheRuns(t *testing.T) {
	t.Parallel()
	for _, size := range []int{0, 100, 300 << 10} {
		w := newWorld(t)
		w.fill()
		w.write("a-first", noise(7, 300<<10))
		for _, name := range []string{"d0/again", "z-last"} {
			must(t, os.Link(w.path("a-first"), w.path(name)))
		}
		w.kill(4)
		w.write("a-first", noise(8, size)) // all names: it is written in place
		w.mustRun()
		w.check(w.last().ID)
		w.sameAddress(w.last().ID, "a-first", "d0/again", "z-last")
		if res := w.mustRun(); res.Counts.New+res.Counts.Changed+res.Counts.Metadata+res.Counts.Deleted != 0 {
			t.Errorf("%d bytes: the run after it found %+v", size, res.Counts)
		}
	}
}

// Sets that make full snapshots only do not keep the changes for later either.
func TestChangesBetweenTheRunsOfFulls(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.fill()
	full := func(o *backup.Options) { o.Full, o.Incrementals = true, 1 }
	w.kill(5, full)
	w.write("d0/small00", noise(200, 999))
	w.mustRun(full)
	w.check(w.last().ID)
	if n := len(w.snapshots()); n != 2 {
		t.Errorf("%d snapshots", n)
	}
}

// A vault that does not have any more what an incremental would build on: nothing is stored, and it is said.
func TestBaseLost(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	w := newWorld(t)
	w.fill()
	first := w.mustRun()
	must(t, w.vault.Delete(ctx, first.Snapshot.ManifestPart.Archive))
	_, err := w.run()
	if !errors.Is(err, backup.ErrBaseLost) || failure.KindOf(err) != failure.Damaged {
		t.Errorf("without the base's manifest: %v", err)
	}
	if n := len(w.snapshots()); n != 1 {
		t.Errorf("%d snapshots", n)
	}

	// A vault in the same place that is another one.
	must(t, os.RemoveAll(w.vault.Root()))
	w.vault, err = localdir.Create(w.vault.Root(), localdir.Options{Now: w.now})
	must(t, err)
	if _, err := w.run(); !errors.Is(err, backup.ErrBaseLost) {
		t.Errorf("in another vault: %v", err)
	}
	w.mustRun(func(o *backup.Options) { o.Full = true })
	w.check(w.last().ID)
	w.write("more", []byte("more"))
	w.mustRun()
	w.check(w.last().ID)

	// Damaged is as good as lost.
	must(t, os.Truncate(filepath.Join(w.vault.Root(), "archives", w.last().ManifestPart.Archive), 3))
	if _, err := w.run(); !errors.Is(err, backup.ErrBaseLost) {
		t.Errorf("with a damaged manifest: %v", err)
	}
}

// An attempt does not go on with volumes that the vault does not have any more.
func TestAttemptsVolumesLost(t *testing.T) {
	t.Parallel()
	for _, lose := range []string{"one", "cut", "vault"} {
		w := newWorld(t)
		w.fill()
		w.kill(3)
		vols, err := w.db.Volumes(context.Background(), w.last().ID)
		must(t, err)
		path := filepath.Join(w.vault.Root(), "archives", vols[0].Archive)
		switch lose {
		case "one":
			must(t, w.vault.Delete(context.Background(), vols[0].Archive))
		case "cut":
			must(t, os.Truncate(path, 10))
		case "vault":
			must(t, os.RemoveAll(w.vault.Root()))
			w.vault, err = localdir.Create(w.vault.Root(), localdir.Options{Now: w.now})
			must(t, err)
		}
		res := w.mustRun()
		if res.Resumed {
			t.Errorf("%s: it went on", lose)
		}
		w.check(w.last().ID)
	}
}

package backup_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/firn-backup/firn/internal/backup"
	"github.com/firn-backup/firn/internal/catalog"
	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/internal/coldstore/faultstore"
	"github.com/firn-backup/firn/internal/coldstore/localdir"
	"github.com/firn-backup/firn/internal/snapshot"
)

// through runs a backup through a vault with faults.
func (w *world) through(f *faultstore.Faults, change ...func(*backup.Options)) (backup.Result, error) {
	return w.run(append(change, func(o *backup.Options) { o.Store = f.Wrap(w.vault) })...)
}

// archives are the names of all archives in the vault.
func (w *world) archives() map[string]bool {
	w.t.Helper()
	all := map[string]bool{}
	_, err := w.vault.List(context.Background(), func(a coldstore.Archive) error { all[a.ID] = true; return nil })
	must(w.t, err)
	return all
}

// noOrphans proves that every archive in the vault belongs to a snapshot, and
// that no upload was left open.
func (w *world) noOrphans() {
	w.t.Helper()
	ctx := context.Background()
	all := w.archives()
	snaps, err := w.db.Snapshots(ctx, w.set.ID)
	must(w.t, err)
	for _, s := range snaps {
		vols, err := w.db.Volumes(ctx, s.ID)
		must(w.t, err)
		for _, v := range vols {
			if !all[v.Archive] {
				w.t.Errorf("%s: volume %d is not in the vault", s.ID, v.N)
			}
			delete(all, v.Archive)
		}
		delete(all, s.ManifestPart.Archive)
	}
	for a := range all {
		w.t.Errorf("orphan: %s", a)
	}
	must(w.t, w.vault.ListUploads(ctx, func(u coldstore.Upload) error {
		// One without parts may stay when the answer to its beginning was lost, until the next run.
		if parts, err := w.vault.ListParts(ctx, u.ID); err != nil || len(parts) > 0 {
			w.t.Errorf("upload left open: %s, %d parts, %v", u.Name, len(parts), err)
		}
		return nil
	}))
}

// Every row of docs/design/crashes.md.
func TestCrash(t *testing.T) {
	t.Parallel()
	// What a run without faults calls: the last upload is the manifest's.
	probe := newWorld(t)
	probe.fill()
	count := faultstore.New(faultstore.Fault{})
	_, err := probe.through(count)
	must(t, err)
	creates, completes := count.Count("CreateUpload"), count.Count("CompleteUpload")

	at := func(m faultstore.Mode, method string, call int) faultstore.Fault {
		return faultstore.Fault{Mode: m, Method: method, Call: call}
	}
	rows := []struct {
		name   string
		fault  faultstore.Fault
		change func(*world) // between the runs
		stored int          // volumes that the second run must find stored; -1: the snapshot itself
	}{
		{name: "begun", fault: at(faultstore.DeadFrom, "CreateUpload", 0)},
		{name: "upload-created", fault: at(faultstore.DeadAfter, "CreateUpload", 2), stored: 2},
		{name: "part-lost", fault: at(faultstore.DeadFrom, "PutPart", 2), stored: 2},
		{name: "part-stored", fault: at(faultstore.DeadAfter, "PutPart", 1), stored: 1},
		{name: "before-pending", fault: at(faultstore.DeadAfter, "PutPart", 3), stored: 3},
		{name: "complete-lost", fault: at(faultstore.DeadFrom, "CompleteUpload", 1), stored: 2},
		{name: "complete-stored", fault: at(faultstore.DeadAfter, "CompleteUpload", 1), stored: 2},
		{name: "volume-recorded", fault: at(faultstore.DeadFrom, "CreateUpload", 2), stored: 2},
		{name: "file-changed", fault: at(faultstore.DeadFrom, "CreateUpload", 2), stored: 2,
			change: func(w *world) { w.write("big", noise(99, 650_000)) }},
		{name: "stream-ended", fault: at(faultstore.DeadFrom, "CreateUpload", creates-1), stored: creates - 1},
		{name: "manifest-lost", fault: at(faultstore.DeadFrom, "CompleteUpload", completes-1), stored: -1},
		{name: "manifest-stored", fault: at(faultstore.DeadAfter, "CompleteUpload", completes-1), stored: -1},
		{name: "done", stored: -1},
	}
	page, err := os.ReadFile("../../docs/design/crashes.md")
	must(t, err)
	for _, row := range rows {
		if !strings.Contains(string(page), "\n| `"+row.name+"` |") {
			t.Errorf("the page has no row %s", row.name)
		}
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.fill()
			f := faultstore.New(row.fault)
			_, err := w.through(f)
			if (err == nil) != (row.name == "done") {
				t.Fatalf("first run: %v", err)
			}
			if row.change != nil {
				row.change(w)
			}
			g := faultstore.New(faultstore.Fault{})
			res, err := w.through(g)
			if row.change == nil {
				must(t, err)
			}
			w.check(w.last().ID)
			w.noOrphans()
			if row.stored < 0 {
				snaps, err := w.db.Snapshots(context.Background(), w.set.ID)
				must(t, err)
				if len(snaps) != 2 || snaps[0].Kind != snapshot.Full || res.Volumes != 0 {
					t.Errorf("%d snapshots, and the second run sent %d volumes", len(snaps), res.Volumes)
				}
				w.check(snaps[0].ID)
				return
			}
			if res.Resumed != (row.stored > 0) {
				t.Errorf("resumed: %v", res.Resumed)
			}
			for _, part := range g.Sent() {
				for n := 1; n <= row.stored; n++ {
					if strings.Contains(part.Name, fmt.Sprintf("/%06d-", n)) {
						t.Errorf("volume %d was sent again: %s", n, part.Name)
					}
				}
			}
		})
	}
}

// The power fails before a completion, and the vault's file system loses what it was told of the parts, which is not synced: the volume is
// sent again, and nothing is stuck.
func TestPowerFails(t *testing.T) {
	t.Parallel()
	for _, lose := range []string{"the parts", "the upload"} {
		for n := 0; ; n++ {
			w := newWorld(t)
			w.fill()
			f := faultstore.New(faultstore.Fault{Mode: faultstore.DeadFrom, Method: "CompleteUpload", Call: n})
			if _, err := w.through(f); err == nil {
				break
			}
			logs, err := filepath.Glob(filepath.Join(w.vault.Root(), "uploads", "*", "upload.jsonl"))
			must(t, err)
			if len(logs) == 0 {
				t.Fatal("no upload is open")
			}
			for _, log := range logs {
				text, err := os.ReadFile(log)
				must(t, err)
				text, _, _ = bytes.Cut(bytes.TrimLeft(text, "\n"), []byte("\n"))
				if lose == "the upload" {
					text = nil
				}
				must(t, os.WriteFile(log, append(text, '\n'), 0o600))
			}
			var failed error
			w.vault, failed = localdir.Open(w.vault.Root(), localdir.Options{Now: w.now}) // as a new process
			must(t, failed)
			w.mustRun()
			w.check(w.last().ID)
			w.noOrphans()
			if t.Failed() {
				t.Fatalf("%s lost at completion %d", lose, n)
			}
		}
	}
}

// A fault at every call of a run, one after the other, each in every way: the run that
// follows always ends in a whole snapshot, and nothing is stored twice.
func TestFaultAtEveryCall(t *testing.T) {
	t.Parallel()
	for _, mode := range []faultstore.Mode{faultstore.LostBefore, faultstore.LostAfter, faultstore.DeadFrom, faultstore.DeadAfter} {
		for _, lasting := range []int{1, -1} {
			if lasting < 0 && (mode == faultstore.DeadFrom || mode == faultstore.DeadAfter) {
				continue
			}
			t.Run(fmt.Sprintf("%s-%d", mode, lasting), func(t *testing.T) {
				t.Parallel()
				for n := 0; ; n++ {
					if !faultAt(t, faultstore.Fault{Mode: mode, Call: n, Times: lasting}) {
						break
					}
				}
			})
		}
	}
}

// faultAt makes a first backup and an incremental one with a fault at one
// of their calls, and says whether it was met.
func faultAt(t *testing.T, fault faultstore.Fault) bool {
	w := newWorld(t)
	w.fill()
	f := faultstore.New(fault)
	_, err := w.through(f)
	met := f.Hit()
	if err != nil {
		if !met {
			t.Fatalf("call %d: %v", fault.Call, err)
		}
		w.mustRun()
	}
	w.check(w.last().ID)
	w.noOrphans()
	if t.Failed() {
		t.Fatalf("fault at call %d of the first backup", fault.Call)
	}
	w.write("d0/more", noise(123, 300_000))
	must(t, os.Remove(w.path("d1/small01")))
	fault.Call -= f.Count("")
	if met || fault.Call < 0 {
		return met
	}
	f = faultstore.New(fault)
	if _, err := w.through(f); err != nil {
		w.mustRun()
	}
	w.check(w.last().ID)
	w.noOrphans()
	if t.Failed() {
		t.Fatalf("fault at call %d of the second backup", fault.Call)
	}
	return f.Hit()
}

// Volumes of a few KiB cut everything everywhere: headers, padding, the
// trailer. A kill after each of them, and another volume size, must not show.
func TestResumeAtEveryCut(t *testing.T) {
	t.Parallel()
	for _, size := range []int64{1536, 4096, 10_000, 33_333} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			for i := range 6 {
				w.write(fmt.Sprintf("f%d", i), noise(byte(i), i*1111))
			}
			must(t, os.Link(w.path("f5"), w.path("g5")))
			must(t, os.Symlink(strings.Repeat("long/", 100), w.path("h")))
			w.write("i", noise(9, 512))
			for runs := 0; ; runs++ {
				f := faultstore.New(faultstore.Fault{Mode: faultstore.DeadFrom, Method: "CreateUpload", Call: 1})
				_, err := w.through(f, func(o *backup.Options) { o.VolumeSize, o.FrameSize = size, 512 })
				if err == nil {
					break
				}
				if runs > 60 {
					t.Fatalf("no end: %v", err)
				}
			}
			w.check(w.last().ID)
			w.noOrphans()
		})
	}
}

// The same, with a file that changes between the runs: what was stored of it is
// filled up, and it is stored anew.
func TestResumeOfChangingFiles(t *testing.T) {
	t.Parallel()
	for _, size := range []int64{1536, 4096, 33_333} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			for i := range 4 {
				w.write(fmt.Sprintf("f%d", i), noise(byte(i), 2000+i*1111))
			}
			changed := 0
			for runs := 0; ; runs++ {
				f := faultstore.New(faultstore.Fault{Mode: faultstore.DeadFrom, Method: "CreateUpload", Call: 1})
				res, err := w.through(f, func(o *backup.Options) { o.VolumeSize, o.FrameSize = size, 512 })
				if w.last().State == catalog.Stored {
					// What is stored anew is no problem.
					if err != nil || res.Problems != 0 {
						t.Errorf("%d problems, %v", res.Problems, err)
					}
					break
				}
				if runs > 80 {
					t.Fatalf("no end: %v", err)
				}
				if changed < 5 {
					changed++
					for i := range 4 {
						w.write(fmt.Sprintf("f%d", i), noise(byte(100+changed), 2000+i*1111+changed))
					}
				}
			}
			w.raw(w.last().ID)
			// Files read before they changed are stored as they were: the next run finds them all.
			w.mustRun()
			w.check(w.last().ID)
		})
	}
}

// Other paths, excludes, codecs or recipients make another stream: the attempt
// is given up, and what it stored is named.
func TestOtherParamsBeginAnew(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.fill()
	_, err := w.through(faultstore.New(faultstore.Fault{Mode: faultstore.DeadFrom, Method: "CreateUpload", Call: 2}))
	if err == nil {
		t.Fatal("no fault")
	}
	res := w.mustRun(func(o *backup.Options) { o.Params = "v2" })
	w.check(res.Snapshot.ID)
	if len(res.Orphans) != 2 || res.Resumed {
		t.Errorf("resumed %v, orphans %v", res.Resumed, res.Orphans)
	}
	all := w.archives()
	for _, o := range res.Orphans {
		if !all[o] {
			t.Errorf("orphan %s is not in the vault", o)
		}
	}
}

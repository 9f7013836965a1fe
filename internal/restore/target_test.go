package restore_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/firn-backup/firn/internal/extract"
	"github.com/firn-backup/firn/internal/failure"
	"github.com/firn-backup/firn/internal/mustrun"
	"github.com/firn-backup/firn/internal/restore"
	"github.com/firn-backup/firn/internal/restore/restoretest"
	"github.com/firn-backup/firn/internal/source/sourcetest"
)

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

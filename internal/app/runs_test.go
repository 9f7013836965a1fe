package app

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/firn-backup/firn/internal/catalog"
	"github.com/firn-backup/firn/internal/failure"
)

func TestRunLog(t *testing.T) {
	t.Parallel()
	h := newHome(t)
	file := filepath.Join(h.dir, "firn.log")
	o := h.options()
	o.LogFile, o.LogLevel = &file, "warn"
	a, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	r, err := a.BeginRun(t.Context(), "backup", "docs")
	if err != nil {
		t.Fatal(err)
	}
	r.Info("not wanted at this level")
	r.Warn("cannot read", "path", "a\nb")
	if err := r.End(t.Context(), 3, "1 problem"); err != nil {
		t.Fatal(err)
	}
	log, err := a.OpenRunLog(r.ID)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	text, err := io.ReadAll(log)
	if err != nil {
		t.Fatal(err)
	}
	also, err := os.ReadFile(file)
	if err != nil || string(also) != string(text) {
		t.Errorf("the log file differs: %q, %v", also, err)
	}
	if strings.Count(string(text), "\n") != 1 || !strings.Contains(string(text), `path="a\nb"`) {
		t.Errorf("%q", text)
	}
	db, err := a.Catalog(t.Context(), false)
	if err != nil {
		t.Fatal(err)
	}
	runs, err := db.Runs(t.Context(), "docs", 10)
	if err != nil || len(runs) != 1 || runs[0].ID != r.ID || runs[0].Exit != 3 || runs[0].Summary != "1 problem" || !runs[0].Ended.Equal(h.now) {
		t.Errorf("%+v, %v", runs, err)
	}
	if _, err := a.OpenRunLog(newID(t)); failure.KindOf(err) != failure.NotFound {
		t.Error(err)
	}
	for _, bad := range []string{"loud", "info+2", "WARN-1"} {
		o.LogLevel = bad
		if _, err := New(o); failure.KindOf(err) != failure.Usage {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestOldLogsGo(t *testing.T) {
	t.Parallel()
	h := newHome(t)
	a := h.open()
	if err := os.MkdirAll(a.Paths.Runs, 0o700); err != nil {
		t.Fatal(err)
	}
	for range keptRuns + 5 {
		if err := os.WriteFile(a.runLog(newID(t)), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	keep := filepath.Join(a.Paths.Runs, "0-not-ours.log")
	if err := os.WriteFile(keep, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	r, err := a.BeginRun(t.Context(), "verify", "")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.End(t.Context(), 0, "") }()
	entries, err := os.ReadDir(a.Paths.Runs)
	if err != nil || len(entries) > keptRuns+1 {
		t.Errorf("%d logs kept, %v", len(entries), err)
	}
	if _, err := os.Stat(keep); err != nil {
		t.Error(err)
	}
}

func TestLockSet(t *testing.T) {
	t.Parallel()
	h := newHome(t)
	a, b := h.open(), h.open()
	set := catalog.Set{ID: newID(t), Name: "docs", Host: "nb", Vault: "dir:/v"}
	h.put(a, set)
	held, release, err := a.LockSet(t.Context(), set)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := b.LockSet(t.Context(), set); failure.KindOf(err) != failure.Locked || !strings.Contains(err.Error(), "docs") {
		t.Errorf("held twice: %v", err)
	}
	if held.Err() != nil {
		t.Error(held.Err())
	}
	release()
	if held.Err() == nil {
		t.Error("the context outlives the lock")
	}
	_, release, err = b.LockSet(t.Context(), set)
	if err != nil {
		t.Fatal(err)
	}
	release()

	// What a killed run left on this machine does not hold up the next, and
	// what one on another machine holds does.
	db, err := a.Catalog(t.Context(), true)
	if err != nil {
		t.Fatal(err)
	}
	if ok, err := db.Lease(t.Context(), set.ID, a.leaseHolder(), leaseTime, wall()); err != nil || !ok {
		t.Fatal(ok, err)
	}
	_, release, err = a.LockSet(t.Context(), set)
	if err != nil {
		t.Fatalf("after a kill: %v", err)
	}
	release()
	if ok, err := db.Lease(t.Context(), set.ID, "another machine", leaseTime, wall()); err != nil || !ok {
		t.Fatal(ok, err)
	}
	if _, _, err := a.LockSet(t.Context(), set); failure.KindOf(err) != failure.Locked {
		t.Errorf("another machine holds it: %v", err)
	}
}

package prune_test

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/firn-backup/firn/internal/backup"
	"github.com/firn-backup/firn/internal/catalog"
	"github.com/firn-backup/firn/internal/catalog/sqlite"
	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/internal/coldstore/faultstore"
	"github.com/firn-backup/firn/internal/coldstore/localdir"
	"github.com/firn-backup/firn/internal/failure"
	"github.com/firn-backup/firn/internal/plan"
	"github.com/firn-backup/firn/internal/prune"
	"github.com/firn-backup/firn/internal/recovery"
	"github.com/firn-backup/firn/internal/restore/restoretest"
	"github.com/firn-backup/firn/internal/transfer"
	"github.com/firn-backup/firn/treehash"
)

const day = 24 * time.Hour

func policy() plan.Policy {
	return plan.Policy{Incrementals: 1, Retention: plan.Retention{Expire: 10 * day}}
}

// site is a vault and a catalog that can be copied.
type site struct {
	t   *testing.T
	w   *restoretest.World
	db  *catalog.DB
	v   *localdir.Store
	now time.Time
}

// origin makes a set of chains, a snapshot every four days.
func origin(t *testing.T, snapshots int) *site {
	t.Helper()
	w := restoretest.New(t, "zstd:1", "age", 0)
	w.Write("big", restoretest.Noise(7, 400_000))
	for i := range snapshots {
		w.Write(fmt.Sprint("f", i), restoretest.Noise(byte(i), 50_000))
		w.Backup(func(o *backup.Options) { o.Incrementals = 1 })
		w.Advance(4 * day)
	}
	return &site{t: t, w: w, db: w.DB, v: w.Vault, now: w.Now()}
}

// copyTo copies a site's files; its catalog must not be open for writing.
func (s *site) copyTo(t *testing.T, dir string) *site {
	t.Helper()
	must(t, os.CopyFS(filepath.Join(dir, "vault"), os.DirFS(s.v.Root())))
	cats, err := filepath.Glob(filepath.Join(s.w.Dir, "catalog-*", "*"))
	must(t, err)
	for _, c := range cats {
		b, err := os.ReadFile(c)
		must(t, err)
		must(t, os.WriteFile(filepath.Join(dir, filepath.Base(c)), b, 0o600))
	}
	return open(t, s.w, dir, s.now)
}

func open(t *testing.T, w *restoretest.World, dir string, now time.Time) *site {
	t.Helper()
	c := &site{t: t, w: w, now: now}
	var err error
	c.v, err = localdir.Open(filepath.Join(dir, "vault"), localdir.Options{})
	must(t, err)
	c.db, err = sqlite.Open(context.Background(), filepath.Join(dir, "catalog.db"), sqlite.Options{})
	must(t, err)
	t.Cleanup(func() { c.db.Close() })
	return c
}

func (s *site) options(set catalog.Set) prune.Options {
	return prune.Options{
		Catalog: s.db, Set: set, Policy: policy(), Tidy: true, Now: func() time.Time { return s.now },
		Open:     func(context.Context, string) (prune.Store, error) { return s.v, nil },
		Transfer: transfer.Options{Sleep: func(ctx context.Context, _ time.Duration) error { return ctx.Err() }},
	}
}

// memory is a directory in memory where there is one: these tests sync thousands of times.
func memory(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "firn-test-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// archives are those in the vault.
func (s *site) archives() map[string]bool {
	s.t.Helper()
	all := map[string]bool{}
	_, err := s.v.List(context.Background(), func(a coldstore.Archive) error { all[a.ID] = true; return nil })
	must(s.t, err)
	return all
}

// whole proves that all that the catalog believes in is in the vault, and that a recovery on another machine
// finds nothing that cannot be restored, and at least the newest chain. It returns what nobody names.
func (s *site) whole() (snaps []string, strays map[string]bool) {
	s.t.Helper()
	ctx := context.Background()
	strays = s.archives()
	all, err := s.db.Snapshots(ctx, s.w.Set.ID)
	must(s.t, err)
	named := map[string]bool{}
	for _, x := range all {
		snaps = append(snaps, x.ID)
		named[x.ManifestPart.Archive] = true
		vols, err := s.db.Volumes(ctx, x.ID)
		must(s.t, err)
		for _, v := range vols {
			named[v.Archive] = true
		}
	}
	for a := range named {
		if !strays[a] {
			s.t.Errorf("%s is needed, and not in the vault", a)
		}
		delete(strays, a)
	}
	dir := memory(s.t)
	defer os.RemoveAll(dir)
	other, err := sqlite.Open(ctx, filepath.Join(dir, "other.db"), sqlite.Options{})
	must(s.t, err)
	defer other.Close()
	res, err := recovery.Run(ctx, recovery.Options{
		Catalog: other, Lister: s.v, Store: s.v, Vault: s.w.URL, Codecs: s.w.Codecs(), Now: s.w.Now,
		Signers: []ed25519.PublicKey{s.w.Signer.Public().(ed25519.PublicKey)},
	})
	if err != nil || res.Recovered < len(snaps) {
		s.t.Errorf("recovered %d of %d: %v", res.Recovered, len(snaps), err)
	}
	for _, id := range snaps {
		if _, err := other.Snapshot(ctx, id); err != nil {
			s.t.Error(err)
		}
	}
	return snaps, strays
}

// done proves that the set is as a prune that nothing interrupts leaves it.
func (s *site) done(kept int) {
	s.t.Helper()
	snaps, strays := s.whole()
	if len(snaps) != kept || len(strays) > 0 {
		s.t.Errorf("%d snapshots, and %d archives that nobody names", len(snaps), len(strays))
	}
	must(s.t, s.db.Doomed(context.Background(), s.w.Set.ID, func(x catalog.Doomed) error {
		s.t.Errorf("%s is still to be deleted", x.Archive)
		return nil
	}))
}

func TestPrune(t *testing.T) {
	t.Parallel()
	s := origin(t, 7) // four chains at days 0/4, 8/12, 16/20, 24; it is day 28
	ctx := context.Background()
	o := s.options(s.w.Set)
	o.DryRun = true
	before := s.archives()
	res, err := prune.Run(ctx, o)
	must(t, err)
	if len(res.Chains) != 2 || res.Snapshots != 4 || res.Archives != 0 || len(s.archives()) != len(before) {
		t.Errorf("dry run: %+v", res)
	}
	o.DryRun = false
	res, err = prune.Run(ctx, o)
	must(t, err)
	if len(res.Chains) != 2 || res.Snapshots != 4 || int(res.Archives) != len(before)-len(s.archives()) || res.Orphans != 0 {
		t.Errorf("%+v", res)
	}
	s.done(3)
	res, err = prune.Run(ctx, o)
	must(t, err)
	if len(res.Chains)+res.Snapshots+int(res.Archives) != 0 {
		t.Errorf("again: %+v", res)
	}
	// However old, the newest chain stays.
	s.now = s.now.Add(9999 * day)
	_, err = prune.Run(ctx, o)
	must(t, err)
	s.done(1)
}

// A fault at every call, in every way: whatever is left is whole, and the next run ends the work.
func TestFaultAtEveryCall(t *testing.T) {
	t.Parallel()
	from := origin(t, 5)
	must(t, from.db.Close())
	base := memory(t)
	for _, mode := range []faultstore.Mode{faultstore.LostBefore, faultstore.LostAfter, faultstore.DeadFrom, faultstore.DeadAfter} {
		for n := 0; ; n++ {
			dir := filepath.Join(base, fmt.Sprint(mode, n))
			must(t, os.Mkdir(dir, 0o700))
			s := from.copyTo(t, dir)
			f := faultstore.New(faultstore.Fault{Mode: mode, Call: n, Times: -1})
			o := s.options(s.w.Set)
			o.Open = func(context.Context, string) (prune.Store, error) { return f.Wrap(s.v), nil }
			_, err := prune.Run(context.Background(), o)
			if (err != nil) != f.Hit() {
				t.Fatalf("%v at call %d: %v", mode, n, err)
			}
			s.whole()
			_, err = prune.Run(context.Background(), s.options(s.w.Set))
			must(t, err)
			s.done(3)
			s.db.Close()
			must(t, os.RemoveAll(dir))
			if !f.Hit() {
				if n < 5 {
					t.Errorf("%v: %d calls", mode, n)
				}
				break
			}
			if t.Failed() {
				t.Fatalf("%v at call %d", mode, n)
			}
		}
	}
}

// killer is a vault that kills its process before or after a call.
type killer struct {
	*localdir.Store
	step func()
}

func (k killer) List(ctx context.Context, fn func(coldstore.Archive) error) (time.Time, error) {
	k.step()
	defer k.step()
	return k.Store.List(ctx, fn)
}

func (k killer) Delete(ctx context.Context, id string) error {
	k.step()
	defer k.step()
	return k.Store.Delete(ctx, id)
}

type killingObserver struct{ step func() }

func (k killingObserver) Forgot(plan.Expiry)     { k.step() }
func (k killingObserver) Deleted(catalog.Doomed) { k.step() }
func (k killingObserver) Orphan(catalog.Doomed)  { k.step() }

// TestKilledChild is not a test: it is what TestKill runs and kills.
func TestKilledChild(t *testing.T) {
	dir := os.Getenv("FIRN_TEST_PRUNE")
	if dir == "" {
		t.Skip("for TestKill")
	}
	left, err := strconv.Atoi(os.Getenv("FIRN_TEST_STEP"))
	must(t, err)
	now, err := time.Parse(time.RFC3339, os.Getenv("FIRN_TEST_NOW"))
	must(t, err)
	step := func() {
		if left--; left < 0 {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {}
		}
	}
	s := open(t, nil, dir, now)
	set, err := s.db.SetByID(context.Background(), os.Getenv("FIRN_TEST_SET"))
	must(t, err)
	o := s.options(set)
	o.Open = func(context.Context, string) (prune.Store, error) { return killer{s.v, step}, nil }
	o.Parallel, o.Observe = 1, killingObserver{step}
	_, err = prune.Run(context.Background(), o)
	must(t, err)
}

// TestKill: kill -9 at every step loses nothing and orphans nothing.
func TestKill(t *testing.T) {
	t.Parallel()
	from := origin(t, 5)
	must(t, from.db.Close())
	base := memory(t)
	for n := 0; ; n++ {
		dir := filepath.Join(base, strconv.Itoa(n))
		must(t, os.Mkdir(dir, 0o700))
		s := from.copyTo(t, dir)
		must(t, s.db.Close())
		cmd := exec.Command(os.Args[0], "-test.run=^TestKilledChild$")
		cmd.Env = append(os.Environ(), "FIRN_TEST_PRUNE="+dir, "FIRN_TEST_STEP="+strconv.Itoa(n),
			"FIRN_TEST_NOW="+from.now.Format(time.RFC3339), "FIRN_TEST_SET="+from.w.Set.ID)
		out, err := cmd.CombinedOutput()
		var exit *exec.ExitError
		killed := errors.As(err, &exit) && exit.Sys().(syscall.WaitStatus).Signal() == syscall.SIGKILL
		if err != nil && !killed {
			t.Fatalf("%v: %s", err, out)
		}
		s = open(t, from.w, dir, from.now)
		s.whole()
		_, err = prune.Run(context.Background(), s.options(s.w.Set))
		must(t, err)
		s.done(3)
		s.db.Close()
		must(t, os.RemoveAll(dir))
		if t.Failed() {
			t.Fatalf("killed at step %d", n)
		}
		if !killed {
			if n < 15 {
				t.Errorf("only %d steps", n)
			}
			return
		}
	}
}

// A recovery on the same machine, while deletions are still to be done, does not bring back what has expired.
func TestRecoverBetween(t *testing.T) {
	t.Parallel()
	s := origin(t, 5)
	ctx := context.Background()
	f := faultstore.New(faultstore.Fault{Mode: faultstore.DeadFrom, Method: "Delete"})
	o := s.options(s.w.Set)
	o.Open = func(context.Context, string) (prune.Store, error) { return f.Wrap(s.v), nil }
	if _, err := prune.Run(ctx, o); !errors.Is(err, faultstore.ErrDead) {
		t.Fatal(err)
	}
	res, err := recovery.Run(ctx, recovery.Options{
		Catalog: s.db, Lister: s.v, Store: s.v, Vault: s.w.URL, Codecs: s.w.Codecs(), Now: s.w.Now,
		Signers: []ed25519.PublicKey{s.w.Signer.Public().(ed25519.PublicKey)},
	})
	must(t, err)
	if res.Recovered != 0 || res.Kept != 3 {
		t.Errorf("%+v", res)
	}
	_, err = prune.Run(ctx, s.options(s.w.Set))
	must(t, err)
	s.done(3)
}

// A copy of a manifest that was left behind brings nothing back.
func TestManifestWithoutVolumes(t *testing.T) {
	t.Parallel()
	s := origin(t, 3)
	ctx := context.Background()
	snaps, err := s.db.Snapshots(ctx, s.w.Set.ID)
	must(t, err)
	vols, err := s.db.Volumes(ctx, snaps[2].ID)
	must(t, err)
	for _, v := range vols {
		must(t, s.v.Delete(ctx, v.Archive))
	}
	other, err := sqlite.Open(ctx, filepath.Join(memory(t), "other.db"), sqlite.Options{})
	must(t, err)
	defer other.Close()
	_, err = recovery.Run(ctx, recovery.Options{
		Catalog: other, Lister: s.v, Store: s.v, Vault: s.w.URL, Codecs: s.w.Codecs(), Now: s.w.Now,
		Signers: []ed25519.PublicKey{s.w.Signer.Public().(ed25519.PublicKey)},
	})
	if failure.KindOf(err) != failure.Damaged || !strings.Contains(err.Error(), "it was deleted") {
		t.Error(err)
	}
	if _, err := other.Snapshot(ctx, snaps[2].ID); failure.KindOf(err) != failure.NotFound {
		t.Errorf("a snapshot of which nothing is left is in the catalog: %v", err)
	}
}

// young is a vault with a minimum storage duration, and a listing that may lag.
type young struct {
	*localdir.Store
	days int
	lag  time.Duration
}

// locking is a vault whose archives are locked for so many days, of which its Traits tell or not.
type locking struct {
	*localdir.Store
	days  int
	until time.Time // zero: no lock
}

func (l locking) Traits() coldstore.Traits {
	tr := l.Store.Traits()
	tr.LockDays = l.days
	return tr
}

func (l locking) Delete(ctx context.Context, archive string) error {
	if !l.until.IsZero() {
		return &coldstore.LockedError{Until: l.until, Err: errors.New("denied")}
	}
	return l.Store.Delete(ctx, archive)
}

// Whatever one would pay: what is locked stays, in the catalog too; of a lock that shows itself only then, the archives stay on the list.
func TestLocks(t *testing.T) {
	t.Parallel()
	s := origin(t, 5) // chains at days 0/4, 8/12, 16; it is day 20
	ctx := context.Background()
	o := s.options(s.w.Set)
	l := locking{s.v, 90, time.Time{}}
	o.Open = func(context.Context, string) (prune.Store, error) { return l, nil }
	o.AllowEarly = true
	o.Approve = func([]plan.Expiry) error { t.Error("asked for a fee"); return nil }
	res, err := prune.Run(ctx, o)
	must(t, err)
	if len(res.Waiting) != 1 || len(res.Chains) != 0 || !res.Waiting[0].LockedUntil.After(s.now.Add(70*day)) {
		t.Fatalf("%+v", res)
	}
	s.w.DB = s.db
	if snaps, strays := s.whole(); len(snaps) != 5 || len(strays) != 0 {
		t.Errorf("%d snapshots", len(snaps))
	}
	l.days, l.until = 0, s.now.Add(100*day)
	for range 2 {
		res, err = prune.Run(ctx, o)
		must(t, err)
		if res.Left == 0 || !res.LeftUntil.Equal(l.until) || res.Archives != 0 {
			t.Fatalf("%+v", res)
		}
	}
	l.until = time.Time{}
	res, err = prune.Run(ctx, o)
	must(t, err)
	if res.Left != 0 || res.Archives == 0 {
		t.Fatalf("%+v", res)
	}
	s.done(3)
}

func (y young) Traits() coldstore.Traits {
	tr := y.Store.Traits()
	tr.MinDays, tr.ListLag = y.days, y.lag
	return tr
}

func TestMinimumDuration(t *testing.T) {
	t.Parallel()
	s := origin(t, 5) // chains at days 0/4, 8/12, 16; it is day 20
	ctx := context.Background()
	o := s.options(s.w.Set)
	o.Open = func(context.Context, string) (prune.Store, error) { return young{s.v, 90, 0}, nil }
	o.Rules.Fee = func(snaps []plan.Snapshot, _ time.Time) (int64, bool) { return int64(len(snaps)), true }
	res, err := prune.Run(ctx, o)
	must(t, err)
	if len(res.Waiting) != 1 || len(res.Chains) != 0 || res.Waiting[0].Fee != 2 || !res.Waiting[0].NotBefore.After(s.now.Add(70*day)) {
		t.Fatalf("%+v", res)
	}
	refused := errors.New("too dear")
	o.AllowEarly = true
	o.Approve = func(early []plan.Expiry) error {
		if len(early) != 1 {
			t.Errorf("%+v", early)
		}
		return refused
	}
	if _, err := prune.Run(ctx, o); !errors.Is(err, refused) {
		t.Error(err)
	}
	s.w.DB = s.db
	if snaps, strays := s.whole(); len(snaps) != 5 || len(strays) != 0 {
		t.Errorf("%d snapshots", len(snaps))
	}
	s.now = res.Waiting[0].NotBefore
	o.AllowEarly, o.Approve = false, func([]plan.Expiry) error { t.Error("asked"); return nil }
	res, err = prune.Run(ctx, o)
	must(t, err)
	if len(res.Chains) != 1 || len(res.Early) != 0 {
		t.Fatalf("%+v", res)
	}
	s.done(3)
}

func (s *site) describe(snap string, n int, part, host string) string {
	return fmt.Sprintf("firn/1 set=tree setid=%s host=%s snap=%s n=%d kind=full part=%s codec=zstd,age", s.w.Set.ID, host, snap, n, part)
}

// put stores an archive that says it is a part of a snapshot.
func (s *site) put(snap string, n int, part, host string) string {
	s.t.Helper()
	ctx := context.Background()
	id := fmt.Sprintf("copies/%s-%d-%s-%s", snap, n, part, host)
	up, err := s.v.CreateUpload(ctx, coldstore.NewArchive{Name: id, Description: s.describe(snap, n, part, host)}, 1<<20)
	must(s.t, err)
	hash := treehash.Sum([]byte(id))
	must(s.t, s.v.PutPart(ctx, up.ID, 0, []byte(id), hash))
	_, err = s.v.CompleteUpload(ctx, up.ID, int64(len(id)), hash)
	must(s.t, err)
	return id
}

// A listing shows what nothing names; what another host or a newer snapshot may need stays.
func TestOrphans(t *testing.T) {
	t.Parallel()
	s := origin(t, 5)
	ctx := context.Background()
	snaps, err := s.db.Snapshots(ctx, s.w.Set.ID)
	must(t, err)
	const old = "01K00000000000000000000000"
	orphans := []string{s.put(snaps[0].ID, 1, "manifest", "here"), s.put(snaps[4].ID, 5, "1", "here"), s.put(old, 2, "1", "here")}
	stay := []string{s.put(old, 2, "1", "there"), s.put(old, 9, "1", "here")}
	s.now = s.now.Add(400 * day)
	res, err := prune.Run(ctx, s.options(s.w.Set))
	must(t, err)
	all := s.archives()
	for _, id := range orphans {
		if all[id] {
			t.Errorf("%s is still there", id)
		}
	}
	for _, id := range stay {
		if !all[id] {
			t.Errorf("%s is gone", id)
		}
	}
	if res.Orphans != len(orphans) {
		t.Errorf("%d orphans", res.Orphans)
	}
	// A manifest that the catalog does not know: it may be the catalog that lags.
	unknown := s.put("01K00000000000000000000001", 4, "manifest", "here")
	again := s.put(old, 2, "2", "here")
	_, err = prune.Run(ctx, s.options(s.w.Set))
	must(t, err)
	if all := s.archives(); !all[unknown] || !all[again] {
		t.Error("what the catalog does not know was deleted")
	}
}

// What an abandoned attempt stored is deleted.
func TestAbandoned(t *testing.T) {
	t.Parallel()
	s := origin(t, 1)
	s.w.Write("more", restoretest.Noise(99, 900_000))
	dead := faultstore.New(faultstore.Fault{Mode: faultstore.DeadFrom, Method: "CreateUpload", Call: 2})
	o := s.w.BackupOptions(s.w.Set)
	o.Store = dead.Wrap(s.v)
	if _, err := backup.Run(context.Background(), o); err == nil {
		t.Fatal("no fault")
	}
	s.w.Backup(func(o *backup.Options) { o.Params = "others" })
	po := s.options(s.w.Set)
	po.Tidy = false
	res, err := prune.Run(context.Background(), po)
	must(t, err)
	if res.Archives == 0 {
		t.Errorf("%+v", res)
	}
	s.done(2)
}

// Nothing goes while the newest chain is not whole in the vault.
func TestNewestChainLost(t *testing.T) {
	t.Parallel()
	s := origin(t, 5)
	ctx := context.Background()
	snaps, err := s.db.Snapshots(ctx, s.w.Set.ID)
	must(t, err)
	before := len(s.archives())
	must(t, s.v.Delete(ctx, snaps[4].ManifestPart.Archive))
	_, err = prune.Run(ctx, s.options(s.w.Set))
	if failure.KindOf(err) != failure.Damaged || !strings.Contains(err.Error(), snaps[4].ID) {
		t.Error(err)
	}
	if n := len(s.archives()); n != before-1 {
		t.Errorf("%d archives of %d", n, before)
	}
}

// A vault whose listing lags is pruned by what the catalog knows; copies that its last listing showed go with their snapshots.
func TestLaggingListing(t *testing.T) {
	t.Parallel()
	s := origin(t, 5)
	ctx := context.Background()
	snaps, err := s.db.Snapshots(ctx, s.w.Set.ID)
	must(t, err)
	id := s.put(snaps[0].ID, 1, "manifest", "here")
	must(t, s.db.PutArchive(ctx, catalog.ArchiveRecord{Vault: s.w.URL, SeenAsOf: s.now, Archive: coldstore.Archive{
		ID: id, Created: s.now, Description: s.describe(snaps[0].ID, 1, "manifest", "here")}}))
	o := s.options(s.w.Set)
	o.Open = func(context.Context, string) (prune.Store, error) { return young{s.v, 0, day}, nil }
	res, err := prune.Run(ctx, o)
	must(t, err)
	if len(res.Chains) != 1 || !slices.Contains(res.Unlisted, s.w.URL) {
		t.Errorf("%+v", res)
	}
	s.done(3)
	r, err := s.db.ArchiveByID(ctx, s.w.URL, snaps[0].ManifestPart.Archive)
	must(t, err)
	if r.DeletedAt.IsZero() {
		t.Error("the deletion is not recorded")
	}
}

package recovery_test

import (
	"context"
	"crypto/ed25519"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/firn-backup/firn/internal/backup"
	"github.com/firn-backup/firn/internal/catalog"
	"github.com/firn-backup/firn/internal/coldstore/faultstore"
	"github.com/firn-backup/firn/internal/failure"
	"github.com/firn-backup/firn/internal/manifest"
	"github.com/firn-backup/firn/internal/recovery"
	"github.com/firn-backup/firn/internal/restore"
	"github.com/firn-backup/firn/internal/restore/restoretest"
	"github.com/firn-backup/firn/internal/snapshot"
	"github.com/firn-backup/firn/internal/source/sourcetest"
	"github.com/firn-backup/firn/internal/transfer"
)

var ctx = context.Background()

func options(w *restoretest.World) recovery.Options {
	return recovery.Options{
		Catalog: w.DB, Lister: w.Vault, Store: w.Vault, Vault: w.URL, Codecs: w.Codecs(), Now: w.Now,
		Signers:  []ed25519.PublicKey{w.Signer.Public().(ed25519.PublicKey)},
		Transfer: transfer.Options{Sleep: w.Sleep, Retries: 2},
	}
}

// world has a chain of three, with deletions, and a new full.
func world(t *testing.T, delay time.Duration) *restoretest.World {
	w := restoretest.New(t, "zstd:1", "age", delay)
	w.Fill()
	w.Write("odd \xff\n/na\"me", []byte("odd"))
	w.Backup()
	w.Write("d0/new", restoretest.Noise(9, 300_000))
	w.Must(os.Remove(filepath.Join(w.Tree, "d1/small01")))
	w.Must(os.RemoveAll(filepath.Join(w.Tree, "void")))
	w.Must(os.Chmod(filepath.Join(w.Tree, "big"), 0o600))
	w.Backup()
	w.Backup()
	w.Backup(func(o *backup.Options) { o.Full = true })
	return w
}

// state is all that a catalog knows of the stored snapshots of a set.
type state struct {
	Sets     []catalog.Set
	Snaps    []catalog.Snapshot
	Entries  map[string][]snapshot.Entry
	Changes  map[string][]string
	Volumes  map[string][]manifest.Volume
	Problems map[string][]snapshot.Problem
}

func read(t *testing.T, w *restoretest.World) state {
	t.Helper()
	s := state{Entries: map[string][]snapshot.Entry{}, Changes: map[string][]string{}, Volumes: map[string][]manifest.Volume{}, Problems: map[string][]snapshot.Problem{}}
	var err error
	s.Sets, err = w.DB.Sets(ctx)
	w.Must(err)
	for _, set := range s.Sets {
		snaps, err := w.DB.Snapshots(ctx, set.ID)
		w.Must(err)
		for _, snap := range snaps {
			snap.ManifestPart.Stored = time.Time{} // the vault's word, and not the manifest's
			s.Snaps = append(s.Snaps, snap)
			w.Must(w.DB.Entries(ctx, snap.ID, catalog.Query{}, func(e snapshot.Entry) error {
				e.CTime, e.Dev, e.Ino = snapshot.Time{}, 0, 0 // never in a manifest
				s.Entries[snap.ID] = append(s.Entries[snap.ID], e)
				return nil
			}))
			w.Must(w.DB.Changes(ctx, snap.ID, func(path string, e *snapshot.Entry) error {
				s.Changes[snap.ID] = append(s.Changes[snap.ID], fmt.Sprint(path, e == nil))
				return nil
			}))
			vols, err := w.DB.Volumes(ctx, snap.ID)
			w.Must(err)
			for _, v := range vols {
				v, err := w.DB.Volume(ctx, snap.ID, v.N)
				w.Must(err)
				s.Volumes[snap.ID] = append(s.Volumes[snap.ID], v)
			}
			s.Problems[snap.ID], err = w.DB.Problems(ctx, snap.ID)
			w.Must(err)
		}
	}
	return s
}

func compare(t *testing.T, before, after state) {
	t.Helper()
	for _, s := range []*state{&before, &after} {
		for i := range s.Snaps {
			s.Snaps[i].Params = ""
		}
		for i := range s.Sets {
			s.Sets[i].Created = time.Time{}
		}
	}
	if d := cmp.Diff(before, after, cmpopts.EquateEmpty()); d != "" {
		t.Errorf("the catalogs differ:\n%.4000s", d)
	}
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

func TestLostCatalog(t *testing.T) {
	t.Parallel()
	w := world(t, 0)
	before := read(t, w)
	w.NewCatalog()
	res, err := recovery.Run(ctx, options(w))
	w.Must(err)
	if res.Recovered != 4 || res.Sets != 1 || res.Strays != 0 || res.AsOf.IsZero() || res.Read == 0 {
		t.Errorf("%+v", res)
	}
	compare(t, before, read(t, w))
	for i, s := range before.Snaps {
		to := filepath.Join(w.Dir, fmt.Sprint("to", i))
		if _, err := restore.Run(ctx, w.RestoreOptions(s, to)); err != nil {
			t.Error(err)
		}
		if i == len(before.Snaps)-1 {
			sourcetest.Diff(t, w.Tree, to)
		}
	}
	// Again: nothing to do.
	res, err = recovery.Run(ctx, options(w))
	w.Must(err)
	if res.Recovered != 0 || res.Kept != 4 || res.Read != 0 {
		t.Errorf("again: %+v", res)
	}
	// The next backup goes on with the chain, and sends no content that is stored.
	next := w.Backup()
	if next.Kind != snapshot.Incremental || next.N != 5 || next.Totals.Raw > 100_000 {
		t.Errorf("%+v", next)
	}
}

func TestKeepsWhatIsThere(t *testing.T) {
	t.Parallel()
	w := world(t, 0)
	before := read(t, w)
	w.Must(w.DB.DropSnapshot(ctx, before.Snaps[3].ID))
	w.Must(w.DB.DropSnapshot(ctx, before.Snaps[2].ID))
	res, err := recovery.Run(ctx, options(w))
	w.Must(err)
	if res.Recovered != 2 || res.Kept != 2 {
		t.Errorf("%+v", res)
	}
	compare(t, before, read(t, w))
}

func TestSlowVault(t *testing.T) {
	t.Parallel()
	w := world(t, 4*time.Hour)
	before := read(t, w)
	w.NewCatalog()
	f := faultstore.New(faultstore.Fault{})
	o := options(w)
	o.Store = f.Wrap(w.Vault)
	for range 3 {
		_, err := recovery.Run(ctx, o)
		wantKind(t, err, failure.NotReady)
	}
	if n := f.Count("RequestRetrieval"); n != 4 {
		t.Errorf("asked %d times", n)
	}
	w.Advance(5 * time.Hour)
	_, err := recovery.Run(ctx, o)
	w.Must(err)
	if n := f.Count("RequestRetrieval"); n != 4 {
		t.Errorf("asked %d times", n)
	}
	compare(t, before, read(t, w))
}

func TestFaultsAtEveryCall(t *testing.T) {
	t.Parallel()
	w := world(t, 0)
	before := read(t, w)
	for _, mode := range []faultstore.Mode{faultstore.LostBefore, faultstore.LostAfter, faultstore.DeadFrom, faultstore.ReadBreak} {
		for n := 0; ; n++ {
			w.NewCatalog()
			f := faultstore.New(faultstore.Fault{Mode: mode, Call: n})
			o := options(w)
			s := f.Wrap(w.Vault)
			o.Store, o.Lister = s, s
			_, err := recovery.Run(ctx, o)
			if err != nil {
				o = options(w)
				if _, err = recovery.Run(ctx, o); err != nil {
					t.Fatalf("%v, call %d: %v", mode, n, err)
				}
			}
			compare(t, before, read(t, w))
			if !f.Hit() {
				break
			}
		}
	}
}

// TestInterrupted ends recoveries in the middle of a manifest.
func TestInterrupted(t *testing.T) {
	t.Parallel()
	w := world(t, 0)
	before := read(t, w)
	w.NewCatalog()
	for n := int64(500); ; n += 1500 {
		ctx, stop := context.WithCancel(ctx)
		o := options(w)
		o.Observe = &stopper{after: n, stop: stop}
		_, err := recovery.Run(ctx, o)
		stop()
		if err == nil {
			break
		}
		if n > 100_000 {
			t.Fatal(err)
		}
	}
	compare(t, before, read(t, w))
}

type stopper struct {
	after int64
	stop  func()
}

func (*stopper) Listed(time.Time, int, int)              {}
func (*stopper) Waiting(int, int)                        {}
func (*stopper) Recovered(catalog.Set, catalog.Snapshot) {}
func (*stopper) Problem(recovery.Problem)                {}
func (s *stopper) Read(n int64) {
	if s.after -= n; s.after < 0 {
		s.stop()
	}
}

// TestDamagedManifests: each costs its snapshot and those that build on it.
// archive reads an archive as it lies in the vault.
// TestMovedManifest puts true manifests in places that are not theirs.
// TestTwoManifests: a snapshot's manifest that was stored twice is taken once, and
// the one that the next snapshot builds on is taken.
// remade writes a manifest anew, with another time of making, and packs it.
// TestForkedSet: after a catalog was lost, the same set was backed up anew from number 1 on
// under its old id. The longer history is taken, the other reported.

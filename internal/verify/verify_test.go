package verify_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/firn-backup/firn/internal/backup"
	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/internal/coldstore/faultstore"
	"github.com/firn-backup/firn/internal/failure"
	"github.com/firn-backup/firn/internal/manifest"
	"github.com/firn-backup/firn/internal/restore/restoretest"
	"github.com/firn-backup/firn/internal/transfer"
	"github.com/firn-backup/firn/internal/verify"
)

var ctx = context.Background()

func options(w *restoretest.World, read bool) verify.Options {
	return verify.Options{
		Catalog: w.DB, Lister: w.Vault, Store: w.Vault, Vault: w.URL, Now: w.Now, Read: read, Codecs: w.Codecs(),
		Signers: []ed25519.PublicKey{w.Signer.Public().(ed25519.PublicKey)}, Transfer: transfer.Options{Sleep: w.Sleep, Retries: 2},
	}
}

func world(t *testing.T, delay time.Duration) *restoretest.World {
	w := restoretest.New(t, "zstd:1", "age", delay)
	w.Fill()
	w.Backup()
	w.Write("d0/new", restoretest.Noise(9, 300_000))
	w.Must(os.Remove(filepath.Join(w.Tree, "d1/small01")))
	w.Backup()
	w.Backup(func(o *backup.Options) { o.Full = true })
	return w
}

func TestAllIsWell(t *testing.T) {
	t.Parallel()
	w := world(t, 0)
	res, err := verify.Run(ctx, options(w, false))
	w.Must(err)
	if res.Snapshots != 3 || res.Archives < 12 || res.Read != 0 || len(res.Sample) != 0 {
		t.Errorf("%+v", res)
	}
	res, err = verify.Run(ctx, options(w, true))
	w.Must(err)
	if res.Read < res.Bytes || res.Read > res.Bytes*11/10 || res.Files < 50 || len(res.Sample) != 0 {
		t.Errorf("%+v", res)
	}
}

func TestMissingDifferentOrphan(t *testing.T) {
	t.Parallel()
	w := world(t, 0)
	snaps, err := w.DB.Snapshots(ctx, w.Set.ID)
	w.Must(err)
	vols, err := w.DB.Volumes(ctx, snaps[0].ID)
	w.Must(err)
	w.Must(w.Vault.Delete(ctx, vols[1].Archive))
	w.Must(w.Vault.Delete(ctx, snaps[1].ManifestPart.Archive))
	cut := filepath.Join(w.Vault.Root(), "archives", vols[2].Archive)
	w.Must(os.Truncate(cut, vols[2].Size-1))
	stray := store(t, w, manifest.Describe(&snaps[0].Header, 9).String(), []byte("stray"))
	store(t, w, "somebody else's", []byte("foreign"))
	for _, read := range []bool{false, true} {
		res, err := verify.Run(ctx, options(w, read))
		if failure.KindOf(err) != failure.Damaged || strings.Contains(err.Error(), "\n") {
			t.Errorf("%v", err)
		}
		found := map[string]verify.Kind{}
		for _, f := range res.Sample {
			if f.Path == "" {
				found[f.Archive] = f.Kind
			}
		}
		want := map[string]verify.Kind{
			vols[1].Archive: verify.Missing, snaps[1].ManifestPart.Archive: verify.Missing, vols[2].Archive: verify.Different, stray: verify.Orphan,
		}
		if read { // seen a second time
			want[vols[2].Archive] = verify.Damaged
		}
		if fmt.Sprint(found) != fmt.Sprint(want) {
			t.Errorf("found %v\nwant %v", found, want)
		}
		if res.OrphanSum != 5 {
			t.Errorf("%d bytes of orphans", res.OrphanSum)
		}
		if read && !slices.ContainsFunc(res.Sample, func(f verify.Finding) bool { return strings.HasSuffix(f.Path, "/big") }) {
			t.Errorf("the file in missing volumes is not named: %v", res.Sample)
		}
	}
	o := options(w, false)
	o.Sets = []string{"01J00000000000000000000000"}
	if _, err := verify.Run(ctx, o); failure.KindOf(err) != failure.NotFound {
		t.Error(err)
	}
	// Another set is none of this one's business.
	o.Sets = []string{w.NewSet("other").ID}
	res, err := verify.Run(ctx, o)
	w.Must(err)
	if len(res.Sample) != 0 {
		t.Errorf("%v", res.Sample)
	}
}

// store puts an archive into the vault that no catalog knows.
func store(t *testing.T, w *restoretest.World, description string, data []byte) string {
	t.Helper()
	u := transfer.NewUpload(ctx, w.Vault, coldstore.NewArchive{Description: description}, transfer.Options{})
	_, err := u.Write(data)
	w.Must(err)
	a, err := u.Complete(ctx, nil)
	w.Must(err)
	return a.ID
}

// TestEveryArchiveIsRead flips bits in every archive, manifests included.
func TestEveryArchiveIsRead(t *testing.T) {
	t.Parallel()
	w := world(t, 0)
	var archives []coldstore.Archive
	_, err := w.Vault.List(ctx, func(a coldstore.Archive) error { archives = append(archives, a); return nil })
	w.Must(err)
	for _, a := range archives {
		for _, off := range []int64{0, a.Size / 3, a.Size - 1} {
			f := faultstore.New(faultstore.Fault{})
			f.Rot(a.ID, off)
			o := options(w, true)
			o.Store = f.Wrap(w.Vault)
			res, err := verify.Run(ctx, o)
			if failure.KindOf(err) != failure.Damaged || !strings.Contains(err.Error(), a.ID) {
				t.Errorf("archive %s, byte %d of %d: %v", a.ID, off, a.Size, err)
			}
			if res.Found[verify.Damaged] == 0 || res.Found[verify.Missing]+res.Found[verify.Different] != 0 {
				t.Errorf("%v", res.Found)
			}
		}
	}
}

func TestSlowVault(t *testing.T) {
	t.Parallel()
	w := restoretest.New(t, "zstd:1", "age", 4*time.Hour)
	w.Write("a", []byte("x"))
	w.Backup()
	o := options(w, true)
	if _, err := verify.Run(ctx, o); failure.KindOf(err) != failure.NotReady {
		t.Error(err)
	}
	o.Wait = true
	res, err := verify.Run(ctx, o)
	w.Must(err)
	if res.Files != 1 {
		t.Errorf("%+v", res)
	}
}

func TestWrongKeyAndSigner(t *testing.T) {
	t.Parallel()
	w := restoretest.New(t, "zstd:1", "age", 0)
	w.Write("a", []byte("x"))
	w.Backup()
	o := options(w, true)
	o.Codecs = restoretest.Codecs()
	if _, err := verify.Run(ctx, o); failure.KindOf(err) != failure.NoKey {
		t.Error(err)
	}
	o = options(w, true)
	other, _, err := ed25519.GenerateKey(rand.Reader)
	w.Must(err)
	o.Signers = []ed25519.PublicKey{other}
	if _, err := verify.Run(ctx, o); failure.KindOf(err) != failure.Damaged || !strings.Contains(err.Error(), "not trusted") {
		t.Error(err)
	}
}

// lagging is a vault whose listing is a day old.
type lagging struct {
	coldstore.Lister
	asOf time.Time
}

func (l lagging) Traits() coldstore.Traits {
	t := l.Lister.Traits()
	t.ListLag = 24 * time.Hour
	return t
}

func (l lagging) List(context.Context, func(coldstore.Archive) error) (time.Time, error) {
	return l.asOf, nil
}

func TestOldListing(t *testing.T) {
	t.Parallel()
	w := restoretest.New(t, "zstd:1", "age", 0)
	w.Write("a", bytes.Repeat([]byte("x"), 1000))
	s := w.Backup()
	o := options(w, false)
	o.Lister = lagging{w.Vault, s.Made.Add(-time.Hour)}
	res, err := verify.Run(ctx, o)
	w.Must(err)
	if res.Found[verify.Unsure] != 2 {
		t.Errorf("%v", res.Found)
	}
	// What is newer than the listing is read all the same: it is no damage that the listing does not tell of it.
	o.Read = true
	res, err = verify.Run(ctx, o)
	w.Must(err)
	if res.Found[verify.Unsure] != 2 || res.Found[verify.Damaged] != 0 || res.Files != 1 || res.Read == 0 {
		t.Errorf("%+v", res)
	}
	o.Read = false
	o.Lister = lagging{w.Vault, s.Made.Add(48 * time.Hour)}
	if _, err = verify.Run(ctx, o); failure.KindOf(err) != failure.Damaged {
		t.Error(err)
	}
}

// watch counts what an observer is told.
type watch struct {
	mu   sync.Mutex
	read map[string]int
}

func (w *watch) Archive(a string, _ int64, read bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if read {
		w.read[a]++
	}
}
func (w *watch) Read(int64)             {}
func (w *watch) Waiting(int, int)       {}
func (w *watch) Finding(verify.Finding) {}

func TestEachArchiveIsReadOnce(t *testing.T) {
	t.Parallel()
	w := world(t, 0)
	o := options(w, true)
	obs := &watch{read: map[string]int{}}
	o.Observe = obs
	res, err := verify.Run(ctx, o)
	w.Must(err)
	if len(obs.read) != res.Archives {
		t.Errorf("%d of %d", len(obs.read), res.Archives)
	}
	for a, n := range obs.read {
		if n != 1 {
			t.Errorf("%s was read %d times", a, n)
		}
	}
}

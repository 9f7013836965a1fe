package restore_test

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/firn-backup/firn/internal/backup"
	"github.com/firn-backup/firn/internal/catalog"
	"github.com/firn-backup/firn/internal/codec"
	"github.com/firn-backup/firn/internal/codec/encrypt"
	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/internal/coldstore/faultstore"
	"github.com/firn-backup/firn/internal/extract"
	"github.com/firn-backup/firn/internal/failure"
	"github.com/firn-backup/firn/internal/mustrun"
	"github.com/firn-backup/firn/internal/restore"
	"github.com/firn-backup/firn/internal/restore/restoretest"
	"github.com/firn-backup/firn/internal/snapshot"
	"github.com/firn-backup/firn/internal/source/sourcetest"
)

func TestFaultsAtEveryCall(t *testing.T) {
	t.Parallel()
	for _, delay := range []time.Duration{0, time.Hour} {
		for _, mode := range []faultstore.Mode{faultstore.LostBefore, faultstore.LostAfter, faultstore.DeadFrom, faultstore.ReadBreak, faultstore.ReadFlip} {
			t.Run(fmt.Sprint(mode, delay), func(t *testing.T) {
				t.Parallel()
				w := restoretest.New(t, "zstd:1", "age", delay)
				if delay == 0 {
					w.Fill()
				} else { // each retrieval costs several synced writes
					w.Write("a", restoretest.Noise(1, 150_000))
					w.Write("b", restoretest.Noise(2, 150_000))
				}
				snap := w.Backup()
				for n := 0; ; n++ {
					to := filepath.Join(w.Dir, fmt.Sprint("to", n))
					f := faultstore.New(faultstore.Fault{Mode: mode, Call: n})
					o := w.RestoreOptions(snap, to)
					o.Wait = true
					o.Store = f.Wrap(w.Vault)
					_, err := restore.Run(ctx, o)
					if err != nil && mode != faultstore.DeadFrom {
						t.Errorf("call %d: %v", n, err)
					}
					if err != nil {
						o.Store = w.Vault
						run(t, o)
					}
					sourcetest.Diff(t, w.Tree, to)
					w.Must(os.RemoveAll(to))
					if !f.Hit() {
						break
					}
					w.Advance(100 * time.Hour) // all expires
				}
			})
		}
	}
}

// TestOneFlippedBit flips a bit at many places of every volume, one at a time: each is
// named, and costs at most the files in its frame.
func TestOneFlippedBit(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ compression, cipher string }{{"zstd:1", "age"}, {"none", "none"}, {"gzip:1", "age"}} {
		t.Run(c.compression+","+c.cipher, func(t *testing.T) {
			t.Parallel()
			w := restoretest.New(t, c.compression, c.cipher, 0)
			w.Fill()
			snap := w.Backup()
			vols, err := w.DB.Volumes(ctx, snap.ID)
			w.Must(err)
			for _, v := range vols {
				for i := range int64(6) {
					off := (v.Size - 1) * i / 5
					f := faultstore.New(faultstore.Fault{})
					f.Rot(v.Archive, off)
					to := filepath.Join(w.Dir, fmt.Sprintf("to-%d-%d", v.N, off))
					obs := &watch{}
					o := w.RestoreOptions(snap, to)
					o.Store, o.Observe = f.Wrap(w.Vault), obs
					_, err := restore.Run(ctx, o)
					wantKind(t, err, failure.Damaged)
					if !strings.Contains(err.Error(), v.Archive) {
						t.Errorf("archive %s, byte %d: not named in %q", v.Archive, off, err)
					}
					lost := map[string]bool{}
					for _, p := range obs.problems {
						if p.Archive != v.Archive || p.Kind != restore.Damaged {
							t.Errorf("%+v", p)
						}
						lost[p.Path] = true
					}
					if len(lost) > 16 {
						t.Errorf("byte %d of %d of volume %d: lost %d files", off, v.Size, v.N, len(lost))
					}
					sameBut(t, w.Tree, to, lost)
					w.Must(os.RemoveAll(to))
				}
			}
		})
	}
}

// sameBut compares all files but the lost ones, which must not be there.
func sameBut(t *testing.T, tree, to string, lost map[string]bool) {
	t.Helper()
	err := filepath.WalkDir(tree, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		there := to + path[len(tree):]
		if lost[path[1:]] {
			if _, err := os.Lstat(there); err == nil {
				t.Errorf("%s was restored, although it is damaged", path)
			}
			return nil
		}
		a, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		b, err := os.ReadFile(there)
		if err != nil || string(a) != string(b) {
			t.Errorf("%s differs: %v", path, err)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// TestOpenPGP: a cipher that cannot be entered in the middle. Damage costs what follows it in its volume.
func TestOpenPGP(t *testing.T) {
	mustrun.Tool(t, "gpg")
	t.Parallel()
	w := restoretest.New(t, "zstd:1", "none", 0)
	home, err := os.MkdirTemp("", "firn-gpg-") // a socket's path must be short
	w.Must(err)
	gpg := func(args ...string) {
		cmd := exec.Command("gpg", append([]string{"--homedir", home, "--batch", "--yes", "--quiet", "--pinentry-mode", "loopback", "--passphrase", ""}, args...)...)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("gpg %v: %v\n%s", args, err, out)
		}
	}
	t.Cleanup(func() {
		exec.Command("gpgconf", "--homedir", home, "--kill", "all").Run()
		os.RemoveAll(home)
	})
	var secret [2]string
	for i, user := range []string{"one@example.org", "two@example.org"} {
		gpg("--quick-gen-key", user, "future-default", "default", "never")
		secret[i] = filepath.Join(w.Dir, user)
		gpg("--output", secret[i], "--export-secret-keys", user)
	}
	public := filepath.Join(w.Dir, "public")
	gpg("--output", public, "--export", "one@example.org")
	w.Encryptor, err = encrypt.NewEncryptor(encrypt.OpenPGP, encrypt.EncryptOptions{RecipientFiles: []string{public}})
	w.Must(err)
	w.Fill()
	snap := w.Backup()
	mine := restoretest.CodecsOf(encrypt.Keys{OpenPGPFiles: secret[:1]})

	o := w.RestoreOptions(snap, filepath.Join(w.Dir, "to"))
	o.Codecs = restoretest.CodecsOf(encrypt.Keys{OpenPGPFiles: secret[1:]})
	_, err = restore.Run(ctx, o)
	wantKind(t, err, failure.NoKey)
	nothingAt(t, o.To)

	o.Codecs = mine
	res := run(t, o)
	sourcetest.Diff(t, w.Tree, o.To)
	vols, err := w.DB.Volumes(ctx, snap.ID)
	w.Must(err)
	var size int64
	for _, v := range vols {
		size += v.Size
	}
	if res.Read > size { // what the key was tried on is not read again
		t.Errorf("%d bytes were read of %d", res.Read, size)
	}
	for _, v := range vols {
		offs := []int64{0, 20, v.Size / 2, v.Size - 1}
		if v.N == 1 { // all of the packet that names the key
			for off := range int64(16) {
				offs = append(offs, off)
			}
		}
		for _, off := range offs {
			f := faultstore.New(faultstore.Fault{})
			f.Rot(v.Archive, off)
			obs := &watch{}
			o := w.RestoreOptions(snap, filepath.Join(w.Dir, fmt.Sprintf("to-%d-%d", v.N, off)))
			o.Store, o.Observe, o.Codecs = f.Wrap(w.Vault), obs, mine
			_, err := restore.Run(ctx, o)
			wantKind(t, err, failure.Damaged)
			if !strings.Contains(err.Error(), v.Archive) {
				t.Errorf("not named: %v", err)
			}
			lost := map[string]bool{}
			for _, p := range obs.problems {
				if p.Archive != v.Archive {
					t.Errorf("%+v", p)
				}
				lost[p.Path] = true
			}
			sameBut(t, w.Tree, o.To, lost)
			w.Must(os.RemoveAll(o.To))
		}
	}
}

func TestMissingArchive(t *testing.T) {
	t.Parallel()
	for _, delay := range []time.Duration{0, time.Hour} {
		w := restoretest.New(t, "zstd:1", "age", delay)
		w.Fill()
		snap := w.Backup()
		vols, err := w.DB.Volumes(ctx, snap.ID)
		w.Must(err)
		w.Must(w.Vault.Delete(ctx, vols[1].Archive))
		obs := &watch{}
		o := w.RestoreOptions(snap, filepath.Join(w.Dir, "to"))
		o.Observe, o.Wait = obs, true
		_, err = restore.Run(ctx, o)
		wantKind(t, err, failure.Damaged)
		lost := map[string]bool{}
		for _, p := range obs.problems {
			lost[p.Path] = true
			if p.Archive != vols[1].Archive {
				t.Errorf("%+v", p)
			}
		}
		if len(lost) < 2 {
			t.Errorf("%v", obs.problems)
		}
		sameBut(t, w.Tree, o.To, lost)
	}
}

func TestCutArchive(t *testing.T) {
	t.Parallel()
	w := restoretest.New(t, "zstd:1", "age", 0)
	w.Fill()
	snap := w.Backup()
	vols, err := w.DB.Volumes(ctx, snap.ID)
	w.Must(err)
	for _, path := range w.Archives("000002-") {
		w.Must(os.Truncate(path, vols[1].Size/2))
	}
	obs := &watch{}
	o := w.RestoreOptions(snap, filepath.Join(w.Dir, "to"))
	o.Observe = obs
	_, err = restore.Run(ctx, o)
	wantKind(t, err, failure.Damaged)
	lost := map[string]bool{}
	for _, p := range obs.problems {
		lost[p.Path] = true
	}
	sameBut(t, w.Tree, o.To, lost)
}

// inOrder is a cipher of which only reading tells whether the keys open it: it changes nothing.
type inOrder struct{}

func (inOrder) Decrypt(src io.Reader) (io.Reader, error) { return src, nil }

func (inOrder) DecryptAt(io.ReaderAt, int64) (io.ReaderAt, int64, error) {
	return nil, 0, codec.ErrNotSeekable
}

// gated is a vault that gives of the first archive only its first MiB until the second one is asked for, and nothing of the second
// until the first is asked for bytes from far on.
type gated struct {
	coldstore.Store
	second      string
	far         int64
	asked, seen func()
	wasAsked    chan struct{} // closed by asked
	wasSeen     chan struct{} // closed by seen
}

func newGated(s coldstore.Store, second string, far int64) *gated {
	g := &gated{Store: s, second: second, far: far, wasAsked: make(chan struct{}), wasSeen: make(chan struct{})}
	g.asked = sync.OnceFunc(func() { close(g.wasAsked) })
	g.seen = sync.OnceFunc(func() { close(g.wasSeen) })
	return g
}

func (g *gated) OpenRetrieved(ctx context.Context, r coldstore.Retrieval, off, size int64) (io.ReadCloser, error) {
	var gate chan struct{}
	switch {
	case r.Archive == g.second:
		g.asked()
		gate = g.wasSeen
	case off >= g.far:
		g.seen()
	case off >= 1<<20:
		gate = g.wasAsked
	}
	if gate != nil {
		select {
		case <-gate:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return g.Store.OpenRetrieved(ctx, r, off, size)
}

// TestDamageBesideTriedKey: the volume that a key was tried on stays open and is read ahead. The damage that is seen there meanwhile
// is told of, although the one that the key is tried on next is damaged too, and is forgotten until it is met again.
func TestDamageBesideTriedKey(t *testing.T) {
	t.Parallel()
	w := restoretest.New(t, "none", "none", 0)
	w.Write("a", restoretest.Noise(1, 6<<20))
	large := func(o *backup.Options) { o.VolumeSize, o.FrameSize = 0, 512<<10 }
	var archives []string // one of each snapshot
	snap := w.Backup(large)
	for range 2 {
		vols, err := w.DB.Volumes(ctx, snap.ID)
		w.Must(err)
		if len(vols) != 1 {
			t.Fatalf("%d volumes", len(vols))
		}
		if archives = append(archives, vols[0].Archive); len(archives) == 1 {
			w.Write("b", restoretest.Noise(2, 100_000))
			snap = w.Backup(large)
		}
	}
	f := faultstore.New(faultstore.Fault{})
	f.Rot(archives[0], 1<<20+1<<19)
	f.Rot(archives[1], 50_000)
	obs := &watch{}
	o := w.RestoreOptions(snap, filepath.Join(w.Dir, "to"))
	// The second MiB has been looked at when a request begins after it: each is twice as long as the one before.
	o.Store, o.Observe = newGated(f.Wrap(w.Vault), archives[1], 3<<20), obs
	o.Codecs.Decryptor = func(string) (codec.Decryptor, codec.Geometry, error) {
		return inOrder{}, codec.Geometry{Whole: true}, nil
	}
	ctx, stop := context.WithTimeout(ctx, time.Minute)
	defer stop()
	_, err := restore.Run(ctx, o)
	wantKind(t, err, failure.Damaged)
	for i, bytes := range []string{"bytes 1048576 to 2097151 ", "bytes 0 to "} {
		if !slices.ContainsFunc(obs.problems, func(p restore.Problem) bool { return p.Archive == archives[i] && strings.HasPrefix(p.Reason, bytes) }) {
			t.Errorf("nothing tells which bytes of archive %d are damaged: %+v", i+1, obs.problems)
		}
	}
}

// TestHostileSnapshot: a snapshot whose links lead its files outside, as one could be that a trusted
// key signed and that was made on a broken machine.
func TestHostileSnapshot(t *testing.T) {
	t.Parallel()
	w := restoretest.New(t, "zstd:1", "age", 0)
	w.Fill()
	first := w.Backup()
	outside := filepath.Join(w.Dir, "outside")
	w.Must(os.Mkdir(outside, 0o755))
	root := strings.TrimPrefix(w.Tree, "/")
	var big snapshot.Entry
	w.Must(w.DB.Entries(ctx, first.ID, catalog.Query{Under: []string{root + "/big"}}, func(e snapshot.Entry) error { big = e; return nil }))
	h := first.Header
	h.Snap, h.N, h.Kind, h.Base, h.BaseHash = w.Set.ID, 2, snapshot.Incremental, first.ID, first.ManifestHash
	w.Must(w.DB.Begin(ctx, catalog.Snapshot{ID: h.Snap, SetID: h.SetID, N: 2, Kind: h.Kind, Base: h.Base, At: h.At, Made: h.Made, Header: h, Vault: w.URL}))
	ew, err := w.DB.EntryWriter(ctx, h.Snap)
	w.Must(err)
	link := snapshot.Entry{Path: root + "/evil", Type: snapshot.Symlink, Link: outside}
	big.Path = root + "/evil/file"
	dir := snapshot.Entry{Path: root + "/evil/sub", Type: snapshot.Dir, Mode: 0o777}
	self := snapshot.Entry{Path: root + "/self", Type: snapshot.Symlink, Link: "../../outside"}
	empty := snapshot.Entry{Path: root + "/self/empty", Type: snapshot.File, Mode: 0o666}
	for _, e := range []snapshot.Entry{link, big, dir, self, empty} {
		w.Must(ew.Put(ctx, &e))
	}
	w.Must(ew.Close(ctx))
	w.Must(w.DB.FinishStored(ctx, h.Snap, first.ManifestHash, first.ManifestPart, catalog.Totals{}))
	for i, over := range []extract.Overwrite{extract.Never, extract.Always} {
		o := w.RestoreOptions(catalog.Snapshot{ID: h.Snap}, filepath.Join(w.Dir, fmt.Sprint("to", i)))
		o.Overwrite = over
		for range 2 {
			_, err := restore.Run(ctx, o)
			wantKind(t, err, failure.Partial)
		}
		names, err := os.ReadDir(outside)
		w.Must(err)
		if len(names) != 0 {
			t.Errorf("outside holds %v", names)
		}
		if data, err := os.ReadFile(o.To + "/zz-last"); err != nil || len(data) == 0 {
			t.Errorf("the rest was not restored: %v", err)
		}
	}
}

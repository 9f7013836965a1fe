package recovery_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/firn-backup/firn/internal/catalog"
	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/internal/coldstore/faultstore"
	"github.com/firn-backup/firn/internal/failure"
	"github.com/firn-backup/firn/internal/manifest"
	"github.com/firn-backup/firn/internal/recovery"
	"github.com/firn-backup/firn/internal/restore"
	"github.com/firn-backup/firn/internal/restore/restoretest"
	"github.com/firn-backup/firn/internal/source/sourcetest"
	"github.com/firn-backup/firn/internal/transfer"
	"github.com/firn-backup/firn/treehash"
)

func TestDamagedManifests(t *testing.T) {
	t.Parallel()
	w := world(t, 0)
	before := read(t, w)
	for i, lost := range []int{3, 2, 1, 1} {
		a := before.Snaps[i].ManifestPart
		for _, off := range []int64{0, 100, a.Size / 2, a.Size - 1} {
			w.NewCatalog()
			f := faultstore.New(faultstore.Fault{})
			f.Rot(a.Archive, off)
			o := options(w)
			o.Store = f.Wrap(w.Vault)
			res, err := recovery.Run(ctx, o)
			wantKind(t, err, failure.Damaged)
			if !strings.Contains(err.Error(), before.Snaps[i].ID) {
				t.Errorf("not named: %v", err)
			}
			if res.Recovered != 4-lost || res.Found[recovery.Damaged] != 1 || res.Found[recovery.Unusable] != int64(lost-1) {
				t.Errorf("snapshot %d, byte %d: %+v", i, off, res)
			}
			// Made whole again, the rest comes back.
			_, err = recovery.Run(ctx, options(w))
			w.Must(err)
			compare(t, before, read(t, w))
		}
	}
}

func TestTrust(t *testing.T) {
	t.Parallel()
	w := world(t, 0)
	before := read(t, w)
	w.NewCatalog()
	stranger, _, err := ed25519.GenerateKey(rand.Reader)
	w.Must(err)
	o := options(w)
	o.Signers = []ed25519.PublicKey{stranger}
	res, err := recovery.Run(ctx, o)
	wantKind(t, err, failure.Damaged)
	if res.Recovered != 0 || res.Found[recovery.Untrusted] != 2 || !res.Sample[0].Signer.Equal(w.Signer.Public()) {
		t.Errorf("%+v", res)
	}
	if after := read(t, w); len(after.Sets)+len(after.Snaps) != 0 {
		t.Errorf("left in the catalog: %+v", after)
	}
	o.TrustAny = true
	_, err = recovery.Run(ctx, o)
	w.Must(err)
	compare(t, before, read(t, w))
	keys, err := w.DB.Trusted(ctx)
	w.Must(err)
	if len(keys) != 1 || !keys[0].Equal(w.Signer.Public()) {
		t.Errorf("trusted: %v", keys)
	}
}

func TestWrongKey(t *testing.T) {
	t.Parallel()
	w := world(t, 0)
	w.NewCatalog()
	o := options(w)
	o.Codecs = restoretest.Codecs()
	_, err := recovery.Run(ctx, o)
	wantKind(t, err, failure.NoKey)
}

func archive(w *restoretest.World, a catalog.ArchiveRef) []byte {
	w.T.Helper()
	rt, err := w.Vault.RequestRetrieval(ctx, a.Archive, coldstore.Range{}, coldstore.RetrievalOptions{})
	w.Must(err)
	rc, err := w.Vault.OpenRetrieved(ctx, rt, 0, a.Size)
	w.Must(err)
	defer rc.Close()
	data, err := io.ReadAll(rc)
	w.Must(err)
	return data
}

func store(w *restoretest.World, name, description string, data []byte) string {
	w.T.Helper()
	u := transfer.NewUpload(ctx, w.Vault, coldstore.NewArchive{Name: name, Description: description}, transfer.Options{})
	_, err := u.Write(data)
	w.Must(err)
	a, err := u.Complete(ctx, nil)
	w.Must(err)
	return a.ID
}

func TestMovedManifest(t *testing.T) {
	t.Parallel()
	w := world(t, 0)
	before := read(t, w)
	one, two := before.Snaps[0], before.Snaps[1]
	// The second snapshot's manifest is replaced by the first's, under the second's name and description.
	w.Must(w.Vault.Delete(ctx, two.ManifestPart.Archive))
	store(w, two.ManifestPart.Archive, manifest.Describe(&two.Header, 0).String(), archive(w, one.ManifestPart))
	w.NewCatalog()
	res, err := recovery.Run(ctx, options(w))
	wantKind(t, err, failure.Damaged)
	if res.Recovered != 2 || res.Found[recovery.Damaged] != 1 || res.Found[recovery.Unusable] != 1 {
		t.Errorf("%+v", res)
	}
	// As a snapshot of its own, with the right description.
	h := one.Header
	h.Snap, h.N = two.ID, 9
	d := manifest.Describe(&h, 0)
	store(w, "elsewhere", d.String(), archive(w, one.ManifestPart))
	w.NewCatalog()
	_, err = recovery.Run(ctx, options(w))
	wantKind(t, err, failure.Damaged)
}

func TestTwoManifests(t *testing.T) {
	t.Parallel()
	w := world(t, 0)
	before := read(t, w)
	for i, s := range before.Snaps {
		data := archive(w, s.ManifestPart)
		if i == 1 { // another version of it, right in itself
			data = remade(t, w, s, data)
		}
		store(w, strings.Replace(s.ManifestPart.Archive, "manifest.", "manifest-2.", 1), manifest.Describe(&s.Header, 0).String(), data)
	}
	w.NewCatalog()
	res, err := recovery.Run(ctx, options(w))
	w.Must(err)
	if res.Recovered != 4 {
		t.Errorf("%+v", res)
	}
	after := read(t, w)
	for _, s := range []*state{&before, &after} {
		for i := range s.Snaps { // either archive will do where they are the same
			if i != 1 {
				s.Snaps[i].ManifestPart, s.Snaps[i].Totals = catalog.ArchiveRef{}, catalog.Totals{}
			}
		}
	}
	compare(t, before, after)
}

func remade(t *testing.T, w *restoretest.World, s catalog.Snapshot, data []byte) []byte {
	t.Helper()
	d, _, err := w.Codecs().Decryptor(s.Header.Encrypt)
	w.Must(err)
	plain, err := d.Decrypt(bytes.NewReader(data))
	w.Must(err)
	rc, err := w.Codecs().Decompress(s.Header.Compress, plain)
	w.Must(err)
	m, err := manifest.NewReader(rc)
	w.Must(err)
	h := m.Header()
	h.Made = h.Made.Add(time.Hour)
	var text bytes.Buffer
	mw, err := manifest.NewWriter(&text, h)
	w.Must(err)
	for {
		rec, err := m.Next()
		if err == io.EOF {
			break
		}
		w.Must(err)
		switch {
		case rec.Volume != nil:
			err = mw.Volume(rec.Volume)
		case rec.Entry != nil:
			err = mw.Entry(rec.Entry)
		case rec.Deleted != nil:
			err = mw.Delete(*rec.Deleted)
		}
		w.Must(err)
	}
	_, err = mw.Close(w.Signer)
	w.Must(err)
	enc, err := w.Compressor.NewEncoder()
	w.Must(err)
	defer enc.Close()
	packed, err := enc.EncodeFrame(nil, text.Bytes())
	w.Must(err)
	var out bytes.Buffer
	c, err := w.Encryptor.Encrypt(&out)
	w.Must(err)
	_, err = c.Write(packed)
	w.Must(err)
	w.Must(c.Close())
	return out.Bytes()
}

func TestForkedSet(t *testing.T) {
	t.Parallel()
	w := world(t, 0)
	before := read(t, w)
	w.NewCatalog()
	w.Must(w.DB.PutSet(ctx, w.Set))
	w.Backup()
	w.NewCatalog()
	res, err := recovery.Run(ctx, options(w))
	wantKind(t, err, failure.Partial)
	if res.Recovered != 4 || res.Found[recovery.Conflict] != 1 {
		t.Errorf("%+v", res)
	}
	compare(t, before, read(t, w))
}

func TestNameTaken(t *testing.T) {
	t.Parallel()
	w := world(t, 0)
	old := w.Set
	w.NewCatalog()
	w.Set = w.NewSet("tree")
	w.Backup()
	_, err := recovery.Run(ctx, options(w))
	w.Must(err)
	sets, err := w.DB.Sets(ctx)
	w.Must(err)
	if len(sets) != 2 {
		t.Fatalf("%+v", sets)
	}
	for _, s := range sets {
		if s.ID == old.ID && s.Name != "tree-"+old.ID {
			t.Errorf("%+v", s)
		}
	}
}

func TestMissingVolume(t *testing.T) {
	t.Parallel()
	w := world(t, 0)
	before := read(t, w)
	gone := before.Volumes[before.Snaps[0].ID][1].Archive
	w.Must(w.Vault.Delete(ctx, gone))
	w.NewCatalog()
	res, err := recovery.Run(ctx, options(w))
	wantKind(t, err, failure.Damaged)
	if res.Recovered != 4 || res.Found[recovery.Missing] != 1 || res.Sample[0].Archive != gone {
		t.Errorf("%+v", res)
	}
	compare(t, before, read(t, w))
}

func TestStrays(t *testing.T) {
	t.Parallel()
	w := world(t, 0)
	h := read(t, w).Snaps[0].Header
	h.Snap, h.N = w.Set.ID, 7 // any id
	store(w, "", manifest.Describe(&h, 1).String(), []byte("a volume of a run that did not end"))
	store(w, "", "not Firn's", []byte("x"))
	w.NewCatalog()
	res, err := recovery.Run(ctx, options(w))
	w.Must(err)
	if res.Strays != 1 || res.Recovered != 4 {
		t.Errorf("%+v", res)
	}
}

// What the vault itself wrote down of its archives is damaged: their data and names are enough.
func TestDamagedMetaFiles(t *testing.T) {
	t.Parallel()
	w := world(t, 0)
	before := read(t, w)
	w.NewCatalog()
	for i, s := range before.Snaps {
		before.Snaps[i].ManifestPart.TreeHash = treehash.Hash{} // the listing does not tell it
		path := filepath.Join(w.Vault.Root(), "meta", s.ManifestPart.Archive+".json")
		text, err := os.ReadFile(path)
		w.Must(err)
		text[0] ^= 1
		w.Must(os.WriteFile(path, text, 0o600))
	}
	res, err := recovery.Run(ctx, options(w))
	wantKind(t, err, failure.Damaged)
	if res.Recovered != len(before.Snaps) {
		t.Errorf("%+v", res)
	}
	compare(t, before, read(t, w))
	for i, s := range before.Snaps {
		if _, err := restore.Run(ctx, w.RestoreOptions(s, filepath.Join(w.Dir, fmt.Sprint("to", i)))); err != nil {
			t.Error(err)
		}
	}
	sourcetest.Diff(t, w.Tree, filepath.Join(w.Dir, fmt.Sprint("to", len(before.Snaps)-1)))
}

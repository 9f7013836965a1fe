package extract

import (
	"bytes"
	"crypto/sha256"
	"os"
	"testing"

	"github.com/firn-backup/firn/internal/snapshot"
	"github.com/firn-backup/firn/internal/tarstream"
)

func TestSparse(t *testing.T) {
	variants(t, func(t *testing.T, o Options) {
		root := t.TempDir()
		r := open(t, root, o)
		const size = 64 << 20
		extents := []tarstream.Extent{{Offset: 4096, Size: 4096}, {Offset: 1 << 20, Size: 8192}, {Offset: 33<<20 + 4096, Size: 4096}}
		data := bytes.Repeat([]byte("0123456789abcdef"), 1024)
		stored := append(tarstream.AppendSparseMap(nil, extents, size), data...)
		e := mine("sparse", snapshot.File, 0o600)
		e.Size = size
		e.Content = snapshot.Content{N: 1, Volume: 1, Stored: int64(len(stored)), Sparse: true, SHA256: sha256.Sum256(stored)}
		must(t, put(r, e, string(stored)))
		st := stat(t, root+"/sparse")
		if st.Size != size || st.Blocks > 256 {
			t.Errorf("size %d, blocks %d", st.Size, st.Blocks)
		}
		got, err := os.ReadFile(root + "/sparse")
		must(t, err)
		want := make([]byte, size)
		at := 0
		for _, x := range extents {
			copy(want[x.Offset:x.Offset+x.Size], data[at:])
			at += int(x.Size)
		}
		if !bytes.Equal(got, want) {
			t.Error("sparse file differs")
		}
		if s, err := r.Existing(e); s != Same || err != nil {
			t.Errorf("state %v, %v", s, err)
		}

		// A copy keeps the holes.
		f, err := r.File(link2(e, "other"))
		must(t, err)
		f.Write(stored)
		must(t, f.Commit())
		must(t, r.Copy(f, link2(e, "copy")))
		f.Close()
		if st := stat(t, root+"/copy"); st.Size != size || st.Blocks > 256 {
			t.Errorf("copy: size %d, blocks %d", st.Size, st.Blocks)
		}
		if s, _ := r.Existing(link2(e, "copy")); s != Same {
			t.Errorf("copy: state %v", s)
		}

		// The same bytes with other holes: only the content can tell.
		must(t, os.WriteFile(root+"/sparse", want, 0o600))
		if s, err := r.Existing(e); s != Unknown || err != nil {
			t.Errorf("filled: state %v, %v", s, err)
		}
		must(t, put(r, e, string(stored)))
		want[5000]++
		must(t, os.WriteFile(root+"/sparse", want, 0o600))
		wantIs(t, put(r, e, string(stored)), ErrExists)

		// Broken maps and cut data.
		for name, bad := range map[string][]byte{
			"cut": stored[:len(stored)-1], "long": append(stored[:len(stored):len(stored)], 'x'),
			"no map": []byte("x\n"), "half a map": stored[:5], "nothing": nil,
		} {
			if err := put(r, link2(e, "bad"), string(bad)); err == nil {
				t.Errorf("%s: committed", name)
			}
		}
		wantNothingElse(t, root, "copy", "other", "sparse")
	})
}

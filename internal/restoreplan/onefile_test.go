package restoreplan_test

import (
	"bytes"
	"context"
	"io"
	"math/rand/v2"
	"path/filepath"
	"sync/atomic"
	"testing"

	"github.com/firn-backup/firn/internal/codec"
	"github.com/firn-backup/firn/internal/codec/compress"
	"github.com/firn-backup/firn/internal/codec/encrypt"
	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/internal/coldstore/localdir"
	"github.com/firn-backup/firn/internal/manifest"
	"github.com/firn-backup/firn/internal/restoreplan"
	"github.com/firn-backup/firn/internal/transfer"
	"github.com/firn-backup/firn/internal/volume"
)

// A key pair for these tests and nothing else.
const (
	recipient = "age15473zame7rvpd0z9r6nnefdgxwx0rvmhvtf9rdgvdhqavr7n6a7qr3ww8c"
	identity  = "AGE-SECRET-KEY-1HU2N8VMN4L453VT0ANCMUHZ2GSGM03VUYAX7DMXSVRSUUNZHMRZQEH3N6M"
	mib       = 1 << 20
)

// vaultSink stores a volume as a backup does.
type vaultSink struct {
	*transfer.Upload
	t    *testing.T
	vols *[]*manifest.Volume
}

func (s vaultSink) Finish(ctx context.Context, v *manifest.Volume) error {
	a, err := s.Complete(ctx, func(p transfer.Pending) error {
		if p.Size != v.Size {
			s.t.Errorf("%d bytes went through the upload, the volume has %d", p.Size, v.Size)
		}
		v.Leaves, v.TreeHash = p.Leaves, p.TreeHash
		return nil
	})
	v.Archive = a.ID
	*s.vols = append(*s.vols, v)
	return err
}

// counting counts what is read of a vault.
type counting struct {
	coldstore.Store
	asked, read atomic.Int64
}

func (c *counting) RequestRetrieval(ctx context.Context, a string, r coldstore.Range, o coldstore.RetrievalOptions) (coldstore.Retrieval, error) {
	c.asked.Add(r.Size)
	return c.Store.RequestRetrieval(ctx, a, r, o)
}

func (c *counting) OpenRetrieved(ctx context.Context, r coldstore.Retrieval, off, size int64) (io.ReadCloser, error) {
	rc, err := c.Store.OpenRetrieved(ctx, r, off, size)
	if err != nil {
		return nil, err
	}
	return &countingReader{rc, c}, nil
}

type countingReader struct {
	io.ReadCloser
	c *counting
}

func (r *countingReader) Read(p []byte) (int, error) {
	n, err := r.ReadCloser.Read(p)
	r.c.read.Add(int64(n))
	return n, err
}

type file struct {
	vol  int
	off  int64
	data []byte
}

// One file of 1 MiB that does not compress, out of a large encrypted volume in a
// real vault, costs little more than itself; and it comes back.
func TestOneFile(t *testing.T) {
	t.Parallel()
	store, err := localdir.Create(filepath.Join(t.TempDir(), "vault"), localdir.Options{})
	if err != nil {
		t.Fatal(err)
	}
	comp, err := compress.New("zstd")
	if err != nil {
		t.Fatal(err)
	}
	enc, err := encrypt.NewEncryptor("age", encrypt.EncryptOptions{Recipients: []string{recipient}})
	if err != nil {
		t.Fatal(err)
	}
	ids, err := encrypt.ParseIdentities([]byte(identity), encrypt.IdentityOptions{})
	if err != nil {
		t.Fatal(err)
	}
	dec, err := encrypt.NewDecryptor("age", encrypt.Keys{Age: ids})
	if err != nil {
		t.Fatal(err)
	}
	var vols []*manifest.Volume
	pool := transfer.NewPool(3)
	w := volume.NewWriter(t.Context(), volume.Options{
		Compress: comp, Encrypt: enc, Size: 96 * mib,
		Open: func(ctx context.Context, n int) (volume.Sink, error) {
			u := transfer.NewUpload(ctx, store, coldstore.NewArchive{Name: "v" + string(rune('0'+n))}, transfer.Options{Pool: pool})
			return vaultSink{u, t, &vols}, nil
		},
	})
	files := writeFiles(t, w)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if len(vols) != 2 || vols[0].Size < 64*mib {
		t.Fatalf("%d volumes, the first of %d", len(vols), vols[0].Size)
	}
	c := &counting{Store: store}
	for i, f := range files {
		v := vols[f.vol-1]
		span := restoreplan.Span{Offset: f.off, Size: int64(len(f.data))}
		reads, err := restoreplan.Volume(v, []restoreplan.Span{span}, enc.Geometry(), store.Traits(), mib)
		if err != nil {
			t.Fatal(err)
		}
		c.asked.Store(0)
		c.read.Store(0)
		if got := fetch(t, c, v, reads, dec, comp, enc, span); !bytes.Equal(got, f.data) {
			t.Fatalf("file %d at %d: %d bytes came back", i, f.off, len(got))
		}
		if len(f.data) == mib && (c.asked.Load() > mib*33/10 || c.read.Load() > c.asked.Load()) {
			t.Errorf("file %d at %d: %d bytes retrieved, %d read", i, f.off, c.asked.Load(), c.read.Load())
		}
	}
}

// writeFiles writes files of 1 MiB with a tar header each, and here and there small ones.
func writeFiles(t *testing.T, w *volume.Writer) (files []file) {
	t.Helper()
	header := make([]byte, 512)
	for i := range 110 {
		data := make([]byte, mib)
		if i%10 == 9 {
			data = data[:1000*i]
		}
		rand.NewChaCha8([32]byte{byte(i)}).Read(data)
		pad := make([]byte, -len(data)&511)
		if err := w.Boundary(int64(len(header) + len(data) + len(pad))); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(header); err != nil {
			t.Fatal(err)
		}
		vol, off := w.Pos()
		files = append(files, file{vol, off, data})
		for _, b := range [][]byte{data, pad} {
			if _, err := w.Write(b); err != nil {
				t.Fatal(err)
			}
		}
	}
	return files
}

func fetch(t *testing.T, c *counting, v *manifest.Volume, reads []restoreplan.Read, dec codec.Decryptor, comp codec.Compressor, enc codec.Encryptor, span restoreplan.Span) []byte {
	t.Helper()
	var rs []coldstore.Retrieval
	for _, r := range reads {
		got, err := c.RequestRetrieval(t.Context(), v.Archive, r.Range, coldstore.RetrievalOptions{})
		if err != nil || !got.Ready {
			t.Fatal(got, err)
		}
		rs = append(rs, got)
	}
	src := transfer.NewReaderAt(t.Context(), c, v, rs, transfer.Options{}, func(d transfer.Damage) { t.Errorf("damage %+v", d) })
	defer src.Close()
	var out []byte
	for _, r := range reads {
		err := volume.Frames(t.Context(), v, src, dec, comp, enc.Geometry(), r.First, r.Last,
			func(_ int, off int64, raw []byte, err error) error {
				if err != nil {
					return err
				}
				from := max(span.Offset-off, 0)
				to := min(span.Offset+span.Size-off, int64(len(raw)))
				if from < to {
					out = append(out, raw[from:to]...)
				}
				return nil
			})
		if err != nil {
			t.Fatal(err)
		}
	}
	return out
}

package retrieval

import (
	"context"
	"errors"
	"io"

	"github.com/firn-backup/firn/internal/codec"
	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/internal/transfer"
	"github.com/firn-backup/firn/treehash"
)

// OpenWhole opens an archive that is one compressed and encrypted stream, a
// manifest, through a retrieval that is ready. The bytes must be taken for
// true only after io.EOF. hash may be zero. Errors are those of transfer.Stream and of the codecs.
func (d *Desk) OpenWhole(ctx context.Context, r coldstore.Retrieval, size int64, hash treehash.Hash, compress, encrypt string) (io.ReadCloser, error) {
	dec, _, err := d.o.Codecs.Decryptor(encrypt)
	if err != nil {
		return nil, err
	}
	src := transfer.Stream(ctx, d.o.Store, r, size, hash, d.o.Transfer)
	plain, err := dec.Decrypt(src)
	if err != nil {
		src.Close()
		if errors.Is(err, codec.ErrNoKey) && !hash.IsZero() {
			// A header that is damaged looks like one for another key.
			whole := transfer.Stream(ctx, d.o.Store, r, size, hash, d.o.Transfer)
			defer whole.Close()
			if _, derr := io.Copy(io.Discard, whole); derr != nil {
				return nil, derr
			}
		}
		return nil, err
	}
	rc, err := d.o.Codecs.Decompress(compress, plain)
	if err != nil {
		src.Close()
		return nil, err
	}
	return &wholeReader{rc, plain, src, false}, nil
}

// wholeReader reads every layer to its end, so that each has said what it has to
// say: the compressor's end is not the cipher's, nor that the archive's.
type wholeReader struct {
	io.ReadCloser
	plain io.Reader
	src   io.ReadCloser
	ended bool
}

func (w *wholeReader) Read(p []byte) (int, error) {
	n, err := w.ReadCloser.Read(p)
	if err == io.EOF && !w.ended {
		for _, r := range []io.Reader{w.plain, w.src} {
			if _, err := io.Copy(io.Discard, r); err != nil {
				return n, err
			}
		}
		w.ended = true
	}
	return n, err
}

func (w *wholeReader) Close() error {
	err := w.ReadCloser.Close()
	w.src.Close()
	return err
}

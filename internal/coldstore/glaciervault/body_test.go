package glaciervault

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/treehash"
)

// Whoever has all bytes knows that they are right, however they were read.
func TestBodyIsChecked(t *testing.T) {
	t.Parallel()
	data := bytes.Repeat([]byte("0123456789"), 150_000)
	sum := treehash.Sum(data).String()
	for name, from := range map[string]func(io.Reader) io.Reader{
		"as it comes":  func(r io.Reader) io.Reader { return r },
		"with the end": iotest.DataErrReader, // io.EOF comes with the last bytes
		"in halves":    iotest.HalfReader,
	} {
		for _, want := range []string{sum, strings.ToUpper(sum), ""} {
			b := newBody(io.NopCloser(from(bytes.NewReader(data))), int64(len(data)), want)
			if err := iotest.TestReader(b, data); err != nil {
				t.Errorf("%s, %q: %v", name, want, err)
			}
		}
		wrong := treehash.Sum([]byte("else")).String()
		b := newBody(io.NopCloser(from(bytes.NewReader(data))), int64(len(data)), wrong)
		if _, err := io.ReadFull(b, make([]byte, len(data))); !errors.Is(err, coldstore.ErrIntegrity) {
			t.Errorf("%s: all bytes came, and %v", name, err)
		}
		if n, err := b.Read(make([]byte, 1)); n != 0 || !errors.Is(err, coldstore.ErrIntegrity) {
			t.Errorf("%s, once more: %d, %v", name, n, err)
		}
		b = newBody(io.NopCloser(from(bytes.NewReader(data[1:]))), int64(len(data)), sum)
		if _, err := io.ReadAll(b); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%s, short: %v", name, err)
		}
	}
}

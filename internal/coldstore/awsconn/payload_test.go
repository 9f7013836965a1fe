package awsconn

import (
	"bytes"
	"errors"
	"io"
	"testing"
)

func TestPacedBody(t *testing.T) {
	t.Parallel()
	data := bytes.Repeat([]byte("0123456789abcdef"), 20_000)
	asked, most := 0, 0
	r := NewBody(data, func(n int) error { asked, most = asked+n, max(most, n); return nil })
	if _, all := r.(io.WriterTo); all {
		t.Error("all of it can be had at once")
	}
	for range 2 { // a second time, as after a redirect
		if size, err := r.Seek(0, io.SeekEnd); err != nil || size != int64(len(data)) {
			t.Error(size, err)
		}
		if _, err := r.Seek(0, io.SeekStart); err != nil {
			t.Error(err)
		}
		if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, data) {
			t.Errorf("%d bytes, %v", len(got), err)
		}
	}
	if asked != 2*len(data) || most > pacedPiece {
		t.Errorf("asked for %d bytes, at most %d at once", asked, most)
	}
	stop := errors.New("stop")
	if _, err := io.ReadAll(NewBody(data, func(int) error { return stop })); !errors.Is(err, stop) {
		t.Error(err)
	}
}

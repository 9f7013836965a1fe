package storetest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"testing"

	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/treehash"
)

// testSections: a store that reads parts where they lie stores the same as of those that lie in memory, and
// refuses what has changed since it was hashed.
func testSections(t *testing.T, r *run) {
	s, ok := r.s.(coldstore.SectionUploader)
	if !ok {
		t.Skip("the store does not")
	}
	ctx := t.Context()
	data := r.data[:2*r.part+r.part/2+7]
	up, err := r.s.CreateUpload(ctx, coldstore.NewArchive{Name: "sections"}, r.part)
	if err != nil {
		t.Fatal(err)
	}
	put := func(ctx context.Context, off int64, have []byte, of []byte, wait func(int) error) error {
		section := io.NewSectionReader(bytes.NewReader(have), 0, int64(len(have)))
		return s.PutPartSection(ctx, up.ID, off, section, treehash.Sum(of), sha256.Sum256(of), wait)
	}
	part := func(i int64) []byte { return data[i*r.part : min((i+1)*r.part, int64(len(data)))] }
	waited := 0
	for _, i := range []int64{2, 0, 1} {
		if err := put(ctx, i*r.part, part(i), part(i), func(n int) error { waited += n; return nil }); err != nil {
			t.Fatal(err)
		}
	}
	if waited < len(data) {
		t.Errorf("asked for %d bytes of %d", waited, len(data))
	}
	changed := bytes.Clone(part(1))
	changed[len(changed)/2] ^= 1
	if err := put(ctx, r.part, changed, part(1), nil); !errors.Is(err, coldstore.ErrIntegrity) {
		t.Errorf("bytes that changed: %v", err)
	}
	stop := errors.New("stop")
	if err := put(ctx, r.part, part(1), part(1), func(int) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("waiting failed: %v", err)
	}
	a, err := r.s.CompleteUpload(ctx, up.ID, int64(len(data)), treehash.Sum(data))
	if err != nil || a.TreeHash != treehash.Sum(data) {
		t.Fatalf("%+v, %v", a, err)
	}
}

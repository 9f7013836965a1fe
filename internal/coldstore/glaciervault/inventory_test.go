package glaciervault

import (
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/treehash"
)

const emptyHash = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

func TestParseInventory(t *testing.T) {
	t.Parallel()
	entry := `{"ArchiveId":"A","ArchiveDescription":"a \"b\", \\ c\u00e9","CreationDate":"2026-01-02T03:04:05.678Z","Size":5,"SHA256TreeHash":"` + emptyHash + `","New":[1]}`
	want := coldstore.Archive{
		ID: "A", Description: "a \"b\", \\ cé", Size: 5, TreeHash: treehash.Sum(nil), Created: time.Date(2026, 1, 2, 3, 4, 5, 678e6, time.UTC),
	}
	for _, good := range []string{
		`{"VaultARN":"arn","InventoryDate":"2026-02-01T00:00:00Z","ArchiveList":[` + entry + `]}`,
		` { "ArchiveList" : [ ` + entry + ` ] , "Odd": {"x":[null]}, "InventoryDate":"2026-02-01T00:00:00.000Z" } `,
	} {
		var got []coldstore.Archive
		asOf, err := parseInventory(strings.NewReader(good), func(a coldstore.Archive) error { got = append(got, a); return nil })
		if err != nil || len(got) != 1 || got[0] != want || !asOf.Equal(time.Date(2026, 2, 1, 0, 0, 0, 0, time.UTC)) {
			t.Errorf("%s: %+v, %v, %v", good, got, asOf, err)
		}
		for n := range len(strings.TrimSpace(good)) {
			if _, err := parseInventory(strings.NewReader(strings.TrimSpace(good)[:n]), func(coldstore.Archive) error { return nil }); !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Fatalf("cut at %d: %v", n, err)
			}
		}
	}
	if got, err := parseInventory(strings.NewReader(`{"InventoryDate":"2026-02-01T00:00:00Z","ArchiveList":[{"ArchiveId":"A","SHA256TreeHash":null}]}`), func(a coldstore.Archive) error {
		if !a.TreeHash.IsZero() {
			t.Errorf("hash %s", a.TreeHash)
		}
		return nil
	}); err != nil {
		t.Errorf("no hash: %v, %v", got, err)
	}
	for _, bad := range []string{
		`[]`, `null`, `{}`, `{"ArchiveList":[]}`, `{"InventoryDate":"2026-02-01T00:00:00Z"}`, `{"InventoryDate":"2026-02-01T00:00:00Z","ArchiveList":{}}`,
		`{"InventoryDate":"2026-02-01T00:00:00Z","ArchiveList":[{"Size":1}]}`, `{"InventoryDate":"2026-02-01T00:00:00Z","ArchiveList":[{"ArchiveId":"A","Size":-1}]}`,
		`{"InventoryDate":"2026-02-01T00:00:00Z","ArchiveList":[{"ArchiveId":"A","Size":"1"}]}`, `{"InventoryDate":"x","ArchiveList":[]}`, `{"a":1,]}`,
		`{"InventoryDate":"2026-02-01T00:00:00Z","ArchiveList":[],"ArchiveList":[]}`, `<html>`,
	} {
		_, err := parseInventory(strings.NewReader(bad), func(coldstore.Archive) error { return nil })
		if err == nil || !errors.Is(ofReading(t.Context(), err), coldstore.ErrIntegrity) {
			t.Errorf("%s: %v", bad, err)
		}
	}
}

// endless is an inventory of n archives that is nowhere as a whole.
type endless struct {
	n, i int
	buf  []byte
}

func (e *endless) Read(p []byte) (int, error) {
	if len(e.buf) == 0 {
		switch {
		case e.i == 0:
			e.buf = []byte(`{"VaultARN":"arn","InventoryDate":"2026-02-01T00:00:00Z","ArchiveList":[`)
		case e.i <= e.n:
			comma := ","
			if e.i == 1 {
				comma = ""
			}
			e.buf = fmt.Appendf(nil, `%s{"ArchiveId":"%0138d","ArchiveDescription":"d","CreationDate":"2026-01-02T03:04:05.678Z","Size":5,"SHA256TreeHash":"%s"}`, comma, e.i, emptyHash)
		case e.i == e.n+1:
			e.buf = []byte(`]}`)
		default:
			return 0, io.EOF
		}
		e.i++
	}
	n := copy(p, e.buf)
	e.buf = e.buf[n:]
	return n, nil
}

// The list of a large vault is never in memory.
func TestInventoryMemory(t *testing.T) {
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	var peak uint64
	seen := 0
	_, err := parseInventory(&endless{n: 100_000}, func(coldstore.Archive) error {
		if seen++; seen%20_000 == 0 {
			runtime.GC()
			runtime.ReadMemStats(&after)
			peak = max(peak, after.HeapAlloc)
		}
		return nil
	})
	if err != nil || seen != 100_000 {
		t.Fatalf("%d archives, %v", seen, err)
	}
	if peak > before.HeapAlloc+4<<20 {
		t.Errorf("%d bytes live while the list is read", peak-before.HeapAlloc)
	}
}

func FuzzParseInventory(f *testing.F) {
	f.Add(`{"VaultARN":"arn","InventoryDate":"2026-02-01T00:00:00Z","ArchiveList":[{"ArchiveId":"A","Size":5}]}`)
	f.Add(`{"ArchiveList":[[]]}`)
	f.Fuzz(func(t *testing.T, s string) {
		asOf, err := parseInventory(strings.NewReader(s), func(a coldstore.Archive) error {
			if a.ID == "" || a.Size < 0 {
				t.Errorf("archive %+v", a)
			}
			return nil
		})
		if err == nil && asOf.IsZero() {
			t.Error("no date")
		}
	})
}

package localdir

import (
	"fmt"
	"io"
	"sync"
	"testing"

	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/internal/coldstore/storetest"
	"github.com/firn-backup/firn/treehash"
)

// BenchmarkPutPart stores 64 MiB in parts of 16 MiB, as a backup does, by so many goroutines.
func BenchmarkPutPart(b *testing.B) {
	const part, parts = 16 << 20, 4
	data := storetest.Bytes(part, 1)
	hash := treehash.Sum(data)
	for _, parallel := range []int{1, 2, 4} {
		b.Run(fmt.Sprintf("parallel=%d", parallel), func(b *testing.B) {
			s := newStoreIn(b, b.TempDir(), Options{})
			b.SetBytes(parts * part)
			for b.Loop() {
				u, err := s.CreateUpload(b.Context(), coldstore.NewArchive{}, part)
				if err != nil {
					b.Fatal(err)
				}
				var wg sync.WaitGroup
				next := make(chan int64, parts)
				for i := range int64(parts) {
					next <- i * part
				}
				close(next)
				for range parallel {
					wg.Go(func() {
						for off := range next {
							if err := s.PutPart(b.Context(), u.ID, off, data, hash); err != nil {
								b.Error(err)
							}
						}
					})
				}
				wg.Wait()
				if err := s.AbortUpload(b.Context(), u.ID); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkSmallUpload stores one archive of 1 KiB in all its steps.
func BenchmarkSmallUpload(b *testing.B) {
	s := newStoreIn(b, b.TempDir(), Options{})
	data := storetest.Bytes(1024, 1)
	for b.Loop() {
		storetest.Upload(b, s, coldstore.NewArchive{}, minPart, data)
	}
}

func BenchmarkList(b *testing.B) {
	const archives = 2000
	s := newStoreIn(b, memDir(b), Options{})
	for i := range archives {
		storetest.Upload(b, s, coldstore.NewArchive{Name: fmt.Sprintf("set/%d/%d", i%20, i)}, minPart, []byte{1})
	}
	for b.Loop() {
		if _, err := s.List(b.Context(), func(coldstore.Archive) error { return nil }); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N*archives), "µs/archive")
}

func BenchmarkOpenRetrieved(b *testing.B) {
	s := newStoreIn(b, b.TempDir(), Options{})
	data := storetest.Bytes(16<<20, 1)
	storetest.Upload(b, s, coldstore.NewArchive{Name: "a"}, 16<<20, data)
	r, err := s.RequestRetrieval(b.Context(), "a", coldstore.Range{}, coldstore.RetrievalOptions{})
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(data)))
	buffer := make([]byte, 1<<20)
	for b.Loop() {
		rc, err := s.OpenRetrieved(b.Context(), r, 0, int64(len(data)))
		if err != nil {
			b.Fatal(err)
		}
		if _, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, rc, buffer); err != nil {
			b.Fatal(err)
		}
		rc.Close()
	}
}

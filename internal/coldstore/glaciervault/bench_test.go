package glaciervault_test

import (
	"testing"

	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/internal/coldstore/glaciervault"
	"github.com/firn-backup/firn/internal/coldstore/storetest"
	"github.com/firn-backup/firn/internal/glacierserver"
	"github.com/firn-backup/firn/internal/transfer"
)

// BenchmarkUpload uploads over loopback to this project's server, which hashes as often as the client does.
func BenchmarkUpload(b *testing.B) {
	s, err := glaciervault.CreateTest(b.Context(), vaultURL(serve(b, newClock(), glacierserver.Delays{})), glaciervault.Options{}, nil)
	if err != nil {
		b.Fatal(err)
	}
	data := storetest.Bytes(64<<20, 1)
	const times = 8
	b.SetBytes(times * int64(len(data)))
	o := transfer.Options{Pool: transfer.NewPool(3)}
	for b.Loop() {
		u := transfer.NewUpload(b.Context(), s, coldstore.NewArchive{}, o)
		for range times {
			if _, err := u.Write(data); err != nil {
				b.Fatal(err)
			}
		}
		if _, err := u.Complete(b.Context(), nil); err != nil {
			b.Fatal(err)
		}
	}
}

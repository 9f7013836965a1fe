package compress

import (
	"math/rand/v2"
	"testing"
)

func BenchmarkEncode(b *testing.B) {
	for _, spec := range []string{"zstd:1", "zstd", "zstd:7", "zstd:19", "gzip", "bzip2", "none"} {
		b.Run(spec, func(b *testing.B) {
			e, _ := coders(b, mustNew(b, spec))
			raw := mixed(rand.New(rand.NewPCG(13, 14)), 4<<20)
			var dst []byte
			b.SetBytes(int64(len(raw)))
			b.ReportAllocs()
			for b.Loop() {
				var err error
				if dst, err = e.EncodeFrame(dst[:0], raw); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(len(raw))/float64(len(dst)), "ratio")
		})
	}
}

func BenchmarkDecode(b *testing.B) {
	for _, spec := range []string{"zstd", "gzip", "bzip2", "none"} {
		b.Run(spec, func(b *testing.B) {
			e, d := coders(b, mustNew(b, spec))
			raw := mixed(rand.New(rand.NewPCG(13, 14)), 4<<20)
			frame, err := e.EncodeFrame(nil, raw)
			if err != nil {
				b.Fatal(err)
			}
			var dst []byte
			b.SetBytes(int64(len(raw)))
			b.ReportAllocs()
			for b.Loop() {
				if dst, err = d.DecodeFrame(dst[:0], frame, int64(len(raw))); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

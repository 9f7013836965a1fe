package main

import (
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// bands times the tree hashes of many sparse files, as those of a sparsebundle, beside SHA-256 by openssl on all processors.
func (b *bench) bands(n, runs int) error {
	const size = 8 << 20
	dir := filepath.Join(b.dir, "bands")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for i := range n {
		f, err := os.Create(filepath.Join(dir, fmt.Sprintf("%x", i)))
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(f, "band %d", i)
		if err == nil {
			err = f.Truncate(size)
		}
		if cerr := f.Close(); err == nil {
			err = cerr
		}
		if err != nil {
			return err
		}
	}
	var firn, other []time.Duration
	for range runs {
		m, err := b.shell(`find bands -type f -print0 | xargs -0 "` + b.firn + `" treehash > /dev/null`)
		if err != nil {
			return err
		}
		firn = append(firn, m.wall)
		if m, err = b.shell(`find bands -type f -print0 | xargs -0 -P "$(nproc)" -n 50 openssl dgst -sha256 > /dev/null`); err != nil {
			return err
		}
		other = append(other, m.wall)
	}
	what := fmt.Sprintf("tree hashes of %s sparse bands of 8 MiB / openssl dgst -sha256", thousands(n))
	b.row(what, secs(median(firn)), secs(median(other)), medianRatio(firn, other), "≤ 1.25")
	return os.RemoveAll(dir)
}

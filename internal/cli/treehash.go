package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"

	"github.com/spf13/cobra"

	"github.com/firn-backup/firn/internal/failure"
	"github.com/firn-backup/firn/treehash"
)

func newTreehash(c *command) *cobra.Command {
	return &cobra.Command{
		Use:         "treehash FILE…",
		Annotations: lists(),
		Short:       "Print the SHA-256 tree hashes of files",
		Long: `Print the SHA-256 tree hash of each file, as Amazon Glacier computes it and as
Firn's catalog and manifests hold it. The form is that of sha256sum. "-" is the
standard input.`,
		Example: example("firn treehash backup.tar.zst.age", "tar c . | firn treehash -"),
		Args:    args(1, -1, "one or more files"),
		RunE: func(cmd *cobra.Command, files []string) error {
			type result struct {
				jsonPath
				TreeHash string `json:"tree_hash"`
				Size     int64  `json:"size"`
			}
			results := []result{}
			var failed error
			next, stop := c.hashFiles(cmd.Context(), files)
			defer stop()
			for _, name := range files {
				h, size, err := next()
				switch {
				case errors.Is(err, context.Canceled):
					return err
				case err != nil && len(files) > 1: // one bad file does not hide the others
					c.err("firn: error: ", err.Error())
					failed = failure.Errorf(failure.Failed, "not all files could be read")
					continue
				case err != nil:
					return err
				}
				results = append(results, result{pathJSON(name), h.String(), size})
				if !c.json {
					c.printf("%s  %s\n", h, shown(name))
				}
			}
			if c.json {
				if err := c.document(results); err != nil {
					return err
				}
			}
			return failed
		},
	}
}

// hashFiles hashes files, each on a processor of its own where there are several, and returns what gives their results in
// order. stop ends it.
func (c *command) hashFiles(ctx context.Context, files []string) (next func() (treehash.Hash, int64, error), stop func()) {
	type result struct {
		hash treehash.Hash
		size int64
		err  error
	}
	if len(files) == 1 || slices.Contains(files, "-") {
		i := -1
		return func() (treehash.Hash, int64, error) { i++; return c.hashFile(ctx, files[i]) }, func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	results := make(chan chan result, 4*runtime.GOMAXPROCS(0))
	slots := make(chan []byte, runtime.GOMAXPROCS(0))
	for range cap(slots) {
		slots <- make([]byte, 2*treehash.LeafSize)
	}
	go func() {
		for _, name := range files {
			one := make(chan result, 1)
			select {
			case results <- one:
			case <-ctx.Done():
				return
			}
			buf := <-slots
			go func() {
				defer func() { slots <- buf }()
				h, n, err := hashWhole(ctx, name, buf)
				one <- result{h, n, err}
			}()
		}
	}()
	return func() (treehash.Hash, int64, error) {
		r := <-<-results
		return r.hash, r.size, r.err
	}, cancel
}

// hashWhole hashes a file on this processor.
func hashWhole(ctx context.Context, name string, buf []byte) (treehash.Hash, int64, error) {
	f, err := os.Open(name)
	if err != nil {
		return treehash.Hash{}, 0, err
	}
	defer f.Close() // it was only read
	sum := treehash.New()
	for {
		if err := ctx.Err(); err != nil {
			return treehash.Hash{}, 0, err
		}
		n, err := f.Read(buf)
		sum.Write(buf[:n])
		switch {
		case errors.Is(err, io.EOF):
			return sum.Sum(), sum.Size(), nil
		case err != nil:
			return treehash.Hash{}, 0, fmt.Errorf("read %s: %w", name, err)
		}
	}
}

// hashFile reads in large steps, whose leaves are computed on all processors.
func (c *command) hashFile(ctx context.Context, name string) (treehash.Hash, int64, error) {
	in := c.env.Stdin
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return treehash.Hash{}, 0, err
		}
		defer f.Close()
		in = f
	}
	var leaves []treehash.Hash
	var size int64
	buf := make([]byte, 16*treehash.LeafSize)
	for {
		if err := ctx.Err(); err != nil {
			return treehash.Hash{}, 0, err
		}
		n, err := io.ReadFull(in, buf)
		size += int64(n)
		if n > 0 || leaves == nil {
			leaves = append(leaves, treehash.Leaves(buf[:n])...)
		}
		switch {
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
			return treehash.Combine(leaves), size, nil
		case err != nil:
			return treehash.Hash{}, 0, fmt.Errorf("read %s: %w", name, err)
		}
	}
}

package itemstore

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"time"

	"github.com/firn-backup/firn/internal/snapshot"
	"github.com/firn-backup/firn/internal/source"
	"github.com/firn-backup/firn/internal/tarstream"
)

// WriteTar writes a directory, of which tree is the tree, as a tar stream. Members are called after the directory's own
// name: NAME/…. A file that changes while it is read is in the stream all the same, and among Measure.Faults.
func WriteTar(ctx context.Context, tree source.Tree, full, name string, w io.Writer, now func() time.Time) (Measure, error) {
	t := &tarWriter{tree: tree, w: w, m: newMeter(now()), full: full, name: name, links: map[string]string{}, buf: make([]byte, 256<<10)}
	err := tree.Walk(ctx, func(items []source.Item) error {
		for k := range items {
			if items[k].Err != nil {
				t.m.fault(items[k].Entry.Path, items[k].Err)
				if !items[k].Known {
					continue
				}
			}
			if err := t.member(ctx, items[k].Entry); err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil {
		_, err = w.Write(tarstream.Trailer[:])
	}
	if err != nil {
		return Measure{}, err
	}
	return t.m.end(true), nil
}

type tarWriter struct {
	tree       source.Tree
	w          io.Writer
	m          *meter
	full, name string
	links      map[string]string // first name in the stream of each group of hard links
	head, buf  []byte
}

func (t *tarWriter) member(ctx context.Context, e snapshot.Entry) error {
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	path := e.Path
	if err := t.tree.Load(&e); err != nil {
		t.m.fault(path, err)
		return nil
	}
	rel := below(path, t.full)
	var f source.File
	if e.Type == snapshot.File {
		was := e
		var err error
		if f, err = t.tree.Open(&e); err != nil {
			t.m.entry(&was, rel) // it is there, as MeasureDir sees it
			t.m.fault(path, err)
			return nil
		}
		defer f.Close() // it was only read
	}
	t.m.entry(&e, rel)
	e.Path = t.name
	if rel != "" {
		e.Path += "/" + rel
	}
	first := ""
	if e.LinkGroup != "" {
		if first = t.links[e.LinkGroup]; first == "" {
			t.links[e.LinkGroup] = e.Path
		}
	}
	var stored int64
	sparse := false
	if f != nil && first == "" {
		stored, sparse = f.Stored(), f.Sparse()
	}
	var err error
	if t.head, err = tarstream.AppendHeader(t.head[:0], &e, stored, sparse, first); err != nil {
		t.m.fault(path, err)
		return nil
	}
	if _, err := t.w.Write(t.head); err != nil {
		return err
	}
	if f == nil {
		return nil
	}
	return t.content(f, path, stored, first == "")
}

// content writes the stored form of a file, or only hashes it.
func (t *tarWriter) content(f source.File, path string, stored int64, write bool) error {
	h := sha256.New()
	out := io.Writer(h)
	if write {
		out = io.MultiWriter(t.w, h)
	}
	n, err := io.CopyBuffer(struct{ io.Writer }{out}, struct{ io.Reader }{f}, t.buf)
	if err != nil {
		return err
	}
	if write {
		if n != stored {
			return fmt.Errorf("read %s: %d bytes came instead of %d", path, n, stored)
		}
		if _, err := t.w.Write(make([]byte, tarstream.Padding(stored))); err != nil {
			return err
		}
	}
	if err := f.Check(); err != nil {
		t.m.fault(path, fmt.Errorf("%w: %w", errTorn, err))
	}
	t.m.data([32]byte(h.Sum(nil)))
	return nil
}

// TarName is what the members of the tar of a directory begin with.
func TarName(full string) string {
	name := filepath.Base(full)
	if name == "/" || name == "." {
		return "root"
	}
	return name
}

func oneLine(err error) string { return strings.ReplaceAll(err.Error(), "\n", "; ") }

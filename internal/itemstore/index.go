package itemstore

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"slices"
	"time"
	"unicode/utf8"

	"github.com/firn-backup/firn/internal/catalog"
	"github.com/firn-backup/firn/internal/codec"
	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/internal/failure"
	"github.com/firn-backup/firn/internal/snapshot"
	"github.com/firn-backup/firn/internal/volume"
	"github.com/firn-backup/firn/treehash"
)

// An index is what tells of items whose archives' descriptions do not: JSON lines, a header, a line for each version of an
// item in the order of paths and numbers, and a signature. docs/design/items.md is its specification.

// maxIndexLine bounds a line, in bytes.
const maxIndexLine = 1 << 20

// maxDeltas is after how many indexes that tell of what is new there is one again that tells of everything.
const maxDeltas = 30

const signatureText = "firn-items signature v1\n"

// IndexHeader is the first line of an index.
type IndexHeader struct {
	Version int       `json:"firn-items"`
	SetID   string    `json:"setid"`
	Set     string    `json:"set"`
	Label   string    `json:"label"`
	Kind    string    `json:"kind"`
	Host    string    `json:"host"`
	Run     string    `json:"run"`
	N       uint64    `json:"n"`
	From    uint64    `json:"from"` // 1: it tells of everything that there is
	At      time.Time `json:"at"`
	Path    []byte    `json:"path64"`
}

type indexLine struct {
	Path      string        `json:"path,omitempty"`
	Path64    []byte        `json:"path64,omitempty"`
	N         uint64        `json:"n"`
	Until     uint64        `json:"until,omitempty"`
	Archive   string        `json:"archive,omitempty"`
	Size      int64         `json:"size,omitempty"`
	Tree      treehash.Hash `json:"tree"`
	Stored    time.Time     `json:"stored"`
	Deleted   *time.Time    `json:"deleted,omitempty"`
	Plain     int64         `json:"plain"`
	PlainTree treehash.Hash `json:"plain-tree"`
	catalog.ItemMore
}

type indexEnd struct {
	Items     int64 `json:"items"`
	Signature struct {
		Key []byte `json:"key"`
		Sig []byte `json:"sig"`
	} `json:"signature"`
}

// indexWriter writes an index.
type indexWriter struct {
	w     io.Writer
	hash  hash.Hash
	items int64
}

func (x *indexWriter) line(v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	b = append(b, '\n')
	if len(b) > maxIndexLine {
		return fmt.Errorf("index: a line of %d bytes", len(b))
	}
	x.hash.Write(b)
	_, err = x.w.Write(b)
	return err
}

func (x *indexWriter) item(i *catalog.Item) error {
	l := indexLine{N: i.N, Until: i.Until, Archive: i.Archive.Archive, Size: i.Archive.Size, Tree: i.Archive.TreeHash,
		Stored: i.Stored.UTC(), Plain: i.Plain, PlainTree: i.PlainHash, ItemMore: i.ItemMore}
	if !i.Self {
		l.Desc = ""
	}
	if utf8.ValidString(i.Path) {
		l.Path = i.Path
	} else {
		l.Path64 = []byte(i.Path)
	}
	if !i.Deleted.IsZero() {
		at := i.Deleted.UTC()
		l.Deleted = &at
	}
	x.items++
	return x.line(l)
}

func (x *indexWriter) end(key ed25519.PrivateKey) error {
	e := indexEnd{Items: x.items}
	e.Signature.Key = key.Public().(ed25519.PublicKey)
	e.Signature.Sig = ed25519.Sign(key, signed(x.hash.Sum(nil), x.items))
	b, err := json.Marshal(e)
	if err == nil {
		_, err = x.w.Write(append(b, '\n'))
	}
	return err
}

func signed(sum []byte, items int64) []byte {
	return fmt.Appendf(nil, "%s%d\n%x", signatureText, items, sum)
}

// ReadIndex reads an index and calls fn for each version. What it told of must be believed only after it has returned without
// an error, and if signer is trusted. Errors are failure.Damaged, or fn's.
func ReadIndex(r io.Reader, header func(IndexHeader) error, fn func(catalog.Item) error) (signer ed25519.PublicKey, err error) {
	damaged := func(format string, args ...any) error {
		return failure.Errorf(failure.Damaged, "index: "+format, args...)
	}
	in := bufio.NewReaderSize(r, maxIndexLine)
	sum := sha256.New()
	var h IndexHeader
	var items int64
	var last catalog.Item
	for n := 0; ; n++ {
		line, err := in.ReadSlice('\n')
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			return nil, damaged("line %d is too long", n+1)
		case errors.Is(err, io.EOF):
			return nil, damaged("it is cut off")
		case err != nil:
			return nil, err
		}
		if n == 0 {
			if json.Unmarshal(line, &h) != nil || h.Version == 0 || !snapshot.ValidID(h.SetID) || !snapshot.ValidID(h.Run) || h.N == 0 || h.From == 0 || h.From > h.N {
				return nil, damaged("its first line is none")
			}
			if h.Version > 1 {
				return nil, failure.Errorf(failure.Failed, "index: a newer Firn wrote it (version %d)", h.Version)
			}
			if err := header(h); err != nil {
				return nil, err
			}
			sum.Write(line)
			continue
		}
		if bytes.HasPrefix(line, []byte(`{"items":`)) {
			var e indexEnd
			if json.Unmarshal(line, &e) != nil || e.Items != items || len(e.Signature.Key) != ed25519.PublicKeySize ||
				!ed25519.Verify(e.Signature.Key, signed(sum.Sum(nil), items), e.Signature.Sig) {
				return nil, damaged("its signature is not right")
			}
			if _, err := in.ReadByte(); !errors.Is(err, io.EOF) {
				if err == nil {
					err = damaged("something comes behind its end")
				}
				return nil, err
			}
			return e.Signature.Key, nil
		}
		sum.Write(line)
		i, ok := parseLine(line, &h)
		if !ok || items > 0 && (snapshot.ComparePaths(last.Path, i.Path) > 0 || last.Path == i.Path && last.N >= i.N) {
			return nil, damaged("line %d is wrong", n+1)
		}
		items++
		last = i
		if err := fn(i); err != nil {
			return nil, err
		}
	}
}

func parseLine(line []byte, h *IndexHeader) (catalog.Item, bool) {
	var l indexLine
	if json.Unmarshal(line, &l) != nil {
		return catalog.Item{}, false
	}
	i := catalog.Item{SetID: h.SetID, Path: l.Path, N: l.N, Until: l.Until, Archive: catalog.ArchiveRef{Archive: l.Archive, Size: l.Size, TreeHash: l.Tree},
		Stored: l.Stored, Plain: l.Plain, PlainHash: l.PlainTree, ItemMore: l.ItemMore, Listed: h.N}
	if l.Path64 != nil {
		i.Path = string(l.Path64)
	}
	if l.Deleted != nil {
		i.Deleted = *l.Deleted
	}
	ok := goodPath(i.Path) && i.N >= 1 && i.N <= h.N && (i.Until == 0 || i.Until > i.N && i.Until <= h.N) && i.Plain >= 0 && i.Archive.Size >= 0 &&
		(i.Archive.Archive != "" || i.Plain == 0)
	return i, ok
}

// told says whether all that is stored is told of in the vault, by its own description or by an index.
func (s *Session) told(ctx context.Context) (bool, error) {
	n, err := s.o.Catalog.ItemsUntold(ctx, s.o.Set.ID)
	return n == 0, err
}

// End ends the session: where something was stored that does not tell of itself, an index is stored that does. It must be called
// also when parts of the run failed. The run is as it was recorded.
func (s *Session) End(ctx context.Context) (catalog.ItemRun, error) {
	untold, err := s.o.Catalog.ItemsUntold(ctx, s.o.Set.ID)
	if err != nil {
		return s.run, err
	}
	runs, err := s.o.Catalog.ItemRuns(ctx, s.o.Set.ID)
	if err != nil {
		return s.run, err
	}
	indexed := slices.ContainsFunc(runs, func(r catalog.ItemRun) bool { return r.Index.Archive != "" && r.Vault == s.o.Vault })
	if untold == 0 && indexed && s.begun {
		// What is gone, and was told of by an index only, must not come back with it.
		err := s.o.Catalog.Items(ctx, s.o.Set.ID, catalog.ItemQuery{Ended: true}, func(i catalog.Item) error {
			if i.Until == s.run.N && !i.Self && i.Snapshot == "" {
				untold++
			}
			return nil
		})
		if err != nil {
			return s.run, err
		}
	}
	if untold == 0 {
		return s.total(ctx)
	}
	if _, err := s.Begin(ctx); err != nil {
		return s.run, err
	}
	if _, err := s.total(ctx); err != nil {
		return s.run, err
	}
	s.run.IndexFrom = s.indexFrom(runs)
	return s.run, s.putIndex(ctx)
}

// indexFrom is the first run that this one's index has to tell of; 1: all.
func (s *Session) indexFrom(runs []catalog.ItemRun) uint64 {
	deltas, last := 0, uint64(0)
	for _, r := range slices.Backward(runs) {
		if r.Index.Archive == "" || r.Vault != s.o.Vault || r.IndexGone {
			continue
		}
		last = max(last, r.N)
		if r.IndexFrom <= 1 {
			if deltas >= maxDeltas {
				return 1
			}
			return last + 1
		}
		deltas++
	}
	return 1
}

// total brings the run's row up to date, if there is one.
func (s *Session) total(ctx context.Context) (catalog.ItemRun, error) {
	if !s.begun {
		return s.run, nil
	}
	s.run.Items, s.run.Bytes = 0, 0
	err := s.o.Catalog.Items(ctx, s.o.Set.ID, catalog.ItemQuery{}, func(i catalog.Item) error {
		s.run.Items++
		s.run.Bytes += i.Size()
		return nil
	})
	if err == nil {
		err = s.o.Catalog.PutItemRun(ctx, s.run)
	}
	return s.run, err
}

func (s *Session) putIndex(ctx context.Context) error {
	run := s.run
	d := s.describe(run, WhatIndex, []string{s.o.Index.Name(), s.o.Encrypt.Name()})
	d.Kind = snapshot.Incremental
	if run.IndexFrom <= 1 {
		d.Kind = snapshot.Full
	}
	name, err := s.archiveName(nil, indexName(run), ".jsonl"+s.o.Index.Ext()+s.o.Encrypt.Ext())
	if err != nil {
		return err
	}
	run.IndexName = name
	u := &catalog.ItemUpload{Name: name, Begun: s.o.Now(), Run: &run, RunN: run.N, RunID: run.ID}
	u.Item.SetID, u.Item.Vault, u.Item.Desc = s.o.Set.ID, s.o.Vault, d.String()
	a := coldstore.NewArchive{Name: name, Description: u.Item.Desc, Meta: true}
	w := volume.NewWriter(ctx, volume.Options{
		Size: -1, Workers: s.o.Workers, NoVerify: s.o.NoVerify, Compress: s.o.Index, Encrypt: s.o.Encrypt, Name: "the index of set " + s.o.Set.Name,
		Open: func(ctx context.Context, _ int) (volume.Sink, error) { return s.newSink(ctx, u, a, s.o.Transfer), nil },
	})
	if err := s.writeIndex(ctx, w, run); err != nil {
		w.Abort()
		return fmt.Errorf("make the index of set %s: %w", s.o.Set.Name, err)
	}
	if err := w.Close(); err != nil {
		return err
	}
	return s.indexed(ctx, run, u.Item.Desc, u.Item.Archive)
}

// indexed records that an index is stored.
func (s *Session) indexed(ctx context.Context, run catalog.ItemRun, desc string, a catalog.ArchiveRef) error {
	run.SetID, run.Vault, run.Index = s.o.Set.ID, s.o.Vault, a
	if run.N == s.run.N {
		s.run = run
	}
	return s.o.Catalog.ItemsListed(ctx, run, desc, s.o.Now())
}

func (s *Session) writeIndex(ctx context.Context, w io.Writer, run catalog.ItemRun) error {
	x := &indexWriter{w: w, hash: sha256.New()}
	err := x.line(IndexHeader{Version: 1, SetID: s.o.Set.ID, Set: s.o.Set.Name, Label: s.o.Set.Label, Kind: s.o.Set.Kind, Host: s.o.Host,
		Run: run.ID, N: run.N, From: max(run.IndexFrom, 1), At: run.At.UTC(), Path: []byte(s.o.Path)})
	if err != nil {
		return err
	}
	err = s.o.Catalog.Items(ctx, s.o.Set.ID, catalog.ItemQuery{All: true}, func(i catalog.Item) error {
		full := run.IndexFrom <= 1
		switch {
		case i.Vault != s.o.Vault || i.Snapshot != "":
			return nil
		case full && !i.Deleted.IsZero():
			return nil
		case !full && i.N < run.IndexFrom && i.Until < run.IndexFrom && i.Listed != 0:
			return nil
		}
		return x.item(&i)
	})
	if err != nil {
		return err
	}
	key, err := s.o.Signer()
	if err != nil {
		return err
	}
	return x.end(key)
}

// dropIndexes deletes indexes that a later one makes needless, if they are old enough.
func (s *Session) dropIndexes(ctx context.Context, early bool, days time.Duration) error {
	runs, err := s.o.Catalog.ItemRuns(ctx, s.o.Set.ID)
	if err != nil {
		return err
	}
	full := uint64(0)
	for _, r := range runs {
		if r.Index.Archive != "" && r.IndexFrom <= 1 && r.Vault == s.o.Vault {
			full = r.N
		}
	}
	for _, r := range runs {
		if r.N >= full || r.Index.Archive == "" || r.IndexGone || r.Vault != s.o.Vault || !early && s.o.Now().Before(r.At.Add(days)) {
			continue
		}
		var locked *coldstore.LockedError
		if err := s.delete(ctx, r.Index.Archive); errors.As(err, &locked) {
			continue
		} else if err != nil {
			return fmt.Errorf("index of run %d of set %s: %w", r.N, s.o.Set.Name, err)
		}
		if err := s.o.Catalog.ArchiveDeleted(ctx, r.Vault, r.Index.Archive, s.o.Now()); err != nil {
			return err
		}
		r.IndexGone = true
		if err := s.o.Catalog.PutItemRun(ctx, r); err != nil {
			return err
		}
	}
	return nil
}

// IndexCodec is a codec for indexes where the set's own is none.
func IndexCodec(set, zstd codec.Compressor) codec.Compressor {
	if set.Name() == codec.None {
		return zstd
	}
	return set
}

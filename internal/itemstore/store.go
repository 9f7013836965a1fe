// Package itemstore stores single items, files or directories as tar, each as an archive of its own, and writes down in
// the catalog which archive is which item's, so that a kill at any instant loses nothing and stores nothing twice. It owns their descriptions, the signed
// indexes that tell of items whose descriptions cannot, and the order of things: a new version is stored, and told of in the
// vault, before an old one may go. It does not know what is to be stored, or when.
package itemstore

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/firn-backup/firn/internal/catalog"
	"github.com/firn-backup/firn/internal/codec"
	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/internal/failure"
	"github.com/firn-backup/firn/internal/manifest"
	"github.com/firn-backup/firn/internal/snapshot"
	"github.com/firn-backup/firn/internal/transfer"
)

const (
	// DefaultParallel is how many small items are on their way at a time.
	DefaultParallel = 4
	// small is the size up to which items are stored side by side, in bytes.
	small = 32 << 20
	// smallPart is the largest part of such an item. Memory: DefaultParallel × 2 × smallPart, and the codecs' frames.
	smallPart  = 8 << 20
	smallFrame = 1 << 20
)

// Options say where items are stored, and how. All but the last group are needed.
type Options struct {
	Catalog *catalog.DB
	Store   coldstore.Store
	Vault   string // URL, as in the catalog
	Set     catalog.Set
	Host    string
	Path    string // the set's directory, absolute

	Compress codec.Compressor
	Encrypt  codec.Encryptor
	Index    codec.Compressor                   // of indexes
	Signer   func() (ed25519.PrivateKey, error) // asked when an index is to be signed
	Now      func() time.Time
	Rand     io.Reader

	Wall     func() time.Time // the machine's clock, which file times are compared with; nil: time.Now
	Workers  int              // compressing goroutines of a large item; 0: one for each processor
	NoVerify bool             // do not decode and compare what was compressed before it is sent
	Parallel int              // small items on their way at a time; 0: DefaultParallel
	Transfer transfer.Options
	Stored   func(catalog.Item) // told of each, from several goroutines; may be nil
}

func (o *Options) check() error {
	if o.Catalog == nil || o.Store == nil || o.Vault == "" || o.Set.ID == "" || o.Compress == nil || o.Encrypt == nil || o.Index == nil ||
		o.Signer == nil || o.Now == nil || o.Rand == nil {
		return errors.New("itemstore: an option is missing")
	}
	if o.Wall == nil {
		o.Wall = time.Now
	}
	if o.Parallel <= 0 {
		o.Parallel = DefaultParallel
	}
	if o.Stored == nil {
		o.Stored = func(catalog.Item) {}
	}
	return nil
}

// bare says that archives hold the bytes as they are.
func (o *Options) bare() bool {
	return o.Compress.Name() == codec.None && o.Encrypt.Name() == codec.None
}

// Session is one run over a set. Its methods may be called from several goroutines, but End and Delete by the
// last one. The caller holds the set's lock.
type Session struct {
	o     Options
	slots *semaphore.Weighted

	mu    sync.Mutex
	run   catalog.ItemRun // ID is empty until something is changed
	begun bool

	Settled []catalog.Item                // items that an earlier run had stored and not recorded
	resume  map[string]catalog.ItemUpload // unfinished uploads that may go on, by path
}

// Open begins a session: it settles what earlier runs left in doubt.
func Open(ctx context.Context, o Options) (*Session, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	s := &Session{o: o, slots: semaphore.NewWeighted(int64(o.Parallel)), resume: map[string]catalog.ItemUpload{}}
	if err := There(ctx, o); err != nil {
		return nil, err
	}
	if err := s.forgetIndexes(ctx); err != nil {
		return nil, err
	}
	list, err := o.Catalog.ItemUploads(ctx, o.Set.ID)
	if err != nil {
		return nil, err
	}
	for _, u := range list {
		if err := s.settle(ctx, u); err != nil {
			return nil, fmt.Errorf("settle the upload of %s: %w", u.Item.Path, err)
		}
	}
	return s, nil
}

// settle finds out what became of an upload.
func (s *Session) settle(ctx context.Context, u catalog.ItemUpload) error {
	if u.Item.Vault != s.o.Vault { // the set goes elsewhere now: the vault itself gives it up in time
		return s.o.Catalog.DropItemUpload(ctx, u.Item.SetID, u.Item.Path)
	}
	if u.TreeHash.IsZero() {
		if u.Item.Path != "" && u.Item.Encrypt == codec.None && s.o.Encrypt.Name() == codec.None && u.Item.Compress == s.o.Compress.Name() {
			s.resume[u.Item.Path] = u
			return nil
		}
		return s.giveUp(ctx, u)
	}
	p := transfer.Pending{UploadID: u.UploadID, Name: u.Name, Size: u.Size, TreeHash: u.TreeHash}
	a, err := transfer.Settle(ctx, s.o.Store, p, s.o.Transfer)
	gone := errors.Is(err, coldstore.ErrNotFound) || errors.Is(err, coldstore.ErrIntegrity) || errors.Is(err, coldstore.ErrInvalid)
	if err == nil {
		// An archive of the same bytes that is another item's is not this one's.
		other, err := s.o.Catalog.NeededBy(ctx, s.o.Vault, a.ID)
		if err != nil {
			return err
		}
		gone = other != ""
	}
	switch {
	case gone:
		return s.giveUp(ctx, u)
	case err != nil:
		return err
	case u.Item.Path == "" && u.Run != nil:
		run := *u.Run
		run.N, run.ID = u.RunN, u.RunID
		return s.indexed(ctx, run, u.Item.Desc, catalog.ArchiveRef{Archive: a.ID, Size: u.Size, TreeHash: u.TreeHash})
	case u.Item.Path == "":
		return s.o.Catalog.DropItemUpload(ctx, u.Item.SetID, "")
	}
	i := u.Item
	i.Archive = catalog.ArchiveRef{Archive: a.ID, Size: u.Size, TreeHash: u.TreeHash}
	if err := s.o.Catalog.ItemStored(ctx, i); err != nil {
		return err
	}
	s.Settled = append(s.Settled, i)
	return nil
}

// giveUp throws an unfinished upload away.
func (s *Session) giveUp(ctx context.Context, u catalog.ItemUpload) error {
	err := transfer.Retry(ctx, s.o.Transfer, func() error { return s.o.Store.AbortUpload(ctx, u.UploadID) })
	if err != nil && !errors.Is(err, coldstore.ErrNotFound) {
		return err
	}
	return s.o.Catalog.DropItemUpload(ctx, u.Item.SetID, u.Item.Path)
}

// Begin is the number of this run. Its row is made when it is asked for first: a run that changes nothing has none.
func (s *Session) Begin(ctx context.Context) (catalog.ItemRun, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.begun {
		return s.run, nil
	}
	runs, err := s.o.Catalog.ItemRuns(ctx, s.o.Set.ID) // those that TakeOver has made among them
	if err != nil {
		return s.run, err
	}
	last := uint64(0)
	if len(runs) > 0 {
		last = runs[len(runs)-1].N
	}
	id, err := snapshot.NewID(s.o.Now(), s.o.Rand)
	if err != nil {
		return s.run, err
	}
	s.run = catalog.ItemRun{SetID: s.o.Set.ID, N: last + 1, ID: id, Vault: s.o.Vault, At: s.o.Now()}
	if err := s.o.Catalog.PutItemRun(ctx, s.run); err != nil {
		return s.run, err
	}
	s.begun = true
	return s.run, nil
}

// Changed says whether this run has changed anything.
func (s *Session) Changed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.begun
}

// Piece is an item to be stored.
type Piece struct {
	// Item says what it is: Path, Dir, and the metadata as far as they are known before it is read.
	Item catalog.Item
	// Expect is how many bytes it may come to, 0 where that is not known.
	Expect int64
	// Write writes its bytes, and Done, which comes after it, says whether they are a true copy, and fills in what is
	// known only now. An error of either leaves nothing stored.
	Write func(ctx context.Context, w io.Writer) error
	Done  func(i *catalog.Item) error
}

// Put stores a piece as the current version of its item. Where others are on their way it waits for room.
func (s *Session) Put(ctx context.Context, p Piece) (catalog.Item, error) {
	weight := int64(1)
	large := p.large()
	if large {
		weight = int64(s.o.Parallel)
	}
	if err := s.slots.Acquire(ctx, weight); err != nil {
		return p.Item, err
	}
	defer s.slots.Release(weight)
	run, err := s.Begin(ctx)
	if err != nil {
		return p.Item, err
	}
	i, err := s.put(ctx, p, run, large)
	if err != nil {
		return i, fmt.Errorf("store %s: %w", p.Item.Path, err)
	}
	s.mu.Lock()
	s.run.New++
	s.run.Sent += i.Archive.Size
	s.mu.Unlock()
	s.o.Stored(i)
	return i, nil
}

// label fills in what the archive of an item is called and how it is described.
func (s *Session) label(i *catalog.Item, run catalog.ItemRun) {
	ext := ""
	if i.Dir {
		ext = ".tar"
	}
	i.Compress, i.Encrypt = s.o.Compress.Name(), s.o.Encrypt.Name()
	ext += s.o.Compress.Ext() + s.o.Encrypt.Ext()
	i.Name = i.Path + ext
	i.Self, i.Desc = false, ""
	if i.Encrypt == codec.None && !s.o.Store.Traits().Terse { // where listings tell no descriptions, an index does
		m := Mark{SetID: s.o.Set.ID, Set: s.o.Set.Name, Host: s.o.Host, Kind: s.o.Set.Kind, Dir: i.Dir, Ext: ext}
		if i.Compress != codec.None {
			m.Codec = i.Compress
		}
		i.Desc, i.Self = DescribeMT2(i.Name, i.MTime.Time(), m)
	}
	if !i.Self {
		i.Desc = s.describe(run, WhatItem, []string{i.Compress, i.Encrypt}).String()
	}
}

func (s *Session) describe(run catalog.ItemRun, what string, codecs []string) manifest.Description {
	d := manifest.Description{Set: s.o.Set.Name, SetID: s.o.Set.ID, Host: s.o.Host, Snap: run.ID, N: run.N, At: run.At, What: what}
	for _, c := range codecs {
		if c != codec.None {
			d.Codecs = append(d.Codecs, c)
		}
	}
	return d
}

// archiveName is the name of a new archive, for vaults that keep names. Of an item that everybody may read about it tells
// the item's own name.
func (s *Session) archiveName(i *catalog.Item, what, ext string) (string, error) {
	id, err := snapshot.NewID(s.o.Now(), s.o.Rand)
	if err != nil {
		return "", err
	}
	name := what + "-" + id
	if i != nil && i.Self {
		name = harmless(path.Base(i.Path)) + "-" + id
	}
	h := manifest.Header{Label: s.o.Set.Label, SetID: s.o.Set.ID, Snap: namesDir}
	return manifest.SnapshotDir(&h) + "/" + name + ext, nil
}

// harmless is what of a name may stand in that of an archive.
func harmless(s string) string {
	s = strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '.' || r == '_' || r == '-' {
			return r
		}
		return '_'
	}, s)
	s = strings.Trim(s[:min(len(s), 100)], ".")
	if s == "" {
		return "item"
	}
	return s
}

// partSize is the size of parts of an item that comes to so many bytes; 0: what the store and its size ask for.
func (s *Session) partSize(expect int64, large bool) int64 {
	if large || s.o.Transfer.PartSize != 0 {
		return s.o.Transfer.PartSize
	}
	t := s.o.Store.Traits()
	size := max(int64(1<<20), t.MinPart)
	for size < smallPart && size < expect+expect/8+4096 {
		size *= 2
	}
	if t.MaxPart > 0 && size > t.MaxPart {
		return 0
	}
	return size
}

func unless(ok bool, text string) error {
	if ok {
		return nil
	}
	return failure.Errorf(failure.Failed, "%s", text)
}

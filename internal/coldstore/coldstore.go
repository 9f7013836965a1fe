// Package coldstore is the contract of a vault: a place that keeps archives,
// immutable blobs that may take hours to become readable. Adapters live below
// it, one folder each; storetest holds the suite that every one of them
// passes, and faultstore wraps one to make it fail. The package knows nothing
// of what archives contain.
//
// Concurrency: all methods of a store may be called from several goroutines.
// Errors: every error names the operation and the object and wraps one of the
// sentinels below where one fits; that of a call whose context has ended wraps the context's error. Retries: a store
// does not retry; package transfer does, and only on ErrThrottled and ErrTemporary.
package coldstore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/firn-backup/firn/treehash"
)

var (
	ErrNotFound    = errors.New("not found")
	ErrExists      = errors.New("exists already")
	ErrNotReady    = errors.New("not ready yet")
	ErrExpired     = errors.New("expired")
	ErrThrottled   = errors.New("throttled")
	ErrTemporary   = errors.New("temporary failure")
	ErrIntegrity   = errors.New("data does not match its hash")
	ErrInDoubt     = errors.New("may have happened: the answer was lost")
	ErrUnsupported = errors.New("not supported by this vault")
	ErrInvalid     = errors.New("refused by the vault's rules") // bad range, part size, description …
)

// Tier is how fast, and how dear, a retrieval is. Empty is the store's default.
type Tier string

const (
	Expedited Tier = "Expedited"
	Standard  Tier = "Standard"
	Bulk      Tier = "Bulk"
)

// Traits tell planners a store's rules. They are constants of a store.
type Traits struct {
	Scheme      string        // "dir", "glacier", "s3"
	Granularity int64         // retrieval ranges begin at a multiple of it, and end at one or at the archive's end; bytes, at least 1
	WholeOnly   bool          // only whole archives can be retrieved
	Warm        bool          // retrievals are ready at once and cost nothing
	Tiers       []Tier        // empty: no choice
	MinDays     int           // minimum storage duration, days
	LockDays    int           // for how many days from its upload on nobody can delete what is stored through this store; 0: there is no lock
	ListLag     time.Duration // how old a listing may be; 0: exact
	NamesKept   bool          // NewArchive.Name becomes the archive's id
	MinPart     int64         // bytes, of every part but the last
	MaxPart     int64
	MaxParts    int
	MaxArchive  int64 // bytes

	KeepDays int // how long what was retrieved stays readable where nobody says so, where that is paid for; days

	// GrowEvery says that parts of an upload grow: after so many of them, and after as many again and again, their size
	// doubles, up to MaxPart (PartAt). So a stream of unknown size fits into MaxParts. 0: all have the same size.
	GrowEvery int

	// Terse says that listings tell names and sizes only: no descriptions, and in another process
	// than that of the upload no part sizes of uploads and no tree hashes of parts. UploadLearner is such a store's.
	Terse bool
	// OneRetrieval says that the service keeps one retrieval of an archive for everybody, and does not tell who asked
	// for it and when: to another process that asks it has another token, which stands for the same thing.
	OneRetrieval bool
	Upgrades     bool // a running retrieval can be asked for again in a faster tier (RetrievalOptions.Faster)
}

// KeptDays is for how many days an archive stays at least: deleting it before is refused, or, unless early says that this is wanted,
// would be charged for.
func (t Traits) KeptDays(early bool) int {
	if early {
		return t.LockDays
	}
	return max(t.MinDays, t.LockDays)
}

// PartAt is where part i, counted from 0, of an upload with that part size lies, and how large it is; bytes.
func (t Traits) PartAt(partSize int64, i int) (off, size int64) {
	if t.GrowEvery <= 0 {
		return int64(i) * partSize, partSize
	}
	size = partSize
	for i >= t.GrowEvery && size*2 <= t.MaxPart {
		off += int64(t.GrowEvery) * size
		i -= t.GrowEvery
		size *= 2
	}
	return off + int64(i)*size, size
}

// PartIndex is the part of an upload with that part size that begins at an offset; ok is false where none does.
func (t Traits) PartIndex(partSize, off int64) (i int, ok bool) {
	if partSize < 1 || off < 0 {
		return 0, false
	}
	size := partSize
	for t.GrowEvery > 0 && size*2 <= t.MaxPart && off >= int64(t.GrowEvery)*size {
		off -= int64(t.GrowEvery) * size
		i += t.GrowEvery
		size *= 2
	}
	return i + int(off/size), off%size == 0
}

// Archive is one stored blob.
type Archive struct {
	ID          string
	Description string
	Size        int64         // bytes
	TreeHash    treehash.Hash // zero when the listing does not tell
	Created     time.Time
}

// NewArchive is what is told before the bytes.
type NewArchive struct {
	// Name is the id wanted, a slash-separated path of [A-Za-z0-9._=-] elements,
	// of at most 900 bytes; an element has 1 to 240 bytes and is not "." or "..".
	// Stores whose Traits say NamesKept use it as the id and
	// refuse one that exists with ErrExists, when the upload is created or when it is completed;
	// others ignore it. A store may refuse, with ErrInvalid, a name that is the begin of
	// another's path (a and a/b). Empty: the store makes an id.
	Name string
	// Description has at most 1,024 characters of printable ASCII (0x20–0x7E). Spaces at its
	// begin and end may get lost.
	Description string
	// Meta says that it is small and read before all others: a manifest, a key. A store with classes of storage
	// keeps it where it can be read at once.
	Meta bool
}

// Range is a range of an archive, in bytes. The zero Range is the whole archive.
type Range struct{ Offset, Size int64 }

// IsWhole says that r stands for the whole archive.
func (r Range) IsWhole() bool { return r == Range{} }

// Retrieval is one asking of a vault to make an archive, or a range of it,
// readable for a while.
type Retrieval struct {
	Token     string // the store's name for it; enough for a later process to go on
	Archive   string
	Range     Range // what is (being) made readable; zero: the whole archive
	Tier      Tier
	Ready     bool
	Requested time.Time
	Expires   time.Time // zero: never, or not yet known
}

// RetrievalOptions go with a request. The zero value is a good choice.
type RetrievalOptions struct {
	Tier Tier
	Days int // how long it stays readable, where the store lets one choose; 0: the store's default
	// Faster says that a retrieval that is running in a slower tier is to be made faster, where the store's Traits say Upgrades.
	Faster bool
}

// Part is one acknowledged part of an upload.
type Part struct {
	Offset, Size int64
	TreeHash     treehash.Hash // zero: not known, see Traits.Terse
	Sum          string        // a checksum of the store's own, see PartSummer; empty: none
}

// Upload is one multipart upload that was begun and neither completed nor aborted.
type Upload struct {
	ID       string
	PartSize int64
	NewArchive
	Created time.Time
}

// A Lister tells what is there. It cannot spend money or change anything.
type Lister interface {
	Traits() Traits

	// List calls fn for every archive, in no particular order, and returns the time that the
	// list is of. It stops at fn's first error and returns it. A store whose
	// listing takes hours returns ErrNotReady when none is there yet. A store that finds archives
	// damaged lists all others first and names the damaged ones in its error, ErrIntegrity, in which
	// DamagedArchives finds those that may be readable all the same. May be repeated.
	List(ctx context.Context, fn func(Archive) error) (asOf time.Time, err error)
}

// DamagedArchive is the error of an archive of which the store has lost what it knew, and not the
// data: its name and size are all that is told. It can be read like any other.
type DamagedArchive struct {
	Archive Archive
	Err     error
}

func (d *DamagedArchive) Error() string { return d.Err.Error() }

// Unwrap gives the cause, which is ErrIntegrity.
func (d *DamagedArchive) Unwrap() error { return d.Err }

// DamagedArchives are those that the error of a listing holds.
func DamagedArchives(err error) []Archive {
	if d, ok := err.(*DamagedArchive); ok {
		return []Archive{d.Archive}
	}
	switch e := err.(type) {
	case interface{ Unwrap() error }:
		return DamagedArchives(e.Unwrap())
	case interface{ Unwrap() []error }:
		var all []Archive
		for _, one := range e.Unwrap() {
			all = append(all, DamagedArchives(one)...)
		}
		return all
	}
	return nil
}

// damage is an ErrIntegrity that says itself what is the matter.
type damage struct{ text string }

func (d *damage) Error() string { return d.text }
func (d *damage) Unwrap() error { return ErrIntegrity }

// Damagef is an error that is ErrIntegrity and whose text is only what is given: that something is
// missing or cut is not told as a matter of hashes.
func Damagef(format string, args ...any) error { return &damage{fmt.Sprintf(format, args...)} }

// maxDamages is how many damaged archives a listing's error names.
const maxDamages = 20

// ListDamage is the error of a listing that met damaged archives: it wraps all of them, and names a few.
type ListDamage struct{ All []error }

func (d *ListDamage) Error() string { return strings.Join(Damages(d), "; ") }

// Unwrap gives the causes, which are ErrIntegrity.
func (d *ListDamage) Unwrap() []error { return d.All }

// Damages are the texts of a listing's damage, a line for each archive, the last of which says how many more
// there are when there are many.
func Damages(err error) []string {
	all := []error{err}
	if d := (*ListDamage)(nil); errors.As(err, &d) {
		all = d.All
	}
	var lines []string
	for i, one := range all {
		if i == maxDamages {
			return append(lines, fmt.Sprintf("and %d more like these", len(all)-i))
		}
		lines = append(lines, strings.ReplaceAll(one.Error(), "\n", "; "))
	}
	return lines
}

// A Retriever makes archives readable and reads them.
type Retriever interface {
	// RequestRetrieval asks for r of an archive. A warm store answers Ready at once.
	// It may be repeated: a store that has a fitting retrieval, running or ready,
	// answers with that; one fits if it covers r. If the answer is lost, ask again.
	// ErrNotFound: no such archive. ErrInvalid: r is not aligned to the granularity or not within the archive, or
	// the tier is unknown.
	RequestRetrieval(ctx context.Context, archive string, r Range, o RetrievalOptions) (Retrieval, error)

	// CheckRetrieval tells how a retrieval stands, by its token. ErrExpired: ask anew; so too of
	// a token that the store does not know, or not any more.
	CheckRetrieval(ctx context.Context, token string) (Retrieval, error)

	// OpenRetrieved reads size bytes at offset off of the archive (not of the
	// retrieval's range, which must cover them, else ErrInvalid); size is at least 1.
	// The token decides, whatever else r says; r.Archive must be the token's. ErrNotReady, ErrExpired. The
	// reader returns ErrUnexpectedEOF rather than fewer bytes. One that holds the bytes against a hash returns ErrIntegrity
	// instead of the last ones: who has all need not read on to the end. May be repeated.
	OpenRetrieved(ctx context.Context, r Retrieval, off, size int64) (io.ReadCloser, error)
}

// An Uploader stores archives, always in parts. An archive exists from
// CompleteUpload's success on and never before, and is durable then.
type Uploader interface {
	// CreateUpload begins an upload whose parts have partSize bytes each: a power
	// of two of MiBs within the Traits. If the answer is lost, an upload without
	// parts stays behind; begin another.
	CreateUpload(ctx context.Context, a NewArchive, partSize int64) (Upload, error)

	// PutPart stores one part, at a multiple of the part size (where Traits say GrowEvery: as PartAt has it); only the last may be
	// shorter. ErrIntegrity when data does not have that tree hash; what was there before is then there still.
	// May be repeated with the same or other data, also when the answer is lost. data is not kept.
	// ErrNotFound: no such upload, or one that has ended.
	PutPart(ctx context.Context, uploadID string, off int64, data []byte, hash treehash.Hash) error

	// ListParts tells which parts are there, by offset. ErrNotFound: no such upload.
	ListParts(ctx context.Context, uploadID string) ([]Part, error)

	// CompleteUpload makes the parts an archive: all size bytes, at least 1, which must have
	// that tree hash (ErrIntegrity), without gaps (ErrInvalid). Such an error leaves the upload as
	// it was, to be corrected and completed. If the answer is lost
	// (ErrInDoubt): repeat it; a completed upload answers with its archive again,
	// for a day at least, unless that was deleted (ErrNotFound). A store whose listing lags may
	// then not know the description any more (empty) and tell a later Created.
	CompleteUpload(ctx context.Context, uploadID string, size int64, hash treehash.Hash) (Archive, error)

	// AbortUpload throws the parts away. Aborting what is not there succeeds; a completed
	// upload's archive is not harmed.
	AbortUpload(ctx context.Context, uploadID string) error

	// ListUploads calls fn for every upload begun and not ended.
	ListUploads(ctx context.Context, fn func(Upload) error) error
}

// A Deleter deletes archives. Deleting what is not there is ErrNotFound, or succeeds in a
// store whose listing lags, which may not know; if the answer is lost, repeat.
type Deleter interface {
	Delete(ctx context.Context, archive string) error
}

// Reader is what a dry run gets: it can list, and nothing that costs.
type Reader = Lister

// Store is a whole vault.
type Store interface {
	Lister
	Retriever
	Uploader
	Deleter
}

// A PartHasher is an Uploader in this process: it hashes what it stores anyway, and its
// caller need not do it once more over the same memory. An optional ability.
type PartHasher interface {
	// PutPartHashing is PutPart, which computes the leaf hashes of data itself and returns them.
	PutPartHashing(ctx context.Context, uploadID string, off int64, data []byte) ([]treehash.Hash, error)
}

// A PartDeferrer is an Uploader that takes parts faster when they need not last each: an optional ability, for
// callers that do not go on with the parts of an interrupted upload.
type PartDeferrer interface {
	// PutPartDeferred is PutPart, which computes the leaf hashes of data itself and returns them. The part may be lost
	// with this process until FlushParts has made it last; ListParts and CompleteUpload may not know of it before.
	PutPartDeferred(ctx context.Context, uploadID string, off int64, data []byte) ([]treehash.Hash, error)

	// FlushParts makes all parts that were put last, as PutPart does with one. May be repeated.
	FlushParts(ctx context.Context, uploadID string) error
}

// A PacedUploader is an Uploader over a network that sends a part as fast as it is let: an optional ability.
type PacedUploader interface {
	// PutPartPaced is PutPart, which calls wait before it sends so many more bytes, and ends with wait's error.
	PutPartPaced(ctx context.Context, uploadID string, off int64, data []byte, hash treehash.Hash, wait func(n int) error) error
}

// A WholeUploader is an Uploader that can store a small archive with one request: an optional ability.
type WholeUploader interface {
	// PutWhole stores data, at most MaxWhole of it, as the archive that a.Name, which must be given, names. ErrExists: there
	// is another of that name. If the answer is lost (ErrInDoubt): repeat it; it answers with the archive
	// that is there when that is of the same bytes. wait may be nil and is that of PutPartPaced. data is not kept.
	PutWhole(ctx context.Context, a NewArchive, data []byte, hash treehash.Hash, wait func(n int) error) (Archive, error)
	// MaxWhole is in bytes.
	MaxWhole() int64
}

// An UploadLearner is a store that cannot find out the part size of an upload that another process
// began: who goes on with one tells it first. An optional ability.
type UploadLearner interface {
	LearnUpload(u Upload)
}

// A PartSummer tells what Part.Sum data have, for parts whose tree hash is not known. An optional ability.
type PartSummer interface {
	SumPart(data []byte) string
}

// A ReadyTeller knows of an archive whether it can be read now without having been asked for, and at no price. An
// optional ability of vaults that keep some archives so.
type ReadyTeller interface {
	ReadableNow(ctx context.Context, archive string) (bool, error)
}

// A Regioner knows the region that its archives are in; empty where it does not. An optional ability.
type Regioner interface {
	Region() string
}

// A SectionUploader is an Uploader that reads a part where it lies, as it is sent, in little memory however large
// the part is: an optional ability.
type SectionUploader interface {
	// PutPartSection is PutPart for what r has, all of it, whose SHA-256 is sum; wait, unless it is nil, is called
	// before so many more bytes are sent. Bytes that are not those any more are ErrIntegrity.
	PutPartSection(ctx context.Context, uploadID string, off int64, r *io.SectionReader, hash treehash.Hash, sum [32]byte, wait func(n int) error) error
}

// A Stater tells of one archive without a listing: an optional ability.
// ErrNotFound when it is not there, ErrIntegrity when it is seen to be damaged.
type Stater interface {
	Stat(ctx context.Context, archive string) (Archive, error)
}

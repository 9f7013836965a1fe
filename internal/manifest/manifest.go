// Package manifest reads and writes manifests, the signed tables of contents
// that make snapshots exist, and the descriptions and names that archives bear
// in a vault. It is pure: bytes in, bytes out. docs/design/format.md is its
// specification.
package manifest

import (
	"crypto/ed25519"
	"io"
	"time"

	"github.com/firn-backup/firn/internal/codec"
	"github.com/firn-backup/firn/internal/snapshot"
	"github.com/firn-backup/firn/treehash"
)

// Version is the version of manifests written here; readers that know at
// least MinReader can read them.
const (
	Version   = 1
	MinReader = 1
)

// Hash is the SHA-256 of a whole decoded manifest, its signature line included.
type Hash [32]byte

// Header is a manifest's first line.
type Header struct {
	SetID    string
	Set      string // the set's name when the snapshot was made: a label
	Label    string // the name when the set was made, as in archive names
	Host     string
	Snap     string
	N        uint64 // from 1; everything in a set is ordered by it
	At       time.Time
	Made     time.Time
	Kind     snapshot.Kind
	Base     string // snapshot id; empty for a full
	BaseHash Hash   // of the base's manifest
	Stream   string // "tar"
	Compress string
	Encrypt  string
	Paths    []string // what the set names, absolute, bytes
	Must     []string // keys a reader must understand
}

// Volume is one volume of a snapshot.
type Volume struct {
	N         int // from 1
	Archive   string
	Size      int64 // ciphertext bytes
	TreeHash  treehash.Hash
	Leaves    []treehash.Hash // of the archive's MiBs
	Raw       int64           // bytes of the stream in it
	RawSHA256 *[32]byte       // of those bytes; nil where the producer cannot be re-run anyway
	Frames    []codec.Frame
	Header    []byte // the ciphertext's bytes before its first chunk
	Tail      []byte // the ciphertext's last chunk
}

// Plain is the size in bytes of the volume's frames together, the trailer left out.
func (v *Volume) Packed() int64 {
	var n int64
	for _, f := range v.Frames {
		n += f.Packed
	}
	return n
}

// Totals are the last line but the signature. They must match what came before.
type Totals struct {
	Volumes  int
	Entries  int64
	Deleted  int64
	Problems int64
}

// Writer writes one manifest: the header on creation, then volumes in order,
// then entries and deletions together in path order, then problems, then Close.
type Writer struct{}

func NewWriter(w io.Writer, h Header) (*Writer, error) { panic("not yet") }

func (w *Writer) Volume(v *Volume) error            { panic("not yet") }
func (w *Writer) Entry(e *snapshot.Entry) error     { panic("not yet") } // Content.N is written unless it is the header's N
func (w *Writer) Delete(path string) error          { panic("not yet") }
func (w *Writer) Problem(p *snapshot.Problem) error { panic("not yet") }

// Close writes totals and signature, and returns the manifest's hash.
// It does not close the underlying writer.
func (w *Writer) Close(key ed25519.PrivateKey) (Hash, error) { panic("not yet") }

// Record is one line of a manifest: exactly one field is set.
type Record struct {
	Volume  *Volume
	Entry   *snapshot.Entry
	Deleted *string
	Problem *snapshot.Problem
}

// Reader reads one manifest. It is strict: unknown must-understand keys, wrong
// order, wrong totals, paths that are not clean, addresses out of range are errors of
// kind failure.Damaged (or of kind Failed with "needs a newer Firn").
type Reader struct{}

func NewReader(r io.Reader) (*Reader, error) { panic("not yet") }

func (r *Reader) Header() Header { panic("not yet") }

// Next returns the next record, io.EOF after the last, when totals and
// signature have been read and the signature verified against the key in the
// manifest. What was returned before must not be trusted until then, and not
// unless Signer is trusted.
func (r *Reader) Next() (Record, error) { panic("not yet") }

// Signer and Hash are known after io.EOF.
func (r *Reader) Signer() ed25519.PublicKey { panic("not yet") }
func (r *Reader) Hash() Hash                { panic("not yet") }

// Description is what an archive of Firn's bears.
type Description struct {
	Set    string
	SetID  string
	Host   string
	Snap   string
	N      uint64
	At     time.Time
	Kind   snapshot.Kind
	Base   string
	Part   int    // volume number; 0 for the manifest and the key
	What   string // "volume", "manifest", "key"
	Codecs []string
}

// String is "firn/1 set=… …", at most 1,024 printable ASCII characters: the
// labels are cut where they must be.
func (d Description) String() string { panic("not yet") }

// ParseDescription reads what String writes; ok is false for what is not Firn's.
func ParseDescription(s string) (d Description, ok bool) { panic("not yet") }

// VolumeName is the archive name of a volume: LABEL-SETID/SNAP/000003-ATTEMPT.tar.zst.age.
func VolumeName(h *Header, n int, attempt string, exts ...string) string { panic("not yet") }

// ManifestName is LABEL-SETID/SNAP/manifest.jsonl.zst.age; attempt tells repeated
// tries at storing the same manifest apart and is empty for the first.
func ManifestName(h *Header, attempt string, exts ...string) string { panic("not yet") }

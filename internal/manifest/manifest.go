// Package manifest reads and writes manifests, the signed tables of contents
// that make snapshots exist, and the descriptions and names that archives bear
// in a vault. It is pure: bytes in, bytes out. docs/design/format.md is its
// specification.
package manifest

import (
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

// MaxLine is the length in bytes of the longest line that is written or read.
// It bounds the memory that a hostile manifest can take.
const MaxLine = 64 << 20

// maxLeaves is how many leaf hashes a volume's line holds at most; those of a
// larger volume (above 1 TiB) are left out, so that the line stays below MaxLine.
const maxLeaves = 1 << 20

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
	Stream   string // "tar", or what a producer of one stream writes: see IsStream
	Point    string // of a stream: what the producer calls the point in time that was sent; may be empty
	PointID  string // of a stream: what that point, and an incremental built on it, bears in the stream; may be empty
	Compress string
	Encrypt  string
	Paths    []string // what the set names, absolute, bytes
	Must     []string // keys a reader must understand
}

// IsStream says that the snapshot is what a producer wrote, and not a tree: it has no
// entries, and its chain is a tree of its own, in which an incremental may be built on any snapshot, not only on the last.
func (h *Header) IsStream() bool {
	return h.Stream == "zfs" || h.Stream == "btrfs" || h.Stream == "raw"
}

// Volume is one volume of a snapshot.
type Volume struct {
	N         int // from 1
	Archive   string
	Size      int64 // ciphertext bytes
	TreeHash  treehash.Hash
	Leaves    []treehash.Hash // of the archive's MiBs; nil when not known, or above 1 TiB
	Raw       int64           // bytes of the stream in it
	RawSHA256 *[32]byte       // of those bytes; nil where the producer cannot be re-run anyway
	Frames    []codec.Frame
	Header    []byte // the ciphertext's bytes before its first chunk
	Tail      []byte // the ciphertext's last chunk
}

// Packed is the size in bytes of the volume's frames together, the trailer left out.
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

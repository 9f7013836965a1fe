// Package treehash computes the SHA-256 tree hash of Amazon Glacier.
package treehash

// LeafSize is the number of bytes under one leaf of the tree: 1 MiB.
const LeafSize = 1 << 20

// Hash is a SHA-256 tree hash.
type Hash [32]byte

// New returns an empty Hasher.
func New() *Hasher { return &Hasher{} }

// Hasher is an io.Writer that computes the tree hash of what is written to it.
type Hasher struct{}

// Write never fails.
func (h *Hasher) Write(p []byte) (int, error) { panic("not yet") }

// Size is the number of bytes written.
func (h *Hasher) Size() int64 { panic("not yet") }

// Sum is the tree hash of all written so far; more may be written afterwards.
func (h *Hasher) Sum() Hash { panic("not yet") }

// Leaves are the hashes of the leaves written so far, the last one possibly of
// less than LeafSize bytes. No bytes at all have one leaf: the hash of nothing.
func (h *Hasher) Leaves() []Hash { panic("not yet") }

// Sum is the tree hash of data, computed on several processors where that pays.
func Sum(data []byte) Hash { panic("not yet") }

// Leaves are the leaf hashes of data.
func Leaves(data []byte) []Hash { panic("not yet") }

// Combine is the root over neighbouring hashes of equal level (the last one
// may stand for less): leaves, or parts of one power-of-two size of MiBs.
func Combine(hashes []Hash) Hash { panic("not yet") }

// Aligned says whether the range of size bytes at off of an archive of total
// bytes is tree-hash aligned.
func Aligned(off, size, total int64) bool { panic("not yet") }

// Parse reads 64 hexadecimal digits.
func Parse(s string) (Hash, error) { panic("not yet") }

// String is 64 lower-case hexadecimal digits.
func (h Hash) String() string { panic("not yet") }

// IsZero says that h was never set.
func (h Hash) IsZero() bool { return h == Hash{} }

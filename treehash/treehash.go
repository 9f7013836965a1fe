// Package treehash computes the SHA-256 tree hash of Amazon Glacier.
//
// The data is cut into leaves of 1 MiB, the last one possibly shorter. Each
// leaf is hashed with SHA-256; then neighbours are hashed together, two and two,
// over their raw 32-byte digests, until one is left. A node without a right
// neighbour rises unchanged. Data of at most 1 MiB has its plain SHA-256 as tree
// hash. The definition is that of the Amazon Glacier Developer Guide, "Computing
// Checksums" and "Receiving Checksums When Downloading Data".
package treehash

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"runtime"
	"sync"
	"sync/atomic"
)

// LeafSize is the number of bytes under one leaf of the tree: 1 MiB.
const LeafSize = 1 << 20

// parallelFrom is how many whole leaves must lie in memory together for a
// second goroutine to be worth starting.
const parallelFrom = 4

// Hash is a SHA-256 tree hash.
type Hash [sha256.Size]byte

// New returns an empty Hasher.
func New() *Hasher { return &Hasher{} }

// Hasher is an io.Writer that computes the tree hash of what is written to it.
// It holds no data: its memory is 32 bytes for each MiB written. Large writes
// are hashed on several processors. The zero value is empty and ready. It is not
// safe for concurrent use.
type Hasher struct {
	leaves []Hash    // of the whole leaves
	part   hash.Hash // over the bytes since the last whole leaf; nil before the first
	filled int       // how many those are, always less than LeafSize
	size   int64
}

// Write never fails.
func (h *Hasher) Write(p []byte) (int, error) {
	n := len(p)
	h.size += int64(n)
	if h.filled > 0 {
		p = h.fill(p)
	}
	if whole := len(p) / LeafSize; whole > 0 {
		h.leaves = appendLeaves(h.leaves, p[:whole*LeafSize])
		p = p[whole*LeafSize:]
	}
	if len(p) > 0 {
		h.fill(p)
	}
	return n, nil
}

// fill adds to the unfinished leaf and returns what did not fit.
func (h *Hasher) fill(p []byte) []byte {
	if h.part == nil {
		h.part = sha256.New()
	}
	n := min(len(p), LeafSize-h.filled)
	h.part.Write(p[:n])
	h.filled += n
	if h.filled == LeafSize {
		h.leaves = append(h.leaves, h.last())
		h.part.Reset()
		h.filled = 0
	}
	return p[n:]
}

func (h *Hasher) last() (leaf Hash) {
	h.part.Sum(leaf[:0])
	return leaf
}

// Size is the number of bytes written.
func (h *Hasher) Size() int64 { return h.size }

// Sum is the tree hash of all written so far; more may be written afterwards.
func (h *Hasher) Sum() Hash {
	var t tree
	for i := range h.leaves {
		t.add(h.leaves[i])
	}
	if h.filled > 0 {
		t.add(h.last())
	}
	return t.root()
}

// Leaves are the hashes of the leaves written so far, the last one possibly of
// less than LeafSize bytes. No bytes at all have one leaf: the hash of nothing.
// The slice is the caller's.
func (h *Hasher) Leaves() []Hash {
	if h.size == 0 {
		return []Hash{sha256.Sum256(nil)}
	}
	leaves := make([]Hash, len(h.leaves), len(h.leaves)+1)
	copy(leaves, h.leaves)
	if h.filled > 0 {
		leaves = append(leaves, h.last())
	}
	return leaves
}

// Reset empties h and keeps its memory.
func (h *Hasher) Reset() {
	h.leaves = h.leaves[:0]
	h.filled = 0
	h.size = 0
	if h.part != nil {
		h.part.Reset()
	}
}

// Sum is the tree hash of data, computed on several processors where that pays.
func Sum(data []byte) Hash {
	if len(data) <= LeafSize {
		return sha256.Sum256(data)
	}
	return Combine(Leaves(data))
}

// Leaves are the leaf hashes of data, as those of a Hasher.
func Leaves(data []byte) []Hash {
	if len(data) == 0 {
		return []Hash{sha256.Sum256(nil)}
	}
	return appendLeaves(nil, data)
}

// appendLeaves appends the leaf hashes of data, which begins at a leaf's begin.
func appendLeaves(leaves []Hash, data []byte) []Hash {
	n := (len(data) + LeafSize - 1) / LeafSize
	first := len(leaves)
	if free := cap(leaves) - first; free < n {
		grown := make([]Hash, first, max(first+n, 2*cap(leaves)))
		copy(grown, leaves)
		leaves = grown
	}
	leaves = leaves[:first+n]
	out := leaves[first:]
	leaf := func(i int) []byte { return data[i*LeafSize : min((i+1)*LeafSize, len(data))] }
	whole, pairs := len(data)/LeafSize, n > 1 && hasPairs()
	// two hashes leaves i and i+1, as far as there are such.
	two := func(i int) {
		if pairs && i+1 < whole {
			out[i], out[i+1] = sum2(leaf(i), leaf(i+1))
			return
		}
		for i := i; i < min(i+2, n); i++ {
			out[i] = sha256.Sum256(leaf(i))
		}
	}
	workers := min((n+1)/2, runtime.GOMAXPROCS(0))
	if n < parallelFrom || workers < 2 {
		for i := 0; i < n; i += 2 {
			two(i)
		}
		return leaves
	}
	var next atomic.Int64
	work := func() {
		for {
			i := 2 * int(next.Add(1)-1)
			if i >= n {
				return
			}
			two(i)
		}
	}
	var wg sync.WaitGroup
	for range workers - 1 {
		wg.Go(work)
	}
	work() // the caller's goroutine is one of the workers
	wg.Wait()
	return leaves
}

// Combine is the root over neighbouring hashes of equal level (the last one
// may stand for less): leaves, or parts of one power-of-two size of MiBs. It
// does not change hashes. No hashes at all have the root of no data.
func Combine(hashes []Hash) Hash {
	var t tree
	for i := range hashes {
		t.add(hashes[i])
	}
	return t.root()
}

// tree grows a hash tree from the left: it keeps the roots of the complete
// subtrees, largest first, as a binary counter keeps its ones.
type tree struct {
	n     uint64 // leaves added
	roots [64]Hash
	depth int // of roots
}

func (t *tree) add(h Hash) {
	for ones := t.n; ones&1 == 1; ones >>= 1 {
		t.depth--
		h = node(&t.roots[t.depth], &h)
	}
	t.roots[t.depth] = h
	t.depth++
	t.n++
}

// root joins the subtrees from the right: an odd last node rises until it has
// a left neighbour.
func (t *tree) root() Hash {
	if t.depth == 0 {
		return sha256.Sum256(nil)
	}
	h := t.roots[t.depth-1]
	for i := t.depth - 2; i >= 0; i-- {
		h = node(&t.roots[i], &h)
	}
	return h
}

func node(left, right *Hash) Hash {
	var both [2 * sha256.Size]byte
	copy(both[:sha256.Size], left[:])
	copy(both[sha256.Size:], right[:])
	return sha256.Sum256(both[:])
}

// MegabyteAligned says whether the range of size bytes at off of an archive
// of total bytes begins at a MiB and ends at one or at the archive's end. The
// empty range, and one outside the archive, is not.
func MegabyteAligned(off, size, total int64) bool {
	if off < 0 || size <= 0 || total <= 0 || off >= total || size > total-off {
		return false
	}
	end := off + size
	return off%LeafSize == 0 && (end%LeafSize == 0 || end == total)
}

// Aligned says whether the range of size bytes at off of an archive of total
// bytes is tree-hash aligned: megabyte aligned, and exactly what lies under one
// node of the archive's tree. Only of such ranges does the service tell the hash.
func Aligned(off, size, total int64) bool {
	if !MegabyteAligned(off, size, total) {
		return false
	}
	first := off / LeafSize                            // P
	last := (off + size + LeafSize - 1) / LeafSize     // Q, exclusive
	leaves := (total + LeafSize - 1) / LeafSize        // N
	for span := int64(1); first%span == 0; span *= 2 { // span = 2^i
		if last == min(first+span, leaves) {
			return true
		}
		if span >= leaves {
			return false
		}
	}
	return false
}

// Range is the tree hash of the range of size bytes at off of an archive of
// total bytes that has the given leaves. The range must be megabyte aligned; if it
// is Aligned too, the result is what the service tells for it.
func Range(leaves []Hash, off, size, total int64) (Hash, error) {
	if n := max(1, (total+LeafSize-1)/LeafSize); int64(len(leaves)) != n {
		return Hash{}, fmt.Errorf("treehash: %d leaves given for %d bytes, which have %d", len(leaves), total, n)
	}
	if !MegabyteAligned(off, size, total) {
		return Hash{}, fmt.Errorf("treehash: range of %d bytes at %d of %d is not megabyte aligned", size, off, total)
	}
	return Combine(leaves[off/LeafSize : (off+size+LeafSize-1)/LeafSize]), nil
}

// Parse reads 64 hexadecimal digits.
func Parse(s string) (Hash, error) {
	var h Hash
	err := h.UnmarshalText([]byte(s))
	return h, err
}

// String is 64 lower-case hexadecimal digits.
func (h Hash) String() string { return hex.EncodeToString(h[:]) }

// IsZero says that h was never set.
func (h Hash) IsZero() bool { return h == Hash{} }

// MarshalText is String. It never fails.
func (h Hash) MarshalText() ([]byte, error) {
	return hex.AppendEncode(make([]byte, 0, 2*len(h)), h[:]), nil
}

// UnmarshalText is Parse. An error leaves h as it was.
func (h *Hash) UnmarshalText(text []byte) error {
	if len(text) != 2*len(h) {
		return fmt.Errorf("treehash: %d characters instead of %d hexadecimal digits", len(text), 2*len(h))
	}
	var parsed Hash
	if _, err := hex.Decode(parsed[:], text); err != nil {
		return fmt.Errorf("treehash: %w", err)
	}
	*h = parsed
	return nil
}

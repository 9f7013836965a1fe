package treehash

import (
	"crypto/sha256"
	"math/rand/v2"
	"testing"
)

// TestPairs compares with the standard library at every length about the ends of blocks, and at all alignments.
func TestPairs(t *testing.T) {
	t.Parallel()
	if !hasPairs() {
		t.Skip("this processor hashes one message at a time")
	}
	r := rand.NewChaCha8([32]byte{3})
	data := make([]byte, 4096)
	r.Read(data)
	for n := 1; n < 700; n++ {
		for skew := range 3 {
			checkPair(t, data[skew:skew+n], data[2000-skew:2000-skew+n])
		}
	}
	leaf := make([]byte, 2*LeafSize+5)
	r.Read(leaf)
	checkPair(t, leaf[5:LeafSize+5], leaf[LeafSize+5:])
	checkPair(t, leaf[:LeafSize+1], leaf[4:LeafSize+5])
}

func FuzzPair(f *testing.F) {
	f.Add([]byte("ab"))
	f.Add(make([]byte, 2*119))
	f.Fuzz(func(t *testing.T, p []byte) {
		if len(p) < 2 || !hasPairs() {
			t.Skip()
		}
		half := len(p) / 2
		checkPair(t, p[:half], p[half:2*half])
	})
}

func checkPair(t *testing.T, a, b []byte) {
	t.Helper()
	x, y := sum2(a, b)
	if x != sha256.Sum256(a) || y != sha256.Sum256(b) {
		t.Errorf("two messages of %d bytes: %s and %s, want %s and %s", len(a), x, y, Hash(sha256.Sum256(a)), Hash(sha256.Sum256(b)))
	}
}

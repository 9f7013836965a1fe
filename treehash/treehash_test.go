package treehash

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/csv"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// naive is the definition, word for word: halve by the largest power of two of
// leaves, and hash the halves together.
func naive(data []byte) Hash {
	leaves := (len(data) + LeafSize - 1) / LeafSize
	if leaves <= 1 {
		return sha256.Sum256(data)
	}
	half := 1
	for 2*half < leaves {
		half *= 2
	}
	left, right := naive(data[:half*LeafSize]), naive(data[half*LeafSize:])
	return sha256.Sum256(append(left[:], right[:]...))
}

func pattern(t testing.TB, name string, size int) []byte {
	t.Helper()
	data := make([]byte, size, size+sha256.Size)
	switch name {
	case "zero":
	case "mod251":
		for i := range data {
			data[i] = byte(i % 251)
		}
	case "sha-ctr":
		data = data[:0]
		for n := uint64(0); len(data) < size; n++ {
			block := sha256.Sum256(binary.BigEndian.AppendUint64(nil, n))
			data = append(data, block[:]...)
		}
		data = data[:size]
	default:
		t.Fatalf("unknown pattern %q", name)
	}
	return data
}

func rows(t *testing.T, file string, columns int) [][]string {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r := csv.NewReader(f)
	r.FieldsPerRecord = columns
	all, err := r.ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	if len(all) < 100 {
		t.Fatalf("%s has only %d rows", file, len(all))
	}
	return all[1:]
}

func number(t testing.TB, s string) int64 {
	t.Helper()
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestVectors(t *testing.T) {
	t.Parallel()
	largest := map[string][]byte{}
	table := rows(t, "testdata/treehash-vectors.csv", 4)
	for _, row := range table {
		if size := int(number(t, row[0])); size >= len(largest[row[1]]) {
			largest[row[1]] = pattern(t, row[1], size)
		}
	}
	for _, row := range table {
		data := largest[row[1]][:number(t, row[0])]
		t.Run(row[1]+"/"+row[0], func(t *testing.T) {
			t.Parallel()
			if plain := sha256.Sum256(data); hex.EncodeToString(plain[:]) != row[3] {
				t.Fatal("the pattern is not what the vectors were made from")
			}
			if got := Sum(data).String(); got != row[2] {
				t.Errorf("Sum = %s, want %s", got, row[2])
			}
			h := New()
			for step := 777_777; len(data) > 0; data = data[min(step, len(data)):] {
				h.Write(data[:min(step, len(data))])
			}
			if got := h.Sum().String(); got != row[2] {
				t.Errorf("Hasher.Sum = %s, want %s", got, row[2])
			}
		})
	}
}

func TestRangeVectors(t *testing.T) {
	t.Parallel()
	leaves := map[int64][]Hash{}
	for _, row := range rows(t, "testdata/treehash-range-vectors.csv", 5) {
		total, start, end := number(t, row[0]), number(t, row[1]), number(t, row[2])
		if leaves[total] == nil {
			leaves[total] = Leaves(pattern(t, "mod251", int(total)))
		}
		size := end - start + 1
		if got := Aligned(start, size, total); got != (row[3] == "1") {
			t.Errorf("%v: Aligned = %v", row, got)
		}
		if got, err := Range(leaves[total], start, size, total); err != nil || got.String() != row[4] {
			t.Errorf("%v: Range = %v, %v", row, got, err)
		}
	}
}

// A range is aligned exactly if its own hash is that of a node of the
// archive's tree. There are 2n−1 nodes over n leaves.
func TestAlignedAreTheNodes(t *testing.T) {
	t.Parallel()
	for n := 1; n <= 40; n++ {
		leaves := make([]Hash, n)
		for i := range leaves {
			leaves[i] = sha256.Sum256([]byte{byte(n), byte(i)})
		}
		nodes := map[Hash]bool{}
		for level := leaves; ; {
			var up []Hash
			for i := range level {
				nodes[level[i]] = true
				if i%2 == 1 {
					up = append(up, node(&level[i-1], &level[i]))
				} else if i == len(level)-1 {
					up = append(up, level[i])
				}
			}
			if len(level) == 1 {
				break
			}
			level = up
		}
		total := int64(n)*LeafSize - 5
		aligned := 0
		for first := range n {
			for last := first + 1; last <= n; last++ {
				off, size := int64(first)*LeafSize, min(int64(last)*LeafSize, total)-int64(first)*LeafSize
				h, err := Range(leaves, off, size, total)
				if err != nil {
					t.Fatal(err)
				}
				is := Aligned(off, size, total)
				if is != nodes[h] {
					t.Fatalf("leaves [%d, %d) of %d: Aligned = %v, a node: %v", first, last, n, is, nodes[h])
				}
				if is {
					aligned++
				}
			}
		}
		if aligned != 2*n-1 {
			t.Fatalf("%d leaves: %d aligned ranges", n, aligned)
		}
	}
}

func TestNotAligned(t *testing.T) {
	t.Parallel()
	const mib = LeafSize
	for _, r := range [][3]int64{
		{0, 0, mib}, {0, 0, 0}, {-mib, mib, mib}, {0, mib, -1}, {0, 2 * mib, mib}, {mib, mib, mib}, {1, mib, 3 * mib},
		{0, mib - 1, mib}, {0, mib + 1, 2 * mib}, {mib, 1<<63 - 1, 2 * mib}, {1<<63 - mib, mib, mib}, {0, -mib, mib},
	} {
		if Aligned(r[0], r[1], r[2]) || MegabyteAligned(r[0], r[1], r[2]) {
			t.Errorf("%v is called aligned", r)
		}
		if _, err := Range(make([]Hash, max(1, (r[2]+mib-1)/mib)), r[0], r[1], r[2]); err == nil {
			t.Errorf("%v: Range has no error", r)
		}
	}
	if !Aligned(0, 1<<62, 1<<62) || Aligned(0, 1<<62-mib, 1<<62) || !Aligned(1<<61, 1<<61, 1<<62) {
		t.Error("very large archives")
	}
	if _, err := Range(make([]Hash, 2), 0, mib, mib); err == nil {
		t.Error("Range accepts a wrong number of leaves")
	}
}

// However the bytes arrive, the hash is the same, also in between.
func TestHasherAnySteps(t *testing.T) {
	t.Parallel()
	data := pattern(t, "sha-ctr", 11*LeafSize+77)
	rapid.Check(t, func(t *rapid.T) {
		h := New()
		if rapid.Bool().Draw(t, "used before") {
			h.Write(data[:rapid.IntRange(0, 3*LeafSize).Draw(t, "before")])
			h.Reset()
		}
		size := 0
		for range rapid.IntRange(0, 4).Draw(t, "writes") {
			n := rapid.OneOf(
				rapid.SampledFrom([]int{0, 1, LeafSize - 1, LeafSize, LeafSize + 1, 4 * LeafSize, 5*LeafSize + 1}),
				rapid.IntRange(0, 3*LeafSize),
			).Draw(t, "bytes")
			n = min(n, len(data)-size)
			h.Write(data[size : size+n])
			size += n
		}
		if h.Size() != int64(size) {
			t.Fatalf("Size = %d, want %d", h.Size(), size)
		}
		want := naive(data[:size])
		for range 2 {
			if h.Sum() != want {
				t.Fatalf("Sum of %d bytes is wrong", size)
			}
		}
		if Combine(h.Leaves()) != want {
			t.Fatalf("Leaves of %d bytes are wrong", size)
		}
		h.Leaves()[0] = Hash{}
		if h.Sum() != want {
			t.Fatal("Leaves are not the caller's own")
		}
	})
}

// Parts of a power of two of MiBs combine to the whole.
func TestCombineParts(t *testing.T) {
	t.Parallel()
	data := pattern(t, "sha-ctr", 13*LeafSize+1)
	for _, part := range []int{1, 2, 4, 8, 16} {
		for _, size := range []int{1, LeafSize, 5*LeafSize - 1, 8 * LeafSize, 12*LeafSize + 3, len(data)} {
			var hashes []Hash
			for off := 0; off < size; off += part * LeafSize {
				hashes = append(hashes, Sum(data[off:min(off+part*LeafSize, size)]))
			}
			before := fmt.Sprint(hashes)
			if Combine(hashes) != naive(data[:size]) {
				t.Errorf("%d bytes in parts of %d MiB", size, part)
			}
			if fmt.Sprint(hashes) != before {
				t.Error("Combine changed its argument")
			}
		}
	}
	if Combine(nil) != sha256.Sum256(nil) || New().Sum() != Sum(nil) || len(Leaves(nil)) != 1 || len(New().Leaves()) != 1 {
		t.Error("no data at all")
	}
}

func TestText(t *testing.T) {
	t.Parallel()
	want := Sum([]byte("firn"))
	got, err := Parse(strings.ToUpper(want.String()))
	if err != nil || got != want {
		t.Errorf("Parse = %v, %v", got, err)
	}
	for _, bad := range []string{"", "00", want.String() + "0", want.String()[1:], "g" + want.String()[1:], want.String()[:63] + "\n"} {
		if h, err := Parse(bad); err == nil || !h.IsZero() {
			t.Errorf("Parse(%q) = %v, %v", bad, h, err)
		}
	}
	type doc struct {
		A Hash
		B Hash `json:",omitzero"`
	}
	text, err := json.Marshal(doc{A: want})
	if err != nil || string(text) != `{"A":"`+want.String()+`"}` {
		t.Errorf("JSON: %s, %v", text, err)
	}
	var back doc
	if err := json.Unmarshal(text, &back); err != nil || back.A != want {
		t.Errorf("JSON back: %v, %v", back, err)
	}
	if err := json.Unmarshal([]byte(`{"A":"12"}`), &back); err == nil || back.A != want {
		t.Errorf("bad JSON: %v, %v", back, err)
	}
}

func TestNoDataKept(t *testing.T) {
	data := make([]byte, LeafSize)
	h := New()
	h.Write(data[:10])
	perLeaf := testing.AllocsPerRun(100, func() { h.Write(data) })
	if perLeaf > 1 {
		t.Errorf("%v allocations for each leaf", perLeaf)
	}
	if cap(h.leaves) > 4*len(h.leaves)+8 {
		t.Errorf("room for %d leaves, of %d", cap(h.leaves), len(h.leaves))
	}
}

func FuzzHasher(f *testing.F) {
	f.Add([]byte{}, uint32(0), uint16(0))
	f.Add([]byte("firn"), uint32(LeafSize-2), uint16(1))
	f.Add([]byte("x"), uint32(5*LeafSize+1), uint16(65535))
	f.Add(bytes.Repeat([]byte("ab"), 100), uint32(9*LeafSize), uint16(40000))
	f.Fuzz(func(t *testing.T, seed []byte, size uint32, step uint16) {
		data := make([]byte, size%(9*LeafSize+100))
		for i, n := 0, 0; i < len(data); i += 1 + n {
			n = copy(data[i:], seed)
		}
		want := naive(data)
		if Sum(data) != want {
			t.Error("Sum")
		}
		h, rest := New(), data
		for n := int(step)*64 + 1; len(rest) > 0; rest = rest[min(n, len(rest)):] {
			h.Write(rest[:min(n, len(rest))])
		}
		if h.Sum() != want {
			t.Error("Hasher.Sum")
		}
	})
}

func FuzzParse(f *testing.F) {
	f.Add("")
	f.Add(Sum(nil).String())
	f.Fuzz(func(t *testing.T, s string) {
		if h, err := Parse(s); err == nil && h.String() != strings.ToLower(s) {
			t.Errorf("Parse(%q) = %v", s, h)
		}
	})
}

func BenchmarkSum(b *testing.B) {
	for _, mib := range []int{1, 4, 16, 64} {
		b.Run(fmt.Sprintf("%dMiB", mib), func(b *testing.B) {
			data := make([]byte, mib*LeafSize)
			b.SetBytes(int64(len(data)))
			for b.Loop() {
				Sum(data)
			}
		})
	}
}

func BenchmarkPlainSHA256(b *testing.B) {
	data := make([]byte, 16*LeafSize)
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		sha256.Sum256(data)
	}
}

func BenchmarkHasher64KiB(b *testing.B) {
	data := make([]byte, 64<<10)
	b.SetBytes(int64(len(data)))
	h := New()
	for b.Loop() {
		h.Write(data)
	}
}

func BenchmarkCombineTiB(b *testing.B) {
	leaves := make([]Hash, 1<<20)
	for b.Loop() {
		Combine(leaves)
	}
}

package s3glacier

// The polynomial of CRC-64/NVME, reversed.
const polyNVME = 0x9a6c9329ac4bc9b5

// combineCRC is the checksum of two stretches of bytes, from those of each; size is that of the second, in bytes.
// A zero byte is a linear map of the checksum's bits: size of them are applied by squaring it.
func combineCRC(a, b uint64, size int64) uint64 {
	if a == 0 {
		return b
	}
	var m matrix
	m[0] = polyNVME // one zero bit
	for i := 1; i < 64; i++ {
		m[i] = 1 << (i - 1)
	}
	for range 3 { // one zero byte
		m = m.squared()
	}
	for n := uint64(size); n > 0; n >>= 1 {
		if n&1 == 1 {
			a = m.times(a)
		}
		if n > 1 {
			m = m.squared()
		}
	}
	return a ^ b
}

// matrix is one over GF(2), by columns.
type matrix [64]uint64

func (m *matrix) times(v uint64) uint64 {
	var sum uint64
	for i := 0; v != 0; i, v = i+1, v>>1 {
		if v&1 == 1 {
			sum ^= m[i]
		}
	}
	return sum
}

func (m *matrix) squared() matrix {
	var sq matrix
	for i := range m {
		sq[i] = m.times(m[i])
	}
	return sq
}

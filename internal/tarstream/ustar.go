package tarstream

import "github.com/firn-backup/firn/internal/snapshot"

// Where the fields of a ustar header lie, and how long they are, in bytes
// (POSIX.1-2017, pax, "ustar Interchange Format").
const (
	nameAt, nameLen   = 0, 100
	modeAt            = 100
	uidAt             = 108
	gidAt             = 116
	sizeAt            = 124
	mtimeAt           = 136
	sumAt             = 148
	flagAt            = 156
	linkAt, linkLen   = 157, 100
	magicAt           = 257
	unameAt, unameLen = 265, 32
	gnameAt, gnameLen = 297, 32
	majorAt           = 329
	minorAt           = 337
	prefixAt          = 345
	prefixLen         = 155

	max7  = 1<<21 - 1 // seven octal digits
	max11 = 1<<33 - 1 // eleven
)

// appendBlock appends the ustar header. What does not fit its field there has
// a PAX record (appendPAX); the field then holds as much as it can of a text,
// and 0 for a number.
func (h *header) appendBlock(dst []byte) []byte {
	start := len(dst)
	dst = append(dst, Trailer[:blockSize]...)
	b := (*[blockSize]byte)(dst[start:])
	h.putName(b)
	octal(b[modeAt:modeAt+8], int64(h.e.Mode&0o7777))
	octal(b[uidAt:uidAt+8], fit(int64(h.e.UID), max7))
	octal(b[gidAt:gidAt+8], fit(int64(h.e.GID), max7))
	octal(b[sizeAt:sizeAt+12], fit(h.size, max11))
	octal(b[mtimeAt:mtimeAt+12], fit(h.e.MTime.Sec, max11))
	b[flagAt] = h.flag
	copy(b[linkAt:linkAt+linkLen], h.link)
	copy(b[magicAt:], "ustar\x0000")
	copy(b[unameAt:unameAt+unameLen], h.e.User)
	copy(b[gnameAt:gnameAt+gnameLen], h.e.Group)
	var major, minor int64
	if h.flag == '3' || h.flag == '4' {
		major, minor = int64(h.e.Major), int64(h.e.Minor)
	}
	device(b[majorAt:majorAt+8], major)
	device(b[minorAt:minorAt+8], minor)
	checksum(b)
	return dst
}

// putName fills name and prefix.
func (h *header) putName(b *[blockSize]byte) {
	if cut, ok := h.splitName(); ok && cut > 0 {
		copy(b[prefixAt:prefixAt+prefixLen], h.name[:cut])
		n := copy(b[nameAt:nameAt+nameLen], h.name[cut+1:])
		if h.slash {
			b[nameAt+n] = '/'
		}
		return
	}
	n := copy(b[nameAt:nameAt+nameLen], h.name)
	if h.slash && n < nameLen {
		b[nameAt+n] = '/'
	}
}

// splitName says whether the name fits the header as it is, and at which slash
// it is then cut into prefix and name (0: not at all).
func (h *header) splitName() (cut int, ok bool) {
	n := len(h.name)
	if h.slash {
		n++
	}
	if !isASCII(h.name) {
		return 0, false // no field says in which encoding it is; a PAX record has bytes
	}
	if n <= nameLen {
		return 0, true
	}
	// The slash must leave at most 100 bytes behind it, and 155 before.
	for i := max(n-nameLen-1, 1); i < len(h.name) && i <= prefixLen; i++ {
		if h.name[i] == '/' && i+1 < len(h.name) {
			return i, true
		}
	}
	return 0, false
}

// fit is v, or 0 when it does not lie in 0 … most.
func fit(v, most int64) int64 {
	if v < 0 || v > most {
		return 0
	}
	return v
}

// octal fills b with v in octal digits and a NUL.
func octal(b []byte, v int64) {
	b[len(b)-1] = 0
	for i := len(b) - 2; i >= 0; i-- {
		b[i] = byte('0' + v&7)
		v >>= 3
	}
}

// device fills b with a device's number: octal, or the base-256 form that GNU
// tar, bsdtar and Go read, since PAX has no record for it. Linux has no
// numbers that need it; a manifest might.
func device(b []byte, v int64) {
	if v <= max7 {
		octal(b, v)
		return
	}
	for i := len(b) - 1; i >= 0; i-- {
		b[i] = byte(v)
		v >>= 8
	}
	b[0] |= 0x80
}

// checksum fills in the sum of all bytes of the header, its own field counted
// as blanks.
func checksum(b *[blockSize]byte) {
	copy(b[sumAt:sumAt+8], "        ")
	var sum int64
	for _, c := range b {
		sum += int64(c)
	}
	octal(b[sumAt:sumAt+7], sum)
}

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= 0x80 {
			return false
		}
	}
	return true
}

// paxBlock appends the header of an extended header of size bytes.
func (h *header) paxBlock(dst []byte, size int64) []byte {
	dir, base := split(h.name)
	x := header{
		e:    &snapshot.Entry{Mode: 0o644},
		flag: 'x',
		size: size,
	}
	// Only tars that do not know PAX ever see this name.
	x.name = dir + "PaxHeaders.0/" + base
	if cut, ok := x.splitName(); !ok || cut > 0 {
		x.name = "PaxHeaders.0/" + base
		if len(x.name) > nameLen {
			x.name = x.name[:nameLen]
		}
	}
	return x.appendBlock(dst)
}

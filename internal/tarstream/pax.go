package tarstream

import (
	"strconv"
	"strings"
)

// appendPAX appends the extended header with the records of all that the ustar
// header cannot hold, in a fixed order, or nothing when there are none. It
// sets h.err.
func (h *header) appendPAX(dst []byte) []byte {
	start := len(dst)
	dst = append(dst, Trailer[:blockSize]...) // place for its header
	body := len(dst)
	dst = h.appendRecords(dst)
	n := len(dst) - body
	if n == 0 {
		return dst[:start]
	}
	dst = append(dst, Trailer[:Padding(int64(n))]...)
	h.paxBlock(dst[:start], int64(n)) // in place
	return dst
}

func (h *header) appendRecords(dst []byte) []byte {
	e := h.e
	if _, ok := h.splitName(); !ok {
		name := h.name
		if h.slash {
			name += "/"
		}
		dst = record(dst, "path", name)
	}
	if len(h.link) > linkLen || !isASCII(h.link) {
		dst = record(dst, "linkpath", h.link)
	}
	if h.size > max11 {
		dst = record(dst, "size", strconv.FormatInt(h.size, 10))
	}
	if e.MTime.Nsec != 0 || fit(e.MTime.Sec, max11) != e.MTime.Sec {
		var b [32]byte
		dst = record(dst, "mtime", string(appendTime(b[:0], e.MTime.Sec, e.MTime.Nsec)))
	}
	if e.UID > max7 {
		dst = record(dst, "uid", strconv.FormatUint(uint64(e.UID), 10))
	}
	if e.GID > max7 {
		dst = record(dst, "gid", strconv.FormatUint(uint64(e.GID), 10))
	}
	dst = h.owner(dst, "uname", e.User)
	dst = h.owner(dst, "gname", e.Group)
	if h.sparse {
		dst = record(dst, "GNU.sparse.major", "1")
		dst = record(dst, "GNU.sparse.minor", "0")
		dst = record(dst, "GNU.sparse.name", e.Path)
		dst = record(dst, "GNU.sparse.realsize", strconv.FormatInt(e.Size, 10))
	}
	if h.flag != '1' {
		for i := range e.Xattrs {
			dst = h.xattr(dst, e.Xattrs[i].Name, e.Xattrs[i].Value)
		}
	}
	return dst
}

// owner appends an owner's name when the header's field cannot hold it; the
// field keeps room for a NUL.
func (h *header) owner(dst []byte, key, name string) []byte {
	if strings.IndexByte(name, 0) >= 0 {
		h.err = errName
	}
	if len(name) < unameLen && isASCII(name) {
		return dst
	}
	return record(dst, key, name)
}

// xattr appends the record of an extended attribute, and of an ACL's text.
func (h *header) xattr(dst []byte, name, value string) []byte {
	if name == "" || strings.IndexByte(name, 0) >= 0 {
		h.err = errName
		return dst
	}
	var key string
	switch name {
	case "system.posix_acl_access":
		key = "SCHILY.acl.access"
	case "system.posix_acl_default":
		key = "SCHILY.acl.default"
	}
	if key != "" {
		if text, ok := aclText(value); ok {
			dst = record(dst, key, text)
		}
	}
	// A '=' would end the keyword: GNU tar writes it as %3D, and % as %25.
	if strings.ContainsAny(name, "=%") {
		name = strings.NewReplacer("%", "%25", "=", "%3D").Replace(name)
	}
	return record2(dst, "SCHILY.xattr.", name, value)
}

// record appends one PAX record: its own length in decimal, a blank, key=value
// and a newline.
func record(dst []byte, key, value string) []byte { return record2(dst, "", key, value) }

func record2(dst []byte, prefix, key, value string) []byte {
	n := len(prefix) + len(key) + len(value) + 3 // blank, '=', newline
	size := n + digits(n)
	size = n + digits(size) // the length counts its own digits
	dst = strconv.AppendInt(dst, int64(size), 10)
	dst = append(dst, ' ')
	dst = append(dst, prefix...)
	dst = append(dst, key...)
	dst = append(dst, '=')
	dst = append(dst, value...)
	return append(dst, '\n')
}

func digits(n int) int {
	d := 1
	for n >= 10 {
		n /= 10
		d++
	}
	return d
}

// appendTime appends a PAX time: seconds, and a fraction without zeros at its
// end. It is a decimal number, so that half a second before 1970 is -0.5.
func appendTime(dst []byte, sec int64, nsec int32) []byte {
	if nsec == 0 {
		return strconv.AppendInt(dst, sec, 10)
	}
	if sec < 0 {
		sec, nsec = sec+1, 1_000_000_000-nsec
		dst = append(dst, '-')
		sec = -sec
	}
	dst = strconv.AppendInt(dst, sec, 10)
	frac := strconv.AppendInt(make([]byte, 0, 16), int64(nsec)+1_000_000_000, 10)
	frac[0] = '.'
	for frac[len(frac)-1] == '0' {
		frac = frac[:len(frac)-1]
	}
	return append(dst, frac...)
}
